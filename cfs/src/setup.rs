//! Writing venus.conf and the realms file without disturbing what else they say.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Where the configuration of whoever calls belongs.
pub fn directory() -> Option<PathBuf> {
    // SAFETY: geteuid reads a number and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return Some("/etc/coda".into());
    }
    let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    config
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
        .map(|dir| dir.join("coda"))
}

/// Writes both files (the realms file only where hosts are named); answers which were written.
pub fn write(dir: &Path, realm: &str, kb: u64, hosts: &[&str]) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    fs::create_dir_all(dir).map_err(at(dir))?;
    let (conf, realms) = (dir.join("venus.conf"), dir.join("realms"));
    let mut text = with_setting(&read(&conf).map_err(at(&conf))?, "realm", realm);
    text = with_setting(&without_setting(&text, "cacheblocks"), "cachesize", &format!("{kb}KB"));
    let mut written = vec![conf.clone()];
    if !hosts.is_empty() {
        if dir != Path::new("/etc/coda") {
            text = with_setting(&text, "realmtab", &realms.display().to_string());
        }
        let lines = with_realm(&read(&realms).map_err(at(&realms))?, realm, hosts);
        replace(&realms, &lines).map_err(at(&realms))?;
        written.push(realms);
    }
    replace(&conf, &text).map_err(at(&conf))?;
    Ok(written)
}

fn read(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

/// Half a file is never seen, whatever happens.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, file)
}

fn is_setting(line: &str, key: &str) -> bool {
    line.split_once('=').is_some_and(|(name, _)| name.trim() == key)
}

/// The text with `key=value`, in the place of its last line if it has one.
fn with_setting(text: &str, key: &str, value: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let setting = format!("{key}={value}");
    match lines.iter().rposition(|line| is_setting(line, key)) {
        Some(at) => lines[at] = setting,
        None => lines.push(setting),
    }
    lines.join("\n") + "\n"
}

/// The text with the lines of `key` commented out.
fn without_setting(text: &str, key: &str) -> String {
    text.lines()
        .map(|line| if is_setting(line, key) { format!("#{line}\n") } else { format!("{line}\n") })
        .collect()
}

/// The realms file with one line for `realm`.
fn with_realm(text: &str, realm: &str, hosts: &[&str]) -> String {
    let others = text.lines().filter(|line| line.split_whitespace().next() != Some(realm));
    let others: String = others.map(|line| format!("{line}\n")).collect();
    format!("{others}{realm} {}\n", hosts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_replaced_where_it_stands_or_added() {
        assert_eq!(with_setting("a=1\nb=2\n", "a", "3"), "a=3\nb=2\n");
        assert_eq!(with_setting("", "a", "3"), "a=3\n");
        assert_eq!(without_setting("a=1\nb=2\n", "a"), "#a=1\nb=2\n");
    }

    #[test]
    fn a_realm_has_one_line() {
        let text = "# mine\nother x y\nexample.org old\n";
        assert_eq!(with_realm(text, "example.org", &["s1", "s2"]), "# mine\nother x y\nexample.org s1 s2\n");
    }
}

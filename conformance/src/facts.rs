//! What a run left behind, as facts that two runs can be compared by.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use anyhow::Context;

/// Facts by name: equal runs have equal facts.
pub type Facts = BTreeMap<String, String>;

/// Everything below `dir`: kind, mode, and contents. Paths for which `leave_out` is true (relative to `dir`)
/// are not looked at, nor is what is below them.
pub fn tree(dir: &Path, leave_out: &dyn Fn(&Path) -> bool) -> anyhow::Result<Facts> {
    let mut facts = Facts::new();
    walk(dir, Path::new(""), leave_out, &mut facts)?;
    Ok(facts)
}

fn walk(
    top: &Path,
    below: &Path,
    leave_out: &dyn Fn(&Path) -> bool,
    facts: &mut Facts,
) -> anyhow::Result<()> {
    let dir = top.join(below);
    for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let name = entry?.file_name();
        let path = below.join(&name);
        if leave_out(&path) {
            continue;
        }
        let full = top.join(&path);
        facts.insert(path.display().to_string(), fact(&full).with_context(|| full.display().to_string())?);
        if full.symlink_metadata()?.is_dir() {
            walk(top, &path, leave_out, facts)?;
        }
    }
    Ok(())
}

fn fact(path: &Path) -> anyhow::Result<String> {
    let meta = path.symlink_metadata()?;
    let mode = meta.mode() & 0o7777;
    Ok(if meta.is_dir() {
        format!("directory {mode:o}")
    } else if meta.is_symlink() {
        format!("link to {:?}", std::ffi::OsStr::from_bytes(fs::read_link(path)?.as_os_str().as_bytes()))
    } else {
        let mut hasher = blake3::Hasher::new();
        let length = std::io::copy(&mut fs::File::open(path)?, &mut hasher)?;
        anyhow::ensure!(length == meta.len(), "stat says {} bytes, {length} were read", meta.len());
        format!("file {mode:o} {length} {}", hasher.finalize().to_hex())
    })
}

/// What differs, one line each, at most `limit` of them.
pub fn differences(local: &Facts, mount: &Facts, limit: usize) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = local.keys().chain(mount.keys()).collect();
    let absent = String::from("nothing");
    names
        .into_iter()
        .filter(|name| local.get(*name) != mount.get(*name))
        .map(|name| {
            let (here, there) = (local.get(name).unwrap_or(&absent), mount.get(name).unwrap_or(&absent));
            format!("{name}: locally {here}, on the mount {there}")
        })
        .take(limit)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_a_changed_mode_and_a_missing_file_are_differences() {
        use std::os::unix::fs::PermissionsExt;
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&one, &two] {
            fs::create_dir(dir.path().join("d")).unwrap();
            fs::write(dir.path().join("d/same"), "same").unwrap();
            fs::write(dir.path().join("d/bytes"), "old").unwrap();
            fs::write(dir.path().join("d/mode"), "").unwrap();
            fs::write(dir.path().join("d/gone"), "").unwrap();
        }
        let all = |dir: &tempfile::TempDir| tree(dir.path(), &|_| false).unwrap();
        assert_eq!(differences(&all(&one), &all(&two), 9), Vec::<String>::new());

        fs::write(two.path().join("d/bytes"), "new").unwrap();
        fs::set_permissions(two.path().join("d/mode"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(two.path().join("d/gone")).unwrap();
        let found = differences(&all(&one), &all(&two), 9);
        let names: Vec<&str> = found.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(names, ["d/bytes", "d/gone", "d/mode"]);
    }
}

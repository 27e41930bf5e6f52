//! `cfs replay`: does again what a checkpoint of the log holds, as whoever calls it. Nothing that is there is
//! overwritten: what differs is put beside it, and said. What was removed or renamed is shown, and done if somebody
//! says so.

mod steps;

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, PermissionsExt, symlink},
    },
    path::{Component, Path, PathBuf},
};

use coda_proto::control::{Failure, FailureKind};
use serde_json::json;

use super::Command;
use crate::{Talk, exit::Exit};
use steps::{Done, Step, list_beside, steps};

const BLOCK: usize = 512;
/// A name in an archive is no longer.
const LONG: u64 = 64 * 1024;
/// What is put beside something else.
const BESIDE: &str = ".replayed";

pub const COMMAND: Command = Command {
    name: "replay",
    short: &[],
    usage: "cfs replay [-y | --dry-run] <archive> <dir>",
    about: "does again below dir what checkpointml saved; what differs stays, with the other beside; asks before removing",
    run: |talk, args| {
        let words = args.rest(2, 2)?;
        let (archive, dir) = (talk.here().join(&words[0]), talk.here().join(&words[1]));
        let unread = |what: &Path, error: io::Error| Failure {
            kind: FailureKind::Io,
            what: what.display().to_string(),
            why: error.to_string(),
            next: String::new(),
        };
        follow(talk, &archive, &dir).map_err(|error| unread(&dir, error))?;
        if talk.dry_run {
            let what = format!("what {} holds is put back, beside what differs", archive.display());
            talk.say(&format!("would do: {what}\n"));
            talk.tell(Some(&words[1]), &json!({ "would_do": what }));
            return Ok(());
        }
        let mut replayed = Replayed::default();
        let done =
            fs::File::open(&archive).and_then(|file| replayed.all(&mut io::BufReader::new(file), &dir));
        for place in &replayed.beside {
            talk.say(&format!("differs, and is kept beside: {}\n", place.display()));
        }
        talk.say(&format!("{} objects put back, {} were there already\n", replayed.made, replayed.same));
        let beside: Vec<String> = replayed.beside.iter().map(|place| crate::path::text(place)).collect();
        let told = json!({ "put_back": replayed.made, "there_already": replayed.same, "beside": beside });
        talk.tell(Some(&words[1]), &told);
        done.map_err(|error| unread(&archive, error))?;
        if !replayed.beside.is_empty() {
            talk.ends_as(Exit::Failed);
        }
        Ok(())
    },
};

/// Removes and renames again, after asking, what the list beside the archive names and is still there. It comes before
/// what was made: a directory is to have its new name before something is put into it.
fn follow(talk: &mut Talk<'_>, archive: &Path, dir: &Path) -> io::Result<()> {
    let list = match fs::read_to_string(list_beside(archive)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        list => list?,
    };
    let (steps, unclear) = steps(&list, dir);
    if unclear > 0 {
        talk.say(&format!("{unclear} removals or renames name nothing surely and are left to you\n"));
    }
    let open: Vec<Step> = steps.into_iter().filter(Step::is_open).collect();
    if open.is_empty() {
        return Ok(());
    }
    open.iter().for_each(|step| talk.say(&format!("    {step}\n")));
    if !asked(talk, "These were removed or renamed. Do that again?") {
        talk.say(&format!("{} removals and renames left out\n", open.len()));
        let steps: Vec<String> = open.iter().map(ToString::to_string).collect();
        let key = if talk.dry_run { "would_do" } else { "left_out" };
        talk.tell(None, &json!({ key: steps }));
        return Ok(());
    }
    let mut done = 0;
    for step in &open {
        match step.follow()? {
            Done::Now => done += 1,
            Done::Before => {}
            Done::Not => {
                talk.say(&format!("not done, something is in the way: {step}\n"));
                talk.ends_as(Exit::Failed);
            }
        }
    }
    talk.say(&format!("{done} removals and renames done\n"));
    Ok(())
}

/// A question whose answer is no unless somebody says yes.
fn asked(talk: &mut Talk<'_>, question: &str) -> bool {
    if talk.dry_run || talk.yes {
        return !talk.dry_run;
    }
    talk.say(&format!("{question} [n] "));
    let mut answer = String::new();
    let heard = talk.input.read_line(&mut answer).is_ok();
    if answer.is_empty() {
        talk.say("\n");
    }
    heard && answer.starts_with(['y', 'Y'])
}

#[derive(Default)]
struct Replayed {
    made: u64,
    same: u64,
    beside: Vec<PathBuf>,
}

impl Replayed {
    fn all(&mut self, archive: &mut impl Read, dir: &Path) -> io::Result<()> {
        let (mut long_path, mut long_target) = (None, None);
        while let Some(header) = header(archive)? {
            let size = header.size;
            match header.flag {
                b'L' | b'K' => {
                    if size > LONG {
                        return Err(malformed("a name is too long"));
                    }
                    let mut text = vec![0; size as usize];
                    archive.read_exact(&mut text)?;
                    text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
                    skip(archive, padding(size))?;
                    if header.flag == b'L' {
                        long_path = Some(text);
                    } else {
                        long_target = Some(text);
                    }
                }
                flag => {
                    let path = long_path.take().unwrap_or(header.path);
                    let target = long_target.take().unwrap_or(header.target);
                    let place = below(dir, &path).ok_or_else(|| malformed("a name leads elsewhere"))?;
                    let mut contents = archive.by_ref().take(size);
                    match flag {
                        b'0' => self.file(&place, header.mode, &mut contents)?,
                        b'5' => self.directory(&place)?,
                        b'2' => self.link(&place, OsStr::from_bytes(&target))?,
                        _ => return Err(malformed("it holds something that no checkpoint holds")),
                    }
                    io::copy(&mut contents, &mut io::sink())?;
                    skip(archive, padding(size))?;
                }
            }
        }
        Ok(())
    }

    fn directory(&mut self, place: &Path) -> io::Result<()> {
        match fs::symlink_metadata(place) {
            Ok(there) if there.is_dir() => self.same += 1,
            // What is in it cannot be put there.
            Ok(_) => return Err(io::Error::other(format!("{} is no directory", place.display()))),
            Err(_) => {
                fs::create_dir_all(place)?;
                self.made += 1;
            }
        }
        Ok(())
    }

    fn link(&mut self, place: &Path, target: &OsStr) -> io::Result<()> {
        match fs::symlink_metadata(place) {
            Ok(_) if fs::read_link(place).is_ok_and(|there| there == target) => self.same += 1,
            Ok(_) => {
                let place = beside(place);
                symlink(target, &place)?;
                self.beside.push(place);
            }
            Err(_) => {
                symlink(target, place)?;
                self.made += 1;
            }
        }
        Ok(())
    }

    fn file(&mut self, place: &Path, mode: u32, contents: &mut impl Read) -> io::Result<()> {
        if let Some(above) = place.parent() {
            fs::create_dir_all(above)?;
        }
        let there = fs::symlink_metadata(place).is_ok();
        let to = if there { beside(place) } else { place.to_owned() };
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(mode | 0o600).open(&to)?;
        io::copy(contents, &mut file)?;
        file.flush()?;
        drop(file);
        fs::set_permissions(&to, fs::Permissions::from_mode(mode & 0o777))?;
        match there {
            false => self.made += 1,
            true if equal(place, &to)? => {
                fs::remove_file(&to)?;
                self.same += 1;
            }
            true => self.beside.push(to),
        }
        Ok(())
    }
}

/// A name beside another that nothing has yet.
fn beside(place: &Path) -> PathBuf {
    let mut names = (1..).map(|n| {
        let mut name = place.as_os_str().to_owned();
        name.push(if n == 1 { BESIDE.to_owned() } else { format!("{BESIDE}-{n}") });
        PathBuf::from(name)
    });
    names.find(|name| fs::symlink_metadata(name).is_err()).expect("there is no end of numbers")
}

fn equal(one: &Path, other: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(one)?.is_file() {
        return Ok(false);
    }
    Ok(fs::read(one)? == fs::read(other)?)
}

/// A path of an archive below a directory; `None` where it leads out of it.
fn below(dir: &Path, path: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(path));
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    (inside && path.file_name().is_some()).then(|| dir.join(path))
}

struct Header {
    path: Vec<u8>,
    target: Vec<u8>,
    mode: u32,
    size: u64,
    flag: u8,
}

/// The next member's header; `None` at the end.
fn header(archive: &mut impl Read) -> io::Result<Option<Header>> {
    let mut block = [0; BLOCK];
    archive.read_exact(&mut block)?;
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let sum: u64 = (block.iter().enumerate())
        .map(|(at, byte)| if (148..156).contains(&at) { u64::from(b' ') } else { u64::from(*byte) })
        .sum();
    if octal(&block[148..156]) != Some(sum) {
        return Err(malformed("a header is damaged"));
    }
    let size = match block[124] {
        0x80 => u64::from_be_bytes(block[128..136].try_into().expect("eight bytes")),
        _ => octal(&block[124..136]).ok_or_else(|| malformed("a size makes no sense"))?,
    };
    let text = |from: usize| {
        let field = &block[from..from + 100];
        field[..field.iter().position(|byte| *byte == 0).unwrap_or(100)].to_vec()
    };
    let mode = octal(&block[100..108]).unwrap_or(0o600) as u32;
    Ok(Some(Header { path: text(0), target: text(157), mode, size, flag: block[156] }))
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn skip(archive: &mut impl Read, bytes: u64) -> io::Result<()> {
    io::copy(&mut archive.by_ref().take(bytes), &mut io::sink()).map(drop)
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::process::Command as Run;

    use super::*;
    use crate::fake::{Fake, run};

    #[test]
    fn what_is_there_and_differs_stays_with_the_other_beside() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let long = "n".repeat(150);
        fs::create_dir_all(from.join("d")).unwrap();
        fs::create_dir_all(&to).unwrap();
        for (name, contents) in [("new", "new"), ("same", "same"), ("other", "mine"), (&long, "long")] {
            fs::write(from.join(name), contents).unwrap();
        }
        symlink("new", from.join("d/link")).unwrap();
        fs::write(to.join("same"), "same").unwrap();
        fs::write(to.join("other"), "theirs").unwrap();
        let archive = dir.path().join("saved.tar");
        let mut tar = Run::new("tar");
        tar.arg("cf").arg(&archive).args(["--format=gnu", "new", "same", "other", &long, "d"]);
        let Ok(status) = tar.current_dir(&from).status() else { return };
        assert!(status.success());
        let line = format!("replay {} {}", archive.display(), to.display());
        let shown = run(&mut Fake::world(), &line, "");
        assert_eq!(shown.code, 1, "{}", shown.err);
        assert!(shown.out.contains("other.replayed"), "{}", shown.out);
        assert!(shown.out.ends_with("4 objects put back, 1 were there already\n"), "{}", shown.out);
        let read = |name: &str| fs::read_to_string(to.join(name)).unwrap();
        assert_eq!(
            (read("new"), read("other"), read("other.replayed")),
            ("new".into(), "theirs".into(), "mine".into())
        );
        assert_eq!(read(&long), "long");
        assert_eq!(fs::read_link(to.join("d/link")).unwrap(), Path::new("new"));
    }

    #[test]
    fn what_was_removed_or_renamed_is_done_again_after_asking() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("renamed")).unwrap();
        fs::write(from.join("renamed/new"), "new").unwrap();
        let archive = dir.path().join("realm_v.tar");
        let mut tar = Run::new("tar");
        tar.arg("cf").arg(&archive).args(["--format=gnu", "renamed/new"]).current_dir(&from);
        assert!(tar.status().unwrap().success());
        let list =
            "Remove\told\nRename\td (to: renamed)\nCreate\trenamed/new\nRmdir\tfull\nRename\ta (to: b)\n";
        fs::write(dir.path().join("realm_v.cml"), list).unwrap();
        for place in ["d", "full"] {
            fs::create_dir_all(to.join(place)).unwrap();
        }
        for (name, contents) in [("old", "old"), ("d/kept", "kept"), ("full/x", "x"), ("a", "a"), ("b", "b")]
        {
            fs::write(to.join(name), contents).unwrap();
        }
        let line = format!("replay {} {}", archive.display(), to.display());
        let shown = run(&mut Fake::world(), &line, "");
        assert!(
            shown.out.contains("    remove  ") && shown.out.contains("4 removals and renames left out\n"),
            "{shown:?}"
        );
        assert!(to.join("old").exists() && to.join("d/kept").exists() && to.join("renamed/new").exists());
        let shown = run(&mut Fake::world(), &format!("--json {line} --dry-run"), "yes\n");
        let told: Vec<serde_json::Value> =
            shown.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(told[0]["ok"]["would_do"].as_array().unwrap().len(), 4, "{shown:?}");
        assert!(told[1]["ok"]["would_do"].is_string() && to.join("old").exists(), "{shown:?}");
        fs::remove_dir_all(to.join("renamed")).unwrap();
        let shown = run(&mut Fake::world(), &line, "yes\n");
        assert_eq!(shown.code, 1, "two could not be done: {shown:?}");
        assert_eq!(shown.out.matches("not done, something is in the way").count(), 2, "{shown:?}");
        assert!(!to.join("old").exists() && !to.join("d").exists() && to.join("renamed/kept").exists());
        assert_eq!(fs::read_to_string(to.join("renamed/new")).unwrap(), "new");
        assert_eq!(fs::read_to_string(to.join("b")).unwrap(), "b");
        assert!(to.join("full/x").exists() && to.join("a").exists());
    }

    #[test]
    fn an_archive_cannot_lead_elsewhere() {
        for path in ["/etc/passwd", "../x", "d/../../x", "", "."] {
            assert_eq!(below(Path::new("/coda/r"), path.as_bytes()), None, "{path}");
        }
        assert_eq!(below(Path::new("/coda/r"), b"d/f"), Some("/coda/r/d/f".into()));
    }
}

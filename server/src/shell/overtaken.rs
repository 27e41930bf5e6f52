//! Files of `db` that somebody edited, and that the realm has overtaken meanwhile.

use std::{fs, path::Path};

use crate::location::FileError;

/// Refuses a file that was edited before the realm changed: what has happened since would be undone by lines that nobody
/// touched. `now` is what the file would be without the edit. A file that this server never wrote is nobody's edit of one.
pub fn refuse(path: &Path, text: &str, now: &str) -> Result<(), FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Ok(written) = fs::read_to_string(path.with_file_name(format!(".{name}.written"))) else {
        return Ok(());
    };
    let (before, now) = (lines(&written), lines(now));
    let stale = |words: &Vec<&str>| before.contains(words) && !now.contains(words);
    let number = text.lines().position(|line| stale(&line.split_whitespace().collect()));
    // A line for what came since is missing, too, unless somebody put it there.
    let has =
        |first: &str| [&before, &lines(text)].iter().any(|all| all.iter().any(|words| words[0] == first));
    let missing = now.iter().find(|words| !has(words[0]));
    let what = match (number, missing) {
        (Some(_), _) => "this line".to_owned(),
        (None, Some(words)) => format!("the line of {}, which is not here,", words[0]),
        (None, None) => return Ok(()),
    };
    let why = format!(
        "{what} has changed in the realm since this file was edited: make the edit in {name}.now, which is as the \
         realm is, and put it in the place of this file"
    );
    Err(FileError::new(&name, number.map_or(0, |index| index + 1), why))
}

/// The words of each line that says something.
fn lines(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|words| !words.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use coda_proto::{Acl, Rights, ServerId, wire};

    use crate::{setup, shell::vice};

    #[test]
    fn an_edit_that_the_realm_has_overtaken_undoes_nothing() {
        let read =
            |dir: &std::path::Path, name: &str| std::fs::read_to_string(dir.join("db").join(name)).unwrap();
        let info = |id: u32| wire::ServerInfo { id, name: format!("s{id}"), endpoints: Vec::new() };
        let mut realm = setup::realm("r", vec![info(1), info(2)], Rights::ALL).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let home = setup::add_volume_on(&mut realm, "home", &[ServerId(1)], &Acl::root(Rights::ALL));
        vice::write_db(dir.path(), &realm).unwrap();
        let list = dir.path().join("db/VRList");
        let mine = "mine 7f000009 1 02000009 0 0 0 0 0 0 0\n";
        std::fs::write(&list, format!("# ours\n{}{mine}", read(dir.path(), "VRList"))).unwrap();
        assert_eq!(vice::edits(dir.path(), &realm).unwrap().difference.len(), 1);

        // Somebody adds a replica, and a server joins; the file knows nothing of them.
        let member = wire::Member { slot: 1, replica: 0x0200_0007, server: 2, state: 2 };
        realm.volumes.get_mut(&home).unwrap().info.members.push(member);
        realm.servers.insert(ServerId(3), info(3));
        std::fs::write(dir.path().join("db/servers"), "s1 1\n s2  2\ns4 4\n").unwrap();
        assert_eq!(vice::write_db(dir.path(), &realm).unwrap(), ["VRList", "servers"]);
        let refused = vice::edits(dir.path(), &realm).unwrap_err();
        assert!(refused.to_string().starts_with("servers: the line of s3, which is not here,"), "{refused}");
        std::fs::copy(dir.path().join("db/servers.now"), dir.path().join("db/servers")).unwrap();
        let refused = vice::edits(dir.path(), &realm).unwrap_err();
        assert!(refused.to_string().starts_with("VRList:3: this line has changed"), "{refused}");

        // As the message says.
        std::fs::write(&list, format!("{}{mine}", read(dir.path(), "VRList.now"))).unwrap();
        assert_eq!(vice::edits(dir.path(), &realm).unwrap().difference.len(), 1);
        // A replica is taken out by a line that somebody did touch.
        let without = read(dir.path(), "VRList.now").replace("2 01000002 02000007", "1 01000002 0");
        std::fs::write(&list, without).unwrap();
        let difference = vice::edits(dir.path(), &realm).unwrap().difference;
        assert!(
            difference[0].contains("02000007 of home") && difference[0].contains("leaving"),
            "{difference:?}"
        );
    }
}

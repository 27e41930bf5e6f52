//! `venus-setup` and `coda-client-setup`: write the configuration, for documents that say to run them.

use std::path::PathBuf;

use coda_proto::control::{Failure, FailureKind, Reply};

use super::Command;
use crate::{Talk, exit::Stop, setup};

pub const VENUS: Command = Command {
    name: "venus-setup",
    short: &[],
    usage: "venus-setup [--dir DIR] <host>[,<host>...] <cachesize in KB>",
    about: "writes venus.conf and the realms file for a realm named after the first host",
    run: |talk, mut args| {
        let dir = args.value(&["--dir"])?.map(PathBuf::from);
        let words = args.rest(2, 2)?;
        let (hosts, blocks) = (words[0].to_string_lossy(), kilobytes(&words[1].to_string_lossy())?);
        let hosts: Vec<&str> = hosts.split(',').filter(|host| !host.is_empty()).collect();
        let realm = *hosts.first().ok_or(Stop::Usage)?;
        write(talk, dir, realm, blocks, &hosts)
    },
};

pub const CLIENT: Command = Command {
    name: "coda-client-setup",
    short: &[],
    usage: "coda-client-setup [--dir DIR] <realm> [cachesize in KB]",
    about: "writes venus.conf for a realm that DNS or the realms file knows",
    run: |talk, mut args| {
        let dir = args.value(&["--dir"])?.map(PathBuf::from);
        let words = args.rest(1, 2)?;
        let blocks = words.get(1).map_or(Ok(100_000), |word| kilobytes(&word.to_string_lossy()))?;
        write(talk, dir, &words[0].to_string_lossy(), blocks, &[])
    },
};

fn kilobytes(word: &str) -> Result<u64, Stop> {
    word.parse().map_err(|_| Stop::Usage)
}

fn write(
    talk: &mut Talk<'_>,
    dir: Option<PathBuf>,
    realm: &str,
    kb: u64,
    hosts: &[&str],
) -> Result<(), Stop> {
    let dir = dir.or_else(setup::directory).ok_or_else(|| Failure {
        kind: FailureKind::NotFound,
        what: "venus.conf".into(),
        why: "there is no home directory to put it in".into(),
        next: "name a directory with --dir".into(),
    })?;
    let written = setup::write(&dir, realm, kb, hosts).map_err(|(file, error)| Failure {
        kind: FailureKind::Io,
        what: file.display().to_string(),
        why: error.to_string(),
        next: String::new(),
    })?;
    let files = written.iter().map(|file| file.display().to_string()).collect();
    talk.answer(None, Ok(Reply::Written(files)), |_| {
        written.iter().map(|file| format!("wrote {}\n", file.display())).collect()
    });
    talk.say(&format!("Start `venus`, then look at /coda/{realm}\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::fake::{Fake, run};

    #[test]
    fn venus_setup_names_all_servers_in_the_realms_file() {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("venus-setup --dir {} scmhost,nonscmhost 100000", dir.path().display());
        let shown = run(&mut Fake::default(), &line, "");
        assert_eq!(shown.code, 0, "{}", shown.err);
        assert!(shown.out.ends_with("then look at /coda/scmhost\n"), "{}", shown.out);
        let conf = fs::read_to_string(dir.path().join("venus.conf")).unwrap();
        assert!(conf.contains("realm=scmhost\n") && conf.contains("cachesize=100000KB\n"), "{conf}");
        assert!(conf.contains(&format!("realmtab={}/realms\n", dir.path().display())), "{conf}");
        let realms = fs::read_to_string(dir.path().join("realms")).unwrap();
        assert_eq!(realms, "scmhost scmhost nonscmhost\n");
    }

    #[test]
    fn coda_client_setup_leaves_the_servers_to_dns_and_the_rest_of_the_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("venus.conf"), "# mine\nrpc_timeout=7\ncacheblocks=1\n").unwrap();
        let line = format!("coda-client-setup --dir {} example.org", dir.path().display());
        assert_eq!(run(&mut Fake::default(), &line, "").code, 0);
        let conf = fs::read_to_string(dir.path().join("venus.conf")).unwrap();
        assert_eq!(conf, "# mine\nrpc_timeout=7\n#cacheblocks=1\nrealm=example.org\ncachesize=100000KB\n");
        assert!(!dir.path().join("realms").exists());
    }

    #[test]
    fn a_size_that_is_none_is_refused() {
        assert_eq!(run(&mut Fake::default(), "venus-setup host lots", "").code, 255);
        assert_eq!(run(&mut Fake::default(), "venus-setup host", "").code, 255);
        assert_eq!(run(&mut Fake::default(), "venus-setup , 10", "").code, 255);
    }
}

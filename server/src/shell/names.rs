//! Programs of old whose work is done by something else now: each answers in one line what.

/// Names, and what replaced them.
pub const REPLACED: [(&str, &str); 12] = [
    (
        "updatesrv",
        "nothing to start: the SCM tells every server what changes, and a server that missed it asks",
    ),
    ("updateclnt", "nothing to start: every server follows the SCM's log by itself; `volutil log` shows it"),
    (
        "updatefetch",
        "nothing to fetch: every server has all of the realm's configuration; see `volutil servers`",
    ),
    (
        "rpc2portmap",
        "nothing to start: a server has one UDP port (2432), which SRV records or the realms file name",
    ),
    ("auth2", "nothing to start: codasrv proves who is who by the realm's certificates"),
    ("startserver", "start `codasrv` itself, or its systemd unit, which starts it again when it ends"),
    ("rvmutl", "there is no recoverable virtual memory; `codasrv check` looks at a store"),
    ("rdsinit", "there is no recoverable virtual memory; `codasrv init` makes a server"),
    ("makeftree", "there is nothing to prepare: a store is an ordinary directory"),
    ("inoder", "containers are ordinary files below vol/; `codasrv check` looks at them"),
    ("vice-killvolumes", "`volutil purgevol_rep` removes a volume"),
    ("partial-reinit.sh", "a server whose disk is new fetches everything from the others by itself"),
];

/// What replaced a program of this name, which may be a path.
pub fn replaced(name: &str) -> Option<String> {
    let name = name.rsplit('/').next().unwrap_or(name);
    let (_, what) = REPLACED.iter().find(|(old, _)| *old == name)?;
    Some(format!("{name}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_of_old_answers_in_one_line_under_any_path() {
        for (name, _) in REPLACED {
            let line = replaced(&format!("/usr/sbin/{name}")).unwrap();
            assert!(line.starts_with(&format!("{name}: ")) && !line.contains('\n'));
        }
        assert_eq!(replaced("/usr/sbin/codasrv"), None);
    }
}

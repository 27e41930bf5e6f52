//! One program with several names: `cfs`, and by the name it is called, `codacon`, `hoard`, `repair`,
//! `venus-setup` and `coda-client-setup`.

use std::{env, ffi::OsString, io::IsTerminal, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let mut words: Vec<OsString> = env::args_os().collect();
    let called = if words.is_empty() { OsString::new() } else { words.remove(0) };
    let called = Path::new(&called).file_name().map(|name| name.to_string_lossy().into_owned());
    if let Some(name @ ("codacon" | "hoard" | "repair" | "venus-setup" | "coda-client-setup")) =
        called.as_deref()
    {
        words.insert(0, name.into());
    }
    let (mut input, mut out, mut err) = (std::io::stdin().lock(), std::io::stdout(), std::io::stderr());
    let terminal = err.is_terminal();
    let world = cfs::World {
        connect: &mut |socket, hint| cfs::socket::connect(socket, hint),
        input: &mut input,
        out: &mut out,
        err: &mut err,
        here: env::current_dir().unwrap_or_default(),
        terminal,
    };
    ExitCode::from(cfs::run(words, world).code())
}

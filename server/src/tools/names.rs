//! The other names of this program.

use std::{
    ffi::OsString,
    io::{BufRead, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use coda_proto::{Rights, wire};

use serde_json::json;

use super::{Exit, Report};
use crate::{location::servers, shell::join};

/// Turns the command line of another name into volutil's.
pub fn as_volutil(name: &str, words: &mut Vec<OsString>) {
    let command = match name {
        "createvol_rep" => Some("create"),
        "purgevol_rep" => Some("purge"),
        "getvolinfo" => Some("getvolinfo"),
        "printvrdb" => Some("dumpvrdb"),
        "bldvldb.sh" | "bldvldb" => Some("bldvldb"),
        _ => None,
    };
    if let Some(command) = command {
        words.insert(1, command.into());
        // The scripts of old did nothing unless they were told to.
        let told = |word: &OsString| matches!(word.to_str(), Some("--kill" | "--yes" | "--dry-run"));
        if name == "purgevol_rep" && !words.iter().any(told) {
            words.push("--dry-run".into());
        }
    }
    // Words that were spelt with one dash.
    for word in words.iter_mut().skip(1) {
        if word == "-all" {
            *word = "--all".into();
        }
    }
}

/// Sets up a server, asking what is not given.
#[derive(Parser)]
#[command(name = "vice-setup", version)]
struct ViceSetup {
    /// Where the server keeps everything.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Name of the realm; for its first server.
    #[arg(long)]
    realm: Option<String>,
    /// The token that `volutil invite` printed; for further servers.
    #[arg(long)]
    token: Option<crate::shell::token::Token>,
    /// The realm's SCM; for further servers.
    #[arg(long, value_name = "HOST[:PORT]")]
    scm: Option<String>,
    /// Name of this server.
    #[arg(long)]
    name: Option<String>,
    /// Where clients and other servers reach it.
    #[arg(long, value_name = "HOST[:PORT]")]
    endpoint: Option<String>,
    /// Answer as one JSON value; what has to be asked is asked on the standard error output.
    #[arg(long)]
    json: bool,
}

/// Runs vice-setup.
pub fn vice_setup(words: &[OsString]) -> ExitCode {
    let words = std::iter::once(OsString::from("vice-setup")).chain(words.iter().cloned());
    let setup = match ViceSetup::try_parse_from(words) {
        Ok(setup) => setup,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let json = setup.json;
    let mut ask = |question: &str, default: &str| ask_person(question, default, json);
    match answers(setup, &mut ask).and_then(make) {
        Ok(report) => {
            report.print(json);
            Exit::Done.into()
        }
        Err(error) => {
            eprintln!("vice-setup: {error:#}");
            if json {
                println!("{}", json!({ "error": format!("{error:#}"), "exit": Exit::Failed as u8 }));
            }
            Exit::Failed.into()
        }
    }
}

fn ask_person(question: &str, default: &str, aside: bool) -> anyhow::Result<String> {
    let to: &mut dyn Write = if aside { &mut std::io::stderr() } else { &mut std::io::stdout() };
    write!(to, "{question} [{default}] ")?;
    to.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let line = line.trim();
    Ok(if line.is_empty() { default.to_owned() } else { line.to_owned() })
}

/// All that is needed.
#[derive(Debug, PartialEq)]
enum Answers {
    First { dir: PathBuf, realm: String, name: String, at: String },
    Further { dir: PathBuf, scm: String, token: crate::shell::token::Token, name: String, at: String },
}

type AskFor<'a> = &'a mut dyn FnMut(&str, &str) -> anyhow::Result<String>;

/// Asks what was not said, in the order in which vice-setup always did.
fn answers(setup: ViceSetup, ask: AskFor<'_>) -> anyhow::Result<Answers> {
    let dir = match setup.dir {
        Some(dir) => dir,
        None => ask("What is the root directory for your coda server(s)?", "/vice")?.into(),
    };
    let further = match (&setup.realm, &setup.token, &setup.scm) {
        (Some(_), None, None) => false,
        (None, Some(_), _) | (None, _, Some(_)) => true,
        (Some(_), ..) => {
            anyhow::bail!("a realm is named by its first server, and a token is for further ones")
        }
        (None, None, None) => {
            ask("Is this the master server, aka the SCM machine?", "y")?.starts_with(['n', 'N'])
        }
    };
    let mut host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    if host.is_empty() {
        host = "localhost".into();
    }
    if further {
        let scm = match setup.scm {
            Some(scm) => scm,
            None => ask("What is the hostname of the SCM machine?", "")?,
        };
        let token = match setup.token {
            Some(token) => token,
            None => ask("What is the token that `volutil invite` printed there?", "")?.parse()?,
        };
        let name = setup.name.map_or_else(|| ask("What is the name of this server?", &host), Ok)?;
        let at = setup.endpoint.map_or_else(|| ask("Where is it reached?", &name), Ok)?;
        return Ok(Answers::Further { dir, scm, token, name, at });
    }
    let realm = setup.realm.map_or_else(|| ask("What is the name of the realm?", &host), Ok)?;
    let name = setup.name.map_or_else(|| ask("What is the name of this server?", &host), Ok)?;
    let at = setup.endpoint.map_or_else(|| ask("Where is it reached?", &name), Ok)?;
    Ok(Answers::First { dir, realm, name, at })
}

fn endpoint(text: &str) -> anyhow::Result<wire::Endpoint> {
    let (host, port) = servers::endpoint(text).map_err(anyhow::Error::msg)?;
    Ok(wire::Endpoint { host, port: port.into(), peer_only: false })
}

fn make(answers: Answers) -> anyhow::Result<Report> {
    let (dir, made, json) = match answers {
        Answers::First { dir, realm, name, at } => {
            join::init(&realm, &dir, &name, vec![endpoint(&at)?], Rights::ALL)?;
            let made = format!("Realm {realm} is made, with its root volume on {name}.");
            let json = json!({ "realm": realm, "name": name, "server": 1, "dir": dir });
            (dir, made, json)
        }
        Answers::Further { dir, scm, token, name, at } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (id, name) =
                runtime.block_on(join::join(endpoint(&scm)?, &token, &dir, &name, vec![endpoint(&at)?]))?;
            let made = format!("{name} is server {id} of {}.", token.realm);
            let json = json!({ "realm": token.realm, "name": name, "server": id.0, "dir": dir });
            (dir, made, json)
        }
    };
    let text = format!("{made}\nServe it:          codasrv --dir {}\n", dir.display());
    Ok(Report::new(text, json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn other_names_are_commands_of_volutil() {
        for (name, line, wanted) in [
            ("createvol_rep", "createvol_rep src one two", "createvol_rep create src one two"),
            ("purgevol_rep", "purgevol_rep src", "purgevol_rep purge src --dry-run"),
            ("purgevol_rep", "purgevol_rep --kill src", "purgevol_rep purge --kill src"),
            ("getvolinfo", "getvolinfo scm src", "getvolinfo getvolinfo scm src"),
            ("bldvldb.sh", "bldvldb.sh new", "bldvldb.sh bldvldb new"),
            ("printvrdb", "printvrdb", "printvrdb dumpvrdb"),
            ("volutil", "volutil info -all src", "volutil info --all src"),
        ] {
            let mut given = words(line);
            as_volutil(name, &mut given);
            assert_eq!(given, words(wanted), "{line}");
        }
    }

    #[test]
    fn setting_up_asks_only_for_what_is_not_said() {
        let parse = |line: &str| ViceSetup::try_parse_from(words(line)).unwrap();
        let mut silent =
            |question: &str, _: &str| -> anyhow::Result<String> { anyhow::bail!("asks {question:?}") };
        let whole = parse("vice-setup --dir /v --realm r --name a --endpoint a:9");
        let first =
            Answers::First { dir: "/v".into(), realm: "r".into(), name: "a".into(), at: "a:9".into() };
        assert_eq!(answers(whole, &mut silent).unwrap(), first);
        let mut asked = Vec::new();
        let mut default = |question: &str, default: &str| -> anyhow::Result<String> {
            asked.push(question.to_owned());
            Ok(default.to_owned())
        };
        answers(parse("vice-setup --name a"), &mut default).unwrap();
        assert!(asked[0].contains("root directory") && asked[1].contains("SCM"), "{asked:?}");
        assert_eq!(asked.len(), 4, "{asked:?}");
    }
}

//! The lists that describe the realm, and the steps that used to turn them into databases.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use coda_proto::wire::{self, admin::Body as Ask};
use serde_json::{Value, json};

use super::{Exit, Failed, Link, Report, link::server};
use crate::{location::vrlist, shell::overtaken};

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Loads a VRList.
pub async fn make(link: &Link, file: &Path, dry_run: bool) -> anyhow::Result<Report> {
    let list = read(file)?;
    let now = link.realm().await?;
    let now = vrlist::text(now.volumes.values().map(|volume| &volume.info));
    if let Err(why) = overtaken::refuse(file, &list, &now) {
        return Err(Failed(Exit::Refused, why.to_string()).into());
    }
    let load = wire::LoadLocation { servers_file: String::new(), vrlist_file: list, dry_run };
    let answer = link.ask(Ask::LoadLocation(load)).await?;
    let changed: Vec<Value> = answer.volumes.iter().map(super::info::json_of).collect();
    let report = Report::new(answer.text.clone(), json!({ "changed": changed, "difference": answer.text }));
    Ok(if dry_run { report } else { report.and_note("VRDB completed.") })
}

/// Loads both files.
pub async fn load(
    link: &Link,
    servers: Option<PathBuf>,
    list: Option<PathBuf>,
    dry_run: bool,
) -> anyhow::Result<Report> {
    let text = |path: Option<PathBuf>| path.map_or(Ok(String::new()), |path| read(&path));
    let load = wire::LoadLocation { servers_file: text(servers)?, vrlist_file: text(list)?, dry_run };
    let answer = link.ask(Ask::LoadLocation(load)).await?;
    let changed: Vec<Value> = answer.volumes.iter().map(super::info::json_of).collect();
    let report = Report::new(vrlist::text(&answer.volumes), json!({ "changed": changed }));
    Ok(report.and_note(&answer.text))
}

/// Writes the VRList.
pub async fn write(link: &Link, file: Option<PathBuf>) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let text = vrlist::text(realm.volumes.values().map(|volume| &volume.info));
    let volumes: Vec<Value> =
        realm.volumes.values().map(|volume| super::info::json_of(&volume.info)).collect();
    let json = json!({ "volumes": volumes });
    match file {
        None => Ok(Report::new(text, json)),
        Some(path) => {
            let made = std::fs::File::options().write(true).create_new(true).open(&path);
            let mut made = made.with_context(|| path.display().to_string())?;
            made.write_all(text.as_bytes())?;
            Ok(Report::new("", json))
        }
    }
}

/// Asks servers for their volumes, as bldvldb.sh did, and says what it said. Nothing has to be built from the
/// answers: every server follows the realm's configuration by itself.
pub async fn build(link: &Link, names: Vec<String>) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let chosen: Vec<&wire::ServerInfo> = match names.is_empty() {
        true => realm.servers.values().collect(),
        false => names.iter().map(|name| server(&realm, name)).collect::<anyhow::Result<_>>()?,
    };
    eprintln!("Fetching volume lists from servers:");
    let mut answers = Vec::new();
    for server in chosen {
        eprintln!("V_BindToServer: binding to host {}", server.name);
        let answer = link.ask_server(server, Ask::ListVolumes(wire::ListVolumes {})).await;
        match &answer {
            Ok(_) => {
                eprintln!("GetVolumeList finished successfully");
                eprintln!("{} - success", server.name);
            }
            Err(_) => eprintln!("{} - FAILED, check if coda server is running", server.name),
        }
        answers.push(json!({ "server": server.name, "answers": answer.is_ok() }));
    }
    eprintln!("V_BindToServer: binding to host {}", realm.servers[&realm.scm].name);
    let note = "VLDB completed.";
    Ok(Report { note: note.into(), json: json!({ "servers": answers, "note": note }), text: String::new() })
}

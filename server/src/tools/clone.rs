//! Read-only copies of a volume: clones, and the backup.

use coda_proto::wire::{self, admin::Body as Ask};
use serde_json::json;

use super::{Link, Report};

/// A read-only copy.
#[derive(clap::Args)]
pub struct CloneOf {
    /// The volume.
    pub volume: String,
    /// Name of the copy [default: NAME.readonly].
    #[arg(short, long, default_value = "")]
    pub name: String,
}

/// The copy that takes the former one's place.
#[derive(clap::Args)]
pub struct Backup {
    /// The volume. It need not be locked: the copy is of one moment.
    pub volume: String,
}

/// Makes a clone.
pub async fn clone(link: &Link, clone: CloneOf) -> anyhow::Result<Report> {
    let ask = wire::CloneVolume { volume: clone.volume, name: clone.name, backup: false };
    let answer = link.ask(Ask::CloneVolume(ask)).await?;
    let mut text = String::new();
    for volume in &answer.volumes {
        text += &format!("VolClone: New Volume id = {:08x}\n", volume.id);
        text += &format!("VolClone: New Volume name is {}\n", volume.name);
    }
    let made: Vec<_> = answer.volumes.iter().map(super::info::json_of).collect();
    Ok(Report::new(text, json!({ "created": made })).and_note(&answer.text))
}

/// Makes a backup.
pub async fn backup(link: &Link, backup: Backup) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let of = crate::location::change::volume_of(&realm, &backup.volume)?;
    let ask = wire::CloneVolume { volume: of.to_string(), name: String::new(), backup: true };
    let answer = link.ask(Ask::CloneVolume(ask)).await?;
    let mut text = String::new();
    for volume in &answer.volumes {
        text += &format!("Backup (id = {:08x}) of Volume {of} created\n", volume.id);
    }
    let made: Vec<_> = answer.volumes.iter().map(super::info::json_of).collect();
    Ok(Report::new(text, json!({ "created": made, "of": of.to_string() })).and_note(&answer.text))
}

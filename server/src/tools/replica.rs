//! Replicas come, go and move.

use coda_proto::wire::{self, admin::Body as Ask};
use serde_json::json;

use super::{Link, Report, confirm::Consent, link::server, sync, volutil::agreed};
use crate::location::{change::volume_of, vrlist};

/// One more replica.
#[derive(clap::Args)]
pub struct Add {
    /// The volume.
    pub volume: String,
    /// `SERVER[:PARTITION]`, by name or id.
    pub server: String,
    /// Bytes per second at which it fetches what is there (K, M, G) [default: as fast as it can].
    #[arg(long, value_parser = rate)]
    pub rate: Option<u64>,
    /// Come back when it is active.
    #[arg(long)]
    pub wait: bool,
}

/// One less.
#[derive(clap::Args)]
pub struct Remove {
    /// The volume.
    pub volume: String,
    /// `SERVER[:PARTITION]`, by name or id.
    pub server: String,
    /// At once, with whatever only it had: for a server that is lost.
    #[arg(long)]
    pub force: bool,
    /// Come back when it is gone.
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub consent: Consent,
}

/// One elsewhere.
#[derive(clap::Args)]
pub struct Move {
    /// The volume.
    pub volume: String,
    /// The server it is on.
    pub from: String,
    /// The server it is to be on.
    pub to: String,
    /// Bytes per second at which it is copied (K, M, G) [default: as fast as it can].
    #[arg(long, value_parser = rate)]
    pub rate: Option<u64>,
    /// Come back when it has moved.
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub consent: Consent,
}

/// Bytes per second: a number and K, M or G, of 1024.
pub fn rate(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['K', 'M', 'G', 'k', 'm', 'g']) {
        Some(digits) => (digits, &text[digits.len()..]),
        None => (text, ""),
    };
    let unit = match unit.to_ascii_uppercase().as_str() {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => 1,
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no rate: a number, and K, M or G"))?;
    number.checked_mul(unit).filter(|rate| *rate > 0).ok_or_else(|| format!("{text:?} is no rate"))
}

fn changed(answer: &wire::AdminAnswer) -> Report {
    let volumes: Vec<_> = answer.volumes.iter().map(super::info::json_of).collect();
    Report::new(vrlist::text(&answer.volumes), json!({ "volumes": volumes })).and_note(&answer.text)
}

/// Adds a replica.
pub async fn add(link: &Link, add: Add) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let on = server(&realm, &add.server)?.id;
    let id = volume_of(&realm, &add.volume)?;
    let ask = wire::AddReplica { volume: id.to_string(), server: on, rate: add.rate.unwrap_or(0) };
    let answer = link.ask(Ask::AddReplica(ask)).await?;
    if add.wait {
        sync::wait(link, id, |members| {
            members.iter().any(|m| m.server == on && m.state() == wire::MemberState::MemberActive)
        })
        .await?;
    }
    Ok(changed(&answer))
}

/// Removes a replica.
pub async fn remove(link: &Link, remove: Remove) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let on = server(&realm, &remove.server)?;
    let id = volume_of(&realm, &remove.volume)?;
    let how = match remove.force {
        true => "at once, with whatever only it had",
        false => "when the others have all that it took",
    };
    let what = format!("The replica of {} on {} goes, {how}", realm.volumes[&id].info.name, on.name);
    if let Some(report) = agreed(remove.consent, &what)? {
        return Ok(report);
    }
    let ask = wire::RemoveReplica { volume: id.to_string(), server: on.id, force: remove.force };
    let answer = link.ask(Ask::RemoveReplica(ask)).await?;
    if remove.wait {
        sync::wait(link, id, |members| members.iter().all(|member| member.server != on.id)).await?;
    }
    Ok(changed(&answer))
}

/// Moves a replica.
pub async fn move_to(link: &Link, moving: Move) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let (from, to) = (server(&realm, &moving.from)?, server(&realm, &moving.to)?);
    let id = volume_of(&realm, &moving.volume)?;
    let name = &realm.volumes[&id].info.name;
    let what = format!("A replica of {name} is made on {}, and then that on {} goes", to.name, from.name);
    if let Some(report) = agreed(moving.consent, &what)? {
        return Ok(report);
    }
    let rate = moving.rate.unwrap_or(0);
    let ask = wire::MoveReplica { volume: id.to_string(), from: from.id, to: to.id, rate };
    let answer = link.ask(Ask::MoveReplica(ask)).await?;
    if moving.wait {
        sync::wait(link, id, |members| {
            let active =
                members.iter().any(|m| m.server == to.id && m.state() == wire::MemberState::MemberActive);
            active && members.iter().all(|member| member.server != from.id)
        })
        .await?;
    }
    Ok(changed(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_with_a_unit() {
        assert_eq!(rate("1000"), Ok(1000));
        assert_eq!(rate("10M"), Ok(10 << 20));
        assert_eq!(rate("2k"), Ok(2048));
        for wrong in ["", "0", "M", "-1", "1T", "99999999999999999999", "99999999999G"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}

//! Whether and how much a volume takes.

use coda_proto::{
    ServerId,
    wire::{self, admin::Body as Ask},
};
use serde_json::json;

use super::{Exit, Failed, Link, Report, confirm::Consent, sync, volutil::agreed};
use crate::location::{Realm, change::volume_of};

/// Out of service.
#[derive(clap::Args)]
pub struct Offline {
    /// The volume.
    pub volume: String,
    #[command(flatten)]
    pub consent: Consent,
}

/// Takes a volume out of service.
pub async fn offline(link: &Link, offline: Offline) -> anyhow::Result<Report> {
    let what = format!("Clients see nothing of volume {} until it is brought back", offline.volume);
    match agreed(offline.consent, &what)? {
        Some(report) => Ok(report),
        None => set(link, &offline.volume, wire::VolumeService::VolumeOffline).await,
    }
}

/// Lets changes of a volume wait, for so many seconds; 0: until it is unlocked.
pub async fn lock(link: &Link, volume: &str, seconds: u64) -> anyhow::Result<Report> {
    set_for(link, volume, wire::VolumeService::VolumeLocked, seconds).await
}

/// Sets whether a volume is in service.
pub async fn set(link: &Link, volume: &str, service: wire::VolumeService) -> anyhow::Result<Report> {
    set_for(link, volume, service, 0).await
}

async fn set_for(
    link: &Link,
    volume: &str,
    service: wire::VolumeService,
    seconds: u64,
) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let id = volume_of(&realm, volume)?;
    let set = wire::SetService { volume: id.to_string(), service: service.into(), seconds };
    let answer = link.ask(Ask::SetService(set)).await?;
    let (text, word) = match service {
        wire::VolumeService::VolumeInService => (format!("Volume {id} is unlocked."), "in service"),
        wire::VolumeService::VolumeLocked if seconds > 0 => {
            (format!("Locked volume {id} for {seconds} seconds"), "locked")
        }
        wire::VolumeService::VolumeLocked => (format!("Locked volume {id}"), "locked"),
        wire::VolumeService::VolumeOffline => (format!("Volume {id} is out of service"), "offline"),
    };
    Ok(Report::new(text, json!({ "volume": id.to_string(), "service": word })).and_note(&answer.text))
}

/// How much a volume may use.
#[derive(clap::Args)]
pub struct Quota {
    /// The volume.
    pub volume: String,
    /// Blocks of 1 KiB it may use; 0: any number.
    pub max: Option<u64>,
    /// Blocks of 1 KiB kept for it.
    #[arg(long)]
    pub min: Option<u64>,
}

/// Shows or sets a quota.
pub async fn quota(link: &Link, quota: Quota) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let id = volume_of(&realm, &quota.volume)?;
    if quota.max.is_none() && quota.min.is_none() {
        let detail = wire::VolumeDetail { name: id.to_string() };
        let text = on_some_member(link, &realm, id, Ask::VolumeDetail(detail)).await?.text;
        let line = text.lines().find(|line| line.starts_with("maxquota")).unwrap_or_default().to_owned();
        return Ok(Report::new(line.clone(), json!({ "volume": id.to_string(), "quota": line })));
    }
    let set = wire::SetQuota { volume: id.to_string(), min: quota.min, max: quota.max };
    on_some_member(link, &realm, id, Ask::SetQuota(set)).await?;
    let shown = |blocks: Option<u64>| blocks.map_or("as it was".to_owned(), |blocks| blocks.to_string());
    let text = format!("Volume {id}: maxquota = {}, minquota = {}", shown(quota.max), shown(quota.min));
    Ok(Report::new(text, json!({ "volume": id.to_string(), "max": quota.max, "min": quota.min })))
}

/// Asks the first active member that answers.
async fn on_some_member(
    link: &Link,
    realm: &Realm,
    id: coda_proto::VolumeId,
    ask: Ask,
) -> anyhow::Result<wire::AdminAnswer> {
    let mut why = None;
    for member in &realm.volumes[&id].info.members {
        if member.state() != wire::MemberState::MemberActive {
            continue;
        }
        let Some(server) = ServerId::new(member.server).ok().and_then(|id| realm.servers.get(&id)) else {
            continue;
        };
        match link.ask_server(server, ask.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => why = Some(error),
        }
    }
    Err(why.unwrap_or_else(|| anyhow::anyhow!("volume {id} has no active member")))
}

/// What used to turn logging on and off.
#[derive(clap::Args)]
pub struct SetLogParms {
    /// The volume, or one of its replicas.
    pub volume: String,
    /// `reson 0`, `reson 4`, `logsize N`.
    pub parameters: Vec<String>,
}

/// What old parameters come to. Nothing: every server always knows what changed.
fn log_parms(parameters: &[String]) -> Result<&'static str, String> {
    let mut note = "";
    for pair in parameters.chunks(2) {
        match pair {
            [key, value] if key == "reson" => match value.as_str() {
                "4" => {}
                "0" => {
                    note = "nothing is changed: what changed in a volume is always recorded, and costs no log"
                }
                value => return Err(format!("reson {value}: it is 0 or 4")),
            },
            [key, value] if key == "logsize" => match value.parse::<u32>() {
                Ok(size) if size.is_multiple_of(32) => {
                    note = "there is no log that could fill up: logsize is without effect"
                }
                _ => return Err(format!("logsize {value}: not a multiple of 32")),
            },
            pair => {
                return Err(format!("{}: not a log parameter; they are reson and logsize", pair.join(" ")));
            }
        }
    }
    Ok(note)
}

/// Answers as before.
pub async fn set_log_parms(link: &Link, set: SetLogParms) -> anyhow::Result<Report> {
    let note = log_parms(&set.parameters).map_err(|why| Failed(Exit::Usage, why))?;
    let id = volume_of(&link.realm().await?, &set.volume)?;
    let report = Report { json: json!({ "volume": id.to_string() }), ..Report::noted("Set Log parameters") };
    Ok(report.and_note(note))
}

/// Has every member meet the others, and looks whether they are equal.
pub async fn salvage(link: &Link, volume: &str) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let id = volume_of(&realm, volume)?;
    let state = sync::survey(link, &realm, id, true).await?;
    let waiting = state.members.iter().filter(|member| member.left_objects > 0).count();
    let unheard = state.members.iter().filter(|member| member.report.is_none()).count();
    let text = match (waiting, unheard) {
        (0, 0) => format!("Volume {id}: all {} members are equal", state.members.len()),
        _ => format!("Volume {id}: {waiting} members have yet to hear something, {unheard} do not answer"),
    };
    Ok(Report::new(text, state.json()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_log_parameters_are_understood_and_change_nothing() {
        let parse = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            log_parms(&words)
        };
        assert_eq!(parse("reson 4"), Ok(""));
        assert!(parse("reson 0").unwrap().contains("nothing is changed"));
        assert!(parse("reson 4 logsize 8192").is_ok());
        for wrong in ["reson 1", "reson", "logsize 33", "logsize x", "colour 4"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

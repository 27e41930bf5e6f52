//! What there is: volumes and servers.

use coda_proto::{
    ServerId, VolumeId,
    wire::{self, admin::Body as Ask},
};
use serde_json::{Value, json};

use super::{Link, Report, link::server};
use crate::location::{Realm, VolumeEntry, change::volume_of, vrlist};

/// A volume's header.
#[derive(clap::Args)]
pub struct Info {
    /// Also what each replica holds.
    #[arg(long)]
    pub all: bool,
    /// The volume, by name or id.
    pub volume: String,
}

/// A volume for programs.
pub fn json_of(info: &wire::VolumeInfo) -> Value {
    let members = info.members.iter().map(|member| {
        json!({
            "slot": member.slot,
            "replica": format!("{:08x}", member.replica),
            "server": member.server,
            "state": member.state().as_str_name().trim_start_matches("MEMBER_").to_lowercase(),
        })
    });
    json!({
        "id": format!("{:08x}", info.id),
        "name": info.name,
        "epoch": info.epoch,
        "members": members.collect::<Vec<_>>(),
    })
}

/// Lists the volumes.
pub async fn list(link: &Link) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let volumes: Vec<&wire::VolumeInfo> = realm.volumes.values().map(|volume| &volume.info).collect();
    let json: Vec<Value> = realm.volumes.values().map(json_with_kind).collect();
    Ok(Report::new(vrlist::text(volumes), json!({ "volumes": json })))
}

fn json_with_kind(volume: &VolumeEntry) -> Value {
    let mut json = json_of(&volume.info);
    json["kind"] = kind(volume).into();
    json["service"] = service(volume).into();
    json
}

fn kind(volume: &VolumeEntry) -> &'static str {
    match volume.more.kind() {
        wire::VolumeKind::VolumeReplicated => "read/write",
        wire::VolumeKind::VolumeReadOnly => "readonly",
        wire::VolumeKind::VolumeBackup => "backup",
    }
}

fn service(volume: &VolumeEntry) -> &'static str {
    match volume.more.service() {
        wire::VolumeService::VolumeInService => "in service",
        wire::VolumeService::VolumeLocked if !volume.is_locked(crate::shell::nanoseconds()) => "in service",
        wire::VolumeService::VolumeLocked => "locked",
        wire::VolumeService::VolumeOffline => "offline",
    }
}

/// The copies of a volume: of its clones and backup, the newest.
fn copy_of(realm: &Realm, id: VolumeId, kind: wire::VolumeKind) -> u32 {
    let copies =
        realm.volumes.iter().filter(|(_, copy)| copy.more.parent == id.0 && copy.more.kind() == kind);
    copies.map(|(id, _)| id.0).max().unwrap_or(0)
}

/// The header as scripts have always read it: one item a line, and labels that do not change. What a volume
/// does not have any more is 0.
fn header(realm: &Realm, entry: &VolumeEntry, detail: &str) -> String {
    let info = &entry.info;
    let id = VolumeId(info.id);
    let in_service = u8::from(entry.more.service() != wire::VolumeService::VolumeOffline);
    let code = entry.more.kind() as i32;
    let numbers = |label: &str| {
        let mut words = detail.split([',', '\n']).map(str::trim);
        let found = words.find_map(|item| item.strip_prefix(label)?.strip_prefix(" = "));
        found.unwrap_or("0").to_owned()
    };
    let parent = match entry.more.parent {
        0 => info.id,
        parent => parent,
    };
    let created = entry.more.created / 1_000_000_000;
    let mut text = format!("Volume header for volume {:08x} ({})\n", info.id, info.name);
    text += "stamp.magic = 78a1b2c5, stamp.version = 1\npartition = (store)\n";
    text += &format!(
        "inUse = {in_service}, inService = {in_service}, blessed = 1, needsSalvaged = 0, dontSalvage = 0\n"
    );
    text += &format!("type = {code} ({}), uniquifier = 0, needsCallback = 0, destroyMe = 0\n", kind(entry));
    text += &format!(
        "id = {:08x}, parentId = {parent:08x}, cloneId = {:08x}, backupId = {:08x}, restoredFromId = {:08x}\n",
        info.id,
        copy_of(realm, id, wire::VolumeKind::VolumeReadOnly),
        copy_of(realm, id, wire::VolumeKind::VolumeBackup),
        0
    );
    text += &format!(
        "maxquota = {}, minquota = {}, maxfiles = 0, filecount = {}, diskused = {}\n",
        numbers("maxquota"),
        numbers("minquota"),
        numbers("objects"),
        numbers("diskused")
    );
    // Nobody notes when it was last read, dumped or written; what is not known is the beginning of time.
    let (made, never) = (date(created), date(0));
    let backup = copy_of(realm, id, wire::VolumeKind::VolumeBackup);
    let backup = realm.volumes.get(&VolumeId(backup)).map_or(0, |copy| copy.more.created / 1_000_000_000);
    text += &format!("creationDate = ({made}), copyDate = ({made})\n");
    text += &format!("backupDate = ({}), expirationDate = ({never})\n", date(backup));
    text += &format!("accessDate = ({never}), updateDate = ({never})\n");
    text += "owner = 0, accountNumber = 0\n";
    text += &format!("dayUse = 0; week = (0, 0, 0, 0, 0, 0, 0), dayUseDate = ({never})\n");
    text += &format!("service = {}\n", service(entry));
    text += &format!("replicated groupId = {:08x}, epoch = {}\n", info.id, info.epoch);
    text + detail
}

/// YYYY/MM/DD.hh:mm:ss, of universal time.
fn date(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, so that a leap day ends a year.
    let since = days + 719_468;
    let (era, of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}/{month:02}/{day:02}.{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Shows a volume.
pub async fn info(link: &Link, what: Info) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let id = volume_of(&realm, &what.volume)?;
    let entry = &realm.volumes[&id];
    let mut text = String::new();
    let mut replicas = Vec::new();
    for member in &entry.info.members {
        let Some(server) = ServerId::new(member.server).ok().and_then(|id| realm.servers.get(&id)) else {
            continue;
        };
        let detail =
            link.ask_server(server, Ask::VolumeDetail(wire::VolumeDetail { name: id.to_string() })).await;
        let Ok(detail) = detail else { continue };
        if text.is_empty() {
            text = header(&realm, entry, &detail.text);
        } else if what.all {
            text += &format!("on {}:\n{}", server.name, detail.text);
        }
        replicas.push(json!({ "server": server.name, "detail": detail.text }));
        if !what.all {
            break;
        }
    }
    if text.is_empty() {
        text = header(&realm, entry, "no member answers\n");
    }
    let mut json = json_with_kind(entry);
    json["replicas"] = replicas.into();
    json["parent"] = format!("{:08x}", entry.more.parent).into();
    Ok(Report::new(text, json))
}

/// Where a volume is.
pub async fn lookup(link: &Link, volume: &str) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let id = volume_of(&realm, volume)?;
    let entry = &realm.volumes[&id];
    let names: Vec<&str> = entry
        .info
        .members
        .iter()
        .filter_map(|member| Some(realm.servers.get(&ServerId::new(member.server).ok()?)?.name.as_str()))
        .collect();
    let text = format!(
        "Info for vol \"{volume}\": volume id {:08x}, {} volume\nAssociates: {:08x} {:08x} {:08x}\nOn servers: {}\n",
        id.0,
        kind(entry),
        entry.more.parent,
        copy_of(&realm, id, wire::VolumeKind::VolumeReadOnly),
        copy_of(&realm, id, wire::VolumeKind::VolumeBackup),
        names.join(" ")
    );
    Ok(Report::new(text, json_with_kind(entry)))
}

/// Lists the servers.
pub async fn servers(link: &Link) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let (mut text, mut list) = (String::new(), Vec::new());
    for (id, server) in &realm.servers {
        let endpoints: Vec<String> =
            server.endpoints.iter().map(|at| format!("{}:{}", at.host, at.port)).collect();
        text += &format!("{id}\t{}\t{}\n", server.name, endpoints.join(" "));
        let scm = *id == realm.scm;
        list.push(json!({ "id": id.0, "name": server.name, "endpoints": endpoints, "scm": scm }));
    }
    Ok(Report::new(text, json!({ "realm": realm.name, "servers": list })))
}

/// The highest replica id that a server was given.
pub async fn max_volume(link: &Link, host: Option<&str>) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let of = match host {
        Some(host) => ServerId::new(server(&realm, host)?.id)?,
        None => realm.scm,
    };
    let highest = realm.next_replica(of) - 1;
    let text = format!("Maximum volume id is {highest:x}");
    Ok(Report::new(text, json!({ "server": of.0, "replica": format!("{highest:08x}") })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970/01/01.00:00:00");
        assert_eq!(date(951_782_399), "2000/02/28.23:59:59");
        assert_eq!(date(951_782_400), "2000/02/29.00:00:00");
        assert_eq!(date(1_700_000_000), "2023/11/14.22:13:20");
    }

    #[test]
    fn the_header_has_the_lines_that_scripts_read() {
        let server = wire::ServerInfo { id: 1, name: "a".into(), endpoints: Vec::new() };
        let realm = crate::setup::realm("r", vec![server], coda_proto::Rights::ALL).unwrap();
        let entry = realm.volumes.values().next().unwrap();
        let text = header(&realm, entry, "maxquota = 7, minquota = 0, diskused = 2, objects = 1\n");
        for line in [
            "Volume header for volume 7f000001 (/)",
            "type = 0 (read/write), uniquifier = 0, needsCallback = 0, destroyMe = 0",
            "maxquota = 7, minquota = 0, maxfiles = 0, filecount = 1, diskused = 2",
            "backupDate = (1970/01/01.00:00:00), expirationDate = (1970/01/01.00:00:00)",
            "dayUse = 0; week = (0, 0, 0, 0, 0, 0, 0), dayUseDate = (1970/01/01.00:00:00)",
            "replicated groupId = 7f000001, epoch = 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} in\n{text}");
        }
    }
}

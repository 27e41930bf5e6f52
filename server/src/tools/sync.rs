//! How far the replicas of a volume are: asked of each, and put together.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use anyhow::Context;
use coda_proto::{
    ServerId, VolumeId,
    wire::{self, MemberState, admin::Body as Ask},
};
use serde_json::{Value, json};

use super::{Link, Report};
use crate::location::{Realm, change::volume_of};

/// Between looks at what goes on.
const LOOK: Duration = Duration::from_millis(250);

/// How far a volume's replicas are.
#[derive(clap::Args)]
pub struct SyncStatus {
    /// The volume.
    pub volume: String,
    /// Come back when every member is active and has heard all others.
    #[arg(long)]
    pub wait: bool,
}

/// One member, as it and the others say.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    pub name: String,
    pub member: wire::Member,
    /// What it says; nothing where it does not answer.
    pub report: Option<wire::ReplicaReport>,
    /// Objects that others have and that it has yet to hear of.
    pub left_objects: u64,
    /// Bytes of contents, where it joins.
    pub left_bytes: u64,
    /// Bytes per second so far.
    pub rate: u64,
    /// Seconds that are left at this rate.
    pub eta: Option<u64>,
}

/// All members.
#[derive(Clone, Debug)]
pub struct Survey {
    pub volume: VolumeId,
    pub name: String,
    pub epoch: u64,
    pub members: Vec<MemberStatus>,
}

/// Asks every member. `meet`: have each of them meet the others first.
pub async fn survey(link: &Link, realm: &Realm, id: VolumeId, meet: bool) -> anyhow::Result<Survey> {
    let info = &realm.volumes.get(&id).context("the volume is not there any more")?.info;
    let server =
        |member: &wire::Member| ServerId::new(member.server).ok().and_then(|id| realm.servers.get(&id));
    if meet {
        for member in &info.members {
            for other in info.members.iter().filter(|other| other.server != member.server) {
                let ask = wire::ReplicaStatus { volume: id.0, meet: other.server, ..Default::default() };
                if let Some(server) = server(member) {
                    // One that does not answer is named below.
                    let _ = link.ask_server(server, Ask::ReplicaStatus(ask)).await;
                }
            }
        }
        tokio::time::sleep(LOOK * 2).await;
    }
    let mut reports = Vec::new();
    for member in &info.members {
        let ask = wire::ReplicaStatus { volume: id.0, ..Default::default() };
        let report = match server(member) {
            Some(server) => {
                link.ask_server(server, Ask::ReplicaStatus(ask)).await.ok().and_then(|a| a.report)
            }
            None => None,
        };
        let name = server(member).map_or_else(|| member.server.to_string(), |server| server.name.clone());
        reports.push((name, *member, report));
    }
    let members = reports.iter().map(|(name, member, report)| {
        let others = reports.iter().filter(|(_, other, _)| other.server != member.server);
        let others: Vec<&wire::ReplicaReport> = others.filter_map(|(_, _, report)| report.as_ref()).collect();
        status_of(name, *member, report.clone(), &others)
    });
    let members = members.collect();
    Ok(Survey { volume: id, name: info.name.clone(), epoch: info.epoch, members })
}

/// Puts together what a member says of itself and the others of themselves.
fn status_of(
    name: &str,
    member: wire::Member,
    report: Option<wire::ReplicaReport>,
    others: &[&wire::ReplicaReport],
) -> MemberStatus {
    let mut status = MemberStatus {
        name: name.to_owned(),
        member,
        left_objects: 0,
        left_bytes: 0,
        rate: 0,
        eta: None,
        report: None,
    };
    let Some(report) = report else { return status };
    match &report.progress {
        Some(progress) => {
            status.left_objects = progress.objects_total.saturating_sub(progress.objects_done);
            status.left_bytes = progress.bytes_total.saturating_sub(progress.bytes_done);
            let seconds = progress.elapsed as f64 / 1e9;
            if seconds > 0.0 {
                status.rate = (progress.bytes_done as f64 / seconds) as u64;
                let by_objects = rest(progress.objects_done, status.left_objects, seconds);
                let by_bytes = rest(progress.bytes_done, status.left_bytes, seconds);
                status.eta = by_objects.max(by_bytes);
            }
        }
        // Each change of another that it has not heard of concerns one object, at most.
        None => status.left_objects = others.iter().map(|other| unheard(&report, other)).max().unwrap_or(0),
    }
    status.report = Some(report);
    status
}

fn rest(done: u64, left: u64, seconds: f64) -> Option<u64> {
    match (done, left) {
        (_, 0) => Some(0),
        (0, _) => None,
        (done, left) => Some((seconds * left as f64 / done as f64).ceil() as u64),
    }
}

/// Changes of `other` that `report`'s replica has not heard of.
fn unheard(report: &wire::ReplicaReport, other: &wire::ReplicaReport) -> u64 {
    if !other.joined {
        return 0;
    }
    match report.seen.iter().find(|seen| seen.server == other.server) {
        Some(seen) if seen.incarnation == other.incarnation => {
            other.change_seq.saturating_sub(seen.change_seq).min(other.objects)
        }
        // It heard an earlier run of that server; how much of it is new only a meeting tells.
        Some(_) => 0,
        None => other.objects,
    }
}

/// What a member does, in one word. One that joins is syncing as soon as it knows how much there is; an active one
/// whose disk is new or an old copy waits until it has met the others, and serves nothing.
fn word(status: &MemberStatus) -> &'static str {
    let syncing = status.report.as_ref().and_then(|report| report.progress.as_ref());
    match status.member.state() {
        MemberState::MemberJoining if syncing.is_some_and(|progress| progress.objects_total > 0) => "syncing",
        MemberState::MemberJoining => "joining",
        MemberState::MemberActive if status.report.as_ref().is_some_and(|report| !report.joined) => "waiting",
        MemberState::MemberActive => "active",
        MemberState::MemberLeaving => "leaving",
        MemberState::MemberUnknown => "unknown",
    }
}

impl Survey {
    /// Whether every member is active, answers, and has heard the others.
    pub fn is_settled(&self) -> bool {
        self.members.iter().all(|member| {
            member.member.state() == MemberState::MemberActive
                && member.report.as_ref().is_some_and(|report| report.joined)
                && member.left_objects == 0
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("Volume {} ({}), epoch {}\n", self.volume, self.name, self.epoch);
        for member in &self.members {
            let slot = member.member.slot;
            text +=
                &format!("  slot {slot} {:08x} on {}, {}", member.member.replica, member.name, word(member));
            let Some(report) = &member.report else {
                text += ", does not answer\n";
                continue;
            };
            match &report.progress {
                Some(progress) => {
                    text += &format!(
                        ": {} of {} objects, {} of {}, {}/s{}\n",
                        progress.objects_done,
                        progress.objects_total,
                        bytes(progress.bytes_done),
                        bytes(progress.bytes_total),
                        bytes(member.rate),
                        member.eta.map_or(String::new(), |eta| format!(", {} left", seconds(eta)))
                    );
                }
                None => {
                    text += &format!(": {} objects, {} to hear of\n", report.objects, member.left_objects)
                }
            }
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let members: Vec<Value> = self
            .members
            .iter()
            .map(|member| {
                let progress = member.report.as_ref().and_then(|report| report.progress);
                json!({
                    "slot": member.member.slot,
                    "replica": format!("{:08x}", member.member.replica),
                    "server": member.name,
                    "state": word(member),
                    "answers": member.report.is_some(),
                    "objects": member.report.as_ref().map(|report| report.objects),
                    "objects_done": progress.map(|progress| progress.objects_done),
                    "objects_left": member.left_objects,
                    "bytes_done": progress.map(|progress| progress.bytes_done),
                    "bytes_left": member.left_bytes,
                    "bytes_per_second": member.rate,
                    "seconds_left": member.eta,
                })
            })
            .collect();
        json!({
            "volume": self.volume.to_string(),
            "name": self.name,
            "epoch": self.epoch,
            "settled": self.is_settled(),
            "members": members,
        })
    }

    /// One line that is drawn over itself.
    fn bar(&self) -> String {
        let width = 30;
        let waits = |member: &&MemberStatus| {
            word(member) != "active" || member.report.is_none() || member.left_objects > 0
        };
        let parts = self.members.iter().filter(waits).map(|member| {
            if member.report.is_none() {
                return format!("{} does not answer", member.name);
            }
            if word(member) == "active" {
                return format!("{} has yet to hear of {} objects", member.name, member.left_objects);
            }
            let progress = member.report.as_ref().and_then(|report| report.progress).unwrap_or_default();
            let share = match progress.objects_total {
                0 => 0.0,
                total => progress.objects_done as f64 / total as f64,
            };
            let full = (share * width as f64) as usize;
            let eta = member.eta.map_or(String::new(), |eta| format!(" {} left", seconds(eta)));
            format!(
                "{} {} [{}{}] {:3.0}%{eta}",
                member.name,
                word(member),
                "#".repeat(full),
                ".".repeat(width - full),
                share * 100.0
            )
        });
        parts.collect::<Vec<_>>().join("  ")
    }
}

fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TB")
}

fn seconds(count: u64) -> String {
    match count {
        0..60 => format!("{count} s"),
        60..3600 => format!("{} min {} s", count / 60, count % 60),
        _ => format!("{} h {} min", count / 3600, count / 60 % 60),
    }
}

/// Shows how far a volume's replicas are.
pub async fn status(link: &Link, ask: SyncStatus, as_json: bool) -> anyhow::Result<Report> {
    let id = volume_of(&link.realm().await?, &ask.volume)?;
    let draw = std::io::stderr().is_terminal() && !as_json;
    loop {
        let found = survey(link, &link.realm().await?, id, false).await?;
        if !ask.wait || found.is_settled() {
            if ask.wait && draw {
                eprint!("\r\x1b[K");
            }
            return Ok(Report::new(found.text(), found.json()));
        }
        if draw {
            eprint!("\r{}\x1b[K", found.bar());
            std::io::stderr().flush()?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the members of a volume are as wanted, and draws how far they are. What goes on does so
/// whether or not anybody waits.
pub async fn wait(link: &Link, id: VolumeId, wanted: impl Fn(&[wire::Member]) -> bool) -> anyhow::Result<()> {
    let draw = std::io::stderr().is_terminal();
    loop {
        let realm = link.realm().await?;
        let info = &realm.volumes.get(&id).context("the volume is not there any more")?.info;
        if wanted(&info.members) {
            if draw {
                eprint!("\r\x1b[K");
            }
            return Ok(());
        }
        if draw {
            eprint!("\r{}\x1b[K", survey(link, &realm, id, false).await?.bar());
            std::io::stderr().flush()?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(server: u32, change_seq: u64, seen: &[(u32, u64)]) -> wire::ReplicaReport {
        let seen = seen.iter().map(|(server, change_seq)| wire::Seen {
            server: *server,
            incarnation: u64::from(*server),
            change_seq: *change_seq,
        });
        wire::ReplicaReport {
            server,
            incarnation: server.into(),
            change_seq,
            joined: true,
            objects: 50,
            seen: seen.collect(),
            ..Default::default()
        }
    }

    fn member(server: u32, state: MemberState) -> wire::Member {
        wire::Member { slot: server, replica: server << 24 | 1, server, state: state.into() }
    }

    #[test]
    fn what_a_member_has_not_heard_of_is_what_is_left() {
        let other = report(2, 30, &[]);
        let left = |seen: &[(u32, u64)]| {
            let own = Some(report(1, 9, seen));
            status_of("a", member(1, MemberState::MemberActive), own, &[&other]).left_objects
        };
        assert_eq!(left(&[(2, 30)]), 0);
        assert_eq!(left(&[(2, 27)]), 3);
        assert_eq!(left(&[]), 50, "never met");
    }

    #[test]
    fn a_joining_member_tells_objects_bytes_rate_and_time_left() {
        let progress = wire::SyncProgress {
            objects_done: 25,
            objects_total: 100,
            bytes_done: 1 << 20,
            bytes_total: 4 << 20,
            elapsed: 2_000_000_000,
            rate: 0,
        };
        let own = wire::ReplicaReport { progress: Some(progress), joined: false, ..report(3, 0, &[]) };
        let status = status_of("c", member(3, MemberState::MemberJoining), Some(own), &[]);
        assert_eq!((status.left_objects, status.left_bytes), (75, 3 << 20));
        assert_eq!((status.rate, status.eta), (1 << 19, Some(6)));
        let survey =
            Survey { volume: VolumeId(0x7f00_0001), name: "v".into(), epoch: 2, members: vec![status] };
        assert!(!survey.is_settled());
        assert!(
            survey
                .text()
                .contains("on c, syncing: 25 of 100 objects, 1.0 MB of 4.0 MB, 512.0 KB/s, 6 s left")
        );
        assert!(survey.bar().starts_with("c syncing [#######......................."), "{}", survey.bar());
        assert_eq!(survey.json()["members"][0]["objects_left"], 75);
    }

    #[test]
    fn an_active_member_that_serves_nothing_waits_and_who_has_not_heard_is_named() {
        let survey_of = |status| Survey {
            volume: VolumeId(0x7f00_0001),
            name: "v".into(),
            epoch: 2,
            members: vec![status],
        };
        let own = wire::ReplicaReport {
            progress: Some(wire::SyncProgress::default()),
            joined: false,
            ..report(1, 0, &[])
        };
        let waiting = survey_of(status_of("a", member(1, MemberState::MemberActive), Some(own), &[]));
        assert!(waiting.text().contains("on a, waiting: 0 of 0 objects"), "{}", waiting.text());
        assert_eq!(waiting.json()["members"][0]["state"], "waiting");
        assert!(waiting.bar().starts_with("a waiting ["), "{}", waiting.bar());
        let own = Some(report(1, 9, &[(2, 27)]));
        let behind =
            survey_of(status_of("a", member(1, MemberState::MemberActive), own, &[&report(2, 30, &[])]));
        assert_eq!(behind.bar(), "a has yet to hear of 3 objects");
        assert!(!waiting.is_settled() && !behind.is_settled());
    }

    #[test]
    fn one_that_does_not_answer_is_not_settled() {
        let status = status_of("a", member(1, MemberState::MemberActive), None, &[]);
        let survey =
            Survey { volume: VolumeId(0x7f00_0001), name: "v".into(), epoch: 2, members: vec![status] };
        assert!(!survey.is_settled() && survey.text().contains("does not answer"));
    }
}

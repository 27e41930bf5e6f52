//! Volumes as a client knows them: which servers hold replicas, and since when.
//!
//! A [`Group`] is what Coda calls a VSG. Its epoch grows whenever its members change, so an answer that
//! carries a lower one is an old answer, not a change.

use coda_proto::{Malformed, ServerId, VolumeId, wire};
use serde::{Deserialize, Serialize};

/// Replicas of one volume, at most. What claims more is nonsense.
pub const MEMBERS_LIMIT: usize = 32;
/// Bytes of a volume's name, at most.
pub const NAME_LIMIT: usize = 255;

/// How a volume is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VolumeKey {
    /// By name; an empty one or `/` is the realm's root volume.
    Name(String),
    /// By group id.
    Id(VolumeId),
}

impl VolumeKey {
    /// Whether this asks for the realm's root volume, whatever it is called.
    pub fn is_root(&self) -> bool {
        matches!(self, VolumeKey::Name(name) if name.is_empty() || name == "/")
    }
}

/// A replicated volume and the servers that hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Kept", try_from = "Kept")]
pub struct Group {
    /// The group id.
    pub id: VolumeId,
    /// For people.
    pub name: String,
    /// Grows whenever the members change.
    pub epoch: u64,
    /// In slot order.
    pub members: Vec<Member>,
}

/// One replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Names the member for ever.
    pub slot: u32,
    /// Who holds it.
    pub server: ServerId,
    /// What may be asked of it.
    pub state: MemberState,
}

/// What a member may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    /// Receives every mutation; not yet asked for contents.
    Joining,
    /// A full member.
    Active,
    /// Refuses mutations; what it holds may still be read.
    Leaving,
}

impl Group {
    /// Members that take mutations, in slot order.
    pub fn writable(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state != MemberState::Leaving)
    }

    /// Members that may be asked for contents, in slot order: full ones, or else leaving ones.
    pub fn readable(&self) -> Vec<&Member> {
        let in_state = |state| self.members.iter().filter(move |m| m.state == state).collect::<Vec<_>>();
        match in_state(MemberState::Active) {
            active if !active.is_empty() => active,
            _ => in_state(MemberState::Leaving),
        }
    }

    /// Whether the volume goes by this key.
    pub fn answers_to(&self, key: &VolumeKey) -> bool {
        match key {
            VolumeKey::Id(id) => *id == self.id,
            VolumeKey::Name(name) => *name == self.name,
        }
    }
}

/// What to do with membership that somebody told us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing we did not know.
    Same,
    /// A volume met for the first time, or another name for it: no cached object is affected.
    Learnt,
    /// Other members: what is cached must be validated again.
    Changed,
    /// From somebody who is behind.
    Outdated,
}

/// Compares told membership with what is known. `forced`: people asked to forget what was known.
pub fn news(known: Option<&Group>, told: &Group, forced: bool) -> News {
    let Some(known) = known else { return News::Learnt };
    if known == told {
        return News::Same;
    }
    match told.epoch.cmp(&known.epoch) {
        std::cmp::Ordering::Greater => News::Changed,
        std::cmp::Ordering::Equal if known.members == told.members => News::Learnt,
        _ if forced => News::Changed,
        _ => News::Outdated,
    }
}

impl TryFrom<wire::VolumeInfo> for Group {
    type Error = Malformed;
    fn try_from(info: wire::VolumeInfo) -> Result<Group, Malformed> {
        let id = VolumeId(info.id);
        if !id.is_group() {
            return Err(Malformed::new("volume", format!("{id} is not the id of a group")));
        }
        if info.name.len() > NAME_LIMIT || info.members.is_empty() || info.members.len() > MEMBERS_LIMIT {
            return Err(Malformed::new("volume", format!("{id} has no or too many members, or a long name")));
        }
        let mut members = info.members.into_iter().map(Member::try_from).collect::<Result<Vec<_>, _>>()?;
        members.sort_by_key(|member| member.slot);
        let twice = |a: &Member, b: &Member| a.slot == b.slot || a.server == b.server;
        let repeats = members.iter().enumerate().any(|(i, a)| members[i + 1..].iter().any(|b| twice(a, b)));
        if repeats {
            return Err(Malformed::new("volume", format!("{id} names a slot or server twice")));
        }
        Ok(Group { id, name: info.name, epoch: info.epoch, members })
    }
}

impl TryFrom<wire::Member> for Member {
    type Error = Malformed;
    fn try_from(member: wire::Member) -> Result<Member, Malformed> {
        let state = match member.state() {
            wire::MemberState::MemberJoining => MemberState::Joining,
            wire::MemberState::MemberActive => MemberState::Active,
            wire::MemberState::MemberLeaving => MemberState::Leaving,
            wire::MemberState::MemberUnknown => {
                return Err(Malformed::new("member", format!("slot {} has no known state", member.slot)));
            }
        };
        Ok(Member { slot: member.slot, server: ServerId::new(member.server)?, state })
    }
}

/// A group as it is kept on disk.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    id: u32,
    name: String,
    epoch: u64,
    members: Vec<(u32, u8, MemberState)>,
}

impl From<Group> for Kept {
    fn from(group: Group) -> Kept {
        let members = group.members.iter().map(|m| (m.slot, m.server.0, m.state)).collect();
        Kept { id: group.id.0, name: group.name, epoch: group.epoch, members }
    }
}

impl TryFrom<Kept> for Group {
    type Error = Malformed;
    fn try_from(kept: Kept) -> Result<Group, Malformed> {
        let member =
            |(slot, server, state)| Ok(Member { slot, server: ServerId::new(u32::from(server))?, state });
        let members = kept.members.into_iter().map(member).collect::<Result<_, Malformed>>()?;
        Ok(Group { id: VolumeId(kept.id), name: kept.name, epoch: kept.epoch, members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(epoch: u64, servers: &[u32]) -> wire::VolumeInfo {
        let member = |(slot, server): (usize, &u32)| wire::Member {
            slot: slot as u32,
            replica: server << 24 | 1,
            server: *server,
            state: wire::MemberState::MemberActive.into(),
        };
        let members = servers.iter().enumerate().map(member).collect();
        wire::VolumeInfo { id: 0x7f00_0001, name: "home".into(), epoch, members }
    }

    fn group(epoch: u64, servers: &[u32]) -> Group {
        told(epoch, servers).try_into().unwrap()
    }

    #[test]
    fn only_a_higher_epoch_changes_a_group_unless_people_insist() {
        let known = group(5, &[1, 2]);
        assert_eq!(news(None, &known, false), News::Learnt);
        assert_eq!(news(Some(&known), &known, false), News::Same);
        assert_eq!(news(Some(&known), &group(6, &[1]), false), News::Changed);
        assert_eq!(news(Some(&known), &group(4, &[1]), false), News::Outdated);
        assert_eq!(news(Some(&known), &group(5, &[1]), false), News::Outdated);
        assert_eq!(news(Some(&known), &group(4, &[1]), true), News::Changed);
        let renamed = Group { name: "house".into(), ..known.clone() };
        assert_eq!(news(Some(&known), &renamed, false), News::Learnt);
    }

    #[test]
    fn nonsense_about_a_volume_is_refused() {
        assert!(Group::try_from(told(1, &[1, 1])).is_err(), "a server twice");
        assert!(Group::try_from(told(1, &[])).is_err(), "nobody");
        assert!(Group::try_from(told(1, &[0])).is_err(), "a reserved server id");
        assert!(Group::try_from(wire::VolumeInfo { id: 7, ..told(1, &[1]) }).is_err(), "no group id");
        let mut stateless = told(1, &[1]);
        stateless.members[0].state = 0;
        assert!(Group::try_from(stateless).is_err());
        assert!(Group::try_from(told(1, &(1..40).collect::<Vec<_>>())).is_err(), "too many");
    }

    #[test]
    fn a_group_survives_the_disk() {
        let group = group(3, &[1, 2, 3]);
        let text = serde_json::to_string(&group).unwrap();
        assert_eq!(serde_json::from_str::<Group>(&text).unwrap(), group);
    }

    #[test]
    fn joining_members_take_mutations_and_leaving_ones_only_reads_of_last_resort() {
        let mut group = group(1, &[1, 2, 3]);
        group.members[0].state = MemberState::Joining;
        group.members[2].state = MemberState::Leaving;
        let servers = |members: Vec<&Member>| members.iter().map(|m| m.server.0).collect::<Vec<_>>();
        assert_eq!(servers(group.writable().collect()), [1, 2]);
        assert_eq!(servers(group.readable()), [2]);
        group.members[1].state = MemberState::Leaving;
        assert_eq!(servers(group.readable()), [2, 3]);
    }
}

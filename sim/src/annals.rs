//! What the realm's log must be, whoever the SCM is: one entry in one place, one realm under one number, one membership
//! under one epoch, and nothing lost that enough servers had.
//!
//! What "enough" is follows from who may become the SCM: half of the servers that count, another than the writer among
//! them, counted where the memberships changed meanwhile among those of each step. Only servers that had promised
//! themselves to nobody else when they were looked at are counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coda_proto::{ServerId, VolumeId};
use coda_server::{
    Server,
    location::{Chronicle, Realm, Term, log, scm},
};

type Hash = [u8; 32];
/// Slot, replica, server and state of a member.
type Seat = (u32, u32, u32, i32);

/// What was seen of the realm's log.
#[derive(Default)]
pub struct Annals {
    /// Each place of each term holds one entry for ever.
    entries: BTreeMap<(Term, u64), Hash>,
    /// Each number names one realm for ever.
    realms: BTreeMap<u64, Arc<Realm>>,
    /// Each epoch of a volume names one membership for ever.
    epochs: BTreeMap<(VolumeId, u64), Vec<Seat>>,
    /// How far each server has come.
    heights: BTreeMap<ServerId, (Term, u64)>,
    /// The last entry that enough servers had: whatever log holds in the end begins with all up to it.
    settled: Option<Hash>,
    /// Somebody was made the SCM at the price of what others knew.
    pub ruthless: bool,
}

impl Annals {
    /// Looks at servers that are up. Answers what must not be.
    pub fn look(&mut self, servers: &[&Server]) -> Vec<String> {
        let mut wrong = Vec::new();
        for server in servers {
            let chronicle = server.chronicle().clone();
            let realm = server.realm();
            wrong.extend(self.note_entries(server.id(), &chronicle));
            wrong.extend(self.note_realm(server.id(), &realm));
            let height = (chronicle.promised(), realm.config);
            let before = self.heights.insert(server.id(), height);
            if let Some(before) = before
                && (before.0 > height.0 || before.1 > height.1)
            {
                wrong.push(format!(
                    "server {} was at {} with realm {}, and is now at {} with realm {}",
                    server.id(),
                    before.0,
                    before.1,
                    height.0,
                    height.1
                ));
            }
        }
        if !self.ruthless {
            self.settle(servers);
        }
        wrong
    }

    fn note_entries(&mut self, server: ServerId, chronicle: &Chronicle) -> Vec<String> {
        let mut wrong = Vec::new();
        for entry in chronicle.entries() {
            let Ok(term) = log::term(entry) else { continue };
            let hash = log::hash(entry);
            if *self.entries.entry((term, entry.index)).or_insert(hash) != hash {
                wrong.push(format!(
                    "two entries {} of the log in term {term}, one at server {server}: {}",
                    entry.index, entry.what
                ));
            }
        }
        wrong
    }

    fn note_realm(&mut self, server: ServerId, realm: &Arc<Realm>) -> Vec<String> {
        let mut wrong = Vec::new();
        let known = self.realms.entry(realm.config).or_insert_with(|| realm.clone());
        if **known != **realm {
            wrong.push(format!("two realms have the number {}, one at server {server}", realm.config));
        }
        for (id, volume) in &realm.volumes {
            let mut members: Vec<_> = volume
                .info
                .members
                .iter()
                .map(|one| (one.slot, one.replica, one.server, one.state))
                .collect();
            members.sort();
            let known = self.epochs.entry((*id, volume.info.epoch)).or_insert_with(|| members.clone());
            if *known != members {
                wrong.push(format!(
                    "volume {id} has two memberships in epoch {}: {known:?} and {members:?}, at server {server}",
                    volume.info.epoch
                ));
            }
        }
        wrong
    }

    /// Moves on to the last entry that enough servers have.
    fn settle(&mut self, servers: &[&Server]) {
        let logs: Vec<(ServerId, Chronicle)> =
            servers.iter().map(|server| (server.id(), server.chronicle().clone())).collect();
        let hashes: Vec<Vec<Hash>> =
            logs.iter().map(|(_, log)| log.entries().iter().map(log::hash).collect()).collect();
        for (at, (_, chronicle)) in logs.iter().enumerate() {
            let from = match self.settled {
                None => 0,
                Some(settled) => match hashes[at].iter().position(|hash| *hash == settled) {
                    Some(position) => position,
                    None => continue,
                },
            };
            let mut voters: Vec<BTreeSet<ServerId>> = Vec::new();
            voters.extend(chronicle.replay(from + 1, &[]).map(|realm| scm::voters(&realm)));
            for next in from + 1..hashes[at].len() {
                let Ok(term) = log::term(&chronicle.entries()[next]) else { break };
                let Ok(realm) = chronicle.replay(next + 1, &[]) else { break };
                voters.push(scm::voters(&realm));
                let has = |(other, (id, log)): (usize, &(ServerId, Chronicle))| {
                    let has = log.promised() == term && hashes[other].contains(&hashes[at][next]);
                    has.then_some(*id)
                };
                let holders: BTreeSet<ServerId> = logs.iter().enumerate().filter_map(has).collect();
                let enough = |voters: &BTreeSet<ServerId>| {
                    let held: Vec<_> = voters.intersection(&holders).collect();
                    held.len() * 2 >= voters.len() && held.iter().any(|id| **id != term.scm)
                };
                if holders.contains(&term.scm) && voters.iter().all(enough) {
                    self.settled = Some(hashes[at][next]);
                    voters.drain(..voters.len() - 1);
                }
            }
        }
    }

    /// What must hold when everything is healed and somebody is the SCM.
    pub fn judge(&self, servers: &[&Server]) -> Vec<String> {
        let mut wrong = Vec::new();
        let Some((first, others)) = servers.split_first() else { return wrong };
        let reference = first.chronicle().clone();
        for other in others {
            let chronicle = other.chronicle().clone();
            if chronicle.entries() != reference.entries() || *other.realm() != *first.realm() {
                let (here, there) = (reference.end(), chronicle.end());
                wrong.push(format!(
                    "the logs stay apart: server {} ends at {}.{} {}, server {} at {}.{} {}",
                    first.id(),
                    here.term,
                    here.writer,
                    here.index,
                    other.id(),
                    there.term,
                    there.writer,
                    there.index
                ));
            }
        }
        let scms: Vec<ServerId> = servers.iter().filter(|one| is_scm(one)).map(|one| one.id()).collect();
        if scms.len() != 1 {
            wrong.push(format!("of all servers these are the SCM: {scms:?}"));
        }
        if let Some(settled) = self.settled
            && !reference.entries().iter().any(|entry| log::hash(entry) == settled)
        {
            wrong.push("an entry of the log that enough servers had is given up".into());
        }
        wrong
    }
}

/// Whether a server takes itself for the SCM.
pub fn is_scm(server: &Server) -> bool {
    let chronicle = server.chronicle();
    chronicle.term().scm == server.id() && chronicle.term() == chronicle.promised()
}

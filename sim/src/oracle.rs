//! What must hold of all replicas: equal pasts mean equal states, and after some quiet all members are equal.
//!
//! Where removals are forgotten and pasts folded, each member does that for itself: then what is left of removals is not
//! compared, nor what has no place any more, and of two pasts only whether each includes the other.

use std::collections::BTreeMap;

use coda_proto::{Author, Fid, Past, ServerId};
use coda_server::Server;

/// One object at one replica: its past, and everything that the past governs, as text.
struct Object {
    past: Past,
    text: String,
    /// It has a place.
    placed: bool,
}

/// What a server's replicas hold, and when authors were retired.
struct Holding {
    objects: BTreeMap<Fid, Object>,
    retired: BTreeMap<Author, u64>,
}

impl Holding {
    fn of(server: &Server, ages: bool) -> Result<Holding, String> {
        let mut holding = Holding { objects: BTreeMap::new(), retired: BTreeMap::new() };
        for volume in server.volumes().values() {
            let read = volume.read(|view| {
                for (_, fid) in view.changed_since(0, u32::MAX)? {
                    let Some(head) = view.head(fid)? else { continue };
                    let mut text = format!(
                        "{:?} siblings {:?} target {:?} registers {:?} acls {:?}",
                        head.kind, head.siblings, head.target, head.registers, head.acls
                    );
                    let mut bindings = view.bindings_of(fid)?;
                    bindings.retain(|binding| !binding.dots.is_empty());
                    bindings.sort();
                    let placed = fid.is_root() || !bindings.is_empty();
                    for binding in bindings {
                        let name = String::from_utf8_lossy(&binding.name).into_owned();
                        text +=
                            &format!(" in {} as {name} {} {:?}", binding.dir, binding.origin, binding.dots);
                    }
                    if !ages {
                        let mut tombstones = view.tombstones_of(fid)?;
                        tombstones.sort();
                        text += &format!(" tombstones {tombstones:?}");
                    }
                    holding.objects.insert(fid, Object { past: head.past, text, placed });
                }
                if ages {
                    let rows = view.retired_after(0, u32::MAX)?;
                    holding.retired.extend(rows.into_iter().map(|row| (row.author, row.stamp)));
                }
                Ok(())
            });
            read.map_err(|refusal| format!("server {}: {refusal}", server.id()))?;
        }
        Ok(holding)
    }

    /// Whether one past includes another, be it folded.
    fn includes(&self, past: &Past, other: &Past) -> bool {
        other.entries().all(|dot| past.includes_dot(dot, self.retired.get(&dot.author).copied()))
    }
}

/// The hashes of all contents that some replica holds and counts as current.
pub fn hashes(servers: &[&Server]) -> Result<Vec<[u8; 32]>, String> {
    let mut all = Vec::new();
    for server in servers {
        for volume in server.volumes().values() {
            let found = volume.read(|view| {
                for (_, fid) in view.changed_since(0, u32::MAX)? {
                    let siblings = view.head(fid)?.map(|head| head.siblings).unwrap_or_default();
                    all.extend(siblings.iter().map(|sibling| sibling.hash));
                }
                Ok(())
            });
            found.map_err(|refusal| format!("server {}: {refusal}", server.id()))?;
        }
    }
    Ok(all)
}

/// What every replica included when it was last looked at, and which replica that was.
pub type Pasts = BTreeMap<(ServerId, Fid), (u32, Past)>;

/// Equal pasts, unequal states: never. Nor does a replica ever include less than it did. (One that was given up and
/// made anew has another history; `known` is emptied then.)
pub fn replicas_are_sound(servers: &[&Server], known: &mut Pasts, ages: bool) -> Result<(), String> {
    let mut seen: BTreeMap<(Fid, Past), (ServerId, String)> = BTreeMap::new();
    for server in servers {
        let holding = Holding::of(server, ages)?;
        let realm = server.realm();
        if ages {
            // What was forgotten whole may be made again, by somebody who was never answered.
            known.retain(|(at, fid), _| *at != server.id() || holding.objects.contains_key(fid));
        }
        for (fid, object) in &holding.objects {
            let (past, text) = (&object.past, &object.text);
            let replica = realm.replica_at(fid.volume, server.id()).map_or(0, |member| member.replica);
            let before = known.insert((server.id(), *fid), (replica, past.clone()));
            if let Some((_, before)) = before.filter(|(before, _)| *before == replica)
                && !holding.includes(past, &before)
            {
                return Err(format!("server {}: {fid} included {before}, and now {past}", server.id()));
            }
            let (first, known) =
                seen.entry((*fid, past.clone())).or_insert_with(|| (server.id(), text.clone())).clone();
            if known != *text {
                return Err(format!(
                    "{fid} at past {past} differs:\n  server {first}: {known}\n  server {}: {text}",
                    server.id()
                ));
            }
        }
    }
    Ok(())
}

/// Whether a server includes whatever another holds.
pub fn includes(server: &Server, other: &Server) -> Result<bool, String> {
    let mine = Holding::of(server, false)?;
    let theirs = Holding::of(other, false)?;
    Ok(theirs
        .objects
        .iter()
        .all(|(fid, their)| mine.objects.get(fid).is_some_and(|own| own.past.includes(&their.past))))
}

/// Whether all servers hold the same of what they both hold; if not, one difference.
pub fn converged(servers: &[&Server], ages: bool) -> Result<(), String> {
    let mut before: Vec<(&Server, Holding)> = Vec::new();
    for server in servers {
        let holding = Holding::of(server, ages)?;
        before.iter().try_for_each(|(other, held)| same((other, held), (server, &holding), ages))?;
        before.push((server, holding));
    }
    Ok(())
}

fn same(one: (&Server, &Holding), other: (&Server, &Holding), ages: bool) -> Result<(), String> {
    let ((first, reference), (second, holding)) = (one, other);
    let (here, there) = (first.volumes(), second.volumes());
    let fids = reference.objects.keys().chain(holding.objects.keys());
    for fid in fids.filter(|fid| here.contains_key(&fid.volume) && there.contains_key(&fid.volume)) {
        let placed = |object: &&Object| object.placed || !ages;
        let here = reference.objects.get(fid).filter(placed);
        let there = holding.objects.get(fid).filter(placed);
        let same = match (here, there) {
            (Some(here), Some(there)) => {
                let equal = here.past == there.past
                    || (ages
                        && reference.includes(&here.past, &there.past)
                        && holding.includes(&there.past, &here.past));
                equal && here.text == there.text
            }
            (None, None) => true,
            _ => false,
        };
        if !same {
            let past = |object: Option<&Object>| object.map_or("nothing".into(), |o| o.past.to_string());
            return Err(format!(
                "{fid}: server {} has {}, server {} has {}",
                first.id(),
                past(here),
                second.id(),
                past(there)
            ));
        }
    }
    Ok(())
}

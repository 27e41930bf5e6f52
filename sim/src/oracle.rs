//! What must hold of all replicas: equal pasts mean equal states, and after some quiet all members are equal.

use std::collections::BTreeMap;

use coda_proto::{Fid, Past, ServerId};
use coda_server::Server;

/// One object at one replica: its past, and everything that the past governs, as text.
type Objects = BTreeMap<Fid, (Past, String)>;

/// What a server's replicas hold.
pub fn objects(server: &Server) -> Result<Objects, String> {
    let mut objects = Objects::new();
    for volume in server.volumes().values() {
        volume
            .read(|view| {
                for (_, fid) in view.changed_since(0, u32::MAX)? {
                    let Some(head) = view.head(fid)? else { continue };
                    let mut text = format!(
                        "{:?} siblings {:?} target {:?} registers {:?} acls {:?}",
                        head.kind, head.siblings, head.target, head.registers, head.acls
                    );
                    let mut bindings = view.bindings_of(fid)?;
                    bindings.retain(|binding| !binding.dots.is_empty());
                    bindings.sort();
                    for binding in bindings {
                        let name = String::from_utf8_lossy(&binding.name).into_owned();
                        text +=
                            &format!(" in {} as {name} {} {:?}", binding.dir, binding.origin, binding.dots);
                    }
                    let mut tombstones = view.tombstones_of(fid)?;
                    tombstones.sort();
                    text += &format!(" tombstones {tombstones:?}");
                    objects.insert(fid, (head.past, text));
                }
                Ok(())
            })
            .map_err(|refusal| format!("server {}: {refusal}", server.id()))?;
    }
    Ok(objects)
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

/// What every replica included when it was last looked at.
pub type Pasts = BTreeMap<(ServerId, Fid), Past>;

/// Equal pasts, unequal states: never. Nor does a replica ever include less than it did. (One that was given up and
/// made anew has another history; `known` is emptied then.)
pub fn replicas_are_sound(servers: &[&Server], known: &mut Pasts) -> Result<(), String> {
    let mut seen: BTreeMap<(Fid, Past), (ServerId, String)> = BTreeMap::new();
    for server in servers {
        for (fid, (past, text)) in objects(server)? {
            let before = known.insert((server.id(), fid), past.clone()).unwrap_or_default();
            if !past.includes(&before) {
                return Err(format!("server {}: {fid} included {before}, and now {past}", server.id()));
            }
            let (first, known) =
                seen.entry((fid, past.clone())).or_insert_with(|| (server.id(), text.clone())).clone();
            if known != text {
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
    let mine = objects(server)?;
    let theirs = objects(other)?;
    Ok(theirs.iter().all(|(fid, (past, _))| mine.get(fid).is_some_and(|(known, _)| known.includes(past))))
}

/// Whether all servers hold the same; if not, one difference.
pub fn converged(servers: &[&Server]) -> Result<(), String> {
    let Some((first, others)) = servers.split_first() else { return Ok(()) };
    let reference = objects(first)?;
    for other in others {
        let objects = objects(other)?;
        for fid in reference.keys().chain(objects.keys()) {
            let (here, there) = (reference.get(fid), objects.get(fid));
            if here != there {
                let past =
                    |object: Option<&(Past, String)>| object.map_or("nothing".into(), |o| o.0.to_string());
                return Err(format!(
                    "{fid}: server {} has {}, server {} has {}",
                    first.id(),
                    past(here),
                    other.id(),
                    past(there)
                ));
            }
        }
    }
    Ok(())
}

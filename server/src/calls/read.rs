//! Fetching: contents, listings, attributes, rights.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use coda_proto::{
    BULK_LIMIT, Code, Dot, Fid, Kind, Refusal, Rights, Sibling, Status, VolumeId,
    id::{optional, required},
    merge::Head,
    wire::{self, response::Body},
};

use super::{Answer, Caller, plain};
use crate::{
    rights::demand,
    server::Server,
    session::Key,
    status::{status, status_of},
    store::{Bytes as Stored, Place, StoreError, View},
    volume::Volume,
};

/// When a view is of.
pub(super) fn stamp(view: &View) -> Result<wire::Stamp, StoreError> {
    let row = view.volume_row()?;
    Ok(wire::Stamp { incarnation: row.incarnation, change_seq: row.change_seq })
}

/// Objects of one call, at most.
pub const MANY: usize = 1000;
/// Entries of one page, at most.
const PAGE: u32 = 10_000;

impl Server {
    pub(crate) fn fetch(&self, caller: Caller, fetch: wire::Fetch) -> Answer {
        let fid: Fid = required(fetch.fid, "fid")?;
        let wanted: Option<Dot> = optional(fetch.dot)?;
        let length = (fetch.length as usize).min(BULK_LIMIT);
        let volume = self.volume(fid.volume)?;
        let promised = self.promise(caller, [fid]);
        volume.read(|view| {
            served(view)?;
            let (head, mut status) = found(view, fid, caller)?;
            status.promised = promised;
            let right = match head.kind {
                Kind::File => Rights::READ,
                Kind::Directory | Kind::Symlink => Rights::LOOKUP,
            };
            demand(view, fid, caller.who, right)?;
            if fetch.holes && is_hole(view, &volume, &head, wanted, fetch.offset, length)? {
                let zeros = length as u64;
                return Ok((
                    Body::Fetched(wire::Fetched { status: Some((&status).into()), zeros }),
                    Bytes::new(),
                ));
            }
            let bytes = match head.kind {
                Kind::File => contents(view, &volume, &head, wanted, fetch.offset, length)?,
                Kind::Symlink => slice(&head.target, fetch.offset, length),
                Kind::Directory if length == 0 => Bytes::new(),
                Kind::Directory => {
                    return Err(Refusal::about(Code::IsDirectory, fid, "a directory is listed, not fetched"));
                }
            };
            Ok((Body::Fetched(wire::Fetched { status: Some((&status).into()), zeros: 0 }), bytes))
        })
    }

    pub(crate) fn fetch_many(&self, caller: Caller, fetch: wire::FetchMany) -> Answer {
        let fids = fids(VolumeId(fetch.volume), fetch.fids)?;
        let volume = self.volume(VolumeId(fetch.volume))?;
        let promised = self.promise(caller, fids.iter().copied());
        let room = (fetch.at_most as usize).min(BULK_LIMIT);
        volume.read(|view| {
            served(view)?;
            let (mut statuses, mut sent, mut bulk) = (Vec::new(), Vec::new(), BytesMut::new());
            for fid in fids {
                let Some(head) = view.head(fid)? else { continue };
                let Some(mut status) = status_of(view, &head, caller.who)? else { continue };
                status.promised = promised;
                let left = room - bulk.len();
                let fits = head.kind == Kind::File && status.length <= left as u64 && !status.past.is_empty();
                let bytes = match fits && demand(view, fid, caller.who, Rights::READ).is_ok() {
                    true => contents(view, &volume, &head, None, 0, left).ok(),
                    false => None,
                };
                sent.push(bytes.is_some());
                bulk.extend_from_slice(&bytes.unwrap_or_default());
                statuses.push((&status).into());
            }
            Ok((Body::FetchedMany(wire::FetchedMany { statuses, contents: sent }), bulk.freeze()))
        })
    }

    pub(crate) fn read_dir(&self, caller: Caller, read: wire::ReadDir) -> Answer {
        let fid: Fid = required(read.fid, "fid")?;
        let volume = self.volume(fid.volume)?;
        let promised = self.promise(caller, [fid]);
        volume.read(|view| {
            served(view)?;
            let (head, mut status) = found(view, fid, caller)?;
            if head.kind != Kind::Directory {
                return Err(Refusal::about(Code::NotDirectory, fid, "not a directory"));
            }
            demand(view, fid, caller.who, Rights::LOOKUP)?;
            status.promised = promised;
            let after =
                Place { name: read.after.to_vec(), unique: read.after_unique, vnode: read.after_vnode };
            let limit = match read.limit {
                0 => PAGE,
                limit => limit.min(PAGE),
            };
            let (entries, last) = view.entries(fid, &after, limit)?;
            let entries = entries.iter().map(Into::into).collect();
            plain(Body::DirPage(wire::DirPage { status: Some((&status).into()), entries, last }))
        })
    }

    pub(crate) fn get_attr(&self, caller: Caller, get: wire::GetAttr) -> Answer {
        let fids = fids(VolumeId(get.volume), get.fids)?;
        let volume = self.volume(VolumeId(get.volume))?;
        let promised = self.promise(caller, fids.iter().copied());
        volume.read(|view| {
            served(view)?;
            let (mut statuses, mut gone) = (Vec::new(), Vec::new());
            for fid in fids {
                match status(view, fid, caller.who)? {
                    Some(status) => statuses.push((&Status { promised, ..status }).into()),
                    None => gone.push(fid.into()),
                }
            }
            let stamp = Some(stamp(view)?);
            plain(Body::Attributes(wire::Attributes { statuses, gone, stamp }))
        })
    }

    pub(crate) fn list_former(&self, caller: Caller, ask: wire::ListFormer) -> Answer {
        let fid: Fid = required(ask.fid, "fid")?;
        let volume = self.volume(fid.volume)?;
        volume.read(|view| {
            served(view)?;
            found(view, fid, caller)?;
            demand(view, fid, caller.who, Rights::READ)?;
            let former = view.formers(fid)?;
            let former = former.iter().map(|former| wire::Former {
                version: Some((&former.version).into()),
                seen: Some((&former.seen).into()),
            });
            let seen = view.seen_by(fid)?;
            let seen = seen
                .iter()
                .map(|(dot, past)| wire::SeenBy { dot: Some((*dot).into()), past: Some(past.into()) });
            plain(Body::Formers(wire::Formers { former: former.collect(), seen: seen.collect() }))
        })
    }

    pub(crate) fn get_acl(&self, caller: Caller, get: wire::GetAcl) -> Answer {
        let fid: Fid = required(get.fid, "fid")?;
        let volume = self.volume(fid.volume)?;
        volume.read(|view| {
            served(view)?;
            let (head, status) = found(view, fid, caller)?;
            if head.kind != Kind::Directory {
                return Err(Refusal::about(Code::NotDirectory, fid, "only directories have a list"));
            }
            let (acl, status) = ((&head.acl()).into(), (&status).into());
            plain(Body::Acl(wire::AclAnswer { acl: Some(acl), status: Some(status) }))
        })
    }

    pub(crate) fn get_volume_status(&self, caller: Caller, get: wire::GetVolumeStatus) -> Answer {
        let id = VolumeId(get.volume);
        let volume = self.volume(id)?;
        let name = self.realm().volumes.get(&id).map(|volume| volume.info.name.clone()).unwrap_or_default();
        volume.read(|view| {
            let row = view.volume_row()?;
            let root = Fid::root(id);
            demand(view, root, caller.who, Rights::READ)?;
            let head = view.head(root)?;
            let space = volume.store().space()?;
            plain(Body::VolumeStatus(wire::VolumeStatus {
                volume: id.0,
                name,
                online: row.joined,
                quota_min: head.as_ref().map_or(0, Head::quota_min),
                quota_max: head.as_ref().map_or(0, Head::quota_max),
                blocks_used: row.used,
                partition_free: space.free,
                partition_size: space.size,
                objects: view.objects()?,
                offline_message: row.offline_message,
                motd: row.motd,
                stamp: Some(stamp(view)?),
            }))
        })
    }

    /// Promises the caller to break a callback before any of these changes.
    pub(super) fn promise(&self, caller: Caller, fids: impl IntoIterator<Item = Fid>) -> bool {
        self.promise_keys(caller, fids.into_iter().map(Key::Object))
    }

    pub(super) fn promise_keys(&self, caller: Caller, keys: impl IntoIterator<Item = Key>) -> bool {
        caller.session != 0 && self.sessions().promise(caller.session, keys)
    }
}

/// Whether this replica may be asked at all.
pub(crate) fn served(view: &View<'_>) -> Result<(), Refusal> {
    match view.volume_row()?.joined {
        true => Ok(()),
        false => {
            let why = format!("volume {} has yet to meet its peers here", view.volume);
            Err(Refusal::new(Code::NotJoined, why))
        }
    }
}

/// Fids of one volume, not too many.
fn fids(volume: VolumeId, fids: Vec<wire::Fid>) -> Result<Vec<Fid>, Refusal> {
    if fids.len() > MANY {
        return Err(Refusal::new(Code::TooBig, format!("{} objects; {MANY} at most", fids.len())));
    }
    let fids = fids.into_iter().map(Fid::try_from).collect::<Result<Vec<_>, _>>()?;
    match fids.iter().find(|fid| fid.volume != volume) {
        Some(fid) => Err(Refusal::about(Code::Invalid, *fid, "of another volume")),
        None => Ok(fids),
    }
}

/// An object that shows and is no runt.
fn found(view: &View<'_>, fid: Fid, caller: Caller) -> Result<(Head, Status), Refusal> {
    let gone = || Refusal::about(Code::Gone, fid, "no such object");
    let head = view.head(fid)?.ok_or_else(gone)?;
    if head.past.is_empty() {
        return Err(Refusal::about(Code::NeedsResolve, fid, "this member has only heard of it"));
    }
    let status = status_of(view, &head, caller.who)?.ok_or_else(gone)?;
    Ok((head, status))
}

/// The contents of an object that are wanted: those of this dot, or those that it shows.
fn version(view: &View<'_>, head: &Head, wanted: Option<Dot>) -> Result<Option<Sibling>, StoreError> {
    Ok(match wanted {
        Some(dot) => head.siblings.iter().find(|sibling| sibling.dot == dot).cloned(),
        None => view.contents_shown(head)?.into_iter().next(),
    })
}

/// Whether all that is wanted lies in a hole of a container that is sound.
fn is_hole(
    view: &View<'_>,
    volume: &Arc<Volume>,
    head: &Head,
    wanted: Option<Dot>,
    offset: u64,
    length: usize,
) -> Result<bool, StoreError> {
    let Some(sibling) = version(view, head, wanted)?.filter(|_| length > 0) else { return Ok(false) };
    let Some(content) = view.content(head.fid, sibling.dot)? else { return Ok(false) };
    let Stored::Container(name) = &content.bytes else { return Ok(false) };
    Ok(volume.store().containers.is_hole(name, offset, length as u64)
        && volume.read_checked(&content, offset, 1)?.is_some())
}

fn contents(
    view: &View<'_>,
    volume: &Arc<Volume>,
    head: &Head,
    wanted: Option<Dot>,
    offset: u64,
    length: usize,
) -> Result<Bytes, Refusal> {
    let sibling = match (version(view, head, wanted)?, wanted) {
        (Some(sibling), _) => sibling,
        (None, None) => return Ok(Bytes::new()),
        (None, Some(dot)) => {
            if let Some(content) = view.former_content(head.fid, dot)?
                && let Some(bytes) = volume.read_checked(&content, offset, length)?
            {
                return Ok(bytes);
            }
            let why = format!("it no longer has the version {dot}");
            return Err(Refusal::about(Code::Gone, head.fid, why));
        }
    };
    if length == 0 || sibling.length == 0 {
        return Ok(Bytes::new());
    }
    let lost = |why: String| Refusal::about(Code::NeedsResolve, head.fid, why);
    let content = view.content(head.fid, sibling.dot)?;
    let content = content.ok_or_else(|| lost(format!("the contents {} are not here", sibling.dot)))?;
    match volume.read_checked(&content, offset, length)? {
        Some(bytes) => Ok(bytes),
        None => Err(lost(format!("the contents {} are damaged here", sibling.dot))),
    }
}

fn slice(bytes: &[u8], offset: u64, length: usize) -> Bytes {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let end = start.saturating_add(length).min(bytes.len());
    Bytes::copy_from_slice(&bytes[start..end])
}

//! Objects as clients see them.

use coda_proto::{Fid, Kind, Status, merge::Head, service::Identity};

use crate::{
    rights,
    store::{StoreError, View},
};

/// The status of `fid` for `who`; `None` where no directory shows it.
pub fn status(view: &View<'_>, fid: Fid, who: Identity) -> Result<Option<Status>, StoreError> {
    match view.head(fid)? {
        Some(head) => status_of(view, &head, who),
        None => Ok(None),
    }
}

/// The same for a head that has been read.
pub fn status_of(view: &View<'_>, head: &Head, who: Identity) -> Result<Option<Status>, StoreError> {
    let fid = head.fid;
    let places = view.bindings_of(fid)?;
    let shown = places.iter().filter(|binding| binding.shown);
    let Some(parent) = (match fid.is_root() {
        true => Some(fid),
        false => shown.clone().max_by_key(|binding| binding.rank()).map(|binding| binding.dir),
    }) else {
        return Ok(None);
    };
    let governor = if head.kind == Kind::Directory { fid } else { parent };
    let rights_of = |who| match governor == fid {
        true => Ok(Some(rights::rights_by(head, who))),
        false => rights::rights_in(view, governor, who),
    };
    let siblings = view.contents_shown(head)?;
    let (length, nlink) = match head.kind {
        Kind::Directory => {
            let (entries, directories) = view.counts(fid)?;
            (entries, directories + 2)
        }
        Kind::Symlink => (head.target.len() as u64, shown.count() as u32),
        Kind::File => (siblings.first().map_or(0, |sibling| sibling.length), shown.count() as u32),
    };
    let (host, made) = head.made();
    let places = places.iter().map(|binding| binding.lamport()).max().unwrap_or(0);
    Ok(Some(Status {
        fid,
        kind: head.kind,
        length,
        mode: head.mode(),
        owner: head.owner(),
        group: head.group(),
        mtime: head.mtime(),
        nlink,
        parent,
        past: head.past.clone(),
        siblings,
        target: head.target.clone(),
        my_rights: rights_of(who)?.unwrap_or_default(),
        any_rights: rights_of(Identity::Client)?.unwrap_or_default(),
        promised: false,
        lamport: head.lamport().max(places).max(view.listing_lamport(fid)?),
        xattrs: head.xattrs(),
        marked: head.marked,
        host,
        made,
        ctime: head.ctime(),
        atime: head.atime(),
    }))
}

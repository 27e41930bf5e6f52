//! What people must decide at an object, as this replica has it.

use std::collections::BTreeSet;

use coda_proto::{Code, Fid, Kind, Refusal};

use crate::store::View;

/// What competes at an object; `None` where nothing does.
pub(super) fn undecided(view: &View<'_>, fid: Fid) -> Result<Option<String>, Refusal> {
    let gone = || Refusal::about(Code::Gone, fid, "no such object");
    let head = view.head(fid)?.ok_or_else(gone)?;
    let versions: BTreeSet<_> = view.contents_shown(&head)?.into_iter().map(|sibling| sibling.hash).collect();
    if versions.len() > 1 {
        return Ok(Some(format!("{} versions of its contents", versions.len())));
    }
    if head.acls.len() > 1 {
        return Ok(Some(format!("{} access lists", head.acls.len())));
    }
    if view.bindings_of(fid)?.iter().any(|place| place.derived && place.shown) {
        return Ok(Some("it where it came back, or where a cycle put it".to_owned()));
    }
    if head.kind == Kind::Directory
        && let Some(name) = view.contended_name(fid)?
    {
        return Ok(Some(format!("several objects named {:?}", String::from_utf8_lossy(&name))));
    }
    Ok(None)
}

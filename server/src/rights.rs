//! Who may do what: decided on every call from the directory's ACL.
//!
//! Files and symbolic links have no list of their own; the directory that shows them decides. Until users
//! exist, every client is System:AnyUser. Whoever holds the realm's admin key may everything, and so may
//! the realm's servers, which act for each other.

use coda_proto::{
    Code, Fid, Kind, Op, Record, Refusal, Rights, acl::ANYUSER, merge::Head, service::Identity,
};

use crate::store::{StoreError, View};

/// What `who` may do where `acl_of` is the list.
pub fn rights_by(directory: &Head, who: Identity) -> Rights {
    match who {
        Identity::Admin | Identity::Server(_) => Rights::ALL,
        Identity::Client => directory.acl().rights(&[ANYUSER]),
    }
}

/// The directory whose list governs `fid`: itself, or where it shows, or last was.
pub fn governor(view: &View<'_>, fid: Fid) -> Result<Fid, StoreError> {
    if fid.is_directory() {
        return Ok(fid);
    }
    let bindings = view.bindings_of(fid)?;
    if let Some(binding) = bindings.iter().max_by_key(|binding| (binding.shown, binding.rank())) {
        return Ok(binding.dir);
    }
    let tombstones = view.tombstones_of(fid)?;
    let last = tombstones.iter().max_by_key(|tombstone| (tombstone.lamport, tombstone.dot));
    Ok(last.map_or(Fid::root(view.volume), |tombstone| tombstone.dir))
}

/// What `who` may do in `directory`; `None` where this member cannot say.
pub fn rights_in(view: &View<'_>, directory: Fid, who: Identity) -> Result<Option<Rights>, StoreError> {
    let head = view.head(directory)?;
    Ok(head.filter(|head| !head.past.is_empty()).map(|head| rights_by(&head, who)))
}

/// Demands all of `wanted` on the directory that governs `fid`.
pub fn demand(view: &View<'_>, fid: Fid, who: Identity, wanted: Rights) -> Result<(), Refusal> {
    let directory = governor(view, fid)?;
    match rights_in(view, directory, who)? {
        Some(rights) if rights.has(wanted) => Ok(()),
        Some(_) => Err(Refusal::about(Code::Access, directory, format!("needs {wanted} on {directory}"))),
        None => Err(Refusal::about(Code::NeedsResolve, directory, "its rights are not known here")),
    }
}

/// What a record needs: a directory, and any of some sets of rights in it.
#[derive(Debug, PartialEq)]
pub struct Need {
    /// Where.
    pub directory: Fid,
    /// One of these must be there whole.
    pub any_of: Vec<Rights>,
}

fn need(directory: Fid, any_of: &[Rights]) -> Need {
    Need { directory, any_of: any_of.to_vec() }
}

/// What an object is to a decision about rights.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// The directory that governs it.
    pub governor: Fid,
    /// It is a file that has never been stored: who may insert may fill it.
    pub virgin: bool,
    /// It is a mount point.
    pub mount_point: bool,
}

/// Which rights `op` needs.
pub fn needs(op: &Op, object: Object) -> Vec<Need> {
    const ADMIN: Rights = Rights::ADMINISTER;
    let change: &[Rights] = match object.virgin {
        true => &[Rights::WRITE, Rights::INSERT],
        false => &[Rights::WRITE],
    };
    let removal: &[Rights] = match object.mount_point {
        true => &[Rights(Rights::DELETE.0 | ADMIN.0)],
        false => &[Rights::DELETE],
    };
    match op {
        Op::Symlink { parent, target, mode, .. } if is_mount_point(target, *mode) => {
            vec![need(*parent, &[Rights(Rights::INSERT.0 | ADMIN.0)])]
        }
        Op::Create { parent, .. }
        | Op::MakeDir { parent, .. }
        | Op::Symlink { parent, .. }
        | Op::Link { parent, .. } => vec![need(*parent, &[Rights::INSERT])],
        Op::Remove { parent, .. } | Op::RemoveDir { parent, .. } => vec![need(*parent, removal)],
        Op::Rename { from, to, replaced, .. } => {
            let mut needs = vec![need(*from, removal), need(*to, &[Rights::INSERT])];
            needs.extend(replaced.map(|_| need(*to, &[Rights::DELETE])));
            needs
        }
        Op::Store { .. } => vec![need(object.governor, change)],
        Op::SetAttr { fid, .. } | Op::SetXattr { fid, .. } if fid.is_directory() => {
            vec![need(*fid, &[Rights::INSERT, Rights::DELETE])]
        }
        Op::SetAttr { .. } | Op::SetXattr { .. } => vec![need(object.governor, change)],
        Op::SetAcl { fid, .. } | Op::SetQuota { fid, .. } => vec![need(*fid, &[ADMIN])],
    }
}

/// Whether a symbolic link is a mount point: `#VOLUME.` or `#VOLUME@REALM.`, not executable.
pub fn is_mount_point(target: &[u8], mode: u32) -> bool {
    target.starts_with(b"#") && target.ends_with(b".") && mode & 0o100 == 0
}

/// The object that a record is about, besides directories.
fn subject(op: &Op) -> Fid {
    match op {
        Op::Create { fid, .. }
        | Op::MakeDir { fid, .. }
        | Op::Symlink { fid, .. }
        | Op::Link { fid, .. }
        | Op::Remove { fid, .. }
        | Op::RemoveDir { fid, .. }
        | Op::Rename { fid, .. }
        | Op::Store { fid, .. }
        | Op::SetAttr { fid, .. }
        | Op::SetXattr { fid, .. }
        | Op::SetAcl { fid, .. }
        | Op::SetQuota { fid, .. } => *fid,
    }
}

/// Whether `who` may make this mutation.
pub fn check(view: &View<'_>, who: Identity, record: &Record) -> Result<(), Refusal> {
    if who != Identity::Client {
        return Ok(());
    }
    let fid = subject(&record.op);
    let head = view.head(fid)?;
    let object = Object {
        governor: governor(view, fid)?,
        virgin: head.as_ref().is_some_and(|head| head.kind == Kind::File && head.siblings.is_empty()),
        mount_point: head
            .is_some_and(|head| head.kind == Kind::Symlink && is_mount_point(&head.target, head.mode())),
    };
    for need in needs(&record.op, object) {
        match rights_in(view, need.directory, who)? {
            Some(rights) if need.any_of.iter().any(|wanted| rights.has(*wanted)) => {}
            Some(_) => {
                let wanted = need.any_of.iter().map(Rights::to_string).collect::<Vec<_>>().join(" or ");
                let why = format!("{} needs {wanted} on {}", record.op.verb(), need.directory);
                return Err(Refusal::about(Code::Access, need.directory, why));
            }
            // Records of one call may make the directory; if they did not, applying says what is missing.
            None => {
                let why = "its rights are not known here";
                return Err(Refusal::about(Code::NeedsResolve, need.directory, why));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coda_proto::{Author, VolumeId};

    const V: VolumeId = VolumeId(0x7f00_0001);
    const SEEN: Object =
        Object { governor: Fid { volume: V, vnode: 1, unique: 1 }, virgin: false, mount_point: false };

    #[test]
    fn a_rename_over_something_needs_delete_there_too() {
        let (from, to) = (Fid::root(V), Fid::directory(V, Author(9), 1));
        let fid = Fid::file(V, Author(9), 1);
        let rename = |replaced| Op::Rename {
            from,
            from_name: b"a".to_vec(),
            to,
            to_name: b"b".to_vec(),
            fid,
            replaced,
        };
        assert_eq!(needs(&rename(None), SEEN), [need(from, &[Rights::DELETE]), need(to, &[Rights::INSERT])]);
        assert_eq!(needs(&rename(Some(fid)), SEEN).last(), Some(&need(to, &[Rights::DELETE])));
    }

    #[test]
    fn who_may_insert_may_fill_a_file_once() {
        let store = Op::SetAttr {
            fid: Fid::file(V, Author(9), 1),
            mode: Some(0),
            owner: None,
            group: None,
            mtime: None,
            atime: None,
        };
        let virgin = Object { virgin: true, ..SEEN };
        assert!(needs(&store, virgin)[0].any_of.contains(&Rights::INSERT));
        assert!(!needs(&store, SEEN)[0].any_of.contains(&Rights::INSERT));
    }

    #[test]
    fn mount_points_are_for_administrators() {
        assert!(is_mount_point(b"#home.", 0o644) && is_mount_point(b"#home@r.", 0o644));
        assert!(!is_mount_point(b"#home.", 0o777) && !is_mount_point(b"#home", 0o644));
    }
}

//! Which records of the log a new one makes needless: a decision.
//!
//! Only records that were never sent are touched, and nothing is looked at across one that was: a member may
//! have it, and then everything before it counts.
//!
//! | new record | needless then |
//! |---|---|
//! | store | stores and times right before it; all stores of a file that nobody else has heard of |
//! | setattr | earlier ones that set nothing else, with no store in between |
//! | setxattr | an earlier one of the same name |
//! | the last name goes | stores and attributes; and everything, this record too, where nobody else has heard of the object |

use coda_proto::{Fid, Op};

/// A record of the log, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct Earlier<'a> {
    /// Its place in the log.
    pub log: u64,
    /// What it does.
    pub op: &'a Op,
    /// Some member may have it.
    pub sent: bool,
}

/// What becomes of a record of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It is not sent.
    Drop(u64),
    /// This is what is left of it.
    Become(u64, Op),
}

/// What is decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Newest first.
    pub steps: Vec<Step>,
    /// What is left of the new record; `None`: nothing.
    pub new: Option<Op>,
}

/// The object that a record is about, as far as others may become needless by it.
pub fn subject(op: &Op) -> Option<Fid> {
    match op {
        Op::Store { fid, .. }
        | Op::SetAttr { fid, .. }
        | Op::SetXattr { fid, .. }
        | Op::Remove { fid, .. }
        | Op::RemoveDir { fid, .. } => Some(*fid),
        Op::Rename { replaced, .. } => *replaced,
        _ => None,
    }
}

/// Decides. `earlier`: all records of the log that touch the new one's subject. `last_name`: the subject has
/// no name left behind it.
pub fn cancel(earlier: &[Earlier<'_>], new: &Op, last_name: bool) -> Plan {
    let unsent = earlier.iter().rposition(|record| record.sent).map_or(0, |last| last + 1);
    let is_ours = unsent == 0 && earlier.first().is_some_and(|record| record.op.creates() == subject(new));
    let free = &earlier[unsent..];
    match new {
        Op::Store { .. } => before_store(free, new, is_ours),
        Op::SetAttr { .. } => before_setattr(free, new),
        Op::SetXattr { name, .. } => {
            let same = |op: &Op| matches!(op, Op::SetXattr { name: other, .. } if other == name);
            kept(new, free.iter().filter(|record| same(record.op)))
        }
        Op::Remove { fid, .. } | Op::RemoveDir { fid, .. } if last_name => match whole(free, *fid, is_ours) {
            Some(steps) => Plan { steps, new: None },
            None => kept(new, free.iter().filter(|record| is_about_itself(record.op))),
        },
        Op::Rename { replaced: Some(fid), .. } if last_name => match whole(free, *fid, is_ours) {
            Some(steps) => Plan { steps, new: Some(without_replaced(new)) },
            None => kept(new, free.iter().filter(|record| is_about_itself(record.op))),
        },
        _ => kept(new, std::iter::empty()),
    }
}

/// The new record stays, and these go.
fn kept<'a>(new: &Op, needless: impl DoubleEndedIterator<Item = &'a Earlier<'a>>) -> Plan {
    let steps = needless.rev().map(|record| Step::Drop(record.log)).collect();
    Plan { steps, new: Some(new.clone()) }
}

fn before_store(free: &[Earlier<'_>], new: &Op, is_ours: bool) -> Plan {
    let mut new = new.clone();
    let mut steps = Vec::new();
    let (mut owner_set, mut mode_set) = (false, false);
    for record in free.iter().rev() {
        match record.op {
            Op::Store { mode, .. } if !owner_set => {
                if let (Op::Store { mode: newer, .. }, false) = (&mut new, mode_set) {
                    *newer = newer.or(*mode);
                }
                mode_set |= mode.is_some();
                steps.push(Step::Drop(record.log));
            }
            Op::SetAttr { mode: None, owner: None, group: None, atime: None, .. } => {
                steps.push(Step::Drop(record.log));
            }
            // It may only be possible because the store before it brought the file back.
            _ if !is_ours => break,
            Op::SetAttr { mode, owner, group, .. } => {
                owner_set |= owner.is_some() || group.is_some();
                mode_set |= mode.is_some();
            }
            _ => {}
        }
    }
    Plan { steps, new: Some(new) }
}

fn before_setattr(free: &[Earlier<'_>], new: &Op) -> Plan {
    let set = |op: &Op| match op {
        Op::SetAttr { mode, owner, group, mtime, atime, .. } => {
            Some([mode.is_some(), owner.is_some(), group.is_some(), mtime.is_some(), atime.is_some()])
        }
        _ => None,
    };
    let newer = set(new).unwrap_or_default();
    let since_store = free.iter().rev().take_while(|record| !matches!(record.op, Op::Store { .. }));
    let covered = |op: &Op| set(op).is_some_and(|old| old.iter().zip(newer).all(|(old, new)| !old || new));
    let steps =
        since_store.filter(|record| covered(record.op)).map(|record| Step::Drop(record.log)).collect();
    Plan { steps, new: Some(new.clone()) }
}

/// All that happened to an object that nobody else has heard of; `None` where others have, or where
/// something else is left that depends on it.
fn whole(free: &[Earlier<'_>], fid: Fid, is_ours: bool) -> Option<Vec<Step>> {
    if !is_ours {
        return None;
    }
    let step = |record: &Earlier<'_>| match record.op {
        Op::Create { fid: made, .. } | Op::Symlink { fid: made, .. } | Op::MakeDir { fid: made, .. }
            if *made == fid =>
        {
            Some(Step::Drop(record.log))
        }
        Op::Rename { fid: moved, replaced: Some(replaced), to, to_name, .. } if *moved == fid => {
            let (parent, name, fid) = (*to, to_name.clone(), *replaced);
            let left = match fid.is_directory() {
                true => Op::RemoveDir { parent, name, fid },
                false => Op::Remove { parent, name, fid },
            };
            Some(Step::Become(record.log, left))
        }
        Op::Rename { fid: moved, .. } | Op::Link { fid: moved, .. } | Op::Remove { fid: moved, .. }
            if *moved == fid =>
        {
            Some(Step::Drop(record.log))
        }
        op if is_about_itself(op) => Some(Step::Drop(record.log)),
        // Something is, or was, in it.
        _ => None,
    };
    free.iter().rev().map(step).collect()
}

fn is_about_itself(op: &Op) -> bool {
    matches!(op, Op::Store { .. } | Op::SetAttr { .. } | Op::SetXattr { .. })
}

fn without_replaced(op: &Op) -> Op {
    match op.clone() {
        Op::Rename { from, from_name, to, to_name, fid, .. } => {
            Op::Rename { from, from_name, to, to_name, fid, replaced: None }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use coda_proto::{Author, Contents, VolumeId};

    use super::*;

    fn fid(vnode: u32) -> Fid {
        Fid { volume: VolumeId(0x7f00_0001), vnode, unique: Author(5).0 }
    }
    fn create(vnode: u32) -> Op {
        Op::Create { parent: fid(1), name: b"f".into(), fid: fid(vnode), mode: 0o644, owner: 0 }
    }
    fn store(vnode: u32, mode: Option<u32>) -> Op {
        let contents = Contents::Uploaded([0; 16]);
        Op::Store { fid: fid(vnode), length: 1, hash: [0; 32], mtime: 0, contents, mode }
    }
    fn chmod(vnode: u32) -> Op {
        Op::SetAttr { fid: fid(vnode), mode: Some(0o600), owner: None, group: None, mtime: None, atime: None }
    }
    fn touch(vnode: u32) -> Op {
        Op::SetAttr { fid: fid(vnode), mode: None, owner: None, group: None, mtime: Some(1), atime: None }
    }
    fn remove(vnode: u32) -> Op {
        Op::Remove { parent: fid(1), name: b"f".into(), fid: fid(vnode) }
    }
    fn rename(vnode: u32, replaced: Option<u32>) -> Op {
        let (from, to) = (fid(1), fid(1));
        let (from_name, to_name) = (b"t".to_vec(), b"f".to_vec());
        Op::Rename { from, from_name, to, to_name, fid: fid(vnode), replaced: replaced.map(fid) }
    }

    /// Decides over a log whose first `sent` records were sent.
    fn plan(log: &[Op], sent: usize, new: &Op) -> Plan {
        let earlier: Vec<Earlier> = (log.iter().enumerate())
            .map(|(at, op)| Earlier { log: at as u64, op, sent: at < sent })
            .collect();
        cancel(&earlier, new, true)
    }
    fn dropped(plan: &Plan) -> Vec<u64> {
        plan.steps.iter().map(|step| if let Step::Drop(log) = step { *log } else { 99 }).collect()
    }

    #[test]
    fn rapid_rewrites_fold_into_one_store() {
        let log = [store(2, Some(0o600)), store(2, None), touch(2)];
        let plan = plan(&log, 0, &store(2, None));
        assert_eq!(dropped(&plan), [2, 1, 0]);
        assert_eq!(
            plan.new,
            Some(store(2, Some(0o600))),
            "the mode that joined an earlier one joins this one"
        );
    }

    #[test]
    fn nothing_is_folded_across_what_was_sent_or_what_a_store_made_possible() {
        assert_eq!(dropped(&plan(&[store(2, None), store(2, None)], 2, &store(2, None))), [0; 0]);
        assert_eq!(dropped(&plan(&[store(2, None), store(2, None)], 1, &store(2, None))), [1]);
        assert_eq!(dropped(&plan(&[store(2, None), chmod(2)], 0, &store(2, None))), [0; 0]);
        let ours = [create(2), store(2, None), chmod(2)];
        assert_eq!(dropped(&plan(&ours, 0, &store(2, None))), [1], "nobody else can have removed it");
        assert_eq!(dropped(&plan(&ours, 1, &store(2, None))), [0; 0]);
    }

    #[test]
    fn what_is_made_and_removed_never_was() {
        let log = [create(2), store(2, None), chmod(2)];
        let plan_all = plan(&log, 0, &remove(2));
        assert_eq!((dropped(&plan_all), plan_all.new), (vec![2, 1, 0], None));
        // Somebody may have heard of it.
        let sent = plan(&log, 1, &remove(2));
        assert_eq!((dropped(&sent), sent.new), (vec![2, 1], Some(remove(2))));
    }

    #[test]
    fn a_directory_goes_with_its_making_only_if_nothing_of_the_log_is_in_it() {
        let make = Op::MakeDir { parent: fid(1), name: b"d".into(), fid: fid(3), mode: 0o755, owner: 0 };
        let gone = Op::RemoveDir { parent: fid(1), name: b"d".into(), fid: fid(3) };
        assert_eq!(plan(&[make.clone(), chmod(3)], 0, &gone).new, None);
        let inside = Op::Create { parent: fid(3), name: b"f".into(), fid: fid(2), mode: 0o644, owner: 0 };
        let kept = plan(&[make, inside], 0, &gone);
        assert_eq!((kept.steps, kept.new), (vec![], Some(gone)));
    }

    #[test]
    fn an_atomic_save_over_an_earlier_one_leaves_the_removal_of_what_was_there_first() {
        // Saved as 4 over 2, and now as 6 over 4.
        let log = [create(4), store(4, None), rename(4, Some(2))];
        let plan = plan(&log, 0, &rename(6, Some(4)));
        assert_eq!(plan.steps, [Step::Become(2, remove(2)), Step::Drop(1), Step::Drop(0)]);
        assert_eq!(plan.new, Some(rename(6, None)));
    }

    #[test]
    fn attributes_that_are_set_again_are_set_once() {
        assert_eq!(dropped(&plan(&[chmod(2), touch(2), chmod(2)], 0, &chmod(2))), [2, 0]);
        assert_eq!(dropped(&plan(&[chmod(2), store(2, None)], 0, &chmod(2))), [0; 0]);
    }
}

//! What a state must look like, from the true causal order of its records.

use std::collections::{BTreeMap, BTreeSet};

use coda_proto::{
    Dot, Fid, Op, Past,
    merge::{Replica, contents_shown},
};

use crate::site::{History, Made, Site, root};

type Place = (Fid, Vec<u8>, Dot);

impl Site {
    /// Compares everything that follows from the history with what the state holds.
    pub fn check_history(&self, history: &History) {
        let held: Vec<&Made> = self.seen.iter().filter_map(|dot| history.made.get(dot)).collect();
        let mut fids = BTreeSet::from([root()]);
        fids.extend(held.iter().flat_map(|made| made.record.op.touches()));
        for fid in &fids {
            let head = self.state.head(*fid).unwrap().unwrap_or_else(|| panic!("{fid} is missing"));
            assert_eq!(head.past, past_of(*fid, &held), "the past of {fid}");
            let siblings: Vec<Dot> = head.siblings.iter().map(|sibling| sibling.dot).collect();
            assert_eq!(siblings, newest(&held, |op| matches!(op, Op::Store { fid: f, .. } if f == fid)));
            assert_eq!(self.contents(*fid), contents(*fid, &siblings, &held), "what shows of {fid}");
            let acls: Vec<Dot> = head.acls.keys().copied().collect();
            assert_eq!(acls, newest(&held, |op| matches!(op, Op::SetAcl { fid: f, .. } if f == fid)));
            assert_eq!(self.bound(*fid), bound(*fid, &held), "the places of {fid}");
        }
        assert_eq!(self.state.heads().count(), fids.len());
        self.check_who_shows(&held, &fids);
    }

    fn bound(&self, fid: Fid) -> BTreeMap<Place, BTreeSet<Dot>> {
        let places = self.state.bindings_of(fid).unwrap().into_iter().filter(|b| !b.dots.is_empty());
        places.map(|b| ((b.dir, b.name, b.origin), b.dots.into_keys().collect())).collect()
    }

    /// The contents of a file that show.
    pub fn contents(&self, fid: Fid) -> Vec<Dot> {
        let head = self.state.head(fid).unwrap().unwrap();
        let rows = (self.state.bindings_of(fid).unwrap(), self.state.tombstones_of(fid).unwrap());
        contents_shown(&head, &rows.0, &rows.1).iter().map(|sibling| sibling.dot).collect()
    }

    /// An object shows exactly if it is bound, or outlived its removers, or something shows in it.
    fn check_who_shows(&self, held: &[&Made], fids: &BTreeSet<Fid>) {
        for fid in fids.iter().filter(|fid| !fid.is_root()) {
            let shows = self.state.bindings_of(*fid).unwrap().iter().any(|place| place.shown);
            let holds = fid.is_directory() && !self.state.is_empty(*fid).unwrap();
            let bound = !bound(*fid, held).is_empty();
            assert_eq!(shows, bound || outlived(*fid, held) || holds, "{fid}");
        }
    }
}

fn past_of(fid: Fid, held: &[&Made]) -> Past {
    let mut past: Past = held
        .iter()
        .filter(|made| made.record.op.touches().contains(&fid))
        .map(|made| made.record.dot)
        .collect();
    if fid.is_root() {
        past.add(Dot::new(coda_proto::Author(1), 1));
    }
    past
}

/// Of the records of one kind, those that no other had seen.
fn newest(held: &[&Made], kind: impl Fn(&Op) -> bool) -> Vec<Dot> {
    let all: Vec<&&Made> = held.iter().filter(|made| kind(&made.record.op)).collect();
    let newest = all.iter().filter(|made| !all.iter().any(|other| other.seen.contains(&made.record.dot)));
    newest.map(|made| made.record.dot).collect()
}

fn bound(fid: Fid, held: &[&Made]) -> BTreeMap<Place, BTreeSet<Dot>> {
    let mut places: BTreeMap<Place, BTreeSet<Dot>> = BTreeMap::new();
    for made in held {
        let dot = made.record.dot;
        let (dir, name, origins) = match &made.record.op {
            Op::Create { parent, name, fid: f, .. }
            | Op::MakeDir { parent, name, fid: f, .. }
            | Op::Symlink { parent, name, fid: f, .. }
            | Op::Link { parent, name, fid: f }
                if *f == fid =>
            {
                (*parent, name, BTreeSet::from([dot]))
            }
            Op::Rename { to, to_name, fid: f, .. } if *f == fid => (*to, to_name, made.takes[&fid].clone()),
            _ => continue,
        };
        for origin in origins {
            let taken = |other: &&Made| {
                other.takes.get(&fid).is_some_and(|taken| taken.contains(&origin))
                    && other.seen.contains(&dot)
            };
            if !held.iter().any(taken) {
                places.entry((dir, name.clone(), origin)).or_default().insert(dot);
            }
        }
    }
    places
}

/// Of the contents that no other had seen, those to show: where no name is left, what no remover had seen.
fn contents(fid: Fid, newest: &[Dot], held: &[&Made]) -> Vec<Dot> {
    let removers = removers(fid, held);
    let removed = |dot: &Dot| removers.iter().any(|remover| remover.seen.contains(dot));
    match bound(fid, held).is_empty() && newest.iter().any(|dot| !removed(dot)) {
        true => newest.iter().copied().filter(|dot| !removed(dot)).collect(),
        false => newest.to_vec(),
    }
}

fn removers<'a>(fid: Fid, held: &[&'a Made]) -> Vec<&'a Made> {
    let renames = |made: &Made| matches!(&made.record.op, Op::Rename { fid: f, .. } if *f == fid);
    held.iter().copied().filter(|made| made.takes.contains_key(&fid) && !renames(made)).collect()
}

/// Whether an object holds an update that none of its removers had seen.
fn outlived(fid: Fid, held: &[&Made]) -> bool {
    let removers = removers(fid, held);
    let touching = held.iter().filter(|made| made.record.op.touches().contains(&fid));
    bound(fid, held).is_empty()
        && !removers.is_empty()
        && touching.into_iter().any(|made| {
            let dot = made.record.dot;
            !removers.iter().any(|remover| remover.record.dot == dot || remover.seen.contains(&dot))
        })
}

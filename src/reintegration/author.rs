//! Who writes: an author of 64 random bits, and what it has written.
//!
//! The author is drawn at every start, and again where a mutation's base lacks an earlier one of our own:
//! a past that names only the last of an author's updates would claim to include the one that is missing.

use std::collections::HashMap;

use coda_proto::{
    Author, Dot, Fid,
    planted::{Bug, planted},
};

use super::Seen;

/// Objects of which an author's last update is remembered, before another author is drawn.
const OWN_LIMIT: usize = 200_000;

/// The author of a volume's mutations.
#[derive(Default)]
pub(super) struct Writer {
    author: Option<Author>,
    /// It is kept on disk who it is.
    noted: bool,
    seq: u64,
    count: u32,
    /// The last update of each object by this author.
    own: HashMap<Fid, u64>,
}

/// `own` as it was before a mutation.
pub(super) type Before = Vec<(Fid, Option<u64>)>;

impl Writer {
    /// The author that may write on these bases; another one is drawn where this one must not. Answers
    /// whether it is new: it has yet to be kept who that is, with its first record.
    pub fn author(&mut self, bases: &[Seen], random: impl Fn() -> u64) -> (Author, bool) {
        let lacks_own = |author: Author| {
            !planted(Bug::WritesWithoutOwn)
                && bases
                    .iter()
                    .any(|seen| self.own.get(&seen.fid).is_some_and(|seq| seen.past.seq(author) < *seq))
        };
        match self.author {
            Some(author)
                if !lacks_own(author) && self.own.len() < OWN_LIMIT && self.count < u32::MAX / 2 - 1 =>
            {
                (author, !self.noted)
            }
            _ => {
                let author = loop {
                    match random() {
                        // 1 is whoever made the volumes' roots.
                        0 | 1 => {}
                        drawn => break Author(drawn),
                    }
                };
                (self.author, self.noted) = (Some(author), false);
                (self.seq, self.count) = (0, 0);
                self.own.clear();
                (author, true)
            }
        }
    }

    /// It is kept who it is.
    pub fn noted(&mut self) {
        self.noted = true;
    }

    /// Who writes now, if anybody does.
    pub fn present(&self) -> Option<Author> {
        self.author
    }

    /// The next dot of the author.
    pub fn next(&mut self, author: Author) -> Dot {
        self.seq += 1;
        Dot::new(author, self.seq)
    }

    /// The number of the next object that it makes.
    pub fn count(&self) -> u32 {
        self.count + 1
    }

    /// It made one.
    pub fn made(&mut self) {
        self.count += 1;
    }

    /// It updates these objects. Answers what undoes that.
    pub fn wrote(&mut self, touched: &[Fid], dot: Dot) -> Before {
        touched.iter().map(|fid| (*fid, self.own.insert(*fid, dot.seq))).collect()
    }

    /// An update of an object never was; the one before it, if any, is the last.
    pub fn unwrite(&mut self, fid: Fid, author: Author, seq: u64, before: u64) {
        if self.author == Some(author) && self.own.get(&fid) == Some(&seq) {
            match before {
                0 => self.own.remove(&fid),
                before => self.own.insert(fid, before),
            };
        }
    }

    /// It did not update them after all.
    pub fn unwrote(&mut self, dot: Dot, before: &Before) {
        if self.author != Some(dot.author) {
            return;
        }
        for (fid, seq) in before {
            match seq {
                Some(seq) => self.own.insert(*fid, *seq),
                None => self.own.remove(fid),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use coda_proto::VolumeId;

    use super::*;

    fn seen(vnode: u32, dots: &[(u64, u64)]) -> Seen {
        let past = dots.iter().map(|(author, seq)| Dot::new(Author(*author), *seq)).collect();
        Seen {
            fid: Fid { volume: VolumeId(1), vnode, unique: 1 },
            past,
            lamport: 0,
            changed: 0,
            written: None,
        }
    }

    #[test]
    fn an_author_never_writes_on_a_base_that_lacks_its_own_last_update() {
        let mut writer = Writer::default();
        let draw = || 7;
        assert_eq!(writer.author(&[seen(1, &[])], draw), (Author(7), true));
        // What it was to be noted with failed.
        assert_eq!(writer.author(&[seen(1, &[])], || 8), (Author(7), true));
        writer.noted();
        writer.own.insert(seen(1, &[]).fid, 3);
        assert_eq!(writer.author(&[seen(1, &[(7, 3)])], draw), (Author(7), false));
        assert_eq!(writer.author(&[seen(3, &[])], draw), (Author(7), false));
        assert_eq!(writer.author(&[seen(1, &[(7, 2)])], || 9), (Author(9), true));
        assert!(writer.own.is_empty());
    }
}

//! Versions: what a state includes.
//!
//! Every object has a past: for each author, how many of its updates of this object the state includes.
//! Equal pasts mean equal bytes, always. The comparison has four answers, and none of them is a number.

use std::collections::BTreeMap;

use crate::{Author, Dot, Malformed, wire};

/// How many authors a past may name on the wire. Retired authors are folded into one entry long before.
pub const PAST_LIMIT: usize = 4096;

/// `author -> highest seq of that author's updates of this object` that a state includes.
///
/// An empty past is a *runt*: a replica knows that the object exists and never had its contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Past(BTreeMap<Author, u64>);

/// How one state stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same state.
    Equal,
    /// It includes the other.
    Newer,
    /// The other includes it.
    Older,
    /// Each includes something the other lacks.
    Concurrent,
}

impl Past {
    /// The past of a state that includes exactly `dot`.
    pub fn of(dot: Dot) -> Past {
        Past(BTreeMap::from([(dot.author, dot.seq)]))
    }

    /// Whether this is a runt.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The highest seq of `author` in it; 0 if none.
    pub fn seq(&self, author: Author) -> u64 {
        self.0.get(&author).copied().unwrap_or(0)
    }

    /// Whether it includes this mutation.
    pub fn covers(&self, dot: Dot) -> bool {
        self.seq(dot.author) >= dot.seq
    }

    /// Whether it includes everything that `other` includes.
    pub fn includes(&self, other: &Past) -> bool {
        other.0.iter().all(|(author, seq)| self.seq(*author) >= *seq)
    }

    /// How this state stands to `other`.
    pub fn relation(&self, other: &Past) -> Relation {
        match (self.includes(other), other.includes(self)) {
            (true, true) => Relation::Equal,
            (true, false) => Relation::Newer,
            (false, true) => Relation::Older,
            (false, false) => Relation::Concurrent,
        }
    }

    /// Adds one mutation.
    pub fn add(&mut self, dot: Dot) {
        let seq = self.0.entry(dot.author).or_insert(0);
        *seq = (*seq).max(dot.seq);
    }

    /// The smallest past that includes both.
    pub fn join(&mut self, other: &Past) {
        for (author, seq) in &other.0 {
            self.add(Dot::new(*author, *seq));
        }
    }

    /// The same, as a value.
    pub fn joined(&self, other: &Past) -> Past {
        let mut both = self.clone();
        both.join(other);
        both
    }

    /// Everything that authors retired up to this stamp did to the object is included: one entry that
    /// stands for theirs (see [`Author::ELDERS`]).
    pub fn elders(&self) -> u64 {
        self.seq(Author::ELDERS)
    }

    /// Stamps are times in nanoseconds; below are the few mutations that made a volume's root.
    pub const STAMPS: u64 = 1 << 40;

    /// Whether the elders' entry stands for anybody's.
    pub fn is_folded(&self) -> bool {
        self.elders() >= Past::STAMPS
    }

    /// Whether it includes this mutation, whose author was retired at the stamp `retired`, if at all.
    pub fn includes_dot(&self, dot: Dot, retired: Option<u64>) -> bool {
        self.covers(dot) || retired.is_some_and(|stamp| stamp <= self.elders())
    }

    /// Drops the entries of authors for whom the elders' entry stands. Every state that includes the same
    /// comes to the same.
    pub fn fold(&mut self, retired: impl Fn(Author) -> Option<u64>) {
        let elders = self.elders();
        self.0.retain(|author, _| retired(*author).is_none_or(|stamp| stamp > elders));
    }

    /// Authors and their highest seq, in order of author.
    pub fn entries(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.iter().map(|(author, seq)| Dot::new(*author, *seq))
    }

    /// 128 bits of BLAKE3 over the entries: what travels first.
    pub fn digest(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        for (author, seq) in &self.0 {
            hasher.update(&author.0.to_le_bytes());
            hasher.update(&seq.to_le_bytes());
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        digest
    }
}

impl FromIterator<Dot> for Past {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Past {
        let mut past = Past::default();
        dots.into_iter().for_each(|dot| past.add(dot));
        past
    }
}

impl std::fmt::Display for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries: Vec<String> = self.entries().map(|dot| dot.to_string()).collect();
        write!(f, "[{}]", entries.join(" "))
    }
}

impl From<&Past> for wire::Past {
    fn from(past: &Past) -> wire::Past {
        wire::Past { entries: past.entries().map(Into::into).collect() }
    }
}
impl From<Past> for wire::Past {
    fn from(past: Past) -> wire::Past {
        (&past).into()
    }
}
impl TryFrom<wire::Past> for Past {
    type Error = Malformed;
    fn try_from(past: wire::Past) -> Result<Past, Malformed> {
        if past.entries.len() > PAST_LIMIT {
            return Err(Malformed::new("past", format!("{} authors", past.entries.len())));
        }
        past.entries.into_iter().map(Dot::try_from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_small() -> Vec<Past> {
        let seqs = [0u64, 1, 2];
        let mut all = Vec::new();
        for a in seqs {
            for b in seqs {
                for c in seqs {
                    let entries = [(1, a), (2, b), (3, c)];
                    all.push(
                        entries.iter().filter(|e| e.1 > 0).map(|e| Dot::new(Author(e.0), e.1)).collect(),
                    );
                }
            }
        }
        all
    }

    #[test]
    fn the_four_answers_agree_from_both_sides() {
        for a in &all_small() {
            for b in &all_small() {
                let expected = match a.relation(b) {
                    Relation::Equal => Relation::Equal,
                    Relation::Newer => Relation::Older,
                    Relation::Older => Relation::Newer,
                    Relation::Concurrent => Relation::Concurrent,
                };
                assert_eq!(b.relation(a), expected, "{a} {b}");
                assert_eq!(a.relation(b) == Relation::Equal, a == b);
                assert_eq!(a.digest() == b.digest(), a == b);
            }
        }
    }

    #[test]
    fn joining_is_commutative_associative_idempotent_and_least() {
        for a in &all_small() {
            assert_eq!(&a.joined(a), a);
            for b in &all_small() {
                let both = a.joined(b);
                assert_eq!(both, b.joined(a));
                assert!(both.includes(a) && both.includes(b));
                for c in &all_small() {
                    assert_eq!(both.joined(c), a.joined(&b.joined(c)));
                    if c.includes(a) && c.includes(b) {
                        assert!(c.includes(&both));
                    }
                }
            }
        }
    }

    #[test]
    fn a_runt_is_included_by_everything() {
        assert!(all_small().iter().all(|past| past.includes(&Past::default())));
    }
}

//! The realm's configuration as a log: who may write it, and which of two logs holds.
//!
//! ```text
//!  index     1        2        3        4        5
//!          ┌────────┬────────┬────────┬────────┬────────┐
//!          │ begins │ +vol a │ +srv 2 │ SCM: 2 │ +vol b │     each entry carries the hash of the one before
//!          └────────┴────────┴────────┴────────┴────────┘
//!  term      1.1      1.1      1.1      2.2      2.2          number.writer
//! ```
//!
//! A term has one writer, the SCM; an administrator's signature (a mandate) opens each but the first. Terms
//! are ordered by number, then by writer, so that two servers promoted apart are not equals: when they meet,
//! one log holds and the other is cut back to where they agree. What is cut off is kept aside, never
//! forgotten in silence. Whoever has promised itself to a term tells it to everybody, and counts for no writer of
//! a lower one, even where it takes over what that one wrote: this is what deposes an SCM which does not know
//! yet that it is one no more.
//!
//! Everything here is decided without a clock, a disk or a network; whoever calls persists a [`Step`] before
//! it is [`done`](Chronicle::done).

use std::fmt;

use coda_proto::{
    ServerId,
    planted::{Bug, planted},
    wire,
};
use prost::Message;

use super::{Realm, delta};

/// A term of office: its number and its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// Grows with every promotion.
    pub number: u64,
    /// The only server that appends in it.
    pub scm: ServerId,
}

impl Term {
    /// The first: whoever made the realm.
    pub fn first(scm: ServerId) -> Term {
        Term { number: 1, scm }
    }

    /// A number that grows with terms, then with `count`; in the first term `count` itself. Configurations and
    /// groups' epochs are counted so: two logs that went apart never use one number for two things.
    pub fn stamp(self, count: u64) -> u64 {
        let term = match self.number {
            0 | 1 => 0,
            number => number << 40 | u64::from(self.scm.0) << 32,
        };
        term | count & COUNT
    }
}

const COUNT: u64 = 0xffff_ffff;

/// The count within a stamp.
pub fn count(stamp: u64) -> u64 {
    stamp & COUNT
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.scm)
    }
}

/// Checks what servers and administrators have signed. Without one (in a world without keys) only the
/// structure of a log is checked.
pub trait Seal: Send + Sync {
    /// Signs as this server.
    fn sign(&self, bytes: &[u8]) -> Result<wire::Proof, String>;
    /// Whether `server` signed this.
    fn by_server(&self, server: ServerId, bytes: &[u8], proof: &wire::Proof) -> Result<(), String>;
    /// Whether an administrator signed this.
    fn by_admin(&self, bytes: &[u8], proof: &wire::Proof) -> Result<(), String>;
}

/// What the signature of an entry covers: all of it, and by the hash within all before it.
pub fn hash(entry: &wire::LogEntry) -> [u8; 32] {
    let bare = wire::LogEntry { proof: None, mandate: None, ..entry.clone() };
    *blake3::hash(&bare.encode_to_vec()).as_bytes()
}

/// What an administrator signs to open a term.
pub fn mandate_bytes(mandate: &wire::Mandate) -> Vec<u8> {
    let bare = wire::Mandate { proof: None, ..mandate.clone() };
    [b"coda mandate\n".as_slice(), &bare.encode_to_vec()].concat()
}

/// Why an entry or a log cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} of the realm's log: {why}")]
pub struct Unbelievable {
    /// Which.
    pub index: u64,
    /// Why.
    pub why: String,
}

/// What to make of entries that somebody offers.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Persist this, then call [`Chronicle::done`].
    Take(Step),
    /// Nothing in it is new.
    Known,
    /// They begin behind where both logs agree: send earlier ones.
    Earlier,
    /// This log is the higher one.
    Lower,
}

/// A change of a log: everything from `keep` on is replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Entries that stay.
    pub keep: usize,
    /// Entries that follow them.
    pub entries: Vec<wire::LogEntry>,
    /// The promise after it.
    pub promised: Term,
}

/// One server's copy of the log, and the highest term it has promised itself to.
#[derive(Clone, Debug, PartialEq)]
pub struct Chronicle {
    entries: Vec<wire::LogEntry>,
    hashes: Vec<[u8; 32]>,
    promised: Term,
    first: ServerId,
}

/// Bytes of one message. Of two logs that went apart the first piece must tell which is the higher one.
const PIECE: usize = 4 << 20;

impl Chronicle {
    /// The log that begins with `realm` as it is.
    pub fn begin(realm: &Realm) -> Chronicle {
        Chronicle::of(vec![beginning(realm)], None).expect("a log of one entry")
    }

    /// A log as it was kept.
    pub fn of(entries: Vec<wire::LogEntry>, promised: Option<Term>) -> Result<Chronicle, Unbelievable> {
        let first = entries.first().ok_or_else(|| unbelievable(0, "there is none"))?;
        let own = term(first)?;
        let last = term(entries.last().expect("it has a first"))?;
        let hashes = entries.iter().map(hash).collect();
        let promised = promised.unwrap_or(last).max(last);
        Ok(Chronicle { hashes, promised, first: own.scm, entries })
    }

    /// Its entries.
    pub fn entries(&self) -> &[wire::LogEntry] {
        &self.entries
    }

    /// The term of its last entry.
    pub fn term(&self) -> Term {
        term(self.last()).expect("it was checked when it was taken")
    }

    /// The highest term promised to.
    pub fn promised(&self) -> Term {
        self.promised
    }

    fn last(&self) -> &wire::LogEntry {
        self.entries.last().expect("a log is never empty")
    }

    /// Where it ends.
    pub fn end(&self) -> wire::LogPosition {
        self.position(self.entries.len())
    }

    fn position(&self, count: usize) -> wire::LogPosition {
        let entry = &self.entries[count - 1];
        let hash = self.hashes[count - 1].to_vec().into();
        wire::LogPosition { term: entry.term, writer: entry.writer, index: entry.index, hash }
    }

    /// How many of its entries a log with this position shares for certain: those up to it, if it is here.
    fn shared(&self, at: Option<&wire::LogPosition>) -> Option<usize> {
        let Some(at) = at else { return Some(0) };
        let offset = at.index.checked_sub(self.entries[0].index)? as usize;
        (self.hashes.get(offset)?[..] == at.hash[..]).then_some(offset + 1)
    }

    /// How many entries lead to a position of its own.
    pub fn count_to(&self, at: &wire::LogPosition) -> Option<usize> {
        self.shared(Some(at))
    }

    /// What follows a position; from the beginning, where the position is not here.
    pub fn after(&self, at: Option<&wire::LogPosition>) -> wire::Follow {
        self.from(self.shared(at).unwrap_or(0))
    }

    /// What follows the first `count` entries, as far as one message carries it.
    pub fn from(&self, count: usize) -> wire::Follow {
        let mut room = PIECE;
        let fits = |entry: &&wire::LogEntry| {
            let fits = room >= entry.encoded_len();
            room = room.saturating_sub(entry.encoded_len());
            fits
        };
        let entries = self.entries[count..].iter().take_while(fits).cloned().collect();
        let after = (count > 0).then(|| self.position(count));
        wire::Follow { after, entries, end: Some(self.end()) }
    }

    /// The entry that turns `old`, to which this log leads, into `new`; unsigned. The writer of `term` appends it.
    pub fn next(&self, term: Term, old: &Realm, new: &Realm, time: i64) -> wire::LogEntry {
        let change = delta::between(old, new);
        wire::LogEntry {
            index: self.last().index + 1,
            term: term.number,
            writer: term.scm.0.into(),
            previous: self.hashes[self.hashes.len() - 1].to_vec().into(),
            time,
            what: delta::describe(Some(old), &change),
            change: change.encode_to_vec().into(),
            proof: None,
            mandate: None,
        }
    }

    /// Appending this entry as a step.
    pub fn append(&self, entry: wire::LogEntry) -> Result<Step, Unbelievable> {
        let promised = self.promised.max(term(&entry)?);
        Ok(Step { keep: self.entries.len(), entries: vec![entry], promised })
    }

    /// Promising itself to a term as a step; the answer otherwise is the term promised to already.
    pub fn promise(&self, to: Term) -> Result<Step, Term> {
        match to >= self.promised {
            true => Ok(Step { keep: self.entries.len(), entries: Vec::new(), promised: to }),
            false => Err(self.promised),
        }
    }

    /// What to make of entries that are offered.
    pub fn judge(&self, offer: &wire::Follow, seal: Option<&dyn Seal>) -> Result<Verdict, Unbelievable> {
        let Some(shared) = self.shared(offer.after.as_ref()) else { return Ok(Verdict::Earlier) };
        let mut keep = shared;
        let mut news = &offer.entries[..];
        while let (Some(entry), Some(own)) = (news.first(), self.hashes.get(keep)) {
            if hash(entry) != *own {
                break;
            }
            (keep, news) = (keep + 1, &news[1..]);
        }
        let Some(last) = news.last() else { return Ok(Verdict::Known) };
        self.check(keep, news, seal)?;
        let offered = (term(last)?, last.index);
        let holds = match planted(Bug::LongerLogHolds) {
            true => last.index > self.last().index,
            false => offered > (self.term(), self.last().index),
        };
        if !holds {
            return Ok(Verdict::Lower);
        }
        Ok(Verdict::Take(Step { keep, entries: news.to_vec(), promised: self.promised.max(offered.0) }))
    }

    /// Whether these may follow the first `keep` entries.
    fn check(
        &self,
        keep: usize,
        news: &[wire::LogEntry],
        seal: Option<&dyn Seal>,
    ) -> Result<(), Unbelievable> {
        let mut before: Option<(Term, u64, [u8; 32])> = match keep {
            0 => None,
            keep => {
                let entry = &self.entries[keep - 1];
                Some((term(entry)?, entry.index, self.hashes[keep - 1]))
            }
        };
        for entry in news {
            let wrong = |why: &str| unbelievable(entry.index, why);
            let own = term(entry)?;
            let hash = hash(entry);
            match before {
                // Another beginning than ours is believed only for the sake of what follows it: its writer has
                // signed over it.
                None if self.entries.len() > 1 || news.len() < 2 => {
                    return Err(wrong("it begins another log than ours"));
                }
                None if own != Term::first(self.first) => return Err(wrong("somebody else began it")),
                None => {}
                Some((term, index, previous)) => {
                    if entry.index != index + 1 || entry.previous[..] != previous {
                        return Err(wrong("it does not follow the one before"));
                    }
                    if own != term {
                        if own < term {
                            return Err(wrong("its term is over"));
                        }
                        self.check_mandate(own, entry, seal)?;
                    }
                    if let Some(seal) = seal {
                        let proof = entry.proof.as_ref().ok_or_else(|| wrong("it is not signed"))?;
                        seal.by_server(own.scm, &hash, proof).map_err(|why| wrong(&why))?;
                    }
                }
            }
            before = Some((own, entry.index, hash));
        }
        Ok(())
    }

    fn check_mandate(
        &self,
        own: Term,
        entry: &wire::LogEntry,
        seal: Option<&dyn Seal>,
    ) -> Result<(), Unbelievable> {
        let wrong = |why: &str| unbelievable(entry.index, why);
        let mandate = entry.mandate.as_ref().ok_or_else(|| wrong("it opens a term without a mandate"))?;
        match mandated(mandate) {
            Some(term) if term == own => {}
            _ => return Err(wrong("its mandate is for another term")),
        }
        check_mandate(mandate, seal).map_err(|why| wrong(&why))
    }

    /// A step was persisted. Answers what was cut off.
    pub fn done(&mut self, step: Step) -> Vec<wire::LogEntry> {
        let cut = self.entries.split_off(step.keep);
        self.hashes.truncate(step.keep);
        self.hashes.extend(step.entries.iter().map(hash));
        self.entries.extend(step.entries);
        self.promised = step.promised;
        cut
    }

    /// The realm as the first `count` entries and then `more` make it.
    pub fn replay(&self, count: usize, more: &[wire::LogEntry]) -> Result<Realm, Unbelievable> {
        let mut realm: Option<Realm> = None;
        for entry in self.entries[..count].iter().chain(more) {
            realm = Some(apply(realm.as_ref(), entry)?);
        }
        realm.ok_or_else(|| unbelievable(0, "there is none"))
    }
}

/// The realm after one more entry.
pub fn apply(realm: Option<&Realm>, entry: &wire::LogEntry) -> Result<Realm, Unbelievable> {
    let wrong = |why: String| unbelievable(entry.index, &why);
    let change = wire::ConfigChange::decode(&entry.change[..]).map_err(|error| wrong(error.to_string()))?;
    let whole = change.whole;
    let mut new = delta::follow(realm, change).map_err(|error| wrong(error.to_string()))?;
    if !whole {
        new.config = term(entry)?.stamp(entry.index);
    }
    Ok(new)
}

/// What a log begins with, for a realm as it is.
pub fn beginning(realm: &Realm) -> wire::LogEntry {
    let change = wire::ConfigChange { config: Some(realm.into()), whole: true, ..Default::default() };
    wire::LogEntry {
        index: count(realm.config).max(1),
        term: 1,
        writer: realm.scm.0.into(),
        what: delta::describe(None, &change),
        change: change.encode_to_vec().into(),
        ..Default::default()
    }
}

/// Whose entry it is.
pub fn term(entry: &wire::LogEntry) -> Result<Term, Unbelievable> {
    let scm = ServerId::new(entry.writer).map_err(|error| unbelievable(entry.index, &error.to_string()))?;
    match entry.term {
        0 => Err(unbelievable(entry.index, "there is no term 0")),
        number => Ok(Term { number, scm }),
    }
}

/// A position as it is compared with others: of two logs, the one whose last entry has the higher holds.
pub fn place(at: &wire::LogPosition) -> Option<(Term, u64)> {
    Some((Term { number: at.term, scm: ServerId::new(at.writer).ok()? }, at.index))
}

/// The term that a mandate opens.
pub fn mandated(mandate: &wire::Mandate) -> Option<Term> {
    let scm = ServerId::new(mandate.server).ok()?;
    (mandate.term > 1).then_some(Term { number: mandate.term, scm })
}

/// Whether an administrator has signed a mandate.
pub fn check_mandate(mandate: &wire::Mandate, seal: Option<&dyn Seal>) -> Result<(), String> {
    let Some(seal) = seal else { return Ok(()) };
    let proof = mandate.proof.as_ref().ok_or("the mandate is not signed")?;
    seal.by_admin(&mandate_bytes(mandate), proof)
}

fn unbelievable(index: u64, why: &str) -> Unbelievable {
    Unbelievable { index, why: why.to_owned() }
}

//! Access control lists and their text form (the rights `rlidwka` of a directory).

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{Malformed, wire};

/// Entries of one list, positive and negative together.
pub const ACL_LIMIT: usize = 20;
/// The principal that everybody is.
pub const ANYUSER: &str = "System:AnyUser";
/// The principal of a realm's administrators.
pub const ADMINISTRATORS: &str = "System:Administrators";

/// A set of rights on a directory and the files in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rights(pub u32);

impl Rights {
    /// Read files.
    pub const READ: Rights = Rights(1);
    /// Write files.
    pub const WRITE: Rights = Rights(2);
    /// Make new names.
    pub const INSERT: Rights = Rights(4);
    /// List the directory and look up names.
    pub const LOOKUP: Rights = Rights(8);
    /// Remove names.
    pub const DELETE: Rights = Rights(16);
    /// Lock files.
    pub const LOCK: Rights = Rights(32);
    /// Change the list itself.
    pub const ADMINISTER: Rights = Rights(64);
    /// Everything.
    pub const ALL: Rights = Rights(127);

    const LETTERS: [(char, Rights); 7] = [
        ('r', Rights::READ),
        ('l', Rights::LOOKUP),
        ('i', Rights::INSERT),
        ('d', Rights::DELETE),
        ('w', Rights::WRITE),
        ('k', Rights::LOCK),
        ('a', Rights::ADMINISTER),
    ];

    /// Whether every right of `other` is in it.
    pub fn has(self, other: Rights) -> bool {
        self.0 & other.0 == other.0
    }
    /// Whether it shares a right with `other`.
    pub fn has_any(self, other: Rights) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Rights::LETTERS
            .iter()
            .filter(|(_, right)| self.has(*right))
            .try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}
impl FromStr for Rights {
    type Err = Malformed;
    /// Letters, or the words `all`, `read`, `write`, `none`.
    fn from_str(text: &str) -> Result<Rights, Malformed> {
        match text {
            "all" => return Ok(Rights::ALL),
            "none" => return Ok(Rights(0)),
            "read" => return Ok(Rights(Rights::READ.0 | Rights::LOOKUP.0)),
            "write" => return Ok(Rights(Rights::ALL.0 & !Rights::ADMINISTER.0)),
            _ => {}
        }
        let mut rights = 0;
        for letter in text.chars() {
            match Rights::LETTERS.iter().find(|(known, _)| *known == letter) {
                Some((_, right)) => rights |= right.0,
                None => return Err(Malformed::new("rights", format!("{letter:?} is none of rlidwka"))),
            }
        }
        Ok(Rights(rights))
    }
}

/// Who may do what in a directory. Negative entries take away.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// Rights given.
    pub positive: BTreeMap<String, Rights>,
    /// Rights taken away, whoever else gives them.
    pub negative: BTreeMap<String, Rights>,
}

impl Acl {
    /// The list of a new volume's root: administrators everything, everyone `any`.
    pub fn root(any: Rights) -> Acl {
        let mut positive = BTreeMap::from([(ADMINISTRATORS.to_owned(), Rights::ALL)]);
        if any.0 != 0 {
            positive.insert(ANYUSER.to_owned(), any);
        }
        Acl { positive, negative: BTreeMap::new() }
    }

    /// The rights of somebody who is all of `principals`.
    pub fn rights(&self, principals: &[&str]) -> Rights {
        let sum = |list: &BTreeMap<String, Rights>| {
            principals.iter().filter_map(|who| list.get(*who)).fold(0, |all, rights| all | rights.0)
        };
        Rights(sum(&self.positive) & !sum(&self.negative))
    }

    /// What both lists allow: the merge of two concurrent lists.
    pub fn intersection(&self, other: &Acl) -> Acl {
        let mut positive = BTreeMap::new();
        for (who, rights) in &self.positive {
            let both = rights.0 & other.positive.get(who).map_or(0, |rights| rights.0);
            if both != 0 {
                positive.insert(who.clone(), Rights(both));
            }
        }
        let mut negative = self.negative.clone();
        for (who, rights) in &other.negative {
            negative.entry(who.clone()).or_default().0 |= rights.0;
        }
        Acl { positive, negative }
    }

    /// Coda's text: the two counts, then `name<TAB>decimal` lines.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n{}\n", self.positive.len(), self.negative.len());
        for (who, rights) in self.positive.iter().chain(&self.negative) {
            text.push_str(&format!("{who}\t{}\n", rights.0));
        }
        text
    }

    /// Reads what `to_text` writes.
    pub fn from_text(text: &str) -> Result<Acl, Malformed> {
        let wrong = |why: &str| Malformed::new("ACL", why);
        let mut lines = text.lines();
        let mut count = || {
            lines
                .next()
                .and_then(|line| line.trim().parse::<usize>().ok())
                .ok_or_else(|| wrong("no count of entries"))
        };
        let (positive, negative) = (count()?, count()?);
        if positive.saturating_add(negative) > ACL_LIMIT {
            return Err(wrong("more than 20 entries"));
        }
        let mut acl = Acl::default();
        for index in 0..positive + negative {
            let line = lines.next().ok_or_else(|| wrong("fewer lines than entries"))?;
            let (who, rights) = line.split_once('\t').ok_or_else(|| wrong("an entry is NAME<TAB>RIGHTS"))?;
            let rights = rights.trim().parse::<u32>().map_err(|_| wrong("rights are a decimal number"))?;
            if who.is_empty() || who.len() > 64 || rights > Rights::ALL.0 {
                return Err(wrong("an entry is out of range"));
            }
            let list = if index < positive { &mut acl.positive } else { &mut acl.negative };
            list.insert(who.to_owned(), Rights(rights));
        }
        Ok(acl)
    }
}

impl From<&Acl> for wire::Acl {
    fn from(acl: &Acl) -> wire::Acl {
        let list = |entries: &BTreeMap<String, Rights>| {
            entries
                .iter()
                .map(|(who, rights)| wire::AclEntry { principal: who.clone(), rights: rights.0 })
                .collect()
        };
        wire::Acl { positive: list(&acl.positive), negative: list(&acl.negative) }
    }
}
impl TryFrom<wire::Acl> for Acl {
    type Error = Malformed;
    fn try_from(acl: wire::Acl) -> Result<Acl, Malformed> {
        if acl.positive.len() + acl.negative.len() > ACL_LIMIT {
            return Err(Malformed::new("ACL", "more than 20 entries"));
        }
        let list = |entries: Vec<wire::AclEntry>| -> Result<BTreeMap<String, Rights>, Malformed> {
            entries
                .into_iter()
                .map(|entry| match (entry.principal.len(), entry.rights) {
                    (1..=64, rights) if rights <= Rights::ALL.0 => Ok((entry.principal, Rights(rights))),
                    _ => Err(Malformed::new("ACL", "an entry is out of range")),
                })
                .collect()
        };
        Ok(Acl { positive: list(acl.positive)?, negative: list(acl.negative)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_rights_survives_its_letters() {
        for bits in 0..=Rights::ALL.0 {
            assert_eq!(Rights(bits).to_string().parse::<Rights>(), Ok(Rights(bits)));
        }
    }

    #[test]
    fn a_negative_entry_takes_away() {
        let mut acl = Acl::root(Rights::ALL);
        acl.negative.insert(ANYUSER.into(), Rights::WRITE);
        assert_eq!(acl.rights(&[ANYUSER]), Rights(Rights::ALL.0 & !Rights::WRITE.0));
        assert_eq!(Acl::from_text(&acl.to_text()), Ok(acl));
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in ["", "1\n", "1\n0\n", "21\n0\n", "1\n0\nx 1\n", "1\n0\nx\t128\n", "1\n0\n\t1\n"] {
            assert!(Acl::from_text(text).is_err(), "{text:?}");
        }
    }
}

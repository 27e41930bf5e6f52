//! The text of access lists: names right-aligned, letters in the order `rlidwka`.

use coda_proto::{Rights, control::AccessList};

/// One line for each entry; a denial has a dash before its letters.
pub fn text(acl: &AccessList) -> String {
    let line = |who: &str, dash: &str, rights: &str| format!("{who:>20}  {dash}{}\n", ordered(rights));
    let granted = acl.positive.iter().map(|grant| line(&grant.who, "", &grant.rights));
    let denied = acl.negative.iter().map(|grant| line(&grant.who, "-", &grant.rights));
    granted.chain(denied).collect()
}

fn ordered(rights: &str) -> String {
    rights.parse().map_or_else(|_| rights.to_owned(), |rights: Rights| rights.to_string())
}

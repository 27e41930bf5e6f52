//! Who may change the realm: how many servers the SCM has to reach, and whom a promotion may leave behind.
//!
//! The SCM changes the realm only while it reaches half of the servers that count, itself included; another
//! server becomes the SCM only if it has asked more than half of them, or all but those that the operator
//! gives up. Half and more than half have a server in common, and that one has the change and makes the new
//! SCM take it over. Giving up the old SCM needs no saying: that it does not answer is why one promotes.

use std::collections::BTreeSet;

use coda_proto::ServerId;

use super::Realm;

/// The servers that count: the SCM, and those that hold a replica of anything. One that joined and serves
/// nothing yet, or was never started, keeps nobody from working.
pub fn voters(realm: &Realm) -> BTreeSet<ServerId> {
    let members = realm.volumes.values().flat_map(|volume| &volume.info.members);
    let holders = members.filter_map(|member| ServerId::new(member.server).ok());
    let known = |id: &ServerId| realm.servers.contains_key(id);
    holders.chain([realm.scm]).filter(known).collect()
}

/// Whether the SCM may change the realm when it reaches these servers, itself among them. Otherwise those
/// that do not answer.
pub fn may_append(
    voters: &BTreeSet<ServerId>,
    reached: &BTreeSet<ServerId>,
) -> Result<(), BTreeSet<ServerId>> {
    match voters.intersection(reached).count() * 2 >= voters.len() {
        true => Ok(()),
        false => Err(voters.difference(reached).copied().collect()),
    }
}

/// Whether a server may become the SCM after `scm` when these answered it, itself among them. Otherwise those
/// that somebody has to give up, or start.
pub fn may_promote(
    voters: &BTreeSet<ServerId>,
    scm: ServerId,
    answered: &BTreeSet<ServerId>,
    without: &BTreeSet<ServerId>,
) -> Result<(), BTreeSet<ServerId>> {
    let unheard: BTreeSet<ServerId> =
        voters.difference(answered).copied().filter(|id| *id != scm && !without.contains(id)).collect();
    match unheard.is_empty() || voters.intersection(answered).count() * 2 > voters.len() {
        true => Ok(()),
        false => Err(unheard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bits: u32) -> BTreeSet<ServerId> {
        (0..8).filter(|bit| bits >> bit & 1 == 1).map(|bit| ServerId(bit + 1)).collect()
    }

    #[test]
    fn a_change_and_a_promotion_that_gives_nobody_else_up_always_have_a_server_in_common() {
        for count in 1..=6 {
            let voters = set((1 << count) - 1);
            let scm = ServerId(1);
            for changed in 0..1_u32 << count {
                for asked in 0..1_u32 << count {
                    let (changed, asked) = (set(changed), set(asked));
                    let took = may_append(&voters, &changed).is_ok() && changed.contains(&scm);
                    let made = may_promote(&voters, scm, &asked, &set(0)).is_ok() && !asked.is_empty();
                    // The one exception is the claim that a promotion makes: the SCM is lost, and it alone had it.
                    let lost = changed.len() == 1 && !asked.contains(&scm);
                    if took && made && !lost {
                        assert!(!changed.is_disjoint(&asked), "{count}: {changed:?} {asked:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn of_two_servers_either_goes_on_alone_and_of_three_none_does() {
        let one = set(0b1);
        assert_eq!(may_append(&set(0b11), &one), Ok(()));
        assert_eq!(may_append(&set(0b111), &one), Err(set(0b110)));
        assert_eq!(may_promote(&set(0b11), ServerId(1), &set(0b10), &set(0)), Ok(()));
        assert_eq!(may_promote(&set(0b111), ServerId(1), &set(0b10), &set(0)), Err(set(0b100)));
        assert_eq!(may_promote(&set(0b111), ServerId(1), &set(0b10), &set(0b100)), Ok(()));
    }
}

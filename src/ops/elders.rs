//! Pasts that servers have folded: one entry stands for what long retired authors did (`Author::ELDERS`).
//!
//! What is cached may still name such an author. Whether it is folded there, or the server lacks what it did, only
//! the server's list of retired authors can tell; so it is asked. A cached past that is folded in part claims less
//! than it did, and what the server says includes it.

use std::collections::{BTreeMap, BTreeSet};

use coda_proto::{Author, Past, wire};

use super::{Core, status::Answers};
use crate::{env::Priority, venus::face::ObjectId};

/// Authors asked about in one call, at most.
const AT_ONCE: usize = 1000;

impl Core {
    /// Makes what is cached, and what the members said, comparable with those of the answers that are folded.
    pub(super) async fn unfold(&self, of: ObjectId, realm: &str, answers: &mut Answers) {
        let mut asked = BTreeMap::new();
        for (fid, said) in &answers.of {
            let folded = said.iter().filter_map(|(server, status)| Some((*server, &status.as_ref()?.past)));
            let Some((server, folded)) = folded.max_by_key(|(_, past)| past.elders()) else { continue };
            if !folded.is_folded() {
                continue;
            }
            let cached = self.cache.view(ObjectId { realm: of.realm, fid: *fid }).ok().flatten();
            let cached = cached.map(|view| view.row.status.past.clone());
            let others = said.iter().filter_map(|(_, status)| status.as_ref().map(|status| &status.past));
            let unknown = missing(folded, others.chain(&cached));
            if !unknown.is_empty() {
                asked.insert(*fid, (server, folded.elders(), unknown));
            }
        }
        for (fid, (server, elders, unknown)) in asked {
            let authors = unknown.iter().take(AT_ONCE).map(|author| author.0).collect();
            let body = wire::Retire { volume: of.fid.volume.0, authors, ask: true };
            let body = wire::request::Body::Retire(body);
            let told =
                self.peers.ask_one(realm, server, body, bytes::Bytes::new(), Priority::Foreground).await;
            let Ok(Some(wire::response::Body::Retired(told))) = told.map(|told| told.response.body) else {
                continue;
            };
            let known = told.retired.into_iter().filter(|one| one.stamp <= elders);
            let known: BTreeSet<Author> = known.map(|one| Author(one.author)).collect();
            self.take_for_folded(ObjectId { realm: of.realm, fid }, elders, &known, answers);
        }
    }

    fn take_for_folded(&self, id: ObjectId, elders: u64, known: &BTreeSet<Author>, answers: &mut Answers) {
        let without = |past: &Past| past.entries().filter(|dot| !known.contains(&dot.author)).collect();
        let said: &mut Vec<_> = answers.of.entry(id.fid).or_default();
        for (_, status) in said {
            if let Some(status) = status
                && status.past.elders() < elders
            {
                status.past = without(&status.past);
            }
        }
        if let Err(error) = self.cache.revise_past(id, without) {
            tracing::error!(%error, "a cached version could not be compared");
        }
    }
}

/// Authors that other pasts name and that a folded one does not.
fn missing<'a>(folded: &Past, others: impl Iterator<Item = &'a Past>) -> BTreeSet<Author> {
    let named = others.flat_map(Past::entries).map(|dot| dot.author);
    named.filter(|author| *author != Author::ELDERS && folded.seq(*author) == 0).collect()
}

#[cfg(test)]
mod tests {
    use coda_proto::Dot;

    use super::*;

    #[test]
    fn only_those_are_asked_about_whom_a_folded_past_does_not_name() {
        let past =
            |dots: &[(u64, u64)]| dots.iter().map(|(a, seq)| Dot::new(Author(*a), *seq)).collect::<Past>();
        let folded = past(&[(1, Past::STAMPS), (3, 1)]);
        let others = [past(&[(1, 1), (2, 5), (3, 9)]), past(&[(4, 1)]), folded.clone()];
        assert_eq!(missing(&folded, others.iter()), BTreeSet::from([Author(2), Author(4)]));
    }
}

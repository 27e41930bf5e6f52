//! The join over all small states: commutative, associative, idempotent.

use coda_proto::{Fid, Op};

use crate::{
    names::{create, mkdir},
    site::{History, Site, root},
    walk::something,
};

/// All states reachable by two sites in `depth` steps, a step being one of a few operations at one of
/// them, or one learning all that the other knows.
fn reachable(depth: usize, whats: &[u8]) -> Vec<(History, [Site; 2])> {
    let mut history = History::default();
    let mut base = Site::new(5);
    let dir = |count| Fid::directory(root().volume, base.author, count);
    let (d, e) = (dir(1), dir(2));
    let f = Fid::file(root().volume, base.author, 1);
    for op in [mkdir(root(), "a", d), mkdir(root(), "b", e), create(d, "a", f)] {
        base.make(&mut history, false, op).unwrap();
    }
    let mut all = vec![(history, [base.fork(10), base.fork(11)])];
    for _ in 0..depth {
        let mut next = Vec::new();
        for (history, sites) in &all {
            for here in 0..2 {
                let mut met = sites.clone();
                met[here].join(&sites[1 - here]);
                if met[here] != sites[here] {
                    next.push((history.clone(), met));
                }
                for (index, what) in whats.iter().enumerate() {
                    let (mut history, mut sites) = (history.clone(), sites.clone());
                    let op: Option<Op> = something(&sites[here], *what, index as u8, here as u8, 1);
                    if op.is_some_and(|op| sites[here].make(&mut history, true, op).is_ok()) {
                        next.push((history, sites));
                    }
                }
            }
        }
        all = next;
    }
    all
}

#[test]
fn joining_is_commutative_and_idempotent_over_all_small_histories() {
    let all = reachable(3, &[0, 2, 4, 4, 6, 6, 12]);
    assert!(all.len() > 1000, "{}", all.len());
    for (history, [a, b]) in &all {
        assert!(a.joined(a).state == a.state);
        let both = a.joined(b);
        assert!(both.state == b.joined(a).state);
        assert!(both.joined(a).state == both.state && both.joined(b).state == both.state);
        both.check_tree();
        both.check_history(history);
    }
}

#[test]
fn joining_is_associative_over_all_triples_of_states_of_small_histories() {
    // Three sites: two that went their own ways, and what the first would be under a third author.
    for (history, [a, b]) in reachable(2, &[0, 2, 4, 4, 6, 6, 12]) {
        for (index, what) in [0, 2, 4, 6, 6, 12].into_iter().enumerate() {
            for from in [&a, &b] {
                let (mut history, mut c) = (history.clone(), from.fork(12));
                let op = something(&c, what, index as u8, 2, 0);
                if op.is_none_or(|op| c.make(&mut history, true, op).is_err()) {
                    continue;
                }
                let left = a.joined(&b).joined(&c);
                assert!(left.state == a.joined(&b.joined(&c)).state);
                assert!(left.state == c.joined(&a).joined(&b).state);
                left.check_history(&history);
            }
        }
    }
}

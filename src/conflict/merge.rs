//! Merging text by itself, where people have said for which files that is safe.
//!
//! A file `.codamerge` in a directory, or in one above it in the volume, has one rule a line: a pattern for
//! the names of files, and what to do. `#` begins a comment.
//!
//! ```text
//!  .bash_history   append     what both sides added at the end, one after the other; else nothing is done
//!  *.log           union      all lines of both sides, in order, common ones once
//!  *.md            text       what each side changed, where the version that both began from is known here
//! ```
//!
//! No rule loses a line that somebody wrote; `text` also removes what one side removed. Both sides of a merge give the same bytes wherever it is done, and equal
//! contents are no conflict, so several clients may merge the same file at once.

use super::three::three;
use similar::{Algorithm, DiffOp, capture_diff_slices};

/// Larger contents are left to people.
pub const LIMIT: u64 = 1 << 20;
/// More lines are left to people: the time that comparing takes must be bounded.
pub(super) const LINES: usize = 20_000;

/// What to do about versions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Both have only added at the end.
    Append,
    /// All lines of both.
    Union,
    /// What each has changed of what both began from.
    Text,
}

/// The rule that a `.codamerge` has for a name: that of the last pattern that matches.
pub fn rule_for(rules: &[u8], name: &[u8]) -> Option<Rule> {
    let text = String::from_utf8_lossy(rules);
    // The last rule that matches is the first from behind.
    text.lines().rev().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let pattern = words.next()?;
        let rule = match words.next()? {
            "append" => Rule::Append,
            "union" => Rule::Union,
            "text" => Rule::Text,
            _ => return None,
        };
        matches(pattern.as_bytes(), name).then_some(rule)
    })
}

/// Whether a name is one that a pattern with `*` and `?` means.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // The last star and the place up to which it has eaten: no other needs to be tried again.
    let (mut at, mut read, mut star) = (0, 0, None);
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[read] => {
                at += 1;
                read += 1;
            }
            _ => match star {
                Some((place, eaten)) => {
                    (at, read) = (place + 1, eaten + 1);
                    star = Some((place, eaten + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Versions as one, or nothing where the rule does not say how.
pub fn merge(rule: Rule, base: Option<&[u8]>, versions: &[Vec<u8>]) -> Option<Vec<u8>> {
    let (first, others) = versions.split_first()?;
    others.iter().try_fold(first.clone(), |merged, other| match rule {
        Rule::Append => append(&merged, other),
        Rule::Union => union(&merged, other),
        Rule::Text => three(base?, &merged, other),
    })
}

/// Lines with their ends, so that nothing is lost or added between them.
pub(super) fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

/// Text that ends a line, if it has any.
fn ended(mut text: Vec<u8>) -> Vec<u8> {
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text
}

/// What both have in common at the start, then what each added. Without a common start, or where one side
/// is not a continuation of it, they may be anything: nothing is done.
fn append(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let (ours, theirs) = (lines(a), lines(b));
    let common = ours.iter().zip(&theirs).take_while(|(one, other)| one == other).count();
    if common == 0 && !ours.is_empty() && !theirs.is_empty() {
        return None;
    }
    // A line that only one side has before the other's end was changed or inserted, not added.
    let (rest, more) = (&ours[common..], &theirs[common..]);
    if rest.iter().any(|line| more.contains(line)) {
        return None;
    }
    let mut merged = ended(ours.concat());
    merged.extend(more.concat());
    Some(merged)
}

/// All lines of both, in order.
fn union(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    if a.contains(&0) || b.contains(&0) {
        return None;
    }
    let (a, b) = (ended(a.to_vec()), ended(b.to_vec()));
    let (ours, theirs) = (lines(&a), lines(&b));
    if ours.len() + theirs.len() > LINES {
        return None;
    }
    let mut merged: Vec<&[u8]> = Vec::new();
    for op in capture_diff_slices(Algorithm::Patience, &ours, &theirs) {
        match op {
            DiffOp::Equal { old_index, len, .. } => merged.extend(&ours[old_index..old_index + len]),
            DiffOp::Delete { old_index, old_len, .. } => {
                merged.extend(&ours[old_index..old_index + old_len]);
            }
            DiffOp::Insert { new_index, new_len, .. } => {
                merged.extend(&theirs[new_index..new_index + new_len]);
            }
            DiffOp::Replace { old_index, old_len, new_index, new_len } => {
                merged.extend(&ours[old_index..old_index + old_len]);
                merged.extend(&theirs[new_index..new_index + new_len]);
            }
        }
    }
    Some(merged.concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(rule: Rule, a: &str, b: &str) -> Option<String> {
        merge(rule, None, &[a.into(), b.into()]).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn histories_that_grew_at_both_sides_are_put_one_after_the_other() {
        let merged = |a, b| merged(Rule::Append, a, b);
        assert_eq!(merged("1\n2\nA\n", "1\n2\nB\nC\n").unwrap(), "1\n2\nA\nB\nC\n");
        assert_eq!(merged("1\n", "1\n2\n").unwrap(), "1\n2\n");
        assert_eq!(merged("1\nA", "1\nB\n").unwrap(), "1\nA\nB\n");
        assert_eq!(merged("", "1\n").unwrap(), "1\n");
    }

    #[test]
    fn what_did_not_only_grow_is_left_to_people() {
        let merged = |a, b| merged(Rule::Append, a, b);
        assert_eq!(merged("1\n2\n", "0\n2\n"), None, "no common start");
        assert_eq!(merged("1\nchanged\n3\n", "1\n2\n3\n"), None, "changed in the middle");
    }

    #[test]
    fn a_union_has_all_lines_of_both_in_order() {
        assert_eq!(merged(Rule::Union, "1\nA\n2\n", "1\n2\nB\n").unwrap(), "1\nA\n2\nB\n");
        assert_eq!(merge(Rule::Union, None, &[b"a\0".to_vec(), b"b".to_vec()]), None, "not text");
    }

    #[test]
    fn the_last_rule_that_matches_a_name_counts() {
        let rules =
            b"# for logs\n*.log union\n.bash_history append # shells\nspecial.log append\nx nonsense\n";
        assert_eq!(rule_for(rules, b"a.log"), Some(Rule::Union));
        assert_eq!(rule_for(rules, b"special.log"), Some(Rule::Append));
        assert_eq!(rule_for(rules, b".bash_history"), Some(Rule::Append));
        assert_eq!(rule_for(b"*.md text", b"a.md"), Some(Rule::Text));
        assert_eq!(merge(Rule::Text, None, &[b"1".to_vec(), b"2".to_vec()]), None, "without a base");
        assert_eq!((rule_for(rules, b"x"), rule_for(rules, b"a.txt")), (None, None));
        assert!(matches(b"a*b?c*", b"axxbbbyc") && !matches(b"a*b", b"ac") && matches(b"*", b""));
    }

    proptest! {
        #[test]
        fn no_rule_loses_a_line(a in "([ab]\n){0,6}", b in "([ab]\n){0,6}") {
            for rule in [Rule::Append, Rule::Union] {
                let Some(merged) = merged(rule, &a, &b) else { continue };
                for line in ["a\n", "b\n"] {
                    let count = |text: &str| text.matches(line).count();
                    prop_assert!(count(&merged) >= count(&a).max(count(&b)), "{rule:?} {a:?} {b:?} {merged:?}");
                }
            }
        }
    }
}

//! Two texts that were made from a third, merged by lines.
//!
//! What only one side changed is taken from it, also where it removed something. Where both changed the same
//! lines, or lines next to each other, in different ways, people decide.

use std::ops::Range;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::merge::{LINES, lines};

/// Lines of the base, and those that one side has in their place.
struct Hunk {
    base: Range<usize>,
    side: Range<usize>,
}

/// What lies between the lines that are common. Nothing where these are not in order: then nothing is to be relied on.
fn hunks(base: &[&[u8]], side: &[&[u8]]) -> Option<Vec<Hunk>> {
    let (mut hunks, mut at, mut at_side) = (Vec::new(), 0, 0);
    let mut until = |old: Range<usize>, new: Range<usize>| {
        let in_order =
            old.start >= at && new.start >= at_side && base.get(old.clone()) == side.get(new.clone());
        if in_order && (old.start > at || new.start > at_side) {
            hunks.push(Hunk { base: at..old.start, side: at_side..new.start });
        }
        (at, at_side) = (old.end, new.end);
        in_order.then_some(())
    };
    for op in capture_diff_slices(Algorithm::Myers, base, side) {
        if let DiffOp::Equal { .. } = op {
            until(op.old_range(), op.new_range())?;
        }
    }
    until(base.len()..base.len(), side.len()..side.len())?;
    Some(hunks)
}

/// What a side has in place of a part of the base.
fn part<'a>(base: &[&'a [u8]], side: &[&'a [u8]], hunks: &[Hunk], region: &Range<usize>) -> Vec<&'a [u8]> {
    let mut text = Vec::new();
    let mut at = region.start;
    for hunk in hunks {
        text.extend(&base[at..hunk.base.start]);
        text.extend(&side[hunk.side.clone()]);
        at = hunk.base.end;
    }
    text.extend(&base[at..region.end]);
    text
}

/// How many of the hunks, in order, begin no later than `end`; and where they end.
fn reached(hunks: &[Hunk], end: usize) -> (usize, usize) {
    let count = hunks.iter().take_while(|hunk| hunk.base.start <= end).count();
    (count, hunks[..count].last().map_or(end, |hunk| hunk.base.end.max(end)))
}

/// The merged text; nothing where both sides changed one place, or where it is no text.
pub fn three(base: &[u8], ours: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
    if [base, ours, theirs].iter().any(|text| text.contains(&0)) {
        return None;
    }
    let (base, ours, theirs) = (lines(base), lines(ours), lines(theirs));
    if base.len() + ours.len() + theirs.len() > LINES {
        return None;
    }
    let (left, right) = (hunks(&base, &ours)?, hunks(&base, &theirs)?);
    let (mut left, mut right) = (&left[..], &right[..]);
    let (mut merged, mut at) = (Vec::new(), 0);
    loop {
        let start = left.iter().chain(right).map(|hunk| hunk.base.start).min();
        let Some(start) = start else { break };
        // A region grows while a hunk of either side begins in it, or right behind it.
        let mut region = start..start;
        let (mut of_left, mut of_right) = (0, 0);
        loop {
            let (more_left, end) = reached(left, region.end);
            let (more_right, end) = reached(right, end);
            let grown = (more_left, more_right) != (of_left, of_right);
            (of_left, of_right, region.end) = (more_left, more_right, end);
            if !grown {
                break;
            }
        }
        let (ours, theirs) = (
            part(&base, &ours, &left[..of_left], &region),
            part(&base, &theirs, &right[..of_right], &region),
        );
        merged.extend(&base[at..region.start]);
        match (of_left, of_right) {
            (_, 0) => merged.extend(ours),
            (0, _) => merged.extend(theirs),
            _ if ours == theirs => merged.extend(ours),
            _ => return None,
        }
        at = region.end;
        (left, right) = (&left[of_left..], &right[of_right..]);
    }
    merged.extend(&base[at..]);
    // A last line without an end may have got another behind it.
    let last = merged.len().saturating_sub(1);
    let glued = merged.iter().take(last).any(|line| line.last() != Some(&b'\n'));
    (!glued).then(|| merged.concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(base: &str, ours: &str, theirs: &str) -> Option<String> {
        let merged = three(base.as_bytes(), ours.as_bytes(), theirs.as_bytes());
        merged.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn changes_of_different_places_come_together() {
        assert_eq!(
            merged("1\n2\n3\n4\n5\n", "A\n2\n3\n4\n5\n", "1\n2\n3\n5\nB\n").unwrap(),
            "A\n2\n3\n5\nB\n"
        );
        assert_eq!(merged("1\n2\n3\n", "1\n2\n3\n", "x\n").unwrap(), "x\n");
        assert_eq!(
            merged("1\n", "1\n2\n", "1\n2\n").unwrap(),
            "1\n2\n",
            "the same at both sides counts once"
        );
    }

    #[test]
    fn changes_of_one_place_are_left_to_people() {
        assert_eq!(merged("1\n2\n3\n", "1\nA\n3\n", "1\nB\n3\n"), None);
        assert_eq!(merged("1\n2\n3\n", "1\n3\n", "1\nB\n3\n"), None, "removed here, changed there");
        assert_eq!(merged("1\n2\n", "A\n2\n", "1\nB\n"), None, "next to each other");
        assert_eq!(merged("1\n", "1\nA\n", "1\nB\n"), None, "added at one place");
        assert_eq!(merged("1", "1\n2", "0\n1"), None, "a last line without an end");
        assert_eq!(three(b"a\0", b"a\0b", b"a\0"), None, "not text");
    }

    proptest! {
        #[test]
        fn one_side_alone_is_taken_as_it_is_and_both_in_either_order(
            base in "([abc]\n){0,6}", ours in "([abcx]\n){0,7}", theirs in "([abcy]\n){0,7}",
        ) {
            prop_assert_eq!(merged(&base, &ours, &base), Some(ours.clone()));
            prop_assert_eq!(merged(&base, &base, &theirs), Some(theirs.clone()));
            let both = merged(&base, &ours, &theirs);
            prop_assert_eq!(&both, &merged(&base, &theirs, &ours));
            if let Some(both) = both {
                // What a side added is there.
                for (side, line) in [(&ours, "x\n"), (&theirs, "y\n")] {
                    prop_assert!(both.matches(line).count() == side.matches(line).count(), "{base:?} {ours:?} {theirs:?} {both:?}");
                }
            }
        }
    }
}

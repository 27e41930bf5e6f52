//! How versions are called: `NAME.conflict-HOST-TIME`, after the machine on which a version was made and
//! when, in UTC. Every client works out the same names; no server stores them.

use coda_proto::{Dot, Sibling, control::utc, name::NAME_LIMIT};

/// Between a name and what tells its versions apart.
pub const MARK: &[u8] = b".conflict-";
/// Characters of a machine's name in a label.
const HOST: usize = 32;

/// Who made a version, and when.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// The machine; empty where nobody knows.
    pub host: &'a str,
    /// Nanoseconds since 1970.
    pub time: i64,
    /// The mutation.
    pub dot: Dot,
}

impl<'a> From<&'a Sibling> for Made<'a> {
    fn from(sibling: &'a Sibling) -> Made<'a> {
        Made { host: &sibling.host, time: sibling.mtime, dot: sibling.dot }
    }
}

/// What tells versions apart, one label for each, no two the same.
pub fn labels(made: &[Made]) -> Vec<String> {
    let plain: Vec<String> = made.iter().map(|one| label(one)).collect();
    let count = |text: &String| plain.iter().filter(|other| *other == text).count();
    let unique = |(text, one): (&String, &Made)| match count(text) {
        1 => text.clone(),
        _ => format!("{text}-{}.{}", one.dot.author, one.dot.seq),
    };
    plain.iter().zip(made).map(unique).collect()
}

fn label(made: &Made) -> String {
    let tame = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let host: String = made.host.chars().map(tame).take(HOST).collect();
    let host = if host.is_empty() { made.dot.author.to_string() } else { host };
    format!("{host}-{}", stamp(made.time))
}

/// A time as labels carry it: `20261129T163805`.
pub fn stamp(time: i64) -> String {
    let [year, month, day, hour, minute, second] = utc(time);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}")
}

/// The name of a version beside a name. A long name is cut, at a character's end, to make room.
pub fn beside(name: &[u8], label: &str) -> Vec<u8> {
    let room = NAME_LIMIT.saturating_sub(MARK.len() + label.len());
    let mut end = name.len().min(room);
    while end < name.len() && end > 0 && name[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    [&name[..end], MARK, label.as_bytes()].concat()
}

/// The name and the label of what may be the name of a version.
pub fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = name.windows(MARK.len()).rposition(|part| part == MARK)?;
    let (plain, label) = (&name[..at], &name[at + MARK.len()..]);
    (!plain.is_empty() && !label.is_empty()).then_some((plain, label))
}

#[cfg(test)]
mod tests {
    use coda_proto::Author;

    use super::*;

    /// 2026-11-29 16:38:05 UTC.
    const TIME: i64 = 1_795_970_285_000_000_000;

    fn made(host: &str, time: i64, author: u64) -> Made<'_> {
        Made { host, time, dot: Dot::new(Author(author), 3) }
    }

    #[test]
    fn a_version_is_called_after_its_machine_and_time() {
        assert_eq!(labels(&[made("laptop", TIME, 7)]), ["laptop-20261129T163805"]);
        assert_eq!(beside(b"notes.txt", "laptop-x"), b"notes.txt.conflict-laptop-x");
    }

    #[test]
    fn times_before_1970_and_leap_days_are_dates_too() {
        assert_eq!(stamp(0), "19700101T000000");
        assert_eq!(stamp(-1), "19691231T235959");
        assert_eq!(stamp(951_782_400_000_000_000), "20000229T000000");
        assert_eq!(stamp(1_709_164_799_000_000_000), "20240228T235959");
    }

    #[test]
    fn versions_of_one_machine_and_second_are_told_apart_by_their_dots() {
        let labels = labels(&[made("a", TIME, 1), made("a", TIME + 1, 2), made("b", TIME, 3)]);
        assert_eq!(labels[2], "b-20261129T163805");
        assert_ne!(labels[0], labels[1]);
        assert!(labels[0].starts_with("a-20261129T163805-"), "{}", labels[0]);
    }

    #[test]
    fn a_machine_without_a_name_goes_by_its_author_and_a_wild_name_is_tamed() {
        assert_eq!(labels(&[made("", 0, 0xab)]), [format!("{}-19700101T000000", Author(0xab))]);
        assert_eq!(labels(&[made("a/b \0é", 0, 1)]), ["a-b----19700101T000000"]);
    }

    #[test]
    fn a_long_name_is_cut_at_the_end_of_a_character() {
        let long = "é".repeat(127);
        let name = beside(long.as_bytes(), "h-20261129T163805");
        assert!(name.len() <= NAME_LIMIT && name.len() > NAME_LIMIT - 2, "{}", name.len());
        assert!(String::from_utf8(name).unwrap().ends_with("é.conflict-h-20261129T163805"));
    }

    #[test]
    fn a_name_is_split_at_the_last_mark() {
        let name = b"f.conflict-a-1.conflict-b-2";
        assert_eq!(split(name), Some((&b"f.conflict-a-1"[..], &b"b-2"[..])));
        assert_eq!(split(b"f.conflict-"), None);
        assert_eq!(split(b".conflict-x"), None);
        assert_eq!(split(b"f"), None);
    }
}

//! Patterns over paths: `*` and `?` stay within a name, `**` crosses `/`.

/// Whether a word has anything of a pattern.
pub fn is_pattern(word: &[u8]) -> bool {
    word.iter().any(|byte| matches!(byte, b'*' | b'?'))
}

/// The directories in front of the first name that has anything of a pattern.
pub fn fixed_part(pattern: &[u8]) -> &[u8] {
    let special = pattern.iter().position(|byte| matches!(byte, b'*' | b'?')).unwrap_or(pattern.len());
    let end = pattern[..special].iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    &pattern[..end.max(1).min(pattern.len())]
}

/// Whether a path is one that a pattern means.
pub fn matches(pattern: &[u8], path: &[u8]) -> bool {
    match pattern {
        [] => path.is_empty(),
        [b'*', b'*', b'/', rest @ ..] => {
            matches(rest, path)
                || (0..path.len()).any(|at| path[at] == b'/' && matches(rest, &path[at + 1..]))
        }
        [b'*', b'*', rest @ ..] => (0..=path.len()).any(|at| matches(rest, &path[at..])),
        [b'*', rest @ ..] => {
            let end = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
            (0..=end).any(|at| matches(rest, &path[at..]))
        }
        [b'?', rest @ ..] => path.first().is_some_and(|byte| *byte != b'/') && matches(rest, &path[1..]),
        [byte, rest @ ..] => path.first() == Some(byte) && matches(rest, &path[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_a_name_and_two_cross_directories() {
        let is = |pattern: &str, path: &str| matches(pattern.as_bytes(), path.as_bytes());
        assert!(is("/a/*.c", "/a/x.c") && !is("/a/*.c", "/a/b/x.c"));
        assert!(is("/a/**/*.c", "/a/b/c/x.c") && is("/a/**/*.c", "/a/x.c"));
        assert!(is("/a/**", "/a/b/c") && !is("/a/**", "/b"));
        assert!(is("/a/?", "/a/b") && !is("/a/?", "/a/") && !is("/a?b", "/a/b"));
        assert!(is("/plain", "/plain") && !is("/plain", "/plainer"));
    }

    #[test]
    fn what_stands_before_the_first_star_is_looked_up() {
        assert_eq!(fixed_part(b"/coda/r/.config/**"), b"/coda/r/.config");
        assert_eq!(fixed_part(b"/coda/r/a*/b"), b"/coda/r");
        assert_eq!(fixed_part(b"/*"), b"/");
    }
}

//! The documents against the project: what they point at is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let top = ["README.md", "CHANGELOG.md"].map(|name| root().join(name)).into_iter();
    docs.chain(top).filter(|path| path.extension().is_some_and(|end| end == "md") && path.exists()).collect()
}

/// What stands between `open` and the next `close`, each time.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split_once(close).map(|(inner, _)| inner))
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in between(&text, "](", ")") {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let at = document.parent().unwrap().join(target);
            assert!(at.exists(), "{}: {link} is not there", document.display());
        }
    }
}

/// Whether the file has a test of this name.
fn is_test(file: &Path, name: &str) -> bool {
    let Ok(text) = fs::read_to_string(file) else { return false };
    let mut lines = text.lines().map(str::trim);
    let mut marked = false;
    lines.any(|line| {
        let names = |end: char| line.contains(&format!("fn {name}{end}"));
        let found = marked && (names('(') || names('<'));
        // Attributes and comments may stand between the mark and the name; proptest's too.
        marked = line.contains("#[test]")
            || line.contains("#[tokio::test")
            || (marked && (line.starts_with('#') || line.starts_with("//")));
        found
    })
}

#[test]
fn every_sentence_on_semantics_names_a_test_that_exists() {
    let text = fs::read_to_string(root().join("docs/semantics.md")).unwrap();
    let mut sentences = 0;
    // A sentence is a list item, which may run over several lines.
    for item in text.split("\n- ").skip(1) {
        let item = item.split("\n\n").next().unwrap();
        let tests: Vec<&str> = between(item, "[test: ", "]").collect();
        assert!(!tests.is_empty(), "no test is named: {item}");
        for test in tests {
            let (file, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("{test}: not FILE::NAME"));
            assert!(is_test(&root().join(file), name), "{file} has no test {name}");
        }
        sentences += 1;
    }
    assert!(sentences > 0);
}

#[test]
fn every_test_that_a_document_names_exists() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for test in between(&text, "[test: ", "]") {
            let (file, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("{test}: not FILE::NAME"));
            assert!(is_test(&root().join(file), name), "{}: {file} has no test {name}", document.display());
        }
    }
}

/// The numbers of the rows of a section's table. Each names a test or says why there is none.
fn rows(text: &str, heading: &str) -> Vec<u32> {
    let section = text.split_once(heading).unwrap().1.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let numbered = rows.filter_map(|(number, rest)| Some((number.parse().ok()?, rest)));
    numbered
        .inspect(|(number, rest)| {
            let last = rest.rsplit_once(" | ").map_or("", |(_, last)| last.trim_matches([' ', '|']));
            assert!(!last.is_empty(), "{heading}: {number} says nothing of a test");
        })
        .map(|(number, _)| number)
        .collect()
}

#[test]
fn every_check_of_a_client_and_every_story_has_its_row() {
    let text = fs::read_to_string(root().join("docs/acceptance.md")).unwrap();
    assert_eq!(rows(&text, "\n## A client\n"), (1..=20).collect::<Vec<_>>());
    assert_eq!(rows(&text, "\n## Ten stories\n"), (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_test_is_found_by_its_mark_and_its_name() {
    let here = root().join("tests/docs.rs");
    assert!(is_test(&here, "a_test_is_found_by_its_mark_and_its_name"));
    assert!(!is_test(&here, "between"));
    assert!(!is_test(&here, "nothing_of_the_kind"));
    assert!(!is_test(&root().join("tests/no_such_file.rs"), "between"));
}

//! What a command says in the end: lines for people, or one JSON value for programs.

use serde_json::{Value, json};

/// An outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// For people, on the standard output.
    pub text: String,
    /// For people, on the standard error output; old scripts read the other one.
    pub note: String,
    /// For programs.
    pub json: Value,
}

impl Report {
    /// Lines, and the same for programs.
    pub fn new(text: impl Into<String>, json: Value) -> Report {
        Report { text: text.into(), note: String::new(), json }
    }

    /// Only something to note.
    pub fn noted(note: impl Into<String>) -> Report {
        let note = note.into();
        Report { json: json!({ "note": note }), note, ..Report::default() }
    }

    /// The same with a further note, unless it is empty.
    pub fn and_note(mut self, note: &str) -> Report {
        if !note.is_empty() {
            self.note = [self.note.as_str(), note]
                .into_iter()
                .filter(|n| !n.is_empty())
                .collect::<Vec<_>>()
                .join("\n");
            if let Value::Object(object) = &mut self.json {
                object.insert("note".into(), self.note.clone().into());
            }
        }
        self
    }

    /// Says it.
    pub fn print(&self, as_json: bool) {
        if as_json {
            println!("{}", self.json);
            return;
        }
        if !self.text.is_empty() {
            print!("{}", self.text);
            if !self.text.ends_with('\n') {
                println!();
            }
        }
        if !self.note.is_empty() {
            eprintln!("{}", self.note);
        }
    }
}

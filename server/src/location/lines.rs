//! Lines of a configuration file, and what is wrong with them.

use std::fmt;

/// A line that cannot be accepted. Nothing of its file was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    /// Which file.
    pub file: String,
    /// Which line, counted from 1; 0 where the file as a whole is at fault.
    pub line: usize,
    /// Why.
    pub reason: String,
}

impl FileError {
    /// A fault of one line.
    pub fn new(file: &str, line: usize, reason: impl Into<String>) -> FileError {
        FileError { file: file.to_owned(), line, reason: reason.into() }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.reason),
            line => write!(f, "{}:{line}: {}", self.file, self.reason),
        }
    }
}

/// Longest line, in bytes.
pub const LINE_LIMIT: usize = 500;

/// The words of each line that has any, comments (`#`) left out, with its number.
pub fn words<'a>(file: &str, text: &'a str) -> Result<Vec<(usize, Vec<&'a str>)>, FileError> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.len() > LINE_LIMIT {
            let reason = format!("{} bytes; a line holds at most {LINE_LIMIT}", line.len());
            return Err(FileError::new(file, index + 1, reason));
        }
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.is_empty() {
            lines.push((index + 1, words));
        }
    }
    Ok(lines)
}

//! One run of a command: whom it asks, where it writes, and how it will end.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead, Write},
    ops::ControlFlow,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use coda_proto::control::{Event, Failure, FailureKind, Reply, Request, escape};
use serde_json::json;

use crate::{exit::Exit, path};

/// Whoever answers: venus behind its socket, or a fake.
pub trait Venus {
    /// Where its tree is mounted.
    fn mountpoint(&self) -> &Path;
    /// Asks and waits for the answer, in bounded time.
    fn ask(&mut self, request: Request) -> Result<Reply, Failure>;
    /// Hands the last `recent` events to `each`, then with `follow` every further one until it breaks.
    fn events(
        &mut self,
        recent: usize,
        follow: bool,
        each: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<(), Failure>;
}

/// Finds venus: at the socket named, else one that serves the path hinted at.
pub type Connect<'a> = dyn FnMut(Option<&Path>, Option<&Path>) -> Result<Box<dyn Venus>, Failure> + 'a;

/// What a run needs from outside.
pub struct World<'a> {
    /// How to find venus.
    pub connect: &'a mut Connect<'a>,
    /// Standard input.
    pub input: &'a mut dyn BufRead,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// The current directory.
    pub here: PathBuf,
    /// Standard error is a terminal: what takes long shows there how far it is.
    pub terminal: bool,
}

/// One run.
pub struct Talk<'a> {
    connect: &'a mut Connect<'a>,
    venus: Option<Box<dyn Venus>>,
    /// Standard input.
    pub input: &'a mut dyn BufRead,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    here: PathBuf,
    /// Answers are for a script.
    pub json: bool,
    /// Questions are answered.
    pub yes: bool,
    /// What would be destroyed is only told.
    pub dry_run: bool,
    terminal: bool,
    /// The socket named on the command line.
    pub socket: Option<PathBuf>,
    exit: Exit,
}

impl<'a> Talk<'a> {
    /// A run that has not begun.
    pub fn new(world: World<'a>) -> Talk<'a> {
        let World { connect, input, out, err, here, terminal } = world;
        let (json, yes, dry_run) = (false, false, false);
        let (venus, socket, exit) = (None, None, Exit::Done);
        Talk { connect, venus, input, out, err, here, json, yes, dry_run, terminal, socket, exit }
    }

    /// How it ends, as things stand.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// venus, found at the first need. `hint`: a path that it should serve; else the current directory is.
    pub fn venus(&mut self, hint: Option<&OsStr>) -> Result<&mut (dyn Venus + 'static), Failure> {
        if self.venus.is_none() {
            let hint = hint.map_or_else(|| self.here.clone(), |typed| self.here.join(typed));
            self.venus = Some((self.connect)(self.socket.as_deref(), Some(&hint))?);
        }
        Ok(self.venus.as_deref_mut().expect("found above"))
    }

    /// Forgets the connection, to find venus anew.
    pub fn hang_up(&mut self) {
        self.venus = None;
    }

    /// Asks something that names no path.
    pub fn ask(&mut self, request: Request) -> Result<Reply, Failure> {
        self.venus(None)?.ask(request)
    }

    /// Hands events to `each`, with standard output to write them to.
    pub fn events(
        &mut self,
        recent: usize,
        follow: bool,
        mut each: impl FnMut(Event, &mut dyn Write) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        self.venus(None)?;
        let venus = self.venus.as_mut().expect("found above");
        let out = &mut *self.out;
        venus.events(recent, follow, &mut |event| each(event, out))
    }

    /// The current directory.
    pub fn here(&self) -> &Path {
        &self.here
    }

    /// Ends so, unless something failed.
    pub fn ends_as(&mut self, exit: Exit) {
        if self.exit == Exit::Done {
            self.exit = exit;
        }
    }

    /// The path that venus understands, for what was typed.
    pub fn path(&mut self, typed: &OsStr) -> Result<String, Failure> {
        let mountpoint = self.venus(Some(typed))?.mountpoint().to_owned();
        let path = path::absolute(typed, &self.here, &mountpoint);
        match path.starts_with(&mountpoint) {
            true => Ok(path::text(&path)),
            false => Err(Failure {
                kind: FailureKind::Outside,
                what: escape(typed.as_bytes()),
                why: format!("not below {}, where venus is mounted", mountpoint.display()),
                next: String::new(),
            }),
        }
    }

    /// The paths that venus understands.
    pub fn paths(&mut self, typed: &[OsString]) -> Result<Vec<String>, Failure> {
        typed.iter().map(|typed| self.path(typed)).collect()
    }

    /// Asks about each object, goes on after a failure, and shows each answer: `text` makes it readable,
    /// and with more than one object the object's name stands before it.
    pub fn each(
        &mut self,
        typed: &[OsString],
        request: impl Fn(String) -> Request,
        text: impl Fn(&Reply) -> String,
    ) {
        let width = typed.iter().map(|object| object.to_string_lossy().chars().count()).max().unwrap_or(0);
        for object in typed {
            let answer = self.path(object).and_then(|path| self.ask(request(path)));
            let label = match typed.len() {
                1 => String::new(),
                _ => format!("{:>width$}  ", object.to_string_lossy()),
            };
            self.answer(Some(object), answer, |reply| match text(reply) {
                text if text.is_empty() => text,
                text => format!("{label}{text}"),
            });
        }
    }

    /// Shows one answer.
    pub fn answer(
        &mut self,
        object: Option<&OsStr>,
        answer: Result<Reply, Failure>,
        text: impl FnOnce(&Reply) -> String,
    ) {
        match answer {
            Ok(reply) if self.json => self.line(object, "ok", &json!(reply)),
            Ok(reply) => {
                let text = text(&reply);
                self.say(&text);
            }
            Err(failure) => self.failed(object, &failure),
        }
    }

    /// An object of which something stayed in use: for people it has been told already.
    pub fn in_use(&mut self, object: &OsStr, flushed: &coda_proto::control::Flushed) {
        if self.exit == Exit::Done {
            self.exit = Exit::Busy;
        }
        if self.json {
            self.line(Some(object), "ok", &json!(Reply::Flushed(flushed.clone())));
        }
    }

    /// Tells a failure: cause, and next step where there is one.
    pub fn failed(&mut self, object: Option<&OsStr>, failure: &Failure) {
        if self.exit == Exit::Done {
            self.exit = Exit::of(failure);
        }
        if self.json {
            return self.line(object, "failed", &json!(failure));
        }
        let typed = object.map(|object| object.to_string_lossy().into_owned());
        let what =
            typed.filter(|_| failure.what != crate::socket::VENUS).unwrap_or_else(|| failure.what.clone());
        // The core names the thing in its own words; once is enough.
        let why = failure.why.strip_prefix(&format!("{what}: ")).unwrap_or(&failure.why);
        let what = if what.is_empty() { "cfs" } else { &what };
        let _ = writeln!(self.err, "{what}: {why}");
        if !failure.next.is_empty() {
            let _ = writeln!(self.err, "    {}", failure.next);
        }
    }

    /// Tells a script what was done or found that is no answer of venus.
    pub fn tell(&mut self, object: Option<&OsStr>, value: &serde_json::Value) {
        if self.json {
            self.line(object, "ok", value);
        }
    }

    /// Shows on a terminal how far something is, in the place of what was shown so before.
    pub fn progress(&mut self, text: &str) {
        if self.terminal {
            let _ = write!(self.err, "\r{text}\x1b[K").and_then(|()| self.err.flush());
        }
    }

    fn line(&mut self, object: Option<&OsStr>, key: &str, value: &serde_json::Value) {
        let line = match object {
            Some(object) => json!({ "object": escape(object.as_bytes()), key: value }),
            None => json!({ key: value }),
        };
        let _ = writeln!(self.out, "{line}");
    }

    /// Writes to standard output; in JSON mode to standard error, for it is for people.
    pub fn say(&mut self, text: &str) {
        // Nobody reads any more: there is nothing left to tell.
        let _ = match self.json {
            true => write!(self.err, "{text}").and_then(|()| self.err.flush()),
            false => write!(self.out, "{text}").and_then(|()| self.out.flush()),
        };
    }

    /// Ends with a word about the command line.
    pub fn usage(&mut self, text: &str) -> Exit {
        let _ = writeln!(self.err, "{text}");
        self.told_no(text);
        Exit::Usage
    }

    fn told_no(&mut self, why: &str) {
        if self.json {
            let (kind, what) = (FailureKind::Invalid, "cfs".into());
            self.line(None, "failed", &json!(Failure { kind, what, why: why.into(), next: String::new() }));
        }
    }

    /// Ends because the command is not to be had.
    pub fn refuse(&mut self, name: &str, why: &str) -> Exit {
        let _ = writeln!(self.err, "cfs {name}: {why}");
        self.told_no(why);
        self.exit = Exit::Failed;
        Exit::Failed
    }
}

//! One client's user: draws operations, does them through the client's face, and tells the model. Each read is
//! judged at once.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use venus::{
    error::Error,
    venus::{
        Venus,
        face::{Attr, Caller, Face, NodeKind, ObjectId, OpenMode, RenameMode},
    },
};

use crate::{
    chance::Chance,
    fabric::REALM,
    model::{Model, Outcome, Value, View, author, contents},
    trace::Trace,
};

/// Who looks, at every client.
pub const USER: Caller = Caller { uid: 1000, gid: 1000, pid: 1 };
/// Somebody else at the same machine, who changes things too.
pub const OTHER: Caller = Caller { uid: 1001, gid: 1001, pid: 2 };

/// Names that all clients use, and in which directory; the directories are made before anybody starts.
pub const SHARED: [&str; 4] = ["a", "b", "d0/a", "d0/b"];
/// Directories there are from the beginning.
pub const DIRECTORIES: [&str; 2] = ["d0", "d1"];
/// No operation may take longer, whatever happens to servers and network: several calls, each of which may
/// find one dead server.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What a world has noticed that must not be.
#[derive(Clone, Default)]
pub struct Verdicts(Arc<Mutex<Vec<String>>>);

impl Verdicts {
    /// Something is wrong.
    pub fn accuse(&self, trace: &Trace, what: String) {
        trace.say(format_args!("VIOLATION {what}"));
        self.0.lock().expect("no holder panics").push(what);
    }

    /// All of it.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().expect("no holder panics").clone()
    }
}

/// How strictly reads are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// No server or client dies and nothing is cut: what was acknowledged is seen, by everybody, at once.
    Calm {
        /// But for so long, where sessions may be fenced.
        slack: Duration,
    },
    /// Anything may happen: a client sees at least what it wrote itself.
    Stormy,
}

/// The user of one life of a client.
pub struct Actor {
    /// Which client.
    pub client: usize,
    /// Its face.
    pub face: Arc<Venus>,
    /// Draws.
    pub chance: Chance,
    /// Everything that anybody did.
    pub model: Arc<Mutex<Model>>,
    /// Where it says what it does.
    pub trace: Trace,
    /// Where it complains.
    pub verdicts: Verdicts,
    /// How it judges.
    pub strictness: Strictness,
    /// No pauses, and everybody reads what the others write.
    pub crowded: bool,
    /// Copies of objects are forgotten. Where members miss updates, one may then be read again as it was before.
    pub forgetful: bool,
    /// Its user forgets the copy of what it is about to use, often.
    pub absent_minded: bool,
    /// Names that only this client writes.
    pub private: Vec<String>,
    /// Whether its client has something in its log.
    pub logs: Arc<dyn Fn() -> bool + Send + Sync>,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// What a look at a name shows.
struct Sight {
    value: std::result::Result<Value, String>,
    attr: Attr,
}

impl Actor {
    /// Works until `until`, then rests.
    pub async fn live(&self, until: Duration) {
        while self.trace.time() < until {
            let longest = if self.crowded { 40 } else { 700 };
            let pause = self.chance.between(Duration::from_millis(1), Duration::from_millis(longest));
            tokio::time::sleep(pause).await;
            self.step().await;
        }
    }

    async fn step(&self) {
        let begun = self.trace.time();
        let kind = self.chance.below(0..100);
        let name = if self.crowded { self.crowded_name(kind) } else { self.any_name() };
        if self.absent_minded && self.chance.permille(250) {
            self.forget(&name).await;
        }
        let what = match kind {
            0..=34 => self.read(&name).await,
            35..=59 => self.write(&name).await,
            60..=68 => self.remove(&name).await,
            69..=75 => self.rename(&name).await,
            76..=80 => self.make_directory().await,
            81..=84 => self.list().await,
            85..=92 => self.set_attribute(&name).await,
            93..=95 => self.forget(&name).await,
            96 | 97 => self.set_acl().await,
            _ => self.read_acl().await,
        };
        let took = self.trace.time() - begun;
        if took > PATIENCE {
            self.accuse(format!("{what} took {:.1} s", took.as_secs_f64()));
        }
    }

    /// Everybody reads what the others write, and nothing is written by two: then nothing excuses an old value.
    fn crowded_name(&self, kind: u64) -> String {
        let of = if kind <= 34 { private(self.chance.below(0..3) as usize) } else { self.private.clone() };
        self.chance.pick(&of[..2]).clone()
    }

    fn any_name(&self) -> String {
        if self.chance.permille(400) {
            return self.chance.pick(&self.private).clone();
        }
        (*self.chance.pick(&SHARED)).to_owned()
    }

    /// A name that a rename may give to what has this one.
    fn other_name(&self, name: &str) -> String {
        if self.private.iter().any(|own| own == name) {
            self.chance.pick(&self.private).clone()
        } else {
            (*self.chance.pick(&SHARED)).to_owned()
        }
    }

    /// Reads a name when everything is healed and quiet. `owned`: one client writes it, and its user knows
    /// exactly what must be there. `agreed`: the servers do, so that nothing may be out of reach any more.
    pub async fn read_at_the_end(&self, name: &str, owned: bool, agreed: bool) {
        let begun = self.trace.time();
        let result = self.look(name).await;
        self.said(&format!("at the end, {name}"), &result.as_ref().map(|seen| &seen.value));
        let all = owned || matches!(self.strictness, Strictness::Calm { .. });
        let only = if all { None } else { Some(self.client) };
        let view = View { begun, ended: self.trace.time(), slack: self.doubt(), only, causal: !all };
        let conflict = match self.owner(name) {
            Some(owner) => self.may_have_forgotten() || self.model().is_uncertain(&private(owner)),
            None => !all || self.model().may_conflict(&SHARED),
        };
        match result {
            Ok(Sight { value: Ok(value), attr }) => {
                self.judge(name, value, view);
                if owned {
                    self.judge_attributes(name, &attr, view).await;
                }
            }
            Ok(Sight { value: Err(nonsense), .. }) => self.accuse(format!("{name}: {nonsense}")),
            Err(Error::NotFound(_)) => self.judge(name, Value::Absent, view),
            Err(Error::Conflict(_)) if conflict => {}
            Err(Error::Conflict(_) | Error::Busy(_)) if !agreed => {}
            Err(error) => self.accuse(format!("at the end, {name}: {error}")),
        }
    }

    pub(crate) async fn read(&self, name: &str) -> String {
        let begun = self.trace.time();
        let result = self.look(name).await;
        let what = format!("read {name}");
        self.said(&what, &result.as_ref().map(|seen| &seen.value));
        let view = self.view(begun, name);
        match result {
            Ok(Sight { value: Ok(value), attr }) => {
                self.judge(name, value, view);
                let strict = self.strictness == Strictness::Calm { slack: Duration::ZERO };
                if strict || self.private.iter().any(|own| own == name) {
                    self.judge_attributes(name, &attr, view).await;
                }
            }
            Ok(Sight { value: Err(nonsense), .. }) => self.accuse(format!("{name}: {nonsense}")),
            // A file that is removed between look-up and open may be gone; its name is not judged.
            Err(Error::NotFound(_)) => self.judge(name, Value::Absent, view),
            Err(error) => self.tolerate(&what, &error),
        }
        what
    }

    pub(crate) fn view(&self, begun: Duration, name: &str) -> View {
        let (slack, only) = match self.strictness {
            Strictness::Calm { slack } => (slack, None),
            Strictness::Stormy => (self.doubt(), Some(self.client)),
        };
        // What only I write is known to me entirely, and what others write beside it does not exist.
        let only = if self.private.iter().any(|own| own == name) { Some(self.client) } else { only };
        let causal = self.strictness == Strictness::Stormy;
        View { begun, ended: self.trace.time(), slack, only, causal }
    }

    /// Whether this client may have taken an older state of its own objects from a member that missed an update:
    /// nothing here says that there was a newer one. What it then writes stands beside that.
    pub(crate) fn may_have_forgotten(&self) -> bool {
        self.forgetful && self.strictness == Strictness::Stormy
    }

    fn doubt(&self) -> Duration {
        if self.may_have_forgotten() { Duration::MAX } else { Duration::ZERO }
    }

    pub(crate) fn judge(&self, name: &str, value: Value, view: View) {
        // Two that change a name at the same moment may leave two things under it, of which either shows once
        // the other is gone. Then all that is certain is that somebody wrote what is seen.
        let beside = self.owner(name).is_none() && self.model().may_conflict(&SHARED);
        let view = if beside { View { slack: Duration::MAX, ..view } } else { view };
        if let Value::Written(id) = value {
            let went_back = self.model().went_back(self.client, name, id, view);
            if let Some(newer) = went_back
                && self.owner(name).is_some()
                && !self.may_have_forgotten()
            {
                self.accuse(format!("{name}: shows {id} again, after {newer} was seen"));
            }
            self.model().saw(self.client, id, view.ended);
        }
        let seen = self.model().may_see(name, value, view);
        if let Err(complaint) = seen {
            self.accuse(complaint);
        }
    }

    /// A client's directory: it alone changes the list of one of the first two, where there are two clients.
    pub(crate) fn listed(&self) -> &'static str {
        DIRECTORIES[self.client % DIRECTORIES.len()]
    }

    /// What a name holds; the inner error: contents that make no sense.
    async fn look(&self, name: &str) -> Result<Sight> {
        let (dir, last) = self.walk(name).await?;
        let attr = self.face.lookup(USER, dir, last.as_bytes()).await?;
        if attr.kind == NodeKind::Directory {
            return Ok(Sight { value: Ok(Value::Directory), attr });
        }
        if self.versions(attr.id).await > 1 {
            // What shows is one of several, and which it is says nothing about the others.
            return Err(Error::Conflict(attr.id.fid));
        }
        let mode = OpenMode { read: true, write: false, truncate: false };
        let opened = self.face.open(USER, attr.id, mode).await?;
        let mut bytes = vec![0; opened.container.length().unwrap_or(0) as usize];
        let length = opened.container.read_at(0, &mut bytes).unwrap_or(0);
        bytes.truncate(length);
        self.face.flush(USER, opened.handle).await?;
        self.face.release(opened.handle).await?;
        Ok(Sight { value: author(&bytes), attr })
    }

    /// How many contents a name has.
    async fn versions(&self, id: ObjectId) -> usize {
        let count = self.face.getxattr(USER, id, b"user.coda.versions").await;
        count.ok().and_then(|count| String::from_utf8(count).ok()?.parse().ok()).unwrap_or(1)
    }

    async fn write(&self, name: &str) -> String {
        let lines = *self.chance.pick(&[1, 1, 1, 30, 3_000]);
        let (what, id) =
            self.begin(format!("write {name}"), |id| vec![(name.to_owned(), Value::Written(id))]);
        let result = self.store(name, &contents(id, lines)).await;
        self.end(&what, id, result);
        what
    }

    async fn store(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (dir, last) = self.walk(name).await?;
        let mode = OpenMode { read: true, write: true, truncate: true };
        let user = self.somebody();
        let opened = match self.face.lookup(USER, dir, last.as_bytes()).await {
            Ok(attr) => self.face.open(user, attr.id, mode).await?,
            Err(Error::NotFound(_)) => {
                self.face.create(user, dir, last.as_bytes(), 0o644, mode, false).await?
            }
            Err(error) => return Err(error),
        };
        let written = opened.container.set_length(0).and_then(|()| opened.container.write_at(0, bytes));
        let flushed = self.face.flush(user, opened.handle).await;
        let released = self.face.release(opened.handle).await;
        written.map_err(|error| Error::NoSpace(error.to_string()))?;
        // The name was there: that it is not any more does not mean that nothing happened.
        flushed.and(released).map_err(|error| match error {
            Error::NotFound(_) => Error::Gone(opened.attr.id.fid),
            other => other,
        })
    }

    async fn remove(&self, name: &str) -> String {
        let (what, id) = self.begin(format!("remove {name}"), |_| vec![(name.to_owned(), Value::Absent)]);
        let result = async {
            let (dir, last) = self.walk(name).await?;
            let attr = self.face.lookup(USER, dir, last.as_bytes()).await?;
            if attr.kind == NodeKind::File && self.versions(attr.id).await > 1 {
                // Only one of them would go.
                return Err(Error::Undecided(name.to_owned()));
            }
            self.face.unlink(self.somebody(), dir, last.as_bytes()).await
        };
        let result = result.await;
        self.end(&what, id, result);
        what
    }

    async fn rename(&self, from: &str) -> String {
        let to = self.other_name(from);
        if to == from {
            return self.read(from).await;
        }
        let (what, id) = self.begin(format!("rename {from} {to}"), |_| {
            vec![(from.to_owned(), Value::Absent), (to.clone(), Value::Moved)]
        });
        let result = async {
            let (dir, last) = self.walk(from).await?;
            let (to_dir, to_last) = self.walk(&to).await?;
            let (from, to) = ((dir, last.as_bytes()), (to_dir, to_last.as_bytes()));
            self.face.rename(self.somebody(), from, to, RenameMode::Replace).await
        };
        let result = result.await;
        self.end(&what, id, result);
        what
    }

    /// Makes or removes one of two directories of its own.
    async fn make_directory(&self) -> String {
        let name = format!("{}-{}", self.client, self.chance.below(0..2));
        let make = self.chance.permille(600);
        let (verb, value) = if make { ("mkdir", Value::Directory) } else { ("rmdir", Value::Absent) };
        let (what, id) = self.begin(format!("{verb} d1/{name}"), |_| vec![(format!("d1/{name}"), value)]);
        let result = async {
            let (dir, _) = self.walk("d1/x").await?;
            if make {
                self.face.mkdir(self.somebody(), dir, name.as_bytes(), 0o755).await.map(|_| ())
            } else {
                self.face.rmdir(self.somebody(), dir, name.as_bytes()).await
            }
        };
        let result = result.await;
        self.end(&what, id, result);
        what
    }

    /// Lists a directory: a name of mine that is there, or is not, is judged like a look-up.
    async fn list(&self) -> String {
        let dir = *self.chance.pick(&["d0", "d1"]);
        let begun = self.trace.time();
        let what = format!("list {dir}");
        let result = async {
            let (at, _) = self.walk(&format!("{dir}/x")).await?;
            self.face.readdir(USER, at).await
        };
        let result = result.await;
        self.said(&what, &result.as_ref().map(|lines| lines.len()).map_err(Clone::clone));
        match result {
            Ok(lines) => {
                let mine: Vec<String> =
                    self.private.iter().filter(|own| own.starts_with(dir)).cloned().collect();
                for name in mine {
                    let last = name.rsplit('/').next().unwrap_or_default().as_bytes();
                    if !lines.iter().any(|line| line.name == last) {
                        self.judge(&name, Value::Absent, self.view(begun, &name));
                    }
                }
            }
            Err(error) => self.tolerate(&what, &error),
        }
        what
    }

    /// Two people use each machine. Whose turn it is to change something the clock says.
    pub(crate) fn somebody(&self) -> Caller {
        if self.trace.time().as_millis().is_multiple_of(3) { OTHER } else { USER }
    }

    /// The directory a name lies in, and its last part.
    pub async fn walk<'a>(&self, name: &'a str) -> Result<(ObjectId, &'a str)> {
        let realm = self.face.lookup(USER, self.face.root(), REALM.as_bytes()).await?;
        match name.split_once('/') {
            None => Ok((realm.id, name)),
            Some((dir, last)) => {
                let attr =
                    self.face.lookup(USER, realm.id, dir.as_bytes()).await.map_err(|error| match error {
                        // The directories are there for ever: their absence must not look like the name's.
                        Error::NotFound(what) => Error::BadAnswer(what, "a directory is missing".into()),
                        other => other,
                    })?;
                Ok((attr.id, last))
            }
        }
    }

    pub(crate) fn begin(
        &self,
        what: String,
        effects: impl FnOnce(usize) -> Vec<(String, Value)>,
    ) -> (String, usize) {
        let id = self.model().begin(self.client, what.clone(), self.trace.time(), effects);
        self.trace.say(format_args!("client {} begins {id}: {what}", self.client));
        (what, id)
    }

    pub(crate) fn end(&self, what: &str, id: usize, result: Result<()>) {
        self.said(what, &result);
        let outcome = match &result {
            Ok(()) => Outcome::Done(self.trace.time()),
            Err(error) if refused(error) => Outcome::Refused,
            Err(_) => Outcome::Open,
        };
        let logged = (self.logs)();
        let mut model = self.model();
        model.end(id, outcome);
        if logged {
            model.logged(id);
        }
        drop(model);
        if let Err(error) = result {
            self.tolerate(what, &error);
        }
    }

    /// Whether this error may happen in this weather.
    pub(crate) fn tolerate(&self, what: &str, error: &Error) {
        let calm = matches!(self.strictness, Strictness::Calm { .. });
        let conflict = matches!(error, Error::Conflict(_) | Error::Undecided(_));
        let raced = refused(error)
            || matches!(error, Error::Gone(_) | Error::Busy(_) | Error::NotFound(_))
            || (conflict && self.model().may_conflict(&SHARED));
        let nonsense = matches!(error, Error::BadAnswer(..) | Error::BadHandle | Error::UnknownVolume(_));
        if nonsense
            || (calm && !raced)
            || (conflict
                && self.is_mine(what)
                && !self.may_have_forgotten()
                && !self.model().is_uncertain(&self.private))
        {
            self.accuse(format!("{what}: {error}"));
        }
    }

    /// The only client that writes a name, if there is one.
    fn owner(&self, name: &str) -> Option<usize> {
        name.split("own-").nth(1)?.trim_end_matches("-x").parse().ok()
    }

    /// Whether an operation concerns only names that nobody else writes.
    fn is_mine(&self, what: &str) -> bool {
        what.split(' ').skip(1).all(|name| self.private.iter().any(|own| own == name))
    }

    pub(crate) fn said<T: std::fmt::Debug, E: std::fmt::Debug>(
        &self,
        what: &str,
        result: &std::result::Result<T, E>,
    ) {
        self.trace.say(format_args!("client {} {what}: {result:?}", self.client));
    }

    pub(crate) fn accuse(&self, what: String) {
        self.verdicts.accuse(&self.trace, format!("client {}: {what}", self.client));
    }

    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().expect("no holder panics")
    }
}

/// Whether an error says for certain that nothing happened.
fn refused(error: &Error) -> bool {
    matches!(
        error,
        Error::NotFound(_)
            | Error::Undecided(_)
            | Error::Exists(_)
            | Error::NotEmpty(_)
            | Error::NotDirectory(_)
            | Error::IsDirectory(_)
            | Error::Access(_)
            | Error::Loop(_)
    )
}

/// Names that only this client writes.
pub fn private(client: usize) -> Vec<String> {
    vec![format!("own-{client}"), format!("d0/own-{client}"), format!("d1/own-{client}-x")]
}

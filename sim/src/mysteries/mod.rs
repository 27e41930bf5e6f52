//! Small programs of a few clients, and whether some course of things explains what they saw: after Hughes, Pierce,
//! Arts and Norell, "Mysteries of Dropbox" (ICST 2016), with Coda's conflicts.
//!
//! What is seen is what users do: read, write, remove, and settle. When a client and the servers exchange what they know
//! is not seen. It is conjectured, and may have happened between any two steps:
//!
//! ```text
//!  up      a client that has something to send: what it knew of is replaced by it, and what it did not stays beside it
//!  down    a client that has nothing to send: it shows what there is
//! ```
//!
//! A program passes if some such exchanges explain all that was seen. Then, whatever was exchanged when:
//!
//! - P1: once settled, all clients show the same;
//! - P2: what was written is there, or was replaced by somebody who had seen it;
//! - P3: several contents are there only where two did not know of each other;
//! - P4: a removal replaces what its author had seen, and nothing else;
//! - P5: settling again changes nothing;
//! - P6: directories that are moved into each other apart remain a tree, and each is in it once.

mod course;
mod program;

pub use course::{Seen, explain};
pub use program::{FILES, Step, program};

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use venus::{
    error::Error,
    venus::face::{Face, NodeKind, ObjectId, OpenMode, RenameMode},
};

use crate::{
    actor::{Actor, Strictness, USER},
    chance::Chance,
    model::{Value, author, contents},
    oracle,
    play::{Report, lives, room},
    trace::Trace,
    world::{Death, Nature, World},
};
use program::shrink;

/// How long servers may take to agree, and logs to be sent.
const QUIET: Duration = Duration::from_secs(300);

/// Plays the program of a seed.
pub fn play(seed: u64, print: bool) -> anyhow::Result<Report> {
    let (clients, steps) = program(seed);
    run(seed, clients, &steps, print)
}

/// The same. One that fails is told by the fewest steps that still fail.
pub fn play_short(seed: u64, print: bool) -> anyhow::Result<Report> {
    let mut report = play(seed, print)?;
    if !report.violations.is_empty() {
        let (clients, steps) = program(seed);
        let fewest = shrink(steps, |steps| {
            run(seed, clients, steps, false).is_ok_and(|report| !report.violations.is_empty())
        });
        let why = run(seed, clients, &fewest, false)?.violations;
        report.violations = vec![format!("{clients} clients, {fewest:?}: {why:?}")];
    }
    Ok(report)
}

fn run(seed: u64, clients: usize, steps: &[Step], print: bool) -> anyhow::Result<Report> {
    let dir = room()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(course(seed, clients, steps, print, dir.path()))
}

async fn course(
    seed: u64,
    clients: usize,
    steps: &[Step],
    print: bool,
    dir: &Path,
) -> anyhow::Result<Report> {
    let trace = Trace::new(print);
    let ways = (Strictness::Stormy, Nature::default());
    let mut world = World::new(dir, Chance::new(seed), trace.clone(), 2, clients, ways)?;
    world.rpc_timeout = Duration::from_secs(3);
    for client in 0..clients {
        world.start_client(client, Duration::ZERO)?;
    }
    world.peace.store(true, Ordering::Relaxed);
    let mut play =
        Play { actors: world.actors(), world: &mut world, seen: Vec::new(), made: BTreeSet::new(), next: 0 };
    // Everybody knows the directory before anything happens to the network.
    for client in 0..clients {
        play.look(client).await;
    }
    for step in steps {
        trace.say(format_args!("{step:?}"));
        play.step(*step).await;
    }
    let (seen, count) = (play.seen, steps.len());
    for name in FILES {
        if let Err(why) = explain(name, clients, &seen) {
            world.verdicts.accuse(&trace, why);
        }
    }
    let violations = world.verdicts.all();
    Ok(Report { seed, violations, digest: trace.digest(), operations: (count, count, 0), tail: trace.tail() })
}

/// A program under way.
struct Play<'a> {
    world: &'a mut World,
    actors: Vec<Arc<Actor>>,
    seen: Vec<Seen>,
    /// Directories that were made for certain.
    made: BTreeSet<ObjectId>,
    next: usize,
}

type Result<T> = std::result::Result<T, Error>;

impl Play<'_> {
    async fn step(&mut self, step: Step) {
        match step {
            Step::Read(client, name) => {
                self.read(client, name).await;
            }
            Step::Write(client, name) => {
                if self.read(client, name).await.is_some_and(|shown| shown.len() < 2) {
                    self.next += 1;
                    let id = self.next;
                    let wrote = self.write(client, name, id).await;
                    self.seen.push(Seen::Wrote(client, name, id, wrote.is_ok()));
                }
            }
            Step::Remove(client, name) => {
                if self.read(client, name).await.is_some_and(|shown| shown.len() == 1) {
                    let removed = self.remove(client, name).await;
                    self.world.trace.say(format_args!("{removed:?}"));
                    if !matches!(removed, Err(Error::NotFound(_))) {
                        self.seen.push(Seen::Removed(client, name, removed.is_ok()));
                    }
                }
            }
            Step::Make(client, name) => {
                let actor = &self.actors[client];
                let made = async {
                    let (root, _) = actor.walk("x").await?;
                    actor.face.mkdir(USER, root, name.as_bytes(), 0o755).await
                };
                self.made.extend(made.await.map(|attr| attr.id));
            }
            Step::Move(client, what, into) => {
                // What is not there, or would be its own child, is refused.
                let _ = self.move_into(client, what, into).await;
            }
            Step::Part(client) => self.part(client, true),
            Step::Deaf(client) => self.part(client, false),
            Step::Restart(client, power) => self.restart(client, power).await,
            Step::Meet(client) => self.meet(client),
            Step::Wait(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            Step::Settle => self.settle().await,
        }
    }

    async fn restart(&mut self, client: usize, power: bool) {
        let death = if power { Death::PowerCut } else { Death::Killed };
        self.world.kill_client(client, death, 0);
        // Something of it wakes up and finds that it is dead, or nothing has anything to do.
        tokio::time::sleep(Duration::from_secs(2)).await;
        if let Some(life) = &self.world.clients[client].life {
            life.process.die();
        }
        self.world.bury();
        if self.world.clients[client].life.is_none() {
            self.world.start_client(client, Duration::ZERO).expect("what it left is sound");
        }
        self.actors = self.world.actors();
    }

    fn part(&self, client: usize, both: bool) {
        let (servers, clients) = self.world.hosts();
        for server in &servers {
            if both {
                self.world.fabric.net.cut(&clients[client], server);
            }
            self.world.fabric.net.cut(server, &clients[client]);
        }
    }

    fn meet(&self, client: usize) {
        self.world.fabric.net.join(&self.world.hosts().1[client]);
    }

    /// The names in the root that stand for `name`: itself, and what shows beside it.
    async fn lines(&self, client: usize) -> Result<Vec<(String, ObjectId, NodeKind)>> {
        let actor = &self.actors[client];
        let (root, _) = actor.walk("x").await?;
        let listing = actor.face.readdir(USER, root).await?;
        let line = |line: &venus::venus::face::DirLine| {
            (String::from_utf8_lossy(&line.name).into_owned(), line.id, line.kind)
        };
        Ok(listing.iter().map(line).collect())
    }

    async fn look(&self, client: usize) {
        let _ = self.lines(client).await;
    }

    /// What a client shows under a name. `None`: it cannot tell.
    async fn read(&mut self, client: usize, name: &'static str) -> Option<BTreeSet<usize>> {
        let shown = self.shown(client, name).await;
        self.world.trace.say(format_args!("client {client} shows as {name}: {shown:?}"));
        match shown {
            Ok(shown) => {
                self.seen.push(Seen::Shows(client, name, shown.clone()));
                Some(shown)
            }
            Err(_) => None,
        }
    }

    async fn shown(&self, client: usize, name: &str) -> Result<BTreeSet<usize>> {
        let actor = &self.actors[client];
        let beside = format!("{name}.conflict-");
        let mut shown = BTreeSet::new();
        for (line, id, kind) in self.lines(client).await? {
            let is_version = line.starts_with(&beside) && !line.ends_with(".conflict-base");
            if kind != NodeKind::File || !(line == name || is_version) {
                continue;
            }
            let mode = OpenMode { read: true, write: false, truncate: false };
            let opened = actor.face.open(USER, id, mode).await?;
            let mut bytes = vec![0; opened.container.length().unwrap_or(0) as usize];
            let length = opened.container.read_at(0, &mut bytes).unwrap_or(0);
            bytes.truncate(length);
            actor.face.release(opened.handle).await?;
            match author(&bytes) {
                Ok(Value::Written(id)) => {
                    shown.insert(id);
                }
                // Made, and not stored to yet.
                Ok(_) => return Err(Error::Busy(line)),
                Err(nonsense) => self.accuse(format!("client {client}, {line}: {nonsense}")),
            }
        }
        Ok(shown)
    }

    async fn write(&self, client: usize, name: &str, id: usize) -> Result<()> {
        let actor = &self.actors[client];
        let (root, last) = actor.walk(name).await?;
        let mode = OpenMode { read: true, write: true, truncate: true };
        let opened = match actor.face.lookup(USER, root, last.as_bytes()).await {
            Ok(attr) => actor.face.open(USER, attr.id, mode).await?,
            Err(Error::NotFound(_)) => {
                actor.face.create(USER, root, last.as_bytes(), 0o644, mode, false).await?
            }
            Err(error) => return Err(error),
        };
        // Some are too long for their records.
        let bytes = contents(id, if id.is_multiple_of(3) { 3_000 } else { 1 });
        let written = opened.container.set_length(0).and_then(|()| opened.container.write_at(0, &bytes));
        let flushed = actor.face.flush(USER, opened.handle).await;
        let released = actor.face.release(opened.handle).await;
        self.world.trace.say(format_args!("client {client} writes {name} {id}: {flushed:?}"));
        written.map_err(|error| Error::NoSpace(error.to_string()))?;
        flushed.and(released)
    }

    async fn remove(&self, client: usize, name: &str) -> Result<()> {
        let actor = &self.actors[client];
        let (root, last) = actor.walk(name).await?;
        actor.face.unlink(USER, root, last.as_bytes()).await
    }

    async fn move_into(&self, client: usize, what: &str, into: &str) -> Result<()> {
        let actor = &self.actors[client];
        let (root, _) = actor.walk("x").await?;
        let to = actor.face.lookup(USER, root, into.as_bytes()).await?.id;
        let names = ((root, what.as_bytes()), (to, what.as_bytes()));
        actor.face.rename(USER, names.0, names.1, RenameMode::NoReplace).await
    }

    /// Everything is healed, sent and heard of; then all show the same, and each directory is in one place.
    async fn settle(&mut self) {
        self.world.fabric.net.heal();
        tokio::time::sleep(Duration::from_secs(70)).await;
        let begun = self.world.trace.time();
        let unsent = |actors: &[Arc<Actor>]| actors.iter().map(|actor| actor.face.unsent()).sum::<u64>();
        while unsent(&self.actors) > 0 || oracle::converged(&lives(self.world), false).is_err() {
            if self.world.trace.time() - begun > QUIET {
                return self
                    .accuse(format!("{} records are never sent, or servers differ", unsent(&self.actors)));
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        self.seen.push(Seen::Settled);
        let mut trees = BTreeMap::new();
        for client in 0..self.actors.len() {
            for name in FILES {
                if self.read(client, name).await.is_none() {
                    self.accuse(format!("client {client} cannot read {name} when all is settled"));
                }
            }
            match self.tree(client).await {
                Ok(tree) => {
                    trees.insert(tree, client);
                }
                Err(why) => self.accuse(format!("client {client}: {why}")),
            }
        }
        if trees.len() > 1 {
            self.accuse(format!("clients show different trees: {trees:?}"));
        }
    }

    /// Every directory with its path.
    async fn tree(&self, client: usize) -> std::result::Result<Vec<(String, ObjectId)>, String> {
        let actor = &self.actors[client];
        let said = |error: Error| format!("a directory cannot be listed: {error}");
        let (root, _) = actor.walk("x").await.map_err(said)?;
        let (mut tree, mut left) = (Vec::new(), vec![(String::new(), root)]);
        let mut found = BTreeSet::new();
        while let Some((path, dir)) = left.pop() {
            for line in actor.face.readdir(USER, dir).await.map_err(said)?.iter() {
                if line.kind != NodeKind::Directory {
                    continue;
                }
                let path = format!("{path}/{}", String::from_utf8_lossy(&line.name));
                if !found.insert(line.id) {
                    return Err(format!("{path} is in two places, or in itself"));
                }
                tree.push((path.clone(), line.id));
                left.push((path, line.id));
            }
        }
        tree.sort();
        match self.made.iter().find(|dir| !found.contains(dir)) {
            Some(lost) => Err(format!("{} is in no place: {tree:?}", lost.fid)),
            None => Ok(tree),
        }
    }

    fn accuse(&self, what: String) {
        self.world.verdicts.accuse(&self.world.trace, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_small_program_is_explained_by_some_course_of_things() {
        for seed in 1..=15 {
            let report = play_short(seed, false).unwrap();
            assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}");
        }
    }
}

//! Every command of `cfs`, where no server answers: it ends in time, and says how.

use std::{
    ffi::OsString,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use cfs::exit::Exit;
use coda_proto::control::{Event, Failure, Reply, Request};
use tokio::{sync::mpsc as async_mpsc, time::Instant};

use super::world::*;
use crate::control::{Manager, PATIENCE};

/// One thing to type, how long it may take when all servers fall silent just then, and how it may end.
struct Line {
    words: &'static str,
    seconds: u64,
    codes: &'static [Exit],
}

/// Answered from memory, without waiting for anybody.
const AT_ONCE: u64 = 1;
/// As long as a server may be silent before it is dead.
const SILENCE: u64 = 16;
/// It was asked for to wait.
const PATIENT: u64 = 31;

const DONE: &[Exit] = &[Exit::Done];
const REFUSED: &[Exit] = &[Exit::Failed];
/// All of it may be here, or be known to be here no more.
const HERE: &[Exit] = &[Exit::Done, Exit::Disconnected];
const AWAY: &[Exit] = &[Exit::Disconnected];
const WAITS: &[Exit] = &[Exit::Pending];
/// What is wanted is not there: told as that, or as nobody being there to tell.
const MISSING: &[Exit] = &[Exit::Failed, Exit::Disconnected];

const fn line(words: &'static str, seconds: u64, codes: &'static [Exit]) -> Line {
    Line { words, seconds, codes }
}

/// What is typed of a command; the words in capitals are a directory and an archive on this machine. None: whoever added
/// the command is to say here how it ends.
fn lines(command: &str) -> Option<Vec<Line>> {
    Some(match command {
        "adaptive" => vec![line("adaptive home", SILENCE, DONE), line("adaptive", AT_ONCE, DONE)],
        "approve" => vec![line("approve home", SILENCE, DONE), line("approve", AT_ONCE, DONE)],
        "beginrepair" => vec![line("beginrepair home/f", SILENCE, MISSING)],
        "checkpointml" => vec![line("checkpointml home DIR", SILENCE, REFUSED)],
        "checkservers" => vec![line("checkservers", SILENCE, DONE)],
        "checkvolumes" => vec![line("checkvolumes", AT_ONCE, DONE)],
        "coda-client-setup" => vec![line("coda-client-setup --dir DIR example.org 20000", AT_ONCE, DONE)],
        "codacon" => vec![line("codacon", AT_ONCE, DONE)],
        "collapse" => vec![line("collapse home/f", SILENCE, MISSING)],
        "conflicts" => vec![line("conflicts", SILENCE, AWAY), line("conflicts home", SILENCE, AWAY)],
        "disconnect" => vec![line("disconnect", AT_ONCE, DONE), line("disconnect srv1", AT_ONCE, DONE)],
        "endrepair" => vec![line("endrepair home/f", SILENCE, MISSING)],
        "events" => vec![line("events -last", AT_ONCE, DONE)],
        "expand" => vec![line("expand home/f", SILENCE, MISSING)],
        "flush" => vec![line("flush --wait --timeout 0", PATIENT, WAITS), line("flush", PATIENT, WAITS)],
        "flushcache" => vec![line("flushcache -y", SILENCE, DONE)],
        "flushobject" => vec![line("flushobject -y home/f", SILENCE, DONE)],
        "flushvolume" => vec![line("flushvolume -y home", SILENCE, DONE)],
        "forcereintegrate" => {
            vec![line("forcereintegrate home", PATIENT, WAITS)]
        }
        "getfid" => vec![line("getfid home/f", SILENCE, DONE), line("getfid home/nothing", SILENCE, MISSING)],
        "getmountpoint" => vec![line("getmountpoint 7f000002@example.org", AT_ONCE, DONE)],
        "getpath" => vec![line("getpath 7f000002.1.1@example.org", AT_ONCE, DONE)],
        "help" => vec![line("help", AT_ONCE, DONE)],
        "hoard" => vec![
            line("hoard list", AT_ONCE, DONE),
            line("hoard verify", SILENCE, DONE),
            line("hoard walk", PATIENT, DONE),
            line("hoard add /coda/example.org/home/f 100", SILENCE, DONE),
        ],
        "listacl" => vec![line("listacl home", SILENCE, AWAY)],
        "listcache" => vec![line("listcache", AT_ONCE, DONE)],
        "listvol" => vec![line("listvol home", SILENCE, DONE), line("listvol -local home", SILENCE, DONE)],
        "lsmount" => vec![line("lsmount home", SILENCE, DONE)],
        "mkmount" => vec![line("mkmount m home", SILENCE, DONE)],
        "offline" => vec![line("offline -- true", AT_ONCE, &[Exit::Command(0)])],
        "pending" => vec![line("pending", AT_ONCE, DONE), line("pending home", SILENCE, DONE)],
        "pin" => vec![line("pin home/f", SILENCE, DONE)],
        "preflight" => {
            vec![line("preflight home", SILENCE, HERE), line("preflight --fetch home", PATIENT, HERE)]
        }
        "purgeml" => vec![line("purgeml -y home", SILENCE, DONE)],
        "reconnect" => vec![line("reconnect", AT_ONCE, DONE)],
        "repair" => vec![line("repair home/f", SILENCE, MISSING)],
        "replay" => vec![line("replay -y ARCHIVE home", SILENCE, DONE)],
        "resolve" => vec![line("resolve --newest home/f", SILENCE, MISSING)],
        "rmmount" => vec![line("rmmount home/nothing", SILENCE, MISSING)],
        "salvage" => vec![line("salvage DIR", AT_ONCE, MISSING)],
        "setacl" => vec![line("setacl home System:AnyUser all", PATIENT, AWAY)],
        "setquota" => vec![line("setquota home 5000", PATIENT, AWAY)],
        "status" => vec![line("status", AT_ONCE, DONE), line("status home/f", SILENCE, DONE)],
        "strong" => vec![line("strong home", SILENCE, DONE), line("strong", AT_ONCE, DONE)],
        "undo" => vec![line("undo", AT_ONCE, DONE), line("undo 7", SILENCE, MISSING)],
        "unpin" => vec![line("unpin home/f", SILENCE, REFUSED)],
        "venus-setup" => vec![line("venus-setup --dir DIR example.org 20000", AT_ONCE, DONE)],
        "waitforever" => vec![line("waitforever -off", AT_ONCE, DONE)],
        "whereis" => vec![line("whereis home", SILENCE, DONE)],
        "writedisconnect" => vec![line("writedisconnect home", SILENCE, DONE)],
        "writereconnect" => vec![line("writereconnect home", PATIENT, DONE)],
        _ => return None,
    })
}

type Asked = (Request, mpsc::Sender<Result<Reply, Failure>>);

/// The manager, for a program in another thread.
struct Bridge(async_mpsc::UnboundedSender<Asked>);

impl cfs::Venus for Bridge {
    fn mountpoint(&self) -> &Path {
        Path::new("/coda")
    }
    fn ask(&mut self, request: Request) -> Result<Reply, Failure> {
        let (reply, answer) = mpsc::channel();
        self.0.send((request, reply)).unwrap();
        answer.recv().unwrap()
    }
    fn events(
        &mut self,
        _: usize,
        _: bool,
        _: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        // Read until its reader has had enough.
        Ok(())
    }
}

/// How a command ended, how long venus took for all that it asked, and what it said.
async fn run(client: &Client, words: &str, dir: &Path) -> (Exit, Duration, String) {
    let (dir, archive) = (dir.to_str().unwrap(), dir.join("archive"));
    let words = words.replace("DIR", dir).replace("ARCHIVE", archive.to_str().unwrap());
    let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
    let (asks, mut asked) = async_mpsc::unbounded_channel();
    // While it runs, time passes only where this says so.
    let tool = tokio::task::spawn_blocking(move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = cfs::run(
            words,
            cfs::World {
                connect: &mut |_, _| Ok(Box::new(Bridge(asks.clone()))),
                input: &mut "quit\n".as_bytes(),
                out: &mut out,
                err: &mut err,
                here: PathBuf::from(format!("/coda/{REALM}")),
                terminal: false,
            },
        );
        (exit, String::from_utf8([out, err].concat()).unwrap())
    });
    let mut took = Duration::ZERO;
    while let Some((request, reply)) = asked.recv().await {
        let began = Instant::now();
        let answer = passing(tokio::time::timeout(PATIENCE, client.venus.answer(ME, request))).await;
        took += began.elapsed();
        let _ = reply.send(answer.expect("within the time that the socket has"));
    }
    let (exit, said) = tool.await.unwrap();
    (exit, took, said)
}

/// Lets time pass until something is done.
async fn passing<T>(work: impl Future<Output = T>) -> T {
    let step = async || {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(Duration::from_millis(250)).await;
    };
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = step() => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_command_ends_in_time_and_says_how_when_all_servers_fall_silent() {
    let mut wrong = Vec::new();
    let world = World::new(2);
    let mut count = 0;
    for command in cfs::commands::COMMANDS {
        let Some(lines) = lines(command.name) else { panic!("how does `cfs {}` end?", command.name) };
        for line in lines {
            count += 1;
            let client = world.client(&format!("client{count}"));
            client.write("home/f", "contents").await.unwrap();
            client.stat("home").await.unwrap();
            client.ls("home").await.unwrap();
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("archive"), [0; 1024]).unwrap();
            (1..=2).for_each(|id| world.weather(id, Weather::Hung));
            // Something waits to be sent, where it is of use.
            if ["flush", "forcereintegrate", "writereconnect", "purgeml"].contains(&command.name) {
                client.mkdir(&format!("home/made apart {count}")).await.unwrap();
            }
            client.venus.core.cache.void(client.stat("home").await.unwrap().id.realm, |_| true);
            let (exit, took, said) = run(&client, line.words, dir.path()).await;
            if took > Duration::from_secs(line.seconds) || !line.codes.contains(&exit) {
                wrong.push(format!("cfs {}: {exit:?} after {took:?}\n{said}", line.words));
            }
            // By now they are known to be dead.
            let (exit, took, said) = run(&client, line.words, dir.path()).await;
            if took > Duration::from_secs(6) || exit == Exit::Usage {
                wrong.push(format!("cfs {} once more: {exit:?} after {took:?}\n{said}", line.words));
            }
            (1..=2).for_each(|id| world.weather(id, Weather::Fine));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! The socket with an honest fake behind it: real connections, real limits.

use std::{os::unix::net::UnixStream as StdStream, path::PathBuf, sync::Arc, time::Duration};

use coda_proto::control::{ASK_LIMIT, Answer, Ask, Failure, FailureKind, Greeting, Reply, Request, VERSION};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::*;

/// Answers `whereis /coda/x` with nothing found, never answers `FlushCache`, and everything else with Done.
#[derive(Default)]
struct Fake {
    events: Events,
}

impl Manager for Fake {
    async fn answer(&self, _: Caller, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Whereis { path } => Err(Failure {
                kind: FailureKind::NotFound,
                what: path,
                why: "no such object".into(),
                next: String::new(),
            }),
            Request::FlushCache => std::future::pending().await,
            _ => Ok(Reply::Done),
        }
    }
    fn events(&self) -> &Events {
        &self.events
    }
}

struct Tool {
    stream: BufReader<UnixStream>,
}

impl Tool {
    async fn connect(path: &PathBuf) -> (Tool, Greeting) {
        let mut tool = Tool { stream: BufReader::new(UnixStream::connect(path).await.unwrap()) };
        let greeting = serde_json::from_str(&tool.line().await.unwrap()).unwrap();
        (tool, greeting)
    }
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line),
        }
    }
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).await.unwrap();
    }
    async fn hear(&mut self) -> Option<Answer> {
        self.line().await.map(|line| serde_json::from_str(&line).unwrap())
    }
    async fn ask(&mut self, request: Request) -> Answer {
        let ask = serde_json::to_string(&Ask { control: VERSION, request }).unwrap();
        self.send(format!("{ask}\n").as_bytes()).await;
        self.hear().await.unwrap()
    }
}

struct Venus {
    _dir: tempfile::TempDir,
    path: PathBuf,
    manager: Arc<Fake>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Venus {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn owners(runner: u32) -> Owners {
    Owners { runner, primary: None, shared: false }
}

fn me() -> u32 {
    // SAFETY: geteuid reads a number and cannot fail.
    unsafe { libc::geteuid() }
}

fn start(owners: Owners) -> Venus {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/venus.sock");
    let manager = Arc::new(Fake::default());
    let control = bind(&path).unwrap();
    let server = tokio::spawn(control.serve(manager.clone(), owners, "/coda".into()));
    Venus { _dir: dir, path, manager, server }
}

#[tokio::test]
async fn a_tool_is_greeted_and_may_ask_several_times() {
    let venus = start(owners(me()));
    let (mut tool, greeting) = Tool::connect(&venus.path).await;
    assert_eq!((greeting.control, greeting.mountpoint.as_str()), (VERSION, "/coda"));
    assert_eq!(tool.ask(Request::CheckVolumes).await, Answer::Ok(Reply::Done));
    let Answer::Failed(failure) = tool.ask(Request::Whereis { path: "/coda/x".into() }).await else {
        panic!()
    };
    assert_eq!((failure.kind, failure.what.as_str()), (FailureKind::NotFound, "/coda/x"));
    assert_eq!(tool.ask(Request::CheckVolumes).await, Answer::Ok(Reply::Done));
}

#[tokio::test]
async fn somebody_elses_venus_answers_nothing() {
    if me() == 0 {
        // Root may always; the rule itself is tested in rights.rs.
        return;
    }
    let venus = start(owners(me() + 1));
    let (mut tool, _) = Tool::connect(&venus.path).await;
    let Answer::Failed(failure) = tool.ask(Request::CheckVolumes).await else { panic!() };
    assert_eq!(failure.kind, FailureKind::Denied);
}

#[tokio::test]
async fn another_version_and_nonsense_are_told_apart() {
    let venus = start(owners(me()));
    for (line, kind) in [
        ("{\"control\":99,\"request\":{\"from\":\"the future\"}}\n", FailureKind::Unsupported),
        ("{\"control\":1,\"request\":{\"dance\":{}}}\n", FailureKind::Invalid),
        ("hello\n", FailureKind::Invalid),
    ] {
        let (mut tool, _) = Tool::connect(&venus.path).await;
        tool.send(line.as_bytes()).await;
        let Some(Answer::Failed(failure)) = tool.hear().await else { panic!("{line}") };
        assert_eq!(failure.kind, kind, "{line}");
        assert_eq!(tool.hear().await, None, "{line}: and then it hangs up");
    }
}

#[tokio::test]
async fn a_request_without_end_is_cut_off() {
    let venus = start(owners(me()));
    let (mut tool, _) = Tool::connect(&venus.path).await;
    // The last write may already find the door closed.
    let _ = tool.stream.get_mut().write_all(&vec![b'x'; ASK_LIMIT + 2]).await;
    assert_eq!(tool.line().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_venus_cannot_answer_fails_in_bounded_time() {
    let venus = start(owners(me()));
    let (mut tool, _) = Tool::connect(&venus.path).await;
    let Answer::Failed(failure) = tool.ask(Request::FlushCache).await else { panic!() };
    assert_eq!(failure.kind, FailureKind::Busy);
}

#[tokio::test]
async fn events_come_from_the_past_and_then_live() {
    let venus = start(owners(me()));
    venus.manager.events.tell(1, "connection", "unreachable srv1");
    let (mut tool, _) = Tool::connect(&venus.path).await;
    let Answer::Event(past) = tool.ask(Request::Events { recent: 100, follow: true }).await else { panic!() };
    assert_eq!(past.text, "unreachable srv1");
    venus.manager.events.tell(2, "connection", "up srv1");
    let Some(Answer::Event(live)) = tool.hear().await else { panic!() };
    assert_eq!((live.seq, live.text.as_str()), (2, "up srv1"));
    // Without following, the stream ends.
    let (mut tool, _) = Tool::connect(&venus.path).await;
    tool.ask(Request::Events { recent: 1, follow: false }).await;
    assert_eq!(tool.hear().await, Some(Answer::Ok(Reply::Done)));
}

#[tokio::test]
async fn a_reader_that_sleeps_loses_events_and_venus_does_not_notice() {
    let venus = start(owners(me()));
    let (mut sleeper, _) = Tool::connect(&venus.path).await;
    venus.manager.events.tell(0, "fetch", "first");
    sleeper.ask(Request::Events { recent: 1, follow: true }).await;
    // Far more than socket buffers and queue hold, told without a pause.
    let text = "x".repeat(1000);
    (0..5000).for_each(|n| venus.manager.events.tell(n, "fetch", text.clone()));
    let (mut other, _) = Tool::connect(&venus.path).await;
    assert_eq!(other.ask(Request::CheckVolumes).await, Answer::Ok(Reply::Done));
    let lost = async {
        loop {
            let Some(Answer::Event(event)) = sleeper.hear().await else { panic!() };
            if event.text.starts_with("dropped ") {
                return event.text;
            }
        }
    };
    let lost = tokio::time::timeout(Duration::from_secs(10), lost).await.unwrap();
    assert!(lost.ends_with(" queued messages"), "{lost}");
}

#[tokio::test]
async fn a_dead_venus_leaves_a_name_that_the_next_takes_over_and_a_living_one_is_respected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("venus.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let control = bind(&path).unwrap();
    let error = bind(&path).err().unwrap();
    assert!(error.to_string().contains("another venus"), "{error}");
    drop(control);
    assert!(!path.exists() && StdStream::connect(&path).is_err());
}

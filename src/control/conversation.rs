//! One tool's conversation with venus: greeting, then question and answer until it hangs up.

use std::{io, time::Duration};

use coda_proto::control::{
    ASK_LIMIT, Answer, Ask, Event, Failure, FailureKind, Greeting, Reply, Request, VERSION,
};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
    sync::broadcast::error::RecvError,
    time::timeout,
};

use super::{Manager, Owners, PATIENCE};
use crate::venus::face::Caller;

/// A tool that does not take a line for this long is dropped.
const SLOW: Duration = Duration::from_secs(10);

/// Talks until the tool hangs up, breaks the rules or stops reading.
pub async fn talk<M: Manager>(
    stream: UnixStream,
    manager: &M,
    owners: Owners,
    mountpoint: &str,
) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
    let who = Caller { uid: peer.uid(), gid: peer.gid(), pid };
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let greeting = Greeting {
        control: VERSION,
        venus: env!("CARGO_PKG_VERSION").to_owned(),
        mountpoint: mountpoint.to_owned(),
    };
    say(&mut writer, &greeting).await?;
    while let Some(line) = listen(&mut reader).await? {
        let request = match understand(&line) {
            Ok(request) if owners.may(who.uid, &request) => request,
            Ok(_) => {
                say(&mut writer, &Answer::Failed(not_yours(who.uid))).await?;
                continue;
            }
            Err(failure) => return say(&mut writer, &Answer::Failed(failure)).await,
        };
        match request {
            Request::Events { recent, follow } => {
                tell(&mut reader, &mut writer, manager, recent, follow).await?;
                say(&mut writer, &Answer::Ok(Reply::Done)).await?;
            }
            request => say(&mut writer, &answer(manager, who, request).await).await?,
        }
    }
    Ok(())
}

async fn answer<M: Manager>(manager: &M, who: Caller, request: Request) -> Answer {
    match timeout(PATIENCE, manager.answer(who, request)).await {
        Ok(Ok(reply)) => Answer::Ok(reply),
        Ok(Err(failure)) => Answer::Failed(failure),
        Err(_) => Answer::Failed(Failure {
            kind: FailureKind::Busy,
            what: String::new(),
            why: format!("venus found no answer within {} s", PATIENCE.as_secs()),
            next: "`cfs status` says what it waits for".into(),
        }),
    }
}

fn not_yours(uid: u32) -> Failure {
    Failure {
        kind: FailureKind::Denied,
        what: String::new(),
        why: format!("this venus does not belong to user {uid}"),
        next: "ask as its owner or as root".into(),
    }
}

/// The request of a line, or what is wrong with it. The version is looked at before the rest, which a tool
/// of another version may well write differently.
fn understand(line: &[u8]) -> Result<Request, Failure> {
    #[derive(serde::Deserialize)]
    struct Version {
        control: u32,
    }
    let wrong =
        |kind, why: String, next: &str| Failure { kind, what: "request".into(), why, next: next.into() };
    let version: Version = serde_json::from_slice(line)
        .map_err(|error| wrong(FailureKind::Invalid, format!("not a request: {error}"), ""))?;
    if version.control != VERSION {
        let why = format!("the tool speaks version {}, venus version {VERSION}", version.control);
        return Err(wrong(FailureKind::Unsupported, why, "use the cfs that came with this venus"));
    }
    serde_json::from_slice(line)
        .map(|ask: Ask| ask.request)
        .map_err(|error| wrong(FailureKind::Invalid, format!("not a request: {error}"), ""))
}

/// Events, until all that were asked for are told or the tool hangs up.
async fn tell<M: Manager>(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    manager: &M,
    recent: usize,
    follow: bool,
) -> io::Result<()> {
    let (past, mut live) = manager.events().listen(recent);
    for event in past {
        say(writer, &Answer::Event(event)).await?;
    }
    if !follow {
        return Ok(());
    }
    let mut last = Event::default();
    loop {
        let next = tokio::select! {
            biased;
            // Whatever it says now, it has had enough.
            _ = reader.fill_buf() => return Ok(()),
            next = live.recv() => next,
        };
        let event = match next {
            Ok(event) => event,
            Err(RecvError::Lagged(lost)) => Event {
                class: "progress".into(),
                text: format!("dropped {lost} queued messages"),
                ..last.clone()
            },
            Err(RecvError::Closed) => return Ok(()),
        };
        say(writer, &Answer::Event(event.clone())).await?;
        last = event;
    }
}

/// A line, without reading more than a request may have. `None`: the tool hung up.
async fn listen(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.take(ASK_LIMIT as u64 + 1).read_until(b'\n', &mut line).await?;
    match (read, line.last()) {
        (0, _) => Ok(None),
        (_, Some(b'\n')) => Ok(Some(line)),
        (read, _) if read > ASK_LIMIT => Err(io::Error::new(io::ErrorKind::InvalidData, "request too long")),
        _ => Ok(None),
    }
}

async fn say(writer: &mut OwnedWriteHalf, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    timeout(SLOW, writer.write_all(&line)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

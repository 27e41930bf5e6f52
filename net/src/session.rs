//! A session, seen from the client: its events in order, and our words back.
//!
//! The stream is read and written by tasks of its own, so a caller may stop waiting for an event at any
//! moment without tearing a frame.

use std::sync::Arc;

use bytes::Bytes;
use coda_proto::{frame, wire};
use quinn::{RecvStream, SendStream};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    CallError,
    dialer::Failure,
    exchange::{self, Broken, Opening},
    life::Life,
    pool::{Link, Use},
};

/// Events that wait for their reader; then the server's flow control waits.
const WAITING: usize = 256;

/// The stream of an open session. Dropping it ends the session's stream, not its promises.
pub struct SessionStream {
    events: mpsc::Receiver<Result<wire::Event, CallError>>,
    words: mpsc::Sender<wire::ClientWord>,
    _tasks: JoinSet<()>,
    _used: Use,
}

impl SessionStream {
    /// The next event. An error ends the session. May be dropped and called again.
    pub async fn next(&mut self) -> Result<wire::Event, CallError> {
        let ended = || Err(CallError::Unreachable("the session has ended".into()));
        self.events.recv().await.unwrap_or_else(ended)
    }

    /// Acknowledges events, or pings.
    pub async fn say(&mut self, word: wire::ClientWord) -> Result<(), CallError> {
        let ended = |_| CallError::Unreachable("the session has ended".into());
        self.words.send(word).await.map_err(ended)
    }
}

/// Says Hello on a new stream.
pub(crate) async fn open(
    link: &Arc<Link>,
    hello: &wire::Hello,
    life: &Life,
) -> Result<(wire::Welcome, SessionStream), Failure> {
    let used = link.used(true);
    let call = link.used(false);
    let (mut send, mut receive) = link.connection.open_bi().await.map_err(Broken::from)?;
    let _ = send.set_priority(Opening::Session.priority());
    let hello = frame::encode(hello).map_err(Broken::from)?;
    let opening = [&[Opening::Session.byte()][..], &hello].concat();
    exchange::write(&mut send, &opening, Bytes::new(), life).await?;
    let welcome = exchange::read_message(&mut receive, &life.with(&link.life)).await?;
    let welcome: wire::Welcome = frame::decode(welcome, "welcome").map_err(Broken::from)?;
    drop(call);
    let (tell, events) = mpsc::channel(WAITING);
    let (words, said) = mpsc::channel(WAITING);
    let mut tasks = JoinSet::new();
    tasks.spawn(listen(receive, tell, link.life.clone()));
    tasks.spawn(speak(send, said));
    Ok((welcome, SessionStream { events, words, _tasks: tasks, _used: used }))
}

async fn listen(mut receive: RecvStream, tell: mpsc::Sender<Result<wire::Event, CallError>>, life: Life) {
    loop {
        let event = match exchange::read_message(&mut receive, &life).await {
            Ok(message) => frame::decode(message, "event").map_err(Broken::from),
            Err(broken) => Err(broken),
        };
        let event = event.map_err(|broken| Failure::from(broken).error);
        let last = event.is_err();
        if tell.send(event).await.is_err() || last {
            return;
        }
    }
}

async fn speak(mut send: SendStream, mut said: mpsc::Receiver<wire::ClientWord>) {
    let life = Life::new();
    while let Some(word) = said.recv().await {
        let Ok(frame) = frame::encode(&word) else { return };
        if exchange::write(&mut send, &frame, Bytes::new(), &life).await.is_err() {
            return;
        }
    }
}

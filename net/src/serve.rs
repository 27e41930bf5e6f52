//! One peer's connection, seen from the server: calls and sessions, each on its stream.
//!
//! A peer that breaks the framing loses its connection, and nobody else notices. A message that is framed
//! well but makes no sense is refused like any other request.

use std::sync::Arc;

use bytes::Bytes;
use coda_proto::{
    BULK_LIMIT, Code, Malformed, Refusal,
    frame::{self, FRAME_LIMIT, Frame},
    service::{Identity, Service},
    wire,
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, interval_at},
};

use crate::{
    exchange::{self, Broken, Opening},
    life::Life,
    listener::Limits,
    room::{Memory, shrink},
    tls,
};

/// The number under which a peer that talks nonsense is closed.
pub(crate) const NONSENSE: VarInt = VarInt::from_u32(2);
/// The number under which a stream is given up.
const GIVEN_UP: VarInt = VarInt::from_u32(1);

/// Room that is held: of the peer's own, and of all.
type Held<'a> = (SemaphorePermit<'a>, SemaphorePermit<'a>);

/// What one connection's streams share.
struct Peer {
    who: Identity,
    service: Arc<dyn Service>,
    limits: Arc<Limits>,
    calls: Semaphore,
    own: Memory,
    memory: Arc<Memory>,
}

/// Serves a peer until its connection ends.
pub(crate) async fn connection(
    connection: Connection,
    service: Arc<dyn Service>,
    limits: Arc<Limits>,
    memory: Arc<Memory>,
) {
    let peer = Arc::new(Peer {
        who: tls::caller(&connection),
        service,
        calls: Semaphore::new(limits.calls),
        own: Memory::new(limits.held),
        memory,
        limits,
    });
    while let Ok((send, receive)) = connection.accept_bi().await {
        let (peer, connection) = (peer.clone(), connection.clone());
        tokio::spawn(async move {
            if let Err(Broken::Malformed(why)) = stream(&peer, send, receive).await {
                tracing::info!(peer = %connection.remote_address(), %why, "closed: it talks nonsense");
                connection.close(NONSENSE, why.to_string().as_bytes());
            }
        });
    }
}

async fn stream(peer: &Peer, send: SendStream, mut receive: RecvStream) -> Result<(), Broken> {
    let life = Life::new();
    let first = async {
        let mut byte = [0];
        receive.read_exact(&mut byte).await.map_err(|_| Broken::Ended)?;
        Ok(Opening::parse(byte[0])?)
    };
    let opening = patiently(peer, &life, first).await?;
    send.set_priority(opening.priority()).map_err(|_| Broken::Abandoned)?;
    match opening {
        Opening::Call(_) => call(peer, send, receive).await,
        Opening::Session => session(peer, send, receive).await,
    }
}

/// Answers one call, and shows signs of life until the answer is there.
async fn call(peer: &Peer, mut send: SendStream, receive: RecvStream) -> Result<(), Broken> {
    let work = work(peer, receive);
    tokio::pin!(work);
    let start = Instant::now();
    let mut ticks = interval_at(start + peer.limits.working_every, peer.limits.working_every);
    let Answer { frame, bulk, held: _held } = loop {
        tokio::select! {
            biased;
            answer = &mut work => break answer?,
            _ = ticks.tick(), if start.elapsed() < peer.limits.working_for => {
                send.write_all(&frame::working()).await?;
            }
        }
    };
    let life = Life::new();
    let taken = async {
        patiently(peer, &life, exchange::write(&mut send, &frame, bulk, &life)).await?;
        let _ = send.finish();
        // What was written waits in our memory until the peer has it. However slow its line is, that is no silence.
        let _ = send.stopped().await;
        Ok(())
    };
    let taken = promptly(peer, &life, taken).await;
    if taken.is_err() {
        let _ = send.reset(GIVEN_UP);
    }
    taken
}

/// An answer on its way.
struct Answer<'a> {
    frame: Vec<u8>,
    bulk: Bytes,
    held: Option<Held<'a>>,
}

/// Reads a request and has it answered.
async fn work(peer: &Peer, mut receive: RecvStream) -> Result<Answer<'_>, Broken> {
    let life = Life::new();
    let length = match patiently(peer, &life, exchange::read_header(&mut receive)).await? {
        Frame::Message(length) => length,
        Frame::Working => return Err(Malformed::new("request", "only a server says that it works").into()),
    };
    let _frame = room(peer, |memory| &memory.frames, length).await;
    life.shown();
    let message = exchange::read_bytes(&mut receive, length, &life);
    let message = promptly(peer, &life, patiently(peer, &life, message)).await?;
    let request = match frame::decode::<wire::Request>(message, "request") {
        Ok(request) => request,
        Err(malformed) => return Ok(answer(peer, refused(malformed.into()), None).await),
    };
    let length = exchange::bulk_length(request.bulk)?;
    let _bulk = room(peer, |memory| &memory.bulks, length).await;
    life.shown();
    let bulk = exchange::read_bytes(&mut receive, length, &life);
    let bulk = promptly(peer, &life, patiently(peer, &life, bulk)).await?;
    let held = match expected(&request) {
        0..=SMALL => None,
        most => Some(room(peer, |memory| &memory.answers, most).await),
    };
    let call = peer.calls.acquire().await.expect("never closed");
    // A task of its own: a caller that gives up does not stop what was begun, and a panic is one call's.
    let answered = tokio::spawn(peer.service.call(peer.who, request, bulk)).await;
    drop(call);
    let answered = answered.unwrap_or_else(|error| {
        tracing::error!(%error, "a call failed inside the server");
        refused(Refusal::new(Code::Internal, "the call failed inside the server"))
    });
    Ok(answer(peer, answered, held).await)
}

/// An answer with the room that it takes. It keeps that to the end: its contents are one piece of memory.
async fn answer<'a>(
    peer: &'a Peer,
    (response, bulk): (wire::Response, Bytes),
    held: Option<Held<'a>>,
) -> Answer<'a> {
    let (frame, bulk) = encode_answer(response, bulk);
    let takes = frame.len() + bulk.len();
    let held = match held {
        Some(mut held) if held.1.num_permits() >= takes => {
            shrink(&mut held.0, takes);
            shrink(&mut held.1, takes);
            Some(held)
        }
        None if takes <= SMALL => None,
        held => {
            // More than was thought. Who holds room waits for nobody: all of it is taken anew.
            drop(held);
            Some(room(peer, |memory| &memory.answers, takes).await)
        }
    };
    Answer { frame, bulk, held }
}

/// An answer of so many bytes waits for nobody: there are only so many streams.
const SMALL: usize = 16 * 1024;
/// Bytes of an entry of a directory as it is sent, about, and of a status.
const ENTRY: usize = 300;
const STATUS: usize = 1000;

/// Bytes that the answer to a request may have, about, where these may be many.
fn expected(request: &wire::Request) -> usize {
    use wire::request::Body;
    let bulk = |length: u32| (length as usize).min(BULK_LIMIT) + STATUS;
    match &request.body {
        Some(Body::Fetch(fetch)) => bulk(fetch.length),
        Some(Body::FetchMany(fetch)) => bulk(fetch.at_most) + fetch.fids.len() * STATUS,
        Some(Body::GetAttr(get)) => get.fids.len() * STATUS,
        Some(Body::ReadDir(read)) => match read.limit as usize {
            0 => FRAME_LIMIT / 2,
            limit => (limit.saturating_mul(ENTRY) + STATUS).min(FRAME_LIMIT / 2),
        },
        Some(Body::Meet(_)) => BULK_LIMIT,
        _ => 0,
    }
}

/// Carries a session's events and its client's words, until either end stops.
async fn session(peer: &Peer, mut send: SendStream, mut receive: RecvStream) -> Result<(), Broken> {
    let life = Life::new();
    let hello = patiently(peer, &life, exchange::read_message(&mut receive, &life)).await?;
    let (welcome, source) = peer.service.hello(peer.who, frame::decode(hello, "hello")?);
    let session = welcome.session;
    let greeting = exchange::write(&mut send, &frame::encode(&welcome)?, Bytes::new(), &life).await;
    let Some(mut source) = source else {
        let _ = send.finish();
        return greeting;
    };
    let events = async {
        greeting?;
        while let Some(event) = source.next().await {
            exchange::write(&mut send, &frame::encode(&event)?, Bytes::new(), &life).await?;
        }
        Ok(())
    };
    let words = async {
        loop {
            let word = exchange::read_message(&mut receive, &life).await?;
            peer.service.said(session, frame::decode(word, "word of a client")?);
        }
    };
    let outcome: Result<(), Broken> = tokio::select! {
        biased;
        outcome = events => outcome,
        outcome = words => outcome,
    };
    match &outcome {
        // The service ended it, for example because the client has resumed it elsewhere: nothing is lost.
        Ok(()) => drop(send.finish()),
        Err(_) => peer.service.lost(session),
    }
    outcome
}

/// Gives up when `life` shows no sign for as long as a peer may stop.
async fn patiently<T>(
    peer: &Peer,
    life: &Life,
    work: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    unless(life.silent_for(peer.limits.patience), work).await
}

/// Gives up when others wait for room and this peer keeps its own by being slow.
async fn promptly<T>(
    peer: &Peer,
    life: &Life,
    work: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    unless(peer.memory.is_wanted_from(life, peer.limits.patience), work).await
}

async fn unless<T>(
    ends: impl Future<Output = ()>,
    work: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    tokio::select! {
        biased;
        done = work => done,
        () = ends => Err(Broken::Abandoned),
    }
}

/// Room of one kind for so many bytes: of the peer's own first, so that nobody waits for all while it waits for itself.
async fn room<'a>(
    peer: &'a Peer,
    of: impl for<'b> Fn(&'b Memory) -> &'b Semaphore,
    length: usize,
) -> Held<'a> {
    (peer.own.take(&of, length).await, peer.memory.take(&of, length).await)
}

fn refused(refusal: Refusal) -> (wire::Response, Bytes) {
    let body = wire::response::Body::Refusal(refusal.into());
    (wire::Response { bulk: 0, body: Some(body) }, Bytes::new())
}

/// An answer as bytes; one that is too large becomes a refusal.
fn encode_answer(mut response: wire::Response, bulk: Bytes) -> (Vec<u8>, Bytes) {
    response.bulk = bulk.len() as u32;
    let frame = match bulk.len() <= BULK_LIMIT {
        true => frame::encode(&response),
        false => Err(Malformed::new("answer", format!("{} bulk bytes", bulk.len()))),
    };
    match frame {
        Ok(frame) => (frame, bulk),
        Err(malformed) => {
            tracing::error!(%malformed, "an answer that cannot be sent");
            let (response, bulk) = refused(Refusal::new(Code::TooBig, malformed.to_string()));
            (frame::encode(&response).expect("a refusal is small"), bulk)
        }
    }
}

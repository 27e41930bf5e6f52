//! One peer's connection, seen from the server: calls and sessions, each on its stream.
//!
//! A peer that breaks the framing loses its connection, and nobody else notices. A message that is framed
//! well but makes no sense is refused like any other request.

use std::sync::Arc;

use bytes::Bytes;
use coda_proto::{
    BULK_LIMIT, Code, Malformed, Refusal,
    frame::{self, Frame},
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
    tls,
};

/// The number under which a peer that talks nonsense is closed.
pub(crate) const NONSENSE: VarInt = VarInt::from_u32(2);
/// The number under which a stream is given up.
const GIVEN_UP: VarInt = VarInt::from_u32(1);

/// What all connections share: room for what was received and is not answered yet, and for contents that are on
/// their way to who asked.
pub(crate) struct Memory {
    // Three: who holds a frame may wait for bulk, and who holds both for an answer's room; but who holds that waits
    // for nobody, only for its own peer, who must go on reading.
    frames: Semaphore,
    bulks: Semaphore,
    answers: Semaphore,
}

/// Room that is held.
type Held<'a> = (SemaphorePermit<'a>, SemaphorePermit<'a>);

impl Memory {
    /// So many bytes of each.
    pub(crate) fn new(bytes: u32) -> Memory {
        let room = || Semaphore::new(bytes as usize);
        Memory { frames: room(), bulks: room(), answers: room() }
    }
}

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
    let (response, bulk, _held) = loop {
        tokio::select! {
            biased;
            answer = &mut work => break answer?,
            _ = ticks.tick(), if start.elapsed() < peer.limits.working_for => {
                send.write_all(&frame::working()).await?;
            }
        }
    };
    let (frame, bulk) = encode_answer(response, bulk);
    let life = Life::new();
    let written = patiently(peer, &life, exchange::write(&mut send, &frame, bulk, &life)).await;
    match written {
        Ok(()) => drop(send.finish()),
        Err(_) => drop(send.reset(GIVEN_UP)),
    }
    written
}

/// Reads a request and has it answered.
async fn work(
    peer: &Peer,
    mut receive: RecvStream,
) -> Result<(wire::Response, Bytes, Option<Held<'_>>), Broken> {
    let life = Life::new();
    let length = match patiently(peer, &life, exchange::read_header(&mut receive)).await? {
        Frame::Message(length) => length,
        Frame::Working => return Err(Malformed::new("request", "only a server says that it works").into()),
    };
    let _frame = (room(&peer.own.frames, length).await, room(&peer.memory.frames, length).await);
    life.shown();
    let message = patiently(peer, &life, exchange::read_bytes(&mut receive, length, &life)).await?;
    let request = match frame::decode::<wire::Request>(message, "request") {
        Ok(request) => request,
        Err(malformed) => {
            let (response, bulk) = refused(malformed.into());
            return Ok((response, bulk, None));
        }
    };
    let length = exchange::bulk_length(request.bulk)?;
    let _bulk = (room(&peer.own.bulks, length).await, room(&peer.memory.bulks, length).await);
    life.shown();
    let bulk = patiently(peer, &life, exchange::read_bytes(&mut receive, length, &life)).await?;
    let answer = match contents_wanted(&request) {
        0 => None,
        most => Some((room(&peer.own.answers, most).await, room(&peer.memory.answers, most).await)),
    };
    let _call = peer.calls.acquire().await.expect("never closed");
    // A task of its own: a caller that gives up does not stop what was begun, and a panic is one call's.
    let answered = tokio::spawn(peer.service.call(peer.who, request, bulk)).await;
    let (response, bulk) = answered.unwrap_or_else(|error| {
        tracing::error!(%error, "a call failed inside the server");
        refused(Refusal::new(Code::Internal, "the call failed inside the server"))
    });
    Ok((response, bulk, answer))
}

/// Bytes of contents that the answer to a request may bring, at most. They stay in memory until the peer has
/// taken them.
fn contents_wanted(request: &wire::Request) -> usize {
    use wire::request::Body;
    match &request.body {
        Some(Body::Fetch(fetch)) => (fetch.length as usize).min(BULK_LIMIT),
        Some(Body::FetchMany(fetch)) => (fetch.at_most as usize).min(BULK_LIMIT),
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
    tokio::select! {
        biased;
        done = work => done,
        () = life.silent_for(peer.limits.patience) => Err(Broken::Abandoned),
    }
}

async fn room(of: &Semaphore, length: usize) -> tokio::sync::SemaphorePermit<'_> {
    of.acquire_many(length as u32).await.expect("never closed")
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

//! The caller's side: calls and sessions to any server, by realm and address.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use coda_proto::{BULK_LIMIT, frame, wire};

use crate::{
    CallError, Credentials, Priority, SessionStream, Target, Trust, dial,
    exchange::{self, Broken, Opening},
    life::Life,
    pool::{Link, Pool},
    session,
};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How names of hosts become addresses.
pub trait Names: Send + Sync + 'static {
    /// The addresses of a host, best first. Bounded in time.
    fn addresses(&self, host: &str, port: u16) -> BoxFuture<'static, Result<Vec<SocketAddr>, String>>;
}

/// As the host's own resolver says.
pub struct SystemNames;

/// The longest that a name may take.
const NAME_LIMIT: Duration = Duration::from_secs(5);

impl Names for SystemNames {
    fn addresses(&self, host: &str, port: u16) -> BoxFuture<'static, Result<Vec<SocketAddr>, String>> {
        let host = host.to_owned();
        Box::pin(async move {
            match tokio::time::timeout(NAME_LIMIT, tokio::net::lookup_host((host.as_str(), port))).await {
                Ok(Ok(addresses)) => Ok(addresses.collect()),
                Ok(Err(error)) => Err(format!("{host}: {error}")),
                Err(_) => Err(format!("{host}: no answer from the resolver")),
            }
        })
    }
}

/// Calls servers. Clones share their connections.
#[derive(Clone)]
pub struct Dialer {
    pool: Arc<Pool>,
}

impl Dialer {
    /// A dialer that believes in `trust` and, with credentials, proves who it is. Needs a tokio runtime
    /// around it; sends nothing before the first call.
    pub fn new(trust: Arc<Trust>, credentials: Option<Credentials>) -> io::Result<Dialer> {
        Dialer::with_names(trust, credentials, Arc::new(SystemNames))
    }

    /// The same, with another way from names to addresses.
    pub fn with_names(
        trust: Arc<Trust>,
        credentials: Option<Credentials>,
        names: Arc<dyn Names>,
    ) -> io::Result<Dialer> {
        Ok(Dialer { pool: Pool::new(trust, credentials, names)? })
    }

    /// One call. Gives up when the server has shown no sign of life on it for `silence`. Dropping the
    /// future abandons the call.
    pub fn call(
        &self,
        to: &Target,
        request: wire::Request,
        bulk: Bytes,
        priority: Priority,
        silence: Duration,
    ) -> impl Future<Output = Result<(wire::Response, Bytes), CallError>> + Send + 'static + use<> {
        let (pool, to) = (self.pool.clone(), to.clone());
        async move {
            let life = Life::new();
            let call = call(&pool, &to, request, bulk, priority, &life);
            tokio::select! {
                biased;
                answer = call => answer,
                () = life.silent_for(silence) => Err(CallError::Silent),
            }
        }
    }

    /// Opens a session: what the server says, and the stream of its events.
    pub fn session(
        &self,
        to: &Target,
        hello: wire::Hello,
        silence: Duration,
    ) -> impl Future<Output = Result<(wire::Welcome, SessionStream), CallError>> + Send + 'static + use<>
    {
        let (pool, to) = (self.pool.clone(), to.clone());
        async move {
            let life = Life::new();
            let opened = async {
                for again in [true, false] {
                    let link = pool.link(&to).await?;
                    let opened = tokio::select! {
                        biased;
                        opened = session::open(&link, &hello, &life) => opened,
                        never = pool.suspect(&to, &link, &life) => match never {},
                    };
                    match opened {
                        Err(Failure { lost: true, .. }) if again => {}
                        outcome => return outcome.map_err(|failure| failure.error),
                    }
                }
                unreachable!("the second attempt is the last")
            };
            tokio::select! {
                biased;
                outcome = opened => outcome,
                () = life.silent_for(silence) => Err(CallError::Silent),
            }
        }
    }

    /// Moves all connections to a new socket, when the host has changed networks.
    pub fn network_changed(&self) -> io::Result<()> {
        self.pool.rebind()
    }

    /// The host has slept, or stood still: connections may lead nowhere any more, and calls look for new ones.
    pub fn woke(&self) -> io::Result<()> {
        self.pool.doubt_all();
        self.pool.rebind()
    }
}

/// Why an attempt failed, and whether its connection went with it.
pub(crate) struct Failure {
    pub error: CallError,
    pub lost: bool,
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Failure {
        match broken {
            Broken::Connection(error) => Failure { error: dial::describe(error), lost: true },
            Broken::Malformed(why) => Failure { error: CallError::Malformed(why.to_string()), lost: false },
            other => Failure { error: CallError::Unreachable(other.to_string()), lost: false },
        }
    }
}

async fn call(
    pool: &Arc<Pool>,
    to: &Target,
    mut request: wire::Request,
    bulk: Bytes,
    priority: Priority,
    life: &Life,
) -> Result<(wire::Response, Bytes), CallError> {
    if bulk.len() > BULK_LIMIT {
        return Err(CallError::Malformed(format!("a request with {} bulk bytes", bulk.len())));
    }
    request.bulk = bulk.len() as u32;
    let repeatable = repeatable(&request);
    let frame = frame::encode(&request).map_err(|error| CallError::Malformed(error.to_string()))?;
    let frame = [&[Opening::Call(priority).byte()][..], &frame].concat();
    drop(request);
    for again in [true, false] {
        let link = pool.link(to).await?;
        let answer = tokio::select! {
            biased;
            answer = attempt(&link, priority, &frame, bulk.clone(), life) => answer,
            never = pool.suspect(to, &link, life), if repeatable => match never {},
        };
        match answer {
            // The server was started again, or a new connection has replaced this one.
            Err(Failure { lost: true, .. }) if again && repeatable => {}
            outcome => return outcome.map_err(|failure| failure.error),
        }
    }
    unreachable!("the second attempt is the last")
}

/// Everything but administration may be said twice: a repeated record is covered by the past of what it
/// touches.
fn repeatable(request: &wire::Request) -> bool {
    use wire::request::Body;
    !matches!(request.body, Some(Body::Admin(_) | Body::Enroll(_)))
}

async fn attempt(
    link: &Arc<Link>,
    priority: Priority,
    frame: &[u8],
    bulk: Bytes,
    life: &Life,
) -> Result<(wire::Response, Bytes), Failure> {
    let _used = link.used(false);
    let _carrying = link.traffic.carries(priority == Priority::Background, bulk.len());
    // With all streams taken, a sign of life is one on any of them.
    let (mut send, mut receive) = tokio::select! {
        biased;
        streams = link.connection.open_bi() => streams.map_err(Broken::from)?,
        () = life.follow(&link.life) => unreachable!("it follows for ever"),
    };
    let _ = send.set_priority(Opening::Call(priority).priority());
    let writing = async {
        match exchange::write(&mut send, frame, bulk, life).await {
            Ok(()) => drop(send.finish()),
            // The server refuses without having read everything: its answer is on the way.
            Err(Broken::Abandoned) => {}
            Err(broken) => return Err(broken),
        }
        Ok(())
    };
    let heard = life.with(&link.life);
    let reading = read_answer(&mut receive, &heard);
    tokio::pin!(writing, reading);
    // What stands back behind others is not dead while they move.
    let background = priority == Priority::Background;
    let others = life.follow(&link.life);
    tokio::pin!(others);
    let mut written = false;
    loop {
        tokio::select! {
            biased;
            answer = &mut reading => return answer.map_err(Failure::from),
            outcome = &mut writing, if !written => {
                outcome?;
                written = true;
            }
            () = &mut others, if background => unreachable!("it follows for ever"),
        }
    }
}

async fn read_answer(
    receive: &mut quinn::RecvStream,
    life: &Life,
) -> Result<(wire::Response, Bytes), Broken> {
    let message = exchange::read_message(receive, life).await?;
    let response: wire::Response = frame::decode(message, "answer")?;
    let length = exchange::bulk_length(response.bulk)?;
    let bulk = exchange::read_bytes(receive, length, life).await?;
    Ok((response, bulk))
}

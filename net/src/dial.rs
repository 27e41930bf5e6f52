//! From addresses to a connection: the first address that answers wins.

use std::{net::SocketAddr, time::Duration};

use quinn::{ClientConfig, ConnectError, Connection, ConnectionError, Endpoint};
use tokio::{task::JoinSet, time::timeout};

use crate::{CallError, canary, tls::Reason};

/// An address gets this start before the next one is tried too.
const STAGGER: Duration = Duration::from_millis(250);
/// A handshake that is not through by now gets another beside it, whose packets are not yet spaced out
/// by back-off: so a server that returns is noticed soon.
const ROUND: Duration = Duration::from_millis(2500);
/// The end of all attempts together.
const LIMIT: Duration = Duration::from_secs(20);

/// What every attempt needs.
#[derive(Clone)]
pub(crate) struct Plan {
    pub endpoint: Endpoint,
    pub config: ClientConfig,
    /// For TLS's name indication only.
    pub name: String,
    /// Where the judge of certificates leaves its reason.
    pub reason: Reason,
}

/// Connects to the first of these that answers.
pub(crate) async fn dial(plan: Plan, addresses: Vec<SocketAddr>) -> Result<Connection, CallError> {
    match timeout(LIMIT, race(plan, addresses)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CallError::Silent),
    }
}

async fn race(plan: Plan, addresses: Vec<SocketAddr>) -> Result<Connection, CallError> {
    let mut waiting = addresses.into_iter().peekable();
    let mut running = JoinSet::new();
    let mut failure = CallError::Unreachable("it has no address".into());
    loop {
        if let Some(address) = waiting.next() {
            running.spawn(reach(plan.clone(), address));
        }
        let joined = match waiting.peek() {
            Some(_) => timeout(STAGGER, running.join_next()).await,
            None => Ok(running.join_next().await),
        };
        match joined {
            Ok(Some(Ok(Ok(connection)))) => return Ok(connection),
            Ok(Some(Ok(Err(error)))) => failure = graver(failure, error),
            Ok(Some(Err(error))) => failure = graver(failure, CallError::Unreachable(error.to_string())),
            Ok(None) if waiting.peek().is_none() => return Err(failure),
            Ok(None) | Err(_) => {}
        }
    }
}

/// Connects to one address, again and again, unless its host says that nobody listens.
async fn reach(plan: Plan, address: SocketAddr) -> Result<Connection, CallError> {
    let rounds = async {
        let mut running = JoinSet::new();
        loop {
            running.spawn(handshake(plan.clone(), address));
            // Only silence is worth another round.
            match timeout(ROUND, running.join_next()).await {
                Ok(Some(Ok(Err(CallError::Silent)))) | Err(_) => {}
                Ok(Some(Ok(outcome))) => return outcome,
                Ok(Some(Err(error))) => return Err(CallError::Unreachable(error.to_string())),
                Ok(None) => unreachable!("one was just begun"),
            }
        }
    };
    tokio::select! {
        biased;
        outcome = rounds => outcome,
        why = canary::unreachable(address) => Err(CallError::Unreachable(why)),
    }
}

async fn handshake(plan: Plan, address: SocketAddr) -> Result<Connection, CallError> {
    let connecting =
        plan.endpoint.connect_with(plan.config, address, &plan.name).map_err(|error| match error {
            ConnectError::EndpointStopping => our_socket_failed(),
            other => CallError::Unreachable(format!("{address}: {other}")),
        })?;
    connecting.await.map_err(|error| {
        let reason = plan.reason.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        match (error, reason) {
            (ConnectionError::TransportError(_), Some(reason)) => CallError::Untrusted(reason),
            (ConnectionError::TimedOut, _) => CallError::Silent,
            (error, _) => describe(error),
        }
    })
}

/// The failure that another socket cures.
pub(crate) fn our_socket_failed() -> CallError {
    CallError::Unreachable("our socket failed".into())
}

/// A broken connection, as a caller sees it.
pub(crate) fn describe(error: ConnectionError) -> CallError {
    match error {
        ConnectionError::VersionMismatch => CallError::Malformed("it speaks another QUIC".into()),
        ConnectionError::TransportError(error) => CallError::Malformed(error.to_string()),
        // TLS alerts: the server did not like what it was shown.
        ConnectionError::ConnectionClosed(frame) if (0x100..0x200).contains(&u64::from(frame.error_code)) => {
            CallError::Untrusted(format!("the server does not accept our certificate ({frame})"))
        }
        ConnectionError::ApplicationClosed(frame) => {
            CallError::Unreachable(String::from_utf8_lossy(&frame.reason).into_owned())
        }
        // We close what the canary has found dead.
        ConnectionError::LocallyClosed => CallError::Unreachable("nobody listens there any more".into()),
        ConnectionError::Reset => CallError::Unreachable("it has been started again".into()),
        other => CallError::Unreachable(other.to_string()),
    }
}

/// Of two failures, the one that people must hear of.
fn graver(one: CallError, other: CallError) -> CallError {
    let grave = |error: &CallError| match error {
        CallError::Unreachable(_) => 0,
        CallError::Silent => 1,
        CallError::Malformed(_) => 2,
        CallError::Untrusted(_) => 3,
    };
    if grave(&one) > grave(&other) { one } else { other }
}

//! One connection per target, made when first needed, shared by all calls, and watched.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quinn::{ClientConfig, Connection, Endpoint, TokioRuntime, VarInt};
use rustls::pki_types::ServerName;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    CallError, Credentials, Names, Target, Trust, canary,
    certificate::Holder,
    dial::{self, Plan},
    life::Life,
    tls, transport,
};

/// With a call waiting and no sign of life for so long, we ask whether the port is closed.
const WORRY: Duration = Duration::from_millis(300);
/// With nothing but a session, we ask as rarely as this.
const GLANCE: Duration = Duration::from_secs(10);
/// A connection that nobody used for so long is closed.
const UNUSED: Duration = Duration::from_secs(300);
/// The number under which we close connections ourselves.
const DONE: VarInt = VarInt::from_u32(0);

/// All connections of a dialer.
pub(crate) struct Pool {
    endpoint: Mutex<Endpoint>,
    trust: Arc<Trust>,
    credentials: Option<Credentials>,
    names: Arc<dyn Names>,
    slots: Mutex<BTreeMap<Target, Slot>>,
}

enum Slot {
    Dialing(watch::Receiver<Option<Outcome>>),
    Up(Arc<Link>),
}

type Outcome = Result<Arc<Link>, CallError>;

/// A connection and what is going on with it.
pub(crate) struct Link {
    pub connection: Connection,
    /// Any frame of any call.
    pub life: Life,
    calls: AtomicUsize,
    sessions: AtomicUsize,
}

/// What a link is used for, for as long as this lives.
pub(crate) struct Use {
    link: Arc<Link>,
    session: bool,
}

/// Whether a connection was there before the call that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Fresh,
    Used,
}

impl Pool {
    pub fn new(
        trust: Arc<Trust>,
        credentials: Option<Credentials>,
        names: Arc<dyn Names>,
    ) -> io::Result<Arc<Pool>> {
        let endpoint = Mutex::new(endpoint()?);
        Ok(Arc::new(Pool { endpoint, trust, credentials, names, slots: Mutex::default() }))
    }

    /// A connection to the target: the one there is, or a new one. Everybody who asks while it is being
    /// made waits for the same attempt.
    pub async fn link(self: &Arc<Self>, target: &Target) -> Result<(Arc<Link>, Age), CallError> {
        let mut outcome = match self.look(target) {
            Ok(link) => return Ok((link, Age::Used)),
            Err(outcome) => outcome,
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(settled) => settled.clone().expect("waited for").map(|link| (link, Age::Fresh)),
            Err(_) => Err(CallError::Unreachable("the attempt to connect was given up".into())),
        }
    }

    /// The link that is up, or the attempt to make one.
    fn look(self: &Arc<Self>, target: &Target) -> Result<Arc<Link>, watch::Receiver<Option<Outcome>>> {
        let mut slots = self.slots();
        match slots.get(target) {
            Some(Slot::Up(link)) if link.connection.close_reason().is_none() => return Ok(link.clone()),
            Some(Slot::Dialing(outcome)) if outcome.has_changed().is_ok() => return Err(outcome.clone()),
            _ => {}
        }
        let (settle, outcome) = watch::channel(None);
        slots.insert(target.clone(), Slot::Dialing(outcome.clone()));
        let (pool, target) = (self.clone(), target.clone());
        tokio::spawn(async move {
            let made = pool.make(&target).await;
            match &made {
                Ok(link) => drop(pool.slots().insert(target, Slot::Up(link.clone()))),
                Err(_) => drop(pool.slots().remove(&target)),
            }
            settle.send_replace(Some(made));
        });
        Err(outcome)
    }

    async fn make(&self, target: &Target) -> Outcome {
        let addresses =
            self.names.addresses(&target.host, target.port).await.map_err(CallError::Unreachable)?;
        let reason = tls::Reason::default();
        let crypto = tls::client(&target.realm, &self.trust, self.credentials.as_ref(), reason.clone())
            .map_err(|error| CallError::Untrusted(error.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport::tuning(true));
        let name = match ServerName::try_from(target.realm.as_str()) {
            Ok(_) => target.realm.clone(),
            Err(_) => "coda.invalid".to_owned(),
        };
        let plan = Plan { endpoint: self.live_endpoint(), config, name, reason };
        let connection = dial::dial(plan, addresses).await?;
        match self.identify(target, &connection) {
            Ok(()) => Ok(Link::watched(connection)),
            Err(why) => {
                connection.close(DONE, b"not who we want");
                Err(CallError::Untrusted(why))
            }
        }
    }

    /// Compares who has answered with who was wanted, and remembers its authority.
    fn identify(&self, target: &Target, connection: &Connection) -> Result<(), String> {
        let (subject, authority) = tls::answerer(connection).ok_or("it has shown no certificate")?;
        if let Some(wanted) = target.server
            && subject.holder != Holder::Server(wanted)
        {
            return Err(format!("server {wanted} was expected, and {subject} answered"));
        }
        self.trust.remember(&target.realm, &authority)
    }

    /// Moves all connections to a new socket: the host has changed networks.
    pub fn rebind(&self) -> io::Result<()> {
        self.lock_endpoint().rebind(transport::any_socket()?)
    }

    /// Our end, made again if its socket has failed.
    fn live_endpoint(&self) -> Endpoint {
        let mut current = self.lock_endpoint();
        if current.local_addr().is_err()
            && let Ok(new) = endpoint()
        {
            *current = new;
        }
        current.clone()
    }

    fn lock_endpoint(&self) -> MutexGuard<'_, Endpoint> {
        self.endpoint.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Target, Slot>> {
        self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn endpoint() -> io::Result<Endpoint> {
    Endpoint::new(transport::client_end(), None, transport::any_socket()?, Arc::new(TokioRuntime))
}

impl Link {
    fn watched(connection: Connection) -> Arc<Link> {
        let link = Arc::new(Link {
            connection,
            life: Life::new(),
            calls: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
        });
        tokio::spawn(watch(link.clone()));
        link
    }

    /// Notes that a call, or a session, uses the link.
    pub fn used(self: &Arc<Self>, session: bool) -> Use {
        self.count(session).fetch_add(1, Ordering::Relaxed);
        Use { link: self.clone(), session }
    }

    fn count(&self, session: bool) -> &AtomicUsize {
        if session { &self.sessions } else { &self.calls }
    }

    fn in_use(&self, session: bool) -> bool {
        self.count(session).load(Ordering::Relaxed) > 0
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.link.count(self.session).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Closes a connection whose port is closed, or that nobody needs.
async fn watch(link: Arc<Link>) {
    let mut without_route = 0;
    let mut used = Instant::now();
    let mut glanced = Instant::now();
    loop {
        tokio::select! {
            biased;
            _ = link.connection.closed() => return,
            () = sleep(WORRY) => {}
        }
        let (calls, sessions) = (link.in_use(false), link.in_use(true));
        if calls || sessions {
            used = Instant::now();
        } else if used.elapsed() > UNUSED {
            link.connection.close(DONE, b"unused");
            return;
        }
        let worried = calls && link.life.last().elapsed() >= WORRY;
        let due = sessions && glanced.elapsed() >= GLANCE;
        if !worried && !due {
            continue;
        }
        glanced = Instant::now();
        let mut address = link.connection.remote_address();
        address.set_ip(address.ip().to_canonical());
        if let Some(why) = canary::verdict(canary::knock(address).await, &mut without_route) {
            link.connection.close(VarInt::from_u32(3), why.as_bytes());
            return;
        }
    }
}

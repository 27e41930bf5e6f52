//! One connection per target, made when first needed, shared by all calls, and watched.

use std::{
    collections::BTreeMap,
    convert::Infallible,
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
    yielding::Traffic,
};

/// With a call waiting and no sign of life for so long, we ask whether the port is closed.
const WORRY: Duration = Duration::from_millis(300);
/// Without any sign of life for so long, a connection is in doubt. A server that works says so more often.
const SUSPECT: Duration = Duration::from_secs(3);
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

/// What there is for one target. A new connection may be on its way beside one that is in doubt.
#[derive(Default)]
struct Slot {
    up: Option<Arc<Link>>,
    dialing: Option<watch::Receiver<Option<Outcome>>>,
}

type Outcome = Result<Arc<Link>, CallError>;

/// A connection and what is going on with it.
pub(crate) struct Link {
    pub connection: Connection,
    /// Calls that carry much.
    pub traffic: Arc<Traffic>,
    /// Any frame of any call.
    pub life: Life,
    /// Since when nobody believes that it leads anywhere: until the next sign of life.
    doubted: Mutex<Option<Instant>>,
    calls: AtomicUsize,
    sessions: AtomicUsize,
}

/// What a link is used for, for as long as this lives.
pub(crate) struct Use {
    link: Arc<Link>,
    session: bool,
    since: Instant,
}

impl Pool {
    pub fn new(
        trust: Arc<Trust>,
        credentials: Option<Credentials>,
        names: Arc<dyn Names>,
    ) -> io::Result<Arc<Pool>> {
        let endpoint = Mutex::new(new_endpoint()?);
        Ok(Arc::new(Pool { endpoint, trust, credentials, names, slots: Mutex::default() }))
    }

    /// A connection to the target: the one there is, or a new one. Everybody who asks while it is being
    /// made waits for the same attempt.
    pub async fn link(self: &Arc<Self>, target: &Target) -> Outcome {
        let mut outcome = match self.look(target) {
            Ok(link) => return Ok(link),
            Err(outcome) => outcome,
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(settled) => settled.clone().expect("waited for"),
            Err(_) => Err(CallError::Unreachable("the attempt to connect was given up".into())),
        }
    }

    /// For as long as it is polled: when neither the call nor its connection shows life, looks whether a
    /// new connection does. Our address may have changed unnoticed, a relay may lead elsewhere now, or
    /// the server has forgotten us. The new connection replaces the old one, whose calls then fail.
    pub async fn suspect(self: &Arc<Self>, target: &Target, link: &Arc<Link>, life: &Life) -> Infallible {
        loop {
            life.silent_for(SUSPECT).await;
            link.life.silent_for(SUSPECT).await;
            link.doubt();
            let _ = self.link(target).await;
            sleep(SUSPECT).await;
        }
    }

    /// The link that is up, or the attempt to make one.
    fn look(self: &Arc<Self>, target: &Target) -> Result<Arc<Link>, watch::Receiver<Option<Outcome>>> {
        let mut slots = self.slots();
        let slot = slots.entry(target.clone()).or_default();
        match (&slot.up, &slot.dialing) {
            (Some(link), _) if link.usable() => return Ok(link.clone()),
            (_, Some(outcome)) if outcome.has_changed().is_ok() => return Err(outcome.clone()),
            _ => {}
        }
        let (settle, outcome) = watch::channel(None);
        slot.dialing = Some(outcome.clone());
        let (pool, target) = (self.clone(), target.clone());
        tokio::spawn(async move {
            let made = pool.make(&target).await;
            settle.send_replace(Some(pool.settle(target, made)));
        });
        Err(outcome)
    }

    /// Decides between what was made and what was there before.
    fn settle(&self, target: Target, made: Outcome) -> Outcome {
        let mut slots = self.slots();
        let slot = slots.entry(target.clone()).or_default();
        slot.dialing = None;
        match (made, slot.up.take()) {
            // The doubt was wrong: a server that was stopped for a while has answered. Its session lives on.
            (Ok(new), Some(old)) if old.usable() => {
                new.connection.close(DONE, b"the old connection lives");
                slot.up = Some(old.clone());
                Ok(old)
            }
            (Ok(new), old) => {
                if let Some(old) = old {
                    old.connection.close(DONE, b"replaced by a new connection");
                }
                slot.up = Some(new.clone());
                Ok(new)
            }
            (Err(why), Some(old)) if old.connection.close_reason().is_none() => {
                slot.up = Some(old);
                Err(why)
            }
            (Err(why), _) => {
                slots.remove(&target);
                Err(why)
            }
        }
    }

    async fn make(&self, target: &Target) -> Outcome {
        let addresses =
            self.names.addresses(&target.host, target.port).await.map_err(CallError::Unreachable)?;
        let reason = tls::Reason::default();
        let crypto = tls::client(&target.realm, &self.trust, self.credentials.as_ref(), reason.clone())
            .map_err(|error| CallError::Untrusted(error.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        let traffic = Arc::<Traffic>::default();
        config.transport_config(transport::calling(traffic.clone()));
        let name = match ServerName::try_from(target.realm.as_str()) {
            Ok(_) => target.realm.clone(),
            Err(_) => "coda.invalid".to_owned(),
        };
        let endpoint = self.endpoint().clone();
        let plan = Plan { endpoint, config, name, reason };
        let connection = match dial::dial(plan.clone(), addresses.clone()).await {
            Err(error) if error == dial::our_socket_failed() => {
                let endpoint = new_endpoint().map_err(|error| CallError::Unreachable(error.to_string()))?;
                *self.endpoint() = endpoint.clone();
                dial::dial(Plan { endpoint, ..plan }, addresses).await?
            }
            outcome => outcome?,
        };
        match self.identify(target, &connection) {
            Ok(()) => Ok(Link::watched(connection, traffic)),
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
        self.endpoint().rebind(transport::any_socket()?)
    }

    /// Nobody believes any more that what there is leads anywhere.
    pub fn doubt_all(&self) {
        self.slots().values().filter_map(|slot| slot.up.as_ref()).for_each(|link| link.doubt());
    }

    fn endpoint(&self) -> MutexGuard<'_, Endpoint> {
        self.endpoint.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Target, Slot>> {
        self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn new_endpoint() -> io::Result<Endpoint> {
    Endpoint::new(transport::client_end(), None, transport::any_socket()?, Arc::new(TokioRuntime))
}

impl Link {
    fn watched(connection: Connection, traffic: Arc<Traffic>) -> Arc<Link> {
        let link = Arc::new(Link {
            connection,
            traffic,
            life: Life::new(),
            doubted: Mutex::new(None),
            calls: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
        });
        tokio::spawn(watch(link.clone()));
        link
    }

    /// Notes that a call, or a session, uses the link.
    pub fn used(self: &Arc<Self>, session: bool) -> Use {
        self.count(session).fetch_add(1, Ordering::Relaxed);
        Use { link: self.clone(), session, since: Instant::now() }
    }

    /// Whether a new call should use it.
    fn usable(&self) -> bool {
        let doubted = *self.doubted.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.connection.close_reason().is_none() && doubted.is_none_or(|since| self.life.last() > since)
    }

    fn doubt(&self) {
        *self.doubted.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Instant::now());
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
        // A call that was given up, and nothing came on any other: the next one tries a new connection.
        let silent = self.since.elapsed().min(self.link.life.last().elapsed());
        if !self.session && silent >= SUSPECT {
            self.link.doubt();
        }
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

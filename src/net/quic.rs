//! The core's door to the world, over QUIC.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use coda_net::{Dialer, Target, Trust};
use coda_proto::wire;
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use super::{
    changes::Changes,
    dns::{Dns, NameServers},
    locate::Atlas,
    realms::Realms,
};
use crate::env::{Answer, BoxFuture, CallError, Endpoint, Env, Priority, Session, SessionStream};

/// Where this machine keeps what the network code reads.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// The realms file.
    pub realms: PathBuf,
    /// Fingerprints of authorities that were believed on first use: `known_realms` in the cache directory.
    pub known_realms: PathBuf,
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// Who is asked about names.
    pub name_servers: NameServers,
}

impl NetConfig {
    /// What a machine has at the usual places.
    pub fn system(realms: impl Into<PathBuf>, known_realms: impl Into<PathBuf>) -> NetConfig {
        NetConfig {
            realms: realms.into(),
            known_realms: known_realms.into(),
            hosts: "/etc/hosts".into(),
            name_servers: NameServers::File("/etc/resolv.conf".into()),
        }
    }
}

/// The network, clock and chance of a real machine.
pub struct NetEnv {
    dialer: Dialer,
    trust: Arc<Trust>,
    atlas: Atlas,
    runtime: Handle,
    changes: watch::Receiver<u64>,
    watcher: JoinHandle<()>,
}

impl NetEnv {
    /// Opens a socket and sends nothing. Needs a tokio runtime around it, in which its tasks will run.
    pub fn new(config: NetConfig) -> io::Result<NetEnv> {
        let atlas = Atlas {
            realms: config.realms,
            hosts: config.hosts,
            dns: Arc::new(Dns::new(config.name_servers)),
        };
        let trust = Arc::new(Trust::on_first_use(config.known_realms));
        let dialer = Dialer::with_names(trust.clone(), None, Arc::new(atlas.clone()))?;
        let (tell, changes) = watch::channel(0);
        let watcher = tokio::spawn(follow_changes(dialer.clone(), tell));
        let env = NetEnv { dialer, trust, atlas, runtime: Handle::current(), changes, watcher };
        for wrong in env.pin() {
            tracing::warn!("{wrong}");
        }
        Ok(env)
    }

    /// Where things are, for tools.
    pub fn atlas(&self) -> &Atlas {
        &self.atlas
    }

    /// Counts the changes of this machine's network: a good moment to look for servers that were away.
    /// Connections follow by themselves.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Believes the authorities that the realms file names now. Answers what is wrong with it.
    fn pin(&self) -> Vec<String> {
        match Realms::read(&self.atlas.realms) {
            Ok(realms) => {
                self.trust.pin_only(realms.pins());
                realms.wrong.iter().map(ToString::to_string).collect()
            }
            // What was pinned before stays pinned.
            Err(why) => vec![why],
        }
    }
}

impl Drop for NetEnv {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// Moves connections to a new socket whenever the network changes, and counts the changes.
async fn follow_changes(dialer: Dialer, tell: watch::Sender<u64>) {
    let changes = match Changes::listen() {
        Ok(changes) => changes,
        Err(error) => return tracing::warn!(%error, "changes of the network will not be noticed at once"),
    };
    while changes.next().await.is_ok() {
        if let Err(error) = dialer.network_changed() {
            tracing::debug!(%error, "no new socket");
        }
        tell.send_modify(|count| *count += 1);
    }
}

impl Env for NetEnv {
    fn call(
        &self,
        to: &Endpoint,
        request: wire::Request,
        bulk: Bytes,
        priority: Priority,
        silence: Duration,
    ) -> BoxFuture<'static, Result<Answer, CallError>> {
        let call = self.dialer.call(&target(to), request, bulk, urgency(priority), silence);
        Box::pin(async move {
            let (response, bulk) = call.await.map_err(call_error)?;
            Ok(Answer { response, bulk })
        })
    }

    fn session(
        &self,
        to: &Endpoint,
        hello: wire::Hello,
        silence: Duration,
    ) -> BoxFuture<'static, Result<Session, CallError>> {
        let session = self.dialer.session(&target(to), hello, silence);
        Box::pin(async move {
            let (welcome, stream) = session.await.map_err(call_error)?;
            Ok((welcome, Box::new(Stream(stream)) as Box<dyn SessionStream>))
        })
    }

    fn locate(&self, realm: &str) -> BoxFuture<'static, Result<Vec<Endpoint>, String>> {
        self.pin();
        let (atlas, realm) = (self.atlas.clone(), realm.to_owned());
        Box::pin(async move { atlas.locate(&realm).await })
    }

    #[allow(clippy::disallowed_methods)] // This is where the clock comes in.
    fn now(&self) -> i64 {
        let nanoseconds = |since: Duration| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => nanoseconds(since),
            Err(before) => -nanoseconds(before.duration()),
        }
    }

    fn random(&self) -> u64 {
        getrandom::u64().expect("a kernel that runs us has random bits")
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }
}

struct Stream(coda_net::SessionStream);

impl SessionStream for Stream {
    fn next(&mut self) -> BoxFuture<'_, Result<wire::Event, CallError>> {
        Box::pin(async { self.0.next().await.map_err(call_error) })
    }
    fn say(&mut self, word: wire::ClientWord) -> BoxFuture<'_, Result<(), CallError>> {
        Box::pin(async move { self.0.say(word).await.map_err(call_error) })
    }
}

fn target(to: &Endpoint) -> Target {
    Target { realm: to.realm.clone(), host: to.host.clone(), port: to.port, server: None }
}

fn urgency(priority: Priority) -> coda_net::Priority {
    match priority {
        Priority::Background => coda_net::Priority::Background,
        Priority::Foreground => coda_net::Priority::Foreground,
    }
}

fn call_error(error: coda_net::CallError) -> CallError {
    match error {
        coda_net::CallError::Unreachable(why) => CallError::Unreachable(why),
        coda_net::CallError::Silent => CallError::Silent,
        coda_net::CallError::Untrusted(why) => CallError::Untrusted(why),
        coda_net::CallError::Malformed(why) => CallError::Malformed(why),
    }
}

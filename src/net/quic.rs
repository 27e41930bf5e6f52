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
        let call = self.dialer.call(&target(to), request, bulk, priority, silence);
        Box::pin(async move {
            let (response, bulk) = call.await?;
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
            let (welcome, stream) = session.await?;
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

    fn asleep(&self) -> Duration {
        // The one clock goes on while the machine sleeps, the other does not.
        clock(libc::CLOCK_BOOTTIME).saturating_sub(clock(libc::CLOCK_MONOTONIC))
    }

    fn woke(&self) {
        if let Err(error) = self.dialer.woke() {
            tracing::debug!(%error, "no new socket");
        }
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }
}

fn clock(which: libc::clockid_t) -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes into a structure that lives for the call.
    match unsafe { libc::clock_gettime(which, &raw mut now) } {
        0 => Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32),
        _ => Duration::ZERO,
    }
}

struct Stream(coda_net::SessionStream);

impl SessionStream for Stream {
    fn next(&mut self) -> BoxFuture<'_, Result<wire::Event, CallError>> {
        Box::pin(self.0.next())
    }
    fn say(&mut self, word: wire::ClientWord) -> BoxFuture<'_, Result<(), CallError>> {
        Box::pin(self.0.say(word))
    }
}

fn target(to: &Endpoint) -> Target {
    Target { realm: to.realm.clone(), host: to.host.clone(), port: to.port, server: None }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, path::Path};

    use coda_net::{Authority, Listener};
    use coda_proto::{
        ServerId,
        service::{BoxFuture as Boxed, EventSource, Identity, Service},
        wire::{request, response},
    };

    use super::*;

    /// Knows the name of its root volume, and tells each session one event.
    struct Named(&'static str);

    struct Once(Option<wire::Event>);
    impl EventSource for Once {
        fn next(&mut self) -> Boxed<'_, Option<wire::Event>> {
            let event = self.0.take();
            Box::pin(async move {
                match event {
                    Some(event) => Some(event),
                    None => std::future::pending().await,
                }
            })
        }
    }

    impl Service for Named {
        fn call(&self, _: Identity, _: wire::Request, _: Bytes) -> Boxed<'static, (wire::Response, Bytes)> {
            let body = response::Body::RootVolume(wire::RootVolume { name: self.0.into() });
            Box::pin(async { (wire::Response { bulk: 0, body: Some(body) }, Bytes::new()) })
        }
        fn hello(&self, _: Identity, _: wire::Hello) -> (wire::Welcome, Option<Box<dyn EventSource>>) {
            let event = wire::Event { seq: 1, ..Default::default() };
            (wire::Welcome { session: 5, ..Default::default() }, Some(Box::new(Once(Some(event)))))
        }
        fn said(&self, _: u64, _: wire::ClientWord) {}
        fn lost(&self, _: u64) {}
    }

    #[allow(clippy::disallowed_methods)] // Servers compare certificates with their clock.
    fn realm(name: &'static str, directory: &Path) -> (Listener, SocketAddr) {
        let now = std::time::SystemTime::now();
        let authority = Authority::create(name, now).unwrap();
        let own = directory.join(name);
        std::fs::create_dir(&own).unwrap();
        authority.save(&own).unwrap();
        let credentials = authority.issue_server(ServerId(1), now).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(any, &credentials, Arc::new(Named(name))).unwrap();
        let address = listener.local_addr();
        (listener, address)
    }

    fn env(directory: &Path, realms: &str) -> NetEnv {
        std::fs::write(directory.join("realms"), realms).unwrap();
        let mut config = NetConfig::system(directory.join("realms"), directory.join("known_realms"));
        config.name_servers = NameServers::Given(Vec::new());
        NetEnv::new(config).unwrap()
    }

    async fn root_volume(env: &NetEnv, realm: &str) -> Result<String, CallError> {
        let to = env.locate(realm).await.unwrap().remove(0);
        let body = Some(request::Body::GetRootVolume(wire::GetRootVolume {}));
        let request = wire::Request { body, ..Default::default() };
        let silence = Duration::from_secs(15);
        let answer = env.call(&to, request, Bytes::new(), Priority::Foreground, silence).await?;
        match answer.response.body {
            Some(response::Body::RootVolume(root)) => Ok(root.name),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn two_realms_are_located_and_asked_and_one_cannot_pass_for_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let ((_one, at), (_two, other)) = (realm("one", path), realm("two", path));
        let env = env(path, &format!("one {at} ca=one/ca.pem\ntwo {other}\nfake {at}\n"));
        assert_eq!(root_volume(&env, "one").await.unwrap(), "one");
        assert_eq!(root_volume(&env, "two").await.unwrap(), "two");
        let error = root_volume(&env, "fake").await.unwrap_err();
        assert!(matches!(&error, CallError::Untrusted(why) if why.contains("server 1 of one")), "{error:?}");
        // Only the realm without a file was believed on first use.
        let known = std::fs::read_to_string(path.join("known_realms")).unwrap();
        assert!(known.starts_with("two SHA256:") && known.lines().count() == 1, "{known}");
    }

    #[tokio::test]
    async fn an_authority_that_cannot_be_read_is_not_replaced_by_the_first_comer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let (_one, at) = realm("one", path);
        let env = env(path, &format!("one {at} ca=missing.pem"));
        let error = root_volume(&env, "one").await.unwrap_err();
        assert!(matches!(&error, CallError::Untrusted(why) if why.contains("missing.pem")), "{error:?}");
        // The file is read again: a correction needs no restart.
        std::fs::write(path.join("realms"), format!("one {at} ca=one/ca.pem")).unwrap();
        assert_eq!(root_volume(&env, "one").await.unwrap(), "one");
    }

    #[tokio::test]
    async fn a_session_is_opened_through_the_door() {
        let directory = tempfile::tempdir().unwrap();
        let (_one, at) = realm("one", directory.path());
        let env = env(directory.path(), &format!("one {at}"));
        let to = env.locate("one").await.unwrap().remove(0);
        let session = env.session(&to, wire::Hello::default(), Duration::from_secs(15)).await;
        let (welcome, mut stream) = session.unwrap();
        assert_eq!(welcome.session, 5);
        assert_eq!(stream.next().await.unwrap().seq, 1);
        stream.say(wire::ClientWord { ack: 1, ping: false }).await.unwrap();
    }

    #[tokio::test]
    async fn without_a_network_a_realm_that_nobody_knows_is_an_error_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let env = env(directory.path(), "");
        let error = env.locate("coda.example").await.unwrap_err();
        assert!(error.contains("no name server is configured"), "{error}");
    }

    #[tokio::test]
    async fn clock_and_chance_are_real() {
        let directory = tempfile::tempdir().unwrap();
        let env = env(directory.path(), "");
        assert!(env.now() > 1_700_000_000_000_000_000);
        assert_ne!(env.random(), env.random());
        // Between the two looks that it takes nothing sleeps.
        let (before, after) = (env.asleep(), env.asleep());
        assert!(before.abs_diff(after) < Duration::from_millis(100), "{before:?} {after:?}");
    }
}

//! Questions to one, any or all members of a group.
//!
//! Reads go to one member and, when it is slow, to another too. Mutations go to every member that is not
//! dead and wait for each: what a dead one missed is resolution's work.

use std::sync::Arc;

use bytes::Bytes;
use coda_proto::{Code, Dot, Refusal, ServerId, wire};
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::{
    AskError, Peers,
    latency::GRACE_LIMIT,
    liveness::Fact,
    peers::WANTED_EVERY,
    race::{Attempt, Running, for_a_while, race},
    server::Server,
};
use crate::{
    env::{Answer, BoxFuture, Priority},
    volume::{Group, Member},
};

/// What a question is.
pub type Body = wire::request::Body;
/// One member's answer.
pub type Told = (ServerId, Result<Answer, AskError>);

/// What most members answered.
#[derive(Debug, Default)]
pub struct Gathered {
    /// By server.
    pub told: Vec<Told>,
    /// Live members that were late.
    pub missing: Vec<ServerId>,
}

/// Answers that may take long for their length.
const LONG: u32 = 64 * 1024;
/// Half seconds that a long answer may take before another member is asked too, at the least.
const LONG_GRACES: u32 = 10;

impl Peers {
    /// Asks one server. Hello is said where needed, and again when the server does not know us any more;
    /// the caller sees none of it.
    pub async fn ask_one(
        &self,
        realm: &str,
        server: ServerId,
        body: Body,
        bulk: Bytes,
        priority: Priority,
    ) -> Result<Answer, AskError> {
        let Some(server) = self.find_server(realm, server) else {
            return Err(AskError::Unreachable(format!("server {server} of {realm} is not known")));
        };
        self.ask_server(&server, body, bulk, priority).await
    }

    /// Asks whichever live member answers first: the best alone for a grace of at most a second, then the
    /// next one too. What the slower ones answer is dropped.
    pub async fn ask_any(
        &self,
        realm: &str,
        group: &Group,
        body: Body,
        bulk: Bytes,
        priority: Priority,
    ) -> Result<(ServerId, Answer), AskError> {
        let mut servers = self.callable(realm, group.readable());
        servers.sort_by_key(|server| server.rank());
        let Some(me) = self.me.upgrade() else { return Err(AskError::Disconnected) };
        let long = is_long(&body);
        let attempts = (servers.into_iter())
            .map(|server| {
                let (me, body, bulk, slow) = (me.clone(), body.clone(), bulk.clone(), server.clone());
                Attempt {
                    patience: match long {
                        true => Box::pin(me.clone().while_alive(server.clone())),
                        false => for_a_while(server.grace()),
                    },
                    run: Box::pin(async move {
                        match me.ask_server(&server, body, bulk, priority).await {
                            Err(error) if error.try_another() => Err(error),
                            outcome => Ok((server.id, outcome)),
                        }
                    }),
                    overdue: Box::new(move || slow.suspect()),
                }
            })
            .collect();
        match race(attempts).await {
            Ok(((server, outcome), running)) => {
                self.see_out(running);
                outcome.map(|answer| (server, answer))
            }
            Err(failures) => Err(AskError::most_telling(failures)),
        }
    }

    /// Asks every member that is not dead, in parallel, and waits until each answered or died. In slot
    /// order. Mutations that every member of the group has taken are told to them later (COP2).
    pub async fn ask_all(&self, realm: &str, group: &Group, body: Body, bulk: Bytes) -> Vec<Told> {
        let servers = self.callable(realm, group.writable().collect());
        let told = self.ask_each(servers, &body, &bulk).await;
        self.note_taken(realm, group, &body, &told);
        told
    }

    /// Asks every live member that may be asked for contents, because each knows only its own version.
    /// Once one has answered well, the others are waited for no longer than their grace; whoever is late
    /// for the second time, not at all, until it is found to be alive or dead.
    pub async fn ask_most(&self, realm: &str, group: &Group, body: Body, priority: Priority) -> Gathered {
        let servers = self.callable(realm, group.readable());
        let Some(me) = self.me.upgrade() else { return Gathered::default() };
        let began = Instant::now();
        let mut running: FuturesUnordered<BoxFuture<'static, Told>> = (servers.iter().cloned())
            .map(|server| {
                let (me, body) = (me.clone(), body.clone());
                let ask =
                    async move { (server.id, me.ask_server(&server, body, Bytes::new(), priority).await) };
                Box::pin(ask) as BoxFuture<'static, Told>
            })
            .collect();
        let mut told: Vec<Told> = Vec::new();
        loop {
            let late: Vec<_> = servers.iter().filter(|s| told.iter().all(|(id, _)| *id != s.id)).collect();
            let patience = late.iter().filter(|server| !server.rank().0).map(|server| server.grace()).max();
            let enough = told.iter().any(|(_, answer)| answer.is_ok());
            tokio::select! {
                biased;
                next = running.next() => match next {
                    Some(answer) => told.push(answer),
                    None => break,
                },
                () = sleep_until(began + patience.unwrap_or_default()), if enough => {
                    late.iter().for_each(|server| server.suspect());
                    break;
                }
            }
        }
        let missing = servers.iter().map(|server| server.id).filter(|id| told.iter().all(|(t, _)| t != id));
        let missing = missing.collect();
        if !running.is_empty() {
            self.env.spawn(Box::pin(async move { while running.next().await.is_some() {} }));
        }
        told.sort_by_key(|(server, _)| *server);
        Gathered { told, missing }
    }

    /// A mutation that must not happen at one member when another has reason to refuse it: the live member
    /// with the lowest slot decides, and the others follow its yes. One silence limit is all the time there
    /// is, however many of them are silent.
    pub async fn ask_first_then_all(&self, realm: &str, group: &Group, body: Body, bulk: Bytes) -> Vec<Told> {
        let deadline = Instant::now() + self.config.rpc_timeout;
        let mut told = Vec::new();
        let mut rest = self.callable(realm, group.writable().collect()).into_iter();
        while let Some(first) = rest.next() {
            // Those behind it need some time, too.
            let until = deadline - GRACE_LIMIT.min(self.config.rpc_timeout / 8) * rest.len() as u32;
            // Whoever has stopped too is found out meanwhile, not one after the other.
            let overdue = || rest.as_slice().iter().for_each(|server| self.probe_aside(server));
            let answer = self.ask_until(&first, &body, &bulk, until, overdue).await;
            let decided = matches!(answer, Ok(_) | Err(AskError::Refused(_)));
            let refused = answer.is_err();
            told.push((first.id, answer));
            if decided && refused {
                return told;
            }
            if decided {
                break;
            }
        }
        let ask = |server: Arc<Server>| {
            let (body, bulk) = (&body, &bulk);
            async move { (server.id, self.ask_until(&server, body, bulk, deadline, || {}).await) }
        };
        told.extend(join_all(rest.map(ask)).await);
        self.note_taken(realm, group, &body, &told);
        told
    }

    /// Asks a server that has until then to answer. `overdue` is called when it lets others wait for long.
    async fn ask_until(
        &self,
        server: &Arc<Server>,
        body: &Body,
        bulk: &Bytes,
        until: Instant,
        overdue: impl FnOnce(),
    ) -> Result<Answer, AskError> {
        let Some(me) = self.me.upgrade() else { return Err(AskError::Disconnected) };
        let (asked, body, bulk) = (server.clone(), body.clone(), bulk.clone());
        let ask = async move { me.ask_server(&asked, body, bulk, Priority::Foreground).await };
        let mut ask: BoxFuture<'static, _> = Box::pin(ask);
        if let Ok(answer) = timeout(server.grace(), &mut ask).await {
            return answer;
        }
        overdue();
        match timeout_at(until, &mut ask).await {
            Ok(answer) => answer,
            Err(_) => {
                // How it ends tells all the same whether its server lives.
                self.env.spawn(Box::pin(async move { drop(ask.await) }));
                Err(AskError::Unreachable("silent for as long as anybody waits".into()))
            }
        }
    }

    /// How long the slowest of the members that are not dead takes to answer, as far as is known.
    pub fn round_trip(&self, realm: &str, group: &Group) -> Option<std::time::Duration> {
        let servers = self.callable(realm, group.members.iter().collect());
        servers.iter().filter_map(|server| server.signs().0).max()
    }

    /// Members that a mutation may go to, and how long each takes to answer, as far as is known.
    pub fn answer_times(&self, realm: &str, group: &Group) -> Vec<(ServerId, Option<std::time::Duration>)> {
        let servers = self.callable(realm, group.writable().collect());
        servers.iter().map(|server| (server.id, server.signs().0)).collect()
    }

    /// Members that are not dead, in slot order.
    pub fn live(&self, realm: &str, group: &Group) -> Vec<ServerId> {
        self.callable(realm, group.members.iter().collect()).iter().map(|server| server.id).collect()
    }

    /// Every member of the group holds these dots; they are told so with the next call, or in 10 s.
    pub fn everywhere(&self, realm: &str, group: &Group, dots: &[Dot]) {
        for member in &group.members {
            let Some(server) = self.find_server(realm, member.server) else { continue };
            if server.queue_cop2(group.id, group.epoch, dots) {
                let (me, server) = (self.me.clone(), server.clone());
                self.env.spawn(Box::pin(async move {
                    loop {
                        tokio::time::sleep(super::cop2::PATIENCE).await;
                        let Some(me) = me.upgrade() else { return };
                        me.send_cop2(&server).await;
                        if server.cop2_is_done() {
                            return;
                        }
                    }
                }));
            }
        }
    }

    /// Sends what is queued for a server now.
    pub(super) async fn send_cop2(&self, server: &Arc<Server>) {
        while !server.cop2_is_empty() && server.liveness().callable() {
            let body = Body::Cop2Only(wire::Cop2Only {});
            if self.ask_server(server, body, Bytes::new(), Priority::Background).await.is_err() {
                return;
            }
        }
    }

    fn note_taken(&self, realm: &str, group: &Group, body: &Body, told: &[Told]) {
        let Body::Apply(apply) = body else { return };
        let applied = |answer: &Result<Answer, AskError>| {
            matches!(answer, Ok(Answer { response, .. })
                if matches!(response.body, Some(wire::response::Body::Applied(_))))
        };
        if told.len() == group.members.len() && told.iter().all(|(_, answer)| applied(answer)) {
            let dots = apply.records.iter().filter_map(|record| Dot::try_from(record.dot?).ok());
            self.everywhere(realm, group, &dots.collect::<Vec<_>>());
        }
    }

    async fn ask_each(&self, servers: Vec<Arc<Server>>, body: &Body, bulk: &Bytes) -> Vec<Told> {
        let ask = |server: Arc<Server>| async move {
            let answer = self.ask_server(&server, body.clone(), bulk.clone(), Priority::Foreground).await;
            (server.id, answer)
        };
        join_all(servers.into_iter().map(ask)).await
    }

    /// Those of the members that may be called. The dead among them are wanted: worth a probe.
    fn callable(&self, realm: &str, members: Vec<&Member>) -> Vec<Arc<Server>> {
        let Some(realm) = self.find_realm(realm) else { return Vec::new() };
        let mut servers: Vec<_> = members.iter().filter_map(|member| realm.server(member.server)).collect();
        servers.iter().for_each(|server| server.wanted(Instant::now(), WANTED_EVERY));
        servers.retain(|server| server.liveness().callable());
        servers
    }

    pub(super) async fn ask_server(
        &self,
        server: &Arc<Server>,
        body: Body,
        bulk: Bytes,
        priority: Priority,
    ) -> Result<Answer, AskError> {
        let mut again = true;
        loop {
            let session = if needs_session(&body) { self.session(server).await? } else { 0 };
            let request = wire::Request {
                session,
                bulk: bulk.len() as u32,
                cop2: server.take_cop2(),
                body: Some(body.clone()),
            };
            let answer = self.call(server, request, bulk.clone(), priority).await?;
            let refusal = match answer.response.body {
                Some(wire::response::Body::Refusal(refusal)) => refusal,
                Some(_) => return Ok(answer),
                None => return Err(AskError::Malformed("an empty answer".into())),
            };
            if refusal.code() == Code::UnknownSession {
                self.lose_session(server, session);
                if std::mem::take(&mut again) {
                    continue;
                }
            }
            self.heed_refusal(server, &body, &refusal);
            return Err(refused(refusal));
        }
    }

    /// Patience with a server that may be busy sending what was asked for: as long as it answers probes.
    /// One whose disk hangs answers them too, so patience ends some time.
    async fn while_alive(self: Arc<Self>, server: Arc<Server>) {
        let half = GRACE_LIMIT / 2;
        for _ in 0..LONG_GRACES {
            sleep(half).await;
            let probe = self.probe_endpoints(&server, half);
            if !matches!(timeout(half, probe).await, Ok(Fact::Answered)) {
                return;
            }
        }
    }

    /// Finds out in the background whether a server lives.
    fn probe_aside(&self, server: &Arc<Server>) {
        let (Some(me), server) = (self.me.upgrade(), server.clone()) else { return };
        self.env.spawn(Box::pin(async move {
            let request = wire::Request { body: Some(Body::Probe(wire::Probe {})), ..Default::default() };
            // The call takes care of what its end says.
            let _ = me.call(&server, request, Bytes::new(), Priority::Foreground).await;
        }));
    }

    /// Learns from a refusal that what we believe of the volume is out of date.
    fn heed_refusal(&self, server: &Server, body: &Body, refusal: &wire::Refusal) {
        match (refusal.code(), &refusal.info) {
            (Code::StaleEpoch, Some(info)) => self.group_told(&server.realm, info.clone()),
            (Code::StaleEpoch | Code::NoVolume, _) => {
                if let Some(volume) = volume_of(body) {
                    self.forget_volume(&server.realm, coda_proto::VolumeId(volume));
                }
            }
            _ => {}
        }
    }

    /// Lets calls go on that nobody waits for: how they end tells whether their servers live.
    pub(super) fn see_out<T: Send + 'static, E: Send + 'static>(&self, mut running: Running<T, E>) {
        if !running.is_empty() {
            self.env.spawn(Box::pin(async move { while running.next().await.is_some() {} }));
        }
    }
}

/// A refusal as an error; one that makes no sense is malformed.
pub(super) fn refused(refusal: wire::Refusal) -> AskError {
    match Refusal::try_from(refusal) {
        Ok(refusal) => AskError::Refused(refusal),
        Err(malformed) => AskError::Malformed(malformed.to_string()),
    }
}

fn needs_session(body: &Body) -> bool {
    !matches!(body, Body::GetRealm(_) | Body::GetRootVolume(_) | Body::GetVolume(_) | Body::Probe(_))
}

fn is_long(body: &Body) -> bool {
    match body {
        Body::Fetch(fetch) => fetch.length > LONG,
        Body::FetchMany(many) => many.at_most > LONG,
        _ => false,
    }
}

/// The volume that a question is about.
fn volume_of(body: &Body) -> Option<u32> {
    match body {
        Body::Fetch(wire::Fetch { fid, .. })
        | Body::ReadDir(wire::ReadDir { fid, .. })
        | Body::GetAcl(wire::GetAcl { fid })
        | Body::Resolve(wire::Resolve { fid }) => fid.map(|fid| fid.volume),
        Body::FetchMany(wire::FetchMany { volume, .. })
        | Body::GetAttr(wire::GetAttr { volume, .. })
        | Body::ValidateObjects(wire::ValidateObjects { volume, .. })
        | Body::GetVolumeStatus(wire::GetVolumeStatus { volume })
        | Body::Upload(wire::Upload { volume, .. })
        | Body::Apply(wire::Apply { volume, .. }) => Some(*volume),
        _ => None,
    }
}

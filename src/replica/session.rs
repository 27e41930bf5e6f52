//! The session with one server: said Hello to on first use, listened to for events, resumed when its
//! stream breaks, and void when nothing was heard on it for 30 s.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use coda_proto::{Fid, wire};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    AskError, PeerEvent,
    error::fact,
    latency::GRACE_LIMIT,
    liveness::Fact,
    peers::Peers,
    race::{Attempt, for_a_while, race},
    server::{Server, SessionState},
};
use crate::{
    callback::{Ack, Numbering, numbering},
    env::{CallError, Session, SessionStream},
};

/// Something is said on an idle session this often, so that the server has something to answer.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Promises of a server not heard from for so long are void.
const VOID_AFTER: Duration = Duration::from_secs(30);
/// A stream that ends sooner than this after Hello makes the next Hello wait.
const SHORT_LIVED: Duration = Duration::from_secs(5);

/// How listening ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The session was ended by somebody else.
    Superseded,
    /// The stream broke: the session may be resumed.
    Broke,
    /// Its promises cannot be trusted any more: begin anew.
    Void,
}

/// What a session is resumed with. Session 0: begin a new one.
#[derive(Clone, Copy, Debug, Default)]
struct Resume {
    session: u64,
    last_seq: u64,
}

impl Peers {
    /// The number of the session with this server, which is opened where needed.
    pub(super) async fn session(&self, server: &Arc<Server>) -> Result<u64, AskError> {
        if !server.liveness().callable() {
            return Err(AskError::Unreachable(format!("server {} is {:?}", server.id, server.liveness())));
        }
        let mut state = server.session.subscribe();
        let mut mine = None;
        server.session.send_if_modified(|state| {
            if matches!(state, SessionState::Absent | SessionState::Failed(..)) {
                let opening = server.next_opening();
                mine = Some(opening);
                *state = SessionState::Opening(opening);
            }
            mine.is_some()
        });
        if let Some(opening) = mine {
            self.env.spawn(Box::pin(keep(self.me.clone(), server.clone(), opening)));
        }
        let settled = |state: &SessionState| !matches!(state, SessionState::Opening(_));
        let settled = state.wait_for(settled).await;
        match settled {
            Ok(SessionState::Open(_, session)) => Ok(session),
            Ok(SessionState::Failed(_, error)) => Err(error),
            _ => Err(AskError::Unreachable(format!("server {} went away", server.id))),
        }
    }

    /// Says Hello at whatever endpoint answers first.
    async fn hello(&self, server: &Arc<Server>, resume: Resume) -> Result<Session, CallError> {
        let hello = wire::Hello {
            protocol: coda_proto::PROTOCOL,
            features: 0,
            instance: self.config.instance.to_vec().into(),
            host: self.config.host.clone(),
            resume: resume.session,
            last_seq: resume.last_seq,
            version: self.config.version.clone(),
        };
        let silence = self.config.rpc_timeout;
        let attempts = (server.endpoints().into_iter())
            .map(|to| {
                let (env, server, hello) = (self.env.clone(), server.clone(), hello.clone());
                Attempt {
                    patience: for_a_while(GRACE_LIMIT),
                    run: Box::pin(async move {
                        let session = env.session(&to, hello, silence).await?;
                        let who = session.0.server;
                        if session.0.refusal.is_none() && who != u32::from(server.id.0) {
                            let why = format!("server {who} answers in place of {}", server.id);
                            return Err(CallError::Unreachable(why));
                        }
                        server.prefer(&to);
                        Ok(session)
                    }),
                    overdue: Box::new(|| {}),
                }
            })
            .collect();
        match race(attempts).await {
            Ok((session, _)) => Ok(session),
            Err(mut errors) => {
                Err(errors.pop().unwrap_or(CallError::Unreachable("no endpoint known".into())))
            }
        }
    }
}

/// Opens a session and keeps it until it is superseded or its server dies.
async fn keep(peers: Weak<Peers>, server: Arc<Server>, opening: u64) {
    let mut resume = Resume::default();
    let mut pause = Duration::ZERO;
    loop {
        let Some(strong) = peers.upgrade() else { return };
        let opened = tokio::select! {
            biased;
            opened = strong.hello(&server, resume) => opened,
            () = superseded(&server, opening) => return,
        };
        let Some(stream) = take_up(&strong, &server, opening, &mut resume, opened) else { return };
        drop(strong);
        let began = Instant::now();
        match listen(&peers, &server, opening, stream, &mut resume).await {
            End::Superseded => return,
            End::Broke => {}
            End::Void => {
                let Some(strong) = peers.upgrade() else { return };
                resume = Resume::default();
                // The server may remember the session and promise something in it until our next Hello
                // makes it forget. So nobody may use it once its loss is told.
                if !publish(&server, opening, SessionState::Opening(opening)) {
                    return;
                }
                strong.tell(PeerEvent::Lost { realm: server.realm.to_string(), server: server.id });
            }
        }
        // Who accepts every Hello and then hangs up must not keep us busy.
        pause = match began.elapsed() < SHORT_LIVED {
            true if pause.is_zero() => Duration::from_millis(10),
            true => (pause * 4).min(Duration::from_secs(30)),
            false => Duration::ZERO,
        };
        tokio::select! {
            biased;
            () = superseded(&server, opening) => return,
            () = sleep(pause) => {}
        }
    }
}

/// Acts on what Hello brought: the stream to listen to, if there is one.
fn take_up(
    peers: &Arc<Peers>,
    server: &Arc<Server>,
    opening: u64,
    resume: &mut Resume,
    opened: Result<Session, CallError>,
) -> Option<Box<dyn SessionStream>> {
    let failed = |error: AskError| {
        if publish(server, opening, SessionState::Failed(opening, error)) && resume.session != 0 {
            peers.tell(PeerEvent::Lost { realm: server.realm.to_string(), server: server.id });
        }
        None
    };
    let (welcome, stream) = match opened {
        Ok(session) => session,
        Err(error) => {
            let outcome = fact(&Err::<(), _>(error.clone()));
            if outcome == Fact::Answered {
                return failed(error.into());
            }
            // Waiting callers are told why before the death of the server ends their wait.
            publish(server, opening, SessionState::Failed(opening, error.into()));
            peers.learnt(server, outcome);
            return None;
        }
    };
    peers.learnt(server, Fact::Answered);
    if let Some(refusal) = welcome.refusal {
        return failed(match refusal.try_into() {
            Ok(refusal) => AskError::Refused(refusal),
            Err(malformed) => AskError::Malformed(malformed.to_string()),
        });
    }
    if welcome.session == 0 {
        return failed(AskError::Malformed("a session without a number".into()));
    }
    let resumed = welcome.resumed && welcome.session == resume.session;
    if !resumed {
        if resume.session != 0 {
            peers.tell(PeerEvent::Lost { realm: server.realm.to_string(), server: server.id });
        }
        *resume = Resume { session: welcome.session, last_seq: 0 };
    }
    peers.config_is(&server.realm, welcome.config);
    publish(server, opening, SessionState::Open(opening, welcome.session)).then_some(stream)
}

/// Sets the session's state, if the session is still ours.
fn publish(server: &Server, opening: u64, next: SessionState) -> bool {
    let mut ours = false;
    server.session.send_if_modified(|state| {
        ours = state.opening() == Some(opening);
        if ours {
            *state = next;
        }
        ours
    });
    ours
}

async fn superseded(server: &Server, opening: u64) {
    let mut state = server.session.subscribe();
    // The sender lives in the server, which the caller holds.
    let _ = state.wait_for(|state| state.opening() != Some(opening)).await;
}

async fn listen(
    peers: &Weak<Peers>,
    server: &Arc<Server>,
    opening: u64,
    mut stream: Box<dyn SessionStream>,
    resume: &mut Resume,
) -> End {
    let mut heard = Instant::now();
    let mut ping_at = heard + PING_EVERY;
    loop {
        let event = tokio::select! {
            biased;
            () = superseded(server, opening) => return End::Superseded,
            event = stream.next() => match event {
                Ok(event) => event,
                Err(CallError::Malformed(_)) => return End::Void,
                Err(_) => return End::Broke,
            },
            () = sleep_until(heard + VOID_AFTER) => return End::Void,
            () = sleep_until(ping_at) => {
                ping_at = Instant::now() + PING_EVERY;
                if stream.say(wire::ClientWord { ack: 0, ping: true }).await.is_err() {
                    return End::Broke;
                }
                continue;
            }
        };
        heard = Instant::now();
        server.hear(heard);
        let Some(peers) = peers.upgrade() else { return End::Superseded };
        let ack = match numbering(resume.last_seq, event.seq) {
            Numbering::Gap => return End::Void,
            Numbering::Repeated => event.seq,
            numbering => {
                let heeded = tokio::select! {
                    biased;
                    () = superseded(server, opening) => return End::Superseded,
                    heeded = heed(&peers, server, event.body) => heeded,
                };
                match (heeded, numbering) {
                    (Err(()), _) => return End::Void,
                    (Ok(()), Numbering::Uncounted) => continue,
                    (Ok(()), _) => event.seq,
                }
            }
        };
        resume.last_seq = resume.last_seq.max(ack);
        if stream.say(wire::ClientWord { ack, ping: false }).await.is_err() {
            return End::Broke;
        }
    }
}

/// Does what an event asks for. An error: it made no sense, or nobody took care of it.
async fn heed(peers: &Arc<Peers>, server: &Arc<Server>, body: Option<wire::event::Body>) -> Result<(), ()> {
    use wire::event::Body;
    match body {
        Some(Body::Break(broken)) => {
            let fids = broken.fids.into_iter().map(Fid::try_from).collect::<Result<Vec<_>, _>>();
            let (ack, done) = Ack::new();
            let (realm, fids) = (server.realm.to_string(), fids.map_err(|_| ())?);
            peers.tell(PeerEvent::Broken { realm, server: server.id, fids, ack });
            done.await.map_err(|_| ())
        }
        Some(Body::GroupChanged(info)) => {
            peers.group_told(&server.realm, info);
            Ok(())
        }
        Some(Body::ServerUp(up)) => {
            peers.seen_up(&server.realm, up.server);
            Ok(())
        }
        Some(Body::Config(config)) => {
            peers.config_is(&server.realm, config);
            Ok(())
        }
        Some(Body::GoingDown(_)) => {
            // Readers go elsewhere; what is under way may still be answered.
            server.suspect();
            Ok(())
        }
        // A volume out of service answers so itself; what a later protocol says does not concern us.
        Some(Body::VolumeOffline(_)) | Some(Body::Ping(_)) | None => Ok(()),
    }
}

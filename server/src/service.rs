//! The server as a [`Service`]: which call is answered by what.

use bytes::Bytes;
use coda_proto::{
    Code, PROTOCOL, Refusal, VolumeId,
    service::{BoxFuture, EventSource, Identity, Service},
    wire::{self, request, response},
};

use crate::{
    calls::{Answer, Caller, plain},
    server::Server,
    session::Greeting,
};

impl Service for Server {
    fn call(
        &self,
        who: Identity,
        request: wire::Request,
        bulk: Bytes,
    ) -> BoxFuture<'static, (wire::Response, Bytes)> {
        let server = self.me();
        Box::pin(async move {
            let told = Told::about(who, &request);
            let answer = match server {
                Some(server) => server.answer(who, request, bulk).await,
                None => Err(Refusal::new(Code::Offline, "the server is stopping")),
            };
            match answer {
                Ok((body, bulk)) => (wire::Response { bulk: bulk.len() as u32, body: Some(body) }, bulk),
                Err(refusal) => {
                    told.refused(&refusal);
                    let body = response::Body::Refusal(refusal.into());
                    (wire::Response { bulk: 0, body: Some(body) }, Bytes::new())
                }
            }
        })
    }

    fn hello(&self, _who: Identity, hello: wire::Hello) -> (wire::Welcome, Option<Box<dyn EventSource>>) {
        let refused = |code, why: String| {
            let refusal = Some(Refusal::new(code, why).into());
            (wire::Welcome { refusal, protocol: PROTOCOL, ..Default::default() }, None)
        };
        if hello.protocol != PROTOCOL {
            let why = format!("protocol {} is unknown here; this server speaks {PROTOCOL}", hello.protocol);
            return refused(Code::Unsupported, why);
        }
        if hello.instance.len() != 16 {
            return refused(Code::Invalid, "an instance has 16 bytes".to_owned());
        }
        let greeted = self.sessions().greet(Greeting {
            instance: &hello.instance,
            resume: hello.resume,
            last_seq: hello.last_seq,
            fresh: self.env().random().max(1),
        });
        let Some((session, resumed, source)) = greeted else {
            return refused(Code::Busy, "there are as many clients here as there may be".to_owned());
        };
        let welcome = wire::Welcome {
            protocol: PROTOCOL,
            features: 0,
            session,
            resumed,
            server: self.id().0.into(),
            time: self.env().now(),
            config: self.realm().config,
            boot: self.boot(),
            refusal: None,
        };
        (welcome, Some(source))
    }

    fn said(&self, session: u64, word: wire::ClientWord) {
        self.sessions().said(session, word);
    }

    fn lost(&self, session: u64) {
        tracing::debug!(session, "a session's stream broke");
        self.sessions().lost(session);
    }
}

/// What the log says of a call that is refused.
struct Told {
    volume: Option<VolumeId>,
    session: u64,
    peer: Option<u8>,
}

impl Told {
    /// Only of calls that change something: whoever reads is told, and asks again.
    fn about(who: Identity, request: &wire::Request) -> Told {
        let volume = match &request.body {
            Some(request::Body::Apply(apply)) => Some(apply.volume),
            Some(request::Body::Repair(repair)) => repair.apply.as_ref().map(|apply| apply.volume),
            Some(request::Body::Upload(upload)) => Some(upload.volume),
            _ => None,
        };
        let peer = if let Identity::Server(peer) = who { Some(peer.0) } else { None };
        Told { volume: volume.map(VolumeId), session: request.session, peer }
    }

    fn refused(&self, refusal: &Refusal) {
        let Some(volume) = self.volume else { return };
        let Refusal { code, detail: why, index: record, blame, .. } = refusal;
        let fid = blame.map(tracing::field::display);
        let (session, peer) = (self.session, self.peer);
        match code {
            // What clients mend by themselves, and often.
            Code::NeedsResolve | Code::StaleEpoch | Code::UnknownSession | Code::Busy | Code::Offline => {
                tracing::debug!(%volume, fid, session, peer, ?code, record, why, "a change was not taken")
            }
            _ => tracing::info!(%volume, fid, session, peer, ?code, record, why, "a change was refused"),
        }
    }
}

impl Server {
    async fn answer(&self, who: Identity, request: wire::Request, bulk: Bytes) -> Answer {
        use request::Body;
        let body = request.body.ok_or_else(|| Refusal::new(Code::Unsupported, "no call that we know"))?;
        let caller = Caller { who, session: request.session };
        if let Identity::Server(peer) = who {
            self.sessions().peer_heard(peer);
        }
        match &body {
            Body::GetRealm(_) => return self.get_realm(),
            Body::GetRootVolume(_) => return self.get_root_volume(),
            Body::GetVolume(get) => return self.get_volume(get),
            Body::Probe(_) => return self.probe(caller),
            _ => {}
        }
        // Proved by a certificate, or by a token: no session needed.
        let body = match body {
            Body::Admin(admin) => return self.admin(caller, admin, bulk).await,
            Body::Enroll(enroll) => return self.enroll(enroll).await,
            body => body,
        };
        // Only a client's promises depend on its session; servers and administrators are not promised anything.
        let anonymous = who == Identity::Client || caller.session != 0;
        if anonymous && !self.sessions().heard(caller.session) {
            return Err(Refusal::new(Code::UnknownSession, "say Hello first"));
        }
        if who == Identity::Client {
            self.in_service(&body)?;
        }
        for cop2 in request.cop2 {
            self.cop2(cop2);
        }
        let answer = match body {
            Body::Fetch(fetch) => self.fetch(caller, fetch),
            Body::FetchMany(fetch) => self.fetch_many(caller, fetch),
            Body::ReadDir(read) => self.read_dir(caller, read),
            Body::GetAttr(get) => self.get_attr(caller, get),
            Body::ValidateObjects(ask) => self.validate_objects(caller, ask),
            Body::ValidateVolumes(ask) => self.validate_volumes(caller, ask),
            Body::GetAcl(get) => self.get_acl(caller, get),
            Body::GetVolumeStatus(get) => self.get_volume_status(caller, get),
            Body::Upload(piece) => self.upload(caller, piece, bulk).await,
            Body::Apply(apply) => self.apply(caller, apply).await,
            Body::Repair(repair) => self.repair(caller, repair).await,
            Body::Retire(retire) => self.retire(retire).await,
            Body::ListConflicts(list) => self.list_conflicts(caller, &list),
            Body::ListFormer(list) => self.list_former(caller, list),
            Body::Resolve(resolve) => self.resolve(caller, resolve).await,
            Body::Meet(meet) => self.meet(caller, &meet),
            Body::Cop2Only(_) => plain(response::Body::Done(wire::Done {})),
            Body::GoodBye(_) => {
                self.sessions().end(caller.session);
                return plain(response::Body::Done(wire::Done {}));
            }
            _ => Err(Refusal::new(Code::Unsupported, "not supported by this server")),
        };
        // A session fenced meanwhile must not take the answer for a promise.
        match anonymous && !self.sessions().knows(caller.session) {
            true if !matches!(answer, Ok((response::Body::Applied(_), _))) => {
                Err(Refusal::new(Code::UnknownSession, "fenced while this call was answered"))
            }
            _ => answer,
        }
    }

    /// Refuses clients a volume that an administrator took out of service.
    fn in_service(&self, body: &request::Body) -> Result<(), Refusal> {
        let Some(id) = concerns(body).map(VolumeId) else { return Ok(()) };
        let offline = |volume: &crate::location::VolumeEntry| {
            volume.more.service() == wire::VolumeService::VolumeOffline
        };
        match self.realm().volumes.get(&id).is_some_and(offline) {
            true => {
                Err(Refusal::new(Code::Offline, format!("an administrator took volume {id} out of service")))
            }
            false => Ok(()),
        }
    }

    /// Notes that every member holds these dots. Of another epoch, or of unknown dots, it says nothing.
    fn cop2(&self, cop2: wire::Cop2) {
        let id = VolumeId(cop2.volume);
        let epoch = self.realm().volumes.get(&id).map(|volume| volume.info.epoch);
        let (Ok(volume), true) = (self.volume(id), epoch == Some(cop2.epoch)) else { return };
        let dots = cop2.dots.into_iter().filter_map(|dot| coda_proto::Dot::try_from(dot).ok());
        let dots: Vec<_> = dots.take(coda_proto::APPLY_RECORDS).collect();
        volume.meetings.held_everywhere(&dots);
        let removing = volume.read(|view| {
            let mut removing = Vec::new();
            for dot in dots {
                if view.is_removal(dot)? {
                    removing.push(dot);
                }
            }
            Ok(removing)
        });
        match removing {
            Ok(dots) if !dots.is_empty() => {
                // Nobody waits: it is committed with whatever comes next, and lost without harm.
                drop(volume.queue(
                    move |txn| Ok(dots.iter().try_for_each(|dot| txn.held_everywhere(*dot))?),
                    |_| {},
                ));
            }
            _ => {}
        }
    }
}

/// The volume that a call is about.
fn concerns(body: &request::Body) -> Option<u32> {
    use request::Body;
    let of = |fid: &Option<wire::Fid>| fid.as_ref().map(|fid| fid.volume);
    match body {
        Body::Fetch(fetch) => of(&fetch.fid),
        Body::FetchMany(fetch) => Some(fetch.volume),
        Body::ReadDir(read) => of(&read.fid),
        Body::GetAttr(get) => Some(get.volume),
        Body::ValidateObjects(ask) => Some(ask.volume),
        Body::GetAcl(get) => of(&get.fid),
        Body::ListFormer(list) => of(&list.fid),
        Body::Upload(piece) => Some(piece.volume),
        Body::Apply(apply) => Some(apply.volume),
        Body::Repair(repair) => of(&repair.fid),
        Body::Retire(retire) => Some(retire.volume),
        Body::Resolve(resolve) => of(&resolve.fid),
        _ => None,
    }
}

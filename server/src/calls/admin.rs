//! Administration. Changes are made at the SCM, which appends them to the realm's log (`scm.rs`).

use coda_proto::{
    Code, Refusal, ServerId, VolumeId,
    service::Identity,
    wire::{self, admin::Body as Ask, response::Body},
};

use super::{Answer, Caller, plain};
use crate::{
    AuthorityKey, Signer,
    location::{Realm, change, load, servers, vrlist},
    server::Server,
    store::Invitation,
};

impl Server {
    pub(crate) async fn admin(&self, caller: Caller, admin: wire::Admin, bulk: bytes::Bytes) -> Answer {
        let ask = admin.body.ok_or_else(|| Refusal::new(Code::Unsupported, "no request that we know"))?;
        match (caller.who, &ask) {
            (Identity::Client, _) => {
                return Err(Refusal::new(Code::Access, "needs the realm's admin key"));
            }
            (
                Identity::Server(_),
                Ask::GetConfig(_)
                | Ask::Follow(_)
                | Ask::ReadLog(_)
                | Ask::Promise(_)
                | Ask::GetAuthority(_)
                | Ask::Announce(_)
                | Ask::MemberJoined(_)
                | Ask::ReplicaStatus(_),
            )
            | (Identity::Admin, _) => {}
            (Identity::Server(_), Ask::Stage(_)) if self.may_stage(caller.who) => {}
            (Identity::Server(_), _) => {
                return Err(Refusal::new(Code::Access, "only administrators may"));
            }
        }
        match ask {
            Ask::GetConfig(_) => {
                let config = Some((&*self.realm()).into());
                answer(wire::AdminAnswer { config, ..Default::default() })
            }
            Ask::GetAuthority(_) => match caller.who {
                Identity::Server(server) => self.pass_authority(server),
                _ => Err(Refusal::new(Code::Access, "only servers are given the authority's key")),
            },
            Ask::Follow(offer) => self.follow(&offer),
            Ask::ReadLog(read) => self.read_log(&read),
            Ask::Promise(promise) => self.promise_term(promise),
            Ask::Promote(promote) => self.promote(promote).await,
            Ask::Announce(announce) => match caller.who {
                Identity::Server(server) => self.announced(server, announce.endpoints).await,
                _ => Err(Refusal::new(Code::Access, "only the server itself can say so")),
            },
            Ask::MemberJoined(joined) => match caller.who {
                Identity::Server(member) => self.activate(VolumeId(joined.volume), member).await,
                _ => Err(Refusal::new(Code::Access, "only the member itself can say so")),
            },
            Ask::ListVolumes(_) => {
                let volumes = self.realm().volumes.values().map(|volume| volume.info.clone()).collect();
                answer(wire::AdminAnswer { volumes, ..Default::default() })
            }
            Ask::VolumeDetail(detail) => self.volume_detail(&detail.name),
            Ask::Invite(invite) => self.invite(&invite),
            Ask::CreateVolume(create) if !create.stage.is_empty() => self.create_staged(create).await,
            Ask::CreateVolume(create) => {
                let now = self.env().now();
                let create = |realm: &mut crate::location::Realm| {
                    let id = change::create_volume(realm, create)?;
                    realm.volumes.get_mut(&id).expect("it was just made").more.created = now;
                    Ok(id)
                };
                self.change(create).await
            }
            Ask::AddReplica(add) => self.change(|realm| change::add_replica(realm, &add)).await,
            Ask::RemoveReplica(remove) => self.change(|realm| change::remove_replica(realm, &remove)).await,
            Ask::SetRoot(root) => self.change(|realm| change::set_root(realm, &root.name)).await,
            Ask::LoadLocation(files) => self.load_location(&files).await,
            Ask::ReplicaStatus(ask) => {
                let report = Some(self.replica_report(ask).await?);
                answer(wire::AdminAnswer { report, ..Default::default() })
            }
            Ask::MoveReplica(moving) => self.change(|realm| change::move_replica(realm, &moving)).await,
            Ask::PurgeVolume(purge) => self.change(|realm| change::purge_volume(realm, &purge)).await,
            Ask::SetService(set) => {
                let now = self.env().now();
                self.change(|realm| change::set_service(realm, &set, now)).await
            }
            Ask::ReserveReplica(reserve) => self.reserve_replica(&reserve).await,
            Ask::CloneVolume(clone) => self.clone_volume(&clone).await,
            Ask::SetQuota(set) => self.set_quota(set).await,
            Ask::Stage(stage) => answer(self.stage(stage, bulk).await?),
        }
    }

    /// Changes one volume of the realm, here and everywhere.
    pub(crate) async fn change(&self, f: impl FnOnce(&mut Realm) -> Result<VolumeId, Refusal>) -> Answer {
        let _one_at_a_time = self.changing().lock().await;
        self.change_locked(f).await
    }

    /// The same for who holds `changing`.
    pub(crate) async fn change_locked(
        &self,
        f: impl FnOnce(&mut Realm) -> Result<VolumeId, Refusal>,
    ) -> Answer {
        let mut realm = (*self.at_the_scm()?).clone();
        let id = f(&mut realm)?;
        let text = self.commit(realm).await?;
        let realm = self.realm();
        let volumes: Vec<_> = realm.volumes.get(&id).map(|volume| volume.info.clone()).into_iter().collect();
        answer(wire::AdminAnswer { text, volumes, ..Default::default() })
    }

    async fn reserve_replica(&self, reserve: &wire::ReserveReplica) -> Answer {
        let _one_at_a_time = self.changing().lock().await;
        let mut realm = (*self.at_the_scm()?).clone();
        let replica = change::reserve_replica(&mut realm, reserve)?;
        let text = self.commit(realm).await?;
        answer(wire::AdminAnswer { text, replica, ..Default::default() })
    }

    /// A member has met the others: from now on it is asked for contents.
    pub(crate) async fn activate(&self, id: VolumeId, member: ServerId) -> Answer {
        let activate = |realm: &mut Realm| match change::activate(realm, id, member) {
            true => Ok(id),
            false => Err(Refusal::new(Code::Exists, format!("no member of {id} is joining on {member}"))),
        };
        self.change(activate).await
    }

    /// A server is reached elsewhere than the realm knows.
    async fn announced(&self, server: ServerId, endpoints: Vec<wire::Endpoint>) -> Answer {
        if !endpoints.iter().any(|endpoint| !endpoint.peer_only) {
            return Err(Refusal::new(Code::Invalid, "clients need an endpoint, too"));
        }
        let _one_at_a_time = self.changing().lock().await;
        let mut realm = (*self.at_the_scm()?).clone();
        let info = realm.servers.get_mut(&server);
        let info = info.ok_or_else(|| Refusal::new(Code::Invalid, format!("no server {server} is known")))?;
        info.endpoints = endpoints;
        let text = self.commit(realm).await?;
        answer(wire::AdminAnswer { text, ..Default::default() })
    }

    async fn load_location(&self, files: &wire::LoadLocation) -> Answer {
        let _one_at_a_time = self.changing().lock().await;
        let realm = self.at_the_scm()?;
        let acl = coda_proto::Acl::root(coda_proto::Rights(0));
        let mut new = load::load(&realm, &files.servers_file, &files.vrlist_file, &acl)
            .map_err(|error| Refusal::new(Code::Invalid, error.to_string()))?;
        let mut text: String =
            load::difference(&realm, &new).iter().map(|line| format!("{line}\n")).collect();
        if files.dry_run {
            let volumes = load::changed_groups(&realm, &new);
            return answer(wire::AdminAnswer { text, volumes, ..Default::default() });
        }
        let made = new.volumes.iter_mut().filter(|(id, _)| !realm.volumes.contains_key(id));
        made.for_each(|(_, volume)| volume.more.created = self.env().now());
        text += &self.commit(new).await?;
        let volumes = load::changed_groups(&realm, &self.realm());
        answer(wire::AdminAnswer { text, volumes, ..Default::default() })
    }

    fn invite(&self, invite: &wire::Invite) -> Answer {
        let realm = self.at_the_scm()?;
        if !self.config().signer.as_ref().is_some_and(Signer::is_here) {
            let why = "this server does not hold the realm's authority: another passes it on as soon as it can be \
                       reached, or copy ca.key and ca.pem into its directory";
            return Err(Refusal::new(Code::Unsupported, why));
        }
        if !invite.name.is_empty() {
            change::check_server_name(&realm, &invite.name)?;
        }
        let kept = self.store().invitations()?;
        let server =
            change::free_server(&realm, invite.server, |id| kept.iter().any(|kept| kept.server == id))?;
        let token = format!("{:016x}{:016x}", self.env().random(), self.env().random());
        let invitation = Invitation { token, server, name: invite.name.clone() };
        self.store().invite(&invitation)?;
        let text = format!("server {server}");
        answer(wire::AdminAnswer { text, token: invitation.token, ..Default::default() })
    }

    /// Another server may be the next SCM.
    fn pass_authority(&self, server: ServerId) -> Answer {
        if !self.realm().servers.contains_key(&server) {
            return Err(Refusal::new(Code::Access, format!("server {server} is none of the realm's")));
        }
        let key = self.config().authority.as_ref().and_then(|AuthorityKey(read)| read());
        let none = || Refusal::new(Code::Unsupported, "the authority's key is not here, or not passed on");
        let key = key.ok_or_else(none)?;
        tracing::warn!(%server, "the key of the realm's authority is passed on");
        answer(wire::AdminAnswer { authority_key: key.into(), ..Default::default() })
    }

    /// A new server shows its token and gets its certificate. The token is all that it has.
    pub(crate) async fn enroll(&self, enroll: wire::Enroll) -> Answer {
        let _one_at_a_time = self.changing().lock().await;
        let mut realm = (*self.at_the_scm()?).clone();
        let refused = |why: &str| Refusal::new(Code::Access, why);
        let signer = self.config().signer.clone().filter(Signer::is_here);
        let signer = signer.ok_or_else(|| refused("this server signs nothing"))?;
        let unknown =
            "unknown token: each works once, at the SCM that printed it; `volutil invite` prints another";
        let invitation = self.store().take_invitation(&enroll.token)?.ok_or_else(|| refused(unknown))?;
        let name = [&invitation.name, &enroll.name].into_iter().find(|name| !name.is_empty());
        let name = name.cloned().unwrap_or_else(|| format!("server{}", invitation.server));
        let signed = match (signer.sign)(invitation.server, &enroll.request) {
            Ok(signed) => signed,
            Err(why) => {
                self.store().invite(&invitation)?;
                return Err(Refusal::new(Code::Invalid, why));
            }
        };
        let added = change::add_server(&mut realm, invitation.server, &name, enroll.endpoints);
        let committed = match added {
            Ok(()) => self.commit(realm).await.map(drop),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = committed {
            self.store().invite(&invitation)?;
            return Err(refusal);
        }
        let realm = self.realm();
        let ServerId(server) = invitation.server;
        plain(Body::Enrolled(wire::Enrolled {
            server: server.into(),
            certificate: signed.certificate.into(),
            ca: signed.authority.into(),
            realm: realm.name.clone(),
            servers_file: servers::text(&realm.servers),
            vrlist_file: vrlist::text(realm.volumes.values().map(|volume| &volume.info)),
        }))
    }

    fn volume_detail(&self, name: &str) -> Answer {
        let realm = self.realm();
        let found = match u32::from_str_radix(name, 16).ok().and_then(|id| realm.volume_by_id(id)) {
            Some(volume) => Some(volume),
            None => realm.volume_named(name),
        };
        let no_volume = || Refusal::new(Code::NoVolume, format!("{name}: no such volume"));
        let info = found.ok_or_else(no_volume)?.info.clone();
        let mut text = format!(
            "Volume {:08x} ({})\nepoch = {}, replicas = {}\n",
            info.id,
            info.name,
            info.epoch,
            info.members.len()
        );
        for member in &info.members {
            let server = ServerId::new(member.server).ok().and_then(|id| realm.servers.get(&id));
            let name = server.map_or("?", |server| &server.name);
            text +=
                &format!("  slot {} = {:08x} on {name}, {}\n", member.slot, member.replica, state(member));
        }
        if let Ok(volume) = self.volume(VolumeId(info.id)) {
            text += &volume.read(|view| {
                let row = view.volume_row()?;
                let root = view.head(coda_proto::Fid::root(view.volume))?;
                Ok(format!(
                    "maxquota = {}, minquota = {}, diskused = {}, objects = {}\nstamp = {:016x}.{}\n",
                    root.as_ref().map_or(0, |root| root.quota_max()),
                    root.as_ref().map_or(0, |root| root.quota_min()),
                    row.used,
                    view.objects()?,
                    row.incarnation,
                    row.change_seq
                ))
            })?;
        }
        answer(wire::AdminAnswer { text, volumes: vec![info], ..Default::default() })
    }
}

pub(crate) fn state(member: &wire::Member) -> &'static str {
    match wire::MemberState::try_from(member.state) {
        Ok(wire::MemberState::MemberActive) => "active",
        Ok(wire::MemberState::MemberJoining) => "joining",
        Ok(wire::MemberState::MemberLeaving) => "leaving",
        _ => "unknown",
    }
}

pub(crate) fn answer(answer: wire::AdminAnswer) -> Answer {
    plain(Body::Admin(answer))
}

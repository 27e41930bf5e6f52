//! What administrators do with whole volumes: quota, clones, and replicas made aside.

use bytes::Bytes;
use coda_proto::{
    Acl, Author, Base, Code, Dot, Fid, Op, Record, Refusal, Rights, ServerId, VolumeId,
    merge::{self, ApplyError, ObjectState},
    record::hash,
    service::Identity,
    wire::{self, admin::Body as Ask, request, response},
};

use super::{Answer, admin::answer, read::served};
use crate::{
    blocking::blocking,
    location::change,
    server::Server,
    session::NOBODY,
    store::{Stage, Txn},
};

/// Silence of another server after which a request of this kind is given up: a clone copies a database.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// Name of the read-only clone of a volume unless it is given another.
pub const CLONE: &str = "readonly";
/// Of its backup.
pub const BACKUP: &str = "backup";

impl Server {
    /// Sets a volume's quota here; the other members hear of it as of any change.
    pub(crate) async fn set_quota(&self, set: wire::SetQuota) -> Answer {
        let id = change::volume_of(&self.realm(), &set.volume)?;
        let volume = self.volume(id)?;
        let root = Fid::root(id);
        let author = Author(self.env().random().max(2));
        let now = self.env().now();
        let run = move |txn: &mut Txn<'_>| -> Result<(), Refusal> {
            served(txn)?;
            let head = merge::Replica::head(txn, root)?;
            let head = head.ok_or_else(|| Refusal::new(Code::NotJoined, "its root is not here yet"))?;
            let record = Record {
                dot: Dot::new(author, 1),
                lamport: head.lamport().max(txn.listing_lamport(root)?) + 1,
                time: now,
                changed: now.max(head.ctime().saturating_add(1)),
                host: String::new(),
                bases: vec![Base { fid: root, past: head.past }],
                logged: false,
                op: Op::SetQuota { fid: root, min: set.min, max: set.max },
            };
            match merge::apply(txn, &record) {
                Ok(_) => Ok(()),
                Err(ApplyError::Refused(refusal)) => Err(refusal),
                Err(ApplyError::Store(error)) => Err(error.into()),
            }
        };
        let sessions = self.sessions().clone();
        volume.write(run, move |done| sessions.break_promises(id, &done.changed, NOBODY)).await?;
        volume.meetings.changed([Dot::new(author, 1)]);
        answer(wire::AdminAnswer::default())
    }

    /// A read-only volume that holds what another holds now. One member makes it of its own replica, and the
    /// others learn it from that one.
    pub(crate) async fn clone_volume(&self, clone: &wire::CloneVolume) -> Answer {
        let realm = self.at_the_scm()?;
        let source = change::volume_of(&realm, &clone.volume)?;
        let of = realm.volumes[&source].info.clone();
        let name = match (clone.name.is_empty(), clone.backup) {
            (false, _) => clone.name.clone(),
            (true, true) => format!("{}.{BACKUP}", of.name),
            (true, false) => format!("{}.{CLONE}", of.name),
        };
        let former = realm.volumes.iter().find(|(_, entry)| {
            clone.backup
                && entry.more.kind() == wire::VolumeKind::VolumeBackup
                && entry.more.parent == source.0
                && entry.info.name == name
        });
        let former = former.map(|(id, _)| *id);
        if former.is_none() {
            change::check_name(&realm, &name)?;
        }
        let token = self.token();
        let active = of.members.iter().filter(|member| member.state() == wire::MemberState::MemberActive);
        let active: Vec<ServerId> = active.filter_map(|member| ServerId::new(member.server).ok()).collect();
        let mut why = Refusal::new(Code::Offline, format!("no member of {} can be reached", of.name));
        for first in &active {
            let stage = wire::Stage { token: token.clone(), clone: source.0, ..Default::default() };
            match self.ask_stage(*first, stage).await {
                Ok(_) => {
                    let servers =
                        std::iter::once(first).chain(active.iter().filter(|server| *server != first));
                    let kind = match clone.backup {
                        true => wire::VolumeKind::VolumeBackup,
                        false => wire::VolumeKind::VolumeReadOnly,
                    };
                    let servers: Vec<ServerId> = servers.copied().collect();
                    let staged = Staged { name, servers, token, kind, parent: source.0, former };
                    return self.add_staged(staged).await;
                }
                Err(refusal) => why = refusal,
            }
        }
        Err(why)
    }

    /// A volume whose first replica was staged by an administrator.
    pub(crate) async fn create_staged(&self, create: wire::CreateVolume) -> Answer {
        let realm = self.at_the_scm()?;
        change::check_name(&realm, &create.name)?;
        let servers = create.servers.iter().map(|id| ServerId::new(*id)).collect::<Result<Vec<_>, _>>()?;
        let kind = create.kind();
        let staged =
            Staged { name: create.name, servers, token: create.stage, kind, parent: 0, former: None };
        self.add_staged(staged).await
    }

    async fn add_staged(&self, staged: Staged) -> Answer {
        let first = *staged.servers.first().ok_or_else(|| Refusal::new(Code::Invalid, "no server"))?;
        let commit = |volume: VolumeId, replica: u32| {
            let token = staged.token.clone();
            self.ask_stage(
                first,
                wire::Stage { token, volume: volume.0, commit: replica, ..Default::default() },
            )
        };
        // The ids are this server's to give, and the replica is in its place before anybody hears of it.
        let (ids, _one_at_a_time) = {
            let lock = self.changing().lock().await;
            let realm = self.at_the_scm()?;
            ((realm.next_volume(), realm.next_replica(first)), lock)
        };
        let acl = commit(ids.0, ids.1).await?.text;
        let acl = Acl::from_text(&acl).unwrap_or_else(|_| Acl::root(Rights(0)));
        let now = self.env().now();
        let change = |realm: &mut crate::location::Realm| {
            if let Some(former) = staged.former {
                realm.remember_ids();
                realm.volumes.remove(&former);
            }
            let more = wire::VolumeMore {
                kind: staged.kind.into(),
                parent: staged.parent,
                created: now,
                ..Default::default()
            };
            let id = change::add_staged(realm, &staged.name, &staged.servers, &acl, more)?;
            match id == ids.0 && realm.volumes[&id].info.members[0].replica == ids.1 {
                true => Ok(id),
                false => Err(Refusal::new(Code::Busy, "the ids were given away; try again")),
            }
        };
        self.change_locked(change).await
    }

    /// Asks a server, this one included, about a stage.
    async fn ask_stage(&self, server: ServerId, stage: wire::Stage) -> Result<wire::AdminAnswer, Refusal> {
        if server == self.id() {
            return self.stage(stage, Bytes::new()).await;
        }
        let away = |why: String| Refusal::new(Code::Offline, format!("server {server}: {why}"));
        let realm = self.realm();
        let peer = realm.servers.get(&server).ok_or_else(|| away("nobody knows where it is".into()))?;
        let body = request::Body::Admin(wire::Admin { body: Some(Ask::Stage(stage)) });
        match self.ask_peer(peer, body, PATIENCE).await {
            Ok((response::Body::Admin(answer), _)) => Ok(answer),
            Ok(_) => Err(away("it answers another question".into())),
            Err(failure) => Err(away(failure.to_string())),
        }
    }

    fn token(&self) -> Bytes {
        let random = u128::from(self.env().random()) << 64 | u128::from(self.env().random());
        Bytes::copy_from_slice(&random.to_be_bytes())
    }

    /// One step of a replica that is made aside here.
    pub(crate) async fn stage(&self, stage: wire::Stage, bulk: Bytes) -> Result<wire::AdminAnswer, Refusal> {
        let token = <[u8; 16]>::try_from(&stage.token[..]).map(u128::from_be_bytes);
        let token = token.map_err(|_| Refusal::new(Code::Invalid, "a token has 16 bytes"))?;
        let unknown =
            || Refusal::new(Code::Gone, "no such stage here: the server was started again, perhaps");
        let (dir, durability, now) = (&self.config().dir, self.config().durability, self.env().now());
        let taken = || Refusal::new(Code::Exists, "there is a stage of this token");
        let mut stages = self.stages().lock().expect("never held across a panic");
        let mut held = 0;
        let mut text = String::new();
        if stage.empty || stage.clone != 0 {
            if stages.contains_key(&token) {
                return Err(taken());
            }
            let made = match stage.clone {
                0 => blocking(|| Stage::empty(dir, token, durability, now))?,
                source => {
                    let volume = self.volume(VolumeId(source))?;
                    volume.read(served)?;
                    blocking(|| Stage::clone_of(dir, token, volume.store(), durability, now))?
                }
            };
            stages.insert(token, made);
        } else if let Some(part) = stage.part {
            let made = stages.get_mut(&token).ok_or_else(unknown)?;
            let objects: Vec<ObjectState> =
                part.objects.into_iter().map(ObjectState::try_from).collect::<Result<_, _>>()?;
            blocking(|| made.put_objects(objects))?;
            if !part.hash.is_empty() {
                let hash = hash(&part.hash)?;
                held = blocking(|| made.put_content(hash, part.length, part.offset, &bulk))?;
            }
        } else if stage.commit != 0 {
            let made = stages.get(&token).ok_or_else(unknown)?;
            let missing = made.missing()?;
            if let Some(first) = missing.first() {
                let why = format!("the contents of {} files are missing", missing.len());
                return Err(Refusal::about(Code::Invalid, *first, why));
            }
            let none = || Refusal::new(Code::Invalid, "there is no root directory in it");
            text = made.root_acl()?.ok_or_else(none)?.to_text();
            let made = stages.remove(&token).ok_or_else(unknown)?;
            blocking(|| made.commit(dir, VolumeId(stage.volume), stage.commit))?;
        } else if stage.drop {
            stages.remove(&token).into_iter().for_each(Stage::abandon);
        } else {
            return Err(Refusal::new(Code::Unsupported, "no step that we know"));
        }
        Ok(wire::AdminAnswer { held, text, ..Default::default() })
    }

    /// Who may take such a step: administrators, and the SCM for them.
    pub(crate) fn may_stage(&self, who: Identity) -> bool {
        who == Identity::Admin || who == Identity::Server(self.realm().scm)
    }
}

/// A volume that begins as a staged replica.
struct Staged {
    name: String,
    servers: Vec<ServerId>,
    token: Bytes,
    kind: wire::VolumeKind,
    parent: u32,
    /// The volume that it takes the place of.
    former: Option<VolumeId>,
}

//! Volumes from dumps. Every file is read whole before any server is asked: a damaged one changes nothing.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use coda_proto::{
    ServerId,
    wire::{self, admin::Body as Ask, request, response},
};
use serde_json::json;

use super::{
    Exit, Failed, Link, Report,
    create::is_partition,
    dump::{damaged, follows, open},
    link::server,
    stream::Frame,
};
use crate::location::change;

/// Which dumps, and what they become.
#[derive(clap::Args)]
pub struct Restore {
    /// A dump; several: a full one, and those that follow it, in order.
    #[arg(short, long = "file", required = true, value_name = "DUMP")]
    pub file: Vec<PathBuf>,
    /// Name of the new volume [default: NAME.restored]. A partition in front of it is accepted as before.
    #[arg(num_args = 0..=2)]
    pub name: Vec<String>,
    /// Names or ids of its servers [default: the SCM].
    #[arg(long, value_name = "SERVER", num_args = 1..)]
    pub on: Vec<String>,
    /// It takes changes, instead of being read-only.
    #[arg(long)]
    pub writable: bool,
}

/// What a dump file says of itself.
struct Seen {
    header: super::stream::Header,
    objects: usize,
    contents: usize,
    bytes: u64,
    end: String,
}

/// Reads a file whole.
fn check(path: &Path) -> anyhow::Result<Seen> {
    let (mut reader, header) = open(path)?;
    let mut seen = Seen { header, objects: 0, contents: 0, bytes: 0, end: String::new() };
    let mut growing: BTreeMap<[u8; 32], (blake3::Hasher, u64)> = BTreeMap::new();
    while let Some(frame) = reader.frame().map_err(|error| damaged(path, error))? {
        match frame {
            Frame::Objects(objects) => seen.objects += objects.len(),
            Frame::Piece { hash, length, offset, bytes } => {
                seen.bytes += bytes.len() as u64;
                let (hasher, held) = growing.entry(hash).or_default();
                let wrong = || {
                    Failed(Exit::Damaged, format!("{}: contents that are not their hash's", path.display()))
                };
                if offset != *held {
                    return Err(wrong().into());
                }
                hasher.update(&bytes);
                *held += bytes.len() as u64;
                if *held >= length {
                    if hasher.finalize().as_bytes() != &hash {
                        return Err(wrong().into());
                    }
                    growing.remove(&hash);
                    seen.contents += 1;
                }
            }
            Frame::End(hash) => seen.end = hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            Frame::Gone(_) | Frame::Header(_) => {}
        }
    }
    Ok(seen)
}

/// Says what is in a dump file.
pub fn look(path: &Path) -> anyhow::Result<Report> {
    let seen = check(path)?;
    let header = &seen.header;
    let kind = if header.follows.is_some() { "incremental" } else { "full" };
    let text = format!(
        "{kind} dump of volume {} ({}) of {}, from {}: {} objects, {} contents, {} bytes of them\n",
        header.volume, header.name, header.realm, header.server, seen.objects, seen.contents, seen.bytes
    );
    let json = json!({
        "header": serde_json::to_value(header)?,
        "objects": seen.objects,
        "contents": seen.contents,
        "bytes": seen.bytes,
        "end": seen.end,
    });
    Ok(Report::new(text, json))
}

/// A replica that is being made at a server; dropped, it is given up.
struct Staging<'a> {
    link: &'a Link,
    server: &'a wire::ServerInfo,
    token: Bytes,
}

impl Staging<'_> {
    async fn step(&self, stage: wire::Stage, bulk: Bytes) -> anyhow::Result<wire::AdminAnswer> {
        let stage = wire::Stage { token: self.token.clone(), ..stage };
        let body = request::Body::Admin(wire::Admin { body: Some(Ask::Stage(stage)) });
        match self.link.call(self.server, body, bulk).await? {
            (response::Body::Admin(answer), _) => Ok(answer),
            _ => anyhow::bail!("{} answers something else", self.server.name),
        }
    }

    async fn part(&self, part: wire::StagePart, bulk: Bytes) -> anyhow::Result<wire::AdminAnswer> {
        self.step(wire::Stage { part: Some(part), ..Default::default() }, bulk).await
    }

    /// Sends what is in the dumps: first what the objects are, then their contents.
    async fn fill(&self, files: &[PathBuf]) -> anyhow::Result<()> {
        let draw = std::io::stderr().is_terminal();
        // Of each object its last state counts: an earlier one could have more than the later forgot.
        let mut states: BTreeMap<(u32, u64), wire::ObjectState> = BTreeMap::new();
        for path in files {
            let (mut reader, _) = open(path)?;
            while let Some(frame) = reader.frame().map_err(|error| damaged(path, error))? {
                match frame {
                    Frame::Objects(objects) => states.extend(objects.into_iter().filter_map(|state| {
                        let fid = state.fid?;
                        Some(((fid.vnode, fid.unique), state))
                    })),
                    Frame::Gone(fids) => states.retain(|fid, _| !fids.contains(fid)),
                    _ => {}
                }
            }
        }
        let objects: Vec<wire::ObjectState> = states.into_values().collect();
        for page in objects.chunks(500) {
            self.part(wire::StagePart { objects: page.to_vec(), ..Default::default() }, Bytes::new()).await?;
        }
        let mut pieces = 0;
        for path in files {
            let (mut reader, _) = open(path)?;
            while let Some(frame) = reader.frame().map_err(|error| damaged(path, error))? {
                if let Frame::Piece { hash, length, offset, bytes } = frame {
                    let hash = Bytes::copy_from_slice(&hash);
                    let part = wire::StagePart { objects: Vec::new(), hash, length, offset };
                    self.part(part, bytes).await?;
                    pieces += 1;
                    if draw && pieces % 64 == 0 {
                        eprint!("\r{pieces} pieces of contents\x1b[K");
                    }
                }
            }
        }
        if draw {
            eprint!("\r\x1b[K");
        }
        Ok(())
    }
}

/// Makes a volume from dumps.
pub async fn restore(link: &Link, restore: Restore) -> anyhow::Result<Report> {
    let named = match &restore.name[..] {
        [partition, rest @ ..] if is_partition(partition) => rest.first().cloned(),
        [name] => Some(name.clone()),
        [] => None,
        [_, more, ..] => {
            return Err(Failed(Exit::Usage, format!("{more}: the SCM gives the ids: leave it away")).into());
        }
    };
    let mut end: Option<String> = None;
    let mut first = None;
    for path in &restore.file {
        let seen = check(path)?;
        follows(end.as_deref(), &seen.header, path)?;
        end = Some(seen.end);
        first.get_or_insert(seen.header);
    }
    let Some(header) = first else { anyhow::bail!("no dump is given") };
    let realm = link.realm().await?;
    let name = named.unwrap_or_else(|| format!("{}.restored", header.name));
    change::check_name(&realm, &name)?;
    let servers: Vec<u32> = match restore.on.is_empty() {
        true => vec![realm.scm.0.into()],
        false => restore.on.iter().map(|on| Ok(server(&realm, on)?.id)).collect::<anyhow::Result<_>>()?,
    };
    let at = &realm.servers[&ServerId::new(servers[0])?];
    let token = Bytes::copy_from_slice(&random()?);
    let staging = Staging { link, server: at, token: token.clone() };
    staging.step(wire::Stage { empty: true, ..Default::default() }, Bytes::new()).await?;
    let made = async {
        staging.fill(&restore.file).await?;
        let kind = match restore.writable {
            true => wire::VolumeKind::VolumeReplicated,
            false => wire::VolumeKind::VolumeReadOnly,
        };
        let create = wire::CreateVolume { name, servers, acl: None, stage: token, kind: kind.into() };
        link.ask(Ask::CreateVolume(create)).await
    };
    let answer = match made.await {
        Ok(answer) => answer,
        Err(error) => {
            // What is not given up here is forgotten when that server starts again.
            let _ = staging.step(wire::Stage { drop: true, ..Default::default() }, Bytes::new()).await;
            return Err(error);
        }
    };
    let mut text = String::new();
    for volume in &answer.volumes {
        text += &format!("\nVolRestore successful, created {:08x}\n", volume.id);
    }
    let created: Vec<_> = answer.volumes.iter().map(super::info::json_of).collect();
    Ok(Report::new(text, json!({ "created": created })).and_note(&answer.text))
}

fn random() -> anyhow::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("random bits: {error}"))?;
    Ok(bytes)
}

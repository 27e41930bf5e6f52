//! Dumps: all that a volume holds, read from one of its members. The members go on working.
//!
//! A dump is of one moment, although it takes many questions: what changed while it was asked for is told at
//! the end of the same answers, until nothing did.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use bytes::Bytes;
use coda_proto::{
    Code, Refusal, ServerId, VolumeId,
    wire::{self, request, response},
};
use prost::Message;
use serde_json::json;

use super::{
    Exit, Failed, Link, Report, levels,
    stream::{Frame, Header, Reader, StreamError, Writer},
    sync,
};
use crate::location::{Realm, change::volume_of};

/// How often changes during a dump are followed before what still changes is left out.
const ROUNDS: usize = 20;

/// What to dump, and where to.
#[derive(clap::Args)]
pub struct Dump {
    /// The volume; its clone or backup does not change meanwhile.
    pub volume: String,
    /// The file [default: the standard output]. Nothing is overwritten.
    pub file: Option<PathBuf>,
    /// Only what differs from this dump; give also those that it follows, oldest first.
    #[arg(long, value_name = "DUMP")]
    pub since: Vec<PathBuf>,
    /// Only what differs from the newest dump of a lower level, 0 to 9. It is looked for among the files beside
    /// FILE, or in --among.
    #[arg(short = 'i', long, value_name = "LEVEL", conflicts_with = "since")]
    pub level: Option<u8>,
    /// Where dumps of lower levels are.
    #[arg(long, value_name = "DIR", requires = "level")]
    pub among: Option<PathBuf>,
    /// The server whose replica is read [default: the first active one that answers].
    #[arg(long)]
    pub from: Option<String>,
}

/// What earlier dumps hold: of each object what it was, and which contents.
#[derive(Default)]
pub struct Known {
    objects: BTreeMap<(u32, u64), [u8; 32]>,
    contents: BTreeSet<[u8; 32]>,
    end: Option<String>,
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An error of a dump file, with its status.
pub fn damaged(path: &Path, error: StreamError) -> anyhow::Error {
    let exit = match error {
        StreamError::Io(_) => Exit::Failed,
        _ => Exit::Damaged,
    };
    Failed(exit, format!("{}: {error}", path.display())).into()
}

/// Opens a dump.
pub fn open(path: &Path) -> anyhow::Result<(Reader<BufReader<File>>, Header)> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    Reader::new(BufReader::with_capacity(1 << 20, file)).map_err(|error| damaged(path, error))
}

/// Says whether a dump may follow what was read before.
pub fn follows(known: Option<&str>, header: &Header, path: &Path) -> anyhow::Result<()> {
    match (known, header.follows.as_deref()) {
        (None, None) => Ok(()),
        (Some(end), Some(follows)) if end == follows => Ok(()),
        (None, Some(_)) => {
            let why = format!(
                "{}: an incremental dump; give the full one that it follows before it",
                path.display()
            );
            Err(Failed(Exit::Refused, why).into())
        }
        (Some(_), _) => {
            let why = format!("{}: it does not follow the dump before it", path.display());
            Err(Failed(Exit::Refused, why).into())
        }
    }
}

fn key(state: &wire::ObjectState) -> (u32, u64) {
    state.fid.as_ref().map_or((0, 0), |fid| (fid.vnode, fid.unique))
}

fn digest(state: &wire::ObjectState) -> [u8; 32] {
    *blake3::hash(&state.encode_to_vec()).as_bytes()
}

/// Reads what earlier dumps hold.
fn known(paths: &[PathBuf]) -> anyhow::Result<Known> {
    let mut known = Known::default();
    for path in paths {
        let (mut reader, header) = open(path)?;
        follows(known.end.as_deref(), &header, path)?;
        while let Some(frame) = reader.frame().map_err(|error| damaged(path, error))? {
            match frame {
                Frame::Objects(objects) => {
                    known.objects.extend(objects.iter().map(|state| (key(state), digest(state))));
                }
                Frame::Piece { hash, .. } => {
                    known.contents.insert(hash);
                }
                Frame::Gone(fids) => known.objects.retain(|fid, _| !fids.contains(fid)),
                Frame::End(hash) => known.end = Some(hex(&hash)),
                Frame::Header(_) => {}
            }
        }
    }
    Ok(known)
}

/// One replica, as whoever dumps it reads it.
struct Source<'a> {
    link: &'a Link,
    server: &'a wire::ServerInfo,
    volume: VolumeId,
}

impl Source<'_> {
    async fn meet(&self, meet: wire::Meet) -> anyhow::Result<(wire::MetAnswer, Bytes)> {
        match self.link.call(self.server, request::Body::Meet(meet), Bytes::new()).await? {
            (response::Body::Met(met), bytes) => Ok((met, bytes)),
            _ => anyhow::bail!("{} answers something else", self.server.name),
        }
    }

    /// Everything that changed since, page by page, into `states`; of each object its last state counts.
    async fn states(
        &self,
        mut at: (u64, u64),
        states: &mut BTreeMap<(u32, u64), wire::ObjectState>,
    ) -> anyhow::Result<((u64, u64), usize)> {
        let mut heard = 0;
        loop {
            let meet =
                wire::Meet { volume: self.volume.0, incarnation: at.0, since: at.1, ..Default::default() };
            let (met, _) = self.meet(meet).await?;
            if !met.joined {
                let why = format!("{} has yet to meet the others", self.server.name);
                return Err(Failed(Exit::Unreachable, why).into());
            }
            at = (met.incarnation, met.upto);
            heard += met.objects.len();
            states.extend(met.objects.into_iter().map(|state| (key(&state), state)));
            if met.last {
                return Ok((at, heard));
            }
        }
    }

    /// Copies contents into the dump; `false` where they are not there any more.
    async fn contents<W: Write>(
        &self,
        hash: &[u8; 32],
        length: u64,
        writer: &mut Writer<W>,
    ) -> anyhow::Result<bool> {
        let mut offset = 0;
        loop {
            let contents = Bytes::copy_from_slice(hash);
            let meet = wire::Meet { volume: self.volume.0, contents, offset, ..Default::default() };
            let bytes = match self.meet(meet).await {
                Ok((_, bytes)) => bytes,
                Err(error) => match error.downcast_ref::<Refusal>() {
                    Some(refusal) if refusal.code == Code::Gone && offset == 0 => return Ok(false),
                    _ => return Err(error),
                },
            };
            writer.piece(hash, length, offset, &bytes)?;
            offset += bytes.len() as u64;
            if offset >= length || bytes.is_empty() {
                return Ok(true);
            }
        }
    }
}

/// A file that a command that fails leaves no half of.
struct Output {
    file: Option<(PathBuf, PathBuf)>,
}

impl Output {
    fn new(path: Option<&Path>) -> anyhow::Result<(Output, Box<dyn Write>)> {
        let Some(path) = path else {
            return Ok((Output { file: None }, Box::new(BufWriter::new(std::io::stdout()))));
        };
        anyhow::ensure!(!path.exists(), "{}: it is there already", path.display());
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        let file = File::create(&part).with_context(|| part.display().to_string())?;
        Ok((
            Output { file: Some((part, path.to_owned())) },
            Box::new(BufWriter::with_capacity(1 << 20, file)),
        ))
    }

    fn done(mut self) -> anyhow::Result<()> {
        if let Some((part, path)) = self.file.take() {
            File::open(&part)?.sync_all()?;
            std::fs::rename(&part, &path)?;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.file {
            let _ = std::fs::remove_file(part);
        }
    }
}

/// The member that is read.
async fn source<'a>(
    link: &'a Link,
    realm: &'a Realm,
    volume: VolumeId,
    from: Option<&str>,
) -> anyhow::Result<Source<'a>> {
    if let Some(from) = from {
        return Ok(Source { link, server: super::link::server(realm, from)?, volume });
    }
    let survey = sync::survey(link, realm, volume, false).await?;
    let usable = survey.members.iter().find(|member| {
        let answers = member.report.as_ref().is_some_and(|report| report.joined);
        answers && member.member.state() == wire::MemberState::MemberActive
    });
    let server = usable.and_then(|member| realm.servers.get(&ServerId::new(member.member.server).ok()?));
    let none = || Failed(Exit::Unreachable, format!("no active member of {} answers", survey.name));
    Ok(Source { link, server: server.ok_or_else(none)?, volume })
}

/// Dumps a volume.
pub async fn dump(link: &Link, dump: Dump) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let id = volume_of(&realm, &dump.volume)?;
    let since = match dump.level {
        None => dump.since,
        Some(level) if level > levels::HIGHEST => {
            return Err(Failed(Exit::Usage, format!("levels are 0 to {}", levels::HIGHEST)).into());
        }
        Some(level) => {
            let beside =
                dump.file.as_deref().and_then(Path::parent).filter(|dir| !dir.as_os_str().is_empty());
            let dir = dump.among.as_deref().or(beside).unwrap_or(Path::new("."));
            levels::before(&levels::among(dir)?, &realm.name, &id.to_string(), level)?
        }
    };
    let known = known(&since)?;
    let source = source(link, &realm, id, dump.from.as_deref()).await?;
    let header = Header {
        realm: realm.name.clone(),
        volume: id.to_string(),
        name: realm.volumes[&id].info.name.clone(),
        server: source.server.name.clone(),
        time: crate::shell::nanoseconds() / 1_000_000_000,
        level: dump.level.unwrap_or_else(|| levels::HIGHEST.min(u8::try_from(since.len()).unwrap_or(9))),
        follows: known.end.clone(),
    };
    let (output, to) = Output::new(dump.file.as_deref())?;
    let mut writer = Writer::new(to, &header)?;
    let draw = std::io::stderr().is_terminal();

    let mut states = BTreeMap::new();
    let mut written: BTreeMap<(u32, u64), [u8; 32]> = BTreeMap::new();
    let mut contents = known.contents.clone();
    let mut at = (0, 0);
    for round in 0..ROUNDS {
        let (upto, heard) = source.states(at, &mut states).await?;
        if round > 0 && heard == 0 {
            break;
        }
        at = upto;
        let mut page = Vec::new();
        for (fid, state) in &states {
            let digest = digest(state);
            let before = written.get(fid).or_else(|| known.objects.get(fid));
            if before == Some(&digest) {
                continue;
            }
            written.insert(*fid, digest);
            page.push(state.clone());
            if page.len() == 1000 {
                writer.objects(std::mem::take(&mut page))?;
            }
        }
        if !page.is_empty() {
            writer.objects(page)?;
        }
        let siblings = states.values().flat_map(|state| &state.siblings);
        let wanted: Vec<([u8; 32], u64)> = siblings
            .filter_map(|sibling| Some((<[u8; 32]>::try_from(&sibling.hash[..]).ok()?, sibling.length)))
            .filter(|(hash, _)| !contents.contains(hash))
            .collect();
        let mut done = 0;
        for (hash, length) in &wanted {
            if !contents.contains(hash) && source.contents(hash, *length, &mut writer).await? {
                contents.insert(*hash);
            }
            done += 1;
            if draw && done % 64 == 0 {
                eprint!("\rcontents {done} of {}\x1b[K", wanted.len());
            }
        }
        if draw {
            eprint!("\r\x1b[K");
        }
    }
    let gone: Vec<(u32, u64)> =
        known.objects.keys().filter(|fid| !states.contains_key(fid)).copied().collect();
    if !gone.is_empty() {
        writer.gone(&gone)?;
    }
    let (_, bytes, end) = writer.end()?;
    output.done()?;
    let json = json!({
        "volume": id.to_string(),
        "objects": written.len(),
        "bytes": bytes,
        "end": hex(&end),
        "follows": known.end,
        "level": header.level,
        "since": since,
    });
    Ok(Report { json, ..Report::noted(format!("VolDump completed, {bytes} bytes dumped")) })
}

/// How many bytes a full dump would have, about.
pub async fn estimate(link: &Link, volume: &str) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let id = volume_of(&realm, volume)?;
    let survey = sync::survey(link, &realm, id, false).await?;
    let report = survey.members.iter().filter_map(|member| member.report.as_ref()).max_by_key(|r| r.blocks);
    let report = report.with_context(|| format!("no member of {} answers", survey.name))?;
    // About 300 bytes for what an object is besides its contents.
    let bytes = report.blocks * 1024 + report.objects * 300;
    let text = format!("{bytes} bytes, about, in {} objects", report.objects);
    Ok(Report::new(text, json!({ "volume": id.to_string(), "bytes": bytes, "objects": report.objects })))
}

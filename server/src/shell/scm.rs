//! What administrators do with the realm's log: read it, and make another server the SCM.

use anyhow::{Context, bail};
use coda_net::Credentials;
use coda_proto::{
    ServerId,
    wire::{self, admin::Body as Ask},
};

use super::{NetEnv, join};
use crate::location::{
    Chronicle, Realm, Seal,
    log::{self, Verdict, mandate_bytes},
};

/// The whole log as the server at `endpoint` has it, checked, and the realm it leads to.
pub async fn log(
    env: &NetEnv,
    endpoint: &wire::Endpoint,
    seal: &dyn Seal,
) -> anyhow::Result<(Realm, Vec<wire::LogEntry>)> {
    let mut piece = read(env, endpoint, None).await?.0;
    let rest = piece.entries.split_off(1.min(piece.entries.len()));
    let mut chronicle = Chronicle::of(piece.entries, None)?;
    let mut offer = wire::Follow { after: Some(chronicle.end()), entries: rest, end: piece.end };
    loop {
        match chronicle.judge(&offer, Some(seal))? {
            Verdict::Take(step) => drop(chronicle.done(step)),
            Verdict::Known => {}
            other => bail!("the log of {}:{} contradicts itself: {other:?}", endpoint.host, endpoint.port),
        }
        if offer.end.as_ref() == Some(&chronicle.end()) || offer.entries.is_empty() {
            break;
        }
        offer = read(env, endpoint, Some(chronicle.end())).await?.0;
    }
    Ok((chronicle.replay(chronicle.entries().len(), &[])?, chronicle.entries().to_vec()))
}

async fn read(
    env: &NetEnv,
    endpoint: &wire::Endpoint,
    after: Option<wire::LogPosition>,
) -> anyhow::Result<(wire::Follow, wire::Followed)> {
    let answer =
        join::administer(env, endpoint, Ask::ReadLog(wire::ReadLog { after, given_up: false })).await?;
    Ok((answer.log.context("it tells no log")?, answer.followed.unwrap_or_default()))
}

/// Changes that the server at `endpoint` had to give up.
pub async fn given_up(env: &NetEnv, endpoint: &wire::Endpoint) -> anyhow::Result<Vec<wire::LogEntry>> {
    let ask = Ask::ReadLog(wire::ReadLog { after: None, given_up: true });
    Ok(join::administer(env, endpoint, ask).await?.log.unwrap_or_default().entries)
}

/// Makes the server at `endpoint` the SCM, in the next term. The administrator signs for it.
pub async fn promote(
    env: &NetEnv,
    admin: &Credentials,
    endpoint: &wire::Endpoint,
    server: ServerId,
    without: Vec<u32>,
) -> anyhow::Result<String> {
    let mut number = read(env, endpoint, None).await?.1.promised_term + 1;
    // Others may have seen higher terms than this one, and say so.
    for _ in 0..10 {
        let mut mandate = wire::Mandate {
            realm: admin.subject().realm.clone(),
            term: number,
            server: server.0.into(),
            proof: None,
        };
        mandate.proof = Some(admin.sign(&mandate_bytes(&mandate))?);
        let promote = wire::Promote { mandate: Some(mandate), without: without.clone() };
        match join::administer(env, endpoint, Ask::Promote(promote)).await {
            Ok(answer) => return Ok(answer.text),
            Err(error) => match error.to_string().rsplit_once(TAKEN).map(|(_, next)| next.trim().parse()) {
                Some(Ok(next)) => number = next,
                _ => return Err(error),
            },
        }
    }
    bail!("terms are taken faster than they are asked for")
}

const TAKEN: &str = "is taken; the next is ";

/// An entry of the log in a line.
pub fn line(entry: &wire::LogEntry) -> String {
    let term = log::term(entry).map_or("?".to_owned(), |term| term.to_string());
    format!("{}\t{term}\t{}", entry.index, entry.what)
}

/// An administrator at work: with the admin key, near a server that knows the realm.
pub struct Promotion<'a> {
    /// The way to servers.
    pub env: &'a NetEnv,
    /// Who signs.
    pub admin: &'a Credentials,
    /// A server's directory, if there is one: what it knows, when nobody answers.
    pub dir: &'a std::path::Path,
    /// A server to ask: the SCM, or `--host`.
    pub near: &'a wire::Endpoint,
}

impl Promotion<'_> {
    /// The realm, as the server nearby knows it; when that one does not answer, as the store here does.
    async fn realm(&self) -> anyhow::Result<Realm> {
        match join::configuration(self.env, self.near).await {
            Ok(realm) => Ok(realm),
            Err(error) => match crate::store::RealmStore::look(self.dir).and_then(|store| store.load()) {
                Ok((_, realm)) => Ok(realm),
                Err(_) => Err(error.context("give --host with a server that answers")),
            },
        }
    }

    /// Makes the server of this name or id the SCM.
    pub async fn promote(&self, server: &str, without: &[String]) -> anyhow::Result<String> {
        let realm = self.realm().await?;
        let id = named(&realm, server)?;
        let without = without.iter().map(|name| Ok(named(&realm, name)?.0.into()));
        let without = without.collect::<anyhow::Result<Vec<u32>>>()?;
        let endpoints = &realm.servers[&id].endpoints;
        let endpoint = endpoints.iter().find(|endpoint| !endpoint.peer_only).or(endpoints.first());
        let endpoint = endpoint.with_context(|| format!("{server}: no endpoint is known"))?;
        promote(self.env, self.admin, endpoint, id, without).await
    }

    /// Takes over what was edited in a server's directory: first another SCM, then the lists, at the SCM.
    pub async fn import(
        &self,
        vicedir: &std::path::Path,
        dry_run: bool,
        without: &[String],
    ) -> anyhow::Result<String> {
        let mut realm = self.realm().await?;
        let edits = super::vice::edits(vicedir, &realm)?;
        let mut text = String::new();
        if let Some(scm) = edits.scm {
            text += &format!(
                "! the SCM is {}, was {}\n",
                realm.servers[&scm].name, realm.servers[&realm.scm].name
            );
            if !dry_run {
                text += &format!("{}\n", self.promote(&scm.to_string(), without).await?);
                realm.scm = scm;
            }
        }
        text.extend(edits.difference.iter().map(|line| format!("{line}\n")));
        if dry_run || edits.difference.is_empty() {
            return Ok(text);
        }
        let scm = realm.servers[&realm.scm].endpoints.iter().find(|endpoint| !endpoint.peer_only);
        let load =
            wire::LoadLocation { servers_file: edits.servers, vrlist_file: edits.vrlist, dry_run: false };
        let answer =
            join::administer(self.env, scm.context("the SCM has no endpoint")?, Ask::LoadLocation(load))
                .await?;
        let known = edits.difference.len();
        text.extend(answer.text.lines().skip(known).map(|line| format!("{line}\n")));
        Ok(text)
    }
}

fn named(realm: &Realm, text: &str) -> anyhow::Result<ServerId> {
    let found = realm.servers.iter().find(|(id, info)| info.name == text || id.to_string() == text);
    found.map(|(id, _)| *id).with_context(|| format!("{text}: no such server in {}", realm.name))
}

//! `server.db`: who this server is and where everything of its realm is.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use coda_proto::{
    Acl, Malformed, ServerId, VolumeId,
    planted::{Bug, planted},
    wire,
};
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    rows::{message, signed, unsigned},
    schema, tables,
};
use crate::{
    config::Durability,
    location::{
        Chronicle, Realm, Term, VolumeEntry,
        log::{Step, beginning},
    },
};

/// A place for one further server, until its token is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// What the new server must present.
    pub token: String,
    /// The id it gets.
    pub server: ServerId,
    /// Its name.
    pub name: String,
}

/// The open database.
pub struct RealmStore {
    db: Mutex<Connection>,
}

#[derive(Serialize, Deserialize)]
struct EndpointRow {
    host: String,
    port: u16,
    #[serde(default)]
    peer_only: bool,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("server.db")
}

impl RealmStore {
    /// Makes the database of a new server, whose log begins with the realm as it is.
    pub fn create(
        dir: &Path,
        own: ServerId,
        realm: &Realm,
        durability: Durability,
    ) -> Result<(), StoreError> {
        RealmStore::create_with(dir, own, realm, &[beginning(realm)], durability)
    }

    /// The same with the log that leads to this realm.
    pub fn create_with(
        dir: &Path,
        own: ServerId,
        realm: &Realm,
        log: &[wire::LogEntry],
        durability: Durability,
    ) -> Result<(), StoreError> {
        std::fs::create_dir_all(dir).map_err(StoreError::io(dir))?;
        if path(dir).exists() {
            return Err(StoreError::Exists(dir.to_owned()));
        }
        // Tokens are in it; SQLite gives its log the same mode.
        let file = path(dir);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .map_err(StoreError::io(&file))?;
        let mut db = schema::open(&path(dir), &tables::REALM, durability)?;
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("INSERT INTO identity VALUES (1, ?1, '', 0, 0, '', 0, x'')", params![own.0])?;
        write(&transaction, realm)?;
        log.iter().try_for_each(|entry| append(&transaction, entry))?;
        transaction.commit()?;
        Ok(())
    }

    /// Opens it, and notes the incarnation drawn for this start.
    pub fn open(dir: &Path, incarnation: u64, durability: Durability) -> Result<RealmStore, StoreError> {
        if !path(dir).exists() {
            return Err(StoreError::none_in(dir));
        }
        let db = schema::open(&path(dir), &tables::REALM, durability)?;
        db.execute("UPDATE identity SET incarnation = ?1", [signed(incarnation)])?;
        Ok(RealmStore { db: Mutex::new(db) })
    }

    /// Opens it for a look, changing nothing. (One of an earlier version is brought up to date first.)
    pub fn look(dir: &Path) -> Result<RealmStore, StoreError> {
        if !path(dir).exists() {
            return Err(StoreError::none_in(dir));
        }
        schema::migrate(&path(dir), &tables::REALM)?;
        Ok(RealmStore { db: Mutex::new(schema::open_for_reading(&path(dir))?) })
    }

    /// Who this server is, and its realm.
    pub fn load(&self) -> Result<(ServerId, Realm), StoreError> {
        let db = self.db.lock().expect("never held across a panic");
        let (own, name, scm, config, root_volume, high) =
            db.query_row("SELECT server, realm, scm, config, root_volume, high FROM identity", [], |row| {
                Ok((
                    row.get::<_, u32>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, u32>(2)?,
                    row.get::<_, i64>(3)?,
                    row.get::<_, String>(4)?,
                    row.get::<_, Vec<u8>>(5)?,
                ))
            })?;
        let mut servers = BTreeMap::new();
        let mut query = db.prepare("SELECT id, name, endpoints FROM server ORDER BY id")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let id = ServerId::new(row.get(0)?)?;
            let endpoints: String = row.get(2)?;
            servers.insert(
                id,
                wire::ServerInfo {
                    id: id.0.into(),
                    name: row.get(1)?,
                    endpoints: endpoints_from(&endpoints)?,
                },
            );
        }
        let mut volumes = BTreeMap::new();
        let mut query = db.prepare("SELECT id, name, epoch, acl, more FROM volume ORDER BY id")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let id: u32 = row.get(0)?;
            let acl: String = row.get(3)?;
            let info = wire::VolumeInfo {
                id,
                name: row.get(1)?,
                epoch: unsigned(row.get(2)?),
                members: members(&db, id)?,
            };
            let more: Vec<u8> = row.get(4)?;
            let more = message(&more, "volume")?;
            volumes.insert(VolumeId(id), VolumeEntry { info, acl: Acl::from_text(&acl)?, more });
        }
        let realm = Realm {
            name,
            scm: ServerId::new(scm)?,
            config: unsigned(config),
            root_volume,
            servers,
            volumes,
            high: message(&high, "ids given")?,
        };
        Ok((ServerId::new(own)?, realm))
    }

    /// The realm's log. A database from before there were logs begins one.
    pub fn chronicle(&self, realm: &Realm) -> Result<Chronicle, StoreError> {
        let mut db = self.db.lock().expect("never held across a panic");
        let mut entries = entries(&db, "SELECT entry FROM log ORDER BY idx")?;
        if entries.is_empty() {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            append(&transaction, &beginning(realm))?;
            transaction.commit()?;
            entries.push(beginning(realm));
        }
        let promised = db
            .query_row("SELECT term, writer FROM promise", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let promised = match promised {
            Some((number, writer)) => Some(Term { number: unsigned(number), scm: ServerId::new(writer)? }),
            None => None,
        };
        Chronicle::of(entries, promised)
            .map_err(|why| Malformed::new("the realm's log", why.to_string()).into())
    }

    /// Takes a step of the log, and the realm that it leads to, in one transaction. What the step cuts off is
    /// kept aside.
    pub fn follow(&self, chronicle: &Chronicle, step: &Step, realm: &Realm) -> Result<(), StoreError> {
        let mut db = self.db.lock().expect("never held across a panic");
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for entry in &chronicle.entries()[step.keep..] {
            transaction.execute("INSERT INTO given_up(entry) VALUES (?1)", params![entry.encode_to_vec()])?;
            transaction.execute("DELETE FROM log WHERE idx = ?1", [signed(entry.index)])?;
        }
        step.entries.iter().try_for_each(|entry| append(&transaction, entry))?;
        let promised = match planted(Bug::ForgetsPromise) {
            true => chronicle.term(),
            false => step.promised,
        };
        transaction.execute(
            "INSERT OR REPLACE INTO promise VALUES (1, ?1, ?2)",
            params![signed(promised.number), promised.scm.0],
        )?;
        write(&transaction, realm)?;
        transaction.commit()?;
        Ok(())
    }

    /// Entries of the log that were given up when another log took their place.
    pub fn given_up(&self) -> Result<Vec<wire::LogEntry>, StoreError> {
        let db = self.db.lock().expect("never held across a panic");
        entries(&db, "SELECT entry FROM given_up ORDER BY nr")
    }

    /// Keeps a place for a further server.
    pub fn invite(&self, invitation: &Invitation) -> Result<(), StoreError> {
        let db = self.db.lock().expect("never held across a panic");
        db.execute("DELETE FROM invitation WHERE server = ?1", [invitation.server.0])?;
        db.execute(
            "INSERT INTO invitation VALUES (?1, ?2, ?3)",
            params![invitation.token, invitation.server.0, invitation.name],
        )?;
        Ok(())
    }

    /// The places kept.
    pub fn invitations(&self) -> Result<Vec<Invitation>, StoreError> {
        let db = self.db.lock().expect("never held across a panic");
        let mut query = db.prepare("SELECT token, server, name FROM invitation ORDER BY server")?;
        let mut rows = query.query([])?;
        let mut invitations = Vec::new();
        while let Some(row) = rows.next()? {
            let server = ServerId::new(row.get(1)?)?;
            invitations.push(Invitation { token: row.get(0)?, server, name: row.get(2)? });
        }
        Ok(invitations)
    }

    /// Uses up a token.
    pub fn take_invitation(&self, token: &str) -> Result<Option<Invitation>, StoreError> {
        let db = self.db.lock().expect("never held across a panic");
        let taken = db
            .query_row("DELETE FROM invitation WHERE token = ?1 RETURNING server, name", [token], |row| {
                Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        match taken {
            Some((server, name)) => {
                Ok(Some(Invitation { token: token.to_owned(), server: ServerId::new(server)?, name }))
            }
            None => Ok(None),
        }
    }
}

fn append(db: &Transaction<'_>, entry: &wire::LogEntry) -> Result<(), StoreError> {
    db.execute("INSERT INTO log VALUES (?1, ?2)", params![signed(entry.index), entry.encode_to_vec()])?;
    Ok(())
}

fn entries(db: &Connection, query: &str) -> Result<Vec<wire::LogEntry>, StoreError> {
    let mut query = db.prepare(query)?;
    let mut rows = query.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let bytes: Vec<u8> = row.get(0)?;
        let entry = wire::LogEntry::decode(&bytes[..])
            .map_err(|error| Malformed::new("entry of the realm's log", error.to_string()))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn write(db: &Transaction<'_>, realm: &Realm) -> Result<(), StoreError> {
    db.execute(
        "UPDATE identity SET realm = ?1, scm = ?2, config = ?3, root_volume = ?4, high = ?5",
        params![realm.name, realm.scm.0, signed(realm.config), realm.root_volume, realm.high.encode_to_vec()],
    )?;
    db.execute_batch("DELETE FROM server; DELETE FROM member; DELETE FROM volume")?;
    for (id, info) in &realm.servers {
        db.execute(
            "INSERT INTO server VALUES (?1, ?2, ?3)",
            params![id.0, info.name, endpoints_text(&info.endpoints)],
        )?;
    }
    for (id, volume) in &realm.volumes {
        db.execute(
            "INSERT INTO volume VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                id.0,
                volume.info.name,
                signed(volume.info.epoch),
                volume.acl.to_text(),
                volume.more.encode_to_vec()
            ],
        )?;
        for member in &volume.info.members {
            db.execute(
                "INSERT INTO member VALUES (?1, ?2, ?3, ?4, ?5)",
                params![id.0, member.slot, member.replica, member.server, member.state],
            )?;
        }
    }
    Ok(())
}

fn members(db: &Connection, volume: u32) -> Result<Vec<wire::Member>, StoreError> {
    let mut query =
        db.prepare_cached("SELECT slot, replica, server, state FROM member WHERE volume = ?1 ORDER BY slot")?;
    let members = query.query_map([volume], |row| {
        Ok(wire::Member { slot: row.get(0)?, replica: row.get(1)?, server: row.get(2)?, state: row.get(3)? })
    })?;
    Ok(members.collect::<Result<_, _>>()?)
}

fn endpoints_text(endpoints: &[wire::Endpoint]) -> String {
    let rows: Vec<EndpointRow> = endpoints
        .iter()
        .map(|endpoint| EndpointRow {
            host: endpoint.host.clone(),
            port: endpoint.port as u16,
            peer_only: endpoint.peer_only,
        })
        .collect();
    serde_json::to_string(&rows).expect("strings and numbers are always JSON")
}

fn endpoints_from(text: &str) -> Result<Vec<wire::Endpoint>, StoreError> {
    let rows: Vec<EndpointRow> =
        serde_json::from_str(text).map_err(|error| Malformed::new("endpoints", error.to_string()))?;
    Ok(rows
        .into_iter()
        .map(|row| wire::Endpoint { host: row.host, port: row.port.into(), peer_only: row.peer_only })
        .collect())
}

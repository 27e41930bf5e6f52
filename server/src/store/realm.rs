//! `server.db`: who this server is and where everything of its realm is.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use coda_proto::{Acl, Malformed, ServerId, VolumeId, wire};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    rows::{signed, unsigned},
    schema, tables,
};
use crate::{
    config::Durability,
    location::{Realm, VolumeEntry},
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
    /// Makes the database of a new server.
    pub fn create(
        dir: &Path,
        own: ServerId,
        realm: &Realm,
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
        transaction.execute("INSERT INTO identity VALUES (1, ?1, '', 0, 0, '', 0)", params![own.0])?;
        write(&transaction, realm)?;
        transaction.commit()?;
        Ok(())
    }

    /// Opens it, and notes the incarnation drawn for this start.
    pub fn open(dir: &Path, incarnation: u64, durability: Durability) -> Result<RealmStore, StoreError> {
        if !path(dir).exists() {
            return Err(StoreError::Missing(dir.to_owned()));
        }
        let db = schema::open(&path(dir), &tables::REALM, durability)?;
        db.execute("UPDATE identity SET incarnation = ?1", [signed(incarnation)])?;
        Ok(RealmStore { db: Mutex::new(db) })
    }

    /// Opens it for a look, changing nothing.
    pub fn look(dir: &Path) -> Result<RealmStore, StoreError> {
        if !path(dir).exists() {
            return Err(StoreError::Missing(dir.to_owned()));
        }
        Ok(RealmStore { db: Mutex::new(schema::open_for_reading(&path(dir))?) })
    }

    /// Who this server is, and its realm.
    pub fn load(&self) -> Result<(ServerId, Realm), StoreError> {
        let db = self.db.lock().expect("never held across a panic");
        let (own, name, scm, config, root_volume) =
            db.query_row("SELECT server, realm, scm, config, root_volume FROM identity", [], |row| {
                Ok((
                    row.get::<_, u32>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, u32>(2)?,
                    row.get::<_, i64>(3)?,
                    row.get::<_, String>(4)?,
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
        let mut query = db.prepare("SELECT id, name, epoch, acl FROM volume ORDER BY id")?;
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
            volumes.insert(VolumeId(id), VolumeEntry { info, acl: Acl::from_text(&acl)? });
        }
        let realm =
            Realm { name, scm: ServerId::new(scm)?, config: unsigned(config), root_volume, servers, volumes };
        Ok((ServerId::new(own)?, realm))
    }

    /// Replaces the realm's configuration.
    pub fn save(&self, realm: &Realm) -> Result<(), StoreError> {
        let mut db = self.db.lock().expect("never held across a panic");
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        write(&transaction, realm)?;
        transaction.commit()?;
        Ok(())
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

fn write(db: &Transaction<'_>, realm: &Realm) -> Result<(), StoreError> {
    db.execute(
        "UPDATE identity SET realm = ?1, scm = ?2, config = ?3, root_volume = ?4",
        params![realm.name, realm.scm.0, signed(realm.config), realm.root_volume],
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
            "INSERT INTO volume VALUES (?1, ?2, ?3, ?4)",
            params![id.0, volume.info.name, signed(volume.info.epoch), volume.acl.to_text()],
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

//! The tables of the two kinds of database.

use super::schema::Schema;

/// `server.db`: who this server is, and the realm's configuration as it knows it.
pub const REALM: Schema = Schema {
    application: 0x436f_6453, // "CodS"
    version: 2,
    create: "
CREATE TABLE identity(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  server INTEGER NOT NULL, realm TEXT NOT NULL, scm INTEGER NOT NULL,
  config INTEGER NOT NULL, root_volume TEXT NOT NULL, incarnation INTEGER NOT NULL,
  high BLOB NOT NULL DEFAULT x'') STRICT;
CREATE TABLE server(id INTEGER PRIMARY KEY, name TEXT NOT NULL, endpoints TEXT NOT NULL) STRICT;
CREATE TABLE volume(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch INTEGER NOT NULL, acl TEXT NOT NULL,
  more BLOB NOT NULL DEFAULT x'') STRICT;
CREATE TABLE member(
  volume INTEGER NOT NULL REFERENCES volume(id) ON DELETE CASCADE,
  slot INTEGER NOT NULL, replica INTEGER NOT NULL UNIQUE, server INTEGER NOT NULL, state INTEGER NOT NULL,
  PRIMARY KEY(volume, slot)) STRICT, WITHOUT ROWID;
CREATE TABLE invitation(token TEXT PRIMARY KEY, server INTEGER NOT NULL, name TEXT NOT NULL) STRICT;
CREATE TABLE log(idx INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT;
-- entries that another log took the place of
CREATE TABLE given_up(nr INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT;
-- the highest term this server has promised itself to
CREATE TABLE promise(one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL, writer INTEGER NOT NULL) STRICT;
",
    steps: &["
CREATE TABLE log(idx INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT;
CREATE TABLE given_up(nr INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT;
CREATE TABLE promise(one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL, writer INTEGER NOT NULL) STRICT;
ALTER TABLE identity ADD COLUMN high BLOB NOT NULL DEFAULT x'';
ALTER TABLE volume ADD COLUMN more BLOB NOT NULL DEFAULT x'';
"],
};

/// `meta.db` of one volume replica.
pub const REPLICA: Schema = Schema {
    application: 0x436f_6456, // "CodV"
    version: 5,
    create: "
CREATE TABLE volume(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  id INTEGER NOT NULL, replica INTEGER NOT NULL, incarnation INTEGER NOT NULL,
  change_seq INTEGER NOT NULL, used INTEGER NOT NULL, created INTEGER NOT NULL,
  joined INTEGER NOT NULL, offline_message TEXT NOT NULL, motd TEXT NOT NULL) STRICT;
-- past and body are messages of the protocol (Past, ObjectState)
CREATE TABLE head(
  vnode INTEGER NOT NULL, uniq INTEGER NOT NULL, kind INTEGER NOT NULL,
  past BLOB NOT NULL, body BLOB NOT NULL, marked INTEGER NOT NULL,
  blocks INTEGER NOT NULL DEFAULT 0, change_seq INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(vnode, uniq)) STRICT;
CREATE INDEX head_change ON head(change_seq);
CREATE INDEX head_long ON head(vnode, uniq) WHERE length(past) > 128;
CREATE TABLE binding(
  dir_vnode INTEGER NOT NULL, dir_uniq INTEGER NOT NULL, name BLOB NOT NULL,
  uniq INTEGER NOT NULL, vnode INTEGER NOT NULL,
  origin_author INTEGER NOT NULL, origin_seq INTEGER NOT NULL,
  dots BLOB NOT NULL, derived INTEGER NOT NULL, shown INTEGER NOT NULL,
  PRIMARY KEY(dir_vnode, dir_uniq, name, uniq, vnode, origin_author, origin_seq)) STRICT, WITHOUT ROWID;
CREATE INDEX binding_target ON binding(vnode, uniq);
CREATE INDEX binding_derived ON binding(derived) WHERE derived;
-- how many bindings a directory shows, and how many of them are directories
CREATE TABLE directory(
  vnode INTEGER NOT NULL, uniq INTEGER NOT NULL, lamport INTEGER NOT NULL, entries INTEGER NOT NULL, directories INTEGER NOT NULL,
  PRIMARY KEY(vnode, uniq)) STRICT, WITHOUT ROWID;
CREATE TABLE tombstone(
  vnode INTEGER NOT NULL, uniq INTEGER NOT NULL,
  author INTEGER NOT NULL, seq INTEGER NOT NULL,
  origin_author INTEGER NOT NULL, origin_seq INTEGER NOT NULL,
  dir_vnode INTEGER NOT NULL, dir_uniq INTEGER NOT NULL, name BLOB NOT NULL, lamport INTEGER NOT NULL,
  seen BLOB NOT NULL, renamed INTEGER NOT NULL, everywhere INTEGER NOT NULL DEFAULT 0,
  noticed INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(vnode, uniq, author, seq, origin_author, origin_seq)) STRICT, WITHOUT ROWID;
CREATE INDEX tombstone_dot ON tombstone(author, seq);
CREATE INDEX tombstone_dir ON tombstone(dir_vnode, dir_uniq);
CREATE INDEX tombstone_age ON tombstone(noticed, lamport);
-- bytes of one sibling: either here or in a container
CREATE TABLE content(
  vnode INTEGER NOT NULL, uniq INTEGER NOT NULL, author INTEGER NOT NULL, seq INTEGER NOT NULL,
  length INTEGER NOT NULL, hash BLOB NOT NULL, bytes BLOB, container TEXT,
  PRIMARY KEY(vnode, uniq, author, seq), CHECK ((bytes IS NULL) <> (container IS NULL))) STRICT;
CREATE INDEX content_hash ON content(hash);
CREATE INDEX content_container ON content(container) WHERE container IS NOT NULL;
-- containers that no row names any more
CREATE TABLE garbage(container TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE upload(
  handle BLOB PRIMARY KEY, instance BLOB NOT NULL, length INTEGER NOT NULL, hash BLOB NOT NULL,
  container TEXT NOT NULL, complete INTEGER NOT NULL, created INTEGER NOT NULL) STRICT, WITHOUT ROWID;
-- authors of which nothing is taken any more, in the order in which this member heard of them
CREATE TABLE retired(
  nr INTEGER PRIMARY KEY AUTOINCREMENT, author INTEGER NOT NULL UNIQUE, stamp INTEGER NOT NULL) STRICT;
CREATE INDEX retired_stamp ON retired(stamp);
-- the others that write, the last number of each, and when that was noticed
CREATE TABLE writer(author INTEGER PRIMARY KEY, seq INTEGER NOT NULL, noticed INTEGER NOT NULL) STRICT;
CREATE INDEX writer_noticed ON writer(noticed);
CREATE TABLE retirement(
  one INTEGER PRIMARY KEY CHECK (one = 1), promised INTEGER NOT NULL, complete INTEGER NOT NULL,
  included INTEGER NOT NULL, scanned INTEGER NOT NULL, own INTEGER NOT NULL) STRICT;
INSERT INTO retirement VALUES (1, 0, 0, 0, 0, 0);
-- what we have seen of a peer's replica, and what it has said to include of ours (with how far it was then);
-- how much of its list of retired authors, and how far it had come with them in which epoch of the group
CREATE TABLE peer(
  server INTEGER PRIMARY KEY, incarnation INTEGER NOT NULL, seen INTEGER NOT NULL,
  acked INTEGER NOT NULL DEFAULT 0, acked_at INTEGER NOT NULL DEFAULT 0,
  retired INTEGER NOT NULL DEFAULT 0, epoch INTEGER NOT NULL DEFAULT 0, promised INTEGER NOT NULL DEFAULT 0,
  complete INTEGER NOT NULL DEFAULT 0, included INTEGER NOT NULL DEFAULT 0) STRICT;
-- earlier starts of this store, and how far it had come when the next began
CREATE TABLE incarnation(incarnation INTEGER PRIMARY KEY, upto INTEGER NOT NULL) STRICT;
-- contents that were damaged here: their version stays, their bytes are to come from a peer
CREATE TABLE lost(
  vnode INTEGER NOT NULL, uniq INTEGER NOT NULL, author INTEGER NOT NULL, seq INTEGER NOT NULL,
  length INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY(vnode, uniq, author, seq)) STRICT, WITHOUT ROWID;
CREATE TABLE scrubber(one INTEGER PRIMARY KEY CHECK (one = 1), place INTEGER NOT NULL) STRICT;
INSERT INTO scrubber VALUES (1, 0);
-- what files were before they were written, in the order in which that was, and the bytes of all of it
CREATE TABLE former(
  nr INTEGER PRIMARY KEY AUTOINCREMENT, vnode INTEGER NOT NULL, uniq INTEGER NOT NULL,
  author INTEGER NOT NULL, seq INTEGER NOT NULL, length INTEGER NOT NULL, hash BLOB NOT NULL,
  mtime INTEGER NOT NULL, host TEXT NOT NULL, seen BLOB NOT NULL, bytes BLOB, container TEXT,
  noticed INTEGER NOT NULL DEFAULT 0, UNIQUE(vnode, uniq, author, seq)) STRICT;
CREATE INDEX former_container ON former(container) WHERE container IS NOT NULL;
CREATE INDEX former_age ON former(noticed);
CREATE TABLE kept(
  one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL, remains INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO kept VALUES (1, 0, 0);
-- what the authors of versions had seen of their files
CREATE TABLE seen(
  vnode INTEGER NOT NULL, uniq INTEGER NOT NULL, author INTEGER NOT NULL, seq INTEGER NOT NULL, past BLOB NOT NULL,
  PRIMARY KEY(vnode, uniq, author, seq)) STRICT, WITHOUT ROWID;
-- removed files whose contents are kept for whoever brings them back, in the order in which they went
CREATE TABLE remains(
  nr INTEGER PRIMARY KEY AUTOINCREMENT, vnode INTEGER NOT NULL, uniq INTEGER NOT NULL, bytes INTEGER NOT NULL,
  UNIQUE(vnode, uniq)) STRICT;
",
    steps: &[
        // Versions of peers' stores could be told apart before, but not followed across their restarts.
        "
ALTER TABLE tombstone ADD COLUMN noticed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tombstone_dir ON tombstone(dir_vnode, dir_uniq);
CREATE INDEX tombstone_age ON tombstone(noticed, lamport);
ALTER TABLE peer ADD COLUMN acked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peer ADD COLUMN acked_at INTEGER NOT NULL DEFAULT 0;
CREATE TABLE incarnation(incarnation INTEGER PRIMARY KEY, upto INTEGER NOT NULL) STRICT;
CREATE TABLE lost(
  vnode INTEGER NOT NULL, uniq INTEGER NOT NULL, author INTEGER NOT NULL, seq INTEGER NOT NULL,
  length INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY(vnode, uniq, author, seq)) STRICT, WITHOUT ROWID;
CREATE TABLE scrubber(one INTEGER PRIMARY KEY CHECK (one = 1), place INTEGER NOT NULL) STRICT;
INSERT INTO scrubber VALUES (1, 0);
",
        // Nobody was retired before.
        "
DROP TABLE retired;
CREATE TABLE retired(
  nr INTEGER PRIMARY KEY AUTOINCREMENT, author INTEGER NOT NULL UNIQUE, stamp INTEGER NOT NULL) STRICT;
CREATE INDEX retired_stamp ON retired(stamp);
CREATE TABLE writer(author INTEGER PRIMARY KEY, seq INTEGER NOT NULL, noticed INTEGER NOT NULL) STRICT;
CREATE INDEX writer_noticed ON writer(noticed);
CREATE TABLE retirement(
  one INTEGER PRIMARY KEY CHECK (one = 1), promised INTEGER NOT NULL, complete INTEGER NOT NULL,
  included INTEGER NOT NULL, scanned INTEGER NOT NULL, own INTEGER NOT NULL) STRICT;
INSERT INTO retirement VALUES (1, 0, 0, 0, 0, 0);
ALTER TABLE peer ADD COLUMN retired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peer ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peer ADD COLUMN promised INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peer ADD COLUMN complete INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peer ADD COLUMN included INTEGER NOT NULL DEFAULT 0;
CREATE INDEX head_long ON head(vnode, uniq) WHERE length(past) > 128;
",
        // What was replaced was gone before.
        "
-- what files were before they were written, in the order in which that was, and the bytes of all of it
CREATE TABLE former(
  nr INTEGER PRIMARY KEY AUTOINCREMENT, vnode INTEGER NOT NULL, uniq INTEGER NOT NULL,
  author INTEGER NOT NULL, seq INTEGER NOT NULL, length INTEGER NOT NULL, hash BLOB NOT NULL,
  mtime INTEGER NOT NULL, host TEXT NOT NULL, seen BLOB NOT NULL, bytes BLOB, container TEXT,
  noticed INTEGER NOT NULL DEFAULT 0, UNIQUE(vnode, uniq, author, seq)) STRICT;
CREATE INDEX former_container ON former(container) WHERE container IS NOT NULL;
CREATE INDEX former_age ON former(noticed);
CREATE TABLE kept(one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL) STRICT;
INSERT INTO kept VALUES (1, 0);
-- what the authors of versions had seen of their files
CREATE TABLE seen(
  vnode INTEGER NOT NULL, uniq INTEGER NOT NULL, author INTEGER NOT NULL, seq INTEGER NOT NULL, past BLOB NOT NULL,
  PRIMARY KEY(vnode, uniq, author, seq)) STRICT, WITHOUT ROWID;
",
        // What was removed was gone before.
        "
ALTER TABLE kept ADD COLUMN remains INTEGER NOT NULL DEFAULT 0;
CREATE TABLE remains(
  nr INTEGER PRIMARY KEY AUTOINCREMENT, vnode INTEGER NOT NULL, uniq INTEGER NOT NULL, bytes INTEGER NOT NULL,
  UNIQUE(vnode, uniq)) STRICT;
",
    ],
};

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::{config::Durability, store::schema};

    /// The tables of a replica as the first version made them.
    const FIRST: &str = "
CREATE TABLE volume(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  id INTEGER NOT NULL, replica INTEGER NOT NULL, incarnation INTEGER NOT NULL,
  change_seq INTEGER NOT NULL, used INTEGER NOT NULL, created INTEGER NOT NULL,
  joined INTEGER NOT NULL, offline_message TEXT NOT NULL, motd TEXT NOT NULL) STRICT;
CREATE TABLE tombstone(
  vnode INTEGER NOT NULL, uniq INTEGER NOT NULL,
  author INTEGER NOT NULL, seq INTEGER NOT NULL,
  origin_author INTEGER NOT NULL, origin_seq INTEGER NOT NULL,
  dir_vnode INTEGER NOT NULL, dir_uniq INTEGER NOT NULL, name BLOB NOT NULL, lamport INTEGER NOT NULL,
  seen BLOB NOT NULL, renamed INTEGER NOT NULL, everywhere INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(vnode, uniq, author, seq, origin_author, origin_seq)) STRICT, WITHOUT ROWID;
CREATE INDEX tombstone_dot ON tombstone(author, seq);
CREATE TABLE head(
  vnode INTEGER NOT NULL, uniq INTEGER NOT NULL, kind INTEGER NOT NULL,
  past BLOB NOT NULL, body BLOB NOT NULL, marked INTEGER NOT NULL,
  blocks INTEGER NOT NULL DEFAULT 0, change_seq INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(vnode, uniq)) STRICT;
CREATE INDEX head_change ON head(change_seq);
CREATE TABLE retired(author INTEGER PRIMARY KEY) STRICT;
CREATE TABLE peer(server INTEGER PRIMARY KEY, incarnation INTEGER NOT NULL, seen INTEGER NOT NULL) STRICT;
";

    /// Tables and indexes with their columns, without how they were written down.
    fn shape(db: &Connection) -> Vec<(String, String)> {
        let mut query = db
            .prepare(
                "SELECT m.name, c.name FROM sqlite_master m, pragma_table_xinfo(m.name) c \
                 WHERE m.type IN ('table', 'index') ORDER BY 1, 2",
            )
            .unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_replica_of_the_first_version_becomes_one_of_this() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old.db"), dir.path().join("new.db"));
        let first =
            schema::Schema { application: REPLICA.application, version: 1, create: FIRST, steps: &[] };
        drop(schema::open(&old, &first, Durability::Process).unwrap());
        let migrated = shape(&schema::open(&old, &REPLICA, Durability::Process).unwrap());
        let made = shape(&schema::open(&new, &REPLICA, Durability::Process).unwrap());
        let changed = |(table, _): &&(String, String)| {
            [
                "tombstone",
                "peer",
                "incarnation",
                "lost",
                "scrubber",
                "head",
                "retire",
                "writer",
                "former",
                "kept",
                "remains",
                "seen",
            ]
            .iter()
            .any(|name| table.starts_with(name))
        };
        let of = |all: &[(String, String)]| all.iter().filter(changed).cloned().collect::<Vec<_>>();
        assert_eq!(of(&migrated), of(&made));
        assert!(made.len() > migrated.len(), "the first version is not whole here");
    }
}

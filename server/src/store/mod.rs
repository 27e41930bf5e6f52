//! What a server keeps. Nothing outside this folder writes SQL or names a container.
//!
//! ```text
//!  <dir>/lock                      held by the one server that uses the store
//!  <dir>/server.db                 identity; servers, volumes and members of the realm
//!  <dir>/vol/<replica>/meta.db     one replica: heads, bindings, tombstones, small contents, what files were
//!  <dir>/vol/<replica>/data/ab/…   containers, immutable, with random names
//!  <dir>/vol/<replica>/tmp/…       uploads in progress
//!  <dir>/stage/<token>/…           a replica that is being made aside
//!  <dir>/removed/<replica>-…       a replica that left its group, to be looked at or removed
//! ```

mod collect;
mod containers;
mod error;
mod exposed;
mod former;
pub mod fsck;
mod lock;
mod lost;
mod realm;
mod remains;
pub mod repair;
mod replica;
mod retired;
pub mod rows;
pub mod schema;
mod stage;
mod tables;
#[cfg(test)]
mod trying;
mod txn;
mod view;

pub use collect::{Due, Left};
pub use containers::Containers;
pub use error::StoreError;
pub use former::Former;
pub use lock::StoreLock;
pub use lost::{LostRow, StoredRow};
pub use realm::{Invitation, RealmStore};
pub use replica::{Batch, NewReplica, Replica, Space, has_replicas, put_away, replica_dir};
pub use retired::{Foldable, Folded, LONG, Marks, RetiredRow};
pub use stage::{NOWHERE, Stage, clear_stages};
pub use txn::Txn;
pub use view::{Bytes, Content, PeerRow, Place, UploadRow, View, VolumeRow};

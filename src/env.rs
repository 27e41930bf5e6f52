//! The doors through which the world comes in.
//!
//! [`Env`] brings the network, time and chance; [`Containers`] the files that hold contents. The shell
//! implements them with QUIC and a directory, the simulator with a seed. Nothing else in the core reads
//! a clock, a socket, an environment variable or a disk, but for the SQLite database under `store`.
//! Waiting is done with `tokio::time`, whose clock the simulator owns.

use std::{io, sync::Arc};

use bytes::Bytes;
pub use coda_proto::service::{BoxFuture, CallError, Priority};
use coda_proto::wire;

/// Where a server can be reached, and whose certificate it must show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The realm whose authority must have signed the server's certificate.
    pub realm: String,
    /// An address, or a name that the host can resolve.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

/// An answer with its bulk bytes.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The message.
    pub response: wire::Response,
    /// What came behind it.
    pub bulk: Bytes,
}

/// One long-lived stream to a server: its events in order, and our acknowledgements back.
pub trait SessionStream: Send {
    /// The next event. An error ends the session. Dropping the future loses nothing: whoever asks again
    /// gets the event that was under way.
    fn next(&mut self) -> BoxFuture<'_, Result<wire::Event, CallError>>;
    /// Acknowledges events up to `seq`, or pings.
    fn say(&mut self, word: wire::ClientWord) -> BoxFuture<'_, Result<(), CallError>>;
}

/// An open session: what the server said, and the stream of its events.
pub type Session = (wire::Welcome, Box<dyn SessionStream>);

/// The network, time and chance.
pub trait Env: Send + Sync + 'static {
    /// One call: the answer, or why there is none. Gives up when the server has shown no sign of life on
    /// this call for `silence`. Dropping the future abandons the call.
    fn call(
        &self,
        to: &Endpoint,
        request: wire::Request,
        bulk: Bytes,
        priority: Priority,
        silence: std::time::Duration,
    ) -> BoxFuture<'static, Result<Answer, CallError>>;

    /// Opens a session. Calls to the same endpoint that carry the session's number belong to it.
    fn session(
        &self,
        to: &Endpoint,
        hello: wire::Hello,
        silence: std::time::Duration,
    ) -> BoxFuture<'static, Result<Session, CallError>>;

    /// The servers that may know a realm, best first, shuffled within equals: the realms file, then SRV,
    /// then address records. An empty answer: the realm is unknown. An error: nobody could be asked.
    fn locate(&self, realm: &str) -> BoxFuture<'static, Result<Vec<Endpoint>, String>>;

    /// The wall clock, in nanoseconds since 1970. For file times only: never for ordering or waiting.
    fn now(&self) -> i64;

    /// 64 random bits.
    fn random(&self) -> u64;

    /// How long this machine has slept since it was started: time that `tokio::time` does not count.
    fn asleep(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    /// The machine has slept: connections may lead nowhere any more, and calls look for new ones.
    fn woke(&self) {}

    /// Runs a task until it ends.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// A local process, as far as it matters who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its name, as the kernel cuts it.
    pub name: String,
    /// The process that started it; 0: none.
    pub parent: u32,
    /// Its own number, where it was asked for by that of a thread.
    pub leader: u32,
}

/// Looks a process up by its number or that of a thread. Called at a miss only.
pub type Processes = fn(u32) -> Option<Process>;

/// An open container: random access, by whoever holds it.
pub trait Container: Send + Sync {
    /// Reads at `offset`; fewer bytes than asked only at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Cuts or extends with zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Makes what was written survive power loss.
    fn sync(&self) -> io::Result<()>;
    /// Changes whenever the contents may have changed: (length, modification time in ns, change time in ns).
    fn snapshot(&self) -> io::Result<(u64, i64, i64)>;
    /// The file underneath, where there is one: for passthrough, `lseek`, `fallocate`.
    fn file(&self) -> Option<&std::fs::File>;
    /// Where the next bytes are that were written, from `offset` on; before them are zeros. Behind the last, the
    /// length.
    fn next_data(&self, offset: u64) -> io::Result<u64> {
        Ok(offset.min(self.length()?))
    }
}

/// The files that hold contents. Names are numbers from an internal counter.
pub trait Containers: Send + Sync + 'static {
    /// Makes an empty container. An existing one of that name is emptied.
    fn create(&self, name: u64) -> io::Result<Arc<dyn Container>>;
    /// Opens one for reading and writing.
    fn open(&self, name: u64) -> io::Result<Arc<dyn Container>>;
    /// Makes `to` an independent copy of `from` (a reflink where possible).
    fn copy(&self, from: u64, to: u64) -> io::Result<Arc<dyn Container>>;
    /// Removes one, or keeps it for recycling. A missing one is no error.
    fn remove(&self, name: u64) -> io::Result<()>;
    /// All names, in no order.
    fn list(&self) -> io::Result<Vec<u64>>;
    /// Moves a container out of the cache into the spool, where people find it: `label` becomes part of
    /// its name. Answers where it is.
    fn spool(&self, name: u64, label: &str) -> io::Result<String>;
    /// Where the spool is, and how many such files lie in it.
    fn spooled(&self) -> io::Result<(String, u64)> {
        Ok((String::new(), 0))
    }
    /// Bytes free on the disk underneath.
    fn free(&self) -> io::Result<u64>;
    /// Makes a file beside the containers survive power loss: what the database has yet to take in.
    fn sync_beside(&self, path: &std::path::Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_data()
    }
}

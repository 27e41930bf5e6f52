//! Callbacks: a server's promise to tell before something changes, and the events that carry it.
//!
//! Events of a session are numbered from 1. A break is acknowledged only after the cache has marked what
//! it names, because the server lets the other client's mutation succeed upon it.

use tokio::sync::oneshot;

/// Says that an event's consequences are in place. Dropped unsaid, the event counts as not received: the
/// server fences us, and every promise of it is void.
#[derive(Debug)]
pub struct Ack(oneshot::Sender<()>);

impl Ack {
    /// An acknowledgement, and where it arrives.
    pub fn new() -> (Ack, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Ack(sender), receiver)
    }

    /// The cache is marked: the server may go on.
    pub fn done(self) {
        // Nobody waits any more if the session ended meanwhile.
        let _ = self.0.send(());
    }
}

/// What an event's number says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// A ping: not counted.
    Uncounted,
    /// The next one.
    Next,
    /// Seen already; after a resumption.
    Repeated,
    /// Some are missing: a break may be among them.
    Gap,
}

/// Compares an event's number with the last one seen.
pub fn numbering(last: u64, seq: u64) -> Numbering {
    match seq {
        0 => Numbering::Uncounted,
        seq if seq <= last => Numbering::Repeated,
        seq if seq == last + 1 => Numbering::Next,
        _ => Numbering::Gap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_event_is_noticed() {
        assert_eq!(numbering(0, 0), Numbering::Uncounted);
        assert_eq!(numbering(0, 1), Numbering::Next);
        assert_eq!(numbering(4, 4), Numbering::Repeated);
        assert_eq!(numbering(4, 5), Numbering::Next);
        assert_eq!(numbering(4, 6), Numbering::Gap);
    }
}

//! When to meet whom: decisions over times, without a clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use coda_proto::{Dot, ServerId};
use tokio::time::Instant;

/// Between meetings of members that think they are equal.
const REGULAR: Duration = Duration::from_secs(600);
/// After a local change that nobody has said every member holds.
const AFTER_CHANGE: Duration = Duration::from_secs(5);
/// The longest wait before an unreachable peer is asked again.
const LONGEST_RETRY: Duration = Duration::from_secs(15);
/// Changes of which we remember that somebody must have missed them.
const REMEMBERED: usize = 10_000;

/// The meetings ahead.
#[derive(Default)]
pub(super) struct Schedule {
    peers: BTreeMap<ServerId, Peer>,
    /// Local changes that not every member is known to hold.
    unreported: BTreeSet<Dot>,
    /// When the oldest of them leads to a meeting.
    report_at: Option<Instant>,
}

/// A peer never met is due.
#[derive(Clone, Copy, Default)]
struct Peer {
    at: Option<Instant>,
    failures: u32,
    /// Asked for since the last meeting began.
    asked: bool,
    /// A meeting is being held.
    meeting: bool,
}

impl Schedule {
    /// Answers whether the next meeting is sooner by that.
    pub(super) fn changed(&mut self, dots: impl IntoIterator<Item = Dot>, now: Instant) -> bool {
        self.unreported.extend(dots);
        while self.unreported.len() > REMEMBERED {
            self.unreported.pop_first();
        }
        let sooner = !self.unreported.is_empty() && self.report_at.is_none();
        if sooner {
            self.report_at = Some(now + AFTER_CHANGE);
        }
        sooner
    }

    pub(super) fn held_everywhere(&mut self, dots: &[Dot]) {
        for dot in dots {
            self.unreported.remove(dot);
        }
        if self.unreported.is_empty() {
            self.report_at = None;
        }
    }

    pub(super) fn all_now(&mut self, now: Instant) {
        self.peers.values_mut().for_each(|peer| (peer.at, peer.asked) = (Some(now), true));
    }

    pub(super) fn now_with(&mut self, peer: ServerId, now: Instant) {
        let peer = self.peers.entry(peer).or_default();
        (peer.at, peer.asked) = (Some(now), true);
    }

    /// Answers whether the next meeting is sooner by that.
    pub(super) fn unless_meeting(&mut self, peer: ServerId, now: Instant) -> bool {
        let peer = self.peers.entry(peer).or_default();
        let sooner = !peer.meeting && peer.at.is_some_and(|at| at > now);
        if sooner {
            peer.at = Some(now);
        }
        sooner
    }

    /// Whether a peer could not be reached when last asked.
    pub(super) fn is_suspect(&self, peer: ServerId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.failures > 0)
    }

    /// Whom to meet now. Each is not due again before `met` says how it went.
    pub(super) fn due(&mut self, peers: impl Iterator<Item = ServerId>, now: Instant) -> Vec<ServerId> {
        if self.report_at.is_some_and(|at| at <= now) {
            self.report_at = None;
            self.unreported.clear();
            self.all_now(now);
        }
        let mut due = Vec::new();
        for server in peers {
            let peer = self.peers.entry(server).or_default();
            if !peer.meeting && peer.at.is_none_or(|at| at <= now) {
                (peer.asked, peer.meeting) = (false, true);
                due.push(server);
            }
        }
        due
    }

    /// When to look again.
    pub(super) fn next(&self, peers: impl Iterator<Item = ServerId>, now: Instant) -> Instant {
        let waiting = peers.filter_map(|peer| self.peers.get(&peer)).filter(|peer| !peer.meeting);
        waiting.filter_map(|peer| peer.at).chain(self.report_at).min().unwrap_or(now + REGULAR)
    }

    /// A meeting has ended. One that was asked for again meanwhile is held again.
    pub(super) fn met(&mut self, peer: ServerId, well: bool, now: Instant) {
        let peer = self.peers.entry(peer).or_default();
        peer.meeting = false;
        peer.failures = if well { 0 } else { peer.failures.saturating_add(1) };
        let wait = match (well, peer.asked) {
            (true, true) => Duration::ZERO,
            (true, false) => REGULAR,
            (false, _) => retry_after(peer.failures),
        };
        peer.at = Some(now + wait);
    }
}

fn retry_after(failures: u32) -> Duration {
    Duration::from_secs(1 << (failures - 1).min(10)).min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coda_proto::Author;

    const ONE: ServerId = ServerId(1);
    const TWO: ServerId = ServerId(2);

    fn peers() -> impl Iterator<Item = ServerId> {
        [ONE, TWO].into_iter()
    }

    fn start() -> Instant {
        // Any instant will do: the schedule only adds to it.
        #[allow(clippy::disallowed_methods)]
        std::time::Instant::now().into()
    }

    #[test]
    fn everybody_is_met_at_the_start_and_then_every_ten_minutes() {
        let (mut schedule, now) = (Schedule::default(), start());
        assert_eq!(schedule.due(peers(), now), [ONE, TWO]);
        schedule.met(ONE, true, now);
        schedule.met(TWO, true, now);
        assert_eq!(schedule.due(peers(), now), []);
        assert_eq!(schedule.next(peers(), now), now + REGULAR);
        assert_eq!(schedule.due(peers(), now + REGULAR), [ONE, TWO]);
    }

    #[test]
    fn an_unreachable_peer_is_asked_again_soon_and_then_less_often() {
        let (mut schedule, now) = (Schedule::default(), start());
        let mut waits = Vec::new();
        for _ in 0..7 {
            schedule.met(ONE, false, now);
            waits.push(schedule.next([ONE].into_iter(), now).duration_since(now).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 15, 15, 15]);
    }

    #[test]
    fn a_meeting_asked_for_while_one_is_held_is_held_after_it() {
        let (mut schedule, now) = (Schedule::default(), start());
        assert_eq!(schedule.due([ONE].into_iter(), now), [ONE]);
        schedule.now_with(ONE, now);
        schedule.met(ONE, true, now);
        assert_eq!(schedule.due([ONE].into_iter(), now), [ONE]);
        schedule.met(ONE, true, now);
        assert_eq!(schedule.due([ONE].into_iter(), now), []);
    }

    #[test]
    fn who_has_yet_to_join_does_not_ask_for_the_meeting_that_is_being_held() {
        let (mut schedule, now) = (Schedule::default(), start());
        assert!(!schedule.unless_meeting(ONE, now), "it is due anyway");
        assert_eq!(schedule.due([ONE].into_iter(), now), [ONE]);
        assert!(!schedule.unless_meeting(ONE, now));
        schedule.met(ONE, false, now);
        assert!(schedule.unless_meeting(ONE, now));
        assert_eq!(schedule.due([ONE].into_iter(), now), [ONE]);
    }

    #[test]
    fn a_change_leads_to_a_meeting_unless_every_member_holds_it() {
        let (mut schedule, now) = (Schedule::default(), start());
        schedule.met(ONE, true, now);
        schedule.met(TWO, true, now);
        let dots = [Dot::new(Author(1), 1), Dot::new(Author(1), 2)];
        schedule.changed(dots, now);
        schedule.held_everywhere(&dots[..1]);
        assert_eq!(schedule.next(peers(), now), now + AFTER_CHANGE);
        assert_eq!(schedule.due(peers(), now + AFTER_CHANGE), [ONE, TWO]);

        let mut held = Schedule::default();
        held.met(ONE, true, now);
        held.met(TWO, true, now);
        held.changed(dots, now);
        held.held_everywhere(&dots);
        assert_eq!(held.due(peers(), now + AFTER_CHANGE), []);
    }
}

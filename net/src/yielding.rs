//! What is sent behind people's backs leaves a slow line usable.
//!
//! QUIC sends what somebody waits for ahead of the rest, but only on this side of the line. A sender that believes
//! in losses alone (CUBIC) fills the queue of the slowest router on the way before it notices anything, and on a
//! line of 1 Mbit/s everything then takes a second. So while nothing but background calls carries bulk, the window is
//! also bounded by delay: when even the fastest packet of a while took [`ALLOWED`] longer than one did through an empty
//! queue, less is kept under way. The idea is that of LEDBAT (RFC 6817), the measure of a standing queue that of Copa
//! (NSDI 2018). Others on the same line come first for as long as that lasts; calls that people wait for are bounded by
//! CUBIC only.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

/// How much longer the fastest packet may take than through an empty queue.
const ALLOWED: Duration = Duration::from_millis(20);
/// What is always allowed, in packets: one under way, one arriving, one whose acknowledgement waits for it.
const LEAST: u64 = 3;
/// What it begins with, in packets, as a new connection does.
const FIRST: u64 = 10;
/// The shortest time in which queues are judged.
const LOOK: Duration = Duration::from_millis(10);
/// So often the queue is let run empty, to see how long a packet takes then: paths change.
const AGAIN: Duration = Duration::from_secs(10);

/// What is being sent on a connection.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    background: AtomicUsize,
    foreground: AtomicUsize,
}

/// A call that carries bulk, for as long as this lives.
pub(crate) struct Carrying<'a>(&'a AtomicUsize);

impl Traffic {
    /// Notes that a call carries so many bytes of bulk. One that somebody waits for counts if it is more than a
    /// window's worth.
    pub(crate) fn carries(&self, background: bool, bulk: usize) -> Option<Carrying<'_>> {
        let (count, much) = match background {
            true => (&self.background, 1),
            false => (&self.foreground, 64 * 1024),
        };
        (bulk >= much).then(|| {
            count.fetch_add(1, Ordering::Relaxed);
            Carrying(count)
        })
    }

    fn yields(&self) -> bool {
        self.background.load(Ordering::Relaxed) > 0 && self.foreground.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes the controllers of one connection's paths.
pub(crate) struct Yielding(pub(crate) Arc<Traffic>);

impl ControllerFactory for Yielding {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let cubic = Cubic::new(Arc::new(CubicConfig::default()), now, mtu);
        Box::new(Bounded { cubic: Box::new(cubic), traffic: self.0.clone(), bound: None, mtu: mtu.into() })
    }
}

/// CUBIC, and the bound while it yields.
struct Bounded {
    cubic: Box<dyn Controller>,
    traffic: Arc<Traffic>,
    bound: Option<Bound>,
    mtu: u64,
}

impl Controller for Bounded {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        match (self.traffic.yields(), &self.bound) {
            (true, None) => self.bound = Some(Bound::new(now, self.mtu)),
            (false, Some(_)) => self.bound = None,
            _ => {}
        }
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
        if let Some(bound) = &mut self.bound {
            bound.acknowledged(now, sent, app_limited, self.cubic.window());
        }
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.cubic.on_congestion_event(now, sent, persistent, lost);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu.into();
        if let Some(bound) = &mut self.bound {
            bound.mtu = self.mtu;
        }
        self.cubic.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        let window = self.cubic.window();
        match &self.bound {
            Some(bound) if self.traffic.yields() => window.min(bound.window()),
            _ => window,
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Bounded {
            cubic: self.cubic.clone_box(),
            traffic: self.traffic.clone(),
            bound: self.bound.clone(),
            mtu: self.mtu,
        })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// How much may be under way without a queue that stands.
#[derive(Clone, Debug)]
struct Bound {
    bytes: u64,
    mtu: u64,
    /// The fastest packet of this look, since when, and how many there were.
    fastest: Duration,
    since: Instant,
    count: u32,
    /// Whether some of it was sent with the window full.
    full: bool,
    /// No queue was seen yet: it grows as fast as a new connection does.
    first: bool,
    /// The fastest packet of these ten seconds, and of the ten before.
    base: Duration,
    before: Duration,
    renewed: Instant,
    /// Since when the queue is running empty.
    draining: Option<Instant>,
}

impl Bound {
    fn new(now: Instant, mtu: u64) -> Bound {
        Bound {
            bytes: FIRST * mtu,
            mtu,
            fastest: Duration::MAX,
            since: now,
            count: 0,
            full: false,
            first: true,
            base: Duration::MAX,
            before: Duration::MAX,
            renewed: now,
            draining: None,
        }
    }

    fn window(&self) -> u64 {
        match self.draining {
            Some(_) => 2 * self.mtu,
            None => self.bytes.max(LEAST * self.mtu),
        }
    }

    /// A packet of then is acknowledged now, while the window for losses is `most`.
    fn acknowledged(&mut self, now: Instant, sent: Instant, idle: bool, most: u64) {
        let took = now.saturating_duration_since(sent);
        self.base = self.base.min(took);
        if let Some(since) = self.draining {
            // The first one that found the queue empty.
            if sent >= since {
                self.draining = None;
                self.look(now);
            }
            return;
        }
        // What was sent before tells of what was under way before.
        if sent < self.since {
            return;
        }
        self.fastest = self.fastest.min(took);
        self.count += 1;
        self.full |= !idle;
        if self.count < 2 || now.duration_since(self.since) < self.fastest.max(LOOK) {
            return;
        }
        let base = self.base.min(self.before);
        let under_way = self.window().min(most);
        let limit = base + ALLOWED;
        if self.fastest > limit {
            // With a queue that stands, what is under way is proportional to the time it takes.
            self.bytes = (under_way as f64 * limit.as_secs_f64() / self.fastest.as_secs_f64()) as u64;
        } else if self.full {
            self.first &= self.fastest < base + ALLOWED / 2;
            let more = if self.first { under_way } else { under_way / 8 };
            self.bytes = under_way + more.max(self.mtu / 2);
        }
        self.first &= self.fastest <= limit;
        self.bytes = self.bytes.max(LEAST * self.mtu);
        if now.duration_since(self.renewed) >= AGAIN {
            (self.before, self.base) = (self.base, Duration::MAX);
            self.renewed = now;
            self.draining = Some(now);
        }
        self.look(now);
    }

    fn look(&mut self, now: Instant) {
        (self.fastest, self.count, self.full, self.since) = (Duration::MAX, 0, false, now);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // The clock only gives an origin: time is computed.
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MTU: u64 = 1452;

    /// A line: so many bytes a second, and a time that a packet and its acknowledgement take beside.
    #[derive(Clone, Copy)]
    struct Line {
        rate: f64,
        delay: Duration,
    }

    /// Sends as much as the bound allows for so long; tells the bytes that arrived, and what of a hundred packets of the
    /// second half all but five waited in the queue.
    fn send(bound: &mut Bound, line: Line, from: Instant, lasting: Duration) -> (u64, Duration) {
        let (mut now, end) = (from, from + lasting);
        let mut carried = from;
        let mut under_way: VecDeque<(Instant, Instant)> = VecDeque::new();
        let (mut arrived, mut waits) = (0, Vec::new());
        while now < end {
            while (under_way.len() as u64 + 1) * MTU <= bound.window() {
                let begins = carried.max(now);
                if now > from + lasting / 2 {
                    waits.push(begins - now);
                }
                carried = begins + Duration::from_secs_f64(MTU as f64 / line.rate);
                under_way.push_back((now, carried + line.delay));
            }
            let (sent, acknowledged) = under_way.pop_front().expect("the bound is never less than a packet");
            now = acknowledged;
            arrived += MTU;
            bound.acknowledged(now, sent, false, u64::MAX);
        }
        waits.sort_unstable();
        (arrived, waits[waits.len() * 95 / 100])
    }

    #[test]
    fn a_slow_line_is_full_and_its_queue_is_short() {
        let start = Instant::now();
        for (rate, delay) in
            [(125_000.0, 2), (125_000.0, 60), (12_500.0, 40), (1_250_000.0, 20), (125_000.0, 600)]
        {
            let line = Line { rate, delay: Duration::from_millis(delay) };
            let mut bound = Bound::new(start, MTU);
            let lasting = Duration::from_secs(60);
            let (arrived, waited) = send(&mut bound, line, start, lasting);
            let share = arrived as f64 / (rate * lasting.as_secs_f64());
            assert!(share > 0.85, "{rate} B/s, {delay} ms: only {share:.2} of the line is used");
            let packet = Duration::from_secs_f64(MTU as f64 / rate);
            let allowed = ALLOWED + packet * 4 + Duration::from_millis(delay) / 2;
            assert!(
                waited <= allowed,
                "{rate} B/s, {delay} ms: {waited:?} in the queue, {allowed:?} allowed"
            );
        }
    }

    #[test]
    fn a_path_that_became_longer_or_slower_is_learnt() {
        let start = Instant::now();
        let mut bound = Bound::new(start, MTU);
        let lan = Line { rate: 1e8, delay: Duration::from_micros(300) };
        let (arrived, _) = send(&mut bound, lan, start, Duration::from_secs(2));
        assert!(arrived as f64 > 1.7e8, "{arrived}");
        let mobile = Line { rate: 250_000.0, delay: Duration::from_millis(80) };
        let minute = Duration::from_secs(60);
        send(&mut bound, mobile, start + Duration::from_secs(2), minute);
        let (arrived, waited) = send(&mut bound, mobile, start + Duration::from_secs(62), minute);
        assert!(arrived as f64 > 0.85 * 250_000.0 * 60.0, "{arrived}");
        assert!(waited < Duration::from_millis(70), "{waited:?}");
    }

    #[test]
    fn only_background_bulk_yields_and_nothing_does_while_somebody_waits_for_much() {
        let traffic = Traffic::default();
        assert!(!traffic.yields());
        let background = traffic.carries(true, 1);
        assert!(traffic.yields() && traffic.carries(true, 0).is_none());
        let short = traffic.carries(false, 4096);
        assert!(short.is_none() && traffic.yields());
        let long = traffic.carries(false, 1 << 20);
        assert!(!traffic.yields());
        drop(long);
        assert!(traffic.yields());
        drop(background);
        assert!(!traffic.yields());
    }
}

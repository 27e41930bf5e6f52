//! The network between hosts. Streams are reliable, as QUIC's are: what is lost is sent again, later; what is
//! cut off arrives when the cut heals, or its sender gives up. Calls overtake each other freely.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use crate::{chance::Chance, trace::Trace};

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The shortest way.
    pub fastest: Duration,
    /// The longest, ordinarily.
    pub slowest: Duration,
    /// Packets lost, of a thousand.
    pub loss: u64,
    /// Messages that take seconds, of a thousand.
    pub stall: u64,
    /// Requests that arrive twice, of a thousand.
    pub duplicate: u64,
}

impl Weather {
    /// A good network.
    pub const FAIR: Weather = Weather {
        fastest: Duration::from_micros(100),
        slowest: Duration::from_millis(3),
        loss: 0,
        stall: 0,
        duplicate: 0,
    };
    /// Nothing is lost; ways are of very different length, so that messages overtake each other.
    pub const FAR: Weather = Weather { slowest: Duration::from_millis(120), ..Weather::FAIR };
    /// Losses, stalls, and requests that arrive again much later.
    pub const FOUL: Weather = Weather {
        fastest: Duration::from_micros(100),
        slowest: Duration::from_millis(80),
        loss: 40,
        stall: 15,
        duplicate: 30,
    };
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct Net(Arc<Inner>);

struct Inner {
    chance: Chance,
    trace: Trace,
    state: Mutex<State>,
}

struct State {
    weather: Weather,
    /// Directions that are cut, and since when.
    cuts: BTreeMap<(String, String), Instant>,
}

/// A connection on which nothing arrives for so long is dead for both sides.
pub const IDLE: Duration = Duration::from_secs(30);

impl Net {
    /// A network in fair weather.
    pub fn new(chance: Chance, trace: Trace) -> Net {
        let state = State { weather: Weather::FAIR, cuts: BTreeMap::new() };
        Net(Arc::new(Inner { chance, trace, state: Mutex::new(state) }))
    }

    /// The weather changes.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Nothing passes from one host to the other any more; the other direction is not touched.
    pub fn cut(&self, from: &str, to: &str) {
        self.0.trace.say(format_args!("cut {from} -> {to}"));
        self.state().cuts.entry((from.into(), to.into())).or_insert_with(Instant::now);
    }

    /// The cuts are these, and no others. One that was there goes on.
    pub fn set_cuts(&self, shape: &str, cuts: Vec<(String, String)>) {
        self.0.trace.say(format_args!("the network is {shape}: {} cuts", cuts.len()));
        let mut state = self.state();
        let before = std::mem::take(&mut state.cuts);
        for cut in cuts {
            let since = before.get(&cut).copied().unwrap_or_else(Instant::now);
            state.cuts.insert(cut, since);
        }
    }

    /// Everything to one host and from it passes again; what is cut elsewhere stays so.
    pub fn join(&self, host: &str) {
        self.0.trace.say(format_args!("{host} is joined"));
        self.state().cuts.retain(|(from, to), _| from != host && to != host);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.0.trace.say(format_args!("healed"));
        self.state().cuts.clear();
    }

    /// Whether anything passes in this direction.
    pub fn is_cut(&self, from: &str, to: &str) -> bool {
        self.state().cuts.contains_key(&(from.to_owned(), to.to_owned()))
    }

    /// Whether a connection between the two has been useless for [`IDLE`].
    pub fn is_dead(&self, a: &str, b: &str) -> bool {
        let state = self.state();
        [(a, b), (b, a)].iter().any(|(from, to)| {
            state.cuts.get(&(from.to_string(), to.to_string())).is_some_and(|since| since.elapsed() >= IDLE)
        })
    }

    /// Whether a request is to arrive a second time, and how much later.
    pub fn duplicate(&self) -> Option<Duration> {
        let rate = self.state().weather.duplicate;
        self.0
            .chance
            .permille(rate)
            .then(|| self.0.chance.between(Duration::from_millis(1), Duration::from_secs(20)))
    }

    /// One message on its way: ends when it arrives. While the direction is cut it is sent again and again.
    pub async fn travel(&self, from: &str, to: &str) {
        let mut again = Duration::from_millis(200);
        loop {
            let (delay, lost) = self.step();
            tokio::time::sleep(delay).await;
            if !lost && !self.is_cut(from, to) {
                return;
            }
            tokio::time::sleep(again).await;
            again = (again * 2).min(Duration::from_secs(2));
        }
    }

    fn step(&self) -> (Duration, bool) {
        let (weather, chance) = (self.state().weather, &self.0.chance);
        let delay = if chance.permille(weather.stall) {
            chance.between(Duration::from_millis(100), Duration::from_secs(4))
        } else {
            chance.between(weather.fastest, weather.slowest)
        };
        (delay, chance.permille(weather.loss))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cut_in_one_direction_holds_messages_until_it_heals() {
        let net = Net::new(Chance::new(1), Trace::new(false));
        net.cut("a", "b");
        tokio::time::timeout(Duration::from_secs(60), net.travel("b", "a")).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(60), net.travel("a", "b")).await.is_err());
        assert!(net.is_dead("a", "b") && net.is_dead("b", "a"));
        net.heal();
        tokio::time::timeout(Duration::from_secs(60), net.travel("a", "b")).await.unwrap();
    }
}

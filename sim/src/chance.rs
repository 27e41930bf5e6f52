//! The seed: all that is random in a world comes from here, in an order that the world itself determines.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

/// A source of chance. Clones share it.
#[derive(Clone)]
pub struct Chance(Arc<Mutex<u64>>);

impl Chance {
    /// From a seed.
    pub fn new(seed: u64) -> Chance {
        Chance(Arc::new(Mutex::new(seed ^ 0x6a09_e667_f3bc_c908)))
    }

    /// A source of its own, so that what draws from it does not disturb the others.
    pub fn fork(&self) -> Chance {
        Chance::new(self.next())
    }

    /// 64 random bits (SplitMix64).
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().expect("no holder panics");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of a range that is not empty.
    pub fn below(&self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True so many times of a thousand.
    pub fn permille(&self, of_a_thousand: u64) -> bool {
        self.below(0..1000) < of_a_thousand
    }

    /// One of these.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(0..of.len() as u64) as usize]
    }

    /// A time of a range that is not empty.
    pub fn between(&self, shortest: Duration, longest: Duration) -> Duration {
        let (from, to) = (shortest.as_micros() as u64, longest.as_micros() as u64);
        Duration::from_micros(self.below(from..to.max(from) + 1))
    }

    /// The same things in another order.
    pub fn shuffle<T>(&self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(0..last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_again_and_another_seed_others() {
        let draw = |seed| {
            let chance = Chance::new(seed);
            let mut order: Vec<u64> = (0..9).collect();
            chance.shuffle(&mut order);
            (0..20).map(|_| chance.next()).chain(order).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}

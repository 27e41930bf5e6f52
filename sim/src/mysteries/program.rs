//! Programs, drawn from a seed, and how one that fails becomes short.

use crate::chance::Chance;

/// Names of files.
pub const FILES: [&str; 2] = ["x", "y"];
/// Names of directories.
const DIRECTORIES: [&str; 3] = ["p", "q", "r"];
/// Steps of a program, at most.
const STEPS: u64 = 25;
/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A client looks at a name.
    Read(usize, &'static str),
    /// A client writes a file, which it makes if there is none.
    Write(usize, &'static str),
    /// A client removes a file.
    Remove(usize, &'static str),
    /// A client makes a directory.
    Make(usize, &'static str),
    /// A client moves one of them into another.
    Move(usize, &'static str, &'static str),
    /// A client reaches no server any more.
    Part(usize),
    /// It does again.
    Meet(usize),
    /// What it says arrives, and no answer comes back.
    Deaf(usize),
    /// It dies, be it with the power, and starts again.
    Restart(usize, bool),
    /// Time passes.
    Wait(u64),
    /// Everything is healed, and has been for long.
    Settle,
}

/// A program of a seed.
pub fn program(seed: u64) -> (usize, Vec<Step>) {
    let chance = Chance::new(seed.rotate_left(17) ^ 0x6d79_7374);
    let clients = chance.below(2..4) as usize;
    let directory = || *chance.pick::<&str>(&DIRECTORIES);
    let mut steps = Vec::new();
    for _ in 0..chance.below(6..STEPS - 1) {
        let (client, file) = (chance.below(0..clients as u64) as usize, *chance.pick(&FILES));
        steps.push(match chance.below(0..100) {
            0..=19 => Step::Read(client, file),
            20..=44 => Step::Write(client, file),
            45..=56 => Step::Remove(client, file),
            57..=62 => Step::Make(client, directory()),
            63..=69 => Step::Move(client, directory(), directory()),
            70..=78 => Step::Part(client),
            79..=82 => Step::Deaf(client),
            83..=90 => Step::Meet(client),
            91..=93 => Step::Restart(client, chance.permille(500)),
            94..=96 => Step::Wait(chance.below(1..40)),
            _ => Step::Settle,
        });
    }
    // Settling twice is settling once.
    steps.extend([Step::Settle, Step::Settle]);
    (clients, steps)
}

/// Leaves steps out for as long as it still fails.
pub(super) fn shrink(mut steps: Vec<Step>, fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut at = 0;
    while at < steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        if fails(&fewer) {
            steps = fewer;
        } else {
            at += 1;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_told_by_the_fewest_steps_that_fail() {
        let (_, steps) = program(7);
        let fails = |steps: &[Step]| steps.iter().filter(|step| **step == Step::Settle).count() >= 2;
        assert_eq!(shrink(steps, fails), [Step::Settle, Step::Settle]);
    }
}

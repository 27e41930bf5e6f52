//! Would the simulator notice? Each planted bug must be found within so many seeds, and the same seeds must be
//! well without it (which `coda-sim --count` shows for many more).

use coda_proto::planted::{Bug, plant};
use coda_sim::play::{Climate, play};

/// Whoever needs more than this many seeds is not looking.
const SEEDS: u64 = 60;

/// The first seed that finds a bug, and what it says.
fn finder(bug: Bug, climate: Climate) -> Option<(u64, String)> {
    (1..=SEEDS).find_map(|seed| {
        plant(Some(bug));
        // A world may break in so many ways that it does not even reach its end.
        let found = match play(seed, climate, false) {
            Ok(report) => report.violations.into_iter().next(),
            Err(error) => Some(format!("{error:#}")),
        };
        plant(None);
        found.map(|violation| (seed, violation))
    })
}

fn is_found(bug: Bug, climate: Climate) {
    let (seed, violation) = finder(bug, climate).unwrap_or_else(|| panic!("{bug:?} was not found"));
    println!("{bug:?} is found by seed {seed}: {violation}");
    // It is the bug that was found.
    let well = play(seed, climate, false).expect("the world is well without the bug");
    assert_eq!(well.violations, Vec::<String>::new(), "seed {seed} without {bug:?}");
}

#[test]
fn a_member_that_applies_what_it_lacks_the_base_of_is_found() {
    is_found(Bug::AppliesWithoutBase, Climate::Parted);
}

#[test]
#[ignore = "60 seeds do not find it; docs/status.md names the tests that do"]
fn an_author_that_writes_without_its_own_last_update_is_found() {
    is_found(Bug::WritesWithoutOwn, Climate::Parted);
}

#[test]
fn a_server_that_answers_before_it_commits_is_found() {
    is_found(Bug::RepliesBeforeCommit, Climate::Stormy);
}

#[test]
fn a_client_that_believes_a_broken_promise_is_found() {
    is_found(Bug::BelievesBrokenPromise, Climate::Crowded);
}

#[test]
fn a_client_that_gives_a_name_twice_is_found() {
    is_found(Bug::ReusesStoreIds, Climate::Stormy);
}

#[test]
fn a_join_that_brings_removed_names_back_is_found() {
    is_found(Bug::JoinKeepsRemoved, Climate::Parted);
}

#[test]
fn a_join_that_leaves_attributes_as_they_are_is_found() {
    is_found(Bug::JoinPrefersMine, Climate::Parted);
}

#[test]
fn a_join_that_keeps_one_of_two_contents_is_found() {
    is_found(Bug::JoinKeepsOne, Climate::Parted);
}

#[test]
fn a_join_that_forgets_tombstones_is_found() {
    is_found(Bug::JoinForgetsTombstones, Climate::Parted);
}

#[test]
fn a_meeting_that_loses_an_object_is_found() {
    is_found(Bug::MeetingLosesOne, Climate::Parted);
}

#[test]
fn a_mutation_that_is_applied_twice_is_found() {
    is_found(Bug::AppliesTwice, Climate::Stormy);
}

#[test]
fn a_member_that_takes_the_later_attribute_for_the_earlier_is_found() {
    is_found(Bug::IgnoresLamport, Climate::Parted);
}

#[test]
#[ignore = "60 seeds do not find it; docs/status.md names the tests that do"]
fn a_member_that_goes_on_from_a_number_of_another_store_is_found() {
    is_found(Bug::MeetsByNumberAlone, Climate::Changing);
}

#[test]
fn a_server_that_loses_breaks_is_found() {
    is_found(Bug::LosesBreak, Climate::Calm);
}

//! Would the simulator notice? Each planted bug must be found within so many seeds, and the same seeds must be
//! well without it (which `coda-sim --count` shows for many more).

use coda_proto::planted::{Bug, plant};
use coda_sim::play::{Climate, play};

/// The first of so many seeds that finds a bug, and what it says.
fn finder(bug: Bug, climate: Climate, seeds: u64) -> Option<(u64, String)> {
    (1..=seeds).find_map(|seed| {
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

/// Whoever needs more seeds than this is not looking.
fn is_found(bug: Bug, climate: Climate, seeds: u64) {
    let (seed, violation) =
        finder(bug, climate, seeds).unwrap_or_else(|| panic!("{bug:?} was not found by {seeds} seeds"));
    println!("{bug:?} is found by seed {seed}: {violation}");
    // It is the bug that was found.
    let well = play(seed, climate, false).expect("the world is well without the bug");
    assert_eq!(well.violations, Vec::<String>::new(), "seed {seed} without {bug:?}");
}

#[test]
fn a_member_that_applies_what_it_lacks_the_base_of_is_found() {
    is_found(Bug::AppliesWithoutBase, Climate::Parted, 60);
}

#[test]
fn an_author_that_writes_without_its_own_last_update_is_found() {
    is_found(Bug::WritesWithoutOwn, Climate::Wandering, 60);
}

#[test]
fn a_server_that_answers_before_it_commits_is_found() {
    is_found(Bug::RepliesBeforeCommit, Climate::Stormy, 60);
}

#[test]
fn a_client_that_believes_a_broken_promise_is_found() {
    is_found(Bug::BelievesBrokenPromise, Climate::Crowded, 60);
}

#[test]
fn a_client_that_gives_a_name_twice_is_found() {
    is_found(Bug::ReusesStoreIds, Climate::Stormy, 60);
}

#[test]
fn a_join_that_brings_removed_names_back_is_found() {
    is_found(Bug::JoinKeepsRemoved, Climate::Parted, 60);
}

#[test]
fn a_join_that_leaves_attributes_as_they_are_is_found() {
    is_found(Bug::JoinPrefersMine, Climate::Parted, 60);
}

#[test]
fn a_join_that_keeps_one_of_two_contents_is_found() {
    is_found(Bug::JoinKeepsOne, Climate::Parted, 60);
}

#[test]
fn a_join_that_forgets_tombstones_is_found() {
    is_found(Bug::JoinForgetsTombstones, Climate::Parted, 60);
}

#[test]
fn a_meeting_that_loses_an_object_is_found() {
    is_found(Bug::MeetingLosesOne, Climate::Parted, 60);
}

#[test]
fn a_mutation_that_is_applied_twice_is_found() {
    is_found(Bug::AppliesTwice, Climate::Stormy, 60);
}

#[test]
fn a_member_that_takes_the_later_attribute_for_the_earlier_is_found() {
    is_found(Bug::IgnoresLamport, Climate::Parted, 60);
}

#[test]
fn a_member_that_goes_on_from_a_number_of_another_store_is_found() {
    is_found(Bug::MeetsByNumberAlone, Climate::Restored, 30);
}

#[test]
fn a_server_that_loses_breaks_is_found() {
    is_found(Bug::LosesBreak, Climate::Calm, 60);
}

#[test]
fn a_restart_that_forgets_a_record_of_the_log_is_found() {
    is_found(Bug::RestartForgetsPending, Climate::Stormy, 10);
}

#[test]
fn a_removal_that_wins_over_what_it_did_not_know_is_found() {
    is_found(Bug::RemovalsWin, Climate::Parted, 20);
}

#[test]
fn a_join_that_forgets_what_the_other_side_includes_is_found() {
    is_found(Bug::JoinForgetsPast, Climate::Parted, 10);
}

#[test]
fn a_meeting_that_leaves_contents_behind_is_found() {
    is_found(Bug::MeetingLeavesContents, Climate::Parted, 10);
}

#[test]
fn a_fold_that_leaves_what_is_never_sent_in_the_bases_of_the_rest_is_found() {
    is_found(Bug::FoldKeepsBases, Climate::Stormy, 10);
}

#[test]
fn a_client_that_gives_up_what_is_not_taken_now_is_found() {
    is_found(Bug::GivesUpAtOnce, Climate::Stormy, 40);
}

#[test]
fn a_promise_that_outlives_its_session_is_found() {
    is_found(Bug::KeepsPromises, Climate::Stormy, 10);
}

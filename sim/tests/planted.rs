//! Would the simulator notice? Each planted bug must be found within so many seeds, and the same seeds must be
//! well without it (which `coda-sim --count` shows for many more).

use std::ops::RangeInclusive;

use coda_proto::planted::{Bug, plant};
use coda_sim::{
    mysteries,
    play::{Climate, Report, play},
};

/// What plays a seed.
type Plays = dyn Fn(u64) -> anyhow::Result<Report>;

/// The first of these seeds that finds a bug, and what it says.
fn finder(bug: Bug, plays: &Plays, mut seeds: RangeInclusive<u64>) -> Option<(u64, String)> {
    seeds.find_map(|seed| {
        plant(Some(bug));
        // A world may break in so many ways that it does not even reach its end.
        let found = match plays(seed) {
            Ok(report) => report.violations.into_iter().next(),
            Err(error) => Some(format!("{error:#}")),
        };
        plant(None);
        found.map(|violation| (seed, violation))
    })
}

/// Whoever needs more seeds than this is not looking.
fn is_found(bug: Bug, climate: Climate, seeds: u64) {
    is_found_by(bug, &move |seed| play(seed, climate, false), 1..=seeds);
}

/// The same of what plays them otherwise.
fn is_found_by(bug: Bug, plays: &Plays, seeds: RangeInclusive<u64>) {
    let (seed, violation) = finder(bug, plays, seeds.clone())
        .unwrap_or_else(|| panic!("{bug:?} was not found by the seeds {seeds:?}"));
    println!("{bug:?} is found by seed {seed}: {violation}");
    // It is the bug that was found.
    let well = plays(seed).expect("the world is well without the bug");
    assert_eq!(well.violations, Vec::<String>::new(), "seed {seed} without {bug:?}");
}

fn is_found_by_mysteries(bug: Bug, seeds: u64) {
    is_found_by(bug, &|seed| mysteries::play(seed, false), 1..=seeds);
}

#[test]
fn a_member_that_applies_what_it_lacks_the_base_of_is_found() {
    is_found(Bug::AppliesWithoutBase, Climate::Parted, 60);
}

#[test]
fn an_author_that_writes_without_its_own_last_update_is_found() {
    is_found(Bug::WritesWithoutOwn, Climate::Stormy, 40);
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
    // Where it dies, its servers retire the name before it is given again.
    is_found(Bug::ReusesStoreIds, Climate::Crowded, 20);
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
    is_found(Bug::GivesUpAtOnce, Climate::Stormy, 60);
}

#[test]
fn a_promise_that_outlives_its_session_is_found() {
    is_found(Bug::KeepsPromises, Climate::Stormy, 10);
}

#[test]
fn a_client_that_takes_silence_for_a_yes_is_found() {
    is_found_by_mysteries(Bug::SilenceIsConsent, 40);
}

#[test]
fn a_client_that_asks_with_what_it_has_acknowledged_is_found() {
    is_found_by_mysteries(Bug::AsksFromLog, 40);
}

#[test]
fn a_store_that_replaces_what_its_author_did_not_know_is_found() {
    is_found(Bug::StoreReplacesAll, Climate::Parted, 40);
}

#[test]
fn a_client_that_gives_up_what_a_retired_author_left_is_found() {
    is_found(Bug::GivesUpRetired, Climate::Ageing, 40);
}

#[test]
fn a_member_that_takes_records_of_a_retired_author_is_found() {
    is_found(Bug::TakesRetired, Climate::Ageing, 40);
}

#[test]
fn a_member_that_forgets_removals_which_others_have_not_heard_of_is_found() {
    is_found(Bug::CollectsEarly, Climate::Ageing, 40);
}

#[test]
fn a_server_that_is_promoted_without_what_the_others_know_is_found() {
    is_found(Bug::PromotesWithoutNewest, Climate::Succeeding, 40);
}

#[test]
fn a_server_that_forgets_what_it_promised_is_found() {
    is_found(Bug::ForgetsPromise, Climate::Succeeding, 40);
}

/// Otherwise what is asked of ageing worlds would say nothing.
#[test]
fn in_ageing_worlds_authors_are_retired() {
    let mut retired = 0;
    for seed in 1..=3 {
        let report = play(seed, Climate::Ageing, false).unwrap();
        assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}");
        let number =
            |line: &String| line.split_once(" has ")?.1.split_once(" retired authors")?.0.parse::<u64>().ok();
        retired += report.tail.iter().filter_map(number).sum::<u64>();
    }
    assert!(retired > 0);
}

#[test]
fn a_server_that_is_promoted_whoever_it_could_ask_is_found() {
    is_found(Bug::PromotesUnasked, Climate::Succeeding, 40);
}

#[test]
fn a_server_that_takes_the_longer_log_for_the_newer_is_found() {
    is_found(Bug::LongerLogHolds, Climate::Succeeding, 40);
}

#[test]
fn an_scm_that_counts_epochs_without_its_term_is_found() {
    is_found(Bug::EpochsForgetTerm, Climate::Succeeding, 40);
}

#[test]
fn a_member_that_says_yes_to_what_it_left_out_is_found() {
    is_found(Bug::SaysYesToSome, Climate::Stormy, 40);
}

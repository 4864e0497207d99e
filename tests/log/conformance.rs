//! What the engine trait promises, held against every engine that there is: one list of cases, run on each.
//!
//! A new engine is a new `conformance!` line. Cases know an engine by its trait only; what survives a restart is asked
//! of the engines that promise it.

use std::time::Duration;

use wattle::log::Durability;

use crate::engine::home::{Memory, OnDisk};

/// No case takes a second; one that waits for something that never comes must not hang the run.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs each case on an engine, in a test of its own.
macro_rules! cases {
    ($home:expr; $($module:ident: $($case:ident)*;)*) => {
        $(mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let case = crate::engine::$module::$case($home);
                    tokio::time::timeout(PATIENCE, Box::pin(case)).await.unwrap();
                }
            )*
        })*
    };
}

/// Everything that every engine has to do.
macro_rules! conformance {
    ($name:ident, $home:expr) => {
        mod $name {
            use super::*;
            cases! { $home;
                blueprints:
                    numbers_are_given_once_and_stay
                    a_blueprint_is_applied_all_or_nothing
                    a_subscriber_of_an_unknown_topic_is_refused
                    a_blueprint_that_contradicts_itself_is_refused
                    another_input_makes_another_subscriber
                    a_name_is_given_to_what_has_a_number_and_is_free_again
                    a_blueprint_that_is_refused_renames_nothing
                    a_topic_that_is_gone_has_nothing_and_leaves_its_name
                    an_apply_that_nobody_waits_for_shares_no_number;
                appends:
                    capabilities_hold
                    offsets_count_up_from_zero_in_each_partition
                    an_append_is_there_in_all_its_partitions
                    producers_at_once_each_keep_their_order
                    an_append_without_events_changes_nothing
                    an_event_may_be_empty
                    the_largest_append_passes_and_a_larger_one_changes_nothing
                    an_append_to_an_unknown_partition_is_refused_whole
                    what_is_acknowledged_is_seen_outside;
                reads:
                    a_read_starts_anywhere
                    a_read_keeps_to_its_budget
                    an_unknown_partition_is_not_empty_but_unknown
                    when_an_event_was_appended_is_known_and_how_many_were_lately
                    events_carry_their_time_and_epoch
                    waiting_for_an_event_ends_when_it_is_durable
                    a_time_is_found_as_an_offset;
                duplicates:
                    what_comes_again_is_answered_with_the_first_place_and_not_stored
                    an_event_is_recognised_within_a_call
                    an_event_is_recognised_in_another_partition
                    an_append_of_nothing_new_changes_nothing
                    without_dedupe_everything_is_stored
                    what_the_count_has_passed_is_no_longer_recognised
                    a_topic_recognises_only_its_own_events
                    the_numbers_of_a_producer_only_grow
                    producers_and_partitions_have_their_own_numbers
                    a_duplicate_is_answered_when_the_first_is_durable
                    settings_may_change;
                lanes:
                    a_lane_waits_for_events
                    a_lane_reads_on_where_it_stopped
                    a_read_that_is_given_up_loses_nothing
                    a_unit_moves_the_position_and_emits
                    who_sees_a_position_sees_its_outputs
                    units_are_pipelined_and_keep_their_order
                    the_next_session_resumes_at_the_position
                    a_lane_keeps_what_its_units_write
                    what_a_fenced_session_writes_is_not_kept
                    what_is_frozen_stays_as_it_was
                    entries_are_the_same_in_pages_of_any_size
                    a_seek_moves_the_position_anywhere
                    a_fenced_session_commits_nothing_more
                    what_a_fenced_session_had_handed_in_counts_or_does_not_happen
                    a_position_never_moves_back
                    a_unit_that_is_too_large_is_refused
                    a_unit_for_an_unknown_partition_is_refused
                    a_lane_that_does_not_exist_is_refused
                    lanes_do_not_share_a_position;
                closing:
                    a_closed_engine_says_so
                    closing_wakes_whoever_waits
                    what_was_durable_can_be_read_after_closing;
            }
        }
    };
}

/// What an engine that keeps things has to do besides.
macro_rules! restarts {
    ($name:ident, $home:expr) => {
        mod $name {
            use super::*;
            cases! { $home;
                restarts:
                    everything_accepted_is_there_after_a_restart
                    dropping_the_engine_closes_it
                    what_lanes_keep_is_there_after_a_restart
                    epochs_and_times_only_grow
                    numbers_survive_a_restart
                    names_survive_a_restart
                    what_is_gone_is_gone_after_a_restart
                    an_apply_that_nobody_waits_for_shares_no_number_later
                    a_folder_belongs_to_one_engine
                    what_was_published_is_recognised_after_a_restart;
            }
        }
    };
}

conformance!(memory, Memory::new());
conformance!(embedded_sync, OnDisk::new(Durability::Sync));
conformance!(embedded_interval, OnDisk::new(Durability::Interval(Duration::from_millis(5))));
conformance!(embedded_os, OnDisk::new(Durability::Os));

restarts!(restart_sync, OnDisk::new(Durability::Sync));
restarts!(restart_interval, OnDisk::new(Durability::Interval(Duration::from_secs(3600))));
restarts!(restart_os, OnDisk::new(Durability::Os));

//! The fault suite in short: each fault a few times, at moments of chance. `make faults` has more patience.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::{fs, path::Path};

use fnbus_tests::faults::{
    self, Arena, Traffic, Trial,
    checker::judge,
    history::{History, open},
};

/// A number for each fault and the sentence that holds in spite of it.
macro_rules! short {
    ($($number:literal $sentence:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $sentence() {
                survives($number).await;
            }
        )*

        #[test]
        fn every_fault_is_in_the_short_suite() {
            let known: Vec<u32> = faults::ALL.iter().filter(|fault| fault.short > 0).map(|fault| fault.number).collect();
            assert_eq!(known, [$($number),*]);
        }
    };
}

short! {
    1 a_node_that_is_killed_at_any_moment_loses_and_repeats_nothing
    2 a_node_that_dies_between_two_things_that_belong_together_loses_and_repeats_nothing
    3 a_node_that_is_killed_leaves_no_process_of_its_functions
    4 functions_that_are_killed_in_the_middle_are_tried_again_and_disturb_nobody
    5 what_is_accepted_while_nats_is_away_is_done_when_it_is_back
    6 a_store_of_nats_that_is_gone_costs_nothing
    7 a_jetstream_without_room_holds_up_nothing_else
    8 a_nats_that_says_nothing_for_a_while_is_waited_out
    9 a_connection_that_carries_nothing_loses_nothing
    10 a_long_and_narrow_way_to_nats_loses_nothing
    11 what_a_slow_function_cannot_take_yet_waits_in_the_log_alone
    12 on_a_full_disk_nothing_is_said_to_be_accepted_and_nothing_is_lost_or_repeated
    13 where_there_is_no_room_the_code_before_serves_and_nothing_else_suffers
    14 a_disk_that_cannot_sync_ends_the_node_and_what_was_accepted_is_there
    15 a_power_cut_takes_nothing_that_was_accepted
    16 a_flipped_bit_is_not_started_on
    17 a_clock_that_is_set_repeats_nothing_and_makes_nothing_wait
    18 without_a_free_descriptor_nothing_that_was_accepted_is_lost
    19 functions_that_want_too_much_memory_end_alone
    20 functions_that_hang_end_with_everything_they_started
    21 functions_that_print_without_end_cost_the_node_little
    22 answers_that_are_none_are_taken_for_none
    23 an_event_that_ends_its_process_is_given_up_and_holds_up_nobody
    24 an_edit_of_the_config_drops_nothing
    25 a_deploy_drops_nothing_and_a_function_that_is_gone_keeps_its_backlog
    27 every_file_of_a_storm_is_told_when_it_is_whole
    28 each_message_of_a_queue_is_one_event_whatever_its_source_does
    30 a_client_that_leaves_leaves_no_half_event
    31 of_a_hundred_requests_with_one_id_one_runs
    32 a_cycle_and_an_avalanche_come_to_an_end
    33 what_is_in_flight_when_the_node_ends_in_order_runs_once
    34 other_nodes_on_one_data_folder_are_refused_and_the_first_goes_on
    35 an_upgrade_that_is_killed_after_each_step_goes_on_where_it_was
    36 a_replay_that_is_killed_delivers_exactly_what_was_selected
    37 a_replay_delivers_what_was_selected_though_retention_wants_it
    41 a_stream_that_lost_its_tail_is_made_whole_from_the_log
    42 what_somebody_does_to_the_stream_is_mended
    43 a_log_that_is_older_than_what_others_know_goes_on_with_what_it_has
    44 a_copy_of_a_node_that_is_started_beside_it_is_refused
    47 a_node_that_was_stopped_repeats_nothing
    48 an_event_that_ends_the_node_lets_everything_else_get_done
    49 what_waits_for_a_function_that_is_parked_is_not_swallowed
    50 a_delivery_goes_the_way_of_one_revision_of_the_config
    51 a_message_for_each_of_many_functions_is_done_in_bounded_memory
    52 a_server_of_our_own_that_ends_again_and_again_loses_nothing
}

/// The suite would be worth nothing if it read past what is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_history_that_is_tampered_with_is_seen_to_be_bad() {
    let mut arena = Arena::open(&Trial::new(faults::seed(), 1)).await;
    arena.produce(&Traffic::default());
    arena.accepted(30).await;
    arena.heal().await;
    assert!(arena.node.stop().await.success());
    let judged = |data: &Path| judge(&History::read(arena.node.path(), data).unwrap(), &arena.shape);
    let good = judged(&arena.node.data());
    assert!(good.is_clean() && good.events >= 30, "{good:?}");
    let one = "FROM delivery WHERE target = 'work' AND status = 10 LIMIT 1";
    for (sql, count) in [
        (format!("DELETE FROM event WHERE seq = (SELECT event {one})"), "lost"),
        (format!("UPDATE event SET data = 'other' WHERE seq = (SELECT event {one})"), "lost"),
        (format!("UPDATE delivery SET ended = ended - 1000000 WHERE seq = (SELECT seq {one})"), "doubled"),
        (format!("UPDATE delivery SET status = 1 WHERE seq = (SELECT seq {one})"), "stuck"),
        (format!("DELETE FROM delivery WHERE seq = (SELECT seq {one})"), "broken"),
    ] {
        let copy = tempfile::tempdir().unwrap();
        fs::copy(arena.node.data().join("log.db"), copy.path().join("log.db")).unwrap();
        assert_eq!(open(copy.path()).unwrap().execute(&sql, []).unwrap(), 1, "{sql}");
        let tally = serde_json::to_value(judged(copy.path())).unwrap();
        assert!(tally[count].as_u64() > Some(0), "{sql}: {tally}");
    }
}

async fn survives(number: u32) {
    let fault = faults::ALL.iter().find(|fault| fault.number == number).expect("a fault of this number");
    let seed = faults::seed();
    // shown when the test fails
    println!("FNBUS_SEED={seed}");
    let tally = fault.attempt(Trial::new(seed, fault.short).short()).await;
    println!("{tally:#?}");
    assert!(tally.is_clean(), "{} (FNBUS_SEED={seed}): {tally:#?}", fault.sentence);
}

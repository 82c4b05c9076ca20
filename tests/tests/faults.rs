//! The fault suite in short: each fault a few times, at moments of chance. `make faults` has more patience.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::faults::{self, Trial};

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
            let known: Vec<u32> = faults::ALL.iter().map(|fault| fault.number).collect();
            assert_eq!(known, [$($number),*]);
        }
    };
}

short! {
    1 a_node_that_is_killed_at_any_moment_loses_and_repeats_nothing
    2 a_node_that_dies_between_two_things_that_belong_together_loses_and_repeats_nothing
    11 what_a_slow_function_cannot_take_yet_waits_in_the_log_alone
    24 an_edit_of_the_config_drops_nothing
    25 a_deploy_drops_nothing_and_a_function_that_is_gone_keeps_its_backlog
    27 every_file_of_a_storm_is_told_when_it_is_whole
    30 a_client_that_leaves_leaves_no_half_event
    33 what_is_in_flight_when_the_node_ends_in_order_runs_once
    36 a_replay_that_is_killed_delivers_exactly_what_was_selected
    50 a_delivery_goes_the_way_of_one_revision_of_the_config
    51 a_message_for_each_of_many_functions_is_done_in_bounded_memory
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

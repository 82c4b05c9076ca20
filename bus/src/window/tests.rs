//! The window: one test per promise.

use super::*;
use crate::{event::Event, payload::Format};

fn due(row: i64, publication: u32) -> Due {
    Due {
        row,
        id: RowId::new(Born(1 << 12), row),
        publication,
        attempts: publication - 1,
        format: Format::Body,
        replay: None,
        block: false,
        event: Event::new("/t", "t", "").into(),
        intact: true,
    }
}

fn name() -> Target {
    "price".parse().unwrap()
}

/// A window of `limit` with rows 1..=`rows` loaded and published.
fn window(limit: usize, rows: i64) -> Window {
    let mut window = Window::default();
    window.limits(&HashMap::from([(name(), Limit { running: limit, ahead: 0 })]));
    window.arrived(&name(), 1);
    let fill = window.fills(100).remove(0);
    window.loaded(&fill, (1..=rows).map(|row| due(row, 1)).collect(), false, &[]);
    for row in 1..=rows {
        window.published(&name(), row, 1, row as u64, Instant::now());
    }
    window
}

/// What is to be loaded where nothing is on its way that weighs anything.
fn to_load(again: &[i64], after: i64, room: usize) -> Fill {
    Fill { target: name(), again: again.to_vec(), after, room, bytes: WEIGHT }
}

fn begin(window: &mut Window, row: i64, publication: u32) -> Begin {
    window.begin(&name(), due(row, 1).id, publication, Born(2 << 12), Instant::now())
}

#[test]
fn a_lane_is_filled_up_to_its_limit_and_again_when_half_is_free() {
    let mut window = window(4, 4);
    assert_eq!(window.fills(100), []);
    window.gone(&name(), 1);
    assert_eq!(window.fills(100), []);
    window.gone(&name(), 2);
    assert_eq!(window.fills(100), [to_load(&[], 4, 2)]);
}

#[test]
fn a_function_with_limit_zero_is_held_back() {
    let mut window = window(4, 0);
    window.limits(&HashMap::from([(name(), Limit::default())]));
    window.arrived(&name(), 9);
    assert_eq!(window.fills(100), []);
}

#[test]
fn a_lane_that_was_read_to_its_end_rests_until_something_arrives() {
    let mut window = window(10, 3);
    assert_eq!(window.fills(100), []);
    window.arrived(&name(), 4);
    assert_eq!(window.fills(100), [to_load(&[], 3, 7)]);
}

#[test]
fn what_arrives_while_the_log_is_read_is_not_missed() {
    let mut window = window(10, 3);
    window.arrived(&name(), 4);
    let fill = window.fills(100).remove(0);
    // The log was read up to 4 when 5 is committed, and what was read is taken after that.
    window.arrived(&name(), 5);
    window.loaded(&fill, vec![due(4, 1)], false, &[]);
    assert_eq!(window.fills(100), [to_load(&[], 4, 6)]);
}

#[test]
fn what_is_wanted_again_while_the_log_is_read_is_not_missed() {
    let mut window = window(10, 3);
    window.reload(&name(), 2);
    let fill = window.fills(100).remove(0);
    window.reload(&name(), 2);
    window.loaded(&fill, vec![], false, &[]);
    assert_eq!(window.fills(100)[0].again, [2]);
}

#[test]
fn a_fill_that_the_log_could_not_be_read_for_is_wanted_again() {
    let mut window = window(10, 3);
    window.reload(&name(), 2);
    window.arrived(&name(), 4);
    let fill = window.fills(100).remove(0);
    assert_eq!(window.fills(100), []);
    window.unfilled(&fill);
    assert_eq!(window.fills(100), [fill]);
}

#[test]
fn a_new_row_is_opened_at_once_unless_something_waits_before_it() {
    let mut window = window(4, 1);
    assert!(window.offered(&name(), &due(2, 1)));
    // what the walk has passed may have run meanwhile
    assert!(!window.offered(&name(), &due(2, 1)));
    window.arrived(&name(), 3);
    assert!(!window.offered(&name(), &due(4, 1)), "3 comes first");
    window.gone(&name(), 1);
    let fill = window.fills(100).remove(0);
    assert!(!window.offered(&name(), &due(5, 1)), "the log is being read");
    window.loaded(&fill, vec![due(3, 1)], false, &[]);
    assert!(window.offered(&name(), &due(6, 1)));
    assert!(window.offered(&name(), &due(7, 1)));
    assert!(!window.offered(&name(), &due(8, 1)), "the lane is full");
}

#[test]
fn a_row_that_was_held_back_is_loaded_without_a_walk_over_those_behind_it() {
    let mut window = window(4, 1);
    window.fills(100);
    window.loaded(&to_load(&[], 1, 3), vec![], false, &[]);
    window.freed(&name(), 7);
    let fill = window.fills(100).remove(0);
    assert_eq!(fill, to_load(&[7], 1, 0));
    assert_eq!(window.loaded(&fill, vec![due(7, 1)], false, &[]).len(), 1);
    // the walk goes on where it was, and passes what is open already
    window.arrived(&name(), 9);
    let fill = window.fills(100).remove(0);
    assert_eq!(fill.after, 1);
    let rows: Vec<i64> =
        window.loaded(&fill, vec![due(7, 1), due(9, 1)], false, &[]).iter().map(|due| due.row).collect();
    assert_eq!(rows, [9]);
}

#[test]
fn what_ended_while_the_log_is_read_is_not_opened_again() {
    let mut window = window(10, 3);
    window.reload(&name(), 2);
    let fill = window.fills(100).remove(0);
    // The log was read when a worker came with the message that nobody had heard was stored, and ran it.
    window.adopt(&name(), &due(2, 1), Instant::now());
    let Begin::Run { attempt, .. } = begin(&mut window, 2, 1) else { panic!("it did not begin") };
    window.ended(&name(), 2, attempt);
    assert!(window.loaded(&fill, vec![due(2, 1)], false, &[]).is_empty());
    // its retry is due
    window.arrived(&name(), 2);
    assert_eq!(window.fills(100)[0].again, [2]);
}

#[test]
fn a_walk_that_met_only_what_was_wanted_again_goes_on() {
    let mut window = window(4, 0);
    window.freed(&name(), 7);
    window.arrived(&name(), 9);
    let fill = window.fills(2).remove(0);
    assert_eq!(fill, to_load(&[7], 0, 1));
    assert_eq!(window.loaded(&fill, vec![due(7, 1), due(7, 1)], false, &[]).len(), 1);
    let fill = window.fills(1).remove(0);
    window.loaded(&fill, vec![due(7, 1)], false, &[]);
    let fill = window.fills(1).remove(0);
    assert_eq!((fill.after, window.loaded(&fill, vec![due(9, 1)], false, &[]).len()), (7, 1));
}

#[test]
fn one_message_begins_one_attempt() {
    let mut window = window(4, 2);
    assert!(matches!(begin(&mut window, 1, 1), Begin::Run { n: 1, .. }));
    assert_eq!(begin(&mut window, 1, 1), Begin::Busy);
    assert_eq!(begin(&mut window, 2, 7), Begin::Stale);
    assert_eq!(begin(&mut window, 99, 1), Begin::Unknown);
}

#[test]
fn an_attempt_that_is_not_renewed_is_lost_and_its_late_outcome_is_not_current() {
    let mut window = window(4, 1);
    let Begin::Run { attempt, .. } = begin(&mut window, 1, 1) else { panic!("it did not begin") };
    let later = Instant::now() + LEASE + Duration::from_secs(1);
    assert_eq!(window.lost(later), [(name(), attempt)]);
    window.ended(&name(), 1, attempt);
    assert!(!window.is_current(&name(), 1, attempt, later));
}

#[test]
fn an_end_that_comes_late_does_not_free_the_place_of_the_next_attempt() {
    let mut window = window(4, 1);
    let Begin::Run { attempt: first, .. } = begin(&mut window, 1, 1) else { panic!("it did not begin") };
    window.ended(&name(), 1, first);
    window.arrived(&name(), 1);
    let fill = window.fills(100).remove(0);
    window.loaded(&fill, vec![due(1, 2)], false, &[]);
    let Begin::Run { attempt: second, .. } = begin(&mut window, 1, 2) else { panic!("it did not begin again") };
    window.ended(&name(), 1, first);
    window.gone(&name(), 1);
    assert!(window.is_current(&name(), 1, second, Instant::now()));
}

#[test]
fn when_nobody_could_be_heard_of_leases_begin_anew() {
    let mut window = window(4, 1);
    begin(&mut window, 1, 1);
    let later = Instant::now() + LEASE + Duration::from_mins(1);
    window.renew(later);
    assert_eq!(window.lost(later + LEASE), []);
    assert_eq!(window.lost(later + LEASE + Duration::from_secs(1)).len(), 1);
}

#[test]
fn bodies_that_nats_does_not_take_are_bounded_and_the_rest_stays_in_the_log() {
    let large = |row| Due { event: Event::new("/t", "t", vec![0; LOAD / 2]).into(), ..due(row, 1) };
    let mut window = window(8, 0);
    assert!(window.offered(&name(), &large(1)) && window.offered(&name(), &large(2)));
    assert!(!window.offered(&name(), &due(3, 1)));
    window.arrived(&name(), 3);
    assert_eq!(window.fills(100), []);
    // what goes elsewhere is not held up
    let outside: Target = "https://a.example/".parse().unwrap();
    assert!(window.offered(&outside, &large(4)));
    window.published(&name(), 1, 1, 1, Instant::now());
    begin(&mut window, 1, 1);
    assert_eq!(window.fills(100)[0].after, 2);
}

#[test]
fn what_may_wait_beside_what_runs_is_shared_by_the_functions_that_have_any() {
    let mut window = Window::default();
    let names: Vec<Target> = (0..2048).map(|n| format!("f{n}").parse().unwrap()).collect();
    let limits = names.iter().map(|name| (name.clone(), Limit { running: 2, ahead: 256 }));
    window.limits(&limits.collect());
    let mut rooms = |busy: &[Target]| {
        for name in busy {
            window.arrived(name, 1);
        }
        let fills = window.fills(1000);
        let rooms: Vec<usize> = fills.iter().map(|fill| fill.room).collect();
        // nothing is found, and so nothing is on its way
        for fill in &fills {
            window.loaded(fill, vec![], false, &[]);
        }
        rooms
    };
    assert_eq!(rooms(&names[..1]), [258]);
    assert_eq!(rooms(&names[..8]), [2 + AHEAD / 8; 8]);
    assert_eq!(rooms(&names), [2 + LEAST; 2048], "each has some");
    assert_eq!(rooms(&names[..1]), [258]);
}

#[test]
fn what_waits_of_one_function_weighs_no_more_than_its_share_until_it_begins() {
    let heavy = |row| Due { event: Event::new("/t", "t", vec![0; WEIGHT / 2]).into(), ..due(row, 1) };
    let mut window = window(8, 0);
    window.arrived(&name(), 1);
    let wanted = window.fills(100).remove(0);
    window.loaded(&wanted, vec![heavy(1), heavy(2)], true, &[]);
    window.published(&name(), 1, 1, 1, Instant::now());
    window.published(&name(), 2, 1, 2, Instant::now());
    assert_eq!(window.fills(100), [], "there is room in number");
    assert!(!window.is_lighter(&name()));
    begin(&mut window, 1, 1);
    assert!(window.is_lighter(&name()) && !window.is_lighter(&name()));
    assert_eq!(window.fills(100)[0].bytes, WEIGHT / 2);
}

#[test]
fn what_did_not_fit_into_memory_is_loaded_later() {
    let mut window = window(10, 3);
    window.reload(&name(), 1);
    window.reload(&name(), 2);
    window.arrived(&name(), 4);
    let fill = window.fills(100).remove(0);
    window.loaded(&fill, vec![due(1, 1)], true, &[2]);
    assert_eq!(window.fills(100), [to_load(&[2], 3, 7)]);
}

#[test]
fn a_failed_publication_is_loaded_again_but_a_begun_one_is_left_alone() {
    let mut window = window(4, 2);
    begin(&mut window, 1, 1);
    window.reload(&name(), 1);
    window.reload(&name(), 2);
    assert_eq!(window.fills(100), [to_load(&[2], 2, 0)]);
}

#[test]
fn when_the_stream_is_lost_what_runs_goes_on_and_the_rest_is_published_anew() {
    let mut window = window(4, 3);
    begin(&mut window, 2, 1);
    let mut unbegun = window.unbegun(None);
    unbegun.sort_by_key(|(_, row)| *row);
    assert_eq!(unbegun, [(name(), 1), (name(), 3)]);
    // a stream that begins with 3 has no 1
    assert_eq!(window.unbegun(Some(3)), [(name(), 1)]);
}

#[test]
fn the_last_message_that_is_not_begun_tells_of_a_lost_tail() {
    let mut window = window(4, 3);
    let sent = window.last_sent().unwrap();
    assert_eq!((sent.id.row(), sent.sequence), (3, 3));
    begin(&mut window, 3, 1);
    assert!(!window.is_sent(&sent));
    assert_eq!(window.last_sent().map(|sent| sent.sequence), Some(2));
}

#[test]
fn what_nobody_begins_is_looked_for_after_a_while_and_then_again_after_a_while() {
    const AGE: Duration = Duration::from_secs(30);
    let mut window = window(4, 2);
    assert_eq!(window.silent(Instant::now(), AGE, 9), []);
    let later = Instant::now() + AGE + Duration::from_secs(1);
    assert_eq!(window.silent(later, AGE, 1).len(), 1);
    assert_eq!(window.silent(later, AGE, 9).len(), 1, "the other one");
    assert_eq!(window.silent(later, AGE, 9), []);
    begin(&mut window, 1, 1);
    let rows: Vec<i64> = window.silent(later + AGE, AGE, 9).iter().map(|sent| sent.id.row()).collect();
    assert_eq!(rows, [2]);
}

//! The log on a real file: one test per promise.

mod order;
mod retained;

use std::time::Duration;

use chrono::{Duration as Span, Utc};

use super::{
    DeadReason, Log, LogError, Status, Tx, attempt as attempts,
    backlog::{self, Due},
    calls::CallRecord,
    dead::{self, DeadLetter, Edit},
    delivery::{self, End, Ended, Rules},
    detail,
    event::{self, Inserted, Prepared},
    query::{self, Selection},
    replay::{self, Request},
    retention::{self, Keep},
    unrun,
};
use crate::{
    Event, EventId, Name, Outcome,
    catalog::{Catalog, Chain, Function, Match},
    id::{Born, RowId},
    outcome::{Ending, Fault},
    payload::Format,
    retry::{LOST_LIMIT, RetryPolicy},
    sink::AcceptError,
};

fn log() -> (tempfile::TempDir, Log) {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path()).unwrap();
    (folder, log)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn ok() -> Outcome {
    Outcome { ending: Ending::Ok, fault: None, output: "1".into(), ..failed(Ending::Error) }
}

fn failed(ending: Ending) -> Outcome {
    Outcome::failure(ending, "Oops", "it failed")
}

/// Accepts an event for `target`, and gives the event's id.
async fn accept(log: &Log, event: Event, target: &str) -> Result<(String, bool), AcceptError> {
    let matched = [Match { target: name(target).into(), trigger: None, format: Format::Body, key: None, block: false }];
    let id = event.id.to_string();
    let event = Prepared::new(event);
    log.write(move |tx| match event::insert(tx, &event)? {
        Inserted::New(row) => {
            delivery::place(tx, row, event.event(), &matched)?;
            Ok((id.clone(), true))
        }
        Inserted::Duplicate => Ok((id.clone(), false)),
    })
    .await
}

async fn pending(log: &Log, target: &'static str) -> Vec<Due> {
    log.read(move |c| Ok::<_, LogError>(backlog::pending(c, target, 0, 100, usize::MAX)?.0)).await.unwrap()
}

/// Begins the next attempt of a delivery and ends it.
async fn attempt(log: &Log, due: &Due, outcome: Outcome, policy: RetryPolicy) -> Ended {
    let attempt = RowId::new(Born::now(), attempts::attempt_row(due.row, due.attempts + 1));
    end(log, attempt, outcome, policy).await
}

async fn end(log: &Log, attempt: RowId, outcome: Outcome, policy: RetryPolicy) -> Ended {
    end_by(log, attempt, outcome, catalog(policy, &["f", "done", "dead", "open"])).await
}

async fn end_by(log: &Log, attempt: RowId, outcome: Outcome, catalog: Catalog) -> Ended {
    let ended = log.write(move |tx| {
        let by = Rules { catalog: &catalog, namespace: &name("shop"), node: "node" };
        Ok::<_, LogError>(delivery::end(tx, attempt, &outcome, &by)?.ended)
    });
    ended.await.unwrap()
}

fn catalog(retry: RetryPolicy, functions: &[&str]) -> Catalog {
    let function =
        Function { class: "python", retry, timeout: Duration::from_secs(1), concurrency: 1, chain: Chain::default() };
    let functions = functions.iter().map(|function_name| (name(function_name), function.clone()));
    Catalog { functions: functions.collect(), ..Catalog::default() }
}

async fn show(log: &Log, id: &str) -> detail::EventDetail {
    let id = id.to_owned();
    log.read(move |c| detail::show(c, &id)).await.unwrap()
}

fn event() -> Event {
    Event::new("/t/x", "t.happened", r#"{"n":1.10}"#)
}

async fn letters(log: &Log) -> Vec<DeadLetter> {
    log.read(|c| dead::letters(c, &Selection::default(), 10, KEEP)).await.unwrap()
}

const KEEP: Keep = Keep { age: Duration::from_hours(1), dead: Duration::from_hours(48), bytes: u64::MAX };

const POLICY: RetryPolicy = RetryPolicy {
    attempts: 2,
    wait: Duration::from_secs(1),
    max_wait: Duration::from_secs(1),
    max_age: Duration::from_hours(1),
};

#[tokio::test]
async fn an_event_reads_back_byte_for_byte() {
    let (_folder, log) = log();
    let mut given = event();
    given.subject = Some("안녕".into());
    given.extensions.insert("tenant".to_owned(), "t1".to_owned());
    given.data = vec![0, 255, 10].into();
    given.causation = Some(EventId::new());
    given.correlation = Some(EventId::foreign("order 7"));
    accept(&log, given.clone(), "f").await.unwrap();
    assert_eq!(*pending(&log, "f").await[0].event, given);
}

#[tokio::test]
async fn a_foreign_id_is_accepted_once_and_another_body_under_it_is_a_conflict() {
    let (_folder, log) = log();
    let given = Event { id: EventId::foreign("o-1"), ..event() };
    assert_eq!(accept(&log, given.clone(), "f").await, Ok(("o-1".to_owned(), true)));
    assert_eq!(accept(&log, given.clone(), "f").await, Ok(("o-1".to_owned(), false)));
    let other = Event { data: "2".into(), ..given.clone() };
    assert!(matches!(accept(&log, other, "f").await, Err(AcceptError::Conflict { .. })));
    let elsewhere = Event { source: "/t/y".into(), ..given };
    assert_eq!(accept(&log, elsewhere, "f").await, Ok(("o-1".to_owned(), true)));
    assert_eq!(pending(&log, "f").await.len(), 2);
}

#[tokio::test]
async fn a_failed_attempt_waits_for_its_retry_and_the_last_one_makes_a_dead_letter() {
    let (_folder, log) = log();
    let (id, _) = accept(&log, event(), "f").await.unwrap();
    let first = pending(&log, "f").await.remove(0);
    let ended = attempt(&log, &first, failed(Ending::Error), POLICY).await;
    let Ended::RetryAt(at) = ended else { panic!("{ended:?}") };
    assert!(pending(&log, "f").await.is_empty());
    let due = |now| log.write(move |tx| Ok::<_, LogError>(delivery::due(tx, now, 10)?));
    assert!(due(at - Span::milliseconds(1)).await.unwrap().is_empty());
    assert_eq!(due(at).await.unwrap().len(), 1);
    let second = pending(&log, "f").await.remove(0);
    assert_eq!((second.attempts, second.publication), (1, 2));
    assert_eq!(attempt(&log, &second, failed(Ending::Timeout), POLICY).await, Ended::Final(Status::Dead));
    let detail = show(&log, &id).await;
    assert_eq!(detail.deliveries[0].reason.as_deref(), Some("attempts_exhausted"));
    assert_eq!(detail.deliveries[0].attempts.len(), 2);
    let letters = letters(&log).await;
    assert_eq!((letters.len(), letters[0].outcome.as_deref()), (1, Some("timeout")));
}

#[tokio::test]
async fn an_outcome_is_recorded_once_and_a_stale_attempt_records_nothing() {
    let (_folder, log) = log();
    let (id, _) = accept(&log, event(), "f").await.unwrap();
    let due = pending(&log, "f").await.remove(0);
    let current = RowId::new(Born::now(), attempts::attempt_row(due.row, 1));
    let forged = RowId::new(Born(7 << 12), attempts::attempt_row(due.row, 1));
    log.post(move |tx| Ok(delivery::begin(tx, current, "node")?));
    assert_eq!(end(&log, forged, ok(), POLICY).await, Ended::Stale);
    assert_eq!(end(&log, current, ok(), POLICY).await, Ended::Final(Status::Done));
    assert_eq!(end(&log, current, failed(Ending::Error), POLICY).await, Ended::Stale);
    let detail = show(&log, &id).await;
    assert_eq!((detail.status, detail.deliveries[0].attempts[0].output.as_deref()), (Status::Done, Some("1")));
}

/// What a start does with what was running, by the config that names `chain`.
async fn recover(log: &Log, chain: Chain) -> Vec<End> {
    let mut catalog = catalog(POLICY, &["f"]);
    catalog.functions.get_mut(&name("f")).unwrap().chain = chain;
    log.write(move |tx| {
        let by = Rules { catalog: &catalog, namespace: &name("shop"), node: "node" };
        Ok::<_, LogError>(delivery::recover(tx, &by)?)
    })
    .await
    .unwrap()
}

/// The first delivery of `f` that is pending begins, and its node ends.
async fn lose(log: &Log, chain: Chain) -> Vec<End> {
    let due = pending(log, "f").await.remove(0);
    let attempt = RowId::new(Born::now(), attempts::attempt_row(due.row, due.attempts + 1));
    log.write(move |tx| Ok::<_, LogError>(delivery::begin(tx, attempt, "node")?)).await.unwrap();
    assert!(!pending(log, "f").await.iter().any(|other| other.row == due.row));
    recover(log, chain).await
}

async fn time_passes(log: &Log) {
    log.write(|tx| Ok::<_, LogError>(delivery::due(tx, Utc::now() + Span::hours(1), 10)?)).await.unwrap();
}

#[tokio::test]
async fn what_was_running_when_the_node_ended_is_lost_and_tried_again_without_counting() {
    let (folder, log) = log();
    accept(&log, event(), "f").await.unwrap();
    let began = Utc::now();
    for n in 1..=5 {
        let due = pending(&log, "f").await.remove(0);
        assert_eq!(due.attempts, n - 1);
        let ends = lose(&log, Chain::default()).await;
        let [End { ended: Ended::RetryAt(at), .. }] = &ends[..] else { panic!("{ends:?}") };
        let wait = (*at - Utc::now()).num_milliseconds();
        let least = if n == 1 { -1000 } else { 900 << (n - 2) };
        assert!((least..=2000 << n).contains(&wait), "loss {n} waits {wait} ms");
        time_passes(&log).await;
    }
    log.close().await;
    let log = Log::open(folder.path()).unwrap();
    let due = pending(&log, "f").await.remove(0);
    // Two attempts by policy: the five lost ones are not among them.
    assert!(matches!(attempt(&log, &due, failed(Ending::Error), POLICY).await, Ended::RetryAt(_)));
    let id = due.event.id.to_string();
    let lost = show(&log, &id).await.deliveries[0].attempts[0].clone();
    assert_eq!(lost.outcome.as_deref(), Some("lost"));
    assert!(lost.started.unwrap() >= began && lost.error.unwrap().kind == "Runtime.Lost");
}

#[tokio::test]
async fn a_delivery_that_nodes_keep_ending_on_is_quarantined_with_all_that_follows() {
    let (_folder, log) = log();
    let chain = Chain { on_failure: vec![name("alarm").into()], ..Chain::default() };
    let rows = keyed(&log, &[Some("a"), Some("a")]).await;
    for _ in 1..LOST_LIMIT {
        lose(&log, chain.clone()).await;
        time_passes(&log).await;
    }
    let ends = lose(&log, chain).await;
    assert_eq!(ends.iter().map(|end| end.ended.clone()).collect::<Vec<_>>(), [Ended::Final(Status::Dead)]);
    let letters = letters(&log).await;
    assert_eq!(letters[0].reason.as_deref(), Some("quarantined"));
    assert_eq!(pending(&log, "alarm").await.len(), 1, "on_failure is told");
    assert_eq!(pending_rows(&log).await, [rows[1]], "the next of its key may go");
}

#[tokio::test]
async fn a_failure_that_is_not_to_be_tried_again_is_dead_at_once() {
    let (_folder, log) = log();
    let (id, _) = accept(&log, event(), "f").await.unwrap();
    let due = pending(&log, "f").await.remove(0);
    let outcome = failed(Ending::Error);
    let fault = outcome.fault.clone().map(|fault| Fault { retry: false, ..fault });
    assert_eq!(attempt(&log, &due, Outcome { fault, ..outcome }, POLICY).await, Ended::Final(Status::Dead));
    assert_eq!(show(&log, &id).await.deliveries[0].reason.as_deref(), Some("rejected"));
}

#[tokio::test]
async fn a_replay_is_resolved_when_it_is_made_and_a_redriven_letter_is_no_dead_letter_any_more() {
    let (_folder, log) = log();
    let (id, _) = accept(&log, event(), "f").await.unwrap();
    let once = RetryPolicy { attempts: 1, ..POLICY };
    let due = pending(&log, "f").await.remove(0);
    attempt(&log, &due, failed(Ending::Error), once).await;
    let request = Request { dead: true, ..Request::default() };
    let asked = request.clone();
    let plan = log.read(move |c| replay::plan(c, &asked)).await.unwrap();
    assert_eq!((plan.deliveries, plan.done_already), (1, 0));
    let (created, placed) = log.write(move |tx| replay::create(tx, &request)).await.unwrap();
    assert_eq!((created.plan, placed.len()), (plan, 1));
    assert!(letters(&log).await.is_empty());
    let again = pending(&log, "f").await.remove(0);
    assert_eq!(again.replay, Some(created.name));
    assert_eq!(again.event.id.to_string(), id);
    assert_eq!(show(&log, &id).await.deliveries[1].generation, 1);
}

#[tokio::test]
async fn a_flush_returns_when_calls_that_another_one_took_can_be_read_too() {
    use futures_util::FutureExt;
    let (_folder, log) = log();
    let event = Event::new("/s", "t", "{}");
    let id = event.id.to_string();
    log.calls().note(CallRecord {
        event: Prepared::new(event),
        target: name("f").into(),
        format: Format::Body,
        node: "n".into(),
        outcome: ok(),
    });
    // The writer is held up, so the first flush has taken the call and not written it.
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    log.post(move |_| {
        let _ = held.recv();
        Ok(())
    });
    let mut first = Box::pin(log.calls().flush());
    assert!(first.as_mut().now_or_never().is_none());
    let mut second = Box::pin(log.calls().flush());
    assert!(second.as_mut().now_or_never().is_none(), "what the first one took cannot be read yet");
    drop(go_on);
    tokio::join!(first, second);
    assert!(log.read(move |c| detail::show(c, &id)).await.is_ok());
}

#[tokio::test]
async fn synchronous_calls_are_written_in_bulk_and_their_failures_are_nobodys_dead_letters() {
    let (_folder, log) = log();
    for outcome in [ok(), failed(Ending::Error)] {
        let event = event();
        log.calls().note(CallRecord {
            event: Prepared::new(event),
            target: name("f").into(),
            format: Format::Body,
            node: "n".into(),
            outcome,
        });
    }
    log.calls().flush().await;
    let events = log.read(|c| query::events(c, &Selection::default(), 10)).await.unwrap();
    assert_eq!(events.iter().map(|e| e.status).collect::<Vec<_>>(), [Status::Done, Status::Dead]);
    assert!(letters(&log).await.is_empty());
}

#[tokio::test]
async fn letters_are_chosen_and_counted_by_their_reason() {
    let (_folder, log) = log();
    let once = RetryPolicy { attempts: 1, ..POLICY };
    for n in 0..3 {
        accept(&log, event(), "f").await.unwrap();
        let due = pending(&log, "f").await.remove(0);
        if n < 2 {
            attempt(&log, &due, failed(Ending::Error), once).await;
        } else {
            log.write(move |tx| {
                let by = Rules { catalog: &Catalog::default(), namespace: &name("shop"), node: "node" };
                Ok::<_, LogError>(unrun::expire(tx, due.row, &by)?.is_some())
            })
            .await
            .unwrap();
        }
    }
    let reason = |reason| Selection { reason: Some(reason), ..Selection::default() };
    let count =
        |selection: Selection| log.read(move |c| Ok::<_, query::QueryError>(dead::plan_drop(c, &selection)?.letters));
    assert_eq!(count(reason(DeadReason::AttemptsExhausted)).await.unwrap(), 2);
    assert_eq!(count(reason(DeadReason::Expired)).await.unwrap(), 1);
    let all = log.read(|c| dead::plan_drop(c, &Selection::default())).await.unwrap();
    assert_eq!(all.reasons, [("attempts_exhausted".to_owned(), 2), ("expired".to_owned(), 1)].into());
    let request = Request { selection: reason(DeadReason::Expired), dead: true, ..Request::default() };
    assert_eq!(log.write(move |tx| replay::create(tx, &request)).await.unwrap().1.len(), 1);
    assert_eq!(letters(&log).await.len(), 2);
    assert_eq!(letters(&log).await[0].history.len(), 1);
}

#[tokio::test]
async fn an_unknown_id_and_one_of_two_sources_are_told_apart() {
    let (_folder, log) = log();
    for source in ["/a", "/b"] {
        let event = Event { id: EventId::foreign("same"), source: source.into(), ..event() };
        accept(&log, event, "f").await.unwrap();
    }
    let ask = |id: &'static str| log.read(move |c| detail::show(c, id));
    assert!(matches!(ask("none").await, Err(query::QueryError::UnknownId { .. })));
    assert!(matches!(ask("same").await, Err(query::QueryError::Ambiguous { count: 2, .. })));
}

/// Accepts events for `f` under keys; their rows.
async fn keyed(log: &Log, keys: &[Option<&'static str>]) -> Vec<i64> {
    ordered(log, keys, false).await
}

/// The same, where what is given up blocks its key.
async fn blocking(log: &Log, keys: &[Option<&'static str>]) -> Vec<i64> {
    ordered(log, keys, true).await
}

async fn ordered(log: &Log, keys: &[Option<&'static str>], block: bool) -> Vec<i64> {
    let mut rows = Vec::new();
    for key in keys {
        let key = key.map(str::to_owned);
        let matched = [Match { target: name("f").into(), trigger: None, format: Format::Body, key, block }];
        let event = Prepared::new(event());
        let placed = log.write(move |tx| match event::insert(tx, &event)? {
            Inserted::New(row) => Ok::<_, AcceptError>(delivery::place(tx, row, event.event(), &matched)?),
            Inserted::Duplicate => Ok(Vec::new()),
        });
        rows.push(placed.await.unwrap()[0].row);
    }
    rows
}

async fn pending_rows(log: &Log) -> Vec<i64> {
    pending(log, "f").await.iter().map(|due| due.row).collect()
}

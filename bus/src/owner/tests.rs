//! The fence: what an attempt may still do when another one has taken its place.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    Event,
    catalog::{Binding, Chain, Function},
    log::attempt,
    outcome::Ending,
    payload::Format,
    retry::RetryPolicy,
    sink::AcceptError,
    window::Begin,
};

fn owner() -> (tempfile::TempDir, Owner, Target) {
    let folder = tempfile::tempdir().unwrap();
    let name: Name = "f".parse().unwrap();
    let function = Function {
        class: "python",
        retry: RetryPolicy::default(),
        timeout: Duration::from_secs(1),
        concurrency: 1,
        chain: Chain { then: vec!["file:out".parse().unwrap()], ..Chain::default() },
    };
    let binding = Binding { to: [name.clone().into()].into(), format: Format::Body, order_by: None, batch: None };
    let catalog = Catalog {
        functions: [(name.clone(), function)].into(),
        triggers: [("t".parse().unwrap(), binding)].into(),
        ..Catalog::default()
    };
    let log = Log::open(folder.path()).unwrap();
    let owner = Owner::new(log, "node".into(), "shop".parse().unwrap(), Arc::new(ArcSwap::from_pointee(catalog)));
    (folder, owner, name.into())
}

fn event(id: &str, data: &'static str) -> Event {
    let trigger = Some("t".parse().unwrap());
    Event { trigger, ..Event::with_id(crate::EventId::foreign(id), "/shop/t", "t", data) }
}

/// Accepts an event; its delivery as a worker would hold it.
async fn accepted(owner: &Owner) -> Claim {
    owner.accept(event("1", "{}"), Vec::new()).await.unwrap();
    let (target, due) = owner.take_ready().remove(0);
    Claim { target, delivery: due.id, publication: due.publication }
}

async fn begin(owner: &Owner, claim: &Claim) -> RowId {
    match owner.begin(std::slice::from_ref(claim)).await.unwrap()[..] {
        [Begin::Run { attempt, .. }] => attempt,
        ref other => panic!("{other:?}"),
    }
}

fn ok() -> Outcome {
    Outcome { ending: Ending::Ok, fault: None, ..Outcome::failure(Ending::Error, "", "") }
}

fn lost() -> Outcome {
    Outcome::failure(Ending::Lost, "Runtime.Lost", "not heard of")
}

/// What is in the lanes, after retries that are due.
async fn due_again(owner: &Owner, target: &Target) -> Claim {
    owner.take_due(ambient::now(), 10).await.unwrap();
    let fill = owner.window().fills(10).remove(0);
    let again = fill.again.clone();
    let read = move |c: &rusqlite::Connection| {
        again.iter().filter_map(|row| backlog::pending_row(c, *row).transpose()).collect::<rusqlite::Result<Vec<_>>>()
    };
    let rows = owner.log().read(move |c| Ok::<_, LogError>(read(c)?)).await.unwrap();
    let due = owner.window().loaded(&fill, rows, false, &[]).remove(0);
    Claim { target: target.clone(), delivery: due.id, publication: due.publication }
}

#[tokio::test]
async fn an_outcome_that_comes_after_its_attempt_was_lost_is_noted_and_changes_nothing() {
    let (_folder, owner, target) = owner();
    let first = accepted(&owner).await;
    let stale = begin(&owner, &first).await;
    assert!(matches!(owner.end(&target, stale, lost()).await.unwrap(), Ended::RetryAt(_)));
    assert_eq!(owner.end(&target, stale, ok()).await.unwrap(), Ended::Stale, "between two attempts");
    let second = due_again(&owner, &target).await;
    let current = begin(&owner, &second).await;
    assert_eq!(owner.end(&target, stale, ok()).await.unwrap(), Ended::Stale, "while the next one runs");
    assert!(owner.take_ready().is_empty(), "nothing follows from it");
    assert_eq!(owner.end(&target, current, ok()).await.unwrap(), Ended::Final(crate::log::Status::Done));
    assert_eq!(owner.take_ready().len(), 1, "what follows, follows once");
    assert_eq!(owner.late_outcomes(), 2);
}

#[tokio::test]
async fn who_holds_an_older_message_neither_begins_nor_gives_back_nor_renews() {
    let (_folder, owner, target) = owner();
    let first = accepted(&owner).await;
    let stale = begin(&owner, &first).await;
    owner.end(&target, stale, lost()).await.unwrap();
    let second = due_again(&owner, &target).await;
    assert_ne!(first.publication, second.publication);
    assert_eq!(owner.begin(std::slice::from_ref(&first)).await.unwrap(), [Begin::Stale]);
    owner.give_back(&first).await.unwrap();
    let current = begin(&owner, &second).await;
    owner.renew(&target, stale);
    let late = Instant::now() + crate::window::LEASE + Duration::from_secs(1);
    assert_eq!(owner.window().lost(late), [(target.clone(), current)], "nobody but the current attempt is waited for");
    owner.give_back(&second).await.unwrap();
    assert_eq!(owner.end(&target, current, ok()).await.unwrap(), Ended::Final(crate::log::Status::Done));
}

#[tokio::test]
async fn another_body_under_an_id_is_refused_and_counted() {
    let (_folder, owner, _) = owner();
    owner.accept(event("1", "a"), Vec::new()).await.unwrap();
    assert!(owner.accept(event("1", "a"), Vec::new()).await.unwrap().duplicate);
    assert_eq!(owner.conflicts(), 0);
    assert!(matches!(owner.accept(event("1", "b"), Vec::new()).await, Err(AcceptError::Conflict { .. })));
    assert_eq!(owner.conflicts(), 1);
}

#[tokio::test]
async fn an_outcome_that_is_reported_again_is_answered_as_before() {
    let (_folder, owner, target) = owner();
    let claim = accepted(&owner).await;
    let attempt = begin(&owner, &claim).await;
    for _ in 0..2 {
        assert_eq!(owner.end(&target, attempt, ok()).await.unwrap(), Ended::Final(crate::log::Status::Done));
    }
    assert_eq!(owner.late_outcomes(), 0);
}

#[tokio::test]
async fn an_attempt_that_could_not_be_run_is_none_and_the_next_one_has_its_number() {
    let (_folder, owner, target) = owner();
    let first = accepted(&owner).await;
    for written in [false, true] {
        let claim = if written { due_later(&owner, &target).await } else { first.clone() };
        let attempt = begin(&owner, &claim).await;
        if written {
            let begun = move |tx: &Tx<'_>| Ok::<_, LogError>(delivery::begin(tx, attempt, "node")?);
            owner.log().write(begun).await.unwrap();
        }
        let taken_back = owner.take_back(&target, attempt).await.unwrap();
        let Ended::RetryAt(at) = taken_back else { panic!("{taken_back:?}") };
        assert!((at - ambient::now()).num_milliseconds() > 100, "not at once");
        assert_eq!(owner.end(&target, attempt, ok()).await.unwrap(), Ended::Stale, "it is no attempt any more");
        assert_eq!(owner.take_back(&target, attempt).await.unwrap(), Ended::Stale);
    }
    let next = due_later(&owner, &target).await;
    let attempt = begin(&owner, &next).await;
    assert_eq!(attempt::delivery_of(attempt.row()).1, 1);
    assert_eq!(owner.end(&target, attempt, ok()).await.unwrap(), Ended::Final(crate::log::Status::Done));
    assert_eq!(attempts(&owner).await, ["ok"]);
}

#[tokio::test]
async fn where_a_beginning_cannot_be_written_nothing_has_begun_and_it_can_begin_again() {
    let (_folder, owner, target) = owner();
    let first = accepted(&owner).await;
    let lost_once = begin(&owner, &first).await;
    owner.end(&target, lost_once, lost()).await.unwrap();
    let suspect = due_again(&owner, &target).await;
    owner.accept(event("2", "{}"), Vec::new()).await.unwrap();
    let (_, due) = owner.take_ready().remove(0);
    let fresh = Claim { target: target.clone(), delivery: due.id, publication: due.publication };
    let both = [fresh, suspect];

    change(&owner, "CREATE TRIGGER no BEFORE INSERT ON attempt BEGIN SELECT RAISE(ABORT, 'no'); END").await;
    owner.begin(&both).await.unwrap_err();
    let late = Instant::now() + crate::window::LEASE + Duration::from_secs(1);
    assert_eq!(owner.window().lost(late), [], "nobody runs anything");
    change(&owner, "DROP TRIGGER no").await;
    let begun = owner.begin(&both).await.unwrap();
    assert!(matches!(begun[..], [Begin::Run { n: 1, .. }, Begin::Run { n: 2, .. }]), "{begun:?}");
    assert_eq!(attempts(&owner).await, ["lost", "open"], "the second is on disk before it runs");
}

async fn change(owner: &Owner, sql: &'static str) {
    owner.log().write(move |tx| Ok::<_, LogError>(tx.execute_batch(sql)?)).await.unwrap();
}

/// What is in the lanes when all retries are due.
async fn due_later(owner: &Owner, target: &Target) -> Claim {
    change(owner, "UPDATE delivery SET retry_at = 0 WHERE status = 3").await;
    due_again(owner, target).await
}

/// How the attempts in the log ended.
async fn attempts(owner: &Owner) -> Vec<String> {
    let read = |c: &rusqlite::Connection| {
        let mut rows = c.prepare("SELECT coalesce(outcome, 'open') FROM attempt ORDER BY id")?;
        rows.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
    };
    owner.log().read(move |c| Ok::<_, LogError>(read(c)?)).await.unwrap()
}

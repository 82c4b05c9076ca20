//! The fence: what an attempt may still do when another one has taken its place.

use std::time::Instant;

use super::*;
use crate::{
    Event,
    catalog::{Binding, Chain, Function},
    payload::Format,
    retry::RetryPolicy,
    sink::AcceptError,
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

//! The line of a key: one test per promise.

use super::*;

async fn end_lowest(log: &Log, row: i64, outcome: Outcome) -> Ended {
    let due = pending(log, "f").await.into_iter().find(|due| due.row == row).unwrap();
    attempt(log, &due, outcome, POLICY).await
}

#[tokio::test]
async fn of_each_key_only_the_lowest_unended_is_pending() {
    let (_folder, log) = log();
    let rows = keyed(&log, &[Some("a"), Some("a"), Some("b"), None, Some("a"), None]).await;
    assert_eq!(pending_rows(&log).await, [rows[0], rows[2], rows[3], rows[5]]);
    end_lowest(&log, rows[2], ok()).await;
    assert_eq!(pending_rows(&log).await, [rows[0], rows[3], rows[5]]);
    end_lowest(&log, rows[0], ok()).await;
    assert_eq!(pending_rows(&log).await, [rows[1], rows[3], rows[5]]);
}

#[tokio::test]
async fn a_retry_keeps_the_place_of_its_key_and_a_dead_letter_gives_it_up() {
    let (_folder, log) = log();
    let rows = keyed(&log, &[Some("a"), Some("a")]).await;
    assert!(matches!(end_lowest(&log, rows[0], failed(Ending::Error)).await, Ended::RetryAt(_)));
    assert!(pending_rows(&log).await.is_empty());
    log.write(|tx| Ok::<_, LogError>(delivery::due(tx, Utc::now() + Span::seconds(5), 10)?)).await.unwrap();
    assert_eq!(pending_rows(&log).await, [rows[0]]);
    assert_eq!(end_lowest(&log, rows[0], failed(Ending::Error)).await, Ended::Final(Status::Dead));
    assert_eq!(pending_rows(&log).await, [rows[1]]);
}

#[tokio::test]
async fn expiry_and_a_crash_keep_the_order_of_a_key() {
    let (_folder, log) = log();
    let rows = keyed(&log, &[Some("a"), Some("a"), Some("a")]).await;
    let first = rows[0];
    let freed = log.write(move |tx| {
        let by = Rules { catalog: &Catalog::default(), namespace: &name("shop"), node: "node" };
        Ok::<_, LogError>(unrun::expire(tx, first, &by)?.unwrap().placed)
    });
    assert_eq!(freed.await.unwrap().iter().map(|placed| placed.row).collect::<Vec<_>>(), [rows[1]]);
    let begun = RowId::new(Born::now(), attempts::attempt_row(rows[1], 1));
    log.write(move |tx| Ok::<_, LogError>(delivery::begin(tx, begun, "node")?)).await.unwrap();
    recover(&log, Chain::default()).await;
    assert!(pending_rows(&log).await.is_empty(), "a loss keeps the place of its key");
    time_passes(&log).await;
    assert_eq!(pending_rows(&log).await, [rows[1]]);
}

const ONCE: RetryPolicy = RetryPolicy { attempts: 1, ..POLICY };

/// Runs a pending delivery once, for good.
async fn finish(log: &Log, row: i64, outcome: Outcome) -> Ended {
    let due = pending(log, "f").await.into_iter().find(|due| due.row == row).unwrap();
    attempt(log, &due, outcome, ONCE).await
}

/// Makes a letter of the delivery; the id of its event.
async fn die(log: &Log, row: i64) -> String {
    let due = pending(log, "f").await.into_iter().find(|due| due.row == row).unwrap();
    assert_eq!(attempt(log, &due, failed(Ending::Error), ONCE).await, Ended::Final(Status::Dead));
    due.event.id.to_string()
}

fn of(id: &str) -> Selection {
    Selection { ids: vec![id.to_owned()], ..Selection::default() }
}

/// Redrives the letter of an event; the row of its new delivery.
async fn redrive(log: &Log, id: &str) -> i64 {
    let request = Request { selection: of(id), dead: true, ..Request::default() };
    let (_, placed) = log.write(move |tx| replay::create(tx, &request)).await.unwrap();
    assert_eq!(placed.len(), 1);
    placed[0].row
}

async fn drop(log: &Log, selection: Selection) -> dead::Dropped {
    log.write(move |tx| Ok::<_, query::QueryError>(dead::drop(tx, &selection)?.0)).await.unwrap()
}

async fn edit(log: &Log, id: &str, data: &'static str) -> Result<dead::Edited, query::QueryError> {
    let edit = Edit { id: id.to_owned(), target: None, data: data.into() };
    let catalog = catalog(POLICY, &["f"]);
    log.write(move |tx| {
        let by = Rules { catalog: &catalog, namespace: &name("shop"), node: "node" };
        Ok(dead::edit(tx, &edit, &by)?.0)
    })
    .await
}

#[tokio::test]
async fn a_blocking_letter_holds_up_its_key_and_no_other_through_a_restart() {
    let (folder, log) = log();
    let rows = blocking(&log, &[Some("a"), Some("a"), Some("b"), Some("b"), None]).await;
    let dead = die(&log, rows[0]).await;
    assert_eq!(pending_rows(&log).await, [rows[2], rows[4]]);
    finish(&log, rows[2], ok()).await;
    assert_eq!(pending_rows(&log).await, [rows[3], rows[4]]);
    log.close().await;
    let log = Log::open(folder.path()).unwrap();
    recover(&log, Chain::default()).await;
    assert_eq!(pending_rows(&log).await, [rows[3], rows[4]]);
    // what comes later waits too, and each says for what
    let later = blocking(&log, &[Some("a")]).await;
    assert_eq!(pending_rows(&log).await, [rows[3], rows[4]]);
    let held =
        log.read(move |c| Ok::<_, LogError>(detail::deliveries_where(c, "d.seq = ?1", later[0])?)).await.unwrap();
    let waits = held[0].waits.clone().unwrap();
    assert!(waits.contains(&format!("fnbus dead redrive {dead} --target f")), "{waits}");
    assert_eq!((letters(&log).await[0].blocks, letters(&log).await[0].expires), (2, None));
}

#[tokio::test]
async fn an_expired_one_blocks_its_key_too() {
    let (_folder, log) = log();
    let rows = blocking(&log, &[Some("a"), Some("a")]).await;
    let first = rows[0];
    let freed = log.write(move |tx| {
        let by = Rules { catalog: &Catalog::default(), namespace: &name("shop"), node: "node" };
        Ok::<_, LogError>(unrun::expire(tx, first, &by)?.unwrap().placed.len())
    });
    assert_eq!(freed.await.unwrap(), 0);
    assert!(pending_rows(&log).await.is_empty());
}

#[tokio::test]
async fn a_redrive_takes_the_place_of_what_blocks_and_its_good_end_frees_the_next() {
    let (_folder, log) = log();
    let rows = blocking(&log, &[Some("a"), Some("a"), Some("a")]).await;
    let id = die(&log, rows[0]).await;
    let again = redrive(&log, &id).await;
    assert_eq!(pending_rows(&log).await, [again], "it goes before everything that is held behind it");
    // a bad end blocks again
    assert_eq!(die(&log, again).await, id);
    assert!(pending_rows(&log).await.is_empty());
    let again = redrive(&log, &id).await;
    finish(&log, again, ok()).await;
    assert_eq!(pending_rows(&log).await, [rows[1]]);
    finish(&log, rows[1], ok()).await;
    assert_eq!(pending_rows(&log).await, [rows[2]]);
}

#[tokio::test]
async fn a_replay_of_what_ended_well_goes_to_the_end_of_its_line() {
    let (_folder, log) = log();
    let rows = blocking(&log, &[Some("a"), Some("a"), Some("a")]).await;
    let due = pending(&log, "f").await.remove(0);
    finish(&log, rows[0], ok()).await;
    let request = Request { selection: of(&due.event.id.to_string()), ..Request::default() };
    let (_, placed) = log.write(move |tx| replay::create(tx, &request)).await.unwrap();
    for row in [rows[1], rows[2], placed[0].row] {
        assert_eq!(pending_rows(&log).await, [row]);
        finish(&log, row, ok()).await;
    }
}

#[tokio::test]
async fn what_was_replayed_before_it_died_blocks_as_a_letter_that_can_be_settled() {
    let (_folder, log) = log();
    let rows = blocking(&log, &[Some("a"), Some("a")]).await;
    let id = pending(&log, "f").await[0].event.id.to_string();
    let request = Request { selection: of(&id), ..Request::default() };
    let (_, replayed) = log.write(move |tx| replay::create(tx, &request)).await.unwrap();
    die(&log, rows[0]).await;
    assert!(pending_rows(&log).await.is_empty());
    let again = redrive(&log, &id).await;
    assert_eq!(pending_rows(&log).await, [again]);
    die(&log, again).await;
    let dropped = drop(&log, of(&id)).await;
    assert_eq!((dropped.letters, dropped.freed), (1, 2));
    for row in [rows[1], replayed[0].row] {
        assert_eq!(pending_rows(&log).await, [row]);
        finish(&log, row, ok()).await;
    }
}

#[tokio::test]
async fn a_trial_elsewhere_leaves_what_blocks_in_its_place() {
    let (_folder, log) = log();
    let rows = blocking(&log, &[Some("a"), Some("a")]).await;
    let id = die(&log, rows[0]).await;
    let request = Request { selection: of(&id), to: Some(name("open")), ..Request::default() };
    log.write(move |tx| replay::create(tx, &request)).await.unwrap();
    let trial = pending(&log, "open").await.remove(0);
    assert_eq!(attempt(&log, &trial, failed(Ending::Error), ONCE).await, Ended::Final(Status::Dead));
    assert!(pending_rows(&log).await.is_empty());
    redrive(&log, &id).await;
    assert_eq!(pending_rows(&log).await.len(), 1);
}

#[tokio::test]
async fn a_dropped_letter_leaves_the_list_and_frees_its_key() {
    let (_folder, log) = log();
    let rows = blocking(&log, &[Some("a"), Some("a"), Some("b")]).await;
    let id = die(&log, rows[0]).await;
    let other = die(&log, rows[2]).await;
    let dropped = drop(&log, of(&id)).await;
    assert_eq!((dropped.letters, dropped.freed), (1, 1));
    assert_eq!(pending_rows(&log).await, [rows[1]]);
    assert_eq!(letters(&log).await.iter().map(|letter| letter.event.clone()).collect::<Vec<_>>(), [other]);
    let shown = show(&log, &id).await;
    assert_eq!(shown.status, Status::Dead);
    assert!(matches!(shown.deliveries[0].settled, Some(detail::Settled::Drop { .. })), "{shown:?}");
    // again it says so, and what is no dead letter is nothing
    let again = of(&id);
    let again = log.write(move |tx| dead::drop(tx, &again)).await;
    assert!(matches!(again, Err(query::QueryError::Settled { how: "dropped", .. })), "{again:?}");
    let open = pending(&log, "f").await[0].event.id.to_string();
    assert_eq!(drop(&log, of(&open)).await, dead::Dropped::default());
    assert_eq!(pending_rows(&log).await, [rows[1]]);
}

#[tokio::test]
async fn an_edited_letter_takes_its_place_and_each_of_the_two_names_the_other() {
    let (_folder, log) = log();
    let rows = blocking(&log, &[Some("a"), Some("a")]).await;
    let id = die(&log, rows[0]).await;
    let edited = edit(&log, &id, r#"{"n":2}"#).await.unwrap();
    assert_eq!((&edited.corrects, &*edited.target), (&id, "f"));
    let due = pending(&log, "f").await;
    assert_eq!((due.len(), &due[0].event.id.to_string()), (1, &edited.event), "it goes first");
    let (was, is) = (show(&log, &id).await, show(&log, &edited.event).await);
    assert_eq!((is.data.as_deref(), was.data.as_deref()), (Some(r#"{"n":2}"#), Some(r#"{"n":1.10}"#)));
    assert_eq!((&is.kind, &is.source, is.time), (&was.kind, &was.source, was.time));
    assert_eq!((is.corrects.as_ref(), is.causation.as_ref()), (Some(&id), Some(&id)));
    let Some(detail::Settled::Edit { event: Some(by), .. }) = &was.deliveries[0].settled else { panic!("{was:?}") };
    assert_eq!(by, &edited.event);
    assert!(letters(&log).await.is_empty());
    finish(&log, due[0].row, ok()).await;
    assert_eq!(pending_rows(&log).await, [rows[1]]);
}

#[tokio::test]
async fn what_is_no_dead_letter_or_no_correction_is_not_edited() {
    let (_folder, log) = log();
    let rows = keyed(&log, &[None]).await;
    let open = pending(&log, "f").await[0].event.id.to_string();
    assert!(matches!(edit(&log, &open, "{}").await, Err(query::QueryError::NoLetter { .. })));
    let id = die(&log, rows[0]).await;
    assert!(matches!(edit(&log, &id, r#"{"n":1.10}"#).await, Err(query::QueryError::Unchanged { .. })));
    assert!(matches!(edit(&log, &id, "{n:2").await, Err(query::QueryError::NotJson { .. })));
    assert_eq!(letters(&log).await.len(), 1);
    edit(&log, &id, "{}").await.unwrap();
    let again = edit(&log, &id, "{}").await;
    assert!(matches!(again, Err(query::QueryError::Settled { how: "edited", .. })), "once is enough: {again:?}");
}

#[tokio::test]
async fn one_that_may_not_be_passed_over_is_as_old_as_its_attempts() {
    let (_folder, log) = log();
    let rows = blocking(&log, &[Some("a")]).await;
    let (long_ago, row) = (Utc::now() - Span::hours(9), rows[0]);
    log.write(move |tx| {
        let born = long_ago.timestamp_millis() << 12;
        Ok::<_, LogError>(tx.execute("UPDATE delivery SET born = ?2 WHERE seq = ?1", (row, born))?)
    })
    .await
    .unwrap();
    assert!(matches!(end_lowest(&log, row, failed(Ending::Error)).await, Ended::RetryAt(_)));
}

#[tokio::test]
async fn retention_leaves_what_others_wait_for() {
    let (_folder, log) = log();
    let rows = blocking(&log, &[Some("a"), Some("a"), Some("b")]).await;
    let blocks = die(&log, rows[0]).await;
    die(&log, rows[2]).await;
    let keep = Keep { age: Duration::ZERO, dead: Duration::ZERO, ..KEEP };
    assert_eq!(retention::sweep(&log, keep).await.unwrap(), 1);
    assert_eq!(letters(&log).await.iter().map(|letter| letter.event.clone()).collect::<Vec<_>>(), [blocks.as_str()]);
    drop(&log, of(&blocks)).await;
    assert_eq!(retention::sweep(&log, keep).await.unwrap(), 1);
    assert_eq!(pending_rows(&log).await, [rows[1]]);
}

//! What stays in the log, and what goes.

use super::*;

#[tokio::test]
async fn retention_takes_what_ended_and_leaves_what_is_open_or_dead() {
    let (_folder, log) = log();
    let once = RetryPolicy { attempts: 1, ..POLICY };
    for (target, outcome) in [("done", Some(ok())), ("dead", Some(failed(Ending::Error))), ("open", None)] {
        accept(&log, event(), target).await.unwrap();
        if let Some(outcome) = outcome {
            let due = pending(&log, target).await.remove(0);
            attempt(&log, &due, outcome, once).await;
        }
    }
    let removed = retention::sweep(&log, Keep { age: Duration::ZERO, ..KEEP }).await.unwrap();
    assert_eq!(removed, 1);
    let left = log.read(|c| query::events(c, &Selection::default(), 10)).await.unwrap();
    assert_eq!(left.iter().map(|e| e.targets.join("")).collect::<Vec<_>>(), ["dead", "open"]);
}

/// So many events for `f` that came an hour ago and have ended.
async fn ended(log: &Log, events: usize) {
    let matched = [Match { target: name("f").into(), trigger: None, format: Format::Body, key: None, block: false }];
    let write = move |tx: &Tx<'_>| {
        for _ in 0..events {
            let event = Prepared::new(event());
            let row = event::insert_row(tx, &event)?;
            delivery::place(tx, row, event.event(), &matched)?;
        }
        tx.execute_batch(
            "UPDATE delivery SET status = 10, ended = 1; UPDATE event SET received = received - 3600000000",
        )
    };
    log.write(move |tx| Ok::<_, LogError>(write(tx)?)).await.unwrap();
}

#[tokio::test]
async fn retention_leaves_what_a_replay_has_yet_to_deliver() {
    let (_folder, log) = log();
    ended(&log, 10).await;
    let keep = Keep { age: Duration::from_mins(1), ..KEEP };
    let request = Request::default();
    let replayed = log.write(move |tx| replay::create(tx, &request)).await.unwrap();
    assert_eq!(replayed.0.plan.deliveries, 10);
    assert_eq!(retention::sweep(&log, keep).await.unwrap(), 0);
    for due in pending(&log, "f").await {
        assert_eq!(due.event.data, event().data);
        attempt(&log, &due, ok(), POLICY).await;
    }
    assert_eq!(retention::sweep(&log, keep).await.unwrap(), 10);
}

#[tokio::test]
async fn an_event_that_came_while_the_clock_was_ahead_keeps_no_other() {
    let (_folder, log) = log();
    ended(&log, 3).await;
    let ahead = "UPDATE event SET received = received + 9000000000000 WHERE seq = 1";
    log.write(|tx| Ok::<_, LogError>(tx.execute(ahead, [])?)).await.unwrap();
    let keep = Keep { age: Duration::from_mins(1), ..KEEP };
    assert_eq!(retention::sweep(&log, keep).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_long_while_retention_removes_much() {
    let (_folder, log) = log();
    ended(&log, 3000).await;
    let keep = Keep { age: Duration::from_mins(1), ..KEEP };
    let sweeping = tokio::spawn({
        let log = log.clone();
        async move { retention::sweep(&log, keep).await.unwrap() }
    });
    let mut accepted = 0;
    while !sweeping.is_finished() {
        accept(&log, Event { id: EventId::new(), ..event() }, "g").await.unwrap();
        accepted += 1;
    }
    assert_eq!(sweeping.await.unwrap(), 3000);
    // it removes 500 at once: nobody waits for more than one of these
    assert!(accepted >= 6, "{accepted} were accepted meanwhile");
}

#[tokio::test]
async fn a_dead_letter_goes_when_its_time_is_over_and_a_younger_one_stays() {
    let (_folder, log) = log();
    let once = RetryPolicy { attempts: 1, ..POLICY };
    for target in ["f", "dead"] {
        accept(&log, event(), target).await.unwrap();
        let due = pending(&log, target).await.remove(0);
        attempt(&log, &due, failed(Ending::Error), once).await;
    }
    let three_days_ago = (Utc::now() - Span::days(3)).timestamp_micros();
    log.write(move |tx| {
        tx.execute("UPDATE delivery SET ended = ?1 WHERE target = 'f'", [three_days_ago])?;
        Ok::<_, LogError>(tx.execute("UPDATE event SET received = ?1", [three_days_ago])?)
    })
    .await
    .unwrap();
    let expires: Vec<_> = letters(&log).await.iter().map(|letter| letter.expires.unwrap() > Utc::now()).collect();
    assert_eq!(expires, [false, true]);
    assert_eq!(retention::sweep(&log, KEEP).await.unwrap(), 1);
    assert_eq!(letters(&log).await.iter().map(|letter| letter.target.clone()).collect::<Vec<_>>(), ["dead"]);
}

#[tokio::test]
async fn a_log_over_its_size_loses_the_oldest_ended_events() {
    let (_folder, log) = log();
    let big = Event { data: vec![b'x'; 100_000].into(), ..event() };
    for _ in 0..20 {
        let event = Event { id: EventId::new(), ..big.clone() };
        accept(&log, event, "f").await.unwrap();
        let due = pending(&log, "f").await.remove(0);
        attempt(&log, &due, ok(), POLICY).await;
    }
    let keep = Keep { bytes: 100_000, ..KEEP };
    assert_eq!(retention::sweep(&log, keep).await.unwrap(), 20);
}

#[tokio::test]
async fn an_id_from_outside_is_forgotten_with_its_event_but_not_before_its_time() {
    let (_folder, log) = log();
    let seen = || log.read(|c| Ok::<u64, LogError>(c.query_row("SELECT count(*) FROM seen", [], |row| row.get(0))?));
    let done = async |id: &str| {
        accept(&log, Event { id: EventId::foreign(id), ..event() }, "f").await.unwrap();
        let due = pending(&log, "f").await.remove(0);
        attempt(&log, &due, ok(), POLICY).await;
    };
    done("a").await;
    let (day, none) = (Duration::from_hours(24), Duration::ZERO);
    let mut ids = retention::Ids::default();
    // No space: the event goes early, its id stays, and the same event is still known.
    assert_eq!(retention::sweep(&log, Keep { age: day, bytes: 0, ..KEEP }).await.unwrap(), 1);
    let before = Utc::now() - Span::hours(24);
    assert_eq!(ids.forget(&log, before.timestamp_micros()).await.unwrap(), 0);
    assert_eq!(accept(&log, Event { id: EventId::foreign("a"), ..event() }, "f").await, Ok(("a".to_owned(), false)));
    // Its time has come.
    assert_eq!(ids.forget(&log, Utc::now().timestamp_micros()).await.unwrap(), 1);
    assert_eq!(seen().await.unwrap(), 0);
    done("b").await;
    accept(&log, Event { id: EventId::foreign("open"), ..event() }, "f").await.unwrap();
    assert_eq!(retention::sweep(&log, Keep { age: none, ..KEEP }).await.unwrap(), 1);
    assert_eq!(seen().await.unwrap(), 1, "that of the event that is not done");
    assert_eq!(ids.forget(&log, Utc::now().timestamp_micros()).await.unwrap(), 0);
}

#[tokio::test]
async fn many_old_ids_are_forgotten_in_one_round_and_few_one_chunk_at_a_time() {
    let (_folder, log) = log();
    let fill = |from: i64, until: i64, old: i64| {
        log.write(move |tx| {
            let sql = "WITH RECURSIVE n(i) AS (VALUES (?1) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2) \
                       INSERT INTO seen (id, scope, hash, event, at) SELECT printf('%08d', i), '/s', x'00', -1, \
                       iif(i % ?3, 9, 1) FROM n";
            tx.execute(sql, [from, until, old])?;
            Ok::<_, LogError>(())
        })
    };
    fill(0, 12_000, 1).await.unwrap();
    let mut ids = retention::Ids::default();
    assert_eq!(ids.forget(&log, 5).await.unwrap(), 12_000);
    fill(0, 12_000, 100).await.unwrap();
    let mut rounds = Vec::new();
    for _ in 0..4 {
        rounds.push(ids.forget(&log, 5).await.unwrap());
    }
    assert_eq!(rounds, [50, 50, 20, 0], "round and round");
}

//! The one thread that writes, with group commit.
//!
//! Changes queue in a bounded channel. The thread takes the first, opens a transaction, runs it and whatever else
//! has arrived, commits once, and only then answers: a lone change is on disk after one fsync, a thousand concurrent
//! ones share it. A change that fails undoes itself and nobody else's.
//!
//! A savepoint around each change would see to that, but it makes SQLite keep a copy of every page the change touches,
//! and changes that fail after they wrote something are rare. So a group runs without, and when one of them does fail
//! so, all of it is rolled back and run again, each change in a savepoint. Changes are therefore `Fn`: they may run
//! twice, and only the last time counts.

#[cfg(test)]
mod turns;

use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Failure, LogError, bound::Gauge, checkpoint::Checkpoints, health::Health};
#[cfg(test)]
pub(crate) use turns::Turns;

/// Changes waiting at most; beyond, callers wait to be let in.
const QUEUE: usize = 4096;
/// Changes in one commit at most: bounds how long the first of them waits.
const GROUP: usize = 512;

/// A change's view of the log: the transaction it is part of.
pub struct Tx<'a> {
    connection: &'a Connection,
}

impl std::ops::Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

/// A change and who waits for it.
trait Change: Send {
    /// Runs it. How it failed stays with it, but for what the log itself did.
    fn apply(&mut self, tx: &Tx<'_>) -> Result<(), Option<LogError>>;
    /// Tells how its commit went.
    fn answer(self: Box<Self>, committed: Result<(), LogError>);
}

/// Somebody waits.
struct Written<F, T, E, A, R> {
    change: F,
    result: Option<Result<T, E>>,
    after: A,
    caller: oneshot::Sender<Result<R, E>>,
}

/// Nobody waits.
struct Posted<F> {
    change: F,
    result: Result<(), LogError>,
}

impl<F, T, E, A, R> Change for Written<F, T, E, A, R>
where
    F: Fn(&Tx<'_>) -> Result<T, E> + Send,
    T: Send,
    E: Failure,
    A: FnOnce(T) -> R + Send,
    R: Send,
{
    fn apply(&mut self, tx: &Tx<'_>) -> Result<(), Option<LogError>> {
        self.result.insert((self.change)(tx)).as_ref().map(|_| ()).map_err(Failure::of_log)
    }

    fn answer(self: Box<Self>, committed: Result<(), LogError>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result.map(self.after),
            (Ok(()), None) => Err(LogError::Closed.into()),
            (Err(error), _) => Err(error.into()),
        };
        // A caller that went away does not want to know.
        let _ = self.caller.send(result);
    }
}

impl<F: Fn(&Tx<'_>) -> Result<(), LogError> + Send> Change for Posted<F> {
    fn apply(&mut self, tx: &Tx<'_>) -> Result<(), Option<LogError>> {
        self.result = (self.change)(tx);
        self.result.clone().map_err(Some)
    }

    fn answer(self: Box<Self>, committed: Result<(), LogError>) {
        if let Err(error) = committed.and(self.result) {
            tracing::error!(%error, "a change of the event log was lost");
        }
    }
}

enum Command {
    Change(Box<dyn Change>),
    Close(oneshot::Sender<()>),
}

#[derive(Clone)]
pub(super) struct Writer {
    commands: mpsc::Sender<Command>,
    commits: watch::Receiver<u64>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        checkpoints: Option<Checkpoints>,
        gauge: Option<Gauge>,
        health: Health,
    ) -> Self {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (committed, commits) = watch::channel(0);
        let thread = thread::Builder::new().name("log-writer".into());
        let write = move || {
            run(&connection, queue, &committed, checkpoints, gauge, &health);
            if health.check().is_err() {
                // Closing the last connection would move what the disk did not keep, or what is damaged.
                std::mem::forget(connection);
            }
        };
        thread.spawn(write).expect("a thread for the log's writer");
        Self { commands, commits }
    }

    pub(super) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    pub(super) async fn write<T, E, R>(
        &self,
        change: impl Fn(&Tx<'_>) -> Result<T, E> + Send + 'static,
        after: impl FnOnce(T) -> R + Send + 'static,
    ) -> Result<R, E>
    where
        T: Send + 'static,
        E: Failure,
        R: Send + 'static,
    {
        let (caller, answered) = oneshot::channel();
        let change = Box::new(Written { change, result: None, after, caller });
        if self.commands.send(Command::Change(change)).await.is_err() {
            return Err(LogError::Closed.into());
        }
        answered.await.unwrap_or_else(|_| Err(LogError::Closed.into()))
    }

    pub(super) fn post(&self, change: impl Fn(&Tx<'_>) -> Result<(), LogError> + Send + 'static) {
        match self.commands.try_send(Command::Change(Box::new(Posted { change, result: Ok(()) }))) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(command)) => {
                // Late is better than never, and rare: such a change may be overtaken by one that waited its turn.
                let commands = self.commands.clone();
                tokio::spawn(async move { commands.send(command).await });
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                tracing::error!("a change came after the event log was closed");
            }
        }
    }

    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

fn run(
    connection: &Connection,
    mut queue: mpsc::Receiver<Command>,
    committed: &watch::Sender<u64>,
    mut checkpoints: Option<Checkpoints>,
    mut gauge: Option<Gauge>,
    health: &Health,
) {
    while let Some(first) = queue.blocking_recv() {
        let closing = turn(connection, first, &mut queue, GROUP, committed, health);
        if let Some(checkpoints) = &mut checkpoints
            && health.check().is_ok()
        {
            checkpoints.committed(connection);
        }
        if let Some(gauge) = &mut gauge {
            gauge.committed(connection);
        }
        if let Some(done) = closing {
            queue.close();
            if health.check().is_ok() {
                let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            }
            let _ = done.send(());
            return;
        }
    }
}

/// One group: the first and what else has arrived, committed, then answered. Gives who wants the writer to end.
fn turn(
    connection: &Connection,
    first: Command,
    queue: &mut mpsc::Receiver<Command>,
    most: usize,
    committed: &watch::Sender<u64>,
    health: &Health,
) -> Option<oneshot::Sender<()>> {
    let mut next = Some(first);
    let mut closing = None;
    let mut group = Group::begin(connection, health);
    while let Some(command) = next.take() {
        match command {
            Command::Change(change) => group.add(change),
            Command::Close(done) => {
                closing = Some(done);
                break;
            }
        }
        if group.changes.len() < most {
            next = queue.try_recv().ok();
        }
    }
    let (changes, outcome) = group.commit();
    match &outcome {
        Ok(()) => health.written(),
        Err(error) => health.note(error),
    }
    committed.send_modify(|n| *n += 1);
    for change in changes {
        change.answer(outcome.clone());
    }
    closing
}

/// The changes of one transaction.
struct Group<'a> {
    connection: &'a Connection,
    changes: Vec<Box<dyn Change>>,
    /// Each change runs in a savepoint: one of them failed after it wrote something.
    careful: bool,
    /// An error is everybody's.
    state: Result<(), LogError>,
}

impl<'a> Group<'a> {
    fn begin(connection: &'a Connection, health: &Health) -> Self {
        let state = health.check().and_then(|()| step(connection, "BEGIN IMMEDIATE"));
        Self { connection, changes: Vec::with_capacity(64), careful: false, state }
    }

    fn add(&mut self, mut change: Box<dyn Change>) {
        if self.state.is_ok() {
            self.state = if self.careful {
                guarded(self.connection, &mut *change)
            } else {
                match plain(self.connection, &mut *change) {
                    Ok(true) => Ok(()),
                    Ok(false) => self.again(&mut *change),
                    Err(error) => Err(error),
                }
            };
        }
        self.changes.push(change);
    }

    /// Runs everything so far once more, and the change that left something behind after it.
    fn again(&mut self, last: &mut dyn Change) -> Result<(), LogError> {
        self.careful = true;
        step(self.connection, "ROLLBACK")?;
        step(self.connection, "BEGIN IMMEDIATE")?;
        self.changes.iter_mut().try_for_each(|change| guarded(self.connection, &mut **change))?;
        guarded(self.connection, last)
    }

    fn commit(self) -> (Vec<Box<dyn Change>>, Result<(), LogError>) {
        let Self { connection, changes, state, .. } = self;
        let outcome = state.and_then(|()| step(connection, "COMMIT"));
        if outcome.is_err() && !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        (changes, outcome)
    }
}

/// Runs a change; false when it failed and has written something. An error is the whole group's.
fn plain(connection: &Connection, change: &mut dyn Change) -> Result<bool, LogError> {
    let before = connection.total_changes();
    let ok = apply(connection, change)?;
    Ok(ok || connection.total_changes() == before)
}

/// Runs a change in a savepoint. An error is the whole group's.
fn guarded(connection: &Connection, change: &mut dyn Change) -> Result<(), LogError> {
    step(connection, "SAVEPOINT change")?;
    if !apply(connection, change)? {
        step(connection, "ROLLBACK TO change")?;
    }
    step(connection, "RELEASE change")
}

/// Runs a change; false when it failed by itself. A disk that is full or fails makes SQLite roll everything back, and
/// beside a damaged page nothing is to be written.
fn apply(connection: &Connection, change: &mut dyn Change) -> Result<bool, LogError> {
    match change.apply(&Tx { connection }) {
        Err(Some(damaged @ LogError::Damaged { .. })) => Err(damaged),
        Err(error) if connection.is_autocommit() => Err(error.unwrap_or(LogError::Undone)),
        Ok(()) if connection.is_autocommit() => Err(LogError::Undone),
        applied => Ok(applied.is_ok()),
    }
}

fn step(connection: &Connection, sql: &str) -> Result<(), LogError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> (tempfile::TempDir, Writer) {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("log.db")).unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)").unwrap();
        (folder, Writer::start(connection, None, None, Health::new()))
    }

    async fn insert(writer: &Writer, n: i64) -> Result<(), LogError> {
        writer.write(move |tx| Ok(tx.execute("INSERT INTO t VALUES (?1)", [n]).map(|_| ())?), |()| ()).await
    }

    async fn count(writer: &Writer) -> i64 {
        writer
            .write(|tx| tx.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).map_err(LogError::from), |n| n)
            .await
            .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_that_fails_undoes_itself_and_nobody_elses() {
        let (_folder, writer) = writer();
        let changes = (0..100).map(|n| {
            let writer = writer.clone();
            tokio::spawn(async move {
                writer
                    .write(
                        move |tx| {
                            tx.execute("INSERT INTO t VALUES (?1)", [n]).map_err(LogError::from)?;
                            if n % 10 == 0 { Err(LogError::Closed) } else { Ok(()) }
                        },
                        |()| (),
                    )
                    .await
            })
        });
        let mut failed = 0;
        for change in changes.collect::<Vec<_>>() {
            failed += i32::from(change.await.unwrap().is_err());
        }
        assert_eq!(failed, 10);
        assert_eq!(count(&writer).await, 90);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_that_fails_before_it_wrote_anything_lets_the_others_go_on() {
        let (_folder, writer) = writer();
        let failing = writer.write(|_| Err::<(), _>(LogError::Closed), |()| ());
        let (failed, inserted) = tokio::join!(failing, insert(&writer, 1));
        assert!(failed.is_err() && inserted.is_ok());
        assert_eq!(count(&writer).await, 1);
    }

    #[tokio::test]
    async fn what_is_to_be_done_after_a_commit_is_done_though_the_caller_has_gone() {
        let (_folder, writer) = writer();
        let (tell, told) = oneshot::channel();
        let change = |tx: &Tx<'_>| Ok::<_, LogError>(tx.execute("INSERT INTO t VALUES (1)", [])?);
        let gone = writer.write(change, move |_| tell.send(()));
        // polled once: the change is handed over, and its answer not waited for
        let _ = futures_util::FutureExt::now_or_never(gone);
        told.await.unwrap();
        assert_eq!(count(&writer).await, 1);
    }

    #[tokio::test]
    async fn a_posted_change_is_seen_by_the_next_one() {
        let (_folder, writer) = writer();
        writer.post(|tx| Ok(tx.execute("INSERT INTO t VALUES (1)", []).map(|_| ())?));
        assert_eq!(count(&writer).await, 1);
    }

    #[tokio::test]
    async fn after_closing_everything_is_refused() {
        let (_folder, writer) = writer();
        insert(&writer, 1).await.unwrap();
        writer.close().await;
        assert!(matches!(insert(&writer, 2).await, Err(LogError::Closed)));
    }
}

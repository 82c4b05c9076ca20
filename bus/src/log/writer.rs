//! The one thread that writes, with group commit.
//!
//! Changes queue in a bounded channel. The thread takes the first, opens a transaction, runs it and whatever else
//! has arrived, commits once, and only then answers: a lone change is on disk after one fsync, a thousand concurrent
//! ones share it. A change that fails undoes itself (its savepoint) and nobody else's.

use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::LogError;

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

/// Answers a caller, once it is known whether the commit succeeded.
type Answer = Box<dyn FnOnce(Result<(), LogError>) + Send>;
type Change = Box<dyn FnOnce(&Tx<'_>) -> (bool, Answer) + Send>;

enum Command {
    Change(Change),
    Close(oneshot::Sender<()>),
}

#[derive(Clone)]
pub(super) struct Writer {
    commands: mpsc::Sender<Command>,
    commits: watch::Receiver<u64>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Self {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (committed, commits) = watch::channel(0);
        let thread = thread::Builder::new().name("log-writer".into());
        thread.spawn(move || run(&connection, queue, &committed)).expect("a thread for the log's writer");
        Self { commands, commits }
    }

    pub(super) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    pub(super) async fn write<T, E>(
        &self,
        change: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<LogError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let change: Change = Box::new(move |tx| {
            let result = change(tx);
            let ok = result.is_ok();
            let reply: Answer = Box::new(move |committed| {
                // A caller that went away does not want to know.
                let _ = answer.send(committed.map_err(E::from).and(result));
            });
            (ok, reply)
        });
        if self.commands.send(Command::Change(change)).await.is_err() {
            return Err(LogError::Closed.into());
        }
        answered.await.unwrap_or_else(|_| Err(LogError::Closed.into()))
    }

    pub(super) fn post(&self, change: impl FnOnce(&Tx<'_>) -> Result<(), LogError> + Send + 'static) {
        let change: Change = Box::new(move |tx| {
            let result = change(tx);
            let ok = result.is_ok();
            let report: Answer = Box::new(move |committed| {
                if let Err(error) = committed.and(result) {
                    tracing::error!(%error, "a change of the event log was lost");
                }
            });
            (ok, report)
        });
        match self.commands.try_send(Command::Change(change)) {
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

fn run(connection: &Connection, mut queue: mpsc::Receiver<Command>, committed: &watch::Sender<u64>) {
    let mut answers = Vec::with_capacity(GROUP);
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        let mut closing = None;
        let mut outcome = begin(connection);
        while let Some(command) = next.take() {
            match command {
                Command::Change(change) => match &outcome {
                    Ok(()) => {
                        let (answer, result) = apply(connection, change);
                        answers.push(answer);
                        outcome = result;
                    }
                    // The group is lost already: every later change of it is told the same.
                    Err(error) => refuse(connection, change, error),
                },
                Command::Close(done) => {
                    closing = Some(done);
                    break;
                }
            }
            if answers.len() < GROUP {
                next = queue.try_recv().ok();
            }
        }
        let outcome = outcome.and_then(|()| commit(connection));
        if outcome.is_err() && !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        committed.send_modify(|n| *n += 1);
        for answer in answers.drain(..) {
            answer(outcome.clone());
        }
        if let Some(done) = closing {
            queue.close();
            let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            let _ = done.send(());
            return;
        }
    }
}

fn begin(connection: &Connection) -> Result<(), LogError> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    Ok(())
}

fn commit(connection: &Connection) -> Result<(), LogError> {
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

/// Runs one change in its savepoint. An error here is the whole group's: SQLite ended the transaction.
fn apply(connection: &Connection, change: Change) -> (Answer, Result<(), LogError>) {
    let step = |sql: &str| -> Result<(), LogError> {
        connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    };
    let opened = step("SAVEPOINT change");
    let (ok, answer) = change(&Tx { connection });
    let result = opened.and_then(|()| {
        if connection.is_autocommit() {
            // A full disk or a damaged page makes SQLite roll everything back by itself.
            return Err(LogError::Full);
        }
        if !ok {
            step("ROLLBACK TO change")?;
        }
        step("RELEASE change")
    });
    (answer, result)
}

fn refuse(connection: &Connection, change: Change, error: &LogError) {
    // The change must run to make its answer; what it writes goes nowhere, for it runs in a transaction that is
    // rolled back.
    let scratch = connection.execute_batch("BEGIN");
    let (_, answer) = change(&Tx { connection });
    if scratch.is_ok() && !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    answer(Err(error.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> (tempfile::TempDir, Writer) {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("log.db")).unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)").unwrap();
        (folder, Writer::start(connection))
    }

    async fn insert(writer: &Writer, n: i64) -> Result<(), LogError> {
        writer.write(move |tx| Ok(tx.execute("INSERT INTO t VALUES (?1)", [n]).map(|_| ())?)).await
    }

    async fn count(writer: &Writer) -> i64 {
        writer
            .write(|tx| tx.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).map_err(LogError::from))
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
                    .write(move |tx| {
                        tx.execute("INSERT INTO t VALUES (?1)", [n]).map_err(LogError::from)?;
                        if n % 10 == 0 { Err(LogError::Closed) } else { Ok(()) }
                    })
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

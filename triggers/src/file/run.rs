//! Watches, looks, and accepts.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bus::{
    Event, EventId, Name,
    sink::{AcceptError, Ledger, Mark},
};
use bytes::Bytes;
use chrono::Utc;
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Pattern,
    event::{event_of, key_of},
    inventory::{Change, Inventory, Sign, Stamp, What},
    scan::{self, Found, scan},
    watch::{Watch, Watched},
};
use crate::{config::FileTrigger, status::Live};

/// Changes that are accepted at once: they share a commit.
const CHUNK: usize = 256;
/// How often the folders themselves are looked at.
const FOLDERS: Duration = Duration::from_secs(1);
/// How often everything is looked at although nobody hinted at anything: some file systems do not.
const EVERYTHING: Duration = Duration::from_secs(30);
/// The same where the system tells of no changes at all.
const DEAF: Duration = Duration::from_secs(2);
/// Before trying again what the log did not take.
const AGAIN: Duration = Duration::from_secs(1);
/// The largest content that an event takes along.
const MAX_BODY: u64 = 6 << 20;
/// The key under which the patterns are remembered; those of files begin with [`FILE`].
const PATTERNS: &str = "patterns";
const FILE: &str = "file:";

/// A file trigger that runs.
pub(crate) struct Files<S> {
    pub(crate) sink: S,
    pub(crate) trigger: Name,
    /// `/<namespace>/<trigger>`.
    pub(crate) source: Arc<str>,
    pub(crate) config: FileTrigger,
    /// When it was asked for.
    pub(crate) since: SystemTime,
    pub(crate) live: Live,
}

/// How telling of a change ended.
enum Told {
    Done,
    /// It is no longer what it was.
    Changed(Option<Stamp>),
    /// It is what it was, and its content cannot be had.
    Unreadable(io::Error),
    Failed(AcceptError),
}

impl<S: Ledger> Files<S> {
    /// Runs until shut down.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut inventory = loop {
            match self.begin().await {
                Ok(inventory) => break inventory,
                Err(error) => {
                    tracing::warn!(trigger = %self.trigger, %error, "what is known of files could not be read");
                }
            }
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = shutdown.cancelled() => return,
            }
        };
        let mut watch = Watch::new(&self.config.patterns);
        let mut folders = interval(FOLDERS);
        folders.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = None;
        let mut state = None;
        let mut blocked: Option<Instant> = None;
        loop {
            let ripe = inventory.next_ripe(self.config.settle).map(|at| blocked.map_or(at, |until| at.max(until)));
            tokio::select! {
                hint = watch.hints.recv() => {
                    if let Some(hint) = hint {
                        take_hints(&mut inventory, &mut watch, hint);
                    }
                }
                () = watch.everything.notified() => looked = None,
                _ = folders.tick() => {
                    let watched = watch.renew();
                    if watched.anew {
                        looked = None;
                    }
                    let often = if watched.deaf { DEAF } else { EVERYTHING };
                    if looked.is_some_and(|(at, took): (Instant, Duration)| at.elapsed() > often.max(took * 20)) {
                        looked = None;
                    }
                    self.say(&watched, &mut state);
                }
                () = until(ripe) => {}
                () = shutdown.cancelled() => return,
            }
            if looked.is_none() {
                looked = Some(self.look_everywhere(&mut inventory).await);
            }
            if ripe.is_some_and(|at| at <= Instant::now()) {
                let taken = self.tell(&mut inventory).await;
                blocked = (!taken).then(|| Instant::now() + AGAIN);
            }
        }
    }

    /// What was known when this trigger last ran. Files that are there when it runs for the first time are not new, nor
    /// are those that only a new pattern means.
    async fn begin(&self) -> Result<Inventory, AcceptError> {
        let mut marks = self.sink.marks(&self.trigger).await?;
        let patterns = self.config.patterns.iter().map(Pattern::as_str).collect::<Vec<_>>();
        let now = serde_json::to_string(&patterns).unwrap_or_default();
        let before = marks.remove(PATTERNS);
        let mut inventory = Inventory::default();
        for (key, value) in &marks {
            let path = key.strip_prefix(FILE).map(|key| self.config.base.join(key));
            if let (Some(path), Ok(stamp)) = (path, value.parse())
                && self.is_meant(&path)
            {
                inventory.know(path, stamp);
            }
        }
        if before.as_deref() == Some(&now) {
            return Ok(inventory);
        }
        let before: Vec<String> = before.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let before: Vec<Pattern> = before.iter().filter_map(|p| Pattern::new(p, &self.config.base).ok()).collect();
        let known: HashSet<PathBuf> = inventory.paths().map(Path::to_owned).collect();
        let mut marks = vec![self.mark(PATTERNS.to_owned(), Some(now))];
        for (path, stamp) in self.scan().await.files {
            let watched = before.iter().any(|pattern| pattern.matches(&path));
            if !watched && !known.contains(&path) && scan::is_older(&path, self.since) {
                marks.push(self.mark_of(&path, Some(&stamp)));
                inventory.know(path, stamp);
            }
        }
        self.sink.accept_marked(None, marks).await?;
        Ok(inventory)
    }

    /// Compares everything; says when that was and how long it took.
    async fn look_everywhere(&self, inventory: &mut Inventory) -> (Instant, Duration) {
        let begun = Instant::now();
        let found = self.scan().await;
        if found.unnamed > 0 {
            tracing::warn!(trigger = %self.trigger, files = found.unnamed, "files whose names are not UTF-8 are passed over");
        }
        let now = Instant::now();
        let gone: Vec<PathBuf> = inventory
            .paths()
            // of a folder that is away nothing is known
            .filter(|path| !found.files.contains_key(*path) && !found.unread.iter().any(|root| path.starts_with(root)))
            .map(Path::to_owned)
            .collect();
        for path in gone {
            inventory.observe(&path, scan::look(&path), Sign::Seen, now);
        }
        for (path, stamp) in found.files {
            inventory.observe(&path, Some(stamp), Sign::Seen, now);
        }
        inventory.tidy();
        (now, begun.elapsed())
    }

    async fn scan(&self) -> Found {
        let patterns = self.config.patterns.clone();
        tokio::task::spawn_blocking(move || scan(&patterns)).await.unwrap_or_default()
    }

    /// Accepts what is ripe. False: the log did not take it.
    async fn tell(&self, inventory: &mut Inventory) -> bool {
        let renames = self.config.on.contains(&bus::event::FileChange::Renamed);
        let changes = inventory.ripe(self.config.settle, renames, Instant::now());
        for chunk in changes.chunks(CHUNK) {
            let told = join_all(chunk.iter().map(|change| self.tell_one(change))).await;
            let mut failed = None;
            for (change, told) in chunk.iter().zip(told) {
                match told {
                    Told::Done => inventory.done(change),
                    Told::Changed(stamp) => inventory.observe(&change.path, stamp, Sign::Seen, Instant::now()),
                    Told::Unreadable(error) => {
                        if inventory.put_off(change) {
                            self.say_unreadable(&change.path, &error);
                        }
                    }
                    Told::Failed(error) => failed = Some(error),
                }
            }
            inventory.tidy();
            if let Some(error) = failed {
                self.live.waits(&self.trigger, &error);
                return false;
            }
        }
        self.live.goes_on(&self.trigger);
        tracing::debug!(trigger = %self.trigger, changes = changes.len(), known = inventory.len(), "files");
        true
    }

    async fn tell_one(&self, change: &Change) -> Told {
        let gone = change.what == What::Removed;
        let stamp = scan::look(&change.path);
        if stamp != (!gone).then_some(change.stamp) {
            return Told::Changed(stamp);
        }
        let mut marks = vec![self.mark_of(&change.path, (!gone).then_some(&change.stamp))];
        if let What::Renamed { from } = &change.what {
            marks.push(self.mark_of(from, None));
        }
        let event = if self.config.on.contains(&change.what.change()) {
            match self.event(change).await {
                Ok(event) => event,
                Err(told) => return told,
            }
        } else {
            None
        };
        match self.accept(event, marks).await {
            Ok(()) => Told::Done,
            Err(error) => Told::Failed(error),
        }
    }

    async fn accept(&self, event: Option<Event>, marks: Vec<Mark>) -> Result<(), AcceptError> {
        let Some(event) = event else { return self.sink.accept_marked(None, marks).await.map(|_| ()) };
        let mut again = event.clone();
        let known = match self.sink.accept_marked(Some(event), marks.clone()).await {
            Ok(accepted) => accepted.is_some_and(|accepted| accepted.duplicate),
            Err(AcceptError::Conflict { .. }) => true,
            Err(error) => return Err(error),
        };
        if known {
            // The inventory does not know it, so it was away and has come back unchanged: that is new, and needs a new id.
            again.id = EventId::foreign(&format!("{}+{}", again.id, Utc::now().timestamp_micros()));
            self.sink.accept_marked(Some(again), marks).await?;
        }
        Ok(())
    }

    /// The event of a change; none when its content is wanted and too large. An error says why there is none now.
    async fn event(&self, change: &Change) -> Result<Option<Event>, Told> {
        let mut data = Bytes::new();
        if self.config.body && change.what != What::Removed {
            if change.stamp.size > MAX_BODY {
                tracing::error!(
                    trigger = %self.trigger, file = %change.path.display(), bytes = change.stamp.size,
                    "the file is larger than the 6 MiB that `payload = \"body\"` takes along and is not delivered; \
                     `payload = \"lambda\"` gives its path"
                );
                return Ok(None);
            }
            let (path, stamp) = (change.path.clone(), change.stamp);
            let read = tokio::task::spawn_blocking(move || read(&path, &stamp)).await;
            let read = read.unwrap_or_else(|panic| Err(io::Error::other(panic)));
            data = match (read, scan::look(&change.path)) {
                (Ok(Some(data)), _) => data,
                (_, stamp) if stamp != Some(change.stamp) => return Err(Told::Changed(stamp)),
                (Err(error), _) => return Err(Told::Unreadable(error)),
                (Ok(None), _) => return Err(Told::Unreadable(io::Error::other("it is not as long as its size says"))),
            };
        }
        Ok(Some(event_of(change, &self.config.base, &self.trigger, &self.source, data)))
    }

    fn say_unreadable(&self, path: &Path, error: &io::Error) {
        tracing::error!(
            trigger = %self.trigger, file = %path.display(), %error,
            "the file cannot be read and is not delivered until it can; let the user that runs fnbus read it, or take \
             only its path: `payload = \"lambda\"`"
        );
    }

    fn say(&self, watched: &Watched, said: &mut Option<Watched>) {
        let watched = Watched { anew: false, ..watched.clone() };
        if said.as_ref() == Some(&watched) {
            return;
        }
        let base = &self.config.base;
        let shown = |paths: &[PathBuf]| paths.iter().map(|p| folder_text(p, base)).collect::<Vec<_>>().join(", ");
        if watched.missing.is_empty() {
            let mut roots: Vec<PathBuf> = self.config.patterns.iter().map(|p| p.root().to_owned()).collect();
            roots.dedup();
            self.live.state(format!("watching {}", shown(&roots)));
        } else {
            let missing = shown(&watched.missing);
            tracing::warn!(trigger = %self.trigger, folder = missing, "the watched folder is not there; it is waited for");
            self.live.state(format!("waiting for the folder {missing}"));
        }
        *said = Some(watched);
    }

    fn is_meant(&self, path: &Path) -> bool {
        self.config.patterns.iter().any(|pattern| pattern.matches(path))
    }

    fn mark_of(&self, path: &Path, stamp: Option<&Stamp>) -> Mark {
        self.mark(format!("{FILE}{}", key_of(path, &self.config.base)), stamp.map(ToString::to_string))
    }

    fn mark(&self, key: String, value: Option<String>) -> Mark {
        Mark { trigger: self.trigger.clone(), key, value }
    }
}

/// Looks where the hints say.
fn take_hints(inventory: &mut Inventory, watch: &mut Watch, first: (PathBuf, Sign)) {
    let mut hint = Some(first);
    // One look a path: the last hint says what it is now, and whether it is being written.
    let mut paths = BTreeMap::new();
    while let Some((path, sign)) = hint {
        let known = paths.entry(path).or_insert(Sign::Seen);
        *known = if sign == Sign::Seen { *known } else { sign };
        hint = watch.hints.try_recv().ok();
    }
    for (path, sign) in paths.into_iter().filter(|(path, _)| path.to_str().is_some()) {
        let linked = sign == Sign::Writing && scan::is_linked(&path);
        inventory.observe(&path, scan::look(&path), if linked { Sign::Seen } else { sign }, Instant::now());
    }
    inventory.tidy();
}

/// A folder for people.
fn folder_text(folder: &Path, base: &Path) -> String {
    let text = key_of(folder, base);
    if text.is_empty() { ".".to_owned() } else { text }
}

/// The content of a file that is still what it was; none when it is not. A link in its place is not followed.
fn read(path: &Path, stamp: &Stamp) -> io::Result<Option<Bytes>> {
    const NOFOLLOW_NONBLOCK: i32 = (rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits()) as i32;
    let mut file = File::options().read(true).custom_flags(NOFOLLOW_NONBLOCK).open(path)?;
    if scan::stamp(&file.metadata()?) != Some(*stamp) {
        return Ok(None);
    }
    let mut data = Vec::with_capacity(stamp.size as usize);
    file.by_ref().take(MAX_BODY + 1).read_to_end(&mut data)?;
    let same = scan::stamp(&file.metadata()?) == Some(*stamp) && data.len() as u64 == stamp.size;
    Ok(same.then(|| data.into()))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_the_content_of_the_very_file_that_was_seen_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "one").unwrap();
        let seen = scan::look(&path).unwrap();
        assert_eq!(read(&path, &seen).unwrap().as_deref(), Some(&b"one"[..]));
        let other = folder.path().join("b");
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(read(&path, &seen).unwrap(), None, "another file is in its place");
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&path, &seen).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(read(&path, &seen).is_err(), "a link was followed");
    }
}

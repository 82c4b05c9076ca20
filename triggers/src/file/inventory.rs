//! What changed, and whether it is finished: a decision on what was seen and when, without a clock or a disk.
//!
//! A path that differs from what was last told is pending. It is ripe when nothing about it changed for the settling
//! time; one that somebody is known to write waits for its end, and, should nobody tell of that, a minute without a
//! change. What comes back to what it was is no change.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

/// How long a file that is open for writing may rest before it is taken for finished.
const ABANDONED: Duration = Duration::from_mins(1);

/// One state of a file: another one differs in something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) inode: u64,
    /// When the inode was made, in nanoseconds; 0 where that is not known. Inodes are used again.
    pub(super) born: i64,
    pub(super) size: u64,
    /// In nanoseconds since 1970.
    pub(super) modified: i64,
}

/// How a change was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// By looking.
    Seen,
    /// Somebody writes.
    Writing,
    /// Somebody who wrote has closed it, or put it there finished.
    Closed,
}

/// Something that happened to a file, finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) path: PathBuf,
    pub(super) what: What,
    /// What it is now; of a removed one what it was.
    pub(super) stamp: Stamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Created,
    Modified,
    Removed,
    Renamed { from: PathBuf },
}

/// What was told of each file, and what is to be told.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    known: HashMap<PathBuf, Stamp>,
    pending: HashMap<PathBuf, Pending>,
}

#[derive(Debug)]
struct Pending {
    /// None: it is gone.
    stamp: Option<Stamp>,
    since: Instant,
    writing: bool,
    /// It was ripe and could not be read: it is when it is seen again.
    put_off: bool,
    /// That was said.
    said: bool,
}

impl Inventory {
    /// Takes a file for told.
    pub(super) fn know(&mut self, path: PathBuf, stamp: Stamp) {
        self.known.insert(path, stamp);
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.known.keys().chain(self.pending.keys()).map(PathBuf::as_path)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Notes what a path is now.
    pub(super) fn observe(&mut self, path: &Path, stamp: Option<Stamp>, sign: Sign, now: Instant) {
        if self.known.get(path) == stamp.as_ref() {
            self.pending.remove(path);
            return;
        }
        let fresh = || Pending { stamp, since: now, writing: false, put_off: false, said: false };
        let pending = self.pending.entry(path.to_owned()).or_insert_with(fresh);
        if pending.stamp != stamp {
            (pending.stamp, pending.since, pending.said) = (stamp, now, false);
        }
        pending.put_off = false;
        match sign {
            Sign::Seen => {}
            Sign::Writing => pending.writing = true,
            Sign::Closed => pending.writing = false,
        }
    }

    /// What is finished now. It stays pending until it is [`done`](Self::done). With `renames` a file that is gone and
    /// one that is there with the same inode are one change.
    pub(super) fn ripe(&self, settle: Duration, renames: bool, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut gone = HashMap::new();
        let here: HashSet<_> = self.pending.values().filter_map(|p| p.stamp.as_ref().map(Stamp::file)).collect();
        for (path, pending) in &self.pending {
            let Some(was) = self.known.get(path) else { continue };
            if pending.stamp.is_none() && renames {
                gone.insert(was.file(), path);
            }
        }
        for (path, pending) in self.pending.iter().filter(|(_, pending)| pending.is_ripe(settle, now)) {
            let was = self.known.get(path);
            let (what, stamp) = match (pending.stamp, was) {
                (Some(new), Some(was)) if new.file() == was.file() => (What::Modified, new),
                (Some(new), _) => match gone.get(&new.file()) {
                    Some(from) => (What::Renamed { from: (*from).clone() }, new),
                    None => (What::Created, new),
                },
                // told by the one it became
                (None, Some(was)) if renames && here.contains(&was.file()) => continue,
                (None, Some(was)) => (What::Removed, *was),
                (None, None) => continue,
            };
            changes.push(Change { path: path.clone(), what, stamp });
        }
        changes.sort_by(|a, b| (a.stamp.modified, &a.path).cmp(&(b.stamp.modified, &b.path)));
        changes
    }

    /// When something may be ripe next.
    pub(super) fn next_ripe(&self, settle: Duration) -> Option<Instant> {
        self.pending.values().filter(|pending| !pending.put_off).map(|pending| pending.ripe_at(settle)).min()
    }

    /// A change was told.
    pub(super) fn done(&mut self, change: &Change) {
        let now = if change.what == What::Removed { None } else { Some(change.stamp) };
        match now {
            Some(stamp) => _ = self.known.insert(change.path.clone(), stamp),
            None => _ = self.known.remove(&change.path),
        }
        if let What::Renamed { from } = &change.what {
            self.known.remove(from);
            self.pending.remove(from);
        }
        if self.pending.get(&change.path).is_some_and(|pending| pending.stamp == now) {
            self.pending.remove(&change.path);
        }
    }

    /// A change cannot be told although nothing about the file differs: it waits until the file is seen again, by a hint
    /// or by the next look at everything. True: that is new.
    pub(super) fn put_off(&mut self, change: &Change) -> bool {
        let Some(pending) = self.pending.get_mut(&change.path) else { return false };
        pending.put_off = true;
        !std::mem::replace(&mut pending.said, true)
    }

    /// Forgets what came and went before anybody was told.
    pub(super) fn tidy(&mut self) {
        let known = &self.known;
        self.pending.retain(|path, pending| pending.stamp.is_some() || known.contains_key(path));
    }
}

impl Pending {
    fn is_ripe(&self, settle: Duration, now: Instant) -> bool {
        !self.put_off && self.ripe_at(settle) <= now
    }

    fn ripe_at(&self, settle: Duration) -> Instant {
        self.since + if self.writing { settle.max(ABANDONED) } else { settle }
    }
}

impl Stamp {
    /// Which file it is, whatever is in it.
    fn file(&self) -> (u64, i64) {
        (self.inode, self.born)
    }
}

/// As it is remembered.
impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { inode, born, size, modified } = self;
        write!(f, "{inode}.{born}.{size}.{modified}")
    }
}

impl FromStr for Stamp {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(());
        Ok(Self {
            inode: part()?.parse().map_err(drop)?,
            born: part()?.parse().map_err(drop)?,
            size: part()?.parse().map_err(drop)?,
            modified: part()?.parse().map_err(drop)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_millis(200);

    /// A clock that only moves when told, and an inventory.
    struct Story {
        inventory: Inventory,
        now: Instant,
    }

    impl Story {
        fn new(known: &[(&str, Stamp)]) -> Self {
            let mut inventory = Inventory::default();
            for (path, stamp) in known {
                inventory.know(path.into(), *stamp);
            }
            Self { inventory, now: Instant::now() }
        }

        fn see(&mut self, path: &str, stamp: Option<Stamp>, sign: Sign) -> &mut Self {
            self.inventory.observe(path.as_ref(), stamp, sign, self.now);
            self
        }

        fn wait(&mut self, ms: u64) -> &mut Self {
            self.now += Duration::from_millis(ms);
            self
        }

        /// What is told now; it is done with.
        fn told(&mut self, renames: bool) -> Vec<(String, What)> {
            let changes = self.inventory.ripe(SETTLE, renames, self.now);
            for change in &changes {
                self.inventory.done(change);
            }
            self.inventory.tidy();
            changes.into_iter().map(|change| (change.path.display().to_string(), change.what)).collect()
        }
    }

    fn stamp(inode: u64, size: u64) -> Stamp {
        Stamp { inode, born: 0, size, modified: size as i64 }
    }

    fn one(path: &str, what: What) -> Vec<(String, What)> {
        vec![(path.to_owned(), what)]
    }

    #[test]
    fn a_file_is_told_once_it_did_not_change_for_the_settling_time() {
        let mut story = Story::new(&[]);
        assert_eq!(story.see("a", Some(stamp(1, 5)), Sign::Seen).wait(199).told(false), []);
        assert_eq!(story.see("a", Some(stamp(1, 9)), Sign::Seen).wait(199).told(false), []);
        assert_eq!(story.see("a", Some(stamp(1, 9)), Sign::Seen).wait(1).told(false), one("a", What::Created));
        assert_eq!(story.wait(1000).told(false), []);
    }

    #[test]
    fn a_file_that_is_written_waits_for_its_end_however_slow() {
        let mut story = Story::new(&[]);
        assert_eq!(story.see("a", Some(stamp(1, 0)), Sign::Writing).wait(5000).told(false), []);
        assert_eq!(story.see("a", Some(stamp(1, 9)), Sign::Writing).wait(5000).told(false), []);
        assert_eq!(story.see("a", Some(stamp(1, 9)), Sign::Closed).wait(0).told(false), one("a", What::Created));
    }

    #[test]
    fn a_file_whose_writer_is_never_heard_of_again_is_told_after_a_minute() {
        let mut story = Story::new(&[]);
        assert_eq!(story.see("a", Some(stamp(1, 5)), Sign::Writing).wait(59_999).told(false), []);
        assert_eq!(story.wait(1).told(false), one("a", What::Created));
    }

    #[test]
    fn a_known_file_that_changes_is_modified_and_another_one_in_its_place_is_created() {
        let mut story = Story::new(&[("a", stamp(1, 5)), ("b", stamp(2, 5))]);
        story.see("a", Some(stamp(1, 6)), Sign::Closed).see("b", Some(stamp(3, 7)), Sign::Closed);
        let told = story.wait(200).told(false);
        assert_eq!(told, [("a".to_owned(), What::Modified), ("b".to_owned(), What::Created)]);
    }

    #[test]
    fn what_goes_is_removed_and_what_comes_back_in_time_was_never_gone() {
        let mut story = Story::new(&[("a", stamp(1, 5)), ("b", stamp(2, 5))]);
        story.see("a", None, Sign::Seen).see("b", None, Sign::Seen).wait(100).see("b", Some(stamp(2, 5)), Sign::Seen);
        assert_eq!(story.wait(100).told(false), one("a", What::Removed));
        assert_eq!(story.wait(1000).told(false), []);
    }

    #[test]
    fn a_rename_is_one_change_where_it_is_asked_for_and_two_where_it_is_not() {
        let renamed = || {
            let mut story = Story::new(&[("a", stamp(1, 5))]);
            story.see("a", None, Sign::Seen).wait(10).see("b", Some(stamp(1, 5)), Sign::Closed);
            story
        };
        let mut story = renamed();
        assert_eq!(story.wait(195).told(true), [], "the new name is not ripe yet");
        assert_eq!(story.wait(5).told(true), one("b", What::Renamed { from: "a".into() }));
        assert_eq!(story.wait(1000).told(true), []);
        let told = renamed().wait(200).told(false);
        assert_eq!(told, [("a".to_owned(), What::Removed), ("b".to_owned(), What::Created)]);
    }

    #[test]
    fn what_comes_and_goes_before_it_is_finished_is_nothing() {
        let mut story = Story::new(&[]);
        story.see("a", Some(stamp(1, 5)), Sign::Writing).wait(100).see("a", None, Sign::Seen);
        assert_eq!(story.wait(1000).told(false), []);
        assert_eq!(story.inventory.next_ripe(SETTLE), None);
    }

    #[test]
    fn what_cannot_be_read_waits_until_it_is_seen_again_and_is_said_once_a_state() {
        let mut story = Story::new(&[]);
        let put_off = |story: &mut Story| {
            let ripe = story.inventory.ripe(SETTLE, false, story.now);
            ripe.iter().map(|change| story.inventory.put_off(change)).collect::<Vec<_>>()
        };
        story.see("a", Some(stamp(1, 5)), Sign::Closed).wait(200);
        assert_eq!(put_off(&mut story), [true]);
        assert_eq!((put_off(story.wait(9000)), story.inventory.next_ripe(SETTLE)), (vec![], None));
        story.see("a", Some(stamp(1, 5)), Sign::Seen);
        assert_eq!(put_off(&mut story), [false], "nothing about it is new");
        story.see("a", Some(stamp(1, 6)), Sign::Closed).wait(200);
        assert_eq!(put_off(&mut story), [true]);
        story.see("a", Some(stamp(1, 6)), Sign::Seen);
        assert_eq!(story.told(false), one("a", What::Created));
    }

    #[test]
    fn a_stamp_reads_back_as_it_is_remembered() {
        let stamp = Stamp { inode: u64::MAX, born: -1, size: 0, modified: i64::MAX };
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        assert_eq!("1.2.3".parse::<Stamp>(), Err(()));
    }
}

//! What instances keep in their private folders: no more than `ephemeral_storage`. No file system bounds a folder for who is
//! not its owner, so the folders are looked at again and again, and an instance that has more in it is ended. In namespaces
//! they are a file system of their own, which the kernel bounds. See `docs/adr/0029-files-of-an-instance.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use bus::Name;
use tokio::{sync::Notify, task::spawn_blocking, time};
use tracing::warn;

use crate::{
    lock,
    process::{Group, Process},
};

/// Between two looks.
const AGAIN: Duration = Duration::from_millis(250);
/// Of the time of a core that looking may take, one part in so many.
const PART: u32 = 50;
/// What a file or folder takes at least, so that many empty ones are too much as well.
const LEAST: u64 = 4096;
/// The unit in which the kernel says what a file takes.
const BLOCK: u64 = 512;

#[derive(Debug, Default)]
pub(crate) struct Storage {
    watched: Mutex<Vec<Watched>>,
    /// Told when there is something to look at.
    wake: Notify,
}

#[derive(Debug, Clone)]
struct Watched {
    function: Name,
    group: Weak<Group>,
    /// Its private folder.
    home: PathBuf,
    /// The one above, where all that is forked from one process may write to it.
    shared: Option<PathBuf>,
    /// Bytes it may have there.
    most: u64,
}

impl Storage {
    /// Holds an instance of a function to so many bytes. `shared`: it may also write beside its private folder.
    pub(crate) fn hold(&self, function: &Name, process: &Process, most: u64, shared: bool) {
        let home = process.home().to_owned();
        let shared = home.parent().filter(|_| shared).map(Path::to_owned);
        let group = Arc::downgrade(process.group());
        lock(&self.watched).push(Watched { function: function.clone(), group, home, shared, most });
        self.wake.notify_one();
    }

    /// Looks, for ever.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            let (storage, begun) = (self.clone(), Instant::now());
            match spawn_blocking(move || storage.look()).await {
                Ok(false) => self.wake.notified().await,
                _ => time::sleep(AGAIN.max(begun.elapsed() * PART)).await,
            }
        }
    }

    /// Ends who has too much. Whether there is anything to look at again.
    fn look(&self) -> bool {
        let watched = {
            let mut watched = lock(&self.watched);
            // what is left of one that has ended is not yet removed
            watched.retain(|one| one.group.strong_count() > 0 || one.home.exists());
            watched.clone()
        };
        let homes: BTreeSet<&Path> = watched.iter().map(|one| one.home.as_path()).collect();
        let mut beside = BTreeMap::new();
        for one in &watched {
            // nothing is written by who is stopped
            let Some(group) = one.group.upgrade().filter(|group| !group.is_frozen()) else { continue };
            let kept = size(&one.home, &BTreeSet::new(), one.most);
            let beside = one
                .shared
                .as_deref()
                .map_or(0, |folder| *beside.entry(folder).or_insert_with(|| size(folder, &homes, one.most)));
            let is_over = kept + unlinked(&group, &one.home) > one.most || beside > one.most;
            if is_over && group.end_overfull() {
                let (name, most) = (&one.function, one.most >> 20);
                warn!(function.name = %name, "an instance of `{name}` has more than {most} MiB of files and is ended");
            }
        }
        !watched.is_empty()
    }
}

/// Bytes of what is in a folder, but for these folders; no more is looked at when it is over `most`.
fn size(folder: &Path, but: &BTreeSet<&Path>, most: u64) -> u64 {
    let (mut bytes, mut folders) = (0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if but.contains(&*path) {
                continue;
            }
            // of the file itself, wherever a link leads
            let Ok(meta) = entry.metadata() else { continue };
            bytes += (meta.blocks() * BLOCK).max(LEAST);
            if meta.is_dir() {
                folders.push(path);
            }
            if bytes > most {
                return bytes;
            }
        }
    }
    bytes
}

/// Bytes of files that an instance has open, on the disk of its folder, and that have no name any more.
fn unlinked(group: &Group, home: &Path) -> u64 {
    let Ok(disk) = fs::metadata(home).map(|meta| meta.dev()) else { return 0 };
    let mut files = BTreeSet::new();
    for process in group.members() {
        let open = fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero())).into_iter().flatten().flatten();
        for meta in open.filter_map(|file| fs::metadata(file.path()).ok()) {
            if meta.is_file() && meta.nlink() == 0 && meta.dev() == disk {
                files.insert((meta.ino(), meta.blocks() * BLOCK));
            }
        }
    }
    files.into_iter().map(|(_, bytes)| bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_size_of_a_folder_is_what_its_files_take_and_each_takes_something() {
        let temp = tempfile::tempdir().unwrap();
        let of = |but: &[&Path], most| size(temp.path(), &but.iter().copied().collect(), most);
        assert_eq!(of(&[], 1 << 20), 0);
        fs::create_dir(temp.path().join("deep")).unwrap();
        fs::write(temp.path().join("deep/empty"), "").unwrap();
        assert_eq!(of(&[], 1 << 20), 2 * LEAST);
        fs::write(temp.path().join("deep/file"), vec![1; 1 << 20]).unwrap();
        let all = of(&[], u64::MAX);
        assert!((1 << 20..2 << 20).contains(&all), "{all}");
        // nothing that lies elsewhere
        symlink("/usr", temp.path().join("link")).unwrap();
        assert_eq!(of(&[], u64::MAX), all + LEAST);
        assert_eq!(of(&[&temp.path().join("deep")], u64::MAX), LEAST);
        assert!(of(&[], LEAST) <= all + LEAST);
    }
}

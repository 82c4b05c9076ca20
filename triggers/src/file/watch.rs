//! Hints that something changed, from the system. They may be late, double or lost: they say where to look.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{
    ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode},
};
use tokio::sync::{Notify, mpsc};

use super::{Pattern, inventory::Sign, scan};

/// Hints that wait to be looked at; more than these make one look at everything.
const HINTS: usize = 8192;

/// The watched folders of a trigger.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// Each root, deep or not, and the folder that stood there when it was watched.
    roots: BTreeMap<PathBuf, Root>,
    pub(super) hints: mpsc::Receiver<(PathBuf, Sign)>,
    /// Without a watcher there are no hints, which is not the end of them.
    _hints: mpsc::Sender<(PathBuf, Sign)>,
    /// Everything is to be looked at.
    pub(super) everything: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Root {
    deep: bool,
    /// None: it is not watched.
    folder: Option<(u64, u64)>,
}

/// How the folders are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    /// Some folder was watched anew, so anything may have happened in it.
    pub(super) anew: bool,
    pub(super) missing: Vec<PathBuf>,
    /// The system does not tell of changes: only looking helps.
    pub(super) deaf: bool,
}

impl Watch {
    pub(super) fn new(patterns: &[Pattern]) -> Self {
        let mut roots: BTreeMap<PathBuf, Root> = BTreeMap::new();
        for pattern in patterns {
            roots.entry(pattern.root().to_owned()).or_default().deep |= pattern.is_deep();
        }
        let (send, hints) = mpsc::channel(HINTS);
        let everything = Arc::new(Notify::new());
        let wanted = patterns.to_vec();
        let all = everything.clone();
        let keep = send.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) => pass_on(&event, &wanted, &send, &all),
            Err(_) => all.notify_one(),
        });
        let watcher = watcher.inspect_err(|error| tracing::warn!(%error, "folders cannot be watched")).ok();
        Self { watcher, roots, hints, _hints: keep, everything }
    }

    /// Watches what is there and is not watched. Folders that went away are watched again when they are back.
    pub(super) fn renew(&mut self) -> Watched {
        let mut watched = Watched { anew: false, missing: Vec::new(), deaf: self.watcher.is_none() };
        for (path, root) in &mut self.roots {
            let folder = scan::folder_id(path);
            if folder.is_none() {
                watched.missing.push(path.clone());
            }
            if folder == root.folder {
                continue;
            }
            let Some(watcher) = &mut self.watcher else {
                watched.anew |= folder.is_some();
                root.folder = folder;
                continue;
            };
            if root.folder.take().is_some() {
                let _ = watcher.unwatch(path);
            }
            if folder.is_none() {
                continue;
            }
            let mode = if root.deep { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            match watcher.watch(path, mode) {
                Ok(()) => (root.folder, watched.anew) = (folder, true),
                Err(error) if gone(&error) => watched.missing.push(path.clone()),
                Err(error) => {
                    tracing::warn!(
                        folder = %path.display(), %error,
                        "the folder cannot be watched and is looked at every few seconds; if the limit of watches is \
                         reached, raise it: sysctl fs.inotify.max_user_watches=524288"
                    );
                    (root.folder, watched.anew, self.watcher, watched.deaf) = (folder, true, None, true);
                }
            }
        }
        watched
    }
}

fn gone(error: &notify::Error) -> bool {
    matches!(&error.kind, ErrorKind::PathNotFound)
        || matches!(&error.kind, ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// Runs on the watcher's own thread: it must not wait.
fn pass_on(event: &Event, patterns: &[Pattern], hints: &mpsc::Sender<(PathBuf, Sign)>, everything: &Notify) {
    let sign = match event.kind {
        _ if event.need_rescan() => return everything.notify_one(),
        // what was in a folder that came or went was not told one by one
        EventKind::Create(CreateKind::Folder) | EventKind::Remove(RemoveKind::Folder) => {
            return everything.notify_one();
        }
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => Sign::Writing,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Sign::Closed,
        EventKind::Access(_) => return,
        _ => Sign::Seen,
    };
    for path in &event.paths {
        let moved = matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)));
        if patterns.iter().any(|pattern| pattern.matches(path)) {
            if hints.try_send((path.clone(), sign)).is_err() {
                return everything.notify_one();
            }
        } else if moved && is_deep_inside(path, patterns) {
            everything.notify_one();
        }
    }
}

/// A folder of files that are meant may have been moved.
fn is_deep_inside(path: &Path, patterns: &[Pattern]) -> bool {
    patterns.iter().any(|pattern| pattern.is_deep() && path.starts_with(pattern.root()))
}

//! Edits of code: a folder that has been quiet for 100 ms after a change is deployed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bus::Name;
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{sync::Notify, time};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::{deploy::Orders, lock, version::is_left_out};

/// An editor or a checkout writes many files; what it wrote counts when it has been quiet this long.
const QUIET: Duration = Duration::from_millis(100);

pub(crate) struct Watch {
    watcher: Mutex<RecommendedWatcher>,
    changes: Arc<Changes>,
    /// Hands changes over when they are quiet; ends with the watch.
    _debounce: AbortOnDropHandle<()>,
}

struct Changes {
    /// Our own files, which may lie inside a code folder.
    data: PathBuf,
    /// Where the code of each function is.
    roots: Mutex<BTreeMap<Name, PathBuf>>,
    /// When something last changed for a function.
    dirty: Mutex<BTreeMap<Name, Instant>>,
    wake: Notify,
}

impl Watch {
    pub(crate) fn new(data: &Path, orders: Arc<Orders>) -> Result<Self, notify::Error> {
        let changes = Arc::new(Changes {
            data: std::path::absolute(data).unwrap_or_else(|_| data.to_owned()),
            roots: Mutex::default(),
            dirty: Mutex::default(),
            wake: Notify::new(),
        });
        let heard = changes.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) => heard.hear(&event),
            Err(e) => warn!("a code folder may have changed unseen, as its watch failed: {e}"),
        })?;
        let debounce = AbortOnDropHandle::new(tokio::spawn(debounce(changes.clone(), orders)));
        Ok(Self { watcher: Mutex::new(watcher), changes, _debounce: debounce })
    }

    /// Watches the code of a function; again, when it may have been removed and made anew. Blocks.
    pub(crate) fn follow(&self, name: &Name, code: &Path) {
        lock(&self.changes.roots).insert(name.clone(), code.to_owned());
        let mut watcher = lock(&self.watcher);
        if let Some(parent) = code.parent()
            && !lock(&self.changes.roots).values().any(|root| parent.starts_with(root))
        {
            // the folder itself may come, go, or be replaced as a whole
            let _ = watcher.watch(parent, RecursiveMode::NonRecursive);
        }
        if code.is_dir()
            && let Err(e) = watcher.watch(code, RecursiveMode::Recursive)
        {
            warn!(
                function.name = %name,
                "edits of `{name}` in {} are not seen: {e}; raise fs.inotify.max_user_watches, or restart to deploy",
                code.display()
            );
        }
    }

    /// Forgets a function.
    pub(crate) fn forget(&self, name: &Name) {
        let Some(root) = lock(&self.changes.roots).remove(name) else { return };
        lock(&self.changes.dirty).remove(name);
        if !lock(&self.changes.roots).values().any(|r| r.starts_with(&root)) {
            // it may be gone from the disk, and so from the watch
            let _ = lock(&self.watcher).unwatch(&root);
        }
    }
}

impl Changes {
    fn hear(&self, event: &Event) {
        // being read is no change; our own copying would never end
        let read = matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
        if read && !event.need_rescan() {
            return;
        }
        let now = Instant::now();
        let roots = lock(&self.roots);
        let changed = roots
            .iter()
            .filter(|(_, root)| event.need_rescan() || event.paths.iter().any(|path| concerns(path, root, &self.data)));
        let names: Vec<Name> = changed.map(|(name, _)| name.clone()).collect();
        drop(roots);
        if !names.is_empty() {
            lock(&self.dirty).extend(names.into_iter().map(|name| (name, now)));
            self.wake.notify_one();
        }
    }

    /// Takes what has been quiet, and says when to look again.
    fn quiet(&self, now: Instant) -> (Vec<Name>, Option<Instant>) {
        let mut dirty = lock(&self.dirty);
        let quiet: Vec<Name> = dirty.iter().filter(|(_, at)| **at + QUIET <= now).map(|(n, _)| n.clone()).collect();
        dirty.retain(|_, at| *at + QUIET > now);
        (quiet, dirty.values().min().map(|at| *at + QUIET))
    }
}

/// Whether a changed path is code below a root.
fn concerns(path: &Path, root: &Path, data: &Path) -> bool {
    let Ok(inside) = path.strip_prefix(root) else { return false };
    !path.starts_with(data) && !inside.iter().any(is_left_out)
}

async fn debounce(changes: Arc<Changes>, orders: Arc<Orders>) {
    loop {
        let (quiet, next) = changes.quiet(Instant::now());
        for name in &quiet {
            orders.add(name);
        }
        match next {
            Some(at) => time::sleep_until(at.into()).await,
            None => changes.wake.notified().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_code_count() {
        let concerns = |path: &str| concerns(Path::new(path), Path::new("/code"), Path::new("/code/.fnbus"));
        assert!(concerns("/code/app.py"));
        assert!(concerns("/code"));
        assert!(concerns("/code/lib/deep.py"));
        for other in ["/other/app.py", "/code/__pycache__/app.pyc", "/code/.git/index", "/code/.fnbus/log.db", "/codes"]
        {
            assert!(!concerns(other), "{other} is no code");
        }
    }
}

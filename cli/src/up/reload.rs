//! Edits of the config file: a good one is live, a bad one changes nothing and says so.

use std::{path::PathBuf, time::Duration};

use notify::{RecursiveMode, Watcher};
use runtimes::Enforcement;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{force::Force, serve::require};
use crate::{args::Global, config::ConfigError, terminal};

/// Editors write in steps: the file is read when it has been quiet for this long.
const QUIET: Duration = Duration::from_millis(100);

/// What reads the config file again.
pub(super) struct Reload {
    pub(super) global: Global,
    pub(super) force: Force,
}

impl Reload {
    /// Watches until shut down.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let (changed, mut changes) = mpsc::channel(1);
        let file = std::path::absolute(&self.global.config).unwrap_or_else(|_| self.global.config.clone());
        let _watcher = match watch(&file, changed) {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::warn!(%error, "edits of the config file will not be seen; restart fnbus after an edit");
                return;
            }
        };
        let mut text = std::fs::read(&file).ok();
        loop {
            tokio::select! {
                change = changes.recv() => if change.is_none() { return },
                () = shutdown.cancelled() => return,
            }
            while let Ok(Some(())) = timeout_at(Instant::now() + QUIET, changes.recv()).await {}
            let now = std::fs::read(&file).ok();
            if now != text {
                text = now;
                self.reload().await;
            }
        }
    }

    async fn reload(&self) {
        let (mut new, code) = match self.global.load_edit() {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!("the config file has problems; the one from before stays in force");
                match error {
                    ConfigError::Wrong(report) => terminal::talk(report.shown(terminal::shown)),
                    other => terminal::talk(terminal::shown(&other).trim_end()),
                }
                return;
            }
        };
        let old = self.force.config();
        for change in old.needs_restart(&new) {
            tracing::warn!("{change}");
        }
        // What waits for a restart stays as it runs, whatever else changes until then.
        new.bus = old.bus.clone();
        new.http.listen = old.http.listen;
        new.webhooks = old.webhooks;
        new.runtimes = old.runtimes.clone();
        if let Err(error) = require(&new, Enforcement::of_this_machine) {
            tracing::warn!("the config of before stays in force: {error}");
            return;
        }
        if let Some(code) = code {
            tracing::warn!("functions whose code cannot be used stay as they are, if they run; all else is in force");
            terminal::talk(code.shown(terminal::shown));
        }
        let (functions, triggers) = (new.functions.len(), new.triggers.len());
        match self.force.put(new) {
            Ok(()) => {
                tracing::info!(functions, triggers, "the config file was read again and is in force");
                self.force.warn_of_unknown_versions();
            }
            Err(collisions) => {
                for collision in collisions {
                    tracing::warn!("{collision}");
                }
            }
        }
        self.force.bus.owner().warn_of_stranded().await;
    }
}

/// Watches the folder: editors replace files, and a replaced file is no longer the one that was watched.
fn watch(file: &std::path::Path, changed: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let name = file.file_name().map(PathBuf::from);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let ours = event.paths.iter().any(|path| path.file_name().map(PathBuf::from) == name);
        if ours && !event.kind.is_access() {
            // Full means that a change is known already.
            let _ = changed.try_send(());
        }
    })?;
    watcher.watch(file.parent().unwrap_or(std::path::Path::new(".")), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

//! Reading connections: a few, made when first needed and used again, always off the async threads.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;

use super::{Failure, LogError, health::Health, open_reader};

/// Idle connections kept; more may be open at once, the blocking pool is the bound.
const KEPT: usize = 4;

#[derive(Clone)]
pub(super) struct Readers {
    path: Arc<Path>,
    health: Health,
    idle: Arc<Mutex<Vec<Connection>>>,
    /// The only connection of a log in memory.
    #[cfg(test)]
    only: Option<Arc<Mutex<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, health: Health) -> Self {
        Self {
            path: path.into(),
            health,
            idle: Arc::default(),
            #[cfg(test)]
            only: None,
        }
    }

    #[cfg(test)]
    pub(super) fn on(only: Arc<Mutex<Connection>>) -> Self {
        Self { only: Some(only), ..Self::new(PathBuf::new(), Health::new()) }
    }

    pub(super) async fn read<T, E>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: Failure,
    {
        #[cfg(test)]
        if let Some(only) = &self.only {
            let result = query(&only.lock().unwrap_or_else(PoisonError::into_inner));
            // as long as it takes to come back from another thread, others go on
            crate::simulation::surroundings::step_aside().await;
            return result;
        }
        let readers = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => open_reader(&readers.path).map_err(LogError::from)?,
            };
            let result = query(&connection);
            if let Err(error) = &result
                && let Some(error) = error.of_log()
            {
                readers.health.note(&error);
            }
            let mut idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(connection);
            }
            result
        });
        task.await.unwrap_or_else(|_| Err(LogError::Closed.into()))
    }
}

//! Another version in service, by hand: started first, so that one that does not work changes nothing.

use std::sync::{Arc, Mutex};

use bus::{
    Name,
    presence::{MoveError, Moved, Promote, VersionStatus},
};
use tracing::info;

use crate::{
    Functions,
    book::{self, Book},
    functions::Function,
    instance::{Instance, NoInstance},
    lock,
    route::Route,
};

impl Functions {
    /// The versions of a function that are kept, lowest first.
    pub async fn versions(&self, function: &Name) -> Result<Vec<VersionStatus>, MoveError> {
        let function = self.found(function)?;
        let book = function.book(&self.registry.ground).await?;
        Ok(lock(book).status())
    }

    /// Puts a version into service. It stays there; the newest one is followed by those that come.
    pub async fn promote(&self, function: &Name, promote: Promote) -> Result<Moved, MoveError> {
        let function = self.found(function)?;
        let book = function.book(&self.registry.ground).await?;
        let _moving = function.moving.lock().await;
        let (number, live) = {
            let book = lock(book);
            let number = book.find(promote.version.as_deref())?;
            (number, book.live.promoted(number, book.latest == Some(number)))
        };
        self.serve(&function, book, number, live).await
    }

    /// Puts the version back into service that served before. It stays until another one is promoted.
    pub async fn rollback(&self, function: &Name) -> Result<Moved, MoveError> {
        let function = self.found(function)?;
        let book = function.book(&self.registry.ground).await?;
        let _moving = function.moving.lock().await;
        let back = {
            let book = lock(book);
            book.live.rolled_back(|number| book.kept(number).is_some())
        };
        let (number, live) = back.ok_or_else(|| MoveError::NothingBefore { function: function.name.clone() })?;
        self.serve(&function, book, number, live).await
    }

    async fn serve(
        &self,
        function: &Arc<Function>,
        book: &Mutex<Book>,
        number: u32,
        live: Route,
    ) -> Result<Moved, MoveError> {
        let (ground, name) = (&self.registry.ground, &function.name);
        let kept = lock(book).kept(number).cloned();
        let before = lock(book).live.clone();
        let serves = kept.as_ref().is_some_and(|kept| function.pool.version().is_some_and(|v| *v.id == *kept.id));
        let fails = |reason: String| MoveError::DoesNotStart { function: name.clone(), version: number, reason };
        let started = if serves {
            None
        } else {
            let restored = kept.as_ref().and_then(|kept| ground.store.restore(kept)).map(Arc::new);
            let version = restored.ok_or_else(|| fails("its code is gone; deploy it again".to_owned()))?;
            let started = Instance::start(ground, name, version.clone(), function.pool.timeout()).await;
            let instance = started.map_err(|error| match error {
                NoInstance::Lack(lack) => fails(lack.to_string()),
                NoInstance::Init(outcome) => {
                    let fault = outcome.fault.map(|fault| format!("{}: {}", fault.kind, fault.message));
                    fails(fault.unwrap_or_default())
                }
            })?;
            Some((version, instance))
        };
        let (changed, pinned) = (live != before, live.pinned);
        if changed {
            // on disk first: what was confirmed is so after a crash
            book::remember(&ground.log, name, live.clone()).await?;
            lock(book).live = live;
        }
        if let Some((version, instance)) = started {
            let id = version.id.clone();
            function.pool.install(version, instance);
            let until = if pinned { ", pinned until another one is promoted" } else { "" };
            info!(function.name = %name, function.version = %id, "`{name}` serves version {id} (number {number}){until}");
        }
        Ok(Moved { function: name.clone(), version: number, before: before.version, changed, pinned })
    }

    fn found(&self, function: &Name) -> Result<Arc<Function>, MoveError> {
        self.function(function).ok_or_else(|| MoveError::Gone { function: function.clone() })
    }
}

//! Another version in service, by hand: started first, so that one that does not work changes nothing.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bus::{
    Name,
    log::{LogError, version},
    presence::{MoveError, Moved, Promote, Unaliased, VersionStatus, Which},
    target::Qualifier,
};
use chrono::{TimeDelta, Utc};
use tracing::{info, warn};

use crate::{
    Functions,
    book::{self, Book, LIVE},
    canary::{self, Canary},
    functions::Function,
    ground::Ground,
    instance::{Instance, NoInstance},
    lifecycle::Act,
    lock,
    route::Route,
    version::Version,
};

impl Functions {
    /// The versions of a function that are kept, lowest first.
    pub async fn versions(&self, function: &Name) -> Result<Vec<VersionStatus>, MoveError> {
        let function = self.found(function)?;
        let book = function.book(&self.registry.ground).await?;
        Ok(lock(book).status(|number| function.unseen(number)))
    }

    /// An error when a function has no such version or alias.
    pub async fn find_version(&self, function: &Name, version: &Qualifier) -> Result<(), MoveError> {
        let function = self.found(function)?;
        let book = lock(function.book(&self.registry.ground).await?);
        book.choose(Some(version), 0.0).map(|_| ()).map_err(|unknown| book.unknown(&unknown))
    }

    /// What the version of a call is called, as [`Book::called`] says.
    pub async fn called(&self, function: &Name, version: Option<&Qualifier>, ran: Option<&str>) -> String {
        let Some(function) = self.function(function) else { return Qualifier::LATEST.to_owned() };
        let book = match version {
            // nobody has asked for its versions yet, and the newest serves
            None => function.opened(),
            Some(_) => function.book(&self.registry.ground).await.ok(),
        };
        book.map_or_else(|| Qualifier::LATEST.to_owned(), |book| lock(book).called(version, ran))
    }

    /// Has an alias lead to a version, for all calls or a part of them.
    pub async fn promote(&self, function: &Name, promote: Promote) -> Result<Moved, MoveError> {
        let (ground, function) = (&self.registry.ground, self.found(function)?);
        let book = function.book(ground).await?;
        let _moving = function.moving.lock().await;
        let alias = promote.alias.as_ref().map_or(LIVE, Name::as_str);
        if let Some(alias) = promote.alias.as_ref().filter(|alias| alias.as_str().parse::<u64>().is_ok()) {
            return Err(MoveError::NoAlias { alias: alias.clone() });
        }
        if promote.canary.is_some() && alias != LIVE {
            return Err(MoveError::NotLive);
        }
        let (number, route, tried) = {
            let book = lock(book);
            let number = book.find(promote.version.as_deref())?;
            let old = book.route(alias).cloned().unwrap_or_default();
            let tried = old.canary.as_ref().filter(|canary| canary.version != number);
            let tried = tried.map(|canary| canary.with(function.fresh(canary.version)));
            let pinned = promote.pin || alias != LIVE || book.latest != Some(number);
            let serves = old.version.is_none_or(|version| version == number);
            let route = match (promote.share, promote.canary) {
                (Some(_), _) if serves => {
                    return Err(MoveError::Serves { function: function.name.clone(), version: number });
                }
                (Some(share), None) => old.shared(number, share),
                (Some(share), Some(plan)) => {
                    let millis = (plan.seconds * 1e3) as i64;
                    let (max_errors, min_calls) = (plan.max_errors, plan.min_calls);
                    let ends = Utc::now() + TimeDelta::milliseconds(millis);
                    let (version, pin) = (number, promote.pin);
                    let canary = Canary { version, share, ends, max_errors, min_calls, pin, calls: 0, errors: 0 };
                    old.tried(canary)
                }
                (None, _) => old.promoted(number, pinned),
            };
            (number, route, tried)
        };
        let note = lock(book).kept(number).and_then(|kept| kept.note.clone());
        if alias == LIVE && promote.share.is_none() {
            let moved = serve(ground, &function, book, number, route).await?;
            if let Some(tried) = tried {
                let (ended, tally) = (canary::stamp(Utc::now()), tried.tally());
                let note = format!("its trial was ended {ended} by hand, for version {number}: {tally}");
                note_down(ground, &function, tried.version, Some(note)).await;
            }
            if note.is_some() {
                note_down(ground, &function, number, None).await;
            }
            return Ok(Moved { note, ..moved });
        }
        // the version is tried, and is there for the first who calls
        let (version, _instance) = start(ground, &function, book, number).await?;
        function.fresh(number);
        let moved = remember(ground, &function, book, alias, number, route, promote.share).await?;
        if moved.changed {
            function.close_unused();
        }
        if promote.canary.is_some() {
            ground.canaries.notify_one();
        }
        let (name, id) = (&function.name, &version.id);
        let part = promote.share.map_or_else(String::new, |share| format!(" for {:.0} % of the calls", share * 100.0));
        let before = note.as_ref().map_or_else(String::new, |note| format!("; before: {note}"));
        info!(
            function.name = %name, function.version = %id,
            "`{name}:{alias}` leads to version {number} ({id}){part}{before}"
        );
        Ok(Moved { note, ..moved })
    }

    /// Has an alias lead where it led before; none: `live`, what serves. It stays until another version is promoted.
    pub async fn rollback(&self, function: &Name, Which { alias }: Which) -> Result<Moved, MoveError> {
        let (ground, function) = (&self.registry.ground, self.found(function)?);
        let book = function.book(ground).await?;
        let _moving = function.moving.lock().await;
        let alias = alias.as_ref().map_or(LIVE, Name::as_str);
        let (old, back) = {
            let book = lock(book);
            let old = book.route(alias).cloned().ok_or_else(|| book.unknown_alias(alias))?;
            let back = old.rolled_back(|number| book.kept(number).is_some());
            (old, back)
        };
        let nothing = || MoveError::NothingBefore { function: function.name.clone(), alias: alias.to_owned() };
        let (number, route) = back.ok_or_else(nothing)?;
        if alias != LIVE {
            let _started = start(ground, &function, book, number).await?;
            let moved = remember(ground, &function, book, alias, number, route, None).await?;
            function.close_unused();
            let name = &function.name;
            info!(function.name = %name, "`{name}:{alias}` leads back to version {number}");
            return Ok(moved);
        }
        let tried = old.canary.as_ref().map(|canary| canary.with(function.fresh(canary.version)));
        let moved = serve(ground, &function, book, number, route).await?;
        for left in old.versions().into_iter().filter(|left| *left != number) {
            let tried = tried.as_ref().filter(|canary| canary.version == left);
            let tally = tried.map(|canary| format!(": {}", canary.tally()));
            let note = format!("rolled back {} by hand{}", canary::stamp(Utc::now()), tally.unwrap_or_default());
            note_down(ground, &function, left, Some(note)).await;
        }
        Ok(moved)
    }

    /// Has an alias lead nowhere any more. Whoever asks has seen to it that nothing in the config goes there.
    pub async fn unalias(&self, function: &Name, Which { alias }: Which) -> Result<Unaliased, MoveError> {
        let (ground, function) = (&self.registry.ground, self.found(function)?);
        let alias = alias.filter(|alias| alias.as_str() != LIVE).ok_or(MoveError::Live)?;
        let book = function.book(ground).await?;
        let _moving = function.moving.lock().await;
        let before = {
            let book = lock(book);
            book.route(alias.as_str()).ok_or_else(|| book.unknown_alias(alias.as_str()))?.version
        };
        let target = format!("{}:{alias}", function.name);
        let waiting = ground.log.read(move |c| Ok::<_, LogError>(version::waiting(c, &target)?)).await?;
        if waiting > 0 {
            return Err(MoveError::Awaited { function: function.name.clone(), alias, waiting });
        }
        book::forget_alias(&ground.log, &function.name, &alias).await?;
        lock(book).forget_alias(alias.as_str());
        function.close_unused();
        let name = &function.name;
        info!(function.name = %name, "`{name}` has no alias `{alias}` any more");
        Ok(Unaliased { function: name.clone(), alias, before })
    }

    fn found(&self, function: &Name) -> Result<Arc<Function>, MoveError> {
        self.function(function).ok_or_else(|| MoveError::Gone { function: function.clone() })
    }
}

/// Writes down what became of a version; that it was moved stands whether that succeeds or not.
async fn note_down(ground: &Ground, function: &Function, number: u32, note: Option<String>) {
    if let Err(error) = canary::say(ground, function, number, note).await {
        warn!(function.name = %function.name, %error, "what became of version {number} could not be written down");
    }
}

/// Puts a version into service, and its route into force. Whoever calls it holds `moving`.
pub(crate) async fn serve(
    ground: &Arc<Ground>,
    function: &Arc<Function>,
    book: &Mutex<Book>,
    number: u32,
    live: Route,
) -> Result<Moved, MoveError> {
    let serves = {
        let (book, serving) = (lock(book), function.pool.version());
        book.kept(number).is_some_and(|kept| serving.is_some_and(|version| *version.id == *kept.id))
    };
    let started = if serves { None } else { Some(start(ground, function, book, number).await?) };
    let pinned = live.pinned;
    let moved = remember(ground, function, book, LIVE, number, live, None).await?;
    if let Some((version, instance)) = started {
        let (name, id) = (&function.name, version.id.clone());
        function.pool.install(version, instance);
        let until = if pinned { ", pinned until another one is promoted" } else { "" };
        info!(function.name = %name, function.version = %id, "`{name}` serves version {id} (number {number}){until}");
    }
    function.close_unused();
    Ok(moved)
}

/// An instance of a version that is kept.
async fn start(
    ground: &Arc<Ground>,
    function: &Function,
    book: &Mutex<Book>,
    number: u32,
) -> Result<(Arc<Version>, Instance), MoveError> {
    let name = &function.name;
    let fails = |reason: String| MoveError::DoesNotStart { function: name.clone(), version: number, reason };
    let restored = lock(book).kept(number).and_then(|kept| ground.store.restore(kept)).map(Arc::new);
    let version = restored.ok_or_else(|| fails("its code is gone; deploy it again".to_owned()))?;
    if let Some(outcome) = ground.refuses(&version, Act::Invoke) {
        return Err(fails(outcome.fault.map(|fault| fault.message).unwrap_or_default()));
    }
    let limit: Duration = function.pool.timeout();
    match Instance::start(ground, name, version.clone(), limit).await {
        Ok(instance) => Ok((version, instance)),
        Err(NoInstance::Lack(lack)) => Err(fails(lack.to_string())),
        Err(NoInstance::Init(outcome)) => {
            let fault = outcome.fault.map(|fault| format!("{}: {}", fault.kind, fault.message));
            Err(fails(fault.unwrap_or_default()))
        }
    }
}

/// On disk first: what was confirmed is so after a crash.
async fn remember(
    ground: &Arc<Ground>,
    function: &Function,
    book: &Mutex<Book>,
    alias: &str,
    number: u32,
    route: Route,
    share: Option<f64>,
) -> Result<Moved, MoveError> {
    let old = lock(book).route(alias).cloned().unwrap_or_default();
    let (changed, pinned) = (route != old, route.pinned);
    if changed {
        book::remember(&ground.log, &function.name, alias, route.clone()).await?;
        lock(book).lead(alias, route);
    }
    let (function, alias) = (function.name.clone(), alias.to_owned());
    Ok(Moved { function, alias, version: number, before: old.version, changed, pinned, share, note: None })
}

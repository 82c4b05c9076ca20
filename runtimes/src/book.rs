//! The book of a function: its versions that are kept, and where its aliases lead. In memory as it is in the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use bus::{
    Name,
    log::{
        Log, LogError, Tx,
        version::{self, KeptVersion},
    },
    presence::{MoveError, VersionStatus},
    target::Qualifier,
};

use crate::{lifecycle::Act, route::Route, version::Version};

pub(crate) const LIVE: &str = Qualifier::LIVE;

#[derive(Debug)]
pub(crate) struct Book {
    function: Name,
    versions: BTreeMap<u32, KeptVersion>,
    /// What the code folder and the config are; none until they were looked at.
    pub(crate) latest: Option<u32>,
    pub(crate) live: Route,
    /// The others.
    aliases: BTreeMap<String, Route>,
}

impl Book {
    /// As the log has it.
    pub(crate) async fn open(log: &Log, function: &Name) -> Result<Self, LogError> {
        let name = function.clone();
        let read =
            log.read(move |c| Ok::<_, LogError>((version::of(c, name.as_str())?, version::routes(c, name.as_str())?)));
        let (versions, routes) = read.await?;
        let read = |(alias, route): (String, String)| Some((alias, serde_json::from_str(&route).ok()?));
        let mut aliases: BTreeMap<String, Route> = routes.into_iter().filter_map(read).collect();
        Ok(Self {
            function: function.clone(),
            versions: versions.into_iter().map(|kept| (kept.number, kept)).collect(),
            latest: None,
            live: aliases.remove(LIVE).unwrap_or_default(),
            aliases,
        })
    }

    pub(crate) fn kept(&self, number: u32) -> Option<&KeptVersion> {
        self.versions.get(&number)
    }

    /// The number of a version by its id.
    pub(crate) fn number_of(&self, id: &str) -> Option<u32> {
        self.versions.values().find(|kept| kept.id == id).map(|kept| kept.number)
    }

    /// The number that a version of this id has, or will have.
    pub(crate) fn number_for(&self, id: &str) -> u32 {
        let next = || self.versions.keys().next_back().map_or(1, |last| last + 1);
        self.number_of(id).unwrap_or_else(next)
    }

    /// What is done to the function with a version of this id.
    pub(crate) fn act_of(&self, id: &str) -> Act {
        match (self.versions.is_empty(), self.number_of(id)) {
            (true, _) => Act::Create,
            (false, None) => Act::Update,
            (false, Some(_)) => Act::Invoke,
        }
    }

    pub(crate) fn add(&mut self, kept: KeptVersion) {
        self.versions.insert(kept.number, kept);
    }

    /// Which version a call goes to that has this place between 0 and 1; none: nothing was deployed yet. An error when there
    /// is no such version or alias.
    pub(crate) fn choose(&self, wanted: Option<&Qualifier>, place: f64) -> Result<Option<u32>, String> {
        let Some(wanted) = wanted else { return Ok(self.live.choose(place)) };
        match wanted.as_str() {
            LIVE => Ok(self.live.choose(place)),
            Qualifier::LATEST => Ok(self.latest),
            other => match self.aliases.get(other) {
                Some(route) => Ok(route.choose(place)),
                None => self.numbered(other).map(Some).ok_or_else(|| other.to_owned()),
            },
        }
    }

    fn numbered(&self, text: &str) -> Option<u32> {
        text.parse().ok().filter(|number| self.versions.contains_key(number))
    }

    /// The version that is meant: by its number, its id, an alias of it, or as the newest.
    pub(crate) fn find(&self, given: Option<&str>) -> Result<u32, MoveError> {
        let found = match given {
            None | Some(Qualifier::LATEST) => self.latest,
            Some(LIVE) => self.live.version,
            Some(given) => {
                let alias = || self.aliases.get(given)?.version;
                self.numbered(given).or_else(|| self.number_of(given)).or_else(alias)
            }
        };
        found.ok_or_else(|| self.unknown(given.unwrap_or(Qualifier::LATEST)))
    }

    /// That there is no such version, and which there are.
    pub(crate) fn unknown(&self, version: &str) -> MoveError {
        let numbers: Vec<String> = self.versions.keys().map(u32::to_string).collect();
        let known = if numbers.is_empty() {
            "none yet".to_owned()
        } else {
            format!("{}, and the aliases {}", numbers.join(", "), self.alias_names())
        };
        MoveError::NoVersion { function: self.function.clone(), version: version.to_owned(), known }
    }

    pub(crate) fn unknown_alias(&self, alias: &str) -> MoveError {
        let (function, alias, known) = (self.function.clone(), alias.to_owned(), self.alias_names());
        MoveError::UnknownAlias { function, alias, known }
    }

    pub(crate) fn alias_names(&self) -> String {
        let names = [LIVE].into_iter().chain(self.aliases.keys().map(String::as_str));
        names.collect::<Vec<_>>().join(", ")
    }

    /// What the version of a call is called: its number, or `$LATEST` where the newest was meant. `ran`: the id of the one
    /// that ran; before that is known, what is meant.
    pub(crate) fn called(&self, wanted: Option<&Qualifier>, ran: Option<&str>) -> String {
        let follows = !self.live.pinned && self.live.shares().next().is_none();
        let number = match wanted.map(Qualifier::as_str) {
            Some(Qualifier::LATEST) => None,
            None if follows => None,
            meant => match (ran, meant.unwrap_or(LIVE)) {
                (Some(id), _) => self.number_of(id),
                (None, meant) => self.numbered(meant).or_else(|| self.route(meant)?.version),
            },
        };
        number.map_or_else(|| Qualifier::LATEST.to_owned(), |number| number.to_string())
    }

    /// Where an alias leads that was made.
    pub(crate) fn route(&self, alias: &str) -> Option<&Route> {
        if alias == LIVE { Some(&self.live) } else { self.aliases.get(alias) }
    }

    pub(crate) fn forget_alias(&mut self, alias: &str) {
        self.aliases.remove(alias);
    }

    pub(crate) fn lead(&mut self, alias: &str, route: Route) {
        if alias == LIVE {
            self.live = route;
        } else {
            self.aliases.insert(alias.to_owned(), route);
        }
    }

    /// Every version that an alias leads to.
    pub(crate) fn led_to(&self) -> BTreeSet<u32> {
        self.aliases.values().chain([&self.live]).flat_map(Route::versions).collect()
    }

    /// Versions that have a part of the calls that name none.
    pub(crate) fn shares(&self) -> BTreeMap<u32, f64> {
        self.live.shares().collect()
    }

    /// Which versions need not be kept: all but the newest so many, what an alias leads to, and what a rollback does. So the
    /// last number is kept, and none is given twice.
    pub(crate) fn expendable(&self, keep: usize) -> BTreeSet<u32> {
        let before = self.live.whole().rolled_back(|number| self.versions.contains_key(&number));
        let mut needed = self.led_to();
        needed.extend(self.latest);
        needed.extend(before.map(|(number, _)| number));
        needed.extend(self.versions.keys().rev().take(keep.max(1)));
        self.versions.keys().filter(|number| !needed.contains(number)).copied().collect()
    }

    pub(crate) fn forget(&mut self, numbers: &BTreeSet<u32>) {
        self.versions.retain(|number, _| !numbers.contains(number));
    }

    pub(crate) fn note(&mut self, number: u32, note: Option<String>) {
        if let Some(kept) = self.versions.get_mut(&number) {
            kept.note = note;
        }
    }

    /// `fresh`: what was counted of a version on trial and is not written down yet.
    pub(crate) fn status(&self, fresh: impl Fn(u32) -> (u64, u64)) -> Vec<VersionStatus> {
        let live = (LIVE, &self.live);
        let routes: Vec<(&str, &Route)> =
            std::iter::once(live).chain(self.aliases.iter().map(|(alias, route)| (alias.as_str(), route))).collect();
        let status = |kept: &KeptVersion| {
            let version: Option<Version> = serde_json::from_str(&kept.config).ok();
            let leads = |(alias, route): &(&str, &Route)| {
                let part = route.shares().find(|(number, _)| *number == kept.number);
                match part {
                    Some((_, share)) => Some(format!("{alias} {:.0} %", share * 100.0)),
                    None => (route.version == Some(kept.number)).then(|| (*alias).to_owned()),
                }
            };
            let canary = self.live.canary.as_ref().filter(|canary| canary.version == kept.number);
            let canary = canary.map(|canary| canary.with(fresh(canary.version)).to_string());
            VersionStatus {
                function: self.function.clone(),
                version: kept.number,
                id: kept.id.clone(),
                runtime: version.as_ref().map_or_else(String::new, |v| v.runtime_name().to_owned()),
                handler: version.as_ref().map_or_else(String::new, |v| v.handler.clone()),
                memory: version.as_ref().map_or(0, |v| v.memory),
                bytes: kept.bytes,
                deployed: kept.deployed,
                latest: self.latest == Some(kept.number),
                aliases: routes.iter().filter_map(leads).collect(),
                note: canary.or_else(|| kept.note.clone()),
            }
        };
        self.versions.values().map(status).collect()
    }
}

/// Keeps a version, and where calls go after its deploy, in one commit.
pub(crate) async fn record(
    log: &Log,
    function: &Name,
    version: &Arc<Version>,
    live: Route,
) -> Result<(KeptVersion, Option<Route>), LogError> {
    let (function, new) = (function.clone(), version.to_keep());
    log.write(move |tx| {
        let kept = version::keep(tx, function.as_str(), &new)?;
        let moved = live.deployed(kept.number);
        if let Some(moved) = &moved {
            lead(tx, &function, LIVE, moved)?;
        }
        Ok((kept, moved))
    })
    .await
}

/// Remembers where an alias leads.
pub(crate) async fn remember(log: &Log, function: &Name, alias: &str, route: Route) -> Result<(), LogError> {
    let (function, alias) = (function.clone(), alias.to_owned());
    log.write(move |tx| lead(tx, &function, &alias, &route)).await
}

/// Has an alias lead nowhere any more.
pub(crate) async fn forget_alias(log: &Log, function: &Name, alias: &Name) -> Result<(), LogError> {
    let (function, alias) = (function.clone(), alias.clone());
    log.write(move |tx| Ok::<_, LogError>(version::lead(tx, function.as_str(), alias.as_str(), None)?)).await
}

fn lead(tx: &Tx<'_>, function: &Name, alias: &str, route: &Route) -> Result<(), LogError> {
    let json = serde_json::to_string(route).unwrap_or_default();
    Ok(version::lead(tx, function.as_str(), alias, Some(&json))?)
}

/// What a data folder has of a function.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pub versions: BTreeSet<u32>,
    pub aliases: BTreeSet<String>,
    /// The version that stays until somebody promotes another one.
    pub pinned: Option<u32>,
}

/// What was deployed of which function, by the log of a data folder.
pub fn kept(data: &Path) -> BTreeMap<Name, Kept> {
    let kept = |(function, kept): (String, version::Kept)| {
        let live: Option<Route> = kept.routes.get(LIVE).and_then(|route| serde_json::from_str(route).ok());
        let pinned = live.and_then(|live| live.version.filter(|_| live.pinned));
        let aliases = kept.routes.into_keys().collect();
        Some((function.parse().ok()?, Kept { versions: kept.versions, aliases, pinned }))
    };
    version::all(data).into_iter().filter_map(kept).collect()
}

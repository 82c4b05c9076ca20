//! The book of a function: its versions that are kept, and which of them serves. In memory as it is in the log.

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
};

use crate::{route::Route, version::Version};

/// The alias that calls without one go to.
pub(crate) const LIVE: &str = "live";
/// The newest version.
pub(crate) const LATEST: &str = "$LATEST";

#[derive(Debug)]
pub(crate) struct Book {
    function: Name,
    versions: BTreeMap<u32, KeptVersion>,
    /// What the code folder and the config are; none until they were looked at.
    pub(crate) latest: Option<u32>,
    pub(crate) live: Route,
}

impl Book {
    /// As the log has it.
    pub(crate) async fn open(log: &Log, function: &Name) -> Result<Self, LogError> {
        let name = function.clone();
        let read =
            log.read(move |c| Ok::<_, LogError>((version::of(c, name.as_str())?, version::routes(c, name.as_str())?)));
        let (versions, routes) = read.await?;
        Ok(Self {
            function: function.clone(),
            versions: versions.into_iter().map(|kept| (kept.number, kept)).collect(),
            latest: None,
            live: routes.get(LIVE).and_then(|route| serde_json::from_str(route).ok()).unwrap_or_default(),
        })
    }

    pub(crate) fn kept(&self, number: u32) -> Option<&KeptVersion> {
        self.versions.get(&number)
    }

    /// The number of a version by its id.
    pub(crate) fn number_of(&self, id: &str) -> Option<u32> {
        self.versions.values().find(|kept| kept.id == id).map(|kept| kept.number)
    }

    pub(crate) fn add(&mut self, kept: KeptVersion) {
        self.versions.insert(kept.number, kept);
    }

    /// The version that is meant: by its number, its id, or as the newest.
    pub(crate) fn find(&self, given: Option<&str>) -> Result<u32, MoveError> {
        let found = match given {
            None | Some(LATEST) => self.latest,
            Some(LIVE) => self.live.version,
            Some(given) => {
                given.parse().ok().filter(|number| self.versions.contains_key(number)).or(self.number_of(given))
            }
        };
        found.ok_or_else(|| {
            let known: Vec<String> = self.versions.keys().map(u32::to_string).collect();
            let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
            let version = given.unwrap_or(LATEST).to_owned();
            MoveError::NoVersion { function: self.function.clone(), version, known }
        })
    }

    /// Which versions need not be kept: all but the newest so many, what serves, what a rollback leads to, and the last number,
    /// so that none is given twice.
    pub(crate) fn expendable(&self, keep: usize) -> BTreeSet<u32> {
        let last_before = self.live.rolled_back(|number| self.versions.contains_key(&number)).map(|(number, _)| number);
        let needed = [self.latest, self.live.version, last_before];
        let newest: BTreeSet<u32> = self.versions.keys().rev().take(keep.max(1)).copied().collect();
        self.versions.keys().filter(|n| !newest.contains(n) && !needed.contains(&Some(**n))).copied().collect()
    }

    pub(crate) fn forget(&mut self, numbers: &BTreeSet<u32>) {
        self.versions.retain(|number, _| !numbers.contains(number));
    }

    pub(crate) fn status(&self) -> Vec<VersionStatus> {
        let status = |kept: &KeptVersion| {
            let version: Option<Version> = serde_json::from_str(&kept.config).ok();
            let aliases = if self.live.version == Some(kept.number) { vec![LIVE.to_owned()] } else { Vec::new() };
            VersionStatus {
                function: self.function.clone(),
                version: kept.number,
                id: kept.id.clone(),
                runtime: version.as_ref().map_or_else(String::new, |v| v.runtime.as_str().to_owned()),
                handler: version.as_ref().map_or_else(String::new, |v| v.handler.clone()),
                memory: version.as_ref().map_or(0, |v| v.memory),
                bytes: kept.bytes,
                deployed: kept.deployed,
                latest: self.latest == Some(kept.number),
                aliases,
                note: kept.note.clone(),
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
            lead(tx, &function, moved)?;
        }
        Ok((kept, moved))
    })
    .await
}

/// Remembers where calls go.
pub(crate) async fn remember(log: &Log, function: &Name, live: Route) -> Result<(), LogError> {
    let function = function.clone();
    log.write(move |tx| lead(tx, &function, &live)).await
}

fn lead(tx: &Tx<'_>, function: &Name, live: &Route) -> Result<(), LogError> {
    let json = serde_json::to_string(live).unwrap_or_default();
    Ok(version::lead(tx, function.as_str(), LIVE, Some(&json))?)
}

/// The functions whose version stays until somebody promotes another one, with its number; by the log of a data folder.
pub fn pinned(data: &Path) -> BTreeMap<Name, u32> {
    let pinned = |(function, route): (String, String)| {
        let route: Route = serde_json::from_str(&route).ok()?;
        Some((function.parse().ok()?, route.version.filter(|_| route.pinned)?))
    };
    version::all_routes(data, LIVE).into_iter().filter_map(pinned).collect()
}

//! The zygotes of a node: at most one for each version of a Python function, started when its first instance is.
//!
//! Code that starts threads, processes or connections while it is loaded cannot be forked: then the process that loaded
//! it becomes an ordinary instance, and so does each of the version from then on.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bus::{Name, outcome::Start};
use tokio::{sync::Mutex as AsyncMutex, time};
use tracing::warn;

use super::zygote::{SIZE, Zygote};
use crate::{
    dialogue::{Answer, Dialogue},
    engine::{Made, NoStart, converse, frames, launch_python},
    ground::Ground,
    lock,
    process::Wires,
    streamed::Pieces,
    version::Version,
};

/// Of all functions together; beyond it the one that was used longest ago goes.
const MOST: usize = 32;
/// How long one stays when no instance of its function is left.
const KEEP: Duration = Duration::from_hours(1);

#[derive(Default)]
pub(crate) struct Zygotes {
    /// Used last at the end.
    places: Mutex<Vec<Arc<Place>>>,
}

/// Of one version. Whoever starts an instance holds it: who comes meanwhile finds what was loaded.
struct Place {
    function: Name,
    version: Arc<str>,
    state: AsyncMutex<State>,
    used: Mutex<Instant>,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    Forks(Box<Zygote>),
    /// The code cannot be forked.
    Never,
}

impl std::fmt::Debug for Zygotes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zygotes").field("places", &lock(&self.places).len()).finish()
    }
}

impl Zygotes {
    /// An instance of a version, from a zygote that is started where there is none; none when its code cannot be forked.
    pub(crate) async fn start(
        &self,
        ground: &Ground,
        function: &Name,
        version: &Version,
        limit: Duration,
    ) -> Result<Option<Made>, NoStart> {
        let place = self.place(function, &version.id);
        let mut state = place.state.lock().await;
        // taken out: a zygote whose answer nobody waited for is not asked again
        match std::mem::take(&mut *state) {
            State::Empty => {}
            State::Never => {
                *state = State::Never;
                return Ok(None);
            }
            State::Forks(mut zygote) => match zygote.instance(ground, function, version).await {
                Ok(made) => {
                    *state = State::Forks(zygote);
                    return Ok(Some(made));
                }
                Err(error) => {
                    warn!(function.name = %function, %error, "the process that `{function}` is forked from is started anew");
                }
            },
        }
        let mut started = launch_python(ground, function, version, Wires::Zygote).await?;
        let frames = frames(ground, &mut started)?;
        let control = started.control.take().ok_or(NoStart::NoFrames)?;
        let mut conversation = converse(ground, function, version, started, Dialogue::Frames(frames));
        let took = match conversation.exchange(time::Instant::now() + limit, Pieces::default()).await {
            Ok(Answer::Forks(took)) => took,
            heard => {
                if matches!(heard, Ok(Answer::Ready(_))) {
                    *state = State::Never;
                }
                return Ok(Some(Made { heard: Some(heard), ..Made::new(conversation, Start::Cold) }));
            }
        };
        let group = conversation.group();
        group.counts(&ground.budget, group.memory().unwrap_or_default());
        let printed = conversation.log();
        let mut zygote = Box::new(Zygote::new(conversation, control));
        match zygote.instance(ground, function, version).await {
            Ok(mut made) => {
                *state = State::Forks(zygote);
                (made.kind, made.loaded) = (Start::Cold, took.unwrap_or_default());
                made.conversation.output.follow(&printed);
                Ok(Some(made))
            }
            Err(error) => {
                warn!(function.name = %function, %error, "instances of `{function}` cannot be forked: each loads the code");
                *state = State::Never;
                Ok(None)
            }
        }
    }

    /// Forks the next instance of a version ahead, in the background, where there is a zygote to do it.
    pub(crate) fn refill(ground: &Arc<Ground>, function: &Name, version: &Arc<Version>) {
        let is_its = |place: &&Arc<Place>| place.function == *function && place.version == version.id;
        let place = lock(&ground.zygotes.places).iter().find(is_its).cloned();
        // where memory is short it is for instances
        let Some(place) = place.filter(|_| ground.settings.spares > 0 && ground.budget.take(SIZE).is_ok()) else {
            return;
        };
        let (ground, version) = (ground.clone(), version.clone());
        tokio::spawn(async move {
            if let State::Forks(zygote) = &mut *place.state.lock().await
                && let Err(error) = zygote.fork_ahead(&ground, &version).await
            {
                warn!(function.name = %place.function, %error, "no instance of `{}` could be forked ahead", place.function);
                // the next start finds it so, and starts another
                zygote.retire().await;
            }
        });
    }

    /// Ends the zygotes of a function. Whether there was any.
    pub(crate) fn retire(&self, function: &Name) -> bool {
        let mut places = lock(&self.places);
        let before = places.len();
        places.retain(|place| place.function != *function);
        places.len() < before
    }

    /// Ends the zygote of one version.
    pub(crate) fn end_one(&self, function: &Name, version: &str) {
        lock(&self.places).retain(|place| place.function != *function || *place.version != *version);
    }

    /// Ends those of a function that nobody has used for long; when to look again.
    pub(crate) fn expire(&self, function: &Name, now: Instant) -> Option<Instant> {
        let mut places = lock(&self.places);
        let end = |place: &Arc<Place>| *lock(&place.used) + KEEP;
        places.retain(|place| place.function != *function || end(place) > now);
        places.iter().filter(|place| place.function == *function).map(end).min()
    }

    /// Ends all of them.
    pub(crate) fn end(&self) {
        lock(&self.places).clear();
    }

    fn place(&self, function: &Name, version: &Arc<str>) -> Arc<Place> {
        let mut places = lock(&self.places);
        let at = places.iter().position(|place| place.function == *function && place.version == *version);
        let place = match at {
            Some(at) => places.remove(at),
            None => Arc::new(Place {
                function: function.clone(),
                version: version.clone(),
                state: AsyncMutex::default(),
                used: Mutex::new(Instant::now()),
            }),
        };
        *lock(&place.used) = Instant::now();
        places.push(place.clone());
        if places.len() > MOST {
            places.remove(0);
        }
        place
    }
}

//! Everything at once and for long: faults of all kinds at random on one project, and what the node takes meanwhile.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::{Arena, Tally, Traffic, Trial, recorder::CODE};
use crate::{Process, Usage};

/// Lives of the node's process: only one that lasts shows a leak.
const LIVES: u32 = 6;
/// Of each, the part in which it fills its caches does not count.
const WARM_UP: f64 = 0.3;

/// What one hour adds, within the lives of the node's processes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Slope {
    pub samples: usize,
    pub mib_per_hour: f64,
    pub files_per_hour: f64,
    pub threads_per_hour: f64,
    /// The most memory that was seen.
    pub most_mib: f64,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    KillNats,
    StopNats,
    KillFunction,
    Reload,
    Deploy,
    Replay,
    Quiet,
}

const KINDS: [Kind; 12] = [
    Kind::KillNats,
    Kind::StopNats,
    Kind::KillFunction,
    Kind::KillFunction,
    Kind::Reload,
    Kind::Reload,
    Kind::Deploy,
    Kind::Deploy,
    Kind::Replay,
    Kind::Quiet,
    Kind::Quiet,
    Kind::Quiet,
];

/// Runs for that long, then heals and judges.
pub async fn soak(trial: Trial, length: Duration) -> (Tally, Slope) {
    let project = Arena::project();
    let toml = project.toml().to_owned();
    let mut arena = Arena::of(&trial, project).await;
    arena.produce(&Traffic { rate: Some(40), largest: 50_000, ..Traffic::default() });
    let begun = Instant::now();
    let mut lives = Lives::default();
    let mut cycles = 0;
    while begun.elapsed() < length {
        if lives.age() > length / LIVES {
            end_life(&mut arena).await;
            lives.begin();
        }
        let kind = *arena.dice.pick(&KINDS);
        happen(kind, cycles, &mut arena, &toml).await;
        arena.accepted(5).await;
        for _ in 0..3 {
            sleep(Duration::from_secs(1)).await;
            let node = arena.node.serving().await;
            if lives.age() > (length / LIVES).mul_f64(WARM_UP) {
                lives.sample(begun.elapsed(), Process::usage(node.pid));
            }
        }
        cycles += 1;
        trial.passed();
    }
    let mut tally = arena.check().await;
    tally.cycles = cycles;
    (tally, lives.slope())
}

/// The node dies, at any moment or at a bad one, and is started again.
async fn end_life(arena: &mut Arena) {
    arena.kill().await;
    if arena.dice.percent(50) {
        let point = *arena.dice.pick(&["accept.committed", "publish.sent", "begin.answered", "invoke.ended"]);
        arena.node.set_variable("FNBUS_FAILPOINTS", &format!("{point}=kill@{}", 1 + arena.dice.below(50)));
        let dies = async {
            if arena.try_restart().await.is_ok() {
                arena.node.ended().await;
            }
        };
        if timeout(Duration::from_secs(20), dies).await.is_err() {
            arena.node.kill();
        }
        arena.died().await;
        arena.node.set_variable("FNBUS_FAILPOINTS", "");
    }
    arena.restart().await;
}

async fn happen(kind: Kind, cycle: usize, arena: &mut Arena, toml: &str) {
    match kind {
        Kind::KillNats => arena.node.nats_server().await.kill(),
        Kind::StopNats => {
            let server = arena.node.nats_server().await;
            server.signal(Signal::STOP);
            sleep(Duration::from_millis(arena.dice.below(5000))).await;
            server.signal(Signal::CONT);
        }
        Kind::KillFunction => {
            let all = arena.node.processes();
            let functions: Vec<_> = all.iter().filter(|process| process.command.contains("python")).collect();
            if !functions.is_empty() {
                arena.dice.pick(&functions).kill();
            }
        }
        Kind::Reload => {
            let route = "[triggers.extra]\nhttp = 'POST /extra'\nmode = 'async'\nto = 'work'\n";
            let edit = if cycle.is_multiple_of(2) { route } else { "" };
            arena.node.reconfigure(&format!("{toml}# {cycle}\n{edit}")).await;
        }
        Kind::Deploy => arena.node.write("recorder/app.py", &format!("{CODE}# {cycle}\n")),
        Kind::Replay => {
            let since = (chrono::Utc::now() - Duration::from_secs(2)).to_rfc3339();
            arena.node.fnbus(&["replay", "--trigger", "jobs", "--since", &since, "--yes"]).await;
        }
        Kind::Quiet => sleep(Duration::from_secs(2)).await,
    }
}

/// Samples of each of the node's processes, one after the other.
struct Lives {
    lives: Vec<Vec<(f64, Usage)>>,
    begun: Instant,
}

impl Default for Lives {
    fn default() -> Self {
        Self { lives: vec![Vec::new()], begun: Instant::now() }
    }
}

impl Lives {
    /// Another process from now on.
    fn begin(&mut self) {
        self.lives.push(Vec::new());
        self.begun = Instant::now();
    }

    /// How old the present one is.
    fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    fn sample(&mut self, at: Duration, usage: Usage) {
        if let Some(life) = self.lives.last_mut() {
            life.push((at.as_secs_f64() / 3600.0, usage));
        }
    }

    fn slope(&self) -> Slope {
        let of = |measure: fn(&Usage) -> f64| {
            let points = |life: &Vec<(f64, Usage)>| life.iter().map(|(at, usage)| (*at, measure(usage))).collect();
            slope_within(&self.lives.iter().map(points).collect::<Vec<Vec<(f64, f64)>>>())
        };
        let all = || self.lives.iter().flatten().map(|(_, usage)| usage.mib);
        Slope {
            samples: all().count(),
            mib_per_hour: of(|usage| usage.mib),
            files_per_hour: of(|usage| usage.files),
            threads_per_hour: of(|usage| usage.threads),
            most_mib: all().fold(0.0, f64::max),
        }
    }
}

/// The slope that all groups have in common (least squares), whatever level each of them is at.
fn slope_within(groups: &[Vec<(f64, f64)>]) -> f64 {
    let (mut up, mut along) = (0.0, 0.0);
    for group in groups {
        let mean = |of: fn(&(f64, f64)) -> f64| group.iter().map(of).sum::<f64>() / group.len().max(1) as f64;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        up += group.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>();
        along += group.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>();
    }
    if along > 0.0 { up / along } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_within_each_life_whatever_its_level() {
        let flat = vec![vec![(0.0, 10.0), (1.0, 10.0)], vec![(2.0, 50.0), (3.0, 50.0)]];
        assert!(slope_within(&flat).abs() < 1e-9);
        let rising = vec![vec![(0.0, 10.0), (1.0, 12.0)], vec![(2.0, 50.0), (3.0, 52.0)]];
        assert!((slope_within(&rising) - 2.0).abs() < 1e-9);
        assert!(slope_within(&[vec![]]).abs() < 1e-9);
    }
}

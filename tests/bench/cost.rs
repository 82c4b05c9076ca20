//! What a process tree costs. CPU time per unit of work is the steadiest figure on a noisy machine: it does not grow
//! because a neighbour is busy (much).

use std::{collections::HashMap, fs, time::Instant};

use crate::Result;

/// The kernel counts in hundredths of a second wherever Linux runs.
const TICK_MS: f64 = 10.0;

/// CPU time of everybody, at one moment.
pub(crate) struct Meter {
    roots: Vec<u32>,
    tree: u64,
    machine: Machine,
    begun: Instant,
}

/// What was used between two moments.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// User and system time of the trees, what they have reaped included.
    pub(crate) cpu_ms: f64,
    pub(crate) seconds: f64,
    /// What the host took of the CPU time there is.
    pub(crate) steal_percent: f64,
    /// What processes that are neither in the tree nor we took of it.
    pub(crate) others_percent: f64,
}

impl Meter {
    pub(crate) fn start(roots: &[u32]) -> Result<Self> {
        Ok(Self { roots: roots.to_vec(), tree: tree_ticks(roots)?, machine: Machine::now()?, begun: Instant::now() })
    }

    pub(crate) fn stop(self) -> Result<Cost> {
        let machine = Machine::now()?;
        let tree = tree_ticks(&self.roots)?.saturating_sub(self.tree) as f64;
        let of = |now: u64, then: u64| now.saturating_sub(then) as f64;
        let total = of(machine.total, self.machine.total).max(1.0);
        let others = of(machine.busy, self.machine.busy) - tree - of(machine.ours, self.machine.ours);
        Ok(Cost {
            cpu_ms: tree * TICK_MS,
            seconds: self.begun.elapsed().as_secs_f64(),
            steal_percent: of(machine.steal, self.machine.steal) / total * 100.0,
            others_percent: others.max(0.0) / total * 100.0,
        })
    }
}

/// Times of the whole machine, in ticks.
struct Machine {
    total: u64,
    busy: u64,
    steal: u64,
    /// This process, which makes the load.
    ours: u64,
}

impl Machine {
    fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; guests are within user
        let times: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
        let &[user, nice, system, idle, iowait, irq, softirq, steal] = times.as_slice() else {
            return Err("/proc/stat does not read".into());
        };
        let busy = user + nice + system + irq + softirq;
        let ours = Stat::of("self").map_or(0, |stat| stat.own);
        Ok(Self { total: busy + idle + iowait + steal, busy, steal, ours })
    }
}

/// One process as `/proc/PID/stat` has it.
struct Stat {
    /// Whether it waits for something; what has work and no CPU for it does not.
    sleeps: bool,
    parent: u32,
    own: u64,
    reaped: u64,
}

impl Stat {
    fn of(process: &str) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // the name is in parentheses and may hold anything
        let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|n| n.parse::<u64>().ok());
        Some(Self {
            sleeps: ["S", "T"].contains(fields.first()?),
            parent: fields.get(1)?.parse().ok()?,
            own: ticks(11)? + ticks(12)?,
            reaped: ticks(13)? + ticks(14)?,
        })
    }
}

fn processes() -> Result<HashMap<u32, Stat>> {
    let ids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(ids.filter_map(|id| Some((id, Stat::of(&id.to_string())?))).collect())
}

/// A process and everything below it.
pub(crate) fn tree(root: u32) -> Result<Vec<u32>> {
    let processes = processes()?;
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(processes.iter().filter(|(_, stat)| stat.parent == parent).map(|(id, _)| *id));
        at += 1;
    }
    Ok(found)
}

fn tree_ticks(roots: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for root in roots {
        for id in tree(*root)? {
            sum += Stat::of(&id.to_string()).map_or(0, |stat| stat.own + stat.reaped);
        }
    }
    Ok(sum)
}

/// CPU time of one process without those below it; threads that have ended are within it.
pub(crate) fn own_ms(process: u32) -> Result<f64> {
    let stat = Stat::of(&process.to_string()).ok_or("a process that is measured has ended")?;
    Ok(stat.own as f64 * TICK_MS)
}

/// Whether a process waits for something, or is stopped until somebody calls; one that has ended does not.
pub(crate) fn sleeps(process: u32) -> bool {
    Stat::of(&process.to_string()).is_some_and(|stat| stat.sleeps)
}

/// Whether a process is no more, or waits to be reaped.
pub(crate) fn has_ended(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
}

pub(crate) fn name(process: u32) -> String {
    fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default().trim().to_owned()
}

/// Memory of a process in MiB: its share of what it uses together with others, and all of it.
pub(crate) fn memory(process: u32) -> Result<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let field = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
    };
    field("Pss:").zip(field("Rss:")).ok_or_else(|| "smaps_rollup does not read".into())
}

//! Control groups: what all processes of an instance may have together, of whatever they start. The limits of `process.rs`
//! hold for each of them alone.
//!
//! In version 1 a process goes into its group by itself, between fork and exec, which takes some microseconds. Being put in by
//! another takes the kernel many milliseconds, in which no process of the machine can fork or end: so it is done beside the way
//! of a call, and only where it must be, in version 2 and for what was forked by others. What it has started by then is put
//! in after it.
//!
//! Where this process may make no groups there are none; `fnbus doctor` says so. See `docs/adr/0023-control-groups.md`.

// Where groups can be made.
mod place;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use bus::child;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tracing::warn;

use place::Place;
pub(crate) use place::{Kind, allowed_memory, enforced};

use crate::{lock, sandbox};

/// Between two looks at who is left of a group.
const AGAIN: Duration = Duration::from_millis(1);
/// What cannot even be killed (a broken disk) is waited for no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);
/// Looks for what a process has started before it was put into its group.
const LOOKS: usize = 20;
/// Groups of instances that have ended, kept for the next: a new one takes as long as it takes to start a process.
const SPARE: usize = 16;

/// What an instance may have, with all that it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) memory: u64,
    /// And threads.
    pub(crate) processes: u32,
    /// Percent of a core; none: as much as there is.
    pub(crate) cpu: Option<u32>,
}

/// The groups of this node's instances.
#[derive(Debug)]
pub(crate) struct Cgroups {
    places: Vec<Place>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    made: u64,
    spare: HashMap<Limits, Vec<Folders>>,
}

/// What a group has where processes go in by themselves, and where they are put in.
const DOOR: &str = "tasks";
const LIST: &str = "cgroup.procs";

/// One group: a folder in each place.
type Folders = Vec<PathBuf>;

/// The group of one instance. When it is dropped, all processes in it are killed.
#[derive(Debug)]
pub(crate) struct Cgroup {
    of: Arc<Cgroups>,
    limits: Limits,
    folders: Folders,
    /// How often somebody in it had been killed for want of memory before, or could start no process more.
    before: [u64; 2],
}

impl Cgroups {
    /// Below the group this process is in; none where it may make none. Ends what nodes left there that are gone. Blocks.
    pub(crate) fn here() -> Option<Arc<Self>> {
        let make = |place: Place| {
            place.sweep();
            place.make().ok()
        };
        let places: Vec<_> = place::find().into_iter().filter_map(make).collect();
        (!places.is_empty()).then(|| Arc::new(Self { places, state: Mutex::default() }))
    }

    /// A group for an instance. Blocks.
    pub(crate) fn group(self: &Arc<Self>, limits: Limits) -> std::io::Result<Cgroup> {
        let mut state = lock(&self.state);
        let spare = state.spare.get_mut(&limits).and_then(Vec::pop);
        state.made += u64::from(spare.is_none());
        let name = state.made.to_string();
        drop(state);
        let group = |folders| Cgroup { of: self.clone(), limits, folders, before: [0; 2] };
        if let Some(folders) = spare {
            let mut group = group(folders);
            group.before = [Kind::Memory, Kind::Processes].map(|kind| group.hits(kind));
            return Ok(group);
        }
        let made = group(self.places.iter().map(|place| place.folder.join(&name)).collect());
        for (place, folder) in self.places.iter().zip(&made.folders) {
            fs::create_dir(folder)?;
            place.limit(folder, &limits)?;
        }
        Ok(made)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for place in &self.places {
            place.remove();
        }
    }
}

/// The files by which a process that was just forked goes into a group of version 1.
pub(crate) struct Doors(Vec<OwnedFd>);

impl Doors {
    /// Goes in. The calling process has one thread.
    pub(crate) fn enter(&self) -> std::io::Result<()> {
        for door in &self.0 {
            rustix::io::write(door, b"0")?;
        }
        Ok(())
    }
}

impl Cgroup {
    /// None where some of its limits are of version 2, which has no such files.
    pub(crate) fn doors(&self) -> std::io::Result<Option<Doors>> {
        if self.of.places.iter().any(|place| place.version != 1) {
            return Ok(None);
        }
        let open = |folder: &PathBuf| {
            let door = fs::File::options().write(true).open(folder.join(DOOR))?;
            sandbox::out_of_the_way(door.into())
        };
        self.folders.iter().map(open).collect::<Result<_, _>>().map(|doors| Some(Doors(doors)))
    }

    /// Puts a process in, and what it has started. Blocks.
    pub(crate) fn put(&self, process: Pid) -> std::io::Result<()> {
        let mut inside = BTreeSet::new();
        self.put_one(process)?;
        inside.insert(process.as_raw_nonzero());
        for _ in 0..LOOKS {
            let below = child::with_below(process);
            let found: Vec<Pid> = below.filter(|child| inside.insert(child.as_raw_nonzero())).collect();
            if found.is_empty() {
                break;
            }
            for child in found {
                // one that has just ended
                let _ = self.put_one(child);
            }
        }
        Ok(())
    }

    fn put_one(&self, process: Pid) -> std::io::Result<()> {
        let id = process.as_raw_nonzero().to_string();
        self.folders.iter().try_for_each(|folder| fs::write(folder.join(LIST), &id))
    }

    /// Whether one of its processes was killed because all of them together had too much memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.hits(Kind::Memory) > self.before[0]
    }

    /// The most processes it may have, if one could not be started because there were as many, since this was asked last.
    pub(crate) fn ran_out_of_processes(&mut self) -> Option<u32> {
        let hits = self.hits(Kind::Processes);
        (hits > std::mem::replace(&mut self.before[1], hits)).then_some(self.limits.processes)
    }

    fn hits(&self, kind: Kind) -> u64 {
        self.of.places.iter().zip(&self.folders).map(|(place, folder)| place.hits(folder, kind)).sum()
    }

    /// Who is in it.
    pub(crate) fn members(&self) -> Vec<Pid> {
        self.folders.first().map(|folder| processes(folder)).unwrap_or_default()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let folders = std::mem::take(&mut self.folders);
        if !folders.iter().all(|folder| empty(folder)) {
            warn!(group = ?folders, "processes of a function cannot be killed; is a disk broken?");
            return;
        }
        let mut state = lock(&self.of.state);
        if state.spare.values().map(Vec::len).sum::<usize>() < SPARE {
            state.spare.entry(self.limits).or_default().push(folders);
            return;
        }
        drop(state);
        for folder in folders {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Kills all processes in a group, until there is none; false when one remains.
fn empty(folder: &Path) -> bool {
    let begun = Instant::now();
    loop {
        let left = processes(folder);
        if left.is_empty() {
            return true;
        }
        if begun.elapsed() > PATIENCE {
            return false;
        }
        for process in left {
            // the descriptor is of the process that is in the group, whatever its id is meanwhile
            let Ok(descriptor) = pidfd_open(process, PidfdFlags::empty()) else { continue };
            if processes(folder).contains(&process) {
                let _ = pidfd_send_signal(descriptor, Signal::KILL);
            }
        }
        thread::sleep(AGAIN);
    }
}

/// Who is in a group; nobody when it is not there.
fn processes(folder: &Path) -> Vec<Pid> {
    let list = fs::read_to_string(folder.join(LIST)).unwrap_or_default();
    list.lines().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        os::fd::AsRawFd,
        process::{Child, Command},
    };

    use super::*;

    fn limits(processes: u32) -> Limits {
        Limits { memory: 64 << 20, processes, cpu: Some(50) }
    }

    fn shell(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).spawn().unwrap()
    }

    #[test]
    fn all_that_a_process_has_started_is_in_its_group_and_ends_with_it() {
        let Some(groups) = Cgroups::here() else {
            println!("skipped: no control groups can be made here");
            return;
        };
        let mut leader = shell("sleep 1000 & sh -c 'sleep 1000 & wait' & wait");
        let id = Pid::from_child(&leader);
        while child::children_of(id).iter().flat_map(|child| child::children_of(*child)).next().is_none() {
            thread::yield_now();
        }
        let group = groups.group(limits(10)).unwrap();
        group.put(id).unwrap();
        let inside = processes(&group.folders[0]);
        assert_eq!(inside.len(), 4, "{inside:?}");
        drop(group);
        leader.wait().unwrap();
        let left = inside.iter().filter(|process| !child::children_of(**process).is_empty()).count();
        assert_eq!(left, 0);
    }

    #[test]
    fn the_way_into_a_group_is_not_covered_by_the_pipes_that_a_process_is_given() {
        let Some(groups) = Cgroups::here() else {
            println!("skipped: no control groups can be made here");
            return;
        };
        let doors = groups.group(limits(10)).unwrap().doors().unwrap();
        let numbers = doors.iter().flat_map(|doors| &doors.0).map(AsRawFd::as_raw_fd);
        assert!(numbers.clone().all(|number| number > 5), "{:?}", numbers.collect::<Vec<_>>());
    }

    #[test]
    fn a_group_is_used_again_by_the_next_with_its_limits_and_all_go_with_the_node() {
        let Some(groups) = Cgroups::here() else {
            println!("skipped: no control groups can be made here");
            return;
        };
        let folders = |group: &Cgroup| group.folders.clone();
        let first = groups.group(limits(10)).unwrap();
        let other = groups.group(limits(20)).unwrap();
        let (was, others) = (folders(&first), folders(&other));
        assert_ne!(was, others);
        drop((first, other));
        let next = groups.group(limits(10)).unwrap();
        assert_eq!(folders(&next), was);
        assert!(!next.ran_out_of_memory());
        drop(next);
        drop(groups);
        assert!(was.iter().chain(&others).all(|folder| !folder.exists()));
    }
}

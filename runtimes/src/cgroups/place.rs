//! Where groups can be made: below the group this process is in, in version 2 once for all kinds of limits, in version 1 for
//! each of them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use bus::child;
use rustix::{
    fs::{Access, access},
    process::{Pid, getpid, getppid},
};

use super::{LIST, Limits, empty, processes};

/// The time in which a group has its share of the CPU, in microseconds.
const PERIOD: u64 = 100_000;
/// The group that the node itself goes to, where one with other groups in it may hold no process.
const OWN: &str = "fnbus";

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Processes,
    Cpu,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Processes, Self::Cpu];

    /// As the kernel calls it.
    fn controller(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// A folder of the kernel's that groups are made in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) version: u8,
    pub(super) kinds: Vec<Kind>,
}

/// The places for all kinds of limits that are possible.
pub(super) fn find() -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for kind in Kind::ALL {
        let Ok((folder, version)) = find_for(kind) else { continue };
        match places.iter_mut().find(|place| place.folder == folder) {
            Some(place) => place.kinds.push(kind),
            None => places.push(Place { folder, version, kinds: vec![kind] }),
        }
    }
    places
}

/// By what each kind of limit is enforced, or what is missing.
pub(crate) fn enforced() -> [(Kind, Result<String, String>); 3] {
    Kind::ALL.map(|kind| (kind, find_for(kind).map(|(_, version)| format!("control groups, version {version}"))))
}

/// The least memory, in bytes, that the group of this process or one above it allows; none where none says.
pub(crate) fn allowed_memory() -> Option<u64> {
    let (mounts, groups) = mounted();
    let limits = memory_limits(&mounts, &groups).into_iter();
    limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

/// The files that may say so: of its own group and of those above it.
fn memory_limits(mounts: &str, groups: &str) -> Vec<PathBuf> {
    let places = [(Kind::Memory.controller(), "memory.limit_in_bytes"), ("", "memory.max")];
    let files = places.into_iter().filter_map(|(controller, file)| {
        let (point, below) = place_of(mounts, groups, controller)?;
        Some(below.ancestors().map(|at| point.join(at).join(file)).collect::<Vec<_>>())
    });
    files.flatten().collect()
}

/// What is mounted, and the groups this process is in.
fn mounted() -> (String, String) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    (read("/proc/self/mountinfo"), read("/proc/self/cgroup"))
}

/// Where groups with a kind of limit can be made, and of which version.
fn find_for(kind: Kind) -> Result<(PathBuf, u8), String> {
    let (mounts, groups) = mounted();
    if let Some(folder) = own(&mounts, &groups, kind.controller()) {
        return writable(&folder).map(|()| (folder, 1));
    }
    let own = own(&mounts, &groups, "").ok_or("no control groups are mounted")?;
    delegated(own, kind).map(|folder| (folder, 2))
}

/// The folder of this process's group for a controller of version 1, or, without a name, of version 2.
fn own(mounts: &str, groups: &str, controller: &str) -> Option<PathBuf> {
    place_of(mounts, groups, controller).map(|(point, below)| point.join(below))
}

/// The same as the folder of all groups, and what lies below it.
fn place_of<'a>(mounts: &'a str, groups: &'a str, controller: &str) -> Option<(&'a Path, &'a Path)> {
    let group = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        names.split(',').any(|name| name == controller).then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut kind = kind.split(' ');
        let (system, options) = (kind.next()?, kind.nth(1)?);
        let here = if controller.is_empty() {
            system == "cgroup2"
        } else {
            system == "cgroup" && options.split(',').any(|option| option == controller)
        };
        let below = Path::new(group).strip_prefix(root).ok()?;
        here.then(|| (Path::new(point), below))
    })
}

fn writable(folder: &Path) -> Result<(), String> {
    access(folder, Access::WRITE_OK).map_err(|error| format!("{} cannot be written ({error})", folder.display()))
}

/// Where groups with a kind of limit can be made of version 2.
fn delegated(own: PathBuf, kind: Kind) -> Result<PathBuf, String> {
    let above = own.file_name().is_some_and(|name| name == OWN).then(|| own.parent().map(Path::to_owned)).flatten();
    let folder = above.unwrap_or(own);
    writable(&folder)?;
    let name = kind.controller();
    if !has(&folder, "cgroup.controllers", name) {
        return Err(format!("{} has no controller `{name}`", folder.display()));
    }
    let root = !folder.join("cgroup.type").exists();
    let strangers = processes(&folder).into_iter().any(|process| !is_ours(process));
    if has(&folder, "cgroup.subtree_control", name) || root || !strangers {
        Ok(folder)
    } else {
        Err(format!("{} holds other processes than fnbus'", folder.display()))
    }
}

/// Whether a process is this one, its warden, or started by either.
fn is_ours(process: Pid) -> bool {
    let family = [Some(getpid()), getppid()].into_iter().flatten();
    family.into_iter().any(|of| of == process || child::children_of(of).contains(&process))
}

fn has(folder: &Path, file: &str, name: &str) -> bool {
    fs::read_to_string(folder.join(file)).is_ok_and(|names| names.split_whitespace().any(|n| n == name))
}

impl Place {
    /// Makes the folder of this node's groups in it.
    pub(super) fn make(&self) -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", name(process::id())?);
        let made = Self { folder: self.folder.join(name), ..self.clone() };
        fs::create_dir_all(&made.folder)?;
        if self.version == 2 {
            self.delegate(&self.folder)?;
            self.delegate(&made.folder)?;
        }
        Ok(made)
    }

    /// Lets groups below a folder have limits. Only where the folder holds no process itself: ours go below it.
    fn delegate(&self, folder: &Path) -> io::Result<()> {
        let missing = |kind: &&Kind| !has(folder, "cgroup.subtree_control", kind.controller());
        let wanted: Vec<_> = self.kinds.iter().filter(missing).map(|kind| format!("+{}", kind.controller())).collect();
        let enable = || fs::write(folder.join("cgroup.subtree_control"), wanted.join(" "));
        if wanted.is_empty() || enable().is_ok() {
            return Ok(());
        }
        let own = folder.join(OWN);
        fs::create_dir_all(&own)?;
        for process in processes(folder) {
            fs::write(own.join(LIST), process.as_raw_nonzero().to_string())?;
        }
        enable()
    }

    /// Sets the limits of a new group.
    pub(super) fn limit(&self, folder: &Path, limits: &Limits) -> io::Result<()> {
        let set = |file: &str, value: String| fs::write(folder.join(file), value);
        // not every kernel counts what is swapped out
        let set_if_there =
            |file: &str, value: String| if folder.join(file).exists() { set(file, value) } else { Ok(()) };
        for kind in &self.kinds {
            match (kind, self.version) {
                (Kind::Memory, 1) => {
                    set("memory.limit_in_bytes", limits.memory.to_string())?;
                    set_if_there("memory.memsw.limit_in_bytes", limits.memory.to_string())?;
                }
                (Kind::Memory, _) => {
                    set("memory.max", limits.memory.to_string())?;
                    set_if_there("memory.swap.max", "0".to_owned())?;
                    set_if_there("memory.oom.group", "1".to_owned())?;
                }
                (Kind::Processes, _) => set("pids.max", limits.processes.to_string())?,
                (Kind::Cpu, version) => {
                    let Some(percent) = limits.cpu else { continue };
                    let quota = u64::from(percent) * PERIOD / 100;
                    if version == 1 {
                        set("cpu.cfs_period_us", PERIOD.to_string())?;
                        set("cpu.cfs_quota_us", quota.to_string())?;
                    } else {
                        set("cpu.max", format!("{quota} {PERIOD}"))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// How often a group has run into its limit: one of it was killed for want of memory, or could start no process more.
    pub(super) fn hits(&self, folder: &Path, kind: Kind) -> u64 {
        let (file, field) = match kind {
            Kind::Memory if self.version == 1 => ("memory.oom_control", "oom_kill "),
            Kind::Memory => ("memory.events", "oom_kill "),
            Kind::Processes => ("pids.events", "max "),
            Kind::Cpu => return 0,
        };
        if !self.kinds.contains(&kind) {
            return 0;
        }
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(field)?.parse().ok()).unwrap_or(0)
    }

    /// Ends what nodes left in it that are gone.
    pub(super) fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let file = entry.file_name();
            let Some(id) = file.to_str().and_then(|name| name.strip_prefix("fnbus-")?.split('-').next()) else {
                continue;
            };
            let name = id.parse().ok().and_then(|id| name(id).ok());
            let alive = name.is_some_and(|name| file.as_encoded_bytes().starts_with(name.as_bytes()));
            if !alive {
                Self { folder: entry.path(), ..self.clone() }.remove();
            }
        }
    }

    /// Removes it with all groups in it.
    pub(super) fn remove(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                empty(&entry.path());
                let _ = fs::remove_dir(entry.path());
            }
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

/// How the folders of a node's groups begin: no other process ever has the same id and beginning.
fn name(process: u32) -> io::Result<String> {
    /// The field of `/proc/<id>/stat` with the time the process began at.
    const BEGUN: usize = 22;
    let id = i32::try_from(process).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let [begun] = child::stat(id, [BEGUN])?;
    Ok(format!("fnbus-{process}-{begun}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const V1: &str = "31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
                      32 24 0:28 /docker/1 /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n\
                      33 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
    const GROUPS: &str = "8:cpu,cpuacct:/user.slice\n7:memory:/docker/1/fn\n3:pids:/\n0::/user.slice/run.scope\n";

    #[rstest]
    #[case::two_in_one_place("cpu", Some("/sys/fs/cgroup/cpu,cpuacct/user.slice"))]
    #[case::in_a_container("memory", Some("/sys/fs/cgroup/memory/fn"))]
    #[case::not_mounted("pids", None)]
    #[case::of_version_2("", Some("/sys/fs/cgroup/unified/user.slice/run.scope"))]
    fn the_group_of_this_process_is_found_for_each_kind_of_limit(
        #[case] controller: &str,
        #[case] expect: Option<&str>,
    ) {
        assert_eq!(own(V1, GROUPS, controller), expect.map(PathBuf::from));
    }

    #[test]
    fn the_limit_of_a_control_group_or_of_one_above_it_counts() {
        let mounts = "1 0 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n2 0 0:2 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let files = memory_limits(mounts, "4:memory:/a/b\n2:cpu:/c\n0::/d\n");
        let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
        let v1 = ["a/b/", "a/", ""].map(|at| format!("/sys/fs/cgroup/memory/{at}memory.limit_in_bytes"));
        let v2 = ["d/", ""].map(|at| format!("/sys/fs/cgroup/{at}memory.max"));
        assert_eq!(files, [&v1[..], &v2[..]].concat());
    }

    #[test]
    fn a_group_has_the_limits_in_the_files_of_its_version() {
        let limits = Limits { memory: 1 << 30, processes: 7, cpu: Some(150) };
        for (version, expect) in [
            (
                1,
                &[
                    ("memory.limit_in_bytes", "1073741824"),
                    ("pids.max", "7"),
                    ("cpu.cfs_period_us", "100000"),
                    ("cpu.cfs_quota_us", "150000"),
                ][..],
            ),
            (2, &[("memory.max", "1073741824"), ("pids.max", "7"), ("cpu.max", "150000 100000")][..]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let place = Place { folder: folder.path().to_owned(), version, kinds: Kind::ALL.to_vec() };
            place.limit(folder.path(), &limits).unwrap();
            for (file, text) in expect {
                assert_eq!(fs::read_to_string(folder.path().join(file)).unwrap(), *text, "{file}");
            }
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), expect.len());
        }
    }

    #[rstest]
    #[case(1, Kind::Memory, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")]
    #[case(2, Kind::Memory, "memory.events", "low 0\nmax 9\noom 4\noom_kill 3\n")]
    #[case(1, Kind::Processes, "pids.events", "max 3\n")]
    #[case(2, Kind::Processes, "pids.events", "max 3\n")]
    fn how_often_a_group_ran_into_a_limit_is_counted(
        #[case] version: u8,
        #[case] kind: Kind,
        #[case] file: &str,
        #[case] text: &str,
    ) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(file), text).unwrap();
        let place = Place { folder: folder.path().to_owned(), version, kinds: vec![kind] };
        assert_eq!(place.hits(folder.path(), kind), 3);
        assert_eq!(Place { kinds: vec![Kind::Cpu], ..place }.hits(folder.path(), kind), 0);
    }

    #[test]
    fn groups_of_a_node_that_is_gone_are_removed_and_those_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder: folder.path().to_owned(), version: 2, kinds: Vec::new() };
        let own = format!("{}-3", name(process::id()).unwrap());
        for name in [&own, "fnbus-1-0", "fnbus-4000000000-7", "user.slice"] {
            fs::create_dir_all(folder.path().join(name).join("1")).unwrap();
        }
        place.sweep();
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [own.as_str(), "user.slice"]);
    }
}

//! What a group has, and what it has used up of what it may have: as far as the kernel tells.

use std::{fs, path::Path};

use bus::child;
use rustix::{
    fs::{StatVfs, statvfs},
    process::Pid,
};

use super::Group;
use crate::{cgroups::Cgroup, lock};

impl Group {
    /// Its processes: all in its control group, else the leader and those below it.
    pub(crate) fn members(&self) -> Vec<Pid> {
        let held = lock(&self.cgroup).as_ref().map(Cgroup::members);
        held.unwrap_or_else(|| child::with_below(self.leader).collect())
    }

    /// What it has used up of what it may have, as far as the kernel tells, with the next step.
    pub(crate) fn exhausted(&self) -> Option<String> {
        let processes = lock(&self.cgroup).as_mut().and_then(Cgroup::ran_out_of_processes);
        if let Some(most) = processes {
            return Some(format!("the instance reached its limit of {most} processes and threads: raise `processes`"));
        }
        let is_full = |storage: StatVfs| storage.f_bavail == 0 || storage.f_favail == 0;
        self.storage().is_some_and(is_full).then(|| {
            "the instance reached its limit of files: remove what is not needed, or raise `ephemeral_storage`"
                .to_owned()
        })
    }

    /// The file system of its own.
    fn storage(&self) -> Option<StatVfs> {
        let folder = self.inner.as_ref()?.strip_prefix("/").ok()?;
        let of = |id: Pid| statvfs(Path::new(&format!("/proc/{}/root", id.as_raw_nonzero())).join(folder)).ok();
        self.programs().into_iter().find_map(of)
    }

    /// Bytes the program holds now: its own, its part of what it shares, and files that are in memory. Where the kernel does
    /// not say that, all it has.
    pub(crate) fn memory(&self) -> Option<u64> {
        let own =
            self.of_program(|id| bytes_of(id, "smaps_rollup", "Pss:").or_else(|| bytes_of(id, "status", "VmRSS:")))?;
        let files = self.storage().map_or(0, |storage| (storage.f_blocks - storage.f_bfree) * storage.f_frsize);
        Some(own + files)
    }

    /// The program; in namespaces what else was left to the first process there is beside it.
    fn programs(&self) -> Vec<Pid> {
        match &self.inner {
            Some(_) => child::children_of(self.leader).into_iter().flat_map(child::children_of).collect(),
            None => vec![self.leader],
        }
    }

    /// A figure of the program.
    fn of_program(&self, figure: impl Fn(Pid) -> Option<u64>) -> Option<u64> {
        self.programs().into_iter().filter_map(figure).max()
    }

    /// Most memory the program had at once, in bytes.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        // who locks it for long puts it into its control group, and has not reaped it
        if let Ok(exit) = self.exit.try_lock()
            && let Some(exit) = *exit
        {
            return Some(exit.peak);
        }
        self.of_program(|id| bytes_of(id, "status", "VmHWM:"))
    }
}

/// What the kernel says in kB in a file of a process.
fn bytes_of(process: Pid, file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/{file}", process.as_raw_nonzero())).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kb| kb * 1024)
}

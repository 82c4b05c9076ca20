//! What runs of a project: found by its folder, which is in the arguments or the environment of each of its processes.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

/// A process, as the kernel lists it.
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: i32,
    /// Its arguments, with spaces between.
    pub command: String,
}

/// Memory, descriptors and threads of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    pub mib: f64,
    pub files: f64,
    pub threads: f64,
}

/// The children of a process with one thread, oldest first; none when it has ended.
pub(crate) fn children(process: Pid) -> Vec<Pid> {
    let id = process.as_raw_nonzero();
    let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}

impl Process {
    /// The processes that name this folder, but those that only stand in it: the node and the commands of a test.
    pub(crate) fn of(folder: &Path) -> Vec<Self> {
        let mark = folder.as_os_str().as_encoded_bytes();
        let names = |bytes: &[u8]| bytes.windows(mark.len()).any(|window| window == mark);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that ends meanwhile has neither; one of somebody else cannot be read.
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if names(&command) || names(&environment) {
                let command = String::from_utf8_lossy(&command).replace('\0', " ");
                found.push(Self { pid, command });
            }
        }
        found
    }

    /// The processes that show a text to everybody, in their arguments.
    pub fn showing(text: &str) -> Vec<Self> {
        let shows = |command: &[u8]| command.windows(text.len()).any(|window| window == text.as_bytes());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if shows(&command) {
                found.push(Self { pid, command: String::from_utf8_lossy(&command).replace('\0', " ") });
            }
        }
        found
    }

    /// A process of which only the id is known.
    pub fn of_id(pid: i32) -> Self {
        Self { pid, command: String::new() }
    }

    /// Kills it with SIGKILL, if it is still there.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    pub fn signal(&self, signal: Signal) {
        match kill_process(Pid::from_raw(self.pid).unwrap(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => panic!("process {} cannot be sent {signal:?}: {error}", self.pid),
        }
    }

    /// What the kernel says it uses; zeros when it has ended.
    pub fn usage(pid: i32) -> Usage {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default()
        };
        let files = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        Usage { mib: field("VmRSS:") / 1024.0, files: files as f64, threads: field("Threads:") }
    }

    /// The most memory it ever used, in MiB; zero when it has ended.
    pub fn peak(pid: i32) -> f64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    }

    pub fn is_there(&self) -> bool {
        let state = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // A zombie has ended.
        !state.is_empty() && !state.contains(") Z ")
    }
}

//! The sandbox: what a process of a function may reach of the machine. Landlock holds it to the files it needs and keeps
//! its signals among its own, a seccomp filter refuses system calls no function needs, and what root may beyond files is
//! given up.
//!
//! What a kernel does not have is left out, and said by `fnbus doctor`: see `enforcement.rs`.

// Which folders of the machine every function may read.
mod folders;
// Which system calls are refused.
mod calls;
// A view of the machine of its own.
mod namespaces;
// What this kernel enforces.
mod enforcement;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use serde::{Deserialize, Serialize};

pub use enforcement::{Enforcement, Part};
pub(crate) use folders::{around, machine};
pub(crate) use namespaces::ahead;
pub use namespaces::entered;

/// The newest rules that are asked for; an older kernel enforces what it knows of them.
const RULES: ABI = ABI::V6;

/// Descriptors below are given to the process between fork and exec, over whatever is there.
const ABOVE: i32 = 16;

/// What root keeps, beside being the owner of its files.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::NET_BIND_SERVICE);

/// What a process may reach. Nothing else is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Reach {
    /// Files and folders it may read and execute.
    pub(crate) read: Vec<PathBuf>,
    /// Those it may write too.
    pub(crate) write: Vec<PathBuf>,
    /// Whether it may open connections.
    pub(crate) network: bool,
    /// Set where it sees nothing else either: see `namespaces.rs`.
    pub(crate) namespaces: Option<Private>,
}

/// The file system that a process has for itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Private {
    /// Its private folder, which is in it.
    pub(crate) folder: PathBuf,
    /// The most that may be in it.
    pub(crate) bytes: u64,
}

/// A sandbox that is ready to be entered.
pub(crate) struct Walls {
    /// None where the kernel has no Landlock.
    ruleset: Option<OwnedFd>,
    filters: &'static [seccompiler::BpfProgram],
}

impl Reach {
    /// Makes the walls. What is not there cannot be reached; no error.
    pub(crate) fn walls(&self) -> io::Result<Walls> {
        let mut rules = Ruleset::default().handle_access(AccessFs::from_all(RULES)).map_err(io::Error::other)?;
        rules = rules.scope(Scope::from_all(RULES)).map_err(io::Error::other)?;
        if !self.network {
            rules = rules.handle_access(AccessNet::from_all(RULES)).map_err(io::Error::other)?;
        }
        let mut rules = rules.create().map_err(io::Error::other)?;
        let writable = AccessFs::from_all(RULES) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
        let devices = folders::DEVICES.map(|device| (Path::new(device), AccessFs::from_file(RULES)));
        let of = |paths: &'_ [PathBuf], access: BitFlags<AccessFs>| {
            paths.iter().map(move |path| (path.clone(), access)).collect::<Vec<_>>()
        };
        let paths = of(&self.read, AccessFs::from_read(RULES)).into_iter().chain(of(&self.write, writable));
        for (path, access) in devices.map(|(path, access)| (path.to_owned(), access)).into_iter().chain(paths) {
            let Ok(place) = PathFd::new(&path) else { continue };
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(RULES) };
            rules = rules.add_rule(PathBeneath::new(place, access)).map_err(io::Error::other)?;
        }
        let ruleset: Option<OwnedFd> = rules.into();
        let ruleset = ruleset.map(out_of_the_way).transpose()?;
        Ok(Walls { ruleset, filters: calls::filters(self.network) })
    }
}

/// Another number for a descriptor that is used between fork and exec, when the process has been given its own.
pub(crate) fn out_of_the_way(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, ABOVE)?)
}

impl Walls {
    /// Enters the sandbox, for ever and with all that is started from it. For a forked child: makes system calls alone.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let may = capabilities(None)?.permitted & KEPT;
        set_capabilities(None, CapabilitySets { effective: may, permitted: may, inheritable: CapabilitySet::empty() })?;
        if let Some(ruleset) = &self.ruleset {
            // SAFETY: a system call on a descriptor that is open, with no pointer.
            let entered = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
            if entered != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for filter in self.filters {
            seccompiler::apply_filter(filter).map_err(|_| io::Error::last_os_error())?;
        }
        Ok(())
    }
}

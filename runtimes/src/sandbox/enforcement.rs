//! What this kernel enforces of a sandbox.

use std::fs;

use serde::Serialize;

use super::{calls, namespaces};
use crate::{
    cgroups::{self, Kind},
    config::{FunctionConfig, Isolation},
};

/// Missed alone where a function has namespaces.
const SIGHT: &str = "seeing other processes and files, with namespaces";
/// Missed alone where a function has such a limit.
const CPU: &str = "more CPU time than its limit";

/// One part of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What is held back.
    pub what: &'static str,
    pub enforced: bool,
    /// By which means, or what is missing.
    pub by: String,
}

/// What a machine has for sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Enforcement {
    pub kernel: String,
    /// None: the kernel has no Landlock, or it is switched off.
    pub landlock_abi: Option<u32>,
    pub seccomp: bool,
    pub parts: Vec<Part>,
}

impl Enforcement {
    /// Asks the kernel.
    pub fn of_this_machine() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let abi = landlock_abi();
        let seccomp = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").is_ok_and(|a| a.contains("errno"))
            && !calls::filters(true).is_empty();
        let landlock = |what, from: u32, since: &str| Part {
            what,
            enforced: abi.is_some_and(|abi| abi >= from),
            by: match abi {
                Some(abi) if abi >= from => format!("Landlock, ABI {abi}"),
                Some(abi) => format!("needs Landlock's ABI {from} (Linux {since}); this kernel has {abi}"),
                None => "needs Landlock, which this kernel has not, or not switched on (lsm=landlock,…)".to_owned(),
            },
        };
        let calls = |what| Part {
            what,
            enforced: seccomp,
            by: if seccomp { "seccomp" } else { "needs seccomp filters in the kernel" }.to_owned(),
        };
        let mut parts = vec![
            landlock("files outside its own", 1, "5.13"),
            landlock("truncating files outside its own", 3, "6.2"),
            landlock("signals and abstract sockets of others", 6, "6.12"),
            calls("ptrace, mounts, namespaces, keys, bpf, io_uring"),
            calls("every connection, with network = false"),
        ];
        let namespaces = namespaces::possible();
        parts.push(Part {
            what: SIGHT,
            enforced: namespaces.is_ok(),
            by: namespaces.unwrap_or_else(|missing| missing).to_owned(),
        });
        parts.extend(cgroups::enforced().into_iter().map(|(kind, found)| Part {
            what: match kind {
                Kind::Memory => "more memory than its limit, with all it starts",
                Kind::Processes => "more processes and threads than its limit",
                Kind::Cpu => CPU,
            },
            enforced: found.is_ok(),
            by: found.unwrap_or_else(|missing| {
                format!("{missing}; as a systemd service fnbus may make control groups with Delegate=yes")
            }),
        }));
        Self { kernel, landlock_abi: abi, seccomp, parts }
    }

    /// What these functions ask for and the kernel does not enforce.
    pub fn missing<'a>(&'a self, functions: impl Iterator<Item = &'a FunctionConfig>) -> Vec<&'a Part> {
        let sandboxed: Vec<_> = functions.filter(|function| function.needs_kernel()).collect();
        let asked = |part: &&Part| match part.what {
            CPU => sandboxed.iter().any(|function| function.cpu.is_some()),
            SIGHT => sandboxed.iter().any(|function| function.isolation == Isolation::Namespaces),
            _ => !sandboxed.is_empty(),
        };
        self.parts.iter().filter(asked).filter(|part| !part.enforced).collect()
    }
}

fn landlock_abi() -> Option<u32> {
    const VERSION: u32 = 1;
    // SAFETY: with no attributes and this flag the call only gives a number.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    u32::try_from(abi).ok().filter(|&abi| abi > 0)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::RuntimeKind;

    #[test]
    fn only_what_a_function_asks_for_can_be_missing() {
        let old = Enforcement {
            kernel: "5.4".into(),
            landlock_abi: None,
            seccomp: true,
            parts: vec![Part { what: "files", enforced: false, by: "needs Landlock".into() }],
        };
        let function =
            |isolation| FunctionConfig { isolation, ..FunctionConfig::new(RuntimeKind::Python, PathBuf::new()) };
        assert_eq!(old.missing([&function(Isolation::Sandbox)].into_iter()).len(), 1);
        assert!(old.missing([&function(Isolation::Process)].into_iter()).is_empty());
    }
}

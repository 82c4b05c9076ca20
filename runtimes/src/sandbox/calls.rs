//! The system calls that are refused: those that look into or change other processes, the kernel or its tables, make new
//! namespaces, or get at files past Landlock. Everything else is allowed, so that what a language needs need not be known.

use std::{collections::BTreeMap, sync::LazyLock};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition as Condition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refused whatever their arguments.
const REFUSED: &[i64] = &[
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // mounts, namespaces
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    // files by another way than their path
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // keys
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // programs and requests in the kernel
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    // the machine
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

const NAMESPACES: [i32; 8] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
    // CLONE_NEWTIME, for `unshare` alone
    0x80,
];
/// With which a terminal is typed into.
const TYPING: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];
/// Connections of other kinds reach hardware, hosts of virtual machines and rarely used parts of the kernel.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
const SET_ID: [u32; 2] = [libc::S_ISUID, libc::S_ISGID];

/// The filters for processes with and without a network; none where the processor is not known.
pub(super) fn filters(network: bool) -> &'static [BpfProgram] {
    static FILTERS: LazyLock<[Vec<BpfProgram>; 2]> =
        LazyLock::new(|| [false, true].map(|network| build(network).unwrap_or_default()));
    &FILTERS[usize::from(network)]
}

fn build(network: bool) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = |rules: Rules, errno: i32| -> Result<BpfProgram, seccompiler::BackendError> {
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)?.try_into()
    };
    let mut filters = vec![
        filter(rules(network)?, libc::EPERM)?,
        // its flags are behind a pointer, which a filter cannot follow; without it libraries use `clone`
        filter(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?,
    ];
    if arch == TargetArch::x86_64 {
        filters.push(second_numbers());
    }
    Ok(filters)
}

fn rules(network: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_HERE).map(|&call| (call, Vec::new())).collect();
    let has = |argument: u8, bits: u64| {
        SeccompRule::new(vec![Condition::new(argument, Length::Dword, Is::MaskedEq(bits), bits)?])
    };
    let is = |argument: u8, value: u64| SeccompRule::new(vec![Condition::new(argument, Length::Dword, Is::Eq, value)?]);
    // the last eight bits of `clone`'s flags are a signal
    let namespaces =
        |from: usize| NAMESPACES.iter().take(from).map(|&flag| has(0, flag as u64)).collect::<Result<Vec<_>, _>>();
    rules.insert(libc::SYS_clone, namespaces(7)?);
    rules.insert(libc::SYS_unshare, namespaces(8)?);
    rules.insert(libc::SYS_ioctl, TYPING.iter().map(|&request| is(1, request)).collect::<Result<_, _>>()?);
    // the limits of another process
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![Condition::new(0, Length::Dword, Is::Ne, 0)?])?]);
    // a program that others run as its owner
    let set_id = |argument: u8| SET_ID.iter().map(|&bit| has(argument, u64::from(bit))).collect::<Result<Vec<_>, _>>();
    rules.insert(libc::SYS_fchmod, set_id(1)?);
    rules.insert(libc::SYS_fchmodat, set_id(2)?);
    rules.insert(FCHMODAT2, set_id(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_chmod, set_id(1)?);
    let family = if network {
        let others = FAMILIES.iter().map(|&family| Condition::new(0, Length::Dword, Is::Ne, family as u64));
        vec![SeccompRule::new(others.collect::<Result<_, _>>()?)?]
    } else {
        Vec::new()
    };
    rules.insert(libc::SYS_socket, family);
    Ok(rules)
}

/// Of all processors the same.
const FCHMODAT2: i64 = 452;

/// On x86-64 each call has a second number (x32), which is not in the rules.
fn second_numbers() -> BpfProgram {
    const LOAD: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let refuse = u32::from(SeccompAction::Errno(libc::ENOSYS as u32));
    vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: 0x4000_0000 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: refuse },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: u32::from(SeccompAction::Allow) },
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_are_filters_for_this_processor() {
        assert!(super::filters(true).len() >= 2);
        assert!(super::filters(false).len() >= 2);
    }
}

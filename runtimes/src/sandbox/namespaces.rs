//! Namespaces: a function sees its own processes, and of the files what it may reach and nothing beside; its `/tmp` is its
//! own. `fnbus` itself goes ahead of the program: it makes them, and the sandbox in them, and stays above it, first as the
//! process that the node knows, then as the first process inside, which reaps. With either all inside ends.

use std::{
    convert::Infallible,
    env,
    ffi::{CString, OsStr, OsString},
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            fs::{FileExt, PermissionsExt, symlink},
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
};

use bus::child;
use rustix::{
    fs::{Mode, OFlags, open},
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
        mount_remount, unmount,
    },
    pipe::{PipeFlags, pipe_with},
    process::{
        Pid, Resource, Rlimit, Signal, WaitOptions, getgid, getpid, getuid, kill_process, pivot_root,
        set_parent_process_death_signal, setrlimit, wait, waitpid,
    },
    thread::{CapabilitySet, UnshareFlags, capabilities},
};

use super::{Private, Reach, folders};

/// The first argument of an `fnbus` that goes ahead of a function.
const ENTER: &str = "enter-namespaces";
/// What it ends with when it could not.
const FAILED: u8 = 126;
/// What a file or folder counts as, of the bytes that all of them may have.
const LEAST: u64 = 4096;
/// Where the new root can be put together; `/dev` is everywhere, and only some of what is in it can be reached.
const ROOTS: [&str; 3] = ["/dev", "/mnt", "/tmp"];
/// Folders that each instance has for itself beside the private one, with which they share one file system in memory.
const OWN: [&str; 2] = ["/tmp", "/dev/shm"];

/// The program that makes the namespaces and the arguments that go before the function's own program.
pub(crate) fn ahead(reach: &Reach) -> io::Result<(PathBuf, [OsString; 2])> {
    Ok((PathBuf::from("/proc/self/exe"), [ENTER.into(), serde_json::to_string(reach)?.into()]))
}

/// Whether this process may make them: the right to, or user namespaces, which give it.
pub(super) fn possible() -> Result<&'static str, &'static str> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    if privileged() {
        Ok("CAP_SYS_ADMIN")
    } else if read("/proc/sys/user/max_user_namespaces") == "0"
        || read("/proc/sys/kernel/unprivileged_userns_clone") == "0"
    {
        Err("needs CAP_SYS_ADMIN, or user namespaces, which this kernel does not allow")
    } else {
        Ok("user namespaces")
    }
}

fn privileged() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// When this process is to go ahead of a function, does, and gives what it ends with. To be called before any thread is
/// started.
pub fn entered() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::new(ENTER)) {
        return None;
    }
    let (reach, program) = (arguments.next()?, arguments.next()?);
    let failed = |error: io::Error| {
        let _ = writeln!(
            io::stderr(),
            "fnbus: the namespaces of this function cannot be made: {error}; see `fnbus doctor`, or set isolation = \"sandbox\""
        );
        ExitCode::from(FAILED)
    };
    Some(enter(&reach, &program, arguments).unwrap_or_else(failed))
}

fn enter(reach: &OsStr, program: &OsStr, arguments: impl Iterator<Item = OsString>) -> io::Result<ExitCode> {
    let reach: Reach = serde_json::from_slice(reach.as_encoded_bytes())?;
    // what was told by arguments is for nobody else: any process may read those of another
    let _ = hide_arguments();
    let folder = env::current_dir()?;
    if !privileged() {
        let (user, group) = (getuid().as_raw(), getgid().as_raw());
        disconnect(UnshareFlags::NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
        // who gets rights loses what it had asked for
        set_parent_process_death_signal(Some(Signal::KILL))?;
    }
    let network = if reach.network { UnshareFlags::empty() } else { UnshareFlags::NEWNET };
    disconnect(UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | network)?;
    let (said, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: this process has one thread, so the child may do whatever it could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(said);
            let Err(error) = first(reach, &folder, program, arguments, tell);
            let _ = writeln!(io::stderr(), "fnbus: {} cannot be started in its namespaces: {error}", program.display());
            std::process::exit(FAILED.into())
        }
        child => {
            drop(tell);
            let child = Pid::from_raw(child).ok_or(io::ErrorKind::InvalidData)?;
            Ok(above(child, said))
        }
    }
}

/// Overwrites the arguments of this process, which were copied before.
fn hide_arguments() -> io::Result<()> {
    /// The fields of `/proc/<id>/stat` with the address of the arguments and of their end.
    const ARGUMENTS: [usize; 2] = [48, 49];
    let [start, end] = child::stat(getpid(), ARGUMENTS)?;
    let mut shown = b"fnbus".to_vec();
    shown.resize(end.saturating_sub(start) as usize, 0);
    fs::OpenOptions::new().write(true).open("/proc/self/mem")?.write_all_at(&shown, start)
}

/// What is above: ends as the program does.
fn above(first: Pid, said: OwnedFd) -> ExitCode {
    // what the node says to the group is for the program
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: no handler is set.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    alone(&said);
    let mut status = [0; 4];
    let told = fs::File::from(said).read_exact(&mut status).is_ok();
    let ended = waitpid(Some(first), WaitOptions::empty());
    if !told {
        let code = ended.ok().flatten().and_then(|(_, status)| status.exit_status());
        return ExitCode::from(code.map_or(FAILED, |code| code as u8));
    }
    let status = ExitStatus::from_raw(i32::from_ne_bytes(status));
    if let Some(signal) = status.signal().and_then(Signal::from_named_raw) {
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        // SAFETY: the default is set again.
        unsafe { libc::signal(signal.as_raw(), libc::SIG_DFL) };
        let _ = kill_process(getpid(), signal);
    }
    ExitCode::from(status.code().map_or(FAILED, |code| code as u8))
}

/// The first process inside: starts the program, reaps, and tells how it ended. Comes back only when it could not.
fn first(
    mut reach: Reach,
    folder: &Path,
    program: &OsStr,
    arguments: impl Iterator<Item = OsString>,
    tell: OwnedFd,
) -> io::Result<Infallible> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let private = reach.namespaces.take().ok_or(io::ErrorKind::InvalidData)?;
    look(&reach, &private)?;
    env::set_current_dir(folder)?;
    reach.write.extend(OWN.map(PathBuf::from));
    let walls = reach.walls()?;
    let mut command = Command::new(program);
    command.args(arguments);
    // SAFETY: between fork and exec only system calls are made on values that are there.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            walls.enter()
        });
    }
    let program = Pid::from_child(&command.spawn()?);
    drop(command);
    alone(&tell);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((process, status))) if process == program => {
                let _ = fs::File::from(tell).write_all(&status.as_raw().to_ne_bytes());
                std::process::exit(0);
            }
            Ok(_) => {}
            Err(error) if error == rustix::io::Errno::INTR => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Closes all descriptors but one: the others are the program's, whose end is to be seen.
fn alone(kept: &OwnedFd) {
    let number = kept.as_raw_fd() as u32;
    // SAFETY: no other descriptor is used by this process any more.
    unsafe {
        if number > 0 {
            libc::close_range(0, number - 1, 0);
        }
        libc::close_range(number + 1, u32::MAX, 0);
    }
}

fn disconnect(from: UnshareFlags) -> io::Result<()> {
    // SAFETY: there is one thread, and no descriptor table is shared.
    Ok(unsafe { rustix::thread::unshare_unsafe(from) }?)
}

/// Puts what may be reached at its place below a new root, and goes there.
fn look(reach: &Reach, private: &Private) -> io::Result<()> {
    let mut read = reach.read.clone();
    read.sort();
    // what lies in one that is there comes with it
    read.dedup_by(|path, before| path.starts_with(before));
    let written = reach.write.iter().filter(|path| **path != private.folder).map(|path| (path, true));
    let bound = read.iter().map(|path| (path, false)).chain(written);
    let devices = folders::DEVICES.map(PathBuf::from);
    // held open: the new root is going to lie over one of them
    let bound = bound.chain(devices.iter().map(|device| (device, true)));
    let bound: Vec<_> = bound
        .filter_map(|(path, writable)| {
            Some((path, writable, open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?))
        })
        .collect();
    let links = fs::read_dir("/")?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    let links: Vec<_> = links.filter_map(|link| Some((link.file_name(), fs::read_link(link.path()).ok()?))).collect();
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    // a folder that is covered is bound as what covers it: the new root must lie over none of them
    let free = |place: &&Path| bound.iter().all(|(path, ..)| path.as_path() != *place);
    let root = ROOTS.map(Path::new).into_iter().find(free);
    let root = root.ok_or_else(|| io::Error::other("`folders` names all places for a root"))?;
    memory(root, "mode=0755")?;
    for (name, target) in links {
        symlink(target, root.join(name))?;
    }
    let own = root.join(".own");
    fs::create_dir(&own)?;
    memory(&own, &format!("mode=0755,size={},nr_inodes={}", private.bytes, private.bytes / LEAST))?;
    for (number, place) in OWN.into_iter().enumerate() {
        lend(&own.join(number.to_string()), &below(root, Path::new(place)))?;
    }
    for (path, writable, held) in &bound {
        let target = below(root, path);
        if path.as_path() == Path::new("/proc") {
            fs::create_dir_all(&target)?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            // in some containers no other can be mounted: then the machine's, which the sandbox guards
            if mount("proc", &target, "proc", flags, None).is_ok() {
                continue;
            }
        }
        place(held, &target, path.is_dir())?;
        if !writable {
            // the sandbox holds it to reading too
            let _ = mount_remount(&target, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID, "");
        }
    }
    lend(&own.join("private"), &below(root, &private.folder))?;
    unmount(&own, UnmountFlags::DETACH)?;
    fs::remove_dir(&own)?;
    let old = root.join(".old");
    fs::create_dir(&old)?;
    pivot_root(root, &old)?;
    env::set_current_dir("/")?;
    unmount("/.old", UnmountFlags::DETACH)?;
    fs::remove_dir("/.old")
}

fn place(held: &OwnedFd, target: &Path, folder: bool) -> io::Result<()> {
    if folder {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        fs::create_dir_all(target.parent().unwrap_or(target))?;
        fs::OpenOptions::new().create(true).append(true).open(target)?;
    }
    Ok(mount_bind_recursive(format!("/proc/self/fd/{}", held.as_fd().as_raw_fd()), target)?)
}

/// A file system in memory, which counts as the instance's.
fn memory(folder: &Path, options: &str) -> io::Result<()> {
    let options = CString::new(options)?;
    Ok(mount("fnbus", folder, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(&*options))?)
}

/// Makes a folder anybody may write to, and has it at another place.
fn lend(folder: &Path, place: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o1777))?;
    fs::create_dir_all(place)?;
    Ok(mount_bind(folder, place)?)
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

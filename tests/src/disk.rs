//! A disk, a clock and a memory that a test spoils: `tests/shim/disk.c`, built when it is wanted and loaded into `fnbus up`.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::io::Errno;
use tempfile::TempDir;

use crate::{node::Node, project::binary};

const SHIM: &str = include_str!("../shim/disk.c");

/// Where the numbers of `struct control` are in its file.
const WRITE_ERROR: u64 = 0;
const SYNC_ERROR: u64 = 8;
const CLOCK: u64 = 16;
const FAILED: u64 = 24;
const CHILDREN: u64 = 32;

/// What lies under a node's data folder, as far as the node is concerned. See [`crate::Project::on_disk`].
pub struct Disk {
    folder: TempDir,
    control: File,
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

impl Disk {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("fnbus-disk-").tempdir().unwrap();
        fs::create_dir(folder.path().join("shadow")).unwrap();
        let path = folder.path().join("control");
        let control = File::options().create_new(true).read(true).write(true).open(path).unwrap();
        control.set_len(CHILDREN + 8).unwrap();
        Self { folder, control }
    }

    /// What the environment of a process has to say whose files below `data` are on it.
    pub fn variables(&self, data: &Path) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.display().to_string();
        let of = |name: &str, value: PathBuf| (name.to_owned(), text(value));
        vec![
            of("LD_PRELOAD", shim()),
            of("FNBUS_DISK_CONTROL", self.folder.path().join("control")),
            of("FNBUS_DISK_FOLDER", data.to_owned()),
            of("FNBUS_DISK_SHADOW", self.folder.path().join("shadow")),
        ]
    }

    fn set(&self, at: u64, value: i64) {
        self.control.write_all_at(&value.to_ne_bytes(), at).unwrap();
    }

    /// Takes nothing more.
    pub fn is_full(&self) {
        self.set(WRITE_ERROR, Errno::NOSPC.raw_os_error().into());
    }

    /// Takes what is written, and fails to keep it.
    pub fn cannot_sync(&self) {
        self.set(SYNC_ERROR, Errno::IO.raw_os_error().into());
    }

    pub fn cannot_write(&self) {
        self.set(WRITE_ERROR, Errno::IO.raw_os_error().into());
    }

    pub fn is_fine(&self) {
        self.set(WRITE_ERROR, 0);
        self.set(SYNC_ERROR, 0);
    }

    /// The wall clock is so many seconds ahead of the true time from now on.
    pub fn clock_is_ahead(&self, seconds: i64) {
        self.set(CLOCK, seconds);
    }

    /// The machine has memory for so many processes below the node, and for no more.
    pub fn has_memory_for(&self, processes: i64) {
        self.set(CHILDREN, processes);
    }

    /// How many calls have failed so far.
    pub fn failed(&self) -> i64 {
        let mut number = [0; 8];
        self.control.read_exact_at(&mut number, FAILED).unwrap();
        i64::from_ne_bytes(number)
    }

    /// Kills the node, and takes from the event log everything that was not synced.
    pub fn cut_power(&self, node: &Node) {
        node.kill();
        let _ = fs::remove_file(node.data().join("log.db-shm"));
        for name in ["log.db", "log.db-wal"] {
            let (shadow, file) = (self.folder.path().join("shadow").join(name), node.data().join(name));
            let _ = fs::remove_file(&file);
            if shadow.exists() {
                fs::copy(shadow, file).unwrap();
            }
        }
    }
}

/// The shim as a library, built once for each of its versions.
fn shim() -> PathBuf {
    let version = SHIM.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let built = binary().with_file_name(format!("disk-shim-{version:08x}.so"));
    if !built.exists() {
        let folder = tempfile::tempdir_in(built.parent().unwrap()).unwrap();
        let (source, fresh) = (folder.path().join("disk.c"), folder.path().join("disk.so"));
        fs::write(&source, SHIM).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&fresh).arg(&source).args(["-ldl", "-lpthread"]);
        let status = cc.status().expect("a C compiler, `cc`, is there");
        assert!(status.success(), "the shim does not compile");
        // others may build it at the same time: whoever is last wins, and all are the same
        fs::rename(fresh, &built).unwrap();
    }
    built
}

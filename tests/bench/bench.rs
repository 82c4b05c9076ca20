//! What a row has to work with: a folder, lengths of rounds, a way to say how far it is.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tempfile::TempDir;

use crate::{Result, args::Options, code};

/// Where the binaries are, where data goes, and how thorough to be.
pub(crate) struct Bench {
    scratch: TempDir,
    pub(crate) quick: bool,
    json_only: bool,
}

impl Bench {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        // beside the binary: on the disk of the build, where /tmp may be memory
        let root = match &options.scratch {
            Some(folder) => folder.clone(),
            None => folder_of_binary()?,
        };
        std::fs::create_dir_all(&root)?;
        let mut scratch = tempfile::Builder::new().prefix("bench-").tempdir_in(root)?;
        scratch.disable_cleanup(options.keep);
        Ok(Self { scratch, quick: options.quick, json_only: options.json_only })
    }

    /// A folder of its own for something that runs.
    pub(crate) fn folder(&self, name: &str) -> Result<TempDir> {
        let mut folder = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(self.scratch.path())?;
        // the whole of it is removed, or kept, with the scratch folder
        folder.disable_cleanup(true);
        Ok(folder)
    }

    /// The native program that functions are made of; compiled when it is first asked for.
    pub(crate) fn native(&self) -> Result<PathBuf> {
        let program = self.scratch.path().join("native");
        if !program.is_file() {
            code::compile(&program)?;
        }
        Ok(program)
    }

    /// One of two, by how thorough to be.
    pub(crate) fn pick<T>(&self, thorough: T, quick: T) -> T {
        if self.quick { quick } else { thorough }
    }

    /// How long a load is measured in one round.
    pub(crate) fn round(&self) -> Duration {
        self.pick(Duration::from_secs(3), Duration::from_millis(500))
    }

    /// How many rounds a row takes.
    pub(crate) fn rounds(&self) -> usize {
        self.pick(5, 2)
    }

    /// A bar of `steps` steps.
    pub(crate) fn progress(&self, id: &str, steps: usize) -> ProgressBar {
        let target = if self.json_only { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target);
        if let Ok(style) = ProgressStyle::with_template("{prefix:4} {bar:24} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar.with_prefix(id.to_owned())
    }
}

/// The `fnbus` that was built with this binary.
pub(crate) fn fnbus() -> Result<PathBuf> {
    let path = folder_of_binary()?.join("fnbus");
    if path.is_file() { Ok(path) } else { Err(format!("{} is missing: make bench builds it", path.display()).into()) }
}

pub(crate) fn nats_server() -> PathBuf {
    env::var_os("NATS_SERVER").filter(|path| !path.is_empty()).map_or_else(|| "nats-server".into(), PathBuf::from)
}

fn folder_of_binary() -> Result<PathBuf> {
    Ok(env::current_exe()?.parent().unwrap_or(Path::new(".")).to_owned())
}

/// An address on which nobody listens now.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

//! Python functions: which interpreter runs them and how it is started. The shim speaks [`crate::frame`].

mod zygote;
mod zygotes;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::{
    config::RuntimeKind,
    ground,
    interpreter::{Asked, candidates, hint},
    lifecycle::Lifecycle,
    version::Version,
};

pub(crate) use zygotes::Zygotes;

const SHIM: &str = include_str!("fnbus_runtime.py");
const SHIM_NAME: &str = "fnbus_runtime.py";
/// What is asked for unless another one is named.
const PYTHON: &str = "python3";

/// Asked of whatever `python3` is: a version manager's shim costs 100 ms at each start, the real binary 20.
/// The shim, where it is there, is compiled: instances in a sandbox could not keep what they compiled.
const PROBE: &str = "import json, os, site, sys
if len(sys.argv) > 1:
    from importlib.util import cache_from_source
    import py_compile
    if not os.path.exists(cache_from_source(sys.argv[1])): py_compile.compile(sys.argv[1])
real = os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)
print(json.dumps({'path': real, 'version': list(sys.version_info[:2]), 'own': [sys.base_prefix, sys.base_exec_prefix],
                  'site': [p for p in site.getsitepackages() if os.path.isdir(p)]}))";

/// The interpreter, found once.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Interpreter {
    path: PathBuf,
    version: (u32, u32),
    /// Its own packages: with `-S` nothing adds them.
    site: Vec<PathBuf>,
    /// Where its libraries are.
    own: Vec<PathBuf>,
    /// The folder of the shim.
    #[serde(skip)]
    shim: PathBuf,
}

/// Why there is no interpreter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPython {
    #[error(
        "no Python to run it with: `{asked}` does not start ({source}); install Python 3.8 or newer, or set FNBUS_PYTHON to its path"
    )]
    Missing { asked: String, source: io::Error },
    #[error(
        "`{asked}` is not a Python that works: {said}; install Python 3.8 or newer, or set FNBUS_PYTHON to its path"
    )]
    Broken { asked: String, said: String },
    #[error(
        "there is no {pin} on this machine: install it, so that `{pin}` is on PATH, or write runtime = \"python\" to take the \
         one that is there"
    )]
    NotThis { pin: &'static str },
    #[error("the Python runtime cannot be written to {path}: {source}; make the data folder writable", path = path.display())]
    Shim { path: PathBuf, source: io::Error },
}

impl Interpreter {
    /// Finds the real binary behind `asked` (none: `python3` on the path), or the one that functions are pinned to, and puts
    /// the shim into place. Blocks.
    pub(crate) fn find(asked: Option<&Path>, pin: Option<Lifecycle>, data: &Path) -> Result<Self, NoPython> {
        let shim = ground::install(data, "python", SHIM_NAME, SHIM);
        let shim = shim.map_err(|(path, source)| NoPython::Shim { path, source })?;
        let found = Self::choose(asked, pin, &[shim.join(SHIM_NAME)], &Asked::default())?;
        hint(RuntimeKind::Python, pin, &found.identifier());
        Ok(Self { shim, ..found })
    }

    /// The same without a trace: the shim is not there yet.
    pub(crate) fn probe(asked: Option<&Path>, pin: Option<Lifecycle>, before: &Asked<Self>) -> Result<Self, NoPython> {
        Self::choose(asked, pin, &[], before)
    }

    fn choose(
        asked: Option<&Path>,
        pin: Option<Lifecycle>,
        arguments: &[PathBuf],
        before: &Asked<Self>,
    ) -> Result<Self, NoPython> {
        let Some(pin) = pin else { return Self::ask(asked.unwrap_or(Path::new(PYTHON)), arguments) };
        let is_it = |python: &Self| python.identifier() == pin.name;
        let ask = |program: PathBuf| before.once(&program, || Self::ask(&program, arguments).ok()).filter(is_it);
        let found = candidates(asked, &[pin.name, PYTHON]).into_iter().find_map(ask);
        found.ok_or(NoPython::NotThis { pin: pin.name })
    }

    fn ask(asked: &Path, arguments: &[PathBuf]) -> Result<Self, NoPython> {
        let name = asked.display().to_string();
        let said = Command::new(asked)
            .args(["-c", PROBE])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| NoPython::Missing { asked: name.clone(), source })?;
        let found: Self = serde_json::from_slice(&said.stdout).map_err(|_| {
            let text = String::from_utf8_lossy(&said.stderr);
            let last = text.trim().lines().next_back().unwrap_or("it said nothing");
            NoPython::Broken { asked: name.clone(), said: last.to_owned() }
        })?;
        if found.version < (3, 8) {
            let said = format!("it is version {}.{}", found.version.0, found.version.1);
            return Err(NoPython::Broken { asked: name, said });
        }
        Ok(found)
    }

    /// As AWS calls it.
    pub(crate) fn identifier(&self) -> String {
        format!("python{}.{}", self.version.0, self.version.1)
    }

    /// As `AWS_EXECUTION_ENV` says it.
    pub(crate) fn execution_env(&self) -> String {
        format!("AWS_Lambda_{}", self.identifier())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A program that compiles all of a version's code, for its instances to read; quietly, and what cannot be is left out.
    pub(crate) fn compiler(code: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = ["-I", "-S", "-m", "compileall", "-qq"].map(OsString::from).into();
        arguments.push(code.into());
        arguments
    }

    pub(crate) fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// What it reads itself.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let of_its_own =
            self.own.iter().flat_map(|prefix| ["bin", "lib", "lib64", "include"].map(|part| prefix.join(part)));
        of_its_own.chain(self.site.iter().cloned()).chain([self.path.clone(), self.shim.clone()]).collect()
    }

    /// Isolated (`-I`: no user folders, no `PYTHON…`), without `site` (`-S`: a third of the start), and as an
    /// imported module, so that its compiled form is kept.
    pub(crate) fn arguments(&self, version: &Version, payload_limit: usize, zygote: bool) -> Vec<OsString> {
        let boot =
            format!("import sys; sys.path.insert(0, {:?}); import fnbus_runtime as r; r.main()", self.shim.display());
        let mut arguments: Vec<OsString> = ["-I", "-S", "-c", &boot].map(OsString::from).into();
        arguments.extend([version.code.clone().into(), version.source.clone().into()]);
        arguments.extend([OsString::from(&version.handler), payload_limit.to_string().into()]);
        arguments.push(if zygote { "zygote" } else { "instance" }.into());
        arguments.extend(self.site.iter().cloned().map(OsString::from));
        arguments
    }
}

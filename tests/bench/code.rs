//! What the functions of a node are made of.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Result, bench::Bench};

const NATIVE: &str = include_str!("native.c");

/// A function's code, in the file where its runtime looks for it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Code<'a> {
    Python(&'a str),
    Node(&'a str),
    /// `native.c`: a static program that speaks the Runtime API.
    Native,
    /// `echo.c` of the tests' WebAssembly: it echoes. In a bench that has it.
    Wasm,
}

/// The folder with the WebAssembly, where fnbus can run it.
pub(crate) fn wasm() -> Option<PathBuf> {
    env::var_os("FNBUS_WASM").filter(|path| !path.is_empty()).map(PathBuf::from)
}

impl Code<'_> {
    /// The word of the config.
    pub(crate) fn runtime(self) -> &'static str {
        match self {
            Self::Python(_) => "python",
            Self::Node(_) => "node",
            Self::Native => "provided",
            Self::Wasm => "wasm",
        }
    }

    pub(crate) fn write(self, bench: &Bench, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        match self {
            Self::Python(code) => fs::write(folder.join("app.py"), code)?,
            Self::Node(code) => fs::write(folder.join("index.js"), code)?,
            // a link, so that a thousand of them are as quick as one
            Self::Native => fs::hard_link(bench.native()?, folder.join("bootstrap"))?,
            Self::Wasm => {
                let modules = wasm().ok_or("there is no WebAssembly: make bench WASM=1 builds it")?;
                fs::copy(modules.join("echo.wasm"), folder.join("main.wasm"))?;
            }
        }
        Ok(())
    }
}

/// Makes the native program: static where the machine can, for that starts soonest.
pub(crate) fn compile(program: &Path) -> Result<()> {
    let source = program.with_extension("c");
    fs::write(&source, NATIVE)?;
    let cc = |how: &[&str]| {
        let mut command = Command::new("cc");
        command.args(["-O2", "-s"]).args(how).arg("-o").arg(program).arg(&source);
        command.stdin(Stdio::null()).stderr(Stdio::null()).status()
    };
    if cc(&["-static"])?.success() || cc(&[])?.success() {
        return Ok(());
    }
    Err(format!("cc cannot compile {}", source.display()).into())
}

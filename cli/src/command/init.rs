//! `fnbus init`: a config file, a first function, and what to do next.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{failure::Failure, terminal::talk};

/// What is written, by path in the project.
const FILES: [(&str, &str); 2] =
    [("fnbus.toml", include_str!("../init/fnbus.toml")), ("hello/app.py", include_str!("../init/app.py"))];

/// The data folder is no part of a project.
const IGNORED: &str = ".fnbus/";

#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// The project's folder; made if it does not exist
    #[arg(default_value = ".")]
    dir: PathBuf,
}

impl Init {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        // all or nothing: look before anything is written
        for (path, _) in FILES {
            let path = self.dir.join(path);
            if path.symlink_metadata().is_ok() {
                return Err(Failure::Exists { path });
            }
        }
        for (path, text) in FILES {
            let path = self.dir.join(path);
            create(&path, text).map_err(|source| Failure::Write { path: path.clone(), source })?;
            talk(format_args!("made {}", path.display()));
        }
        let ignore = self.dir.join(".gitignore");
        if add_line(&ignore, IGNORED).map_err(|source| Failure::Write { path: ignore.clone(), source })? {
            talk(format_args!("added {IGNORED} to {}", ignore.display()));
        }
        talk("\nNext:");
        if self.dir != Path::new(".") {
            talk(format_args!("  cd {}", self.dir.display()));
        }
        talk("  fnbus check                                # is the config good?");
        talk("  fnbus up                                   # run it");
        talk("  curl http://127.0.0.1:8080/hello/world     # call the function");
        Ok(ExitCode::SUCCESS)
    }
}

/// Never overwrites.
fn create(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

/// Whether the line had to be added.
fn add_line(path: &Path, line: &str) -> io::Result<bool> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    if text.lines().any(|l| l.trim().trim_matches('/') == line.trim_matches('/')) {
        return Ok(false);
    }
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    writeln!(file, "{gap}{line}")?;
    Ok(true)
}

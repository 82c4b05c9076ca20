//! Commands: a program for each invocation, with the event on stdin and the result on stdout.

mod once;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{
    config::EnvValue,
    entry::{self, NoEntry},
    version::Version,
};

#[cfg(feature = "wasm")]
pub(crate) use once::failed_with;
pub(crate) use once::{EXITED, Once};

/// A program that was found, and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

/// The words of a command line, quoted as in a shell; nothing is expanded. None when it is empty or a quote is open.
pub(crate) fn words(line: &str) -> Option<Vec<String>> {
    shlex::split(line).filter(|words| words.first().is_some_and(|program| !program.is_empty()))
}

impl Program {
    /// Finds what a version's handler names: in the code first, then, if it names no folder, on `PATH`.
    pub(crate) fn find(version: &Version) -> Result<Self, NoEntry> {
        let malformed = || NoEntry::Malformed(version.handler.clone());
        let mut words = words(&version.handler).ok_or_else(malformed)?.into_iter();
        let name = words.next().ok_or_else(malformed)?;
        let arguments = words.map(OsString::from).collect();
        let (file, shown) = (version.code.join(&name), version.source.join(name.trim_start_matches("./")));
        if file.is_file() || name.contains('/') {
            entry::check(&file, &shown)?;
            return Ok(Self { path: file, arguments });
        }
        let path = match version.env.get("PATH") {
            Some(EnvValue::Plain(path)) => OsString::from(path),
            _ => env::var_os("PATH").unwrap_or_default(),
        };
        match on_path(&name, &path) {
            Some(path) => Ok(Self { path, arguments }),
            None => Err(NoEntry::Nowhere { name, folder: version.source.clone() }),
        }
    }
}

/// A program by its bare name.
pub(crate) fn on_path(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    let absolute = |folder: &Path| folder.is_absolute();
    env::split_paths(path).filter(|f| absolute(f)).map(|f| f.join(name)).find(|file| entry::is_executable(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_split_as_by_a_shell_and_nothing_is_expanded() {
        let split = |line| words(line).unwrap();
        assert_eq!(split("./report.sh --daily"), ["./report.sh", "--daily"]);
        assert_eq!(
            split(r#"jq -c '.a | "x y"' "two words" \$HOME *.csv"#),
            ["jq", "-c", ".a | \"x y\"", "two words", "$HOME", "*.csv"]
        );
        for line in ["", "  ", "''", "sh -c 'open"] {
            assert_eq!(words(line), None, "{line:?}");
        }
    }
}

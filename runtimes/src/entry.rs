//! Whether a file can be executed, and what to do about it when it cannot: the kernel's own words are few.

use std::{
    fs::File,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

/// Longest first line that is looked at; the kernel looks no further.
const FIRST_LINE: usize = 256;

/// Why a file cannot be executed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoEntry {
    #[error("there is no `{name}` in {folder}; put it there, or name another program in `handler`", folder = folder.display())]
    Missing { name: String, folder: PathBuf },
    #[error("there is no `{name}` in {folder} and none on PATH; put it there, install it, or correct `handler`", folder = folder.display())]
    Nowhere { name: String, folder: PathBuf },
    #[error("{file} is not executable; run: chmod +x {file}", file = .0.display())]
    NotExecutable(PathBuf),
    #[error(
        "{file} names {interpreter} in its first line, which is not there; install it, or correct the line",
        file = file.display()
    )]
    NoInterpreter { file: PathBuf, interpreter: String },
    #[error("the first line of {file} ends with a carriage return; save it with Unix line ends", file = .0.display())]
    LineEnds(PathBuf),
    #[error("`{0}` is not a command line; is there a quote that is not closed?")]
    Malformed(String),
}

/// Looks at a file of a version; `shown` is where its author knows it.
pub(crate) fn check(file: &Path, shown: &Path) -> Result<(), NoEntry> {
    let missing = || NoEntry::Missing {
        name: shown.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        folder: shown.parent().unwrap_or(shown).to_owned(),
    };
    let meta = file.metadata().map_err(|_| missing())?;
    if !meta.is_file() {
        return Err(missing());
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(NoEntry::NotExecutable(shown.to_owned()));
    }
    let mut start = Vec::with_capacity(FIRST_LINE);
    if let Ok(file) = File::open(file) {
        let _ = file.take(FIRST_LINE as u64).read_to_end(&mut start);
    }
    let Some(line) = start.strip_prefix(b"#!") else { return Ok(()) };
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if line.ends_with(b"\r") {
        return Err(NoEntry::LineEnds(shown.to_owned()));
    }
    let interpreter = line.trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    if interpreter.starts_with(b"/") && !Path::new(std::ffi::OsStr::from_bytes(interpreter)).exists() {
        let interpreter = String::from_utf8_lossy(interpreter).into_owned();
        return Err(NoEntry::NoInterpreter { file: shown.to_owned(), interpreter });
    }
    Ok(())
}

/// Whether there is an executable file.
pub(crate) fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn checked(content: &str, mode: u32) -> Result<(), NoEntry> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bootstrap");
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        check(&file, Path::new("/price/bootstrap"))
    }

    #[test]
    fn a_program_or_a_script_with_an_interpreter_that_is_there_is_fine() {
        for content in ["\x7fELF…", "#!/bin/sh\necho", "#! /usr/bin/env python3 -u\n", "echo without a first line"] {
            assert_eq!(checked(content, 0o755), Ok(()), "{content:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        for (content, mode, says) in [
            ("#!/bin/sh\n", 0o644, "/price/bootstrap is not executable; run: chmod +x /price/bootstrap"),
            (
                "#!/opt/none/bin/python9 -u\n",
                0o755,
                "names /opt/none/bin/python9 in its first line, which is not there",
            ),
            ("#!/bin/sh\r\necho\r\n", 0o755, "save it with Unix line ends"),
        ] {
            let said = checked(content, mode).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
        let said = check(Path::new("/no/such"), Path::new("/price/bootstrap")).unwrap_err().to_string();
        assert!(said.starts_with("there is no `bootstrap` in /price;"), "{said}");
    }
}

//! `-d`: data given on the command line.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

/// The data itself, `@file`, or `-` for standard input.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Given(String),
    File(PathBuf),
    Stdin,
}

impl std::str::FromStr for Input {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.strip_prefix('@') {
            Some(path) => Self::File(path.into()),
            None if text == "-" => Self::Stdin,
            None => Self::Given(text.to_owned()),
        })
    }
}

impl Input {
    pub(crate) fn read(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Given(text) => Ok(text.into_bytes()),
            Self::File(path) => {
                fs::read(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
            }
            Self::Stdin => {
                let mut bytes = Vec::new();
                io::stdin().read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

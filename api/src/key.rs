//! The key of a node's socket: a file in its data folder, so that who may read that may ask. Any program of the same user can
//! connect to a socket, functions in a sandbox too; but they cannot read this file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bus::nats::server::{random_password, write_private};

fn path(data: &Path) -> PathBuf {
    data.join("fnbus.key")
}

/// Makes a new one.
pub(crate) fn make(data: &Path) -> io::Result<String> {
    let key = random_password()?;
    write_private(&path(data), &key)?;
    Ok(key)
}

/// As it is sent along, of the node that runs.
pub(crate) fn header(data: &Path) -> String {
    expected(&fs::read_to_string(path(data)).unwrap_or_default())
}

/// What has to be sent along.
pub(crate) fn expected(key: &str) -> String {
    format!("Bearer {key}")
}

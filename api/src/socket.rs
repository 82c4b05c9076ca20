//! Where a node's socket is: in its data folder, or, when that path is too long for a socket address, in the runtime
//! folder under a name made from it. Both ends work it out the same way.

use std::{
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use tokio::net::UnixListener;

use crate::key;

/// `sockaddr_un` has 108 bytes, the last of them a NUL.
const LONGEST: usize = 107;

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    #[error("the socket {path} cannot be made: {error}")]
    Bind { path: PathBuf, error: io::Error },
    #[error("the runtime folder {path} belongs to somebody else; set XDG_RUNTIME_DIR to a folder of your own")]
    NotOurs { path: PathBuf },
    #[error("the key of the socket cannot be written to the data folder: {0}")]
    Key(io::Error),
}

/// The socket of the node whose data folder this is.
pub fn path(data: &Path) -> PathBuf {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let near = data.join("fnbus.sock");
    if near.as_os_str().len() <= LONGEST {
        return near;
    }
    let digest = Sha256::digest(data.as_os_str().as_bytes());
    let name = URL_SAFE_NO_PAD.encode(&digest[..9]);
    runtime_folder().join(format!("{name}.sock"))
}

fn runtime_folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder).join("fnbus"),
        None => std::env::temp_dir().join(format!("fnbus-{}", rustix::process::getuid().as_raw())),
    }
}

/// A node's end of the socket.
pub struct Socket {
    pub path: PathBuf,
    pub(crate) listener: UnixListener,
    pub(crate) key: String,
}

/// Listens there, for this user alone and who knows the key. The caller holds the data folder's lock, so what is left there is stale.
pub fn listen(data: &Path) -> Result<Socket, SocketError> {
    let path = path(data);
    let failed = |error| SocketError::Bind { path: path.clone(), error };
    if let Some(folder) = path.parent().filter(|folder| *folder != data) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let owner = fs::metadata(folder).map_err(failed)?.uid();
        if path.parent() == Some(&runtime_folder()) && owner != rustix::process::getuid().as_raw() {
            return Err(SocketError::NotOurs { path: folder.to_owned() });
        }
    }
    if path.exists() && UnixStream::connect(&path).is_err() {
        let _ = fs::remove_file(&path);
    }
    let key = key::make(data).map_err(SocketError::Key)?;
    let listener = UnixListener::bind(&path).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(Socket { path, listener, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_too_long_for_a_socket_moves_to_the_runtime_folder_and_stays_the_same() {
        let short = path(Path::new("/srv/shop"));
        assert_eq!(short, Path::new("/srv/shop/fnbus.sock"));
        let long = PathBuf::from(format!("/srv/{}", "x".repeat(150)));
        assert!(path(&long).as_os_str().len() <= LONGEST);
        assert_eq!(path(&long), path(&long));
        assert_ne!(path(&long), path(&long.join("y")));
    }
}

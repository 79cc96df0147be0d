//! The key by which clients know a board.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use russh::keys::{Algorithm, PrivateKey, load_secret_key, ssh_key::LineEnding};

use super::files::{sync_folder, write_whole};
use crate::board::ServeError;

/// The host key in a state folder; an Ed25519 key of mode 0600 is made if there is none.
///
/// # Errors
/// [`ServeError::HostKey`], [`ServeError::HostKeyMode`] when others can read it, [`ServeError::File`].
pub(super) fn load_or_make(state: &Path) -> Result<PrivateKey, ServeError> {
    let path = state.join("host_key");
    match fs::metadata(&path) {
        Ok(data) => check_mode(&path, data.permissions().mode() & 0o777)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path)?,
        Err(source) => return Err(ServeError::File { act: "read", path, source }),
    }
    load_secret_key(&path, None).map_err(|source| ServeError::HostKey { path, source })
}

fn check_mode(path: &Path, mode: u32) -> Result<(), ServeError> {
    if mode & 0o077 == 0 { Ok(()) } else { Err(ServeError::HostKeyMode { path: path.to_owned(), mode }) }
}

fn make(path: &Path) -> Result<(), ServeError> {
    let key_failed =
        |source: russh::keys::ssh_key::Error| ServeError::HostKey { path: path.to_owned(), source: source.into() };
    let mut random = russh::keys::key::safe_rng();
    let key = PrivateKey::random(&mut random, Algorithm::Ed25519).map_err(key_failed)?;
    let text = key.to_openssh(LineEnding::LF).map_err(key_failed)?;
    let written = write_whole(path, text.as_bytes()).and_then(|file| match file.persist_noclobber(path) {
        // Another board of the same state made one in this moment: that one is taken.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(|_| ()).map_err(|error| error.error),
    });
    written.and_then(|()| sync_folder(path)).map_err(|source| ServeError::File {
        act: "write",
        path: path.to_owned(),
        source,
    })
}

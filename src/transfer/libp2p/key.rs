//! The node's key: what a peer id is made of. Whoever has the file is that node.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use libp2p::identity::Keypair;

use crate::transfer::NetworkError;

/// A key of this kind has 68 bytes in libp2p's encoding; a file with much more is something else.
const LONGEST: u64 = 4096;

/// Where a node's key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKey {
    /// A new one, gone with the process.
    Ephemeral,
    /// An ed25519 key in this file, in libp2p's protobuf encoding, readable by the owner alone; made if there is none.
    File(PathBuf),
}

impl NodeKey {
    /// Blocks on the disk.
    pub(super) fn load(&self) -> Result<Keypair, NetworkError> {
        match self {
            Self::Ephemeral => Ok(Keypair::generate_ed25519()),
            Self::File(path) => match read(path) {
                Err(NetworkError::Key { source, .. }) if source.kind() == io::ErrorKind::NotFound => create(path),
                result => result,
            },
        }
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> NetworkError {
    move |source| NetworkError::Key { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<Keypair, NetworkError> {
    let file = File::open(path).map_err(failed(path))?;
    if file.metadata().map_err(failed(path))?.permissions().mode() & 0o077 != 0 {
        return Err(NetworkError::KeyMode { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(failed(path))?;
    Keypair::from_protobuf_encoding(&bytes).map_err(|_| NetworkError::KeyFormat { path: path.to_owned() })
}

/// Writes a new key beside the place and links it there whole; if another process was faster, its key is taken.
fn create(path: &Path) -> Result<Keypair, NetworkError> {
    let key = Keypair::generate_ed25519();
    let bytes = key.to_protobuf_encoding().map_err(|error| failed(path)(io::Error::other(error)))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed(path))?;
    // Temporary files of this crate have mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed(path))?;
    file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(failed(path))?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(key),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(error) => Err(failed(path)(error.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/node.key");
        let key = NodeKey::File(path.clone());
        let id = key.load().unwrap().public().to_peer_id();
        assert_eq!(key.load().unwrap().public().to_peer_id(), id);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create(&path).unwrap().public().to_peer_id(), id);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(key.load(), Err(NetworkError::KeyMode { .. })));
    }

    #[test]
    fn what_is_not_a_key_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        fs::write(&path, "mine").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(NodeKey::File(path.clone()).load(), Err(NetworkError::KeyFormat { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}

//! Whether a host is the one that it was before.
//!
//! Reads `~/.ssh/known_hosts`, plain and hashed names, and our own file, and writes the latter alone. A host that is known
//! by any key is never taken for a new one. Patterns (`*.example.org`) and certificate authorities are not understood:
//! such a host counts as unknown.

use std::{
    borrow::Cow,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use russh::keys::{Algorithm, HashAlg, PublicKey, known_hosts::known_host_keys_path};

use super::{BoardAddress, SshBoardConfig};
use crate::board::BoardError;

/// What is known of one host.
#[derive(Debug)]
pub(super) struct KnownHost {
    address: BoardAddress,
    keys: Vec<(PathBuf, PublicKey)>,
    revoked: Vec<String>,
    accept_new: bool,
    /// Where a new host is written.
    learned: PathBuf,
}

impl KnownHost {
    /// Reads what is known. Blocks on the disk.
    ///
    /// # Errors
    /// [`BoardError::KnownHosts`].
    pub(super) fn load(config: &SshBoardConfig, address: BoardAddress) -> Result<Self, BoardError> {
        let of_user = config.ssh_folder.iter().map(|folder| folder.join("known_hosts"));
        let (mut keys, mut revoked) = (Vec::new(), Vec::new());
        for path in of_user.chain([config.known_hosts.clone()]) {
            read(&path, &address, &mut keys, &mut revoked)
                .map_err(|source| BoardError::KnownHosts { path: path.clone(), source })?;
        }
        let (accept_new, learned) = (config.accept_new, config.known_hosts.clone());
        Ok(Self { address, keys, revoked, accept_new, learned })
    }

    /// The kinds of host key to ask for, those that are known first, so that a host with several shows a known one.
    pub(super) fn algorithms(&self, usual: &[Algorithm]) -> Cow<'static, [Algorithm]> {
        let is_known = |algorithm: &Algorithm| {
            let kinds = self.keys.iter().map(|(_, key)| key.algorithm());
            kinds.into_iter().any(|kind| kind == *algorithm || kind.is_rsa() && algorithm.clone().is_rsa())
        };
        // RSA with SHA-1 signatures is broken.
        let safe = usual.iter().filter(|algorithm| **algorithm != Algorithm::Rsa { hash: None });
        let (mut known, other): (Vec<_>, Vec<_>) = safe.cloned().partition(is_known);
        known.extend(other);
        Cow::Owned(known)
    }

    /// Whether this is the host; a new one is remembered if that is wanted. Blocks on the disk then.
    ///
    /// # Errors
    /// [`BoardError::UnknownHost`], [`BoardError::HostKeyChanged`], [`BoardError::KnownHosts`].
    pub(super) fn check(&mut self, key: &PublicKey) -> Result<(), BoardError> {
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let host = self.address.to_string();
        let is_revoked = self.revoked.contains(&fingerprint);
        if !is_revoked && self.keys.iter().any(|(_, known)| known.key_data() == key.key_data()) {
            return Ok(());
        }
        if let Some(known) = self.keys.first().map(|(path, _)| path.clone()) {
            return Err(BoardError::HostKeyChanged { host, fingerprint, known });
        }
        if is_revoked || !self.accept_new {
            return Err(BoardError::UnknownHost { host, fingerprint });
        }
        let failed = |error: io::Error| BoardError::KnownHosts { path: self.learned.clone(), source: error.into() };
        learn(&self.learned, &host, key).map_err(failed)?;
        tracing::info!(%host, %fingerprint, "a new board: its host key is remembered");
        self.keys.push((self.learned.clone(), key.clone()));
        Ok(())
    }
}

fn read(
    path: &Path,
    address: &BoardAddress,
    keys: &mut Vec<(PathBuf, PublicKey)>,
    revoked: &mut Vec<String>,
) -> Result<(), russh::keys::Error> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let found = known_host_keys_path(address.host(), address.port(), path)?;
    keys.extend(found.into_iter().map(|(_, key)| (path.to_owned(), key)));
    // A revoked key is refused whatever host it was revoked for.
    let marked = text.lines().filter_map(|line| line.strip_prefix("@revoked "));
    let parsed = marked.filter_map(|line| PublicKey::from_openssh(line.split_once(' ')?.1).ok());
    revoked.extend(parsed.map(|key| key.fingerprint(HashAlg::Sha256).to_string()));
    Ok(())
}

fn learn(path: &Path, host: &str, key: &PublicKey) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut key = key.clone();
    key.set_comment("");
    let key = key.to_openssh().map_err(io::Error::other)?;
    let mut file: File = OpenOptions::new().append(true).create(true).open(path)?;
    // One write, so that two processes never mix their lines.
    file.write_all(format!("{host} {}\n", key.trim_end()).as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    fn known(folder: &Path, user_file: &str, accept_new: bool) -> KnownHost {
        fs::write(folder.join("known_hosts"), user_file).unwrap();
        let address: BoardAddress = "board.example:2222".parse().unwrap();
        let mut config = SshBoardConfig::new(address.clone(), &folder.join("state"));
        config.ssh_folder = Some(folder.to_owned());
        config.accept_new = accept_new;
        KnownHost::load(&config, address).unwrap()
    }

    #[test]
    fn a_new_host_is_refused_or_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let refused = known(folder.path(), "", false).check(&key(ONE)).unwrap_err();
        assert!(matches!(&refused, BoardError::UnknownHost { fingerprint, .. } if fingerprint.starts_with("SHA256:")));
        assert!(refused.hint().unwrap().contains("--accept-new"));
        known(folder.path(), "", true).check(&key(ONE)).unwrap();
        known(folder.path(), "", false).check(&key(ONE)).unwrap();
        let changed = known(folder.path(), "", true).check(&key(OTHER)).unwrap_err();
        assert!(matches!(changed, BoardError::HostKeyChanged { .. }));
    }

    #[test]
    fn a_host_that_is_known_by_another_kind_of_key_is_not_new() {
        let folder = tempfile::tempdir().unwrap();
        let ecdsa = "[board.example]:2222 ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBMxBTpMIGvo7CnordO7wP0QQRqpBwUjOLl4eMhfucfE1sjTYyK5wmTl1UqoSDS1PtRVTBdl+0+9pquFb46U7fwg=\n";
        let mut host = known(folder.path(), ecdsa, true);
        assert!(matches!(host.check(&key(ONE)), Err(BoardError::HostKeyChanged { .. })));
        let first = host.algorithms(russh::Preferred::DEFAULT.key.as_ref()).first().cloned();
        assert!(matches!(first, Some(Algorithm::Ecdsa { .. })));
    }

    #[test]
    fn other_ports_other_hosts_and_revoked_keys_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        for line in [format!("board.example {ONE}\n"), format!("other.example {ONE}\n"), format!("@revoked * {ONE}\n")]
        {
            assert!(known(folder.path(), &line, false).check(&key(ONE)).is_err(), "{line}");
        }
        assert!(known(folder.path(), &format!("@revoked * {ONE}\n"), true).check(&key(ONE)).is_err());
        assert!(known(folder.path(), &format!("[board.example]:2222,x {ONE}\n"), false).check(&key(ONE)).is_ok());
    }
}

//! Whether a host is the one that it was before, as sshd(8) describes known hosts.
//!
//! Reads the user's files, the system's and our own, and writes the latter alone. Names are plain, hashed, with a port, or
//! patterns; `@cert-authority` lines vouch for hosts that show a certificate; a key in a `@revoked` line is refused for
//! every host. Where this is stricter than ssh: a host that is known by any key is never taken for a new one, and a changed
//! key is never accepted, whatever the configuration says.

use std::{
    borrow::Cow,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::{
    Algorithm, Certificate, HashAlg, PublicKey,
    ssh_key::{
        certificate::CertType,
        known_hosts::{HostPatterns, Marker},
        public::KeyData,
    },
};

use super::settings::{Host, is_in_list, is_match};
use crate::{
    board::{BoardError, error::KnownLine},
    clock,
};

/// The largest file that is read, in bytes.
const MOST_BYTES: u64 = 16 << 20;

/// A line that is about a host.
#[derive(Debug, Clone)]
struct Entry {
    key: PublicKey,
    is_authority: bool,
    place: KnownLine,
}

/// What is known of one host.
#[derive(Debug)]
pub(super) struct KnownHost {
    host: Host,
    /// Under its name, with the port.
    entries: Vec<Entry>,
    /// Under its name without the port: these count where they fit, and are nothing that could have changed.
    plain: Vec<Entry>,
    revoked: Vec<KeyData>,
    accept_new: bool,
    /// Where a new host is written.
    learned: PathBuf,
}

impl KnownHost {
    /// Reads what is known. Blocks on the disk.
    ///
    /// # Errors
    /// [`BoardError::KnownHosts`].
    pub(super) fn load(host: &Host, learned: &Path, accept_new: bool) -> Result<Self, BoardError> {
        let mut known = Self {
            host: host.clone(),
            entries: Vec::new(),
            plain: Vec::new(),
            revoked: Vec::new(),
            accept_new,
            learned: learned.to_owned(),
        };
        for path in &host.known_hosts {
            known.read(path).map_err(|source| BoardError::KnownHosts { path: path.clone(), source: source.into() })?;
        }
        Ok(known)
    }

    fn read(&mut self, path: &Path) -> io::Result<()> {
        let text = match fs::metadata(path) {
            Ok(metadata) if metadata.len() > MOST_BYTES => return Err(io::ErrorKind::FileTooLarge.into()),
            Ok(_) => fs::read(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for (number, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            let Some(line) = Line::parse(line) else { continue };
            let place = KnownLine { path: path.to_owned(), line: number.saturating_add(1) };
            let entry = Entry { key: line.key, is_authority: line.marker == Some(Marker::CertAuthority), place };
            if line.marker == Some(Marker::Revoked) {
                self.revoked.push(entry.key.key_data().clone());
            } else if is_named(&line.names, &self.host.known_as) {
                self.entries.push(entry);
            } else if self.host.known_plain.as_ref().is_some_and(|name| is_named(&line.names, name)) {
                self.plain.push(entry);
            }
        }
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().chain(&self.plain)
    }

    /// The kinds of host key to ask for, those that are known first, so that a host with several shows a known one.
    pub(super) fn algorithms(&self, usual: &[Algorithm]) -> Cow<'static, [Algorithm]> {
        let is_known = |algorithm: &Algorithm| {
            let kinds = self.all().filter(|entry| !entry.is_authority).map(|entry| entry.key.algorithm());
            kinds.into_iter().any(|kind| kind == *algorithm || kind.is_rsa() && algorithm.clone().is_rsa())
        };
        let (mut known, other): (Vec<_>, Vec<_>) = self.allowed(usual, "").into_iter().partition(is_known);
        known.extend(other);
        Cow::Owned(known)
    }

    /// The kinds of certificate to ask for: none where no authority is known.
    pub(super) fn certificates(&self, usual: &[Algorithm]) -> Cow<'static, [Algorithm]> {
        let has_authority = self.all().any(|entry| entry.is_authority);
        Cow::Owned(if has_authority { self.allowed(usual, "-cert-v01@openssh.com") } else { Vec::new() })
    }

    fn allowed(&self, usual: &[Algorithm], suffix: &str) -> Vec<Algorithm> {
        // RSA with SHA-1 signatures is broken.
        let safe: Vec<_> = usual.iter().filter(|one| **one != Algorithm::Rsa { hash: None }).cloned().collect();
        self.host.host_keys.of(&safe, |algorithm| format!("{}{suffix}", algorithm.as_str()))
    }

    /// Whether this is the host; a new one is remembered if that is wanted. Blocks on the disk then.
    ///
    /// # Errors
    /// [`BoardError::UnknownHost`], [`BoardError::HostKeyChanged`], [`BoardError::HostKeyRevoked`],
    /// [`BoardError::HostKeyShort`], [`BoardError::KnownHosts`].
    pub(super) fn check(&mut self, key: &PublicKey) -> Result<(), BoardError> {
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let host = self.host.known_as.clone();
        if self.revoked.contains(key.key_data()) {
            return Err(BoardError::HostKeyRevoked { host, fingerprint });
        }
        if !self.host.is_long_enough(key) {
            return Err(BoardError::HostKeyShort { host, least: self.host.least_rsa });
        }
        if self.all().any(|entry| !entry.is_authority && entry.key.key_data() == key.key_data()) {
            return Ok(());
        }
        // The line of the same kind is the one that is wrong, if there is one.
        let others = || self.entries.iter().filter(|entry| !entry.is_authority);
        let same_kind = others().find(|entry| entry.key.algorithm() == key.algorithm());
        if let Some(Entry { place, .. }) = same_kind.or_else(|| others().next()) {
            return Err(BoardError::HostKeyChanged { host, fingerprint, known: place.clone() });
        }
        if !self.accept_new {
            return Err(BoardError::UnknownHost { host, fingerprint, is_hop: self.host.is_hop });
        }
        let failed = |error: io::Error| BoardError::KnownHosts { path: self.learned.clone(), source: error.into() };
        learn(&self.learned, &host, key).map_err(failed)?;
        tracing::info!(%host, %fingerprint, "a new host: its key is remembered");
        let place = KnownLine { path: self.learned.clone(), line: 0 };
        self.entries.push(Entry { key: key.clone(), is_authority: false, place });
        Ok(())
    }

    /// Whether this certificate is the host's. Without an authority that is known for the host, the key in it counts like
    /// any other.
    ///
    /// # Errors
    /// [`BoardError::HostCertificate`], and those of [`KnownHost::check`].
    pub(super) fn check_certificate(&mut self, certificate: &Certificate) -> Result<(), BoardError> {
        let key = PublicKey::new(certificate.public_key().clone(), "");
        let authority = PublicKey::new(certificate.signature_key().clone(), "");
        if let Some(revoked) = [&key, &authority].into_iter().find(|key| self.revoked.contains(key.key_data())) {
            let fingerprint = revoked.fingerprint(HashAlg::Sha256).to_string();
            return Err(BoardError::HostKeyRevoked { host: self.host.known_as.clone(), fingerprint });
        }
        if !self.all().any(|entry| entry.is_authority && entry.key.key_data() == authority.key_data()) {
            return self.check(&key);
        }
        self.vouched(certificate, &authority).map_err(|why| BoardError::HostCertificate {
            host: self.host.known_as.clone(),
            authority: authority.fingerprint(HashAlg::Sha256).to_string(),
            why,
        })
    }

    /// Whether a certificate of a known authority holds here and now.
    fn vouched(&self, certificate: &Certificate, authority: &PublicKey) -> Result<(), String> {
        if certificate.cert_type() != CertType::Host {
            return Err("it is a user's, not a host's".to_owned());
        }
        let signed_with = certificate.signature().algorithm();
        if signed_with == (Algorithm::Rsa { hash: None }) || !self.host.authorities.allows(signed_with.as_str()) {
            return Err(format!("it is signed with {}", signed_with.as_str()));
        }
        let key = PublicKey::new(certificate.public_key().clone(), "");
        if ![&key, authority].into_iter().all(|key| self.host.is_long_enough(key)) {
            return Err(format!("an RSA key of it has less than {} bits", self.host.least_rsa));
        }
        let now = clock::now().unix_seconds();
        if now < certificate.valid_after() || now >= certificate.valid_before() {
            return Err("it is not valid yet, or not any more".to_owned());
        }
        if !certificate.critical_options().is_empty() {
            return Err("it has critical options, which a host's has not".to_owned());
        }
        let name = &self.host.certified_as;
        let principals = certificate.valid_principals();
        if !principals.iter().any(|principal| is_match(name, &principal.to_ascii_lowercase())) {
            return Err(format!("it is not for {name}"));
        }
        let valid = certificate.validate_at(now, [&authority.fingerprint(HashAlg::Sha256)]);
        valid.map_err(|_| "its signature is wrong".to_owned())
    }
}

/// A line of a file of known hosts.
struct Line {
    marker: Option<Marker>,
    names: String,
    key: PublicKey,
}

impl Line {
    /// `None` for a comment and for what is not understood, as ssh does.
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        let (marker, rest) = match line.split_once(char::is_whitespace) {
            Some((marker, rest)) if line.starts_with('@') => (Some(marker.parse().ok()?), rest.trim_start()),
            _ => (None, line),
        };
        let (names, key) = rest.split_once(char::is_whitespace)?;
        if names.starts_with('#') {
            return None;
        }
        let words: Vec<&str> = key.split_whitespace().take(2).collect();
        Some(Self { marker, names: names.to_owned(), key: PublicKey::from_openssh(&words.join(" ")).ok()? })
    }
}

/// Whether a host is among the names of a line.
fn is_named(names: &str, host: &str) -> bool {
    match names.parse::<HostPatterns>() {
        Ok(HostPatterns::HashedName { salt, hash }) => Hmac::<sha1::Sha1>::new_from_slice(&salt)
            .is_ok_and(|hmac| hmac.chain_update(host).verify_slice(&hash).is_ok()),
        Ok(HostPatterns::Patterns(patterns)) => {
            let patterns: Vec<String> = patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
            is_in_list(host, patterns.iter().map(String::as_str))
        }
        Err(_) => false,
    }
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
    use super::{
        super::{
            SshBoardConfig,
            settings::{Target, route},
        },
        *,
    };

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    fn known(folder: &Path, user_file: &str, accept_new: bool) -> KnownHost {
        fs::write(folder.join("known_hosts"), user_file).unwrap();
        let mut config = SshBoardConfig::new("board.example:2222".parse().unwrap(), &folder.join("state"));
        config.ssh_folder = Some(folder.to_owned());
        config.system_folder = folder.join("none");
        let target = Target { host: "board.example".to_owned(), port: Some(2222), login: None };
        let host = route(&config, &target).unwrap().remove(0);
        KnownHost::load(&host, &config.known_hosts, accept_new).unwrap()
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
        let mut host = known(folder.path(), &format!("# mine\n\n{ecdsa}"), true);
        let Err(BoardError::HostKeyChanged { known, .. }) = host.check(&key(ONE)) else { panic!() };
        assert_eq!((known.path, known.line), (folder.path().join("known_hosts"), 3));
        let first = host.algorithms(russh::Preferred::DEFAULT.key.as_ref()).first().cloned();
        assert!(matches!(first, Some(Algorithm::Ecdsa { .. })));
    }

    #[test]
    fn names_are_plain_with_ports_patterns_and_never_another_hosts() {
        let folder = tempfile::tempdir().unwrap();
        for (names, expected) in [
            ("[board.example]:2222", true),
            ("[board.example]:2222,x", true),
            ("[Board.Example]:2222", true),
            ("[*.example]:2222", true),
            ("[*]:2222", true),
            // As with ssh, a host that is not known with its port may be known without.
            ("board.example", true),
            ("*.example", true),
            ("*", true),
            ("[board.example]:2223", false),
            ("other.example", false),
            ("*,![board.example]:2222,!board.example", false),
            ("|1|notbase64|x", false),
        ] {
            let result = known(folder.path(), &format!("{names} {ONE} comment\n"), false).check(&key(ONE));
            assert_eq!(result.is_ok(), expected, "{names}: {result:?}");
        }
        // Without the port it is not the one that could have changed.
        let unknown = known(folder.path(), &format!("board.example {ONE}\n"), false).check(&key(OTHER));
        assert!(matches!(unknown, Err(BoardError::UnknownHost { .. })), "{unknown:?}");
    }

    #[test]
    fn a_revoked_key_is_never_accepted() {
        let folder = tempfile::tempdir().unwrap();
        for accept_new in [false, true] {
            let text = format!("[board.example]:2222 {ONE}\n@revoked * {ONE}\n");
            let refused = known(folder.path(), &text, accept_new).check(&key(ONE));
            assert!(matches!(refused, Err(BoardError::HostKeyRevoked { .. })), "{refused:?}");
        }
    }

    #[test]
    fn an_authority_is_no_host() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = known(folder.path(), &format!("@cert-authority *.example {ONE}\n"), false);
        assert!(matches!(host.check(&key(ONE)), Err(BoardError::UnknownHost { .. })));
        assert!(!host.certificates(&russh::Preferred::DEFAULT.key).is_empty());
        assert!(known(folder.path(), ONE, false).certificates(&russh::Preferred::DEFAULT.key).is_empty());
    }
}

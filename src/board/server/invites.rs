//! Invitations: codes with which a friend gives an account a key of their own, once.
//!
//! A code is 125 random bits; the file `invites` has its BLAKE3 digest alone, one line each:
//! `NAME DIGEST CREATED EXPIRES [KEY]`. A code with so many bits needs no slow hash. `KEY` is the fingerprint of the key that
//! has used the code, and stands there only while that key is being added: whoever comes with another key is too late.

use std::path::Path;

use super::{accounts::parse_lines, files::StateFile};
use crate::{board::ServeError, clock::Timestamp, ids::UserName};

/// How many invitations can be open at a time.
const MOST: usize = 256;

/// The characters of a code: those of RFC 4648's base32, in lower case, without 1, 0, 8 and 9, which look like letters.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The characters of a code without its hyphens: 5 bits each.
const LENGTH: usize = 25;

/// An invitation as its board knows it: without the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// The account.
    pub name: UserName,
    /// When it was made.
    pub created: Timestamp,
    /// Until when it can be used.
    pub expires: Timestamp,
    digest: blake3::Hash,
    claimed_by: Option<String>,
}

impl Invite {
    fn parse(line: &str) -> Result<Self, String> {
        const FORM: &str = "NAME DIGEST CREATED EXPIRES is expected";
        let fields: Vec<&str> = line.split(' ').collect();
        let (&[name, digest, created, expires], rest) = fields.split_first_chunk::<4>().ok_or(FORM)?;
        let claimed_by = match rest {
            [] => None,
            [key] if key.starts_with("SHA256:") => Some((*key).to_owned()),
            _ => return Err(FORM.to_owned()),
        };
        let time = |text: &str| {
            let time: jiff::Timestamp = text.parse().map_err(|_| "a time must look like 2026-11-22T14:03:59Z")?;
            Ok::<_, &str>(Timestamp::from_unix_seconds(u64::try_from(time.as_second()).unwrap_or_default()))
        };
        Ok(Self {
            name: name.parse().map_err(|error| format!("{error}"))?,
            digest: blake3::Hash::from_hex(digest).map_err(|error| error.to_string())?,
            created: time(created)?,
            expires: time(expires)?,
            claimed_by,
        })
    }

    fn line(&self) -> String {
        let claimed = self.claimed_by.as_deref().map(|key| format!(" {key}")).unwrap_or_default();
        let (created, expires) = (rfc3339(self.created), rfc3339(self.expires));
        format!("{} {} {created} {expires}{claimed}\n", self.name, self.digest.to_hex())
    }
}

/// A time as files and people have it, in UTC.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let seconds = i64::try_from(time.unix_seconds()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// The invitations in a state folder. Every change is made by the holder of the folder's lock.
#[derive(Debug, Clone)]
pub(super) struct Invites(StateFile);

impl Invites {
    pub(super) fn new(state: &Path) -> Self {
        Self(StateFile::new(state.join("invites")))
    }

    /// Those that can still be used.
    pub(super) fn list(&self, now: Timestamp) -> Result<Vec<Invite>, ServeError> {
        let mut all = parse_lines(self.0.path(), &self.0.read()?, Invite::parse)?;
        all.retain(|invite| invite.expires > now);
        Ok(all)
    }

    /// Makes one, and gives back its code, which nobody can learn again.
    pub(super) fn make(&self, name: &UserName, expires: Timestamp, now: Timestamp) -> Result<String, ServeError> {
        let mut all = self.list(now)?;
        if all.len() >= MOST {
            return Err(ServeError::TooManyInvites { most: MOST });
        }
        let code = code().map_err(|why| ServeError::Account { name: name.to_string(), why })?;
        all.push(Invite { name: name.clone(), created: now, expires, digest: digest(&code), claimed_by: None });
        self.write(&all)?;
        Ok(code)
    }

    /// The account of a code, which from now on is of use for this key alone.
    pub(super) fn claim(&self, code: &str, key: &str, now: Timestamp) -> Result<UserName, ServeError> {
        let mut all = self.list(now)?;
        let digest = digest(code);
        // The digests are compared in constant time (blake3::Hash), and each of them whether or not one was found.
        let mut found = None;
        for (at, invite) in all.iter().enumerate() {
            if invite.digest == digest {
                found = Some(at);
            }
        }
        let invite = found.and_then(|at| all.get_mut(at)).ok_or(ServeError::Code)?;
        if invite.claimed_by.as_deref().is_some_and(|by| by != key) {
            return Err(ServeError::Code);
        }
        invite.claimed_by = Some(key.to_owned());
        let name = invite.name.clone();
        self.write(&all)?;
        Ok(name)
    }

    /// Removes what this key has claimed of an account.
    pub(super) fn forget(&self, name: &UserName, key: &str) -> Result<(), ServeError> {
        let mut all = parse_lines(self.0.path(), &self.0.read()?, Invite::parse)?;
        all.retain(|invite| invite.name != *name || invite.claimed_by.as_deref() != Some(key));
        self.write(&all)
    }

    /// Removes all to an account; says how many.
    pub(super) fn revoke(&self, name: &UserName) -> Result<usize, ServeError> {
        let mut all = parse_lines(self.0.path(), &self.0.read()?, Invite::parse)?;
        let before = all.len();
        all.retain(|invite| invite.name != *name);
        let revoked = before.saturating_sub(all.len());
        if revoked > 0 {
            self.write(&all)?;
        }
        Ok(revoked)
    }

    fn write(&self, all: &[Invite]) -> Result<(), ServeError> {
        self.0.replace(&all.iter().map(Invite::line).collect::<String>())
    }
}

/// A new code, in groups of five.
fn code() -> Result<String, String> {
    let mut random = [0u8; LENGTH];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    let mut code = String::new();
    for (at, byte) in random.iter().enumerate() {
        if at > 0 && at % 5 == 0 {
            code.push('-');
        }
        code.extend(ALPHABET.get(usize::from(byte % 32)).map(|&letter| char::from(letter)));
    }
    Ok(code)
}

/// Of a code as it was typed: in any case, with or without hyphens.
fn digest(code: &str) -> blake3::Hash {
    let bare: String = code.chars().filter(|&c| c != '-').map(|c| c.to_ascii_lowercase()).collect();
    blake3::hash(bare.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_361_280_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_code_is_for_one_key_until_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let invites = Invites::new(folder.path());
        let bob: UserName = "bob".parse().unwrap();
        let code = invites.make(&bob, NOW + DAY, NOW).unwrap();
        assert_eq!((code.len(), code.matches('-').count()), (29, 4));
        let text = std::fs::read_to_string(folder.path().join("invites")).unwrap();
        assert!(!text.contains(&code) && !text.contains(&code.replace('-', "")), "{text}");
        let wrong = invites.claim("aaaaa-aaaaa-aaaaa-aaaaa-aaaaa", "SHA256:x", NOW);
        assert!(matches!(wrong, Err(ServeError::Code)));
        assert!(matches!(invites.claim(&code, "SHA256:x", NOW + DAY), Err(ServeError::Code)));
        assert_eq!(invites.claim(&code.replace('-', "").to_uppercase(), "SHA256:x", NOW).unwrap(), bob);
        assert!(matches!(invites.claim(&code, "SHA256:y", NOW), Err(ServeError::Code)), "another key is too late");
        assert_eq!(invites.claim(&code, "SHA256:x", NOW).unwrap(), bob, "the same key may try again");
        invites.forget(&bob, "SHA256:x").unwrap();
        assert!(matches!(invites.claim(&code, "SHA256:x", NOW), Err(ServeError::Code)));
    }

    #[test]
    fn codes_differ_and_are_bounded_in_number() {
        let folder = tempfile::tempdir().unwrap();
        let invites = Invites::new(folder.path());
        let name: UserName = "x".parse().unwrap();
        std::fs::write(
            folder.path().join("invites"),
            (0..MOST - 1)
                .map(|at| {
                    let digest = digest(&at.to_string());
                    Invite { name: name.clone(), created: NOW, expires: NOW + DAY, digest, claimed_by: None }.line()
                })
                .collect::<String>(),
        )
        .unwrap();
        let last = invites.make(&name, NOW + DAY, NOW).unwrap();
        assert!(matches!(invites.make(&name, NOW + DAY, NOW), Err(ServeError::TooManyInvites { .. })));
        // Those that have expired take no place.
        assert_ne!(invites.make(&name, NOW + DAY + DAY, NOW + DAY).unwrap(), last);
        assert_eq!(invites.list(NOW + DAY).unwrap().len(), 1);
        assert_eq!(invites.revoke(&name).unwrap(), 1);
    }

    #[test]
    fn a_spoilt_file_is_named_and_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let invites = Invites::new(folder.path());
        let path = folder.path().join("invites");
        for spoilt in ["x", "x y z", "a/b 00 2026-11-22T14:03:59Z 2026-11-22T14:03:59Z"] {
            std::fs::write(&path, spoilt).unwrap();
            let error = invites.make(&"x".parse().unwrap(), NOW + DAY, NOW).unwrap_err();
            assert!(error.to_string().contains("invites, line 1"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), spoilt);
        }
    }
}

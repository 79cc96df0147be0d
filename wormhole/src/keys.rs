//! The exchange of keys by a password that both peers know, and what is made of its outcome.
//!
//! Source: magic-wormhole-protocols, `client-protocol.md`.

use crypto_secretbox::{AeadInPlace, Key, KeyInit, Nonce, Tag, XSalsa20Poly1305};
use hkdf::Hkdf;
use p2p_wormhole_contract::message::Failure;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{failure, hex, spake2};

const NONCE: usize = 24;
const TAG: usize = 16;

/// What both peers send first.
#[derive(Serialize, Deserialize)]
struct Pake {
    /// Hexadecimal.
    pake_v1: String,
}

/// An exchange that has begun.
pub(crate) struct Exchange(spake2::Side);

/// Begins an exchange within an application, and makes our message.
pub(crate) fn begin(password: &str, application: &str) -> Result<(Exchange, Vec<u8>), Failure> {
    let side = spake2::Side::begin(password.as_bytes(), application.as_bytes());
    let side = side.ok_or_else(failure::no_random_bits)?;
    let message = serde_json::to_vec(&Pake { pake_v1: hex::encode(&side.message()) });
    Ok((Exchange(side), message.map_err(|error| Failure::Fault(failure::chain(&error)))?))
}

impl Exchange {
    /// What both may have, by the peer's message. Whether the peer knew the password, the first sealed message shows.
    pub(crate) fn finish(self, theirs: &[u8]) -> Result<Outcome, Failure> {
        let no_key = || Failure::Protocol("a message that is no part of an exchange of keys".to_owned());
        let pake: Pake = serde_json::from_slice(theirs).map_err(|_| no_key())?;
        let theirs = hex::decode(&pake.pake_v1).ok_or_else(no_key)?;
        let spake2::Keys { key, cut } = self.0.finish(&theirs).ok_or(Failure::Password)?;
        Ok(Outcome { right: Secret(key), cut: cut.map(Secret) })
    }
}

/// The secret of both, if both knew the password; once in 256 times it depends on the peer's library which one that is.
pub(crate) struct Outcome {
    right: Secret,
    /// That of a peer with gospake2, where it is another.
    cut: Option<Secret>,
}

impl Outcome {
    /// Whether no message of the peer's is needed to tell.
    pub(crate) fn is_certain(&self) -> bool {
        self.cut.is_none()
    }

    /// The secret by which the peer sealed this message; the right one if there is no message, or neither opens it.
    pub(crate) fn settle(self, side: &str, phase: &str, sealed: Option<&[u8]>) -> Secret {
        let opens = |secret: &Secret| sealed.is_some_and(|sealed| secret.open(side, phase, sealed).is_some());
        self.cut.filter(opens).unwrap_or(self.right)
    }
}

/// A secret key. It is not shown by `Debug`, as it has none, and wiped when dropped.
pub(crate) struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// A key for one purpose (HKDF-SHA256). `None` cannot happen with keys as short as these.
    pub(crate) fn derive(&self, purpose: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, &*self.0).expand(purpose, &mut *key).ok()?;
        Some(Self(key))
    }

    pub(crate) fn bytes(&self) -> [u8; 32] {
        *self.0
    }

    /// The cipher for the message that one side sends in one phase.
    fn cipher(&self, side: &str, phase: &str) -> Option<XSalsa20Poly1305> {
        let mut purpose = b"wormhole:phase:".to_vec();
        purpose.extend(Sha256::digest(side.as_bytes()));
        purpose.extend(Sha256::digest(phase.as_bytes()));
        Some(XSalsa20Poly1305::new(&Key::from(self.derive(&purpose)?.bytes())))
    }

    /// A message of ours: nonce, tag and text. `None` without random bits.
    pub(crate) fn seal(&self, side: &str, phase: &str, text: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = text.to_vec();
        let cipher = self.cipher(side, phase)?;
        let tag = cipher.encrypt_in_place_detached(&Nonce::from(nonce), b"", &mut sealed).ok()?;
        Some([&nonce[..], &tag, &sealed].concat())
    }

    /// The text of a message of theirs. `None` if it was sealed with another secret, or is none.
    pub(crate) fn open(&self, side: &str, phase: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
        let (tag, text) = rest.split_first_chunk::<TAG>()?;
        let mut text = text.to_vec();
        let cipher = self.cipher(side, phase)?;
        cipher.decrypt_in_place_detached(&Nonce::from(*nonce), b"", &mut text, &Tag::from(*tag)).ok()?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_knows_the_password_can_read_and_nobody_else() {
        let (ours, to_them) = begin("7-a", "x").unwrap();
        let (theirs, to_us) = begin("7-a", "x").unwrap();
        let (us, them) = (ours.finish(&to_us).unwrap().right, theirs.finish(&to_them).unwrap().right);
        let sealed = us.seal("us", "0", b"hello").unwrap();
        assert_eq!(them.open("us", "0", &sealed).unwrap(), b"hello");
        assert!(them.open("us", "1", &sealed).is_none());
        assert!(them.open("them", "0", &sealed).is_none());
        for length in 0..sealed.len() {
            assert!(them.open("us", "0", &sealed[..length]).is_none());
        }
        let (stranger, _) = begin("7-b", "x").unwrap();
        assert!(stranger.finish(&to_them).unwrap().right.open("us", "0", &sealed).is_none());
    }

    #[test]
    fn the_secret_is_the_one_that_the_peer_has() {
        let secret = |byte| Secret(Zeroizing::new([byte; 32]));
        let settled = |sealed: Option<&[u8]>| {
            let outcome = Outcome { right: secret(1), cut: Some(secret(2)) };
            assert!(!outcome.is_certain());
            outcome.settle("them", "version", sealed).bytes()
        };
        let sealed_by = |byte| secret(byte).seal("them", "version", b"{}").unwrap();
        assert_eq!(settled(Some(&sealed_by(1))), [1; 32]);
        assert_eq!(settled(Some(&sealed_by(2))), [2; 32]);
        // Somebody who does not know the password, somebody who says nothing.
        assert_eq!(settled(Some(&sealed_by(3))), [1; 32]);
        assert_eq!(settled(Some(b"")), [1; 32]);
        assert_eq!(settled(None), [1; 32]);
    }

    #[test]
    fn a_peer_can_send_anything_for_a_key() {
        for nonsense in ["", "{}", "[]", r#"{"pake_v1":7}"#, r#"{"pake_v1":"5"}"#, r#"{"pake_v1":"zz"}"#] {
            let finished = begin("7-a", "x").unwrap().0.finish(nonsense.as_bytes());
            assert!(matches!(finished.map(|_| ()), Err(Failure::Protocol(_))), "{nonsense}");
        }
        for bytes in [vec![], vec![0x53; 32], vec![0x53; 33], vec![0x41; 33], vec![0xff; 33], vec![0x53; 9999]] {
            let message = format!(r#"{{"pake_v1":"{}"}}"#, hex::encode(&bytes));
            let _ = begin("7-a", "x").unwrap().0.finish(message.as_bytes());
        }
    }
}

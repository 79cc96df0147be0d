//! The exchange of keys by a password that both peers know (SPAKE2), and what is made of its outcome.
//!
//! Source: magic-wormhole-protocols, `client-protocol.md`.

use crypto_secretbox::{AeadInPlace, Key, KeyInit, Nonce, Tag, XSalsa20Poly1305};
use hkdf::Hkdf;
use p2p_wormhole_contract::message::Failure;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use spake2::{Ed25519Group, Identity, Password, Spake2};

use crate::{failure, hex};

const NONCE: usize = 24;
const TAG: usize = 16;

/// What both peers send first.
#[derive(Serialize, Deserialize)]
struct Pake {
    /// Hexadecimal.
    pake_v1: String,
}

/// An exchange that has begun.
pub(crate) struct Exchange(Spake2<Ed25519Group>);

/// Begins an exchange within an application, and makes our message.
pub(crate) fn begin(password: &str, application: &str) -> Result<(Exchange, Vec<u8>), Failure> {
    let (password, identity) = (Password::new(password), Identity::new(application.as_bytes()));
    let (state, message) = Spake2::start_symmetric(&password, &identity);
    let message = serde_json::to_vec(&Pake { pake_v1: hex::encode(&message) });
    Ok((Exchange(state), message.map_err(|error| Failure::Fault(failure::chain(&error)))?))
}

impl Exchange {
    /// The secret of both, by the peer's message. Whether the peer knew the password, the first sealed message shows.
    pub(crate) fn finish(self, theirs: &[u8]) -> Result<Secret, Failure> {
        let no_key = || Failure::Protocol("a message that is no part of an exchange of keys".to_owned());
        let pake: Pake = serde_json::from_slice(theirs).map_err(|_| no_key())?;
        let theirs = hex::decode(&pake.pake_v1).ok_or_else(no_key)?;
        let secret = self.0.finish(&theirs).map_err(|_| Failure::Password)?;
        Ok(Secret(secret.try_into().map_err(|_| no_key())?))
    }
}

/// A secret key. It is not shown by `Debug`, as it has none.
pub(crate) struct Secret([u8; 32]);

impl Secret {
    /// A key for one purpose (HKDF-SHA256). `None` cannot happen with keys as short as these.
    pub(crate) fn derive(&self, purpose: &[u8]) -> Option<Self> {
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(None, &self.0).expand(purpose, &mut key).ok()?;
        Some(Self(key))
    }

    pub(crate) fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// The cipher for the message that one side sends in one phase.
    fn cipher(&self, side: &str, phase: &str) -> Option<XSalsa20Poly1305> {
        let mut purpose = b"wormhole:phase:".to_vec();
        purpose.extend(Sha256::digest(side.as_bytes()));
        purpose.extend(Sha256::digest(phase.as_bytes()));
        Some(XSalsa20Poly1305::new(&Key::from(self.derive(&purpose)?.0)))
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
        let (us, them) = (ours.finish(&to_us).unwrap(), theirs.finish(&to_them).unwrap());
        let sealed = us.seal("us", "0", b"hello").unwrap();
        assert_eq!(them.open("us", "0", &sealed).unwrap(), b"hello");
        assert!(them.open("us", "1", &sealed).is_none());
        assert!(them.open("them", "0", &sealed).is_none());
        for length in 0..sealed.len() {
            assert!(them.open("us", "0", &sealed[..length]).is_none());
        }
        let (stranger, _) = begin("7-b", "x").unwrap();
        assert!(stranger.finish(&to_them).unwrap().open("us", "0", &sealed).is_none());
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

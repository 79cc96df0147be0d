//! Encrypted records: a big-endian `u32` length, a nonce that counts, and the text in XSalsa20-Poly1305.

use std::{
    io,
    net::{Shutdown, TcpStream},
};

use async_io::Async;
use crypto_secretbox::{AeadInPlace, Key, KeyInit, Nonce, Tag, XSalsa20Poly1305};
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use super::{Words, handshake::acknowledge_at_once};

const NONCE: usize = 24;
const TAG: usize = 16;
const LENGTH: usize = 4;
/// The longest text of a record that is taken, in bytes. Known peers send 4 to 64 KiB.
const LONGEST: usize = 1024 * 1024;

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("the other end closed it")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a record of {0} bytes")]
    Length(usize),
    #[error("a record that cannot be decrypted")]
    Crypto,
}

/// A connection that carries records. A record of which only a part was read or written, because somebody stopped
/// waiting, leaves it useless.
pub(crate) struct Records {
    stream: Async<TcpStream>,
    seal: Half,
    open: Half,
    buffer: Vec<u8>,
}

struct Half {
    cipher: XSalsa20Poly1305,
    counter: u64,
}

impl Half {
    fn new(key: [u8; 32]) -> Self {
        Self { cipher: XSalsa20Poly1305::new(&Key::from(key)), counter: 0 }
    }

    /// The nonce of the next record: its number, in 24 bytes, big-endian.
    fn next(&mut self) -> [u8; NONCE] {
        let mut nonce = [0; NONCE];
        for (to, from) in nonce.iter_mut().rev().zip(self.counter.to_le_bytes()) {
            *to = from;
        }
        self.counter += 1; // 2^64 records do not fit into any time.
        nonce
    }
}

impl Records {
    pub(super) fn new(stream: Async<TcpStream>, words: &Words) -> Self {
        let _ = stream.get_ref().set_nodelay(true);
        let (seal, open) = words.keys();
        Self { stream, seal: Half::new(seal), open: Half::new(open), buffer: Vec::new() }
    }

    /// Sends one record.
    pub(crate) async fn write(&mut self, text: &[u8]) -> Result<(), RecordError> {
        let length = NONCE + TAG + text.len();
        let prefix = u32::try_from(length).map_err(|_| RecordError::Length(length))?;
        let nonce = self.seal.next();
        self.buffer.clear();
        self.buffer.extend(prefix.to_be_bytes());
        self.buffer.extend(nonce);
        self.buffer.extend([0; TAG]);
        self.buffer.extend(text);
        let (head, sealed) = self.buffer.split_at_mut_checked(LENGTH + NONCE + TAG).ok_or(RecordError::Crypto)?;
        let tag = self.seal.cipher.encrypt_in_place_detached(&Nonce::from(nonce), b"", sealed);
        let place = head.get_mut(LENGTH + NONCE..).ok_or(RecordError::Crypto)?;
        place.copy_from_slice(&tag.map_err(|_| RecordError::Crypto)?);
        Ok(self.stream.write_all(&self.buffer).await?)
    }

    /// The text of the next record.
    pub(crate) async fn read(&mut self) -> Result<&[u8], RecordError> {
        let mut prefix = [0; LENGTH];
        self.stream.read_exact(&mut prefix).await.map_err(closed)?;
        let length = u32::from_be_bytes(prefix) as usize;
        if !(NONCE + TAG..=NONCE + TAG + LONGEST).contains(&length) {
            return Err(RecordError::Length(length));
        }
        self.buffer.resize(length, 0);
        self.stream.read_exact(&mut self.buffer).await.map_err(closed)?;
        acknowledge_at_once(&self.stream);
        let expected = self.open.next();
        let (nonce, rest) = self.buffer.split_first_chunk_mut::<NONCE>().ok_or(RecordError::Crypto)?;
        let (tag, text) = rest.split_first_chunk_mut::<TAG>().ok_or(RecordError::Crypto)?;
        if *nonce != expected {
            return Err(RecordError::Crypto);
        }
        let opened = self.open.cipher.decrypt_in_place_detached(&Nonce::from(*nonce), b"", text, &Tag::from(*tag));
        opened.map_err(|_| RecordError::Crypto)?;
        Ok(text)
    }

    /// Says that nothing follows.
    pub(crate) fn finish(&self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }
}

fn closed(error: io::Error) -> RecordError {
    if error.kind() == io::ErrorKind::UnexpectedEof { RecordError::Closed } else { RecordError::Io(error) }
}

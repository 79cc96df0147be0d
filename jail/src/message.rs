//! Messages on the control socket: a little-endian `u32` length, then that many bytes: the [`CONTRACT`], a sum of what follows,
//! and postcard.
//!
//! Postcard does not say what it means: bytes of another version of [`crate::spec`] could decode to something else than was
//! asked for, and a changed byte to a limit or a layer that is not there. Nobody but the supervisor writes to that socket, so
//! neither is an attack; but programs are upgraded under a running worker. Both are refused before anything is decoded.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

use crate::spec::MAX_MESSAGE;

/// Stands for the exact text of `spec.rs` and of all files of `spec/`, which both sides were built from: a worker and a
/// `p2p-jail` of different builds refuse each other.
pub const CONTRACT: u64 = {
    let mut hash = EMPTY;
    let mut rest = TEXTS.as_slice();
    while let [text, after @ ..] = rest {
        hash = further(hash, text);
        rest = after;
    }
    hash
};

/// What a message means.
const TEXTS: [&[u8]; 5] = [
    include_bytes!("spec.rs"),
    include_bytes!("spec/confinement.rs"),
    include_bytes!("spec/container.rs"),
    include_bytes!("spec/limits.rs"),
    include_bytes!("spec/report.rs"),
];

/// What stands before the postcard: contract and sum.
const PRELUDE: usize = 16;

/// FNV-1a (Fowler, Noll and Vo), 64 bits: no two byte strings that differ in one byte have the same. Not against forgers.
const fn sum(bytes: &[u8]) -> u64 {
    further(EMPTY, bytes)
}

/// The sum of nothing.
const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

/// The sum of what came before and of these.
const fn further(before: u64, bytes: &[u8]) -> u64 {
    let (mut hash, mut rest) = (before, bytes);
    while let [byte, after @ ..] = rest {
        hash = (hash ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
        rest = after;
    }
    hash
}

/// Why a message could not be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The other side closed between two messages.
    #[error("the control socket was closed")]
    Closed,
    /// The length field is above [`MAX_MESSAGE`].
    #[error("a message of {length} bytes is over the limit of {MAX_MESSAGE}")]
    TooLong {
        /// What the length field says.
        length: usize,
    },
    /// The bytes are not such a message, or bytes follow it.
    #[error("malformed message")]
    Malformed(#[source] postcard::Error),
    /// Bytes follow the message inside its frame.
    #[error("a message is followed by {extra} stray bytes")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// The other side has another idea of what a message means.
    #[error("p2p-worker and p2p-jail are not of the same build; after an upgrade, restart p2p-worker")]
    OtherBuild,
    /// The bytes are not those that were sent.
    #[error("a message was damaged on its way")]
    Damaged,
    /// Reading or writing failed.
    #[error("control socket")]
    Io(#[from] io::Error),
}

/// The bytes of one message, length first.
///
/// # Errors
/// [`MessageError::TooLong`], or [`MessageError::Malformed`] for a value that cannot be encoded (a path that is not UTF-8).
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, MessageError> {
    let value = postcard::to_stdvec(value).map_err(MessageError::Malformed)?;
    let long = PRELUDE + value.len();
    let length = u32::try_from(long).ok().filter(|_| long <= MAX_MESSAGE);
    let length = length.ok_or(MessageError::TooLong { length: long })?;
    let prelude = [CONTRACT, sum(&value)].map(u64::to_le_bytes);
    Ok([&length.to_le_bytes(), prelude.as_flattened(), &value].concat())
}

/// Checks a length field.
///
/// # Errors
/// [`MessageError::TooLong`].
pub fn body_length(header: [u8; 4]) -> Result<usize, MessageError> {
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_MESSAGE { Err(MessageError::TooLong { length }) } else { Ok(length) }
}

/// Decodes the body of a message, all of it.
///
/// # Errors
/// [`MessageError::OtherBuild`], [`MessageError::Damaged`], [`MessageError::Malformed`] and [`MessageError::Trailing`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, MessageError> {
    let (contract, rest) = body.split_first_chunk().ok_or(MessageError::Damaged)?;
    let (expected, body) = rest.split_first_chunk().ok_or(MessageError::Damaged)?;
    if u64::from_le_bytes(*contract) != CONTRACT {
        return Err(MessageError::OtherBuild);
    }
    if u64::from_le_bytes(*expected) != sum(body) {
        return Err(MessageError::Damaged);
    }
    let (value, rest) = postcard::take_from_bytes(body).map_err(MessageError::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(MessageError::Trailing { extra: rest.len() }) }
}

/// Reads one message, blocking.
///
/// # Errors
/// Any of [`MessageError`]; [`MessageError::Closed`] only between messages.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<T, MessageError> {
    let mut header = [0u8; 4];
    let mut filled = 0;
    while filled < header.len() {
        match from.read(header.get_mut(filled..).unwrap_or_default()) {
            Ok(0) if filled == 0 => return Err(MessageError::Closed),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => filled += n,
            // A socket with a time-out is interrupted even by a stop and a continuation (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut body = vec![0u8; body_length(header)?];
    from.read_exact(&mut body)?;
    decode(&body)
}

/// Writes one message, blocking.
///
/// # Errors
/// As [`encode`], and what the socket says.
pub fn write<T: Serialize>(to: &mut impl Write, value: &T) -> Result<(), MessageError> {
    Ok(to.write_all(&encode(value)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_stands_for_every_file_of_the_spec() {
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut texts: Vec<Vec<u8>> = vec![std::fs::read(source.join("spec.rs")).unwrap()];
        for file in std::fs::read_dir(source.join("spec")).unwrap() {
            texts.push(std::fs::read(file.unwrap().path()).unwrap());
        }
        texts.sort();
        let mut counted: Vec<&[u8]> = TEXTS.to_vec();
        counted.sort_unstable();
        assert_eq!(texts, counted);
        // A change of any of them is another contract.
        let whole = TEXTS.into_iter().fold(EMPTY, further);
        assert_eq!(whole, CONTRACT);
        assert_eq!(CONTRACT, sum(&TEXTS.concat()));
    }
}

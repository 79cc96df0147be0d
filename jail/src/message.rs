//! Messages on the control socket: a little-endian `u32` length, then that many bytes: [`CONTRACT`], then postcard.
//!
//! postcard has no names and no types in it, so a program of another version could take one field for another. The
//! contract keeps such programs from understanding each other at all.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

use crate::spec::MAX_MESSAGE;

/// What this message is a message of: a byte that no message without it begins with, and a digest (FNV-1a) of the sources that
/// define what is sent. Two programs that have the same one were built from the same definitions.
pub static CONTRACT: [u8; 8] = contract();

#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it, and would refuse an index out of bounds")]
const fn contract() -> [u8; 8] {
    let sources: [&[u8]; 2] = [include_bytes!("spec.rs"), include_bytes!("message.rs")];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut source = 0;
    while source < sources.len() {
        let mut at = 0;
        while at < sources[source].len() {
            hash = (hash ^ sources[source][at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        source += 1;
    }
    let mut bytes = hash.to_be_bytes();
    bytes[0] = 0x7f; // As the number of a variant, far above those that there are.
    bytes
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
    /// It does not begin with our [`CONTRACT`].
    #[error("p2p-worker and p2p-jail are of different versions: install both from the same build")]
    OtherVersion,
    /// The bytes are not such a message, or bytes follow it.
    #[error("malformed message")]
    Malformed(#[source] postcard::Error),
    /// Bytes follow the message inside its frame.
    #[error("a message is followed by {extra} stray bytes")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// Reading or writing failed.
    #[error("control socket")]
    Io(#[from] io::Error),
}

/// The bytes of one message, length first.
///
/// # Errors
/// [`MessageError::TooLong`], or [`MessageError::Malformed`] for a value that cannot be encoded (a path that is not UTF-8).
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, MessageError> {
    let body = postcard::to_stdvec(value).map_err(MessageError::Malformed)?;
    let whole = CONTRACT.len() + body.len();
    let length = u32::try_from(whole).ok().filter(|_| whole <= MAX_MESSAGE);
    let length = length.ok_or(MessageError::TooLong { length: whole })?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(CONTRACT);
    bytes.extend(body);
    Ok(bytes)
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
/// [`MessageError::OtherVersion`], [`MessageError::Malformed`] and [`MessageError::Trailing`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, MessageError> {
    let body = body.strip_prefix(&CONTRACT).ok_or(MessageError::OtherVersion)?;
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
    use crate::spec::{Exit, Report, Stop, Usage};

    #[test]
    fn only_the_same_contract_is_understood() {
        let report = Report::Ended { exit: Exit::Code(3), stopped: Some(Stop::Memory), usage: Usage::default() };
        let bytes = encode(&report).unwrap();
        assert_eq!(read::<Report>(&mut bytes.as_slice()).unwrap(), report);
        let (header, body) = bytes.split_at(4);
        assert_eq!(body_length(header.try_into().unwrap()).unwrap(), body.len());
        let mut other = body.to_vec();
        other[5] ^= 1;
        assert!(matches!(decode::<Report>(&other), Err(MessageError::OtherVersion)));
        // A message as before there was a contract, to us; and ours, to a program of that time.
        assert!(matches!(decode::<Report>(&body[CONTRACT.len()..]), Err(MessageError::OtherVersion)));
        assert!(postcard::from_bytes::<Report>(body).is_err());
    }
}

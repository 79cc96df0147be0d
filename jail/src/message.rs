//! Messages on the control socket: a little-endian `u32` length, then that many bytes of postcard.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

use crate::spec::MAX_MESSAGE;

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
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_MESSAGE);
    let length = length.ok_or(MessageError::TooLong { length: body.len() })?;
    let mut bytes = length.to_le_bytes().to_vec();
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
/// [`MessageError::Malformed`] and [`MessageError::Trailing`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, MessageError> {
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

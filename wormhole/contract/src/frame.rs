//! Frames: a header of [`HEADER`] bytes, `kind: u8, length: u32 LE`, and then `length` bytes. The limit of a kind is checked
//! on the header alone.

use serde::{Serialize, de::DeserializeOwned};

/// Bytes of a frame's header.
pub const HEADER: usize = 5;
/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// The longest piece of the payload, in bytes.
pub const MAX_DATA: usize = 64 * 1024;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// There is no such kind of frame.
    #[error("unknown kind of frame {kind}")]
    Kind {
        /// What the header says.
        kind: u8,
    },
    /// The frame is empty, or over the limit of its kind.
    #[error("a frame of {length} bytes, where 1 to {limit} are allowed")]
    Length {
        /// What the header says, or what should have been sent.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The body is not such a message.
    #[error("malformed message")]
    Malformed(#[source] postcard::Error),
    /// Bytes follow the message inside its frame.
    #[error("a message is followed by {extra} stray bytes")]
    Trailing {
        /// How many.
        extra: usize,
    },
}

/// What a frame's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A message in postcard.
    Message = 0,
    /// A piece of the payload.
    Data = 1,
}

impl Kind {
    fn limit(self) -> usize {
        match self {
            Self::Message => MAX_MESSAGE,
            Self::Data => MAX_DATA,
        }
    }
}

/// The kind and the length of a frame.
///
/// # Errors
/// [`FrameError::Kind`] and [`FrameError::Length`].
pub fn parse([kind, length @ ..]: [u8; HEADER]) -> Result<(Kind, usize), FrameError> {
    let kind = match kind {
        0 => Kind::Message,
        1 => Kind::Data,
        kind => return Err(FrameError::Kind { kind }),
    };
    let length = u32::from_le_bytes(length) as usize;
    check(kind, length).map(|_| (kind, length))
}

/// The header of a frame.
///
/// # Errors
/// [`FrameError::Length`].
pub fn header(kind: Kind, length: usize) -> Result<[u8; HEADER], FrameError> {
    let [a, b, c, d] = check(kind, length)?.to_le_bytes();
    Ok([kind as u8, a, b, c, d])
}

fn check(kind: Kind, length: usize) -> Result<u32, FrameError> {
    let limit = kind.limit();
    let fits = u32::try_from(length).ok().filter(|_| (1..=limit).contains(&length));
    fits.ok_or(FrameError::Length { length, limit })
}

/// A message as a frame, header first.
///
/// # Errors
/// [`FrameError::Length`], and [`FrameError::Malformed`] for a value that cannot be encoded.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let body = postcard::to_stdvec(message).map_err(FrameError::Malformed)?;
    let header = header(Kind::Message, body.len())?;
    Ok([&header, body.as_slice()].concat())
}

/// The message of a frame's body, all of it.
///
/// # Errors
/// [`FrameError::Malformed`] and [`FrameError::Trailing`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let (message, rest) = postcard::take_from_bytes(body).map_err(FrameError::Malformed)?;
    if rest.is_empty() { Ok(message) } else { Err(FrameError::Trailing { extra: rest.len() }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::{Event, Failure, Phase};

    #[test]
    fn a_message_survives_and_nothing_may_follow_it() {
        let event = Event::Failed(Failure::TimedOut { phase: Phase::Peer, after_ms: 7 });
        let frame = encode(&event).unwrap();
        let (header, body) = frame.split_first_chunk().unwrap();
        assert_eq!(parse(*header).unwrap(), (Kind::Message, body.len()));
        assert_eq!(decode::<Event>(body).unwrap(), event);
        let longer = [body, &[0]].concat();
        assert!(matches!(decode::<Event>(&longer), Err(FrameError::Trailing { extra: 1 })));
    }

    #[test]
    fn the_limits_are_checked_on_the_header() {
        assert!(matches!(parse([2, 1, 0, 0, 0]), Err(FrameError::Kind { kind: 2 })));
        assert!(matches!(parse([0, 0, 0, 0, 0]), Err(FrameError::Length { length: 0, .. })));
        assert!(matches!(parse([1, 1, 0, 1, 0]), Err(FrameError::Length { length: 65537, .. })));
        assert!(parse([1, 0, 0, 1, 0]).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Event>(&bytes);
            let _ = decode::<crate::message::Order>(&bytes);
        }
    }
}

//! The frames of stream `/p2p-worker/future/3`, by which one future and its result travel: data and a codec, no I/O.
//!
//! A frame is a header of [`HEADER`] bytes, `kind: u8, length: u32 LE`, and then `length` bytes. There are four kinds,
//! each with a limit of its own that is checked on the header alone, before a byte of the body is waited for:
//! control (postcard of [`FromWorker`] or [`FromClient`], to [`MAX_CONTROL`]), progress (the RDS of one
//! immediateCondition, opaque, to [`MAX_PROGRESS`]), data (a piece of the future or of the result, to [`MAX_DATA`]) and
//! packed (such a piece as one zstd frame of its own, RFC 8878, so that a piece can be unpacked without any other).
//!
//! ```text
//! worker                                            client
//!   | Hello{ticket, future, limit, Fetch{held}, …} -> |
//!   | <-------- Future{size, digest, limit, start, …} |   or Refuse
//!   | <------------------------------------- Pieces…  |   if the worker keeps pieces and the future is large
//!   | Lacks ----------------------------------------> |
//!   | <----------------------------- data or packed…  |
//!   | Received -------------------------------------> |   or Refuse
//!   | Begin{provenance}, progress… -----------------> |
//!   | Result{size, digest, provenance, start, …} ---> |   or Refuse
//!   | data or packed… ------------------------------> |
//!   | <---------------------------------- Acknowledge |   or Refuse
//! ```
//!
//! A payload of at most [`MAX_WHOLE`] bytes rides in the frame that announces it, and no data follow. Each side tells
//! its limit before the other side has to send anything, so what is too large is refused before its bytes flow.
//!
//! **A broken stream.** The worker dials again and says Hello: with [`Stage::Fetch`] as long as it does not have the
//! whole future, else with [`Stage::Resume`], which the client answers with `Resume`, or with `Acknowledge` when it has
//! the result already. The receiver of a payload says what it [holds](Held) of it: the worker in its Hello, the client
//! in its Resume. The sender digests as many bytes of its own; if they are the same, it goes on at that byte (`start`),
//! else it begins anew at byte 0. Positions count bytes of the payload itself, never packed ones.
//!
//! **Pieces.** A worker that keeps pieces of futures says in its Hello up to which size of a future. The client may then
//! announce how many [pieces](PieceName) the future has, and names them all, in several frames of `Pieces`. The worker
//! answers with those that it [lacks](FromWorker::Lacks), and what flows are their bytes from `start` on, one after the
//! other; no data frame has bytes from both sides of a gap. Names are forgotten with the stream: on the next one they are
//! sent again. The digest of the whole future is compared in any case.
//!
//! **Heartbeats.** Each side sends `Heartbeat` every few seconds for as long as the stream is open, whatever else it
//! does, and answers none. A side that hears nothing for a few of these intervals takes the stream for broken.
//!
//! The client may say `Cancel` at any time, also between two pieces of data.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    manifest::{PieceName, PieceSet},
    refusal::Refusal,
};
use crate::{
    ids::{Digest, FutureId, Ticket},
    sandbox::Provenance,
    text::for_terminal,
};

/// The libp2p protocol name.
pub const PROTOCOL: &str = "/p2p-worker/future/3";
/// The version of these frames that a [`Hello`] tells.
pub const VERSION: u16 = 3;
/// Bytes of a frame's header.
pub const HEADER: usize = 5;
/// The largest payload that rides in the frame that announces it, in bytes.
pub const MAX_WHOLE: usize = 64 * 1024;
/// The longest body of a control frame, in bytes: a whole payload, and what is said about it.
pub const MAX_CONTROL: usize = MAX_WHOLE + 32 * 1024;
/// The longest progress message, in bytes.
pub const MAX_PROGRESS: usize = 1024 * 1024;
/// The longest piece of data, in bytes; packed, unpacked.
pub const MAX_DATA: usize = 256 * 1024;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// There is no such kind of frame.
    #[error("unknown kind of frame {kind}")]
    Kind {
        /// What the header says.
        kind: u8,
    },
    /// The frame is over the limit of its kind.
    #[error("a frame of {length} bytes is over its limit of {limit}")]
    TooLong {
        /// What the header says.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A frame without a body, which no kind allows.
    #[error("an empty frame")]
    Empty,
    /// The body is not such a message.
    #[error("malformed frame")]
    Malformed(#[source] postcard::Error),
    /// Bytes follow the message inside its frame.
    #[error("a frame's message is followed by {extra} stray bytes")]
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
    Control = 0,
    /// One immediateCondition's RDS.
    Progress = 1,
    /// A piece of the future or of the result.
    Data = 2,
    /// Such a piece as a zstd frame of its own.
    Packed = 3,
}

impl Kind {
    /// The longest body, in bytes.
    #[must_use]
    pub const fn limit(self) -> usize {
        match self {
            Self::Control => MAX_CONTROL,
            Self::Progress => MAX_PROGRESS,
            Self::Data | Self::Packed => MAX_DATA,
        }
    }

    /// The header of a frame with a body of so many bytes.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] and [`FrameError::Empty`].
    pub fn header(self, length: usize) -> Result<[u8; HEADER], FrameError> {
        let limit = self.limit();
        let fits = u32::try_from(length).ok().filter(|_| length <= limit);
        let [a, b, c, d] = match fits {
            Some(0) => return Err(FrameError::Empty),
            Some(length) => length.to_le_bytes(),
            None => return Err(FrameError::TooLong { length, limit }),
        };
        Ok([self as u8, a, b, c, d])
    }

    /// Reads a header: the kind and the length of the body.
    ///
    /// # Errors
    /// [`FrameError::Kind`], [`FrameError::TooLong`], [`FrameError::Empty`].
    pub fn parse([kind, a, b, c, d]: [u8; HEADER]) -> Result<(Self, usize), FrameError> {
        let kind = match kind {
            0 => Self::Control,
            1 => Self::Progress,
            2 => Self::Data,
            3 => Self::Packed,
            _ => return Err(FrameError::Kind { kind }),
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        kind.header(length).map(|_| (kind, length))
    }
}

/// One frame, its control message being `M` ([`FromWorker`] or [`FromClient`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<M> {
    /// A message.
    Control(M),
    /// One immediateCondition's RDS.
    Progress(Vec<u8>),
    /// A piece of the future or of the result.
    Data(Vec<u8>),
    /// Such a piece as a zstd frame; nothing is known of what it unpacks to.
    Packed(Vec<u8>),
}

impl<M: DeserializeOwned> Frame<M> {
    /// Makes a frame of a body of known kind, whose length was checked by [`Kind::parse`].
    ///
    /// # Errors
    /// [`FrameError::Malformed`], [`FrameError::Trailing`].
    pub fn from_body(kind: Kind, body: Vec<u8>) -> Result<Self, FrameError> {
        Ok(match kind {
            Kind::Progress => Self::Progress(body),
            Kind::Data => Self::Data(body),
            Kind::Packed => Self::Packed(body),
            Kind::Control => {
                let (message, rest) = postcard::take_from_bytes(&body).map_err(FrameError::Malformed)?;
                if !rest.is_empty() {
                    return Err(FrameError::Trailing { extra: rest.len() });
                }
                Self::Control(message)
            }
        })
    }

    /// Takes the first frame off a slice: the frame and the bytes after it, or `None` when it is not whole yet.
    ///
    /// # Errors
    /// Any of [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, &[u8])>, FrameError> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let (kind, length) = Kind::parse(*header)?;
        let Some((body, rest)) = rest.split_at_checked(length) else { return Ok(None) };
        Ok(Some((Self::from_body(kind, body.to_vec())?, rest)))
    }
}

/// The bytes of a control frame.
///
/// # Errors
/// [`FrameError::TooLong`]; [`FrameError::Malformed`] cannot happen with our own messages.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let body = postcard::to_stdvec(message).map_err(FrameError::Malformed)?;
    encode_body(Kind::Control, &body)
}

/// The bytes of a frame with this body.
///
/// # Errors
/// [`FrameError::TooLong`] and [`FrameError::Empty`].
pub fn encode_body(kind: Kind, body: &[u8]) -> Result<Vec<u8>, FrameError> {
    Ok([kind.header(body.len())?.as_slice(), body].concat())
}

/// What a receiver holds of a payload after a broken stream: its first bytes, without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// How many bytes.
    pub size: u64,
    /// BLAKE3 of them.
    pub digest: Digest,
}

/// Where a worker is with a future when it dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It does not have the whole future yet.
    Fetch {
        /// What it has of it.
        held: Option<Held>,
    },
    /// It has it, and comes back after a broken stream.
    Resume,
}

/// The first frame of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the worker.
    pub version: u16,
    /// What lets the worker in.
    pub ticket: Ticket,
    /// The future that it was promised.
    pub future: FutureId,
    /// The largest future that it takes, in bytes.
    pub max_future: u64,
    /// The largest future whose pieces it keeps, in bytes; 0 if it keeps none.
    pub keeps: u64,
    /// What it wants.
    pub stage: Stage,
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The first frame of every stream.
    Hello(Hello),
    /// The whole future is here and its digest is right.
    Received,
    /// The task begins.
    Begin {
        /// Under what it runs.
        #[serde(with = "wire")]
        provenance: Provenance,
    },
    /// The worker is alive. Not answered: the client has heartbeats of its own.
    Heartbeat,
    /// The result's data follow, unless it is here already.
    Result {
        /// Bytes.
        size: u64,
        /// BLAKE3 of them.
        digest: Digest,
        /// Under what the task ran.
        #[serde(with = "wire")]
        provenance: Provenance,
        /// The position of the first byte that follows: 0, or what the client said that it holds.
        start: u64,
        /// All of it, if it is small.
        whole: Option<Vec<u8>>,
    },
    /// The worker will not go on with this future. The last frame.
    Refuse(Refusal),
    /// What the task's programs printed past R, if they did; once, before the result.
    Printed(Printed),
    /// Which of the named pieces must be sent.
    Lacks(PieceSet),
}

/// The most of a task's text that a client is told, in bytes.
pub const MAX_PRINTED: usize = 16 * 1024;

/// The most bytes of a note on what was left out.
const MAX_NOTE: usize = 64;

/// Text that a task printed past R, safe for a terminal wherever it came from: its first [`MAX_PRINTED`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Printed(String);

impl From<String> for Printed {
    fn from(text: String) -> Self {
        let mut text = for_terminal(&text);
        if text.len() > MAX_PRINTED {
            // The note has room within the bound, so that what was cut once is not cut again.
            let end = (0..=MAX_PRINTED - MAX_NOTE).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
            let left_out = text.len() - end;
            text.truncate(end);
            text.push_str(&format!("\n[{left_out} more bytes were left out]"));
        }
        Self(text)
    }
}

impl From<Printed> for String {
    fn from(printed: Printed) -> Self {
        printed.0
    }
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromClient {
    /// The future's data follow, unless it is here already.
    Future {
        /// Bytes.
        size: u64,
        /// BLAKE3 of them.
        digest: Digest,
        /// The largest result that the client takes, in bytes.
        max_result: u64,
        /// The position of the first byte that follows: 0, or what the worker said that it holds.
        start: u64,
        /// How many pieces will be named, all of them before any data; 0 if none are.
        pieces: u32,
        /// All of it, if it is small.
        whole: Option<Vec<u8>>,
    },
    /// Go on where the broken stream ended.
    Resume {
        /// What the client has of the result.
        held: Option<Held>,
    },
    /// The client is alive. Not answered: the worker has heartbeats of its own.
    Heartbeat,
    /// The future is not wanted any more: drop it, or stop it. The last frame.
    Cancel,
    /// The whole result is here and its digest is right. The last frame.
    Acknowledge,
    /// The client will not go on. The last frame.
    Refuse(Refusal),
    /// The next pieces of the future that was announced, in their order; at most [`NAMES_PER_FRAME`].
    ///
    /// [`NAMES_PER_FRAME`]: super::manifest::NAMES_PER_FRAME
    Pieces(Vec<PieceName>),
}

/// How many layers a provenance can tell of: there are twelve.
const MAX_LAYERS: usize = 16;

#[path = "frames_wire.rs"]
mod wire;

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;

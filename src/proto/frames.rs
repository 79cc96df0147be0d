//! The frames of stream `/p2p-worker/future/1`, by which one future and its result travel: data and a codec, no I/O.
//!
//! A frame is a header of [`HEADER`] bytes, `kind: u8, length: u32 LE`, and then `length` bytes. There are three kinds,
//! each with a limit of its own that is checked on the header alone, before a byte of the body is waited for:
//! control (postcard of [`FromWorker`] or [`FromClient`], to [`MAX_CONTROL`]), progress (the RDS of one
//! immediateCondition, opaque, to [`MAX_PROGRESS`]) and data (a piece of the future or of the result, to [`MAX_DATA`]).
//!
//! ```text
//! worker                                        client
//!   | Hello{ticket, future, limit, Fetch} ------> |
//!   | <------------- Future{size, digest, limit}  |   or Refuse
//!   | <------------------------------------ data… |
//!   | Received ---------------------------------> |   or Refuse
//!   | Begin{provenance}, progress… -------------> |
//!   | Result{size, digest, provenance}, data… --> |   or Refuse
//!   | <------------------------------ Acknowledge |   or Refuse
//! ```
//!
//! A worker sends `Heartbeat` every few seconds and the client answers each. The client may say `Cancel` at any time,
//! also between two pieces of data. A worker whose stream broke dials again and says Hello with [`Stage::Resume`]; the
//! client answers `Resume`, or `Acknowledge` when it has the result already. Each side tells its limit before the other
//! side has to send anything, so what is too large is refused before its bytes flow.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::refusal::{Refusal, sanitise};
use crate::{
    ids::{Digest, FutureId, Ticket},
    sandbox::{Enforcement, Provenance},
};

/// The libp2p protocol name.
pub const PROTOCOL: &str = "/p2p-worker/future/1";
/// The version of these frames that a [`Hello`] tells.
pub const VERSION: u16 = 1;
/// Bytes of a frame's header.
pub const HEADER: usize = 5;
/// The longest body of a control frame, in bytes.
pub const MAX_CONTROL: usize = 64 * 1024;
/// The longest progress message, in bytes.
pub const MAX_PROGRESS: usize = 1024 * 1024;
/// The longest piece of data, in bytes.
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
}

impl Kind {
    /// The longest body, in bytes.
    #[must_use]
    pub const fn limit(self) -> usize {
        match self {
            Self::Control => MAX_CONTROL,
            Self::Progress => MAX_PROGRESS,
            Self::Data => MAX_DATA,
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

/// Where a worker is with a future when it dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It does not have the whole future yet, and wants it from its first byte.
    Fetch,
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
    /// The worker is alive.
    Heartbeat,
    /// The result's data follow.
    Result {
        /// Bytes.
        size: u64,
        /// BLAKE3 of them.
        digest: Digest,
        /// Under what the task ran.
        #[serde(with = "wire")]
        provenance: Provenance,
    },
    /// The worker will not go on with this future. The last frame.
    Refuse(Refusal),
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromClient {
    /// The future's data follow.
    Future {
        /// Bytes.
        size: u64,
        /// BLAKE3 of them.
        digest: Digest,
        /// The largest result that the client takes, in bytes.
        max_result: u64,
    },
    /// Go on where the broken stream ended; a result is sent from its first byte.
    Resume,
    /// The answer to a heartbeat.
    Heartbeat,
    /// The future is not wanted any more: drop it, or stop it. The last frame.
    Cancel,
    /// The whole result is here and its digest is right. The last frame.
    Acknowledge,
    /// The client will not go on. The last frame.
    Refuse(Refusal),
}

/// How many layers a provenance can tell of: there are twelve.
const MAX_LAYERS: usize = 16;

/// A provenance on the wire: bounded and cleaned where it comes in. It has a form of its own because postcard cannot
/// read the tagged form that [`Enforcement`] has in JSON.
mod wire {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Enforcement, MAX_LAYERS, Provenance, sanitise};
    use crate::sandbox::Layer;

    #[derive(Serialize, Deserialize)]
    enum State {
        Enforced,
        Partly,
        Missing,
        Reduced,
        Untried,
    }

    type Layers = Vec<(Layer, State, String)>;

    pub(super) fn serialize<S: Serializer>(provenance: &Provenance, to: S) -> Result<S::Ok, S::Error> {
        let layer = |(layer, enforcement): &(Layer, Enforcement)| match enforcement {
            Enforcement::Enforced(text) => (*layer, State::Enforced, sanitise(text)),
            Enforcement::Partly(text) => (*layer, State::Partly, sanitise(text)),
            Enforcement::Missing(text) => (*layer, State::Missing, sanitise(text)),
            Enforcement::Reduced(text) => (*layer, State::Reduced, sanitise(text)),
            Enforcement::Untried(text) => (*layer, State::Untried, sanitise(text)),
        };
        let layers: Layers = provenance.layers.iter().take(MAX_LAYERS).map(layer).collect();
        (sanitise(&provenance.driver), sanitise(&provenance.profile), layers).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Provenance, D::Error> {
        let (driver, profile, layers) = <(String, String, Layers)>::deserialize(from)?;
        let layer = |(layer, state, text): (Layer, State, String)| match state {
            State::Enforced => (layer, Enforcement::Enforced(sanitise(&text))),
            State::Partly => (layer, Enforcement::Partly(sanitise(&text))),
            State::Missing => (layer, Enforcement::Missing(sanitise(&text))),
            State::Reduced => (layer, Enforcement::Reduced(sanitise(&text))),
            State::Untried => (layer, Enforcement::Untried(sanitise(&text))),
        };
        let layers = layers.into_iter().take(MAX_LAYERS).map(layer).collect();
        Ok(Provenance { driver: sanitise(&driver), profile: sanitise(&profile), layers })
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;

//! The task's frames, taken apart without I/O: `tag: u8, length: u32 LE, payload`. A result goes on to the bytes that were agreed upon
//! for its end, or to the end of the stream.
//!
//! Nothing in them is believed but as the client's own data. A stream that is not of this form is refused as soon as
//! that shows.

use std::borrow::Cow;

/// The largest payload of a `P` frame, in bytes.
pub(crate) const MAX_PROGRESS: usize = 1 << 20;

const HEADER: usize = 5;

/// What is wrong with the task's frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// No frame begins so.
    #[error("a frame with the unknown tag {0:#04x}")]
    Tag(u8),
    /// The length does not go with the tag.
    #[error("a frame {tag:?} with a length of {length}")]
    Length {
        /// The tag.
        tag: char,
        /// What its length field says.
        length: u32,
    },
    /// A second `B`.
    #[error("two beginnings")]
    Twice,
    /// The stream ended inside of a frame.
    #[error("the last frame is cut short")]
    Cut,
}

/// One thing that the task says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// The evaluation begins.
    Begun,
    /// The RDS of one immediateCondition.
    Progress(Vec<u8>),
    /// The next bytes of the result.
    Result(Cow<'a, [u8]>),
    /// The last bytes of the result, whose end was marked.
    Last(Cow<'a, [u8]>),
}

#[derive(Debug)]
enum State {
    Header(Vec<u8>),
    Progress {
        length: usize,
        payload: Vec<u8>,
    },
    /// With those of its bytes that may be the beginning of its end.
    Result(Vec<u8>),
    Over,
}

/// Takes bytes as they come and gives what they mean.
#[derive(Debug)]
pub(crate) struct Frames {
    state: State,
    begun: bool,
    ending: Vec<u8>,
}

impl Frames {
    /// With the bytes that mark the end of a result, if any do.
    pub(crate) fn new(ending: Option<Vec<u8>>) -> Self {
        Self { state: State::Header(Vec::with_capacity(HEADER)), begun: false, ending: ending.unwrap_or_default() }
    }

    /// The next item in `bytes`, which is moved past it; `None` when more bytes are needed. Holds at most
    /// [`MAX_PROGRESS`] bytes between calls.
    ///
    /// # Errors
    /// [`FrameError`]; then nothing more can be made of the stream.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Item<'a>>, FrameError> {
        while !bytes.is_empty() {
            let item = match &mut self.state {
                State::Header(header) => {
                    take(bytes, header, HEADER);
                    match <[u8; HEADER]>::try_from(header.as_slice()) {
                        Ok([tag, length @ ..]) => self.open(tag, u32::from_le_bytes(length))?,
                        Err(_) => None,
                    }
                }
                State::Progress { length, payload } => {
                    take(bytes, payload, *length);
                    (payload.len() == *length).then(|| Item::Progress(std::mem::take(payload)))
                }
                State::Result(held) => {
                    let held = std::mem::take(held);
                    return Ok(Some(self.result(held, std::mem::take(bytes))));
                }
                State::Over => {
                    *bytes = &[];
                    return Ok(None);
                }
            };
            if let Some(item) = item {
                self.state = State::Header(Vec::with_capacity(HEADER));
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// The last bytes of the result, if the stream may end here. A stream without a result may: that is for the caller to judge.
    ///
    /// # Errors
    /// [`FrameError::Cut`].
    pub(crate) fn finish(self) -> Result<Vec<u8>, FrameError> {
        match self.state {
            State::Header(header) if header.is_empty() => Ok(Vec::new()),
            State::Result(held) => Ok(held),
            State::Over => Ok(Vec::new()),
            _ => Err(FrameError::Cut),
        }
    }

    /// What of these bytes belongs to the result for sure.
    fn result<'a>(&mut self, held: Vec<u8>, bytes: &'a [u8]) -> Item<'a> {
        let mut all = if held.is_empty() { Cow::Borrowed(bytes) } else { Cow::Owned([&held, bytes].concat()) };
        let begins = |length: &usize| self.ending.get(..*length).is_some_and(|beginning| all.ends_with(beginning));
        let length = (1..=self.ending.len()).rev().find(begins).unwrap_or_default();
        let sure = all.len() - length;
        match &mut all {
            Cow::Borrowed(bytes) => *bytes = bytes.get(..sure).unwrap_or_default(),
            Cow::Owned(bytes) => bytes.truncate(sure),
        }
        if length > 0 && length == self.ending.len() {
            self.state = State::Over;
            return Item::Last(all);
        }
        self.state = State::Result(self.ending.get(..length).unwrap_or_default().to_vec());
        Item::Result(all)
    }

    fn open(&mut self, tag: u8, length: u32) -> Result<Option<Item<'static>>, FrameError> {
        let wrong = FrameError::Length { tag: char::from(tag), length };
        match (tag, length) {
            (b'B', 0) if self.begun => Err(FrameError::Twice),
            (b'B', 0) => {
                self.begun = true;
                Ok(Some(Item::Begun))
            }
            (b'P', 0) => Err(wrong),
            (b'P', _) => {
                let length = usize::try_from(length).ok().filter(|length| *length <= MAX_PROGRESS).ok_or(wrong)?;
                self.state = State::Progress { length, payload: Vec::new() };
                Ok(None)
            }
            (b'R', u32::MAX) => {
                self.state = State::Result(Vec::new());
                Ok(None)
            }
            (b'B' | b'R', _) => Err(wrong),
            _ => Err(FrameError::Tag(tag)),
        }
    }
}

/// Moves bytes from the front of `from` to `to` until `to` has `length` of them.
fn take(from: &mut &[u8], to: &mut Vec<u8>, length: usize) {
    let wanted = length.saturating_sub(to.len()).min(from.len());
    let (now, later) = from.split_at(wanted);
    to.extend_from_slice(now);
    *from = later;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything that a stream says, with the result's bytes joined, when it comes in pieces of these sizes.
    fn read(stream: &[u8], piece: usize) -> Result<(Vec<String>, Vec<u8>), FrameError> {
        let (mut frames, mut said, mut result) = (Frames::new(Some(END.to_vec())), Vec::new(), Vec::new());
        for mut bytes in stream.chunks(piece) {
            while let Some(item) = frames.next(&mut bytes)? {
                match item {
                    Item::Result(part) => result.extend_from_slice(&part),
                    Item::Last(part) => {
                        result.extend_from_slice(&part);
                        said.push("Over".to_owned());
                    }
                    other => said.push(format!("{other:?}")),
                }
            }
        }
        result.extend(frames.finish()?);
        Ok((said, result))
    }

    const END: &[u8] = b"\0end";

    const GOOD: &[u8] = b"B\0\0\0\0P\x03\0\0\0abcR\xff\xff\xff\xffresult";

    #[test]
    fn a_good_stream_is_understood_however_it_is_cut() {
        for piece in 1..=GOOD.len() {
            let (said, result) = read(GOOD, piece).unwrap();
            assert_eq!(said, ["Begun", "Progress([97, 98, 99])"]);
            assert_eq!(result, b"result");
        }
    }

    #[test]
    fn a_marked_end_is_found_however_it_is_cut_and_what_only_begins_like_it_is_not() {
        for (result, more) in [(&b"result"[..], &b""[..]), (b"", b""), (b"\0\0en\0", b"!"), (b"\0en", b"\0end")] {
            for piece in 1..20 {
                let begun = [b"R\xff\xff\xff\xff", result].concat();
                assert_eq!(read(&begun, piece), Ok((vec![], result.to_vec())), "without its end");
                let (said, seen) = read(&[&begun, END, more].concat(), piece).unwrap();
                // What comes in one piece with more is no end.
                if more.is_empty() || piece == 1 {
                    assert_eq!((said, &*seen), (vec!["Over".to_owned()], result), "{piece}");
                }
            }
        }
    }

    #[test]
    fn forged_streams_are_refused() {
        assert_eq!(read(b"X\0\0\0\0", 9), Err(FrameError::Tag(b'X')));
        assert_eq!(read(b"B\0\0\0\0B\0\0\0\0", 9), Err(FrameError::Twice));
        assert_eq!(read(b"R\x05\0\0\0abcde", 9), Err(FrameError::Length { tag: 'R', length: 5 }));
        assert_eq!(read(b"P\x01\0\x10\0", 9), Err(FrameError::Length { tag: 'P', length: (1 << 20) + 1 }));
        assert_eq!(read(b"P\x05\0\0\0abc", 9), Err(FrameError::Cut));
        assert_eq!(read(b"B\0\0", 9), Err(FrameError::Cut));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_harm(stream in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
            let _ = read(&stream, piece);
        }
    }
}

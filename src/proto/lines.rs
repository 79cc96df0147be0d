//! Bytes as they come from a board, in pieces of any size, made into lines.
//!
//! A line ends in LF or CRLF. What it means is decided in [`super::message`]; here a line is at most [`MAX_LINE`] bytes of
//! anything. A longer one is thrown away whole and counted, so that no sender can make us hold more than one line.

use std::mem;

/// The longest line, without its end, that is passed on, in bytes. The longest honest line is an `accept` with a handful
/// of addresses, under 1 KiB.
pub const MAX_LINE: usize = 4096;

/// Cuts a stream of bytes into lines. Holds at most [`MAX_LINE`] + 1 bytes between calls.
#[derive(Debug, Default)]
pub struct LineSplitter {
    /// The line so far; one byte over the bound, because that byte may be the CR of its end.
    held: Vec<u8>,
    /// The line so far is too long: what follows up to its end is thrown away.
    skipping: bool,
    overlong: u64,
}

impl LineSplitter {
    /// A splitter at the beginning of a line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and hands every line that they end to `each`, without its end and in order.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(rest) => self.end_line(rest, &mut each),
                None => self.hold(piece),
            }
        }
    }

    /// Ends the stream: a last line that lacks its end is handed to `each` too.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        if self.skipping || !self.held.is_empty() {
            self.end_line(b"", &mut each);
        }
    }

    /// How many lines were too long since the last call.
    pub fn take_overlong(&mut self) -> u64 {
        mem::take(&mut self.overlong)
    }

    fn end_line(&mut self, rest: &[u8], each: &mut impl FnMut(&[u8])) {
        if self.held.is_empty() && !self.skipping {
            return self.give(rest, each);
        }
        self.hold(rest);
        let held = mem::take(&mut self.held);
        if mem::take(&mut self.skipping) {
            self.overlong = self.overlong.saturating_add(1);
        } else {
            self.give(&held, each);
        }
        self.held = held;
        self.held.clear();
    }

    fn give(&mut self, line: &[u8], each: &mut impl FnMut(&[u8])) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() <= MAX_LINE {
            each(line);
        } else {
            self.overlong = self.overlong.saturating_add(1);
        }
    }

    fn hold(&mut self, piece: &[u8]) {
        if self.skipping || self.held.len().saturating_add(piece.len()) > MAX_LINE + 1 {
            self.skipping = true;
            self.held.clear();
        } else {
            self.held.extend_from_slice(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, u64) {
        let (mut splitter, mut lines) = (LineSplitter::new(), Vec::new());
        for chunk in chunks {
            splitter.push(chunk, |line| lines.push(line.to_vec()));
            assert!(splitter.held.len() <= MAX_LINE + 1);
        }
        (lines, splitter.take_overlong())
    }

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let (lines, overlong) = split(&[b"one\ntw", b"o\r", b"\n\nthr", b"ee"]);
        assert_eq!(lines, [b"one".to_vec(), b"two".to_vec(), b"".to_vec()]);
        assert_eq!(overlong, 0);
    }

    #[test]
    fn the_bound_counts_the_line_without_its_end() {
        let longest = vec![b'x'; MAX_LINE];
        for end in [&b"\n"[..], b"\r\n"] {
            assert_eq!(split(&[&longest, end]), (vec![longest.clone()], 0));
            let (lines, overlong) = split(&[&longest, b"y", end, b"next\n"]);
            assert_eq!((lines, overlong), (vec![b"next".to_vec()], 1));
        }
    }

    #[test]
    fn a_last_line_without_an_end_is_given_by_finish_alone() {
        let mut splitter = LineSplitter::new();
        splitter.push(b"half", |_| panic!("not ended"));
        let mut lines = Vec::new();
        splitter.finish(|line| lines.push(line.to_vec()));
        splitter.finish(|_| panic!("nothing is left"));
        assert_eq!(lines, [b"half".to_vec()]);
    }

    proptest! {
        #[test]
        fn cutting_the_stream_elsewhere_changes_nothing(
            lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20),
            long in proptest::collection::vec((0usize..20, MAX_LINE - 2..MAX_LINE + 40), 0..3),
            cuts in proptest::collection::vec(1usize..9000, 1..40),
        ) {
            let mut lines: Vec<Vec<u8>> = lines;
            for (at, length) in long {
                lines.insert(at.min(lines.len()), vec![b'x'; length]);
            }
            let mut stream = Vec::new();
            for line in &lines {
                stream.extend(line.iter().filter(|&&byte| byte != b'\n'));
                stream.push(b'\n');
            }
            let (mut chunks, mut rest, mut cuts) = (Vec::new(), &stream[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (chunk, next) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                chunks.push(chunk);
                rest = next;
            }
            let (whole, whole_overlong) = split(&[&stream]);
            prop_assert_eq!(split(&chunks), (whole.clone(), whole_overlong));
            prop_assert_eq!(whole.len() as u64 + whole_overlong, lines.len() as u64);
            prop_assert!(whole.iter().all(|line| line.len() <= MAX_LINE));
        }
    }
}

//! Orders as they come through the pipe.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::line::{LineError, MAX_LINE, Record};

/// How much is read at once, in bytes.
const AT_ONCE: usize = 16 * 1024;

/// A pipe of lines. Holds at most one line, and what was read at once.
#[derive(Debug)]
pub(super) struct Input<R> {
    from: R,
    held: Vec<u8>,
    /// How much of it has no line end, as far as is known.
    searched: usize,
    /// The line is too long: the rest of it is thrown away.
    skipping: bool,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// At the first line.
    #[must_use]
    pub(super) fn new(from: R) -> Self {
        Self { from, held: Vec::new(), searched: 0, skipping: false }
    }

    /// The next line; `None` at the end, and when it cannot be read any more. A last line without its end is none.
    /// Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Result<Record, LineError>> {
        loop {
            let rest = self.held.get(self.searched..).unwrap_or_default();
            if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=self.searched + at).collect();
                self.searched = 0;
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                if std::mem::take(&mut self.skipping) {
                    return Some(Err(LineError::Overlong));
                }
                return Some(Record::read(line));
            }
            self.searched = self.held.len();
            if self.searched > MAX_LINE {
                self.skipping = true;
            }
            if self.skipping {
                self.held.clear();
                self.searched = 0;
            }
            self.held.reserve(AT_ONCE);
            if self.from.read_buf(&mut self.held).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(bytes: &[u8]) -> Vec<Result<String, LineError>> {
        let mut input = Input::new(bytes);
        let mut lines = Vec::new();
        while let Some(line) = input.next().await {
            lines.push(line.map(|record| record.kind));
        }
        lines
    }

    #[tokio::test]
    async fn lines_come_out_whole_and_long_ones_are_thrown_away() {
        let long = "x".repeat(MAX_LINE + 1);
        let text = format!("a\n{long}\nb\tx=1\n{long}{long}{long}\nc\nhalf");
        let lines = all(text.as_bytes()).await;
        let (ok, too_long) = (|kind: &str| Ok(kind.to_owned()), || Err(LineError::Overlong));
        assert_eq!(lines, [ok("a"), too_long(), ok("b"), too_long(), ok("c")]);
        let longest = format!("{}\n", "a".repeat(MAX_LINE));
        assert!(all(longest.as_bytes()).await[0].is_ok());
    }
}

//! Lines: a kind and pairs, separated by tabs, in ASCII. What a value cannot carry is written `%XX`.

use std::{collections::BTreeMap, fmt};

/// The longest line in either direction, without its end, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// The longest value that we write, in bytes before they are written: `%XX` takes three, and a line has one such value.
const MAX_VALUE: usize = 16 * 1024;

/// The most pairs in one line.
const MAX_PAIRS: usize = 32;

/// Why a line cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Too long, and thrown away.
    #[error("a line of more than {MAX_LINE} bytes")]
    Overlong,
    /// A byte that no line has.
    #[error("a line that is not ASCII")]
    NotAscii,
    /// A key or a kind is not of small letters.
    #[error("a key that is not made of small letters")]
    Key,
    /// A field without `=`.
    #[error("a field that is not key=value")]
    Pair,
    /// The same key again.
    #[error("the key {0} twice")]
    Twice(String),
    /// More pairs than any order has.
    #[error("more than {MAX_PAIRS} fields")]
    TooMany,
    /// A `%` that is not followed by two hexadecimal digits, or bytes that are not UTF-8.
    #[error("a value of {0} that is not written as it should be")]
    Value(String),
}

/// A line that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: String,
    /// Its pairs.
    pub pairs: BTreeMap<String, String>,
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

impl Record {
    /// Reads a line without its end.
    ///
    /// # Errors
    /// [`LineError`]; never panics, whatever the bytes.
    pub fn read(line: &[u8]) -> Result<Self, LineError> {
        if line.len() > MAX_LINE {
            return Err(LineError::Overlong);
        }
        let text =
            std::str::from_utf8(line).ok().filter(|text| text.bytes().all(|b| b == b'\t' || b.is_ascii_graphic()));
        let mut fields = text.ok_or(LineError::NotAscii)?.split('\t');
        let kind = fields.next().filter(|kind| is_key(kind)).ok_or(LineError::Key)?.to_owned();
        let mut pairs = BTreeMap::new();
        for field in fields {
            let (key, value) = field.split_once('=').ok_or(LineError::Pair)?;
            if !is_key(key) {
                return Err(LineError::Key);
            }
            let value = decoded(value).ok_or_else(|| LineError::Value(key.to_owned()))?;
            if pairs.len() >= MAX_PAIRS {
                return Err(LineError::TooMany);
            }
            if pairs.insert(key.to_owned(), value).is_some() {
                return Err(LineError::Twice(key.to_owned()));
            }
        }
        Ok(Self { kind, pairs })
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str)
    }
}

fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A line that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line(String);

impl Line {
    /// A line of this kind.
    #[must_use]
    pub fn new(kind: &'static str) -> Self {
        Self(kind.to_owned())
    }

    /// With one more pair. A value that is too long is cut.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.push('\t');
        self.0.push_str(key);
        self.0.push('=');
        let value = value.to_string();
        let end = (0..=value.len().min(MAX_VALUE)).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
        for byte in value.bytes().take(end) {
            if byte.is_ascii_graphic() && byte != b'%' {
                self.0.push(char::from(byte));
            } else {
                self.0.push_str(&format!("%{byte:02X}"));
            }
        }
        self
    }

    /// With one more pair, if there is a value.
    #[must_use]
    pub fn maybe(self, key: &'static str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// The line without its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_a_kind_and_pairs() {
        let record = Record::read(b"post\tfuture=f-1\tfile=a%20b%25\tx=").unwrap();
        assert_eq!((record.kind.as_str(), record.get("future")), ("post", Some("f-1")));
        assert_eq!((record.get("file"), record.get("x"), record.get("y")), (Some("a b%"), Some(""), None));
        assert_eq!(Line::new("failed").with("reason", "ä b\n%").as_str(), "failed\treason=%C3%A4%20b%0A%25");
        assert_eq!(Line::new("a").maybe("b", None::<u8>).maybe("c", Some(1)).as_str(), "a\tc=1");
    }

    #[test]
    fn what_is_no_line_is_refused_with_its_reason() {
        for (line, error) in [
            (&b""[..], LineError::Key),
            (b"\tx=1", LineError::Key),
            (b"Post\tx=1", LineError::Key),
            (b"post\tx", LineError::Pair),
            (b"post\t=1", LineError::Key),
            (b"post\tx=1\tx=2", LineError::Twice("x".into())),
            (b"post\tx=%4", LineError::Value("x".into())),
            (b"post\tx=%+4", LineError::Value("x".into())),
            (b"post\tx=%ff", LineError::Value("x".into())),
            (b"post\tx=a b", LineError::NotAscii),
            (b"post\tx=\xc3\xa4", LineError::NotAscii),
            (b"post\r", LineError::NotAscii),
        ] {
            assert_eq!(Record::read(line), Err(error), "{line:?}");
        }
        assert_eq!(Record::read(&vec![b'a'; MAX_LINE + 1]), Err(LineError::Overlong));
        let many: String = (0..40u8).map(|n| format!("\t{}=", "a".repeat(usize::from(n) + 1))).collect();
        assert_eq!(Record::read(format!("post{many}").as_bytes()), Err(LineError::TooMany));
    }

    #[test]
    fn the_longest_line_that_we_write_is_one_that_can_be_read() {
        let line = Line::new("printed").with("future", "f".repeat(128)).with("text", "ä".repeat(100_000));
        assert!(line.as_str().len() <= MAX_LINE);
        assert!(Record::read(line.as_str().as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in "\\PC{0,200}", other in any::<String>()) {
            let line = Line::new("x").with("a", &value).with("b", &other);
            let record = Record::read(line.as_str().as_bytes()).unwrap();
            prop_assert_eq!(record.get("a"), Some(value.as_str()));
            prop_assert_eq!(record.get("b"), Some(other.as_str()));
        }

        #[test]
        fn any_bytes_are_survived(line in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Record::read(&line);
        }
    }
}

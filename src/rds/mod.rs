//! A look at the RDS of a result before any R reads it: what R would do with bytes that no R has written, without doing it.
//!
//! R's reader recurses (3,000,000 nested lists of 8 bytes each end it, even within `try()`), believes lengths, decompresses
//! without a bound and hands out promises that run at the first touch (CVE-2024-27322). So everything goes through here
//! first: one pass, nothing built, memory for the current depth alone. What a real R can have written is let through, and
//! what of it may run code later is counted. It does not say that the rest is harmless: it is still a stranger's data.
//!
//! The format is that of R's `serialize.c`, versions 2 and 3, XDR (big endian): an item is `flags: i32` (type in the low 8
//! bits), then what the type says, then its attributes.

mod bytes;
mod code;
mod format;
mod policy;

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, BufRead},
};

use bytes::Bytes;
use format::{Flags, types};
pub use policy::{Policy, UnknownPolicy};

/// How deep items may lie in one another. R 4.2 with a C stack of 8 MiB reads 20,000 levels of lists, pairs, attributes,
/// environments and compiled code, and dies of 40,000 of most of them.
pub const MAX_DEPTH: u32 = 10_000;

/// The longest name of an encoding in the header, and of a builtin function, in bytes.
const MAX_NAME: u64 = 256;

/// Names that the description of a compact vector of R's own consists of. Others read files (`mmap_real`), or load packages.
const COMPACT: [&[u8]; 11] = [
    b"base",
    b"compact_intseq",
    b"compact_realseq",
    b"deferred_string",
    b"wrap_complex",
    b"wrap_integer",
    b"wrap_list",
    b"wrap_logical",
    b"wrap_raw",
    b"wrap_real",
    b"wrap_string",
];

/// The longest of them, in bytes.
const LONGEST_COMPACT: u64 = 16;

/// Why bytes are not the RDS of a result that a reader should see.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// They begin in another way.
    #[error("it is compressed, or no RDS in R's binary format at all")]
    Format,
    /// They end too early.
    #[error("it is cut short")]
    Cut,
    /// Something follows the end.
    #[error("{0} bytes follow its end")]
    Trailing(u64),
    /// A length that the bytes left cannot hold.
    #[error("it announces {announced} items or bytes where {left} bytes are left")]
    Length {
        /// What is announced.
        announced: i64,
        /// What is left.
        left: u64,
    },
    /// R would die of it.
    #[error("it is nested more than {MAX_DEPTH} levels deep")]
    Depth,
    /// No R writes this.
    #[error("it holds {0}, which no R writes there")]
    Forged(&'static str),
    /// It cannot be read back.
    #[error("it cannot be read back")]
    Io(#[source] io::Error),
}

/// What a result carries that may run when somebody touches it, though R itself may have written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Arguments of functions that were not evaluated yet: they are, at first use.
    pub promises: u64,
    /// Variables that are a function call.
    pub active_bindings: u64,
    /// Compiled code; R believes it without a check when it runs.
    pub bytecode: u64,
    /// Pointers of native code, void where they arrive.
    pub pointers: u64,
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.promises, "promises"),
            (self.active_bindings, "active bindings"),
            (self.bytecode, "compiled functions"),
            (self.pointers, "external pointers"),
        ];
        let there = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what}: {count}"));
        f.write_str(&there.collect::<Vec<_>>().join(", "))
    }
}

/// Goes through the `size` bytes of a result.
///
/// # Errors
/// [`ScanError`]; then no R should read it.
pub fn scan(from: impl BufRead, size: u64) -> Result<Carried, ScanError> {
    let mut scan = Scan {
        bytes: Bytes { from, left: size },
        todo: Vec::new(),
        refs: 0,
        compact: BTreeSet::new(),
        carried: Carried::default(),
    };
    scan.header()?;
    scan.push(0, What::Items(1, Place::Element))?;
    while let Some((depth, what)) = scan.todo.pop() {
        scan.step(depth, what)?;
    }
    match scan.bytes.left {
        0 => Ok(scan.carried),
        left => Err(ScanError::Trailing(left)),
    }
}

/// Where an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On its own, or in a list.
    Element,
    /// In a pair, an environment or a function.
    Pair,
    /// The attributes of something.
    Attributes,
}

/// What is to be read next. The depth of recursion at which R would read it goes with it.
#[derive(Debug, Clone, Copy)]
enum What {
    Items(u64, Place),
    Strings(u64),
    /// The class of a compact vector.
    CompactInfo,
    /// Of compiled code with so many shared parts: its instructions and constants, so many constants, and a call in it.
    Code(u32),
    Constants(u64, u32),
    Call(u32),
}

struct Scan<R> {
    bytes: Bytes<R>,
    todo: Vec<(u32, What)>,
    /// How many things could be referred to so far.
    refs: u32,
    /// Which of them are names out of [`COMPACT`].
    compact: BTreeSet<u32>,
    carried: Carried,
}

impl<R: BufRead> Scan<R> {
    fn header(&mut self) -> Result<(), ScanError> {
        if self.bytes.take::<2>().map_err(|_| ScanError::Format)? != *b"X\n" {
            return Err(ScanError::Format);
        }
        let [version, _writer, _oldest_reader] = [self.bytes.int()?, self.bytes.int()?, self.bytes.int()?];
        match version {
            2 => Ok(()),
            3 => self.name(),
            _ => Err(ScanError::Format),
        }
    }

    /// A short length and so many bytes.
    fn name(&mut self) -> Result<(), ScanError> {
        let length = self.bytes.int()?;
        let length = self.bytes.room(i64::from(length), 1)?;
        if length > MAX_NAME { Err(ScanError::Forged("an endless name")) } else { self.bytes.skip(length) }
    }

    fn push(&mut self, depth: u32, what: What) -> Result<(), ScanError> {
        if depth > MAX_DEPTH {
            return Err(ScanError::Depth);
        }
        if !matches!(what, What::Items(0, _) | What::Strings(0) | What::Constants(0, _)) {
            self.todo.push((depth, what));
        }
        Ok(())
    }

    fn step(&mut self, depth: u32, what: What) -> Result<(), ScanError> {
        match what {
            What::Items(count, place) => {
                self.push(depth, What::Items(count.saturating_sub(1), place))?;
                self.item(depth, place)
            }
            What::Strings(count) => (0..count).try_for_each(|_| self.string().map(drop)),
            What::CompactInfo => self.compact_info(),
            What::Code(shared) => self.code(depth, shared),
            What::Constants(count, shared) => self.constants(depth, count, shared),
            What::Call(shared) => {
                let kind = self.bytes.kind()?;
                self.call(depth, kind, shared)
            }
        }
    }

    fn item(&mut self, depth: u32, place: Place) -> Result<(), ScanError> {
        let flags = Flags(self.bytes.word()?);
        let kind = flags.kind();
        if place == Place::Attributes && !matches!(kind, types::LIST | types::NULL) {
            return Err(ScanError::Forged("attributes that are no pairlist"));
        }
        match kind {
            types::REFERENCE => self.reference(flags.0 >> 8).map(drop),
            types::BASE_ENVIRONMENT | types::EMPTY_ENVIRONMENT | types::BASE_NAMESPACE..=types::NULL => Ok(()),
            types::SYMBOL => self.symbol(),
            types::PACKAGE | types::NAMESPACE => {
                if self.bytes.int()? != 0 {
                    return Err(ScanError::Forged("a package with names"));
                }
                self.refs = self.refs.saturating_add(1);
                let count = self.bytes.length(4)?;
                self.push(depth + 1, What::Strings(count))
            }
            types::ENVIRONMENT => {
                self.refs = self.refs.saturating_add(1);
                let _locked = self.bytes.int()?;
                self.push(depth + 1, What::Items(4, Place::Pair))
            }
            types::LIST | types::CLOSURE | types::PROMISE | types::LANGUAGE | types::DOTS => {
                self.pair(depth, flags, place)
            }
            _ => self.object(depth, flags),
        }
    }

    /// Attributes and a tag, if there are any, and the two halves.
    fn pair(&mut self, depth: u32, flags: Flags, place: Place) -> Result<(), ScanError> {
        if flags.kind() == types::PROMISE {
            if place != Place::Pair {
                return Err(ScanError::Forged("a promise as a value"));
            }
            self.carried.promises += 1;
        }
        self.carried.active_bindings += u64::from(flags.active_binding());
        self.push(depth + 1, What::Items(2 + u64::from(flags.tag()), Place::Pair))?;
        self.attributes(depth, flags)
    }

    fn attributes(&mut self, depth: u32, flags: Flags) -> Result<(), ScanError> {
        self.push(depth + 1, What::Items(u64::from(flags.attributes()), Place::Attributes))
    }

    /// What has its attributes at its end.
    fn object(&mut self, depth: u32, flags: Flags) -> Result<(), ScanError> {
        let kind = flags.kind();
        if kind != types::COMPACT {
            self.attributes(depth, flags)?;
        }
        match kind {
            types::SPECIAL | types::BUILTIN => self.name(),
            types::CHARS => self.chars().map(drop),
            types::LOGICAL | types::INTEGER => self.plain(4),
            types::REAL => self.plain(8),
            types::COMPLEX => self.plain(16),
            types::RAW => self.plain(1),
            types::STRING => {
                let count = self.bytes.length(4)?;
                self.push(depth + 1, What::Strings(count))
            }
            types::VECTOR | types::EXPRESSION => {
                let count = self.bytes.length(4)?;
                self.push(depth + 1, What::Items(count, Place::Element))
            }
            types::S4 => Ok(()),
            types::BYTECODE => {
                self.carried.bytecode += 1;
                let shared = self.bytes.int()?;
                let shared = self.bytes.room(i64::from(shared), 1)?;
                self.push(depth + 1, What::Code(u32::try_from(shared).unwrap_or_default()))
            }
            types::POINTER => {
                self.carried.pointers += 1;
                self.refs = self.refs.saturating_add(1);
                self.push(depth + 1, What::Items(2, Place::Pair))
            }
            types::WEAK_REFERENCE => {
                self.refs = self.refs.saturating_add(1);
                Ok(())
            }
            types::COMPACT => {
                self.push(depth + 1, What::Items(1, Place::Attributes))?;
                self.push(depth + 1, What::Items(1, Place::Pair))?;
                self.push(depth + 1, What::CompactInfo)
            }
            _ => Err(ScanError::Forged("an unknown type")),
        }
    }

    fn plain(&mut self, size: u64) -> Result<(), ScanError> {
        let count = self.bytes.length(size)?;
        self.bytes.skip(count * size)
    }

    /// An element of a character vector: nothing else can be one.
    fn string(&mut self) -> Result<Option<Vec<u8>>, ScanError> {
        let flags = Flags(self.bytes.word()?);
        if flags.kind() != types::CHARS || flags.attributes() {
            return Err(ScanError::Forged("something else in the place of a string"));
        }
        self.chars()
    }

    /// The bytes of a string that is short enough to be one of [`COMPACT`].
    fn chars(&mut self) -> Result<Option<Vec<u8>>, ScanError> {
        let length = match self.bytes.int()? {
            -1 => return Ok(None),
            length => self.bytes.room(i64::from(length), 1)?,
        };
        if length > LONGEST_COMPACT {
            return self.bytes.skip(length).map(|()| None);
        }
        (0..length).map(|_| self.bytes.take::<1>().map(|[byte]| byte)).collect::<Result<_, _>>().map(Some)
    }

    fn symbol(&mut self) -> Result<(), ScanError> {
        let name = self.string()?;
        self.refs = self.refs.saturating_add(1);
        if name.is_some_and(|name| COMPACT.contains(&name.as_slice())) {
            self.compact.insert(self.refs);
        }
        Ok(())
    }

    fn reference(&mut self, packed: u32) -> Result<u32, ScanError> {
        let index = if packed == 0 { self.bytes.word()? } else { packed };
        if index == 0 || index > self.refs { Err(ScanError::Forged("a reference to nothing")) } else { Ok(index) }
    }

    /// A pairlist of class, package and type.
    fn compact_info(&mut self) -> Result<(), ScanError> {
        let foreign = || ScanError::Forged("a vector of a foreign class");
        for _ in 0..2 {
            if self.bytes.word()? & 0x6ff != u32::from(types::LIST) {
                return Err(foreign());
            }
            let flags = Flags(self.bytes.word()?);
            let name = match flags.kind() {
                types::SYMBOL => {
                    self.symbol()?;
                    self.refs
                }
                types::REFERENCE => self.reference(flags.0 >> 8)?,
                _ => return Err(foreign()),
            };
            if !self.compact.contains(&name) {
                return Err(foreign());
            }
        }
        let kind = [self.bytes.word()?, self.bytes.word()?, self.bytes.word()?];
        let (_, end) = (self.bytes.word()?, self.bytes.word()?);
        let good = [u32::from(types::LIST), u32::from(types::INTEGER), 1];
        if kind == good && end == u32::from(types::NULL) { Ok(()) } else { Err(foreign()) }
    }
}

#[cfg(test)]
mod tests;

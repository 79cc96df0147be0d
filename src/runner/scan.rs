//! A look at the RDS of a result before any R reads it: what R would do with bytes that no R has written, without doing it.
//!
//! R's reader recurses (3,000,000 nested lists of 8 bytes each end it, even within `try()`), believes lengths, decompresses
//! without a bound and hands out promises that run at the first touch (CVE-2024-27322). So everything goes through here
//! first: one pass, nothing built, memory for the current depth alone. What a real R can have written is let through, and
//! what of it may run code later is counted. It does not say that the rest is harmless: it is still a stranger's data.
//!
//! The format is that of R's `serialize.c`, versions 2 and 3, XDR (big endian): an item is `flags: i32` (type in the low 8
//! bits), then what the type says, then its attributes.

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, BufRead},
};

/// How deep items may lie in one another. R 4.2 and 4.6 with a C stack of 8 MiB read 20,000 levels of every type and die of 40,000.
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

mod types {
    pub(super) const SYMBOL: u8 = 1;
    pub(super) const LIST: u8 = 2;
    pub(super) const CLOSURE: u8 = 3;
    pub(super) const ENVIRONMENT: u8 = 4;
    pub(super) const PROMISE: u8 = 5;
    pub(super) const LANGUAGE: u8 = 6;
    pub(super) const SPECIAL: u8 = 7;
    pub(super) const BUILTIN: u8 = 8;
    pub(super) const CHARS: u8 = 9;
    pub(super) const LOGICAL: u8 = 10;
    pub(super) const INTEGER: u8 = 13;
    pub(super) const REAL: u8 = 14;
    pub(super) const COMPLEX: u8 = 15;
    pub(super) const STRING: u8 = 16;
    pub(super) const DOTS: u8 = 17;
    pub(super) const VECTOR: u8 = 19;
    pub(super) const EXPRESSION: u8 = 20;
    pub(super) const BYTECODE: u8 = 21;
    pub(super) const POINTER: u8 = 22;
    pub(super) const WEAK_REFERENCE: u8 = 23;
    pub(super) const RAW: u8 = 24;
    pub(super) const S4: u8 = 25;
    pub(super) const COMPACT: u8 = 238;
    pub(super) const ATTRIBUTED_LIST: u8 = 239;
    pub(super) const ATTRIBUTED_LANGUAGE: u8 = 240;
    /// The empty and the base environment.
    pub(super) const BASE_ENVIRONMENT: u8 = 241;
    pub(super) const EMPTY_ENVIRONMENT: u8 = 242;
    pub(super) const SHARED_USE: u8 = 243;
    pub(super) const SHARED: u8 = 244;
    pub(super) const PACKAGE: u8 = 248;
    pub(super) const NAMESPACE: u8 = 249;
    /// From the base namespace to the empty pairlist: nothing follows.
    pub(super) const BASE_NAMESPACE: u8 = 250;
    pub(super) const NULL: u8 = 254;
    pub(super) const REFERENCE: u8 = 255;
}

/// The first word of an item.
#[derive(Debug, Clone, Copy)]
struct Flags(u32);

impl Flags {
    fn kind(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    fn attributes(self) -> bool {
        self.0 & 0x200 != 0
    }

    fn tag(self) -> bool {
        self.0 & 0x400 != 0
    }

    /// Bit 15 of what R calls levels, which begin at bit 12.
    fn active_binding(self) -> bool {
        self.kind() == types::LIST && self.0 & (1 << 27) != 0
    }
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
            What::Constants(count, shared) => {
                self.push(depth, What::Constants(count.saturating_sub(1), shared))?;
                match self.bytes.kind()? {
                    types::BYTECODE => self.push(depth + 1, What::Code(shared)),
                    kind if is_call(kind) || matches!(kind, types::SHARED | types::SHARED_USE) => {
                        self.call(depth, kind, shared)
                    }
                    _ => self.push(depth + 1, What::Items(1, Place::Pair)),
                }
            }
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

    /// Instructions, which are an integer vector, and constants.
    fn code(&mut self, depth: u32, shared: u32) -> Result<(), ScanError> {
        if Flags(self.bytes.word()?).kind() != types::INTEGER {
            return Err(ScanError::Forged("compiled code without instructions"));
        }
        self.plain(4)?;
        let count = self.bytes.int()?;
        let count = self.bytes.room(i64::from(count), 4)?;
        self.push(depth, What::Constants(count, shared))
    }

    /// A call among the constants of compiled code: parts of it may be shared.
    fn call(&mut self, depth: u32, kind: u8, shared: u32) -> Result<(), ScanError> {
        let kind = match kind {
            types::SHARED | types::SHARED_USE => {
                let index = self.bytes.word()?;
                if index >= shared {
                    return Err(ScanError::Forged("a reference to nothing"));
                }
                if kind == types::SHARED_USE {
                    return Ok(());
                }
                match self.bytes.kind()? {
                    kind if is_call(kind) => kind,
                    _ => return Err(ScanError::Forged("a shared part that is no call")),
                }
            }
            kind => kind,
        };
        if !is_call(kind) {
            return self.push(depth + 1, What::Items(1, Place::Pair));
        }
        self.push(depth + 1, What::Call(shared))?;
        self.push(depth + 1, What::Call(shared))?;
        self.push(depth + 1, What::Items(1, Place::Pair))?;
        let has = matches!(kind, types::ATTRIBUTED_LANGUAGE | types::ATTRIBUTED_LIST);
        self.push(depth + 1, What::Items(u64::from(has), Place::Attributes))
    }
}

/// Whether compiled code spells such a constant out: a call or a pairlist.
fn is_call(kind: u8) -> bool {
    use types::{ATTRIBUTED_LANGUAGE, ATTRIBUTED_LIST, LANGUAGE, LIST};
    matches!(kind, LANGUAGE | LIST | ATTRIBUTED_LANGUAGE | ATTRIBUTED_LIST)
}

/// The bytes, and how many are left.
struct Bytes<R> {
    from: R,
    left: u64,
}

impl<R: BufRead> Bytes<R> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ScanError> {
        self.left = self.left.checked_sub(N as u64).ok_or(ScanError::Cut)?;
        let mut bytes = [0u8; N];
        self.from.read_exact(&mut bytes).map_err(ScanError::Io)?;
        Ok(bytes)
    }

    fn int(&mut self) -> Result<i32, ScanError> {
        self.take().map(i32::from_be_bytes)
    }

    fn word(&mut self) -> Result<u32, ScanError> {
        self.take().map(u32::from_be_bytes)
    }

    /// The type of what follows in compiled code: a whole word.
    fn kind(&mut self) -> Result<u8, ScanError> {
        u8::try_from(self.word()?).map_err(|_| ScanError::Forged("an unknown type"))
    }

    /// The length of a vector whose elements take at least `size` bytes each.
    fn length(&mut self, size: u64) -> Result<u64, ScanError> {
        let length = match self.int()? {
            -1 => (i64::from(self.int()?) << 32) | i64::from(self.word()?),
            length => i64::from(length),
        };
        self.room(length, size)
    }

    /// A count, if there is room for so many things of this size.
    fn room(&self, announced: i64, size: u64) -> Result<u64, ScanError> {
        let count = u64::try_from(announced).ok().filter(|count| *count <= self.left / size);
        count.ok_or(ScanError::Length { announced, left: self.left })
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), ScanError> {
        self.left = self.left.checked_sub(bytes).ok_or(ScanError::Cut)?;
        while bytes > 0 {
            let there = self.from.fill_buf().map_err(ScanError::Io)?.len();
            let now = there.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            if now == 0 {
                return Err(ScanError::Cut);
            }
            self.from.consume(now);
            bytes -= now as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;

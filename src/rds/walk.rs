//! The walk over all items, in the order of the bytes, with a stack of what is still to come.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::BufRead,
};

use super::{
    Carried, MAX_DEPTH, ScanError,
    bytes::Bytes,
    compact::LONGEST_COMPACT,
    findings::{Finding, Findings},
    format::{Flags, types},
    outer::{Outer, Texts},
    path::{Names, Path, Place, Step},
};

/// The longest name of an encoding in the header, and of a builtin function, in bytes.
const MAX_NAME: u64 = 256;

/// The longest text that is remembered, in bytes: a name, or a part of a uuid.
const MAX_TEXT: u64 = 128;

/// What is to be read next. The depth of recursion at which R would read it goes with it.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// The outermost value, its attributes, and the value of one of them.
    Outer,
    OuterAttributes,
    OuterAttribute(Texts),
    /// So many items of how many.
    Items {
        left: u64,
        all: u64,
        place: Place,
    },
    Strings(u64),
    /// Strings that say what the outermost value is.
    Texts(u64, Texts),
    /// The class and the state of a compact vector.
    Compact,
    /// What is known of a vector that a compact one wraps.
    Known,
    /// Of compiled code with so many shared parts: its instructions and constants, so many constants, and a call in it.
    Code(u32),
    Constants(u64, u32),
    Call(u32),
}

pub(super) struct Scan<R> {
    pub(super) bytes: Bytes<R>,
    todo: Vec<(u32, What)>,
    /// How many things could be referred to so far.
    pub(super) refs: u32,
    /// Which of them are names that describe compact vectors, and which name the pointers of data.table.
    pub(super) compact: BTreeMap<u32, Vec<u8>>,
    own_pointers: BTreeSet<u32>,
    names: Names,
    /// The name in front of the next value, by its number.
    tag: Option<u32>,
    /// The promise whose code comes next has no value yet.
    unevaluated: bool,
    path: Path,
    pub(super) carried: Carried,
    pub(super) findings: Findings,
    pub(super) outer: Outer,
}

/// Whether a promise with such code does nothing when it is touched: its code is a constant, or a name that is looked up.
fn is_simple(kind: u8) -> bool {
    use types::{COMPLEX, INTEGER, LOGICAL, NULL, REAL, REFERENCE, STRING, SYMBOL};
    matches!(kind, NULL | SYMBOL | REFERENCE | LOGICAL | INTEGER | REAL | COMPLEX | STRING)
}

impl<R: BufRead> Scan<R> {
    pub(super) fn new(from: R, size: u64) -> Self {
        Self {
            bytes: Bytes::new(from, size),
            todo: Vec::new(),
            refs: 0,
            compact: BTreeMap::new(),
            own_pointers: BTreeSet::new(),
            names: Names::default(),
            tag: None,
            unevaluated: false,
            path: Path::default(),
            carried: Carried::default(),
            findings: Findings::default(),
            outer: Outer::default(),
        }
    }

    pub(super) fn walk(&mut self) -> Result<(), ScanError> {
        self.header()?;
        self.push(0, What::Outer)?;
        while let Some((depth, what)) = self.todo.pop() {
            self.step(depth, what)?;
        }
        match self.bytes.left {
            0 => Ok(()),
            left => Err(ScanError::Trailing(left)),
        }
    }

    /// Where the walk is, in words.
    pub(super) fn place(&self) -> String {
        self.path.in_words(&self.names, &self.outer)
    }

    fn header(&mut self) -> Result<(), ScanError> {
        match &self.bytes.take::<2>().map_err(|_| ScanError::Format)? {
            b"X\n" => {}
            b"B\n" => self.bytes.is_little = true,
            _ => return Err(ScanError::Format),
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

    pub(super) fn push(&mut self, depth: u32, what: What) -> Result<(), ScanError> {
        if depth > MAX_DEPTH {
            return Err(ScanError::Depth);
        }
        let is_empty =
            matches!(what, What::Items { left: 0, .. } | What::Strings(0) | What::Texts(0, _) | What::Constants(0, _));
        if !is_empty {
            self.todo.push((depth, what));
        }
        Ok(())
    }

    /// So many items at this place.
    pub(super) fn items(&mut self, depth: u32, count: u64, place: Place) -> Result<(), ScanError> {
        self.push(depth, What::Items { left: count, all: count, place })
    }

    fn step(&mut self, depth: u32, what: What) -> Result<(), ScanError> {
        match what {
            What::Outer => self.outermost(),
            What::OuterAttributes => self.outer_attributes(),
            What::OuterAttribute(which) => {
                let flags = Flags(self.bytes.word()?);
                self.path.at(depth, Step { place: Place::AttributeValue, number: 0, name: self.tag });
                if flags.kind() == types::STRING && !flags.attributes() {
                    let count = self.bytes.length(4)?;
                    return self.push(depth, What::Texts(count, which));
                }
                self.item(depth, flags, Place::AttributeValue)
            }
            What::Items { left, all, place } => {
                self.push(depth, What::Items { left: left.saturating_sub(1), all, place })?;
                let name = place.is_named().then_some(self.tag).flatten();
                self.path.at(depth, Step { place, number: all.saturating_sub(left), name });
                let flags = Flags(self.bytes.word()?);
                self.item(depth, flags, place)
            }
            What::Strings(count) => (0..count).try_for_each(|_| self.string(0).map(drop)),
            What::Texts(count, which) => (0..count).try_for_each(|_| {
                let text = self.string(MAX_TEXT)?;
                self.outer.hear(which, text);
                Ok(())
            }),
            What::Compact => self.compact(depth),
            What::Known => self.known(),
            What::Code(shared) => self.code(depth, shared),
            What::Constants(count, shared) => self.constants(depth, count, shared),
            What::Call(shared) => {
                let kind = self.bytes.kind()?;
                self.call(depth, kind, shared)
            }
        }
    }

    /// The whole: a list that says what it is in its attributes, or anything else.
    fn outermost(&mut self) -> Result<(), ScanError> {
        let flags = Flags(self.bytes.word()?);
        self.path.at(0, Step { place: Place::Outer, number: 0, name: None });
        if flags.kind() != types::VECTOR {
            return self.item(0, flags, Place::Element);
        }
        self.outer.is_list = true;
        if flags.attributes() {
            self.push(1, What::OuterAttributes)?;
        }
        let count = self.bytes.length(4)?;
        self.items(1, count, Place::Element)
    }

    fn outer_attributes(&mut self) -> Result<(), ScanError> {
        let flags = Flags(self.bytes.word()?);
        match flags.kind() {
            types::NULL => Ok(()),
            types::LIST if flags.tag() && !flags.attributes() => {
                let tag = self.tag_name()?;
                self.tag = Some(tag);
                let which = Texts::of(self.names.get(tag));
                self.push(1, What::OuterAttributes)?;
                self.push(2, What::OuterAttribute(which))
            }
            _ => Err(ScanError::Forged("attributes that are no pairlist")),
        }
    }

    /// A symbol, or the number of one.
    pub(super) fn tag_name(&mut self) -> Result<u32, ScanError> {
        let flags = Flags(self.bytes.word()?);
        match flags.kind() {
            types::SYMBOL => self.symbol().map(|()| self.refs),
            types::REFERENCE => self.reference(flags.0 >> 8),
            _ => Err(ScanError::Forged("an attribute without a name")),
        }
    }

    /// One item, after its flags.
    fn item(&mut self, depth: u32, flags: Flags, place: Place) -> Result<(), ScanError> {
        let kind = flags.kind();
        if place == Place::Attributes && !matches!(kind, types::LIST | types::NULL) {
            return Err(ScanError::Forged("attributes that are no pairlist"));
        }
        if place == Place::Tag {
            self.tag = None;
        }
        if place == Place::PromiseCode && std::mem::take(&mut self.unevaluated) && !is_simple(kind) {
            self.found(Finding::Promise);
        }
        match kind {
            types::REFERENCE => {
                let index = self.reference(flags.0 >> 8)?;
                if place == Place::Tag {
                    self.tag = Some(index);
                }
                Ok(())
            }
            types::UNBOUND if place == Place::PromiseValue => {
                self.unevaluated = true;
                Ok(())
            }
            types::NAMESPACE | types::PACKAGE => {
                if self.bytes.int()? != 0 {
                    return Err(ScanError::Forged("a package with names"));
                }
                self.found(Finding::Environment);
                self.refs = self.refs.saturating_add(1);
                let count = self.bytes.length(4)?;
                self.push(depth + 1, What::Strings(count))
            }
            types::BASE_NAMESPACE => {
                self.found(Finding::Environment);
                Ok(())
            }
            types::BASE_ENVIRONMENT | types::EMPTY_ENVIRONMENT | types::BASE_NAMESPACE..=types::NULL => Ok(()),
            types::SYMBOL => {
                self.symbol()?;
                if place == Place::Tag {
                    self.tag = Some(self.refs);
                } else {
                    self.found(Finding::Call);
                }
                Ok(())
            }
            types::ENVIRONMENT => {
                self.found(Finding::Environment);
                self.refs = self.refs.saturating_add(1);
                let _locked = self.bytes.int()?;
                self.items(depth + 1, 1, Place::Attributes)?;
                self.items(depth + 1, 1, Place::Table)?;
                self.items(depth + 1, 1, Place::Frame)?;
                self.items(depth + 1, 1, Place::Enclosure)
            }
            types::LIST | types::CLOSURE | types::PROMISE | types::LANGUAGE | types::DOTS => {
                self.pair(depth, flags, place)
            }
            _ => self.object(depth, flags, place),
        }
    }

    pub(super) fn found(&mut self, what: Finding) {
        if self.findings.wants(what, self.path.outer()) {
            let place = self.path.within(&self.names);
            self.findings.note(what, self.path.outer(), place);
        }
    }

    /// Attributes and a tag, if there are any, and the two halves.
    fn pair(&mut self, depth: u32, flags: Flags, place: Place) -> Result<(), ScanError> {
        let (tag, first, second) = match flags.kind() {
            types::PROMISE => {
                if !place.may_be_promise() {
                    return Err(ScanError::Forged("a promise as a value"));
                }
                self.carried.promises += 1;
                (Place::Environment, Place::PromiseValue, Place::PromiseCode)
            }
            types::CLOSURE => {
                self.found(Finding::Function);
                (Place::Environment, Place::Arguments, Place::Code)
            }
            types::LIST if place == Place::Attributes && !flags.tag() => {
                return Err(ScanError::Forged("an attribute without a name"));
            }
            types::LIST if place == Place::Attributes => (Place::Tag, Place::AttributeValue, Place::Attributes),
            types::LANGUAGE => {
                self.found(Finding::Call);
                (Place::Tag, Place::Value, Place::Rest)
            }
            _ => (Place::Tag, Place::Value, Place::Rest),
        };
        if flags.active_binding() {
            self.carried.active_bindings += 1;
            self.found(Finding::ActiveBinding);
        }
        self.tag = None;
        self.items(depth + 1, 1, second)?;
        self.items(depth + 1, 1, first)?;
        self.items(depth + 1, u64::from(flags.tag()), tag)?;
        self.attributes(depth, flags)
    }

    fn attributes(&mut self, depth: u32, flags: Flags) -> Result<(), ScanError> {
        self.items(depth + 1, u64::from(flags.attributes()), Place::Attributes)
    }

    /// What has its attributes at its end.
    fn object(&mut self, depth: u32, flags: Flags, place: Place) -> Result<(), ScanError> {
        let kind = flags.kind();
        if kind == types::COMPACT {
            self.items(depth + 1, 1, Place::Attributes)?;
            return self.push(depth + 1, What::Compact);
        }
        // A name that was in front of this value is not for what is in it.
        let tag = self.tag.take();
        self.attributes(depth, flags)?;
        match kind {
            types::SPECIAL | types::BUILTIN => {
                self.found(Finding::Function);
                self.name()
            }
            types::CHARS => self.chars(0).map(drop),
            types::LOGICAL | types::INTEGER => self.plain(4),
            types::REAL => self.plain(8),
            types::COMPLEX => self.plain(16),
            types::RAW => self.plain(1),
            types::STRING => {
                let count = self.bytes.length(4)?;
                let of_outer = self.path.outer().filter(|_| depth == 1 && place == Place::Element);
                match of_outer.filter(|_| !flags.attributes()) {
                    Some(number) => self.push(depth + 1, What::Texts(count, Texts::Element(number))),
                    None => self.push(depth + 1, What::Strings(count)),
                }
            }
            types::VECTOR | types::EXPRESSION => {
                if kind == types::EXPRESSION {
                    self.found(Finding::Call);
                }
                let count = self.bytes.length(4)?;
                let inner = if place == Place::Table { Place::Bucket } else { Place::Element };
                self.items(depth + 1, count, inner)
            }
            types::S4 => Ok(()),
            types::BYTECODE => {
                self.carried.bytecode += 1;
                if !matches!(place, Place::Code | Place::PromiseCode) {
                    self.found(Finding::Bytecode);
                }
                let shared = self.bytes.int()?;
                let shared = self.bytes.room(i64::from(shared), 1)?;
                self.push(depth + 1, What::Code(u32::try_from(shared).unwrap_or_default()))
            }
            types::POINTER => {
                self.carried.pointers += 1;
                self.refs = self.refs.saturating_add(1);
                // data.table marks its tables with one, and knows that it is void where it arrives.
                let is_own = place == Place::OwnPointer
                    || place == Place::AttributeValue && tag.is_some_and(|tag| self.own_pointers.contains(&tag));
                if !is_own {
                    self.found(Finding::Pointer);
                }
                self.items(depth + 1, 2, if is_own { Place::OwnPointer } else { Place::Rest })
            }
            types::WEAK_REFERENCE => {
                self.found(Finding::WeakReference);
                self.refs = self.refs.saturating_add(1);
                Ok(())
            }
            _ => Err(ScanError::Forged("an unknown type")),
        }
    }

    pub(super) fn plain(&mut self, size: u64) -> Result<(), ScanError> {
        let count = self.bytes.length(size)?;
        self.bytes.skip(count * size)
    }

    /// An element of a character vector: nothing else can be one. Its bytes, if there are at most so many.
    fn string(&mut self, most: u64) -> Result<Option<Vec<u8>>, ScanError> {
        let flags = Flags(self.bytes.word()?);
        if flags.kind() != types::CHARS || flags.attributes() {
            return Err(ScanError::Forged("something else in the place of a string"));
        }
        self.chars(most)
    }

    fn chars(&mut self, most: u64) -> Result<Option<Vec<u8>>, ScanError> {
        let length = match self.bytes.int()? {
            -1 => return Ok(None),
            length => self.bytes.room(i64::from(length), 1)?,
        };
        if length > most {
            return self.bytes.skip(length).map(|()| None);
        }
        self.bytes.short(length).map(Some)
    }

    pub(super) fn symbol(&mut self) -> Result<(), ScanError> {
        let name = self.string(LONGEST_COMPACT.max(MAX_TEXT))?;
        self.refs = self.refs.saturating_add(1);
        let Some(name) = name else { return Ok(()) };
        self.note_compact(&name);
        if name == b".internal.selfref" {
            self.own_pointers.insert(self.refs);
        }
        self.names.hear(self.refs, &name);
        Ok(())
    }

    pub(super) fn reference(&mut self, packed: u32) -> Result<u32, ScanError> {
        let index = if packed == 0 { self.bytes.word()? } else { packed };
        if index == 0 || index > self.refs { Err(ScanError::Forged("a reference to nothing")) } else { Ok(index) }
    }
}

//! Compact vectors (`ALTREP`): a class of R's own, and a state of the form that it has. R believes both.

use std::io::BufRead;

use super::{
    ScanError,
    format::{Flags, types},
    path::Place,
    walk::{Scan, What},
};

/// The classes of compact vectors that R has of its own, each with the type of its vectors. Others read files (`mmap_real`), or
/// load packages.
const CLASSES: [(&[u8], u8); 10] = [
    (b"compact_intseq", types::INTEGER),
    (b"compact_realseq", types::REAL),
    (b"deferred_string", types::STRING),
    (b"wrap_complex", types::COMPLEX),
    (b"wrap_integer", types::INTEGER),
    (b"wrap_list", types::VECTOR),
    (b"wrap_logical", types::LOGICAL),
    (b"wrap_raw", types::RAW),
    (b"wrap_real", types::REAL),
    (b"wrap_string", types::STRING),
];

/// The package that they are in.
const PACKAGE: &[u8] = b"base";

/// The longest of them, in bytes.
pub(super) const LONGEST_COMPACT: u64 = 16;

/// The most elements that a sequence may say that it has: R's `R_XLEN_T_MAX`.
const MOST_ELEMENTS: f64 = 4_503_599_627_370_496.0;

fn foreign() -> ScanError {
    ScanError::Forged("a vector of a foreign class")
}

fn shapeless() -> ScanError {
    ScanError::Forged("a compact vector of no known shape")
}

impl<R: BufRead> Scan<R> {
    pub(super) fn note_compact(&mut self, name: &[u8]) {
        if name == PACKAGE || CLASSES.iter().any(|(class, _)| *class == name) {
            self.compact.insert(self.refs, name.to_vec());
        }
    }

    /// A symbol that describes a compact vector, or the number of one.
    fn described(&mut self) -> Result<Vec<u8>, ScanError> {
        if self.bytes.word()? & 0x6ff != u32::from(types::LIST) {
            return Err(foreign());
        }
        let number =
            self.tag_name().map_err(|error| if matches!(error, ScanError::Forged(_)) { foreign() } else { error })?;
        self.compact.get(&number).cloned().ok_or_else(foreign)
    }

    /// A pairlist of class, package and type; then the state.
    pub(super) fn compact(&mut self, depth: u32) -> Result<(), ScanError> {
        let (class, package) = (self.described()?, self.described()?);
        let known = CLASSES.iter().find(|(name, _)| *name == class);
        let kind = known.filter(|_| package == PACKAGE).map(|(_, kind)| u32::from(*kind)).ok_or_else(foreign)?;
        let [list, integer, one] = [self.bytes.word()?, self.bytes.word()?, self.bytes.word()?];
        let (told, end) = (self.bytes.word()?, self.bytes.word()?);
        let good = [u32::from(types::LIST), u32::from(types::INTEGER), 1, kind, u32::from(types::NULL)];
        if [list, integer, one, told, end] != good {
            return Err(foreign());
        }
        match class.as_slice() {
            b"compact_intseq" => self.sequence(true),
            b"compact_realseq" => self.sequence(false),
            _ => self.wrapped(depth),
        }
    }

    /// The state of a sequence: length, first and step.
    fn sequence(&mut self, is_integer: bool) -> Result<(), ScanError> {
        let flags = Flags(self.bytes.word()?);
        if flags.attributes() || self.bytes.int()? != 3 {
            return Err(shapeless());
        }
        let mut numbers = [0.0; 3];
        for number in &mut numbers {
            *number = match flags.kind() {
                types::INTEGER => f64::from(self.bytes.int()?),
                types::REAL => self.bytes.real()?,
                _ => return Err(shapeless()),
            };
        }
        let [length, first, step] = numbers;
        let good =
            (0.0..=MOST_ELEMENTS).contains(&length) && length.fract() == 0.0 && first.is_finite() && step.abs() == 1.0;
        let last = first + step * (length - 1.0);
        let fits = |number: f64| number.fract() == 0.0 && number.abs() <= f64::from(i32::MAX);
        let good = good && (!is_integer || fits(first) && fits(last));
        if good { Ok(()) } else { Err(shapeless()) }
    }

    /// The state of a wrapper and of a vector of numbers that are text: a pair of the vector and what is known of it.
    fn wrapped(&mut self, depth: u32) -> Result<(), ScanError> {
        let flags = Flags(self.bytes.word()?);
        if flags.kind() != types::LIST || flags.tag() || flags.attributes() {
            return Err(shapeless());
        }
        self.push(depth, What::Known)?;
        self.items(depth, 1, Place::Wrapped)
    }

    /// What is known of a wrapped vector: one or two integers.
    pub(super) fn known(&mut self) -> Result<(), ScanError> {
        let flags = Flags(self.bytes.word()?);
        let length = if flags.kind() == types::INTEGER { self.bytes.int()? } else { 0 };
        if flags.attributes() || !(1..=2).contains(&length) {
            return Err(shapeless());
        }
        (0..length).try_for_each(|_| self.bytes.int().map(drop))
    }
}

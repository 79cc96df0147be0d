//! Compact vectors (`ALTREP`): a class of R's own, and a state of the form that it has. R believes both.

use std::io::BufRead;

use super::{
    ScanError,
    format::{Flags, types},
    path::Place,
    walk::{Scan, What},
};

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
        if COMPACT.contains(&name) {
            self.compact.insert(self.refs);
            if name.starts_with(b"compact_") {
                self.sequences.insert(self.refs);
            }
        }
    }

    /// A pairlist of class, package and type; then the state.
    pub(super) fn compact(&mut self, depth: u32) -> Result<(), ScanError> {
        let mut names = [0; 2];
        for name in &mut names {
            if self.bytes.word()? & 0x6ff != u32::from(types::LIST) {
                return Err(foreign());
            }
            let flags = Flags(self.bytes.word()?);
            *name = match flags.kind() {
                types::SYMBOL => {
                    self.symbol()?;
                    self.refs
                }
                types::REFERENCE => self.reference(flags.0 >> 8)?,
                _ => return Err(foreign()),
            };
            if !self.compact.contains(name) {
                return Err(foreign());
            }
        }
        let kind = [self.bytes.word()?, self.bytes.word()?, self.bytes.word()?];
        let (_, end) = (self.bytes.word()?, self.bytes.word()?);
        let good = [u32::from(types::LIST), u32::from(types::INTEGER), 1];
        if kind != good || end != u32::from(types::NULL) {
            return Err(foreign());
        }
        let [class, _] = names;
        if self.sequences.contains(&class) { self.sequence() } else { self.wrapped(depth) }
    }

    /// The state of a sequence: length, first and step.
    fn sequence(&mut self) -> Result<(), ScanError> {
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
        let good = (0.0..=MOST_ELEMENTS).contains(&length) && first.is_finite() && step.abs() == 1.0;
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

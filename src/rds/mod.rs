//! A look at RDS of strangers before any R reads it: what R would do with bytes that no R has written, without doing it.
//!
//! R's reader recurses (3,000,000 nested lists of 8 bytes each end it, even within `try()`), believes lengths, decompresses
//! without a bound and hands out promises that run at the first touch (CVE-2024-27322). So everything goes through here
//! first: one pass, nothing built, memory for the current depth alone. What a real R can have written is let through, and
//! what of it may run code later is counted, or refused where the reader's [`Policy`] says so. It does not say that the
//! rest is harmless: it is still a stranger's data.
//!
//! The format is that of R's `serialize.c`, versions 2 and 3, XDR (big endian) or native (little endian): an item is
//! `flags: i32` (type in the low 8 bits), then what the type says, then its attributes. [`unpack()`] undoes compression, with
//! a bound, before anything is looked at.

mod bytes;
mod code;
mod compact;
mod findings;
mod format;
mod outer;
mod path;
mod policy;
mod unpack;
mod walk;

use std::{
    fmt,
    io::{self, BufRead},
};

pub use findings::Finding;
pub use policy::{Policy, UnknownPolicy};
pub use unpack::{UnpackError, packing, unpack};

use crate::ids::FutureId;
use walk::Scan;

/// How deep items may lie in one another. R 4.2 with a C stack of 8 MiB reads 20,000 levels of lists, pairs, attributes,
/// environments and compiled code, and dies of 40,000 of most of them.
pub const MAX_DEPTH: u32 = 10_000;

/// Why bytes are not the RDS of a result that a reader should see.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// They begin in another way.
    #[error("it is compressed, or no RDS in one of R's binary formats at all")]
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

/// Why a reader should not see what came.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No R has written it, or R would die of it.
    #[error("it is no RDS that R should read (at {place})")]
    Broken {
        /// Where.
        place: String,
        /// What is wrong.
        #[source]
        source: ScanError,
    },
    /// The reader does not want such things.
    #[error("it holds {what} (at {place}), which results = \"{policy}\" does not allow")]
    NotAllowed {
        /// What it is.
        what: Finding,
        /// Where the first one is.
        place: String,
        /// What the reader wants.
        policy: Policy,
    },
    /// It is something else.
    #[error("it is not the result of a future but {0}")]
    NoResult(String),
    /// It is the result of another future.
    #[error("it is the result of another future")]
    OtherFuture,
    /// It is compressed, and not as it should be.
    #[error(transparent)]
    Packed(#[from] UnpackError),
}

/// What a result carries that may run when somebody touches it, though R itself may have written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Arguments of functions, which are evaluated at first use unless they were already.
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

/// What a reader wants.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What it may hold.
    pub policy: Policy,
    /// It must be the result of this future; anything, where there is none.
    pub future: Option<&'a FutureId>,
}

/// Goes through `size` bytes.
///
/// # Errors
/// [`ScanError`]; then no R should read it.
pub fn scan(from: impl BufRead, size: u64) -> Result<Carried, ScanError> {
    let mut scan = Scan::new(from, size);
    scan.walk()?;
    Ok(scan.carried)
}

/// Goes through `size` bytes, and says whether they are what a reader wants.
///
/// # Errors
/// [`Refusal`]; then it should not see them.
pub fn examine(from: impl BufRead, size: u64, wanted: Wanted<'_>) -> Result<Carried, Refusal> {
    let mut scan = Scan::new(from, size);
    if let Err(source) = scan.walk() {
        return Err(Refusal::Broken { place: scan.place(), source });
    }
    if let Some(future) = wanted.future {
        scan.outer.check(future)?;
    }
    if let Some((what, place)) = scan.findings.refused_by(wanted.policy, &scan.outer) {
        return Err(Refusal::NotAllowed { what, place, policy: wanted.policy });
    }
    Ok(scan.carried)
}

#[cfg(test)]
mod tests;

//! Compiled code: instructions, and constants in a form of their own, in which calls may share parts.

use std::io::BufRead;

use super::{
    ScanError,
    format::{Flags, types},
    path::Place,
    walk::{Scan, What},
};

/// Whether compiled code spells such a constant out: a call or a pairlist.
fn is_call(kind: u8) -> bool {
    use types::{ATTRIBUTED_LANGUAGE, ATTRIBUTED_LIST, LANGUAGE, LIST};
    matches!(kind, LANGUAGE | LIST | ATTRIBUTED_LANGUAGE | ATTRIBUTED_LIST)
}

impl<R: BufRead> Scan<R> {
    /// Instructions, which are an integer vector, and constants.
    pub(super) fn code(&mut self, depth: u32, shared: u32) -> Result<(), ScanError> {
        if Flags(self.bytes.word()?).kind() != types::INTEGER {
            return Err(ScanError::Forged("compiled code without instructions"));
        }
        self.plain(4)?;
        let count = self.bytes.int()?;
        let count = self.bytes.room(i64::from(count), 4)?;
        self.push(depth, What::Constants(count, shared))
    }

    /// One constant, and then the others.
    pub(super) fn constants(&mut self, depth: u32, count: u64, shared: u32) -> Result<(), ScanError> {
        self.push(depth, What::Constants(count.saturating_sub(1), shared))?;
        match self.bytes.kind()? {
            types::BYTECODE => self.push(depth + 1, What::Code(shared)),
            kind if is_call(kind) || matches!(kind, types::SHARED | types::SHARED_USE) => {
                self.call(depth, kind, shared)
            }
            _ => self.items(depth + 1, 1, Place::Constant),
        }
    }

    /// A call among the constants of compiled code: parts of it may be shared.
    pub(super) fn call(&mut self, depth: u32, kind: u8, shared: u32) -> Result<(), ScanError> {
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
            return self.items(depth + 1, 1, Place::Constant);
        }
        self.push(depth + 1, What::Call(shared))?;
        self.push(depth + 1, What::Call(shared))?;
        self.items(depth + 1, 1, Place::Constant)?;
        let has = matches!(kind, types::ATTRIBUTED_LANGUAGE | types::ATTRIBUTED_LIST);
        self.items(depth + 1, u64::from(has), Place::Attributes)
    }
}

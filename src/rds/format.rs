//! What R's serialization consists of: types and flags, by the names and numbers of `serialize.c` and `Rinternals.h`.

/// The types of items.
pub(super) mod types {
    pub(in crate::rds) const SYMBOL: u8 = 1;
    pub(in crate::rds) const LIST: u8 = 2;
    pub(in crate::rds) const CLOSURE: u8 = 3;
    pub(in crate::rds) const ENVIRONMENT: u8 = 4;
    pub(in crate::rds) const PROMISE: u8 = 5;
    pub(in crate::rds) const LANGUAGE: u8 = 6;
    pub(in crate::rds) const SPECIAL: u8 = 7;
    pub(in crate::rds) const BUILTIN: u8 = 8;
    pub(in crate::rds) const CHARS: u8 = 9;
    pub(in crate::rds) const LOGICAL: u8 = 10;
    pub(in crate::rds) const INTEGER: u8 = 13;
    pub(in crate::rds) const REAL: u8 = 14;
    pub(in crate::rds) const COMPLEX: u8 = 15;
    pub(in crate::rds) const STRING: u8 = 16;
    pub(in crate::rds) const DOTS: u8 = 17;
    pub(in crate::rds) const VECTOR: u8 = 19;
    pub(in crate::rds) const EXPRESSION: u8 = 20;
    pub(in crate::rds) const BYTECODE: u8 = 21;
    pub(in crate::rds) const POINTER: u8 = 22;
    pub(in crate::rds) const WEAK_REFERENCE: u8 = 23;
    pub(in crate::rds) const RAW: u8 = 24;
    pub(in crate::rds) const S4: u8 = 25;
    pub(in crate::rds) const COMPACT: u8 = 238;
    pub(in crate::rds) const ATTRIBUTED_LIST: u8 = 239;
    pub(in crate::rds) const ATTRIBUTED_LANGUAGE: u8 = 240;
    /// The empty and the base environment.
    pub(in crate::rds) const BASE_ENVIRONMENT: u8 = 241;
    pub(in crate::rds) const EMPTY_ENVIRONMENT: u8 = 242;
    pub(in crate::rds) const SHARED_USE: u8 = 243;
    pub(in crate::rds) const SHARED: u8 = 244;
    pub(in crate::rds) const PACKAGE: u8 = 248;
    pub(in crate::rds) const NAMESPACE: u8 = 249;
    /// From the base namespace to the empty pairlist: nothing follows.
    pub(in crate::rds) const BASE_NAMESPACE: u8 = 250;
    /// No value at all: that of a promise that was not evaluated.
    pub(in crate::rds) const UNBOUND: u8 = 252;
    pub(in crate::rds) const NULL: u8 = 254;
    pub(in crate::rds) const REFERENCE: u8 = 255;
}

/// The first word of an item.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flags(pub(super) u32);

impl Flags {
    pub(super) fn kind(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    pub(super) fn attributes(self) -> bool {
        self.0 & 0x200 != 0
    }

    pub(super) fn tag(self) -> bool {
        self.0 & 0x400 != 0
    }

    /// Bit 15 of what R calls levels, which begin at bit 12.
    pub(super) fn active_binding(self) -> bool {
        self.kind() == types::LIST && self.0 & (1 << 27) != 0
    }
}

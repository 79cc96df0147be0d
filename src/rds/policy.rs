//! What a result may hold, as its reader wants it.

use std::{fmt, str::FromStr};

/// What a result may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// What the result of a future needs, functions and environments included.
    #[default]
    Standard,
    /// Data alone: nothing that could ever be called.
    DataOnly,
    /// Whatever R can have written.
    Any,
}

/// There is no such policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the policy for results must be standard, data-only or any")]
pub struct UnknownPolicy;

impl FromStr for Policy {
    type Err = UnknownPolicy;
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        match text {
            "standard" => Ok(Self::Standard),
            "data-only" => Ok(Self::DataOnly),
            "any" => Ok(Self::Any),
            _ => Err(UnknownPolicy),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standard => "standard",
            Self::DataOnly => "data-only",
            Self::Any => "any",
        })
    }
}

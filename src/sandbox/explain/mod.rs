//! What a profile denies, for an owner who wants to see it and decide: `exec --explain`.
//!
//! The kernel asks instead of denying ([`p2p_jail::spec::Explain`]), a [`Witness`] in this program writes down what was asked and
//! answers what the filter would have answered. Calls with paths it lets go on, after a look whether the path is one that the
//! profile decides about: it is on this machine and not in the sandbox, or it is there and must not be written or executed.
//! Nothing is decided here: whatever the witness answers to a call with a path, the mounts and Landlock have the last word,
//! and a call that is not on the allow-list is never let go on.
//!
//! What is told is as good as what the task let the witness see: it can change the memory that a path was read from. So an
//! explained run is for trying one's own code, and no worker explains.

mod advice;
mod calls;
mod witness;

use std::{collections::BTreeMap, path::PathBuf};

pub use advice::advise;
pub use witness::Witness;

use super::LaunchPlan;

/// The most different denials that are remembered.
const MOST: usize = 200;

/// One thing that was denied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// A system call that is not on the allow-list, by its number.
    Call(i64),
    /// An argument of one that is.
    Argument {
        /// Its number.
        call: i64,
        /// Which argument, from 0.
        argument: u8,
        /// The lower half of its value, which is what rules look at.
        value: u32,
    },
    /// A file or folder that is on this machine and not in the sandbox.
    Absent {
        /// Its path, inside as outside.
        path: PathBuf,
        /// Whether it was to be executed.
        execute: bool,
    },
    /// A place that can be read and was to be written.
    ReadOnly(PathBuf),
    /// A file that can be read and was to be executed.
    NoExecute(PathBuf),
}

/// All that was denied in one run, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Denials {
    /// What and how often.
    pub seen: BTreeMap<Denied, u64>,
    /// How often something else was denied when too many had been seen to remember it.
    pub more: u64,
}

impl Denials {
    /// What was denied more often than in a run of nothing at all, by so much; and of the rest, what there was.
    fn beyond(&self, nothing: &Self) -> (Self, Vec<&Denied>) {
        let mut own = Self { seen: BTreeMap::new(), more: self.more };
        let mut usual = Vec::new();
        for (denied, count) in &self.seen {
            match count.saturating_sub(nothing.seen.get(denied).copied().unwrap_or_default()) {
                0 => usual.push(denied),
                count => drop(own.seen.insert(denied.clone(), count)),
            }
        }
        (own, usual)
    }

    fn add(&mut self, denied: Denied) {
        if self.seen.len() >= MOST && !self.seen.contains_key(&denied) {
            self.more = self.more.saturating_add(1);
            return;
        }
        let count = self.seen.entry(denied).or_default();
        *count = count.saturating_add(1);
    }
}

impl LaunchPlan {
    /// The same, to be explained. `None` if there is no filter of system calls that could ask (driver `none`).
    #[must_use]
    pub fn explained(mut self) -> Option<Self> {
        let seccomp = self.spec.confinement.seccomp.as_mut()?;
        seccomp.explain = Some(p2p_jail::spec::Explain { watch: calls::watchable(seccomp) });
        Some(self)
    }
}

//! What of a result its reader may not want, and where the first of each kind is.

use std::{collections::BTreeMap, fmt};

use super::{Policy, outer::Outer};

/// Elements of the outermost list that are told apart.
const MOST_ELEMENTS: u64 = 64;

/// Something that a policy may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// An argument of a function that was never used, and is a call: it runs at the first touch.
    Promise,
    /// A variable that is a function call.
    ActiveBinding,
    /// A pointer of native code, but for that by which data.table marks its tables.
    Pointer,
    /// A weak reference.
    WeakReference,
    /// Compiled code that is not the code of a function or a promise.
    Bytecode,
    /// A function.
    Function,
    /// An environment with something in it, or the namespace of a package.
    Environment,
    /// A call, a symbol or an expression that is not evaluated.
    Call,
}

impl Finding {
    /// Whether a policy refuses it, in an element of this name.
    fn is_refused_by(self, policy: Policy, element: Option<&str>) -> bool {
        match (policy, self) {
            (Policy::Any, _) => false,
            (Policy::Standard, Self::Function | Self::Environment | Self::Call) => false,
            // Warnings and errors say which call they come from.
            (Policy::DataOnly, Self::Call) => element != Some("conditions"),
            (Policy::Standard | Policy::DataOnly, _) => true,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promise => "a promise, whose code runs when it is touched",
            Self::ActiveBinding => "an active binding, whose function runs when it is touched",
            Self::Pointer => "an external pointer",
            Self::WeakReference => "a weak reference",
            Self::Bytecode => "compiled code that belongs to no function",
            Self::Function => "a function",
            Self::Environment => "an environment",
            Self::Call => "a call or a symbol",
        })
    }
}

/// The first of each kind in each element of the outermost list.
#[derive(Debug, Default)]
pub(super) struct Findings(BTreeMap<(Finding, Option<u64>), String>);

impl Findings {
    /// Whether this would be the first.
    pub(super) fn wants(&self, what: Finding, element: Option<u64>) -> bool {
        element.is_none_or(|number| number < MOST_ELEMENTS) && !self.0.contains_key(&(what, element))
            || !self.0.keys().any(|(kind, _)| *kind == what)
    }

    pub(super) fn note(&mut self, what: Finding, element: Option<u64>, place: String) {
        self.0.insert((what, element), place);
    }

    /// The first one that a policy refuses, and where it is.
    pub(super) fn refused_by(&self, policy: Policy, outer: &Outer) -> Option<(Finding, String)> {
        let name = |element: &Option<u64>| element.and_then(|number| outer.name(number));
        let refused = self.0.iter().find(|((what, element), _)| what.is_refused_by(policy, name(element)));
        refused.map(|((what, element), place)| (*what, format!("{}{place}", outer.element(*element))))
    }
}

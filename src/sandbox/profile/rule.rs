//! A rule about an argument of a system call as it is written, and what the filter makes of it.

use p2p_jail::spec::{Condition, DenyRule, Test};
use serde::Deserialize;

use super::{
    CallRule, Place, ProfileError,
    raw::{contradiction, number},
};
use crate::sandbox::syscalls::{self, Call, CallError};

/// A rule as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    why: String,
    call: String,
    argument: u8,
    only: Option<Vec<Value>>,
    never: Option<Vec<Value>>,
    never_bits: Option<Vec<Value>>,
    never_together: Option<Vec<Value>>,
}

/// Values that remain allowed beside those of an inherited rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawException {
    why: String,
    values: Vec<Value>,
}

/// An argument's value: a number or the name of a constant.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Value {
    Number(u32),
    Name(String),
}

impl RawRule {
    /// Turns names into numbers.
    pub(super) fn resolve(self, profile: &str, key: String) -> Result<CallRule, ProfileError> {
        let place = format!("rules.{key}");
        let wrong =
            |what: &str| contradiction(profile, &["syscalls", "rules", &key], format!("syscalls.{place}: {what}"));
        if self.argument > 5 {
            return Err(wrong("system calls have arguments 0 to 5"));
        }
        let tests = self.tests().map_err(|error| match error {
            RuleError::Form(what) => wrong(what),
            RuleError::Constant(source) => ProfileError::Call { place: Place::of(profile), key: place.clone(), source },
        })?;
        let conditions = |tests: Vec<Test>| -> Vec<Condition> {
            tests.into_iter().map(|test| Condition { argument: self.argument, test }).collect()
        };
        let deny = match number(profile, &place, &self.call)? {
            Call::Number(syscall) => {
                tests.into_iter().map(|tests| DenyRule { syscall, conditions: conditions(tests) }).collect()
            }
            Call::Elsewhere => Vec::new(),
        };
        Ok(CallRule { name: key, why: self.why, call: self.call, exceptions: self.only.is_some(), deny })
    }

    /// Allows these values too.
    pub(super) fn except(&mut self, exception: RawException) -> Result<(), String> {
        let Some(only) = &mut self.only else {
            return Err(format!("no exception can be made from this rule: {}", self.why));
        };
        for value in values(&exception.values).map_err(|error| error.to_string())? {
            if let Some(why) = syscalls::never_excepted(&self.call, value) {
                return Err(format!("{value:#x} is never allowed: {why}"));
            }
        }
        only.extend(exception.values);
        self.why = format!("{}; except: {}", self.why, exception.why);
        Ok(())
    }

    /// What is denied: any of these, each of which is some tests that must all hold.
    fn tests(&self) -> Result<Vec<Vec<Test>>, RuleError> {
        let each =
            |test: fn(u32) -> Test, values: Vec<u32>| values.into_iter().map(|value| vec![test(value)]).collect();
        let all = |test: fn(u32) -> Test, values: Vec<u32>| vec![values.into_iter().map(test).collect()];
        match (&self.only, &self.never, &self.never_bits, &self.never_together) {
            (Some(only), None, None, None) => Ok(all(Test::NotEqual, values(only)?)),
            (None, Some(never), None, None) => Ok(each(Test::Equal, values(never)?)),
            (None, None, Some(any), None) => Ok(each(Test::BitSet, bits(any)?)),
            (None, None, None, Some(together)) => Ok(all(Test::BitSet, bits(together)?)),
            _ => Err(RuleError::Form("give exactly one of only, never, never_bits and never_together, each = [...]")),
        }
    }
}

/// What is wrong with the values of a rule.
#[derive(Debug, thiserror::Error)]
enum RuleError {
    #[error("{0}")]
    Form(&'static str),
    #[error(transparent)]
    Constant(CallError),
}

/// At least one: a rule without values would deny nothing, or everything.
fn values(values: &[Value]) -> Result<Vec<u32>, RuleError> {
    if values.is_empty() {
        return Err(RuleError::Form("the list of values is empty"));
    }
    values.iter().map(|value| value.number().map_err(RuleError::Constant)).collect()
}

fn bits(list: &[Value]) -> Result<Vec<u32>, RuleError> {
    let bits = values(list)?;
    if bits.iter().all(|bit| bit.is_power_of_two()) {
        Ok(bits)
    } else {
        Err(RuleError::Form("each of never_bits and never_together is one single bit"))
    }
}

impl Value {
    fn number(&self) -> Result<u32, CallError> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Name(name) => syscalls::constant(name),
        }
    }
}

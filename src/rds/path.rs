//! Where in the whole something is, and how that is said.

use std::collections::BTreeMap;

use super::outer::Outer;

/// How many symbols are remembered by name, for messages alone.
const MOST_NAMES: usize = 4096;

/// The longest such name, in bytes.
const LONGEST_NAME: usize = 64;

/// How many steps are told from the outermost on, and how many in front of the innermost.
const TOLD: (usize, usize) = (6, 3);

/// Where an item stands in the one around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The whole.
    Outer,
    /// In a list.
    Element,
    /// The attributes of something: a chain of pairs; and one of them.
    Attributes,
    AttributeValue,
    /// The name in front of a value, the value, and the rest of the chain.
    Tag,
    Value,
    Rest,
    /// Of an environment: the one around it, its variables as a chain, or as a table of chains.
    Enclosure,
    Frame,
    Table,
    Bucket,
    /// Of a function or a promise.
    Environment,
    Arguments,
    Code,
    PromiseValue,
    PromiseCode,
    /// A constant of compiled code.
    Constant,
    /// What a compact vector is made of.
    Wrapped,
    /// Within the pointer by which data.table knows its tables.
    OwnPointer,
}

impl Place {
    /// Whether a name goes with it.
    pub(super) fn is_named(self) -> bool {
        matches!(self, Self::Value | Self::AttributeValue)
    }

    /// Whether R writes promises there.
    pub(super) fn may_be_promise(self) -> bool {
        !matches!(self, Self::Outer | Self::Element | Self::Attributes | Self::AttributeValue | Self::Wrapped)
    }
}

/// One step on the way to an item.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) place: Place,
    /// Which of several, from 0.
    pub(super) number: u64,
    /// The number of the symbol that names it.
    pub(super) name: Option<u32>,
}

/// Symbols by their numbers.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<u32, String>);

impl Names {
    pub(super) fn hear(&mut self, number: u32, name: &[u8]) {
        if self.0.len() < MOST_NAMES && name.len() <= LONGEST_NAME {
            self.0.insert(number, String::from_utf8_lossy(name).into_owned());
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&str> {
        self.0.get(&number).map(String::as_str)
    }
}

/// The way to the current item.
#[derive(Debug, Default)]
pub(super) struct Path(Vec<Step>);

impl Path {
    /// The item at this depth is this one.
    pub(super) fn at(&mut self, depth: u32, step: Step) {
        self.0.truncate(depth as usize);
        self.0.resize(depth as usize, Step { place: Place::Rest, number: 0, name: None });
        self.0.push(step);
    }

    /// In which element of the outermost list it is.
    pub(super) fn outer(&self) -> Option<u64> {
        self.0.get(1).filter(|step| step.place == Place::Element).map(|step| step.number)
    }

    /// The way, without the element of the outermost list.
    pub(super) fn within(&self, names: &Names) -> String {
        let skipped = if self.outer().is_some() { 2 } else { 1 };
        let steps: Vec<String> = self.0.iter().skip(skipped).filter_map(|step| step.in_words(names)).collect();
        let (first, last) = TOLD;
        if steps.len() <= first + last {
            return steps.concat();
        }
        let (head, tail) = (steps.iter().take(first), steps.iter().skip(steps.len() - last));
        format!("{} …{}", head.cloned().collect::<String>(), tail.cloned().collect::<String>())
    }

    pub(super) fn in_words(&self, names: &Names, outer: &Outer) -> String {
        format!("{}{}", outer.element(self.outer()), self.within(names))
    }
}

impl Step {
    fn in_words(&self, names: &Names) -> Option<String> {
        let name = self.name.and_then(|number| names.get(number));
        Some(match self.place {
            Place::Element => format!("[[{}]]", self.number.saturating_add(1)),
            Place::Value => format!("${}", name?),
            Place::AttributeValue => format!(" → attribute {}", name.unwrap_or("without a name")),
            Place::Enclosure => " → the enclosing environment".to_owned(),
            Place::Environment => " → its environment".to_owned(),
            Place::Arguments => " → its arguments".to_owned(),
            Place::Code | Place::Constant => " → its code".to_owned(),
            _ => return None,
        })
    }
}

//! What the outermost value says that it is: class, names, and the future's name in it.

use std::collections::BTreeMap;

use super::Refusal;
use crate::ids::FutureId;

/// How many strings of one vector are remembered, and of how many elements of the outermost list.
const MOST_TEXTS: usize = 64;
const MOST_ELEMENTS: u64 = 64;

/// Which strings they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Texts {
    Names,
    Class,
    Uuid,
    /// An element of the list.
    Element(u64),
    /// An attribute that says nothing here.
    Other,
}

impl Texts {
    pub(super) fn of(name: Option<&str>) -> Self {
        match name {
            Some("names") => Self::Names,
            Some("class") => Self::Class,
            Some("uuid") => Self::Uuid,
            _ => Self::Other,
        }
    }
}

/// The outermost value.
#[derive(Debug, Default)]
pub(super) struct Outer {
    pub(super) is_list: bool,
    texts: BTreeMap<Texts, Vec<Option<String>>>,
}

impl Outer {
    /// Takes one string.
    pub(super) fn hear(&mut self, which: Texts, text: Option<Vec<u8>>) {
        if which == Texts::Other || matches!(which, Texts::Element(number) if number >= MOST_ELEMENTS) {
            return;
        }
        let texts = self.texts.entry(which).or_default();
        if texts.len() < MOST_TEXTS {
            texts.push(text.and_then(|text| String::from_utf8(text).ok()));
        }
    }

    fn texts(&self, which: Texts) -> &[Option<String>] {
        self.texts.get(&which).map(Vec::as_slice).unwrap_or_default()
    }

    /// The name of an element.
    pub(super) fn name(&self, number: u64) -> Option<&str> {
        let at = usize::try_from(number).ok()?;
        self.texts(Texts::Names).get(at)?.as_deref()
    }

    /// An element in words.
    pub(super) fn element(&self, number: Option<u64>) -> String {
        let Some(number) = number else { return "the whole".to_owned() };
        self.name(number).map_or_else(|| format!("[[{}]]", number.saturating_add(1)), str::to_owned)
    }

    fn is_of(&self, class: &str) -> bool {
        self.texts(Texts::Class).iter().any(|one| one.as_deref() == Some(class))
    }

    /// Whether it is the result of this future, or the error that says why there is none.
    pub(super) fn check(&self, future: &FutureId) -> Result<(), Refusal> {
        let is_error = self.is_of("FutureLaunchError");
        if !self.is_list || !(is_error || self.is_of("FutureResult")) {
            return Err(Refusal::NoResult(self.in_words()));
        }
        let named = |name: &str| (0..MOST_ELEMENTS).find(|number| self.name(*number) == Some(name));
        let uuid = match named("uuid") {
            Some(number) => self.texts(Texts::Element(number)),
            None => self.texts(Texts::Uuid),
        };
        let parts: Option<Vec<&str>> = uuid.iter().map(Option::as_deref).collect();
        match parts.map(|parts| parts.join("-")) {
            Some(name) if name == future.as_str() => Ok(()),
            // Old versions of package future do not say which future an error is of.
            Some(name) if name.is_empty() && is_error => Ok(()),
            Some(name) if name.is_empty() => Err(Refusal::NoResult("a FutureResult without a uuid".to_owned())),
            _ => Err(Refusal::OtherFuture),
        }
    }

    fn in_words(&self) -> String {
        let classes: Vec<&str> = self.texts(Texts::Class).iter().filter_map(Option::as_deref).take(4).collect();
        match (classes.is_empty(), self.is_list) {
            (false, _) => format!("an object of class {}", classes.join(", ")),
            (true, true) => "a list".to_owned(),
            (true, false) => "something that is no list".to_owned(),
        }
    }
}

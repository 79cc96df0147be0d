//! Lists of algorithms as ssh_config(5) has them: names that replace ours, or `+`, `-`, `^` and names that change them.

use super::{
    pattern::is_in_list,
    read::{Flaw, Value},
};

/// What a user says of one kind of algorithm. Nothing that we do not have ourselves is ever added.
#[derive(Debug, Clone, Default)]
pub(in crate::board::ssh) struct Choice(Option<Value>);

impl Choice {
    pub(super) fn new(value: Option<&Value>) -> Result<Self, Flaw> {
        value.map(Value::word).transpose()?;
        Ok(Self(value.cloned()))
    }

    /// The sign in front, if any, and the patterns.
    fn parts(&self) -> Option<(Option<char>, Vec<&str>)> {
        let word = self.0.as_ref()?.words.first()?;
        let sign = word.chars().next().filter(|sign| matches!(sign, '+' | '-' | '^'));
        let list = sign.map_or(word.as_str(), |sign| word.trim_start_matches(sign));
        Some((sign, list.split(',').collect()))
    }

    /// Whether an algorithm of ours may be used.
    pub(in crate::board::ssh) fn allows(&self, name: &str) -> bool {
        match self.parts() {
            None | Some((Some('+' | '^'), _)) => true,
            Some((Some(_), list)) => !is_in_list(name, list),
            Some((None, list)) => is_in_list(name, list),
        }
    }

    /// Those of ours that may be used, in the user's order.
    pub(in crate::board::ssh) fn of<T: Clone>(&self, ours: &[T], name: impl Fn(&T) -> String) -> Vec<T> {
        let allowed = ours.iter().filter(|one| self.allows(&name(one))).cloned();
        let Some((None | Some('^'), list)) = self.parts() else { return allowed.collect() };
        let rank = |one: &T| list.iter().position(|pattern| is_in_list(&name(one), [*pattern])).unwrap_or(list.len());
        let mut chosen: Vec<T> = allowed.collect();
        chosen.sort_by_key(rank);
        chosen
    }

    /// That none is left.
    pub(super) fn none_left(&self) -> Option<Flaw> {
        self.0.as_ref().map(|value| value.flaw("none of these algorithms is known here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(spec: Option<&str>) -> Vec<&'static str> {
        let value = spec.map(|spec| Value { words: vec![spec.to_owned()], path: "/x".into(), line: 1 });
        Choice::new(value.as_ref()).unwrap().of(&["one", "two", "three"], |name| (*name).to_owned())
    }

    #[test]
    fn lists_narrow_and_order_ours() {
        assert_eq!(chosen(None), ["one", "two", "three"]);
        assert_eq!(chosen(Some("three,nine,one")), ["three", "one"]);
        assert_eq!(chosen(Some("t*")), ["two", "three"]);
        assert_eq!(chosen(Some("-t*")), ["one"]);
        assert_eq!(chosen(Some("+weak")), ["one", "two", "three"]);
        assert_eq!(chosen(Some("^three")), ["three", "one", "two"]);
        assert_eq!(chosen(Some("nine")), Vec::<&str>::new());
    }
}

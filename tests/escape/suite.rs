//! Runs the cases: all acts of a place in one task, scenarios in theirs, places beside one another.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
};

use crate::{
    case::{Act, Case, How, Outside, Scenario, fits},
    world::{Driver, Place, Profile, User, World, users},
};

/// How many places are tried at once.
const AT_ONCE: usize = 2;

/// What a case came to in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    Held,
    /// The driver cannot hold it, and why.
    Open(&'static str),
    Wrong,
}

/// Cells by case and place, the latter as [`Place`] displays itself.
pub(crate) type Cells = BTreeMap<(u8, String), Cell>;

#[derive(Default)]
pub(crate) struct Tried {
    pub(crate) cells: Cells,
    pub(crate) wrong: Vec<String>,
}

/// The cases that `P2P_ESCAPE_CASES` names, and whether these are all.
pub(crate) fn chosen(all: Vec<Case>) -> (Vec<Case>, bool) {
    let numbers: BTreeSet<u8> = all.iter().map(|case| case.number).collect();
    assert_eq!(numbers.len(), all.len(), "two cases have the same number");
    match std::env::var("P2P_ESCAPE_CASES") {
        Ok(wanted) => {
            let wanted: Vec<u8> = wanted.split(',').map(|number| number.trim().parse().unwrap()).collect();
            (all.into_iter().filter(|case| wanted.contains(&case.number)).collect(), false)
        }
        Err(_) => (all, true),
    }
}

/// The columns of the matrix that these users can fill.
pub(crate) fn places<'world>(world: &'world World, users: &[User]) -> Vec<Place<'world>> {
    let mut places = Vec::new();
    for driver in [Driver::Jail, Driver::Bubblewrap] {
        for profile in [Profile::Strict, Profile::Standard] {
            places.extend(users.iter().map(|&user| Place::new(world, driver, profile, user)));
        }
    }
    places
}

/// Acts by name: the number of the case, a dot, which of its acts.
fn acts_of(cases: &[Case], place: &Place<'_>) -> BTreeMap<String, Act> {
    let mut acts = BTreeMap::new();
    for case in cases {
        for (at, act) in (case.acts)(place).into_iter().enumerate() {
            acts.insert(format!("{}.{at}", case.number), act);
        }
    }
    acts
}

/// Tries every act without a sandbox. Returns what went wrong.
pub(crate) fn controls(world: &World, cases: &[Case]) -> Vec<String> {
    let place = places(world, &users())[0].bare();
    let acts = acts_of(cases, &place);
    let pick = |wanted: &dyn Fn(&Act) -> bool| -> BTreeMap<String, &Act> {
        acts.iter().filter(|(_, act)| wanted(act)).map(|(name, act)| (name.clone(), act)).collect()
    };
    let bare = |act: &Act| matches!(act.outside, Outside::Bare(_));
    let native = |act: &Act| matches!(act.how, How::Native(_));
    let runs = [
        place.attempt(&pick(&|act| bare(act) && !native(act))),
        place.attempt_directly(&pick(&|act| bare(act) && native(act))),
        place.attempt_privileged(&pick(&|act| matches!(act.outside, Outside::OwnNamespaces(_)))),
    ];
    world.bystander.wake();
    let outcomes = runs.iter().flat_map(|(outcomes, _)| outcomes.clone()).collect();
    let mut wrong: Vec<String> = acts.iter().filter_map(|(name, act)| misjudged(name, act, &outcomes)).collect();
    if !wrong.is_empty() {
        wrong.extend(runs.iter().map(|(_, ran)| format!("  controls ended with {:?}: {}", ran.status, ran.stderr)));
    }
    wrong
}

/// Whether a control came to something else than it should, or could not tell inside from outside.
fn misjudged(name: &str, act: &Act, outcomes: &BTreeMap<String, String>) -> Option<String> {
    let expected = match &act.outside {
        // A kernel that was built without a call denies it just as well as a filter does.
        Outside::Bare(_) | Outside::OwnNamespaces(_)
            if act.lacking && outcomes.get(name).is_some_and(|outcome| outcome == "ENOSYS") =>
        {
            return None;
        }
        Outside::Bare(expected) | Outside::OwnNamespaces(expected) => expected,
        Outside::Stated(reason) => {
            return reason.is_empty().then(|| format!("{name}: no control, and no reason: {}", act.text()));
        }
    };
    let privileged = matches!(act.outside, Outside::OwnNamespaces(_));
    if privileged && matches!(act.how, How::R(_)) {
        return Some(format!("{name}: only the native probe runs in namespaces of its own"));
    }
    match outcomes.get(name) {
        None => Some(format!("{name}: the control did not run: {}", act.text())),
        Some(outcome) if !fits(outcome, expected) => {
            Some(format!("{name}: outside {outcome:?}, not {expected:?}: {}", act.text()))
        }
        Some(outcome) if fits(outcome, &act.inside) => {
            Some(format!("{name}: {outcome:?} outside as well as inside proves nothing: {}", act.text()))
        }
        Some(_) => None,
    }
}

/// Tries every case in every place.
pub(crate) fn try_everywhere(world: &World, cases: &[Case]) -> Tried {
    let waiting = Mutex::new(places(world, &users()));
    let tried = Mutex::new(Tried::default());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(place) = waiting.lock().unwrap().pop() else { return };
                    let (cells, wrong) = try_place(cases, &place);
                    let mut tried = tried.lock().unwrap();
                    tried.cells.extend(cells);
                    tried.wrong.extend(wrong);
                }
            });
        }
    });
    tried.into_inner().unwrap()
}

fn try_place(cases: &[Case], place: &Place<'_>) -> (Cells, Vec<String>) {
    let acts = acts_of(cases, place);
    let (outcomes, ran) = place.attempt(&acts.iter().map(|(name, act)| (name.clone(), act)).collect());
    let (mut cells, mut wrong) = (Cells::new(), Vec::new());
    if outcomes.is_empty() && !acts.is_empty() {
        return (cells, vec![format!("{place}: no act ran, status {:?}: {}", ran.status, ran.stderr)]);
    }
    for case in cases {
        let before = wrong.len();
        let mut open = None;
        for (name, act) in acts.iter().filter(|(name, _)| name.starts_with(&format!("{}.", case.number))) {
            let outcome = outcomes.get(name).map_or("nothing: it did not run", String::as_str);
            if !fits(outcome, &act.inside) {
                wrong.push(format!("{place} {name}: {outcome:?}, not {:?}: {}", act.inside, act.text()));
            }
            open = open.or(act.open);
        }
        if let Some(scenario) = case.scenario {
            wrong.extend(played(scenario, place).map(|why| format!("{place} {}: {why}", case.number)));
        }
        let held = open.map_or(Cell::Held, Cell::Open);
        cells.insert((case.number, place.to_string()), if wrong.len() == before { held } else { Cell::Wrong });
    }
    if !wrong.is_empty() {
        wrong.push(format!("  {place} ended with {:?} and said: {}", ran.status, ran.stderr));
    }
    (cells, wrong)
}

/// What went wrong in a scenario.
fn played(scenario: Scenario, place: &Place<'_>) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| scenario(place))) {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
        }
    }
}

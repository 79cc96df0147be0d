//! The table that comes out, as SECURITY.md carries it.

use std::{collections::BTreeSet, env, fs, io::Write, path::PathBuf};

use crate::{
    case::Case,
    suite::{Cell, Cells, places},
    world::{User, World},
};

/// The lines of SECURITY.md between which the table stands.
const MARKS: [&str; 2] = ["<!-- escape matrix: begin -->", "<!-- escape matrix: end -->"];

/// Set to write the table into SECURITY.md rather than to compare it.
const REWRITE: &str = "P2P_ESCAPE_REWRITE";

pub(crate) struct Matrix {
    lines: Vec<String>,
}

impl Matrix {
    pub(crate) fn new(world: &World, cases: &[Case], cells: &Cells) -> Self {
        let columns: Vec<String> =
            places(world, &[User::Ordinary, User::Root]).iter().map(ToString::to_string).collect();
        let mut reasons: Vec<&str> = Vec::new();
        let mut lines = vec![
            format!("| | the task tries to | {} | it gets | held by | as in |", columns.join(" | ")),
            format!("| --- | --- | {} | --- | --- | --- |", vec!["---"; columns.len()].join(" | ")),
        ];
        for case in cases {
            let marks = columns.iter().map(|column| match cells.get(&(case.number, column.clone())) {
                Some(Cell::Held) => case.outcome.letter().to_string(),
                Some(Cell::Open(why)) => {
                    let at = reasons.iter().position(|reason| reason == why).unwrap_or_else(|| {
                        reasons.push(why);
                        reasons.len() - 1
                    });
                    format!("**open** ({})", at + 1)
                }
                Some(Cell::Wrong) => "**WRONG**".to_owned(),
                None => "?".to_owned(),
            });
            let marks = marks.collect::<Vec<_>>().join(" | ");
            let Case { number, attack, layers, known, .. } = case;
            lines.push(format!("| {number} | {attack} | {marks} | {} | {layers} | {known} |", gets(world, case)));
        }
        lines.push(String::new());
        lines.extend(reasons.iter().enumerate().map(|(at, why)| format!("({}) {why}", at + 1)));
        Self { lines }
    }

    /// To the terminal, past the test harness, which keeps what `print!` prints of a test that succeeds.
    pub(crate) fn print(&self) {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{}", self.lines.join("\n")).unwrap();
    }

    /// The copy in SECURITY.md must be what came out. What this run could not try (an ordinary user has no root) is taken
    /// from the copy.
    pub(crate) fn compare_with_document(&self) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md");
        let document = fs::read_to_string(&path).unwrap();
        let (before, rest) = document.split_once(MARKS[0]).unwrap();
        let (copy, after) = rest.split_once(MARKS[1]).unwrap();
        let table = self.lines.join("\n").trim_end().to_owned();
        if env::var_os(REWRITE).is_some() {
            let text = format!("{before}{}\n{table}\n{}{after}", MARKS[0], MARKS[1]);
            fs::write(&path, text).unwrap();
            return;
        }
        let differs: Vec<String> = differences(copy.trim(), &table);
        let hint = format!("if the change is meant: {REWRITE}=1 cargo test --test escape, as root");
        assert!(differs.is_empty(), "SECURITY.md says otherwise ({hint}):\n{}", differs.join("\n"));
    }
}

/// What the task gets, as the case expects it: the same on every machine.
fn gets(world: &World, case: &Case) -> String {
    let acts = places(world, &[User::Ordinary, User::Root]).into_iter().flat_map(|place| (case.acts)(&place));
    let mut words: BTreeSet<String> = acts.flat_map(|act| act.inside).collect();
    words.extend((!case.gets.is_empty()).then(|| case.gets.to_owned()));
    words.into_iter().map(|word| word.replace('|', "\\|").replace('*', "…")).collect::<Vec<_>>().join(", ")
}

/// What an ordinary user's run leaves out is `?` in its own table and anything in the copy.
fn differences(copy: &str, table: &str) -> Vec<String> {
    let (copy, table): (Vec<&str>, Vec<&str>) = (copy.lines().collect(), table.lines().collect());
    let mut differs = Vec::new();
    for at in 0..copy.len().max(table.len()) {
        let (ours, theirs) = (table.get(at).copied().unwrap_or(""), copy.get(at).copied().unwrap_or(""));
        let cells = |line: &str| line.split(" | ").map(ToOwned::to_owned).collect::<Vec<_>>();
        let (left, right) = (cells(ours), cells(theirs));
        let same =
            left.len() == right.len() && left.iter().zip(&right).all(|(left, right)| left == right || left == "?");
        if !same {
            differs.push(format!("  it has {theirs}\n  it is  {ours}"));
        }
    }
    differs
}

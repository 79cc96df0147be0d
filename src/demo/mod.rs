//! The demo: an embedded board, a worker and a client on loopback. Real SSH, real libp2p, real R, the real sandbox.
//!
//! The worker is this very program in a process of its own, with a home folder made for it to be attacked. What the
//! client gets is judged against `acts`; what must not have happened on the machine is looked at from outside.

mod acts;
mod stage;

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    clock,
    failure::{Failure, Status},
    runner::{Shown, Verdict},
    text,
};
use acts::{Attack, Expected};
use stage::Stage;

/// Slots of the demo's worker, and elements of its parallel map.
const SLOTS: usize = 2;
const ELEMENTS: u32 = 4;

/// How long one element of the map takes.
const PAUSE: Duration = Duration::from_millis(700);

/// Runs the demo with the worker's sandbox made by `driver`; whether all was as it should be.
///
/// # Errors
/// Whatever keeps the demo from being set up: no R, no sandbox, no port.
pub async fn run(driver: &str) -> Result<bool, Failure> {
    let stage = Box::pin(Stage::set(driver, SLOTS)).await?;
    say(&format!("\nA board, a worker under profile strict ({driver}) and a client, all on this machine.\n"));
    let mut table = Table::default();
    say("Some futures:");
    for (code, value) in acts::FUTURES {
        let shown = stage.evaluate(code).await?;
        let printed = String::from_utf8_lossy(&shown.stdout).trim_end().to_owned();
        say(&format!("  {code}\n    {}", printed.replace('\n', "\n    ")));
        table.add(code, "its value", printed.contains(value));
    }
    map(&stage, &mut table).await?;
    say("\nNow the attacks:");
    let secrets = stage.fingerprint()?;
    for attack in acts::attacks(&stage.home(), stage.port(), stage.marker()) {
        let shown = stage.evaluate(&attack.code).await?;
        let untouched = stage.fingerprint()? == secrets && !stage.marker_lives()?;
        let as_expected = judge(&attack, &shown) && untouched;
        say(&format!("  {}: {}", attack.tried, if as_expected { attack.stopped_by } else { "NOT STOPPED" }));
        if !as_expected {
            say(&format!("    {}", text::for_log(&describe(&shown), 600)));
        }
        table.add(attack.tried, attack.stopped_by, as_expected);
    }
    let left = stage.strike().await?;
    table.add("the worker leaves on SIGTERM", "drain", left.success());
    table.print();
    Ok(table.all_well())
}

/// A parallel map: as many futures as elements, over all slots, each slot evaluating its share.
async fn map(stage: &Stage, table: &mut Table) -> Result<(), Failure> {
    say(&format!("\nA parallel map of {ELEMENTS} elements that take {PAUSE:?} each, over {SLOTS} slots:"));
    let mut futures = Vec::new();
    for i in 1..=ELEMENTS {
        let (code, value) = acts::element(i, PAUSE);
        futures.push((stage.make(&code).await?, value));
    }
    let start = clock::now();
    let mut pending = JoinSet::new();
    for ((id, future), value) in futures {
        let client = stage.client();
        pending.spawn(async move { (stage::wait(&client, &id, future).await, id, value) });
    }
    let mut results = Vec::new();
    while let Some(done) = pending.join_next().await {
        let (result, id, value) = done.map_err(|error| Failure::new(Status::Network, error))?;
        results.push((result?, id, value));
    }
    let took = clock::now() - start;
    let mut right = true;
    for (result, id, value) in results {
        right &= String::from_utf8_lossy(&stage.show(&id, &result).await?.stdout).contains(&value);
    }
    say(&format!("  all values in {:.1} s", took.as_secs_f64()));
    table.add("a parallel map", "all values right", right);
    Ok(())
}

fn judge(attack: &Attack, shown: &Shown) -> bool {
    match attack.expected {
        Expected::Prints(text) => {
            shown.verdict == Verdict::Fine && String::from_utf8_lossy(&shown.stdout).contains(text)
        }
        Expected::Stopped(word) => {
            shown.verdict == Verdict::Stopped && String::from_utf8_lossy(&shown.stderr).contains(word)
        }
    }
}

fn describe(shown: &Shown) -> String {
    let (out, err) = (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    format!("{:?}: {} {}", shown.verdict, out.trim(), err.trim())
}

/// The one place of the demo that prints.
#[expect(clippy::print_stdout, reason = "the demo's output is what it is for")]
fn say(line: &str) {
    println!("{line}");
}

/// What was done and whether it came out as it should.
#[derive(Default)]
struct Table {
    rows: Vec<(String, String, bool)>,
}

impl Table {
    fn add(&mut self, what: &str, how: &str, well: bool) {
        self.rows.push((text::for_log(what, 48), how.to_owned(), well));
    }

    fn all_well(&self) -> bool {
        self.rows.iter().all(|(_, _, well)| *well)
    }

    fn print(&self) {
        let width = self.rows.iter().map(|(what, ..)| what.chars().count()).max().unwrap_or_default();
        say("");
        for (what, how, well) in &self.rows {
            let padding = " ".repeat(width.saturating_sub(what.chars().count()));
            say(&format!("  {} {what}{padding}  {how}", if *well { "ok    " } else { "FAILED" }));
        }
        let failed = self.rows.iter().filter(|(_, _, well)| !well).count();
        say(&format!("\n{} as it should be, {failed} not", self.rows.len() - failed));
    }
}

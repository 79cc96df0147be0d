//! What it costs to evaluate `1`: Rscript, `p2p-worker exec`, and `p2p-worker submit` by way of a board and a worker.

use std::process::{Command, Stdio};

use tokio::time::Instant;

use crate::{
    Failure,
    figures::{Samples, Table, milliseconds, progress},
    world::World,
};

/// The same by package future, without anything of ours.
const WITH_FUTURE: &str = "future::value(future::future(1))";

pub(crate) async fn measure(runs: usize) -> Result<(), Failure> {
    progress(&format!("{runs} runs each, taking turns"));
    let world = World::new().await?;
    let _worker = world.worker().await?;
    let mut plain = Samples::of("Rscript --vanilla -e 1");
    let mut future = Samples::of(format!("Rscript --vanilla -e '{WITH_FUTURE}'"));
    let mut exec = Samples::of("p2p-worker exec -e 1");
    let mut submit = Samples::of("p2p-worker submit -e 1");
    for _ in 0..runs {
        time(rscript("1"), &mut plain).await?;
        time(rscript(WITH_FUTURE), &mut future).await?;
        let mut command = world.program("exec")?;
        command.args(["exec", "-e", "1"]);
        time(command, &mut exec).await?;
        let mut command = world.program("submit")?;
        command.arg("submit").args(world.sign_in()).args(["-e", "1"]);
        time(command, &mut submit).await?;
    }
    let columns = ["", "median", "p95", "over Rscript", "of Rscript"];
    let mut table = Table::new(format!("Evaluating 1, profile strict, {runs} runs each, taking turns"), &columns);
    for samples in [&plain, &future, &exec, &submit] {
        let (median, p95) = (milliseconds(samples.median()), milliseconds(samples.p95()));
        let over = milliseconds(samples.median() - plain.median());
        table.row([samples.name.clone(), median, p95, over, format!("{:.2} ×", samples.median() / plain.median())]);
    }
    Ok(table.print()?)
}

fn rscript(code: &str) -> Command {
    let mut command = Command::new("Rscript");
    command.args(["--vanilla", "-e", code]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

async fn time(command: Command, took: &mut Samples) -> Result<(), Failure> {
    let begin = Instant::now();
    let status = tokio::process::Command::from(command).status().await?;
    took.add(begin.elapsed());
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", took.name).into()) }
}

//! What a worker costs that has nothing to do: memory, processor time, how often it wakes up. From `/proc`.

use std::{fs, io, time::Duration};

use nix::unistd::{SysconfVar, sysconf};
use tokio::time::sleep;

use crate::{
    Failure,
    figures::{Table, progress},
    world::World,
};

/// For things to come to rest: threads of tokio that nobody needs end after 10 s.
const REST: Duration = Duration::from_secs(11);

/// How many futures it evaluates between the two looks.
const FUTURES: usize = 5;

pub(crate) async fn measure(seconds: u32) -> Result<(), Failure> {
    let world = World::new().await?;
    let worker = world.worker().await?;
    let pid = worker.id().ok_or("the worker has ended")?;
    let tick = 100.0 / f64::from(seconds) / ticks_a_second()?;
    let columns = [
        "a worker",
        "processes",
        "resident, itself",
        "all",
        "PSS, all",
        "private, all",
        "threads",
        "processor",
        "context switches",
    ];
    let mut table =
        Table::new(format!("An idle worker, watched for {seconds} s (a tick is {tick:.2} % of a core)"), &columns);
    table.row(watch("that has just joined", pid, seconds).await?);
    progress(&format!("{FUTURES} futures"));
    for _ in 0..FUTURES {
        let mut submit = world.program("submit")?;
        submit.arg("submit").args(world.sign_in()).args(["-e", "1"]);
        let status = tokio::process::Command::from(submit).status().await?;
        if !status.success() {
            return Err(format!("submit: {status}").into());
        }
    }
    table.row(watch(&format!("after {FUTURES} futures"), pid, seconds).await?);
    Ok(table.print()?)
}

async fn watch(what: &str, pid: u32, seconds: u32) -> Result<Vec<String>, Failure> {
    progress(&format!("watching a worker {what} for {seconds} s"));
    sleep(REST).await;
    let (cpu, switches) = (cpu_seconds(pid)?, context_switches(pid)?);
    sleep(Duration::from_secs(u64::from(seconds))).await;
    let share = (cpu_seconds(pid)? - cpu) / f64::from(seconds);
    let switches = context_switches(pid)?.saturating_sub(switches);
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let family = family(pid);
    let sum = |file: &str, keys: &[&str]| {
        let mut kibibytes = 0.0;
        for pid in &family {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
            for key in keys {
                kibibytes += number(&text, key)?;
            }
        }
        Ok::<_, Failure>(format!("{:.1} MiB", kibibytes / 1024.0))
    };
    Ok(vec![
        what.to_owned(),
        family.len().to_string(),
        format!("{:.1} MiB", number(&status, "VmRSS")? / 1024.0),
        sum("status", &["VmRSS"])?,
        sum("smaps_rollup", &["Pss"])?,
        sum("smaps_rollup", &["Private_Clean", "Private_Dirty"])?,
        number(&status, "Threads")?.to_string(),
        if share > 0.0 { format!("{:.2} % of a core", share * 100.0) } else { "less than a tick".to_owned() },
        format!("{:.1} a second", switches as f64 / f64::from(seconds)),
    ])
}

/// The worker, and the jails that wait for tasks, and all else that comes from it.
fn family(worker: u32) -> Vec<u32> {
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = vec![worker];
    let mut next = 0;
    while let Some(of) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

/// The number of a line `Key:   123 kB`.
fn number(text: &str, key: &str) -> Result<f64, Failure> {
    let values = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    Ok(values.and_then(|value| value.split_whitespace().next()).ok_or_else(|| key.to_owned())?.parse()?)
}

/// User and system time of all its threads, those that ended too; in steps of a tick.
fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name, in parentheses, which may hold anything.
    let (_, rest) = stat.rsplit_once(')').ok_or("no name in stat")?;
    // Fields 14 and 15 of proc_pid_stat(5); the third is the first one here.
    let ticks: Vec<f64> = rest.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / ticks_a_second()?)
}

fn ticks_a_second() -> Result<f64, Failure> {
    Ok(sysconf(SysconfVar::CLK_TCK)?.ok_or("no clock tick")? as f64)
}

/// How often its threads were put on a processor.
fn context_switches(pid: u32) -> Result<u64, Failure> {
    let mut switches = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = match fs::read_to_string(thread?.path().join("status")) {
            // It ended just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            status => status?,
        };
        for line in status.lines().filter(|line| line.contains("ctxt_switches")) {
            switches += line.split_whitespace().last().ok_or("no number")?.parse::<u64>()?;
        }
    }
    Ok(switches)
}

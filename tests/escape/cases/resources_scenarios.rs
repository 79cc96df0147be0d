//! Cases 46 to 60 that take tasks of their own.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    process::Stdio,
    sync::{Mutex, OnceLock},
    thread,
};

use super::helpers::{Told, a_moment, expect, limited, marker, no_process_with, worker_below};
use crate::{
    suite::places,
    world::{Place, Ran, users},
};

const PROBE: &str = "system2(loader, c(shQuote(probe), 'bomb', ";

pub(super) fn fork_bomb(place: &Place<'_>) -> Told {
    let mark = marker(place, 46);
    let code = format!(
        "system(\"bash -c ':() {{ : | : & }}; :' {mark} 2>/dev/null\", ignore.stderr = TRUE); Sys.sleep(1); cat('alive\\n')"
    );
    let ran = place.evaluate(&code);
    expect(&ran, 0, &["alive"], &[])?;
    no_process_with(&mark)
}

pub(super) fn memory(place: &Place<'_>) -> Told {
    let profile = limited(place, "memory = \"400 MiB\"\nresult = \"64 MiB\"");
    let bomb = |mib| format!("cat({PROBE}'memory', {mib}), stdout = TRUE), '\\n')");
    let ran = place.exec(&bomb(4000), &["--profile", &profile]);
    expect(&ran, 4, &[], &["memory limit of 400.0 MiB reached"])?;
    // What is within the limit is to be had, and the same worker's next task runs.
    expect(&place.exec(&bomb(64), &["--profile", &profile]), 0, &["ok, 64 MiB"], &[])
}

/// 49: nothing of a task is swapped out because it asks for that, and the limit is met as if there were no swap.
pub(super) fn swapped(place: &Place<'_>) -> Told {
    let profile = limited(place, "memory = \"400 MiB\"\nresult = \"64 MiB\"");
    let bomb = |mib| format!("cat({PROBE}'swapped', {mib}), stdout = TRUE), '\\n')");
    let ran = place.exec(&bomb(1500), &["--profile", &profile]);
    expect(&ran, 4, &[], &["memory limit of 400.0 MiB reached"])?;
    let within = place.exec(&bomb(64), &["--profile", &profile]);
    expect(&within, 0, &["ok, 64 MiB"], &[])?;
    let swap = fs::read_to_string("/proc/swaps").unwrap_or_default().lines().count() > 1;
    if !within.stdout.contains("MiB, 0 kB in swap") {
        return Err(format!("some of it is in swap: {within:?}"));
    }
    static CONTROL: OnceLock<Told> = OnceLock::new();
    let control = || {
        let outside = place.bare().evaluate(&bomb(64));
        if swap && outside.stdout.contains("MiB, 0 kB in swap") {
            return Err(format!("nothing was swapped outside either: {outside:?}"));
        }
        expect(&outside, 0, &["ok, 64 MiB"], &[])
    };
    CONTROL.get_or_init(control).clone()
}

/// The jail's tmpfs have a limit on inodes; bubblewrap's have none, and each file counts as memory.
pub(super) fn many_files(place: &Place<'_>) -> Told {
    let profile = limited(place, "memory = \"300 MiB\"\nresult = \"64 MiB\"");
    let code = format!("cat({PROBE}'files', '/dev/shm', '4000000'), stdout = TRUE), '\\n')");
    let ran = place.exec(&code, &["--profile", &profile]);
    if place.is_bubblewrap() {
        expect(&ran, 4, &[], &["memory limit of 300.0 MiB reached"])
    } else {
        expect(&ran, 0, &["ENOSPC"], &[])
    }
}

pub(super) fn processor_time(place: &Place<'_>) -> Told {
    let profile = limited(place, "cpu_time = \"3 s\"");
    let ran = place.exec(&format!("{PROBE}'spin'))"), &["--profile", &profile]);
    expect(&ran, 4, &[], &["CPU time limit of 3 s reached"])
}

/// The most memory that the worker may have had, in KiB: some 20 MiB are its own, and under `standard` 16 MiB of text are kept.
const MOST_MEMORY: u64 = 160 * 1024;

pub(super) fn flood(place: &Place<'_>) -> Told {
    let future = place.world.future(&format!("{PROBE}'flood', '400')); cat('done\\n')"));
    let mut child = place.exec_command(&future, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let starter = child.id();
    let (ran, most) = thread::scope(|scope| {
        let out = scope.spawn(move || text(&mut out));
        let err = scope.spawn(move || text(&mut err));
        let mut most = 0;
        let status = loop {
            most = worker_below(starter).map_or(most, |worker| most.max(peak_memory(worker)));
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            a_moment();
        };
        (Ran { status: status.code(), stdout: out.join().unwrap(), stderr: err.join().unwrap() }, most)
    });
    expect(&ran, 0, &["done"], &["more bytes were dropped]"])?;
    if ran.stderr.contains('\u{1b}') {
        return Err("an escape sequence got through".to_owned());
    }
    let fine = (1..MOST_MEMORY).contains(&most);
    if fine { Ok(()) } else { Err(format!("the worker's memory was {most} KiB while a task printed 400 MiB")) }
}

fn text(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The largest resident memory that a process had so far, in KiB; 0 for none.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    peak.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Cases 55 and 57 in one task for each place, all at the same time, as all that they do is wait.
pub(super) fn stubborn(place: &Place<'_>) -> Told {
    static RAN: OnceLock<Mutex<BTreeMap<String, Told>>> = OnceLock::new();
    let all = RAN.get_or_init(|| {
        let places = places(place.world, &users());
        thread::scope(|scope| {
            let running: Vec<_> =
                places.iter().map(|place| (place.to_string(), scope.spawn(|| will_not_end(place)))).collect();
            Mutex::new(running.into_iter().map(|(name, thread)| (name, thread.join().unwrap())).collect())
        })
    });
    all.lock().unwrap()[&place.to_string()].clone()
}

fn will_not_end(place: &Place<'_>) -> Told {
    let mark = marker(place, 55);
    let profile = limited(place, "wall_time = \"15 s\"\ncpu_time = \"15 s\"");
    let start = |bomb: &str| format!("{PROBE}'{bomb}', '{mark}'), wait = FALSE)");
    let code = format!(
        "{}; {}; system('trap \"\" TERM INT HUP QUIT; sleep {mark} &'); tools::pskill(Sys.getpid(), tools::SIGSTOP); \
         Sys.sleep(600)",
        start("stubborn"),
        start("vfork")
    );
    let ran = place.exec(&code, &["--profile", &profile]);
    expect(&ran, 4, &[], &["time limit of 15 s reached"])?;
    no_process_with(&mark)
}

/// Cases 56 and 58: what is left behind, with the pipes closed and with the pipes open.
pub(super) fn survivors(place: &Place<'_>) -> Told {
    static RAN: Mutex<BTreeMap<String, Told>> = Mutex::new(BTreeMap::new());
    let known = RAN.lock().unwrap().get(&place.to_string()).cloned();
    known.unwrap_or_else(|| {
        let told = leave_behind(place);
        RAN.lock().unwrap().insert(place.to_string(), told.clone());
        told
    })
}

fn leave_behind(place: &Place<'_>) -> Told {
    let mark = marker(place, 56);
    let leave = |look: &str| {
        format!(
            "system('(setsid nohup sleep {mark} >/dev/null 2>&1 &) &'); system('sleep {mark} &'); {look}; cat('left\\n')"
        )
    };
    expect(&place.evaluate(&leave("invisible()")), 0, &["left"], &[])?;
    no_process_with(&mark)?;
    static CONTROL: OnceLock<Told> = OnceLock::new();
    let control = || {
        let look = format!("Sys.sleep(0.5); cat('seen', system('pgrep -f {mark} >/dev/null'), '\\n')");
        expect(&place.bare().evaluate(&leave(&look)), 0, &["seen 0", "left"], &[])
    };
    CONTROL.get_or_init(control).clone()
}

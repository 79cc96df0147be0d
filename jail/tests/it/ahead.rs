//! Jails that are started before there is a task: one task each, the same jail, and nothing left of those that wait.

use std::fs;
use std::io::Write;
use std::process::Command as Program;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use p2p_jail::message;
use p2p_jail::spec::*;

use crate::harness::*;

fn waiting(starter: Starter, spec: &Spec) -> Waiting {
    Waiting::start(starter, &message::encode(&Ahead::of(spec).unwrap()).unwrap())
}

/// The init that waits: the only child of the process.
fn init_of(waiting: &Waiting) -> i32 {
    let monitor = waiting.process.id();
    let found = || {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.find(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
            parent == Some(monitor)
        })
    };
    eventually("there is an init", || found().is_some());
    found().unwrap()
}

fn exists(pid: i32) -> bool {
    // A process that nobody has waited for is gone all the same.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z')
}

#[test]
fn the_jail_is_the_same() {
    let mut tests = Program::new(std::env::current_exe().unwrap());
    // A user that cannot be become is not a refusal here: without a word, it is left to a start from nothing to say so.
    tests.args(["check::", "limits::", "refusals::", "--skip", "user_who", "--skip", "user_to_become"]);
    let output = tests.env(AHEAD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("test result: ok"), "{said}");
}

#[test]
fn every_stage_is_reported_and_the_first_report_is_that_it_was_taken() {
    for starter in starters() {
        let spec = shell(starter, "cat >&3; exit 7");
        let mut jail = waiting(starter, &spec).take(&spec);
        jail.feed(b"the future");
        let finished = jail.finish();
        assert_eq!(finished.ended().0, Exit::Code(7), "{finished:?}");
        assert_eq!(finished.frames, b"the future");
        assert_eq!(finished.stages(), run(starter, &spec).stages());
    }
}

#[test]
fn it_serves_one_task() {
    for starter in starters() {
        let spec = shell(starter, "echo begun >&3; sleep 7100021");
        let mut jail = waiting(starter, &spec).take(&spec);
        jail.running();
        // A second task is not one: whatever comes after the first means that there is to be an end.
        jail.control.write_all(&message::encode(&spec).unwrap()).unwrap();
        jail.process.wait().unwrap();
        assert!(!is_running("7100021"));
    }
}

#[test]
fn a_task_that_something_else_was_made_for_is_refused() {
    for starter in starters() {
        let spec = shell(starter, "exit 0");
        let differs = |change: &dyn Fn(&mut Builtin)| {
            let mut other = spec.clone();
            let Container::Builtin(builtin) = &mut other.container else { unreachable!() };
            change(builtin);
            let waiting = waiting(starter, &spec);
            let init = init_of(&waiting);
            let finished = waiting.take(&other).finish();
            let (stage, what, _) = finished.refused();
            assert_eq!(stage, Stage::Spec, "{what}");
            assert!(what.contains("ahead"), "{what}");
            assert!(!exists(init));
        };
        differs(&|builtin| builtin.hostname.push('2'));
        differs(&|builtin| builtin.inside.uid += 1);
        differs(&|builtin| builtin.become_user = Some(Identity { uid: 61234, gid: 61234 }));
        let bare = Spec { container: Container::None { become_user: None }, ..spec.clone() };
        assert_eq!(waiting(starter, &spec).take(&bare).finish().refused().0, Stage::Spec);
    }
}

#[test]
fn what_cannot_work_is_refused_as_from_nothing() {
    for starter in starters() {
        let mut spec = shell(starter, "exit 0");
        spec.confinement.seccomp.as_mut().unwrap().allow.retain(|number| *number != nix::libc::SYS_execve);
        let finished = waiting(starter, &spec).take(&spec).finish();
        assert_eq!(finished.refused().0, Stage::Seccomp);
        assert!(finished.refused().1.contains("execve"), "{finished:?}");
    }
}

#[test]
fn nothing_is_left_of_one_that_nobody_needs() {
    for starter in starters() {
        let spec = shell(starter, "exit 0");
        let waiting = waiting(starter, &spec);
        let init = init_of(&waiting);
        let Waiting { mut process, control } = waiting;
        // As when the supervisor is killed.
        drop(control);
        process.wait().unwrap();
        assert!(!exists(init));
    }
}

#[test]
fn the_death_of_one_is_the_death_of_the_other_and_not_a_word_is_said() {
    for starter in starters() {
        let spec = shell(starter, "exit 0");
        let mut monitor = waiting(starter, &spec);
        let init = init_of(&monitor);
        monitor.process.kill().unwrap();
        monitor.process.wait().unwrap();
        eventually("the init is gone", || !exists(init));

        let mut monitor = waiting(starter, &spec);
        kill(Pid::from_raw(init_of(&monitor)), Signal::SIGKILL).unwrap();
        monitor.process.wait().unwrap();
        assert!(matches!(message::read::<Report>(&mut monitor.control), Err(message::MessageError::Closed)));
    }
}

#[test]
fn bytes_of_another_build_end_it() {
    for starter in starters() {
        let mut bytes = message::encode(&Ahead::of(&shell(starter, "exit 0")).unwrap()).unwrap();
        bytes[4] ^= 1;
        let mut monitor = Waiting::start(starter, &bytes);
        monitor.process.wait().unwrap();
        assert!(message::read::<Report>(&mut monitor.control).is_err());
    }
}

#[test]
fn a_command_that_waits_has_its_times_from_the_byte_on() {
    for starter in starters() {
        // More processor time, and more time, than it may have for its task.
        let busy = "i=0; while [ $i -lt 1000000 ]; do i=$((i + 1)); done; sleep 7100024 & read line;";
        let limits = |spec: &mut Spec| {
            spec.watch.waits = true;
            (spec.watch.wall_time_ms, spec.watch.cpu_time_ms) = (Some(800), Some(500));
        };
        let mut spec = shell(starter, &format!("{busy} exit 7"));
        limits(&mut spec);
        let mut jail = Jail::start(starter, &spec);
        jail.running();
        eventually("it waits", || is_running("7100024"));
        assert!(jail.process.try_wait().unwrap().is_none(), "it waits");
        jail.control.write_all(&[0]).unwrap();
        jail.feed(b"the task\n");
        let finished = jail.finish();
        let (exit, stopped, usage) = finished.ended();
        assert_eq!((exit, stopped), (Exit::Code(7), None), "{finished:?}");
        assert!(usage.wall_ms < 800 && usage.cpu_ms < 500, "{usage:?}");

        for (does, limit) in [("sleep 7100022", Stop::WallTime), ("while :; do :; done", Stop::CpuTime)] {
            let mut spec = shell(starter, &format!("read line; {does}"));
            limits(&mut spec);
            if limit == Stop::CpuTime {
                spec.watch.wall_time_ms = Some(60_000);
            }
            let mut jail = Jail::start(starter, &spec);
            jail.running();
            jail.control.write_all(&[0]).unwrap();
            jail.feed(b"the task\n");
            let (_, stopped, usage) = jail.finish().ended();
            assert_eq!(stopped, Some(limit), "{usage:?}");
        }
        assert!(!is_running("7100022"));
    }
}

#[test]
fn who_asks_while_the_command_runs_is_told_what_it_reached() {
    for starter in starters() {
        let mut spec = shell(starter, "head -c 20M /dev/full > /tmp/file; read line; exit 7");
        let mut jail = Jail::start(starter, &spec);
        jail.running();
        assert!((0..1_000_000).any(|_| jail.reached().is_some_and(|reached| reached.full_tmpfs == 1)));
        jail.feed(b"go on\n");
        let (exit, stopped, usage) = jail.finish().ended();
        assert_eq!((exit, stopped, usage.reached.full_tmpfs), (Exit::Code(7), None, 1));

        // One that a limit has ended is past answering: what comes is its end.
        spec = shell(starter, "sleep 7100025");
        spec.watch.wall_time_ms = Some(100);
        let mut jail = Jail::start(starter, &spec);
        jail.running();
        jail.process.wait().unwrap();
        assert_eq!(jail.reached(), None);
    }
}

#[test]
fn a_command_that_waits_ends_with_the_control_socket() {
    for starter in starters() {
        let mut spec = shell(starter, "sleep 7100023");
        spec.watch.waits = true;
        let ends: [fn(&mut Jail); 2] = [
            |jail| jail.ask(),
            |jail| {
                jail.control.write_all(&[0]).unwrap();
                jail.ask();
            },
        ];
        for end in ends {
            let mut jail = Jail::start(starter, &spec);
            jail.running();
            eventually("it runs", || is_running("7100023"));
            end(&mut jail);
            assert_eq!(jail.finish().ended().1, Some(Stop::Asked));
            assert!(!is_running("7100023"));
        }
    }
}

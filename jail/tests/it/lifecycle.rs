//! From the first byte of a task to the last of its processes, however it ends.

use std::fs;
use std::path::Path;
use std::process::Command as Program;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use p2p_jail::spec::*;

use crate::harness::*;

#[test]
fn echoes_through_the_frames_pipe() {
    for starter in starters() {
        let mut jail = Jail::start(starter, &shell(starter, "cat >&3; echo one; echo two >&2; exit 7"));
        jail.feed(b"the future");
        let finished = jail.finish();
        assert_eq!(finished.ended().0, Exit::Code(7), "{finished:?}");
        assert_eq!(finished.ended().1, None);
        assert_eq!(finished.frames, b"the future");
        assert_eq!(finished.text, "one\ntwo\n");
    }
}

#[test]
fn reports_every_stage_in_order() {
    for starter in starters() {
        let stages = run(starter, &shell(starter, "exit 0")).stages();
        let all = [
            Stage::Spec,
            Stage::Identity,
            Stage::Namespaces,
            Stage::Mounts,
            Stage::Init,
            Stage::Session,
            Stage::Limits,
            Stage::Descriptors,
            Stage::NestedNamespaces,
            Stage::Capabilities,
            Stage::NoNewPrivileges,
            Stage::Landlock,
            Stage::Seccomp,
            Stage::Exec,
        ];
        assert_eq!(stages, all);
    }
}

#[test]
fn tells_how_the_command_ended() {
    for starter in starters() {
        let exit = |script| run(starter, &shell(starter, script)).ended().0;
        assert_eq!(exit("exit 0"), Exit::Code(0));
        assert_eq!(exit("exit 255"), Exit::Code(255));
        assert_eq!(exit("kill -9 $$"), Exit::Signal(9));
        assert_eq!(exit("kill -SEGV $$"), Exit::Signal(11));
        assert_eq!(exit("kill -40 $$"), Exit::Signal(40)); // A real-time signal.
        // The init cannot be killed from inside, nor anything outside.
        assert_eq!(exit("kill -9 1; kill -9 -1; exit 3"), Exit::Code(3));
    }
}

#[test]
fn nothing_outlives_the_command() {
    for starter in starters() {
        // A daemon in a session of its own, and a child that holds the pipes open and ignores what it can.
        let script = "setsid sh -c 'exec sleep 7100001' & (trap '' HUP TERM INT; sleep 7100001) & exit 4";
        let control = "setsid sh -c 'exec sleep 7100001' & wait";
        let mut jail = Jail::start(starter, &shell(starter, control));
        jail.running();
        eventually("the daemon runs", || is_running("7100001"));
        jail.ask();
        assert_eq!(jail.finish().ended().1, Some(Stop::Asked));
        assert!(!is_running("7100001"));

        let finished = run(starter, &shell(starter, script));
        assert_eq!(finished.ended().0, Exit::Code(4));
        assert!(!is_running("7100001"));
    }
}

#[test]
fn the_end_of_the_control_socket_is_the_end_of_the_task() {
    for starter in starters() {
        let mut jail = Jail::start(starter, &shell(starter, "trap '' TERM; sleep 7100002; sleep 7100002"));
        jail.running();
        eventually("it runs", || is_running("7100002"));
        jail.ask();
        let (exit, stopped, _) = jail.finish().ended();
        assert_eq!((exit, stopped), (Exit::Signal(9), Some(Stop::Asked)));
        assert!(!is_running("7100002"));
    }
}

#[test]
fn the_death_of_the_monitor_is_the_death_of_the_task() {
    for starter in starters() {
        let mut jail = Jail::start(starter, &shell(starter, "setsid sleep 7100003 & sleep 7100003"));
        jail.running();
        eventually("it runs", || is_running("7100003"));
        jail.process.kill().unwrap();
        jail.process.wait().unwrap();
        eventually("all are gone", || !is_running("7100003"));
    }
}

#[test]
fn a_dead_supervisor_is_the_death_of_the_task() {
    for starter in starters() {
        let mut jail = Jail::start(starter, &shell(starter, "sleep 7100004"));
        jail.running();
        eventually("it runs", || is_running("7100004"));
        let Jail { mut process, control, .. } = jail;
        drop(control);
        process.wait().unwrap();
        assert!(!is_running("7100004"));
    }
}

#[test]
fn a_killed_init_leaves_nothing_and_says_so() {
    for starter in starters() {
        let mut jail = Jail::start(starter, &shell(starter, "setsid sleep 7100005 & sleep 7100005"));
        let init = jail.running();
        eventually("it runs", || is_running("7100005"));
        kill(Pid::from_raw(init), Signal::SIGKILL).unwrap();
        let (exit, stopped, _) = jail.finish().ended();
        assert_eq!((exit, stopped), (Exit::Unknown, None));
        assert!(!is_running("7100005"));
    }
}

#[test]
fn a_stopped_task_can_be_ended() {
    for starter in starters() {
        let mut spec = shell(starter, "kill -STOP $$");
        spec.watch.wall_time_ms = Some(100);
        assert_eq!(run(starter, &spec).ended().1, Some(Stop::WallTime));
    }
}

#[test]
fn a_writable_bind_is_written_and_a_read_only_one_is_not() {
    for starter in starters() {
        let folder = std::env::temp_dir().join(format!("p2p-jail-bind-{}-{starter:?}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        nix::unistd::chown(&folder, Some(NOBODY.into()), None).unwrap();
        let mut spec = shell(starter, "echo kept > /kept/file; echo no > /shown/other; cat /shown/file");
        let Container::Builtin(builtin) = &mut spec.container else { unreachable!() };
        for (to, writable) in [("/kept", true), ("/shown", false)] {
            builtin.mounts.push(Mount::Bind { from: folder.clone(), to: to.into(), writable });
        }
        let landlock = spec.confinement.landlock.as_mut().unwrap();
        landlock.read_write.extend([Path::new("/kept").into(), Path::new("/shown").into()]);
        let finished = run(starter, &spec);
        assert_eq!(finished.ended().0, Exit::Code(0));
        assert!(finished.text.contains("Read-only file system"), "{}", finished.text);
        assert!(finished.text.ends_with("kept\n"), "{}", finished.text);
        assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "kept\n");
        assert!(!folder.join("other").exists());
        fs::remove_dir_all(folder).unwrap();
    }
}

/// Not a test: prints how long `/usr/bin/true` takes, from spawn to exit: alone, in bubblewrap, and in a jail under a strict
/// confinement, whose time includes sending the spec and reading all reports.
#[test]
#[ignore = "a measurement"]
fn how_long_it_takes() {
    let alone = || assert!(Program::new("/usr/bin/true").status().unwrap().success());
    let bubblewrap = || {
        let arguments = "--unshare-all --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 \
                         --proc /proc --dev /dev --tmpfs /tmp /usr/bin/true";
        let mut command = Program::new("bwrap");
        assert!(command.args(arguments.split_whitespace()).status().unwrap().success());
    };
    let starter = starters()[0];
    let mut spec = strict_spec(starter, &["/usr/bin/true"]);
    spec.watch.memory = None;
    let jail = || assert_eq!(run(starter, &spec).ended().0, Exit::Code(0));
    println!("alone: {}", measured(alone));
    println!("bubblewrap: {}", measured(bubblewrap));
    println!("jail ({starter:?}): {}", measured(jail));
}

fn measured(act: impl Fn()) -> String {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
    let mut times: Vec<Duration> = (0..300)
        .map(|_| {
            let began = now();
            act();
            now() - began
        })
        .collect();
    times.sort();
    format!("median {:?}, fastest {:?}, nine of ten under {:?}", times[150], times[0], times[270])
}

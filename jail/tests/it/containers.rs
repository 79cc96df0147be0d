//! Containers that are not our own: another program's, and none at all.

use p2p_jail::spec::*;

use crate::harness::*;

fn user(starter: Starter) -> Option<Identity> {
    (starter == Starter::Root).then_some(Identity { uid: NOBODY, gid: NOBODY })
}

/// bubblewrap around `p2p-jail confine`.
fn bubblewrap(starter: Starter, argv: &[&str]) -> Spec {
    let program = program().to_str().unwrap();
    let outer = "/usr/bin/bwrap --unshare-all --die-with-parent --new-session --ro-bind / / --proc /proc --dev /dev \
                 --tmpfs /tmp --size 16777216 --tmpfs /dev/shm --ro-bind";
    let mut spec = strict_spec(starter, argv);
    spec.container = Container::External(External {
        become_user: user(starter),
        argv: outer
            .split_whitespace()
            .chain([program, "/tmp/p2p-jail", "/tmp/p2p-jail", "confine"])
            .map(Into::into)
            .collect(),
        environment: Vec::new(),
        files: Vec::new(),
    });
    let landlock = spec.confinement.landlock.as_mut().unwrap();
    landlock.read_execute = ["/usr", "/tmp/p2p-jail"].map(Into::into).to_vec();
    landlock.read.retain(|path| path.to_str() != Some("/empty"));
    spec
}

fn bare(starter: Starter, script: &str) -> Spec {
    let mut spec = shell(starter, script);
    spec.container = Container::None { become_user: user(starter) };
    spec.confinement = Confinement::default();
    spec.watch.tmpfs.clear();
    spec
}

#[test]
fn bubblewrap_echoes() {
    for starter in starters() {
        let mut jail = Jail::start(starter, &bubblewrap(starter, &["/bin/sh", "-c", "cat >&3; echo one; exit 7"]));
        jail.feed(b"the future");
        let finished = jail.finish();
        assert_eq!(finished.ended().0, Exit::Code(7), "{finished:?}");
        assert_eq!((finished.frames.as_slice(), finished.text.as_str()), (&b"the future"[..], "one\n"));
    }
}

#[test]
fn bubblewrap_confines() {
    for starter in starters() {
        let seen = run(starter, &bubblewrap(starter, &["/tmp/p2p-jail", "check"]));
        assert_eq!(seen.ended().0, Exit::Code(0), "{seen:?}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(seen.fact(set), "0000000000000000", "{set}");
        }
        assert_eq!((seen.fact("NoNewPrivs"), seen.fact("Seccomp")), ("1", "2"));
        assert_eq!(seen.fact("fds"), "0,1,2,3");
        assert_eq!(seen.fact("clone3"), "ENOSYS");
        assert_eq!(seen.fact("connect 127.0.0.1"), "EPERM");
    }
}

#[test]
fn bubblewrap_is_watched_and_ended() {
    for starter in starters() {
        let filler = "perl -e 'my @kept; push @kept, \"x\" x (1 << 20) for 1..1000; sleep 7100020'";
        let mut spec = bubblewrap(starter, &["/bin/sh", "-c", filler]);
        spec.watch.memory = Some(150 << 20);
        assert_eq!(run(starter, &spec).ended().1, Some(Stop::Memory));
        let mut jail =
            Jail::start(starter, &bubblewrap(starter, &["/bin/sh", "-c", "setsid sleep 7100021 & sleep 7100021"]));
        jail.running();
        eventually("it runs", || is_running("7100021"));
        jail.ask();
        assert_eq!(jail.finish().ended().1, Some(Stop::Asked));
        assert!(!is_running("7100021"));
    }
}

#[test]
fn bubblewrap_dies_with_the_monitor() {
    for starter in starters() {
        let mut jail =
            Jail::start(starter, &bubblewrap(starter, &["/bin/sh", "-c", "setsid sleep 7100022 & sleep 7100022"]));
        jail.running();
        eventually("it runs", || is_running("7100022"));
        jail.process.kill().unwrap();
        jail.process.wait().unwrap();
        eventually("all are gone", || !is_running("7100022"));
    }
}

#[test]
fn an_external_program_that_fails_or_is_not_there() {
    for starter in starters() {
        let mut spec = bubblewrap(starter, &["/bin/sh", "-c", "echo ran"]);
        let Container::External(external) = &mut spec.container else { unreachable!() };
        external.argv = vec!["/usr/bin/bwrap".into(), "--no-such-option".into()];
        let finished = run(starter, &spec);
        assert_eq!(finished.refused().0, Stage::Namespaces);
        assert!(finished.text.contains("no-such-option"), "{}", finished.text);
        let Container::External(external) = &mut spec.container else { unreachable!() };
        external.argv = vec!["/no/such/program".into()];
        let finished = run(starter, &spec);
        let refused = finished.refused().1;
        assert!(refused.contains("/no/such/program"), "{refused}");
    }
}

#[test]
fn a_missing_program_in_bubblewrap() {
    for starter in starters() {
        assert_eq!(run(starter, &bubblewrap(starter, &["/no/such/program"])).refused().0, Stage::Exec);
    }
}

#[test]
fn bare_tasks_run_and_leave_nothing() {
    for starter in starters() {
        let finished =
            run(starter, &bare(starter, "setsid sh -c 'exec sleep 7100023' & (sleep 7100023 &) ; id -u; exit 5"));
        assert_eq!(finished.ended().0, Exit::Code(5), "{finished:?}");
        assert_eq!(finished.text, format!("{NOBODY}\n"));
        assert!(!is_running("7100023"));
    }
}

#[test]
fn bare_tasks_are_watched_and_confined() {
    for starter in starters() {
        let mut spec = bare(starter, "sleep 7100024");
        spec.watch.wall_time_ms = Some(100);
        assert_eq!(run(starter, &spec).ended().1, Some(Stop::WallTime));
        let mut spec = bare(starter, "perl -e 'my @kept; push @kept, \"x\" x (1 << 20) for 1..1000; sleep 7100025'");
        spec.watch.memory = Some(100 << 20);
        assert_eq!(run(starter, &spec).ended().1, Some(Stop::Memory));
        let mut spec = bare(starter, "unshare -U true; echo $?");
        spec.confinement.seccomp = Some(seccomp());
        assert!(run(starter, &spec).text.contains("Function not implemented"));
    }
}

//! Kernels that lack something, and calls that fail at one point or another.

use crate::{scene::Scene, world::Who};

/// What is taken away: rules for the saboteur, and what must then be said of it, the layer first.
type Loss = (&'static [&'static str], &'static [&'static str]);

const NO_USER_NAMESPACES: &[&str] = &["clone:0&0x10000000=EPERM", "unshare=EPERM", "clone3=ENOSYS"];
const NO_SECCOMP: &[&str] = &["seccomp=EINVAL", "prctl:0==22=EINVAL"];
const NO_LANDLOCK: &[&str] =
    &["landlock_create_ruleset=ENOSYS", "landlock_add_rule=ENOSYS", "landlock_restrict_self=ENOSYS"];

/// Everything that `p2p-jail` asks the kernel for, one at a time.
const LOSSES: &[Loss] = &[
    (NO_USER_NAMESPACES, &["filesystem, network, processes, ipc, privileges missing", "user", "namespaces"]),
    (&["clone:0&0x10000000=ENOSPC"], &["network", "missing", "user.max_"]),
    (&["clone:0&0x10000000=EAGAIN"], &["network", "missing", "ulimit -u"]),
    (NO_SECCOMP, &["syscalls missing", "seccomp"]),
    (&["prctl:0==38=EINVAL"], &["missing", "PR_SET_NO_NEW_PRIVS"]),
    (&["prctl:0==36=EINVAL"], &["missing", "PR_SET_CHILD_SUBREAPER"]),
    (&["prctl:0==1=EINVAL"], &["missing", "PR_SET_PDEATHSIG"]),
    (&["prctl:0==4=EINVAL"], &["missing", "PR_SET_DUMPABLE"]),
    (&["prctl:0==24=EPERM"], &["privileges missing"]),
    (&["prctl:0==28=EPERM"], &["privileges missing"]),
    (&["capset=EPERM"], &["privileges missing"]),
    (&["prlimit64:2&0xffffffffffffffff=EPERM", "setrlimit=EPERM"], &["memory, cpu, pids, disk missing"]),
    (&["sched_setaffinity=EPERM"], &["cpu", "missing"]),
    (&["setsid=EPERM"], &["processes missing", "setsid"]),
    (&["close_range=ENOSYS"], &["missing", "close_range"]),
    (&["sethostname=EPERM"], &["missing", "sethostname"]),
    (&["mount=EPERM"], &["filesystem missing", "private"]),
    (&["umount2=EPERM"], &["filesystem missing", "old root"]),
    (&["pivot_root=EPERM"], &["filesystem missing", "pivot_root"]),
    (&["fsopen=ENOSYS"], &["filesystem missing", "/proc"]),
    (&["fsopen@2=ENODEV"], &["filesystem missing", "tmpfs"]),
    (&["fsconfig=EINVAL"], &["filesystem missing"]),
    (&["fsmount=EPERM"], &["filesystem missing"]),
    (&["fsmount@4=EPERM"], &["filesystem missing"]),
    (&["open_tree=ENOSYS"], &["filesystem missing", "open_tree"]),
    (&["open_tree@5=EACCES"], &["filesystem missing", "open_tree"]),
    (&["mount_setattr=EINVAL"], &["filesystem missing", "mount_setattr"]),
    (&["mount_setattr@7=EPERM"], &["filesystem missing", "mount_setattr"]),
    (&["move_mount=EPERM"], &["filesystem missing", "move_mount"]),
    (&["move_mount@9=EBUSY"], &["filesystem missing", "move_mount"]),
    (&["symlinkat=ENOSPC"], &["filesystem missing", "symlinkat"]),
    (&["mkdirat@3=ENOSPC"], &["filesystem missing", "No space left"]),
    (&["landlock_add_rule=EINVAL"], &["filesystem missing"]),
    (&["landlock_restrict_self=EPERM"], &["filesystem missing"]),
];

/// The same where bubblewrap makes namespaces and mounts in its own ways.
const BUBBLEWRAPS_LOSSES: &[Loss] = &[
    (NO_USER_NAMESPACES, &["network", "missing", "bwrap"]),
    (NO_SECCOMP, &["syscalls missing", "seccomp"]),
    (&["prlimit64:2&0xffffffffffffffff=EPERM", "setrlimit=EPERM"], &["memory, cpu, pids, disk missing"]),
    (&["sched_setaffinity=EPERM"], &["cpu", "missing"]),
    (&["mount=EPERM"], &["missing", "bwrap"]),
    (&["mount@6=EINVAL"], &["missing", "bwrap"]),
    (&["pivot_root=EPERM"], &["missing", "bwrap"]),
    (&["memfd_create=ENOSYS"], &["missing", "memfd_create"]),
    (&["landlock_restrict_self=EPERM"], &["filesystem missing"]),
];

const DRIVERS: [(&str, &[Loss]); 2] = [("jail", LOSSES), ("bubblewrap", BUBBLEWRAPS_LOSSES)];

#[test]
fn a_future_that_is_evaluated_is_seen() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        for driver in ["jail", "bubblewrap"] {
            let seen = scene.exec(&[], &["--profile", "strict", "--sandbox", driver]);
            assert_eq!((seen.status, seen.evaluated), (Some(0), true), "{who:?} {driver}: {seen}");
            assert!(seen.stdout.contains("EVALUATED") && seen.stderr.contains("EVALUATED"), "{seen}");
            assert!(seen.executed.iter().any(|program| program.ends_with("bin/exec/R")), "{seen}");
        }
        // Without a sandbox it leaves its file.
        let seen = scene.exec_by(&[], &["--sandbox", "none", "--profile", "standard"]);
        assert!(seen.left_a_file, "{seen}");
        scene.nothing_is_left();
    }
}

#[test]
fn whatever_the_kernel_lacks_nothing_is_evaluated_and_the_layer_is_named() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        for (driver, losses) in DRIVERS {
            for (rules, words) in losses {
                let what = format!("{who:?} {driver} {rules:?}");
                let seen = scene.exec(rules, &["--profile", "strict", "--sandbox", driver]);
                seen.is_refused(&what, words);
                seen.says(&what, &["so nothing is run"]);
            }
        }
        scene.nothing_is_left();
    }
}

#[test]
fn root_that_cannot_become_somebody_else_runs_nothing() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let scene = Scene::new(Who::Me);
    for rule in ["setresuid=EPERM", "setgroups=EPERM"] {
        for driver in ["jail", "bubblewrap"] {
            let seen = scene.exec(&[rule], &["--profile", "strict", "--sandbox", driver]);
            seen.is_refused(rule, &["privileges missing"]);
        }
    }
    scene.nothing_is_left();
}

#[test]
fn standard_misses_nothing_but_what_is_optional_and_says_so() {
    let required: [&[&str]; 4] = [NO_USER_NAMESPACES, NO_SECCOMP, &["move_mount@9=EBUSY"], &["capset=EPERM"]];
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        for rules in required {
            let seen = scene.exec(rules, &["--profile", "standard"]);
            seen.is_refused(&format!("{who:?} {rules:?}"), &["missing", "so nothing is run"]);
        }
        for driver in ["jail", "bubblewrap"] {
            for rules in [NO_LANDLOCK, &["landlock_create_ruleset=EOPNOTSUPP"]] {
                let seen = scene.exec(rules, &["--profile", "strict", "--sandbox", driver]);
                seen.is_refused("strict without Landlock", &["filesystem missing", "Landlock"]);
                let seen = scene.exec(rules, &["--profile", "standard", "--sandbox", driver]);
                assert_eq!((seen.status, seen.evaluated), (Some(0), true), "{who:?} {driver}: {seen}");
                seen.says("standard without Landlock", &["filesystem", "reduced", "without Landlock"]);
            }
        }
        scene.nothing_is_left();
    }
}

#[test]
fn an_older_landlock_is_used_as_far_as_it_goes() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        for (abi, later) in
            [(1, "truncation, TCP"), (2, "truncation, TCP"), (3, "not yet: TCP"), (5, "abstract sockets")]
        {
            let rule = format!("landlock={abi}");
            for driver in ["jail", "bubblewrap"] {
                let seen = scene.exec(&[&rule], &["--profile", "strict", "--sandbox", driver]);
                assert_eq!((seen.status, seen.evaluated), (Some(0), true), "{who:?} {driver} {abi}: {seen}");
            }
            let doctor = scene.look(&mut scene.world.wrapped(&scene.under(&[&rule]), &["doctor"]));
            let told = doctor.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(told.contains(&format!("Landlock ABI {abi} ")) && told.contains(later), "{abi}: {doctor}");
        }
        let profile = scene.world.folder.path().join("newer.toml");
        std::fs::write(&profile, "inherits = \"strict\"\n[landlock]\nminimum_abi = 4\n").unwrap();
        let seen = scene.exec(&["landlock=3"], &["--profile", profile.to_str().unwrap()]);
        seen.is_refused("a profile that asks for more", &["filesystem missing", "ABI 3", "4 is required"]);
    }
}

#[test]
fn descriptors_that_run_out_at_any_point_stop_everything() {
    // Wherever it happens, in the supervisor, in the jail's program or on the way in: either all goes well or nothing is run.
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        for call in ["pipe2", "socketpair", "sendmsg"] {
            for nth in 1..=9 {
                let rule = format!("{call}@{nth}=EMFILE");
                let seen = scene.exec(&[&rule], &["--profile", "strict"]);
                // A call after the evaluation shows its result only.
                let fine = seen.status == Some(0) && seen.evaluated;
                let refused = matches!(seen.status, Some(2 | 3)) && !seen.stdout.contains("EVALUATED");
                assert!(fine || refused, "{who:?} {rule}: {seen}");
                seen.says(&rule, &[]);
            }
        }
        scene.nothing_is_left();
    }
}

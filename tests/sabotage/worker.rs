//! A worker whose kernel changes while it runs: its futures are refused one by one, the clients are told, and it goes on.

use std::{fs, process::Stdio};

use crate::{
    scene::Scene,
    world::{Running, Who, eventually, stderr, stdout},
};

/// Rules that begin to hold when a file of the call's name is made, and the stage that then fails.
const LOSSES: [(&str, &str, &str); 7] = [
    ("clone", "clone:0&0x10000000=EPERM", "Namespaces"),
    ("move_mount", "move_mount:0&0xffffffffffffffff=EBUSY", "Mounts"),
    ("fsopen", "fsopen:0&0xffffffffffffffff=ENODEV", "Mounts"),
    ("capset", "capset:0&0xffffffffffffffff=EPERM", "Capabilities"),
    ("landlock_create_ruleset", "landlock_create_ruleset:0&0xffffffffffffffff=ENOSYS", "Landlock"),
    ("seccomp", "seccomp:0==1=EINVAL", "Seccomp"),
    ("close_range", "close_range:1&0xffffffffffffffff=ENOSYS", "Descriptors"),
];

#[test]
fn a_future_that_cannot_be_confined_is_refused_and_the_next_one_runs() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        let armed = scene.open().to_str().unwrap();
        let mut rules = vec!["--armed", armed];
        rules.extend(LOSSES.iter().map(|(_, rule, _)| *rule));
        let worker = scene.world.wrapped_worker(&scene.under(&rules), &["--profile", "strict"]);
        assert!(stdout(&scene.world.evaluate(&scene.future())).contains("EVALUATED"), "{who:?}");
        for (call, _, stage) in LOSSES {
            let switch = scene.open().join(call);
            fs::write(&switch, "").unwrap();
            let output = scene.refused(|| scene.world.evaluate(&scene.future()));
            assert_eq!(output.status.code(), Some(4), "{who:?} {call}: {output:?}\n{}", worker.log());
            let said = stderr(&output);
            // The init's own stage is that of whatever it gives up.
            let named = said.contains(stage) || said.contains("stage Init");
            assert!(said.contains("could not be set up") && named, "{who:?} {call}: {said}");
            assert!(
                !said.contains("EVALUATED") && !stdout(&output).contains("EVALUATED"),
                "{who:?} {call}: {output:?}"
            );
            fs::remove_file(&switch).unwrap();
        }
        assert!(stdout(&scene.world.evaluate(&scene.future())).contains("EVALUATED"), "{who:?}\n{}", worker.log());
        drop(worker);
        scene.nothing_is_left();
    }
}

/// Sets the soft limit of descriptors of a running process.
fn limit(scene: &Scene, worker: &Running, most: u64) {
    let (pid, most) = (worker.pid().to_string(), format!("--nofile={most}:"));
    let set = scene.world.by_whom(&["prlimit", "--pid", &pid, &most]).output().unwrap();
    assert!(set.status.success(), "{}", stderr(&set));
}

#[test]
fn a_worker_without_descriptors_says_so_to_the_client_and_goes_on() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        let worker = scene.world.worker(&["--profile", "strict"]);
        assert!(stdout(&scene.world.evaluate(&scene.future())).contains("EVALUATED"), "{who:?}");
        let open = || fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap().count() as u64;
        let released = || worker.log().matches("released").count();
        // From enough for the stream to the client, for the future's bytes and for nearly all of the task's pipes down to less.
        let told = (2..=16).rev().any(|more| {
            let before = released();
            limit(&scene, &worker, open() + more);
            let mut submit = scene.world.submit(&["-e", &scene.future()]);
            let mut child = submit.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            eventually("an end", || child.try_wait().unwrap().is_some() || released() > before);
            limit(&scene, &worker, 1024);
            let output = child.wait_with_output().unwrap();
            let evaluated = stdout(&output).contains("EVALUATED");
            assert_eq!(evaluated, output.status.code() == Some(0), "{who:?} {more}: {output:?}");
            stderr(&output).contains("could not be set up")
        });
        assert!(told, "{who:?}\n{}", worker.log());
        assert!(stdout(&scene.world.evaluate(&scene.future())).contains("EVALUATED"), "{who:?}\n{}", worker.log());
        drop(worker);
        scene.nothing_is_left();
    }
}

#[test]
fn what_standard_goes_without_is_told_to_owner_and_client() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        let rules = scene.under(&["landlock_create_ruleset=EOPNOTSUPP"]);
        let worker = scene.world.wrapped_worker(&rules, &["--profile", "standard"]);
        worker.wait_for("without Landlock");
        let output = scene.world.evaluate("1 + 1");
        assert_eq!((stdout(&output).as_str(), output.status.code()), ("[1] 2\n", Some(0)), "{who:?} {output:?}");
        let said = stderr(&output);
        assert!(said.contains("not held in full") && said.contains("filesystem reduced"), "{who:?}: {said}");
        assert!(said.contains("without Landlock"), "{who:?}: {said}");
        drop(worker);
        // A worker that holds everything says nothing.
        let _whole = scene.world.worker(&["--profile", "strict"]);
        assert_eq!(stderr(&scene.world.evaluate("1 + 1")), "", "{who:?}");
    }
}

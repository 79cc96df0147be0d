//! Descriptors, disks, inodes and paths that run out or are not there.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::{
    scene::{Scene, after_as, borrowed},
    world::{Who, stderr, stdout},
};

#[test]
fn with_few_descriptors_it_runs_whole_or_not_at_all() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        let mut outcomes = [0, 0];
        for most in [4, 8, 10, 12, 16, 20, 24, 32, 64, 96, 300, 1024] {
            let limit = format!("--nofile={most}");
            let seen = scene.exec_by(&["prlimit", &limit], &["--profile", "strict"]);
            let fine = seen.status == Some(0) && seen.evaluated;
            assert!(fine || (seen.status != Some(0) && !seen.evaluated), "{who:?} {most}: {seen}");
            seen.says(&limit, &[]);
            outcomes[usize::from(fine)] += 1;
        }
        assert!(outcomes[0] > 0 && outcomes[1] > 0, "the limits were around what it takes: {outcomes:?}");
        scene.nothing_is_left();
    }
}

#[test]
fn a_disk_without_room_is_found_before_anything_is_run() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        let temporary = scene.world.folder.path().join("temporary").display().to_string();
        let state = scene.open().join("state");
        let at_state = ["--profile", "strict", "--state", state.to_str().unwrap()];
        let mount = |options: &str, at: &str| format!("mkdir -p {at}; mount -t tmpfs -o {options},mode=1777 none {at}");
        for (options, fill) in [("size=4k", "; head -c 4096 /dev/zero >/$0/full"), ("nr_inodes=1", "")] {
            let fill = fill.replace("/$0", &temporary);
            let line = after_as(who, &format!("{}{fill}", mount(options, &temporary)), &[]);
            let seen = scene.exec_by(&borrowed(&line), &at_state);
            seen.is_refused(&format!("{who:?} TMPDIR {options}"), &["TMPDIR"]);
        }
        for options in ["size=64k", "nr_inodes=2"] {
            let line = after_as(who, &mount(options, state.to_str().unwrap()), &[]);
            let seen = scene.exec_by(&borrowed(&line), &at_state);
            assert!(!seen.evaluated && seen.status == Some(2), "{who:?} state {options}: {seen}");
            seen.says(options, &["No space left"]);
        }
        // Room to begin with, and not for the result.
        let line = after_as(who, &mount("size=4m", state.to_str().unwrap()), &[]);
        let mut command = scene.world.wrapped(&borrowed(&line), &["exec"]);
        let output = command.args(at_state).args(["-e", "as.character(runif(1e6))"]).output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{who:?} {output:?}");
        assert!(stderr(&output).contains("cannot store the result"), "{output:?}");
        assert_eq!(stdout(&output), "");
        scene.nothing_is_left();
    }
}

#[test]
fn a_path_that_is_not_there_is_named() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        // Not below /tmp, which tasks have of their own.
        let outside = tempfile::Builder::new().prefix("p2p-sabotage-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = outside.path().join("data");
        let profile = scene.world.folder.path().join("shares.toml");
        fs::write(&profile, format!("inherits = \"strict\"\n[files.read]\n{data:?} = {{ why = \"a test\" }}\n"))
            .unwrap();
        let profile = profile.to_str().unwrap();
        let seen = scene.exec_by(&[], &["--profile", profile]);
        assert!(!seen.evaluated && seen.status == Some(2), "{who:?} {seen}");
        seen.says("a missing path", &[data.to_str().unwrap(), "does not exist"]);
        // A path that vanishes under a worker.
        fs::create_dir(&data).unwrap();
        let worker = scene.world.worker(&["--profile", profile]);
        assert_eq!(stdout(&scene.world.evaluate("1 + 1")), "[1] 2\n", "{who:?}");
        fs::remove_dir(&data).unwrap();
        let output = scene.refused(|| scene.world.evaluate(&scene.future()));
        assert_eq!(output.status.code(), Some(4), "{who:?} {output:?}");
        assert!(
            stderr(&output).contains("could not be set up") && !stdout(&output).contains("EVALUATED"),
            "{output:?}"
        );
        assert!(stderr(&output).contains(data.to_str().unwrap()), "{output:?}");
        fs::create_dir(&data).unwrap();
        assert_eq!(stdout(&scene.world.evaluate("'again'")), "[1] \"again\"\n", "{who:?}");
        drop(worker);
        scene.nothing_is_left();
    }
}

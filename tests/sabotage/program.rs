//! A `p2p-jail` that is missing, cannot be executed, or is not the one that this `p2p-worker` was built with.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use p2p_jail::message::CONTRACT;

use crate::{
    scene::Scene,
    world::{Who, stderr, stdout},
};

/// Puts something else in the place of `p2p-jail`. What was there is a link to the build's, and stays untouched.
fn replace(scene: &Scene, bytes: &[u8], mode: u32) -> PathBuf {
    let path = scene.world.programs().join("p2p-jail");
    let _ = fs::remove_file(&path);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// The program as another version would be: with another contract.
pub(crate) fn of_another_version() -> Vec<u8> {
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_p2p-jail")).unwrap();
    let contract = CONTRACT.to_le_bytes();
    let places: Vec<usize> =
        bytes.windows(contract.len()).enumerate().filter(|(_, part)| *part == contract).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the program does not hold its contract");
    for at in places {
        bytes[at + contract.len() - 1] ^= 1;
    }
    bytes
}

#[test]
fn without_its_jail_the_program_runs_nothing() {
    let real = fs::read(env!("CARGO_BIN_EXE_p2p-jail")).unwrap();
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        let others: [(&str, &[u8], u32, &str); 5] = [
            ("not executable", &real, 0o644, "p2p-jail"),
            ("of another version", &of_another_version(), 0o755, "same build"),
            ("a script that does nothing", b"#!/bin/sh\nexit 0\n", 0o755, "same build"),
            ("a script that echoes", b"#!/bin/sh\nexec cat >&0 <&0\n", 0o755, "same build"),
            ("no program", b"\x7fELF nonsense", 0o755, "p2p-jail"),
        ];
        for (what, bytes, mode, word) in others {
            replace(&scene, bytes, mode);
            for driver in ["jail", "bubblewrap"] {
                for profile in ["strict", "standard"] {
                    let seen = scene.exec_by(&[], &["--profile", profile, "--sandbox", driver]);
                    seen.is_refused(&format!("{who:?} {driver} {profile} {what}"), &[word]);
                }
            }
        }
        fs::remove_file(scene.world.programs().join("p2p-jail")).unwrap();
        let seen = scene.exec_by(&[], &["--profile", "strict"]);
        seen.is_refused("missing", &["p2p-jail is not at", "beside p2p-worker"]);
        let doctor = scene.look(&mut scene.world.command(&["doctor"]));
        doctor.is_refused("doctor", &["p2p-jail is not at"]);
        replace(&scene, &real, 0o755);
        assert!(scene.exec_by(&[], &["--profile", "strict"]).evaluated, "all is well again");
        scene.nothing_is_left();
    }
}

#[test]
fn a_jail_that_changes_under_a_worker_stops_its_futures_and_not_the_worker() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        let worker = scene.world.worker(&["--profile", "strict"]);
        let real = fs::read(env!("CARGO_BIN_EXE_p2p-jail")).unwrap();
        assert_eq!(stdout(&scene.world.evaluate("1 + 1")), "[1] 2\n");
        // The client has a p2p-jail of its own: the same one, so it is asked for its opinion before the change.
        let client = scene.world.folder.path().join("client");
        fs::create_dir(&client).unwrap();
        for program in ["p2p-worker", "p2p-jail"] {
            fs::copy(scene.world.programs().join(program), client.join(program)).unwrap();
        }
        for (bytes, mode) in [(of_another_version(), 0o755), (real.clone(), 0o644)] {
            replace(&scene, &bytes, mode);
            let output = scene.refused(|| scene.world.submit_with(&client, &["-e", &scene.future()]).output().unwrap());
            assert_eq!(output.status.code(), Some(4), "{who:?} {output:?}");
            assert!(stderr(&output).contains("could not be set up"), "{output:?}");
            assert!(!stdout(&output).contains("EVALUATED"), "{output:?}");
        }
        replace(&scene, &real, 0o755);
        assert_eq!(stdout(&scene.world.submit_with(&client, &["-e", "'again'"]).output().unwrap()), "[1] \"again\"\n");
        drop(worker);
        scene.nothing_is_left();
    }
}

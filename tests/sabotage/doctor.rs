//! What `doctor` says of all this: on one screen, as JSON that keeps to its schema, and with its exit status.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    scene::{Scene, Seen},
    schema::violations,
    world::{Who, stderr},
};

const SCHEMA: &str = include_str!("../../docs/doctor.schema.json");

/// Losses, what strict comes to with them, what standard comes to, and the first word of the answer under standard where
/// control groups count what waits in sockets.
const LOSSES: [(&[&str], bool, bool, &str); 4] = [
    (&[], true, true, "YES:"),
    (&["landlock_create_ruleset=EOPNOTSUPP"], false, true, "YES, with less:"),
    (&["clone:0&0x10000000=EPERM"], false, false, "NO:"),
    (&["seccomp=EINVAL", "prctl:0==22=EINVAL"], false, false, "NO:"),
];

fn doctor(scene: &Scene, rules: &[&str], arguments: &[&str]) -> Seen {
    let mut line = vec!["doctor"];
    line.extend(arguments);
    scene.look(&mut scene.world.wrapped(&scene.under(rules), &line))
}

#[test]
fn the_answer_comes_first_and_fits_a_screen() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        for (rules, strict, _, answer) in LOSSES {
            let seen = doctor(&scene, rules, &[]);
            let what = format!("{who:?} {rules:?}: {seen}");
            assert_eq!(seen.status, Some(if strict { 0 } else { 3 }), "{what}");
            let groups = seen.stdout.contains("Limits are held by cgroup");
            let answer = if answer == "YES:" && !groups { "YES, with less:" } else { answer };
            assert!(seen.stdout.starts_with(answer), "{what}");
            assert!(seen.stdout.lines().count() <= 48, "{what}");
            // Only what cannot be broken, such as an address, is longer than a line.
            let long = |line: &&str| line.chars().count() > 80 && line.split_whitespace().count() > 1;
            assert!(!seen.stdout.lines().any(|line| long(&line)), "{what}");
            // Whatever is asked about, strict is answered for.
            let answer = seen.stdout.split("\n\n").next().unwrap().replace('\n', " ");
            assert!(answer.contains("strict cannot run") != strict, "{what}");
        }
        let none = doctor(&scene, &[], &["--sandbox", "none"]);
        assert!(none.stdout.starts_with("NO: the driver none is no sandbox") && none.status == Some(3), "{none}");
    }
}

#[test]
fn the_json_keeps_to_its_schema() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        for (rules, strict, standard, _) in LOSSES {
            for (profile, runs) in [("strict", strict), ("standard", standard)] {
                let seen = doctor(&scene, rules, &["--json", "--profile", profile]);
                let what = format!("{who:?} {rules:?} {profile}");
                let json: Value =
                    serde_json::from_str(&seen.stdout).unwrap_or_else(|error| panic!("{what} {error} {seen}"));
                assert_eq!(violations(&schema, &json), Vec::<String>::new(), "{what}");
                assert_eq!(seen.status, Some(if strict { 0 } else { 3 }), "{what}: {seen}");
                assert_eq!(json["verdict"]["strict_runs"], strict, "{what}");
                assert_eq!(json["verdict"]["profile_runs"], runs, "{what}");
                assert_eq!(json["profile"], profile);
            }
        }
    }
}

#[test]
fn a_bubblewrap_that_is_missing_is_a_thing_to_do() {
    let scene = Scene::new(Who::Me);
    let seen = scene.look(scene.world.command(&["doctor"]).env("PATH", "/nonexistent"));
    // R is found at its usual place too, bubblewrap only in the path.
    assert_eq!(seen.status, Some(0), "{seen}");
    assert!(seen.stdout.contains("apt install bubblewrap"), "{seen}");
}

#[test]
fn the_apparmor_profile_is_one() {
    let root = std::env::var_os("P2P_TEST_ROOT").unwrap_or_else(|| "/var/tmp/p2p-worker-test-root".into());
    let parser = Path::new("/usr/sbin/apparmor_parser");
    assert!(
        Path::new(&root).join("usr/sbin/apparmor_parser").exists(),
        "{root:?}: scripts/test-root installs AppArmor 4"
    );
    let scene = Scene::new(Who::Me);
    let printed = scene.look(&mut scene.world.command(&["doctor", "--apparmor-profile"]));
    assert_eq!(printed.status, Some(0), "{printed}");
    let jail = scene.world.programs().join("p2p-jail");
    assert!(printed.stdout.contains(&format!("@{{p2p_jail}} += \"{}\"", jail.display())), "{printed}");
    let shipped = include_str!("../../apparmor/p2p-jail");
    for (name, text, fine) in [
        ("shipped", shipped.to_owned(), true),
        ("printed", printed.stdout.clone(), true),
        (
            "strange path",
            shipped.replace("# More places go here.", "@{p2p_jail} += \"/home/a b/\\[x\\]/p2p-jail\""),
            true,
        ),
        ("no profile", shipped.replace("userns,", "usernss,"), false),
    ] {
        let file = scene.open().join("profile");
        fs::write(&file, text).unwrap();
        let mut parse = Command::new("bwrap");
        parse
            .args(["--unshare-all", "--ro-bind"])
            .arg(&root)
            .args(["/", "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev"]);
        parse.arg("--ro-bind").arg(&file).args(["/tmp/profile"]).arg(parser);
        // Neither loaded into a kernel nor looked up in a cache.
        let parsed = parse.args(["-Q", "-K", "-T", "/tmp/profile"]).output().unwrap();
        assert_eq!(parsed.status.success(), fine, "{name}: {}", stderr(&parsed));
    }
}

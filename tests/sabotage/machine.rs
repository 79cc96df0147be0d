//! Machines that forbid: switched off user namespaces, containers that cover `/proc`, Ubuntu's AppArmor, a lone root.

use crate::{
    scene::{Scene, after_as, borrowed},
    world::Who,
};

/// Covers parts of `/proc` as container engines do.
const COVERED: &str = "for file in kcore keys timer_list; do if test -e /proc/$file; then mount --bind /dev/null \
    /proc/$file; fi; done; mount -t tmpfs -o ro none /proc/sys/net";

/// The rule by which the kernel answers as it does under Ubuntu's restriction and under Docker's filter.
const NO_CLONE: &str = "clone:0&0x10000000=EPERM";

/// Commands that put files into `/proc/sys/kernel` for the programs that follow: those that are read there, and one more.
fn with_switch(folder: &str, name: &str, value: &str) -> String {
    format!(
        "mkdir -p {folder}; for file in osrelease cap_last_cap pid_max ngroups_max overflowuid overflowgid; do \
         cat /proc/sys/kernel/$file >{folder}/$file; done; echo {value} >{folder}/{name}; \
         mount --bind {folder} /proc/sys/kernel"
    )
}

#[test]
fn user_namespaces_that_are_really_switched_off() {
    let scene = Scene::new(Who::Ordinary);
    // The switch of a user namespace around the program, turned by the kernel's own file.
    let line = after_as(Who::Ordinary, "echo 0 >/proc/sys/user/max_user_namespaces", &[]);
    for driver in ["jail", "bubblewrap"] {
        let seen = scene.exec_by(&borrowed(&line), &["--profile", "strict", "--sandbox", driver]);
        let fix = "sysctl -w user.max_user_namespaces=15000";
        seen.is_refused(driver, &["network", "missing", "user.max_user_namespaces is 0", fix]);
    }
    scene.nothing_is_left();
}

#[test]
fn debians_and_ubuntus_switches_are_explained() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        let folder = scene.open().join("kernel").display().to_string();
        for (name, value, fix) in [
            ("unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
            ("apparmor_restrict_unprivileged_userns", "1", "doctor --apparmor-profile | sudo tee"),
        ] {
            let mut line = after_as(who, &with_switch(&folder, name, value), &[]);
            let saboteur: Vec<String> = scene.under(&[NO_CLONE]).iter().map(|word| (*word).to_owned()).collect();
            line.extend(saboteur);
            let seen = scene.exec_by(&borrowed(&line), &["--profile", "strict"]);
            // Where this is a container as well, as the marks of one say, its own fix comes first.
            let container = seen.stderr.contains("or run the worker outside of it");
            let words: &[&str] = if container { &["missing"] } else { &["missing", fix] };
            seen.is_refused(&format!("{who:?} {name}"), words);
            std::fs::remove_dir_all(&folder).unwrap();
        }
        scene.nothing_is_left();
    }
}

#[test]
fn a_proc_that_is_covered_in_parts_is_explained() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        let line = after_as(who, COVERED, &[]);
        for driver in ["jail", "bubblewrap"] {
            let seen = scene.exec_by(&borrowed(&line), &["--profile", "strict", "--sandbox", driver]);
            seen.is_refused(&format!("{who:?} {driver}"), &["missing", "proc", ";"]);
        }
        scene.nothing_is_left();
    }
}

#[test]
fn a_proc_that_hides_others_is_enough_or_refused() {
    for who in [Who::Me, Who::Ordinary] {
        let scene = Scene::new(who);
        let line = after_as(who, "mount -t proc -o hidepid=2 proc /proc", &["--pid", "--fork"]);
        let seen = scene.exec_by(&borrowed(&line), &["--profile", "strict"]);
        assert_eq!((seen.status, seen.evaluated), (Some(0), true), "{who:?}: {seen}");
        let line = after_as(who, "mount -t tmpfs none /proc", &["--pid", "--fork"]);
        let seen = scene.exec_by(&borrowed(&line), &["--profile", "strict"]);
        seen.is_refused(&format!("{who:?} no /proc"), &["cannot read /proc/self/exe"]);
        scene.nothing_is_left();
    }
}

#[test]
fn a_root_that_is_the_only_user_runs_nothing() {
    let scene = Scene::new(Who::Ordinary);
    // A rootless container with one user.
    let seen = scene.exec_by(&["unshare", "--user", "--map-root-user"], &["--profile", "strict"]);
    seen.is_refused("a lone root", &["only user", "ordinary user"]);
    scene.nothing_is_left();
}

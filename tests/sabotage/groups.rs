//! Control groups that cannot be had, in whole or in part.
//!
//! What cannot be made when the program starts leaves rlimits and the watch, and `doctor` says so and why; what fails for one
//! task stops that task before anything of it runs. The groups are given to the program here, as systemd or root would, on
//! whichever version this machine has. Only root can give some: an ordinary user's run has nothing to take away.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    delegated::Delegated,
    scene::{Scene, Seen, after_as, borrowed},
    world::{Who, eventually, stderr, stdout},
};

/// The ordinary user of [`crate::world`].
const ORDINARY: u32 = 65534;

const STRICT: [&str; 2] = ["--profile", "strict"];

/// A scene with control groups of its own.
struct Divided {
    scene: Scene,
    groups: Delegated,
    /// A line that runs a program in the groups.
    join: Vec<String>,
}

impl Divided {
    fn new(who: Who) -> Self {
        let groups = Delegated::new(if who == Who::Ordinary { ORDINARY } else { 0 });
        let folders: Vec<String> = groups.paths().iter().map(|path| path.display().to_string()).collect();
        let script =
            format!("for group in {}; do echo 0 >$group/cgroup.procs || exit 98; done; exec \"$@\"", folders.join(" "));
        let join = ["sh", "-c", &script, "sh"].map(str::to_owned).into();
        Self { scene: Scene::new(who), groups, join }
    }

    fn exec(&self, rules: &[&str]) -> Seen {
        self.scene.exec_within(&borrowed(&self.join), rules, &STRICT)
    }

    /// Whether the groups are of version 1: a hierarchy for each controller.
    fn first_version(&self) -> bool {
        self.groups.paths().len() > 1
    }

    fn doctor(&self, wrapper: &[&str]) -> String {
        let line = [&borrowed(&self.join)[..], wrapper].concat();
        let seen = self.scene.look(&mut self.scene.world.wrapped(&line, &["doctor", "--profile", "strict"]));
        assert_eq!(seen.status, Some(0), "{seen}");
        seen.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What programs have left in the groups.
    fn left(&self) -> Vec<PathBuf> {
        let within = |folder: &PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let all = self.groups.paths().iter().flat_map(within);
        all.filter(|path| path.to_string_lossy().contains("p2p-tasks-")).collect()
    }

    /// The groups of tasks.
    fn tasks(&self) -> Vec<PathBuf> {
        let within = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let all = self.left().into_iter().flat_map(within);
        all.filter(|path| path.to_string_lossy().contains("/task-")).collect()
    }

    fn nothing_is_left(&self) {
        self.scene.nothing_is_left();
        assert_eq!(self.left(), Vec::<PathBuf>::new());
    }
}

/// Both users, where there are both.
fn users() -> Vec<Who> {
    if nix::unistd::geteuid().is_root() { vec![Who::Me, Who::Ordinary] } else { Vec::new() }
}

fn is_evaluated(what: &str, seen: &Seen) {
    assert_eq!((seen.status, seen.evaluated), (Some(0), true), "{what}: {seen}");
}

#[test]
fn groups_that_cannot_be_made_at_the_start_leave_the_watch_and_doctor_says_so() {
    for who in users() {
        let divided = Divided::new(who);
        is_evaluated("nothing is taken away", &divided.exec(&[]));
        assert!(divided.doctor(&[]).contains("Limits are held by cgroup v"), "{}", divided.doctor(&[]));
        let losses = [
            ("mkdir/p2p-tasks-=ENOSPC", "No space left on device"),
            ("mkdir/p2p-tasks-=EACCES", "Permission denied"),
            ("mkdir/p2p-tasks-=EROFS", "Read-only file system"),
            ("openat/p2p-tasks-=EMFILE", "Too many open files"),
            // Somebody else has the lock of whatever is made.
            ("flock=EAGAIN", "taken away as soon as they are made"),
        ];
        for (rule, why) in losses {
            is_evaluated(&format!("{who:?} {rule}"), &divided.exec(&[rule]));
            let told = divided.doctor(&divided.scene.under(&[rule]));
            let words = ["Limits are held by rlimits and a watch; no control groups:", why];
            assert!(words.iter().all(|word| told.contains(word)), "{who:?} {rule}: {told}");
            // What was made before the last one failed is gone too, or can be removed by the next start.
            is_evaluated("the next start", &divided.exec(&[]));
        }
        // The first name is somebody else's, the second is not.
        let told = divided.doctor(&divided.scene.under(&["flock@1=EAGAIN"]));
        assert!(told.contains("Limits are held by cgroup v"), "{who:?}: {told}");
        is_evaluated("the next start", &divided.exec(&[]));
        divided.nothing_is_left();
    }
}

#[test]
fn a_group_that_cannot_be_made_for_a_task_stops_it_before_it_runs() {
    for who in users() {
        let divided = Divided::new(who);
        let files: &[&str] = if divided.first_version() {
            &[
                "memory.limit_in_bytes",
                "memory.oom_control",
                "pids.max",
                "pids.events",
                "cpu.cfs_quota_us",
                "cpuacct.usage",
                "cgroup.procs",
            ]
        } else {
            &["memory.max", "memory.oom.group", "memory.events", "pids.max", "pids.events", "cpu.max", "cpu.stat"]
        };
        let errors = [("EACCES", "Delegate=yes"), ("ENOENT", "start it again"), ("EMFILE", "ulimit -n")];
        let opened = files.iter().flat_map(|file| errors.map(|(errno, fix)| (format!("openat//{file}={errno}"), fix)));
        let made = [
            ("ENOSPC", "too many control groups"),
            ("EACCES", "Delegate=yes"),
            ("EROFS", "Delegate=yes"),
            ("ENOENT", "start it again"),
        ];
        let made = made.map(|(errno, fix)| (format!("mkdir//task-={errno}"), fix));
        for (rule, fix) in made.into_iter().chain(opened) {
            let seen = divided.exec(&[&rule]);
            let what = format!("{who:?} {rule}");
            seen.is_refused(&what, &["memory, cpu, pids missing", "so nothing is run", fix]);
        }
        is_evaluated("nothing is taken away", &divided.exec(&[]));
        divided.nothing_is_left();
    }
}

#[test]
fn less_than_the_profile_gives_is_refused_or_held_and_never_half() {
    for who in users() {
        let divided = Divided::new(who);
        if !divided.first_version() {
            // Version 2 holds the lower of both.
            continue;
        }
        let own = divided.groups.paths().iter().find(|path| path.join("cpu.cfs_quota_us").exists()).unwrap();
        fs::write(own.join("cpu.cfs_quota_us"), "50000").unwrap();
        let seen = divided.exec(&[]);
        seen.is_refused(
            &format!("{who:?} half a processor"),
            &["memory, cpu, pids missing", "cfs_quota_us", "profile's cpus"],
        );
        fs::write(own.join("cpu.cfs_quota_us"), "-1").unwrap();
        is_evaluated("all of it", &divided.exec(&[]));
        divided.nothing_is_left();
    }
}

#[test]
fn a_controller_that_is_missing_is_missed_aloud() {
    for who in users() {
        let divided = Divided::new(who);
        for controller in ["memory", "pids", "cpu"] {
            let line = without(who, &divided, controller);
            let told = divided.doctor(&borrowed(&line));
            let seen = divided.scene.exec_by(&[borrowed(&divided.join), borrowed(&line)].concat(), &STRICT);
            is_evaluated(&format!("{who:?} without {controller}"), &seen);
            if controller == "cpu" {
                // Affinity and the watch hold it as well.
                let without =
                    told.contains("Limits are held by cgroup v") && !told.contains("cpu,") && !told.contains("cpu)");
                assert!(without, "{who:?}: {told}");
            } else {
                assert!(told.contains("no control groups:") && told.contains(controller), "{who:?}: {told}");
            }
        }
        divided.nothing_is_left();
    }
}

/// A line that runs a program where this controller is not to be had: what `/proc` and the hierarchies show is covered.
fn without(who: Who, divided: &Divided, controller: &str) -> Vec<String> {
    let folder = divided.groups.paths().iter().find(|path| {
        path.join(format!("{controller}.stat")).exists() || path.join(format!("{controller}.max")).exists()
    });
    let own = folder.unwrap_or_else(|| panic!("no {controller}")).display().to_string();
    let commands = if divided.first_version() {
        // An empty folder that nobody can write to, in the place of the whole group.
        format!("mount -t tmpfs -o ro,mode=555 none {own}")
    } else {
        let file = divided.scene.open().join(format!("controllers-{controller}-{who:?}"));
        let all = fs::read_to_string(Path::new(&own).join("cgroup.controllers")).unwrap();
        let others: Vec<&str> = all.split_whitespace().filter(|name| *name != controller).collect();
        fs::write(&file, others.join(" ")).unwrap();
        format!("mount --bind {} {own}/cgroup.controllers", file.display())
    };
    after_as(who, &commands, &[])
}

#[test]
fn a_group_that_cannot_be_removed_stays_until_the_next_start_and_hinders_nobody() {
    for who in users() {
        let divided = Divided::new(who);
        is_evaluated("the group stays", &divided.exec(&["rmdir/p2p-tasks-=EBUSY"]));
        let left = divided.left();
        assert!(!left.is_empty(), "the control: it was not removed");
        is_evaluated("the next start", &divided.exec(&[]));
        assert_eq!(divided.left(), Vec::<PathBuf>::new(), "the next start removes it");
        divided.nothing_is_left();
    }
}

#[test]
fn a_worker_whose_groups_fail_says_so_and_goes_on_when_they_are_back() {
    for who in users() {
        let divided = Divided::new(who);
        let Divided { scene, groups, join } = &divided;
        let armed = scene.open().to_str().unwrap();
        let rules = ["--armed", armed, "mkdir//task-=ENOSPC"];
        let mut worker = scene.world.wrapped_worker(&[&borrowed(join)[..], &scene.under(&rules)].concat(), &STRICT);
        let works = || {
            let output = scene.world.evaluate(&scene.future());
            assert!(stdout(&output).contains("EVALUATED"), "{who:?} {output:?}\n{}", worker.log());
        };
        works();
        let switch = scene.open().join("mkdir");
        fs::write(&switch, "").unwrap();
        let output = scene.refused(|| scene.world.evaluate(&scene.future()));
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{who:?}: {output:?}");
        assert!(said.contains("could not be set up") && said.contains("ControlGroup"), "{who:?}: {said}");
        assert!(!stdout(&output).contains("EVALUATED") && !said.contains("EVALUATED"), "{who:?}: {output:?}");
        fs::remove_file(&switch).unwrap();
        works();
        // A group with a task in it cannot be removed, whoever tries.
        let mut submit = scene.world.submit(&["-e", "Sys.sleep(3); 'slept'"]);
        let running = submit.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let inhabited =
            |task: &PathBuf| fs::read_to_string(task.join("cgroup.procs")).is_ok_and(|pids| pids.lines().count() > 1);
        let mut theirs = Vec::new();
        eventually("the task is in its groups", || {
            // Its init and R; one that was made ahead has an init alone.
            theirs = divided.tasks().into_iter().filter(inhabited).collect();
            !theirs.is_empty()
        });
        assert!(theirs.iter().all(|task| fs::remove_dir(task).is_err()), "{who:?}");
        assert_eq!(stdout(&running.wait_with_output().unwrap()), "[1] \"slept\"\n", "{who:?}");
        eventually("its groups are gone", || theirs.iter().all(|task| !task.exists()));
        worker.signal(nix::sys::signal::Signal::SIGTERM);
        worker.wait();
        eventually("its processes have left", || groups.paths().iter().all(|group| is_empty(group)));
        divided.nothing_is_left();
    }
}

fn is_empty(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|pids| pids.is_empty())
}

//! Whole plans, for a machine that is made up.

use p2p_jail::spec::{
    CgroupVersion, Command, Container, ControlGroup, Controller, Hierarchy, Identity, Rlimit, Seccomp,
};

use super::*;
use crate::sandbox::{Bubblewrap, HostPath, Mechanism, PathKind, Surroundings, habitat::Habitat, machine::NOBODY};

/// A Debian with merged /usr, as an ordinary user.
fn machine() -> Machine {
    let mut machine = Machine {
        limits: Mechanism::default(),
        root: None,
        jail: "/opt/p2p/p2p-jail".into(),
        jail_for_tasks: "/opt/p2p/p2p-jail".into(),
        me: Some(Identity { uid: 1001, gid: 1001 }),
        become_user: None,
        surroundings: Surroundings {
            home: Some("/home/alice".into()),
            state: Some("/home/alice/.local/state/p2p".into()),
        },
        kernel: "6.1.0-18-amd64".to_owned(),
        mainline: None,
        landlock_abi: Some(2),
        cpus: vec![0, 1, 2, 3],
        memory: 16 << 30,
        habitat: Habitat::default(),
        bubblewrap: Some(Bubblewrap { path: "/usr/bin/bwrap".into(), version: (0, 8, 0), setuid: false }),
        pasta: Some("/usr/bin/pasta".into()),
        tun: true,
        bare_folder: Some("/tmp/p2p-worker-none-x".into()),
        paths: Default::default(),
    };
    for folder in ["/usr", "/etc/alternatives", "/etc/R", "/etc/fonts", "/etc/ssl/certs", "/opt/R/4.5.1"] {
        put(&mut machine, folder, PathKind::Directory);
    }
    for file in ["/etc/ld.so.cache", "/opt/p2p/p2p-jail", "/proc/cmdline", "/proc/keys"] {
        put(&mut machine, file, PathKind::File);
    }
    for (link, target) in [("/bin", "usr/bin"), ("/lib", "usr/lib"), ("/lib64", "usr/lib64"), ("/sbin", "usr/sbin")] {
        put(&mut machine, link, PathKind::Symlink(target.into()));
    }
    put(&mut machine, "/etc/localtime", PathKind::Symlink("/usr/share/zoneinfo/Europe/Berlin".into()));
    machine
}

fn put(machine: &mut Machine, path: &str, kind: PathKind) {
    machine.paths.insert(path.into(), HostPath { kind, real: path.into() });
}

fn task() -> Task {
    Task {
        command: Command {
            argv: ["/opt/R/4.5.1/bin/exec/R", "--file=/run/p2p/runner.R", "/run/p2p/runner.R"]
                .map(str::to_owned)
                .to_vec(),
            environment: vec![
                ("R_HOME".to_owned(), "/opt/R/4.5.1".to_owned()),
                ("HOME".to_owned(), "/root".to_owned()),
            ],
            directory: "/home/task".into(),
        },
        files: vec![("/run/p2p/runner.R".into(), b"# the runner\n".to_vec())],
        shares: vec![Share::same(Path::new("/opt/R/4.5.1"), true), Share::same(Path::new("/usr/lib/R/library"), false)],
        slot: 1,
    }
}

fn profile(name: &str) -> Profile {
    Profile::load(name, &machine().surroundings).unwrap()
}

/// The plan, with the numbers of system calls, which are another architecture's matter, taken out.
fn plan(driver: Driver, name: &str, machine: &Machine) -> LaunchPlan {
    let mut machine = machine.clone();
    put(&mut machine, "/usr/lib/R/library", PathKind::Directory);
    let mut plan = driver.plan(&profile(name), &task(), &machine).unwrap();
    if let Some(seccomp) = &mut plan.spec.confinement.seccomp {
        *seccomp = Seccomp::default();
    }
    plan
}

/// What `{:#?}` gives, with the contents of files as text.
fn readable(plan: &LaunchPlan) -> String {
    let debug = format!("{plan:#?}");
    let mut text = String::new();
    let mut bytes: Option<Vec<u8>> = None;
    for line in debug.lines() {
        let number = line.trim().strip_suffix(',').and_then(|number| number.parse().ok());
        match (&mut bytes, number) {
            (Some(bytes), Some(number)) => bytes.push(number),
            (Some(found), None) if found.len() > 4 => {
                text.truncate(text.trim_end().len());
                text += &format!("{:?}{}\n", String::from_utf8_lossy(found), line.trim());
                bytes = None;
            }
            (Some(found), None) => {
                text.extend(found.iter().map(|number| format!("{number},\n")));
                text += &format!("{line}\n");
            }
            _ => text += &format!("{line}\n"),
        }
        if line.ends_with('[') {
            bytes = Some(Vec::new());
        } else if number.is_none() {
            bytes = None;
        }
    }
    text
}

#[test]
fn whole_plans() {
    for driver in Driver::ALL {
        for name in ["strict", "standard"] {
            insta::assert_snapshot!(format!("{driver}-{name}"), readable(&plan(driver, name, &machine())));
        }
    }
}

/// The example of a profile with the internet, as everybody has it.
fn internet() -> Profile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sandbox-profiles/examples/internet.toml");
    Profile::load(path.to_str().unwrap(), &machine().surroundings).unwrap()
}

#[test]
fn the_way_to_the_internet() {
    let mut machine = machine();
    put(&mut machine, "/usr/lib/R/library", PathKind::Directory);
    let plan = Driver::Jail.plan(&internet(), &task(), &machine).unwrap();
    let Container::Builtin(builtin) = &plan.spec.container else { panic!("{plan:?}") };
    insta::assert_snapshot!("internet", format!("{:?}", builtin.uplink.as_ref().unwrap()).replace("Ipv4Block", "\n"));
    // TCP is the router's matter, everything else of Landlock stays.
    let landlock = plan.spec.confinement.landlock.unwrap();
    assert!(landlock.tcp && landlock.minimum_abi >= 1);
    // Nothing of the kind for anybody else.
    for driver in Driver::ALL {
        for name in ["strict", "standard"] {
            let plan = driver.plan(&profile(name), &task(), &machine).unwrap();
            assert!(!plan.spec.confinement.landlock.is_some_and(|landlock| landlock.tcp));
            assert!(!matches!(plan.spec.container, Container::Builtin(builtin) if builtin.uplink.is_some()));
        }
    }
    let with_group = |machine: &Machine| {
        let hierarchy = Hierarchy { parent: "/groups".into(), controllers: vec![Controller::Processes] };
        let machine = Machine { limits: Mechanism::made_up(CgroupVersion::V2, hierarchy), ..machine.clone() };
        let of = |profile: &Profile| Driver::Jail.plan(profile, &task(), &machine).unwrap().spec.control_group.unwrap();
        (of(&internet()).processes, of(&profile("standard")).processes)
    };
    let (with, without) = with_group(&machine);
    assert_eq!(with, without + 1, "pasta is in the task's group");
}

#[test]
fn the_internet_is_refused_where_it_cannot_be_held() {
    let machine = machine();
    let refused = |driver: Driver, machine: &Machine| match driver.plan(&internet(), &task(), machine) {
        Err(PlanError::NoInternet { why }) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(Driver::Bubblewrap, &machine).contains("--sandbox jail"));
    assert!(refused(Driver::None, &machine).contains("--sandbox jail"));
    assert!(refused(Driver::Jail, &Machine { pasta: None, ..machine.clone() }).contains("apt-get install passt"));
    assert!(refused(Driver::Jail, &Machine { tun: false, ..machine }).contains("chmod 666 /dev/net/tun"));
}

#[test]
fn control_groups_come_beside_the_other_limits() {
    let hierarchy =
        Hierarchy { parent: "/groups".into(), controllers: vec![Controller::Memory, Controller::Processes] };
    let with = Machine { limits: Mechanism::made_up(CgroupVersion::V2, hierarchy.clone()), ..machine() };
    for (driver, outside) in [(Driver::Jail, 0), (Driver::Bubblewrap, 1)] {
        let (with, without) = (plan(driver, "strict", &with), plan(driver, "strict", &machine()));
        let group = ControlGroup {
            version: CgroupVersion::V2,
            hierarchies: vec![hierarchy.clone()],
            memory: 2 << 30,
            processes: 64 + outside,
            cpus: 1,
        };
        assert_eq!(with.spec.control_group, Some(group));
        assert_eq!(with.spec.watch, without.spec.watch);
        // The group's limit on processes is the one that is reached and counted.
        let others = |plan: &LaunchPlan| {
            let rlimits = plan.spec.confinement.rlimits.iter();
            rlimits.filter(|(limit, _)| *limit != Rlimit::Processes).copied().collect::<Vec<_>>()
        };
        assert_eq!(others(&with), others(&without));
        assert!(with.spec.confinement.rlimits.contains(&(Rlimit::Processes, 80)));
    }
    let small = Machine { memory: 1 << 30, ..with };
    assert_eq!(plan(Driver::Jail, "strict", &small).spec.control_group.unwrap().memory, 768 << 20);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_whole_filter() {
    // It allows more than that of strict, and has all its rules.
    let seccomp = profile("standard").seccomp();
    let name = |number: &i64| {
        let number = usize::try_from(*number).unwrap();
        ::syscalls::Sysno::new(number).map_or_else(|| number.to_string(), |call| call.name().to_owned())
    };
    let allow: Vec<String> = seccomp.allow.iter().map(name).collect();
    let deny: Vec<String> =
        seccomp.deny.iter().map(|rule| format!("{} {:x?}", name(&rule.syscall), rule.conditions)).collect();
    insta::assert_debug_snapshot!("filter", (allow, deny));
}

#[test]
fn the_same_arguments_give_the_same_plan() {
    for driver in Driver::ALL {
        assert_eq!(plan(driver, "strict", &machine()), plan(driver, "strict", &machine()));
    }
}

#[test]
fn roots_tasks_become_somebody_else_in_every_driver() {
    let root = Machine {
        me: Some(Identity { uid: 0, gid: 0 }),
        become_user: Some(NOBODY),
        jail_for_tasks: "/run/p2p-worker/p2p-jail-x".into(),
        ..machine()
    };
    let mut root = root;
    put(&mut root, "/run/p2p-worker/p2p-jail-x", PathKind::File);
    for driver in Driver::ALL {
        let plan = plan(driver, "strict", &root);
        let become_user = match &plan.spec.container {
            p2p_jail::spec::Container::Builtin(builtin) => builtin.become_user,
            p2p_jail::spec::Container::External(external) => {
                // p2p-jail is copied into it: a mount would tell where it lies.
                assert!(!external.argv.contains(&"/run/p2p-worker/p2p-jail-x".to_owned()));
                external.become_user
            }
            p2p_jail::spec::Container::None { become_user } => *become_user,
        };
        assert_eq!(become_user, Some(NOBODY), "{driver}");
    }
}

#[test]
fn slots_take_turns_on_the_processors() {
    let cpus = |slot, count: u32| {
        let mut profile = profile("strict");
        profile.limits.cpus = count;
        let task = Task { slot, shares: Vec::new(), ..task() };
        Driver::Jail.plan(&profile, &task, &machine()).unwrap().spec.confinement.cpus
    };
    assert_eq!([cpus(0, 1), cpus(1, 1), cpus(5, 1)], [vec![0], vec![1], vec![1]]);
    assert_eq!([cpus(0, 2), cpus(1, 2), cpus(2, 2)], [vec![0, 1], vec![2, 3], vec![0, 1]]);
    assert_eq!(cpus(1, 3), [0, 1, 3]);
    assert_eq!(cpus(u32::MAX, 99), [0, 1, 2, 3]);
}

#[test]
fn a_small_machine_lowers_the_limit_of_memory() {
    let small = Machine { memory: 2 << 30, ..machine() };
    assert_eq!(plan(Driver::Jail, "strict", &small).spec.watch.memory, Some(3 << 29));
}

#[test]
fn landlock_is_left_out_only_where_it_is_not_required() {
    let without = Machine { landlock_abi: None, ..machine() };
    assert!(plan(Driver::Jail, "strict", &without).spec.confinement.landlock.is_some(), "the stage then fails");
    assert!(plan(Driver::Jail, "standard", &without).spec.confinement.landlock.is_none());
}

#[test]
fn what_leads_elsewhere_is_not_shared() {
    let plan = |path: &str, kind, real: &str, to: &str| {
        let mut machine = machine();
        machine.paths.insert(path.into(), HostPath { kind, real: real.into() });
        let share = Share { from: path.into(), to: to.into(), execute: false };
        let task = Task { shares: vec![share], ..task() };
        Driver::Jail.plan(&profile("strict"), &task, &machine).map(drop)
    };
    let folder = PathKind::Directory;
    plan("/data", folder.clone(), "/data", "/data").expect("an ordinary folder");
    plan("/data/x", folder.clone(), "/home/alice", "/data/x").expect_err("a link on the way to home");
    plan("/data", PathKind::Symlink("/home/alice".into()), "/home/alice", "/else").expect_err("a link to home");
    plan("/data", PathKind::Special, "/data", "/data").expect_err("a socket");
    plan("/data", folder.clone(), "/data", "/usr/data").expect_err("a place in a read-only folder");
    plan("/data", folder, "/data", "/tmp/data").expect_err("a place where the task writes");
}

#[test]
fn bubblewrap_of_other_versions() {
    let with = |version| {
        let bubblewrap = Some(Bubblewrap { path: "/usr/bin/bwrap".into(), version, setuid: false });
        let machine = Machine { bubblewrap, ..machine() };
        Driver::Bubblewrap.plan(&profile("strict"), &Task { shares: Vec::new(), ..task() }, &machine)
    };
    let argv = |version| match with(version).unwrap().spec.container {
        p2p_jail::spec::Container::External(external) => external.argv,
        other => panic!("{other:?}"),
    };
    let has = |version, option: &str| argv(version).iter().any(|argument| argument == option);
    assert!(has((0, 8, 0), "--disable-userns") && !has((0, 6, 1), "--disable-userns"));
    assert!(has((0, 7, 0), "--size") && !has((0, 6, 1), "--size"));
    assert!(matches!(with((0, 4, 1)), Err(PlanError::OldBubblewrap { .. })));
}

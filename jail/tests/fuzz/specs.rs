//! Specs of every shape, sensible or not.

use std::path::PathBuf;

use p2p_jail::spec::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,20}", "/[a-z/.]{0,20}", any::<String>(), Just("a\0b".to_owned()), Just(String::new())]
}

fn path() -> impl Strategy<Value = PathBuf> {
    text().prop_map(PathBuf::from)
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..6)
}

fn identity() -> impl Strategy<Value = Identity> {
    any::<(u32, u32)>().prop_map(|(uid, gid)| Identity { uid, gid })
}

fn mount() -> impl Strategy<Value = Mount> {
    prop_oneof![
        (path(), path(), any::<bool>()).prop_map(|(from, to, writable)| Mount::Bind { from, to, writable }),
        (path(), any::<u64>(), any::<u64>()).prop_map(|(to, bytes, inodes)| Mount::Tmpfs { to, bytes, inodes }),
        (path(), any::<bool>()).prop_map(|(to, only_processes)| Mount::Proc { to, only_processes }),
        path().prop_map(|to| Mount::Devices { to }),
        (path(), path()).prop_map(|(target, at)| Mount::Symlink { target, at }),
        (path(), vec(any::<u8>(), 0..50)).prop_map(|(at, contents)| Mount::File { at, contents }),
        path().prop_map(|at| Mount::Directory { at }),
    ]
}

fn uplink() -> impl Strategy<Value = Uplink> {
    let block = any::<([u8; 4], u8)>().prop_map(|(address, prefix)| Ipv4Block { address, prefix });
    (path(), vec(block, 0..20)).prop_map(|(program, closed)| Uplink { program, closed })
}

fn container() -> impl Strategy<Value = Container> {
    let builtin = (option::of(identity()), identity(), text(), vec(mount(), 0..8), option::of(uplink())).prop_map(
        |(become_user, inside, hostname, mounts, uplink)| Builtin { become_user, inside, hostname, mounts, uplink },
    );
    let external = (option::of(identity()), vec(text(), 0..6), pairs(), vec(vec(any::<u8>(), 0..20), 0..4))
        .prop_map(|(become_user, argv, environment, files)| External { become_user, argv, environment, files });
    prop_oneof![
        4 => builtin.prop_map(Container::Builtin),
        2 => external.prop_map(Container::External),
        1 => option::of(identity()).prop_map(|become_user| Container::None { become_user }),
    ]
}

fn rlimit() -> impl Strategy<Value = Rlimit> {
    prop::sample::select(vec![
        Rlimit::AddressSpace,
        Rlimit::Processes,
        Rlimit::CpuSeconds,
        Rlimit::FileSize,
        Rlimit::OpenFiles,
        Rlimit::CoreDump,
        Rlimit::LockedMemory,
        Rlimit::MessageQueues,
        Rlimit::PendingSignals,
        Rlimit::Priority,
        Rlimit::Stack,
    ])
}

fn landlock() -> impl Strategy<Value = Landlock> {
    let paths = || vec(path(), 0..4);
    (any::<u32>(), paths(), paths(), paths(), paths(), paths()).prop_map(
        |(minimum_abi, list, read_execute, read, read_write, files_read_write)| Landlock {
            minimum_abi,
            tcp: minimum_abi % 2 == 0,
            list,
            read_execute,
            read,
            read_write,
            files_read_write,
        },
    )
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 0..470_i64, 1 => any::<i64>()]
}

fn rule() -> impl Strategy<Value = DenyRule> {
    let test = prop_oneof![
        any::<u32>().prop_map(Test::Equal),
        any::<u32>().prop_map(Test::NotEqual),
        any::<u32>().prop_map(Test::BitSet),
    ];
    let argument = prop_oneof![6 => 0..6_u8, 1 => any::<u8>()];
    let condition = (argument, test).prop_map(|(argument, test)| Condition { argument, test });
    (number(), vec(condition, 0..4)).prop_map(|(syscall, conditions)| DenyRule { syscall, conditions })
}

/// Half of them allow what `p2p-jail` itself needs, so that they are compiled to the end.
fn seccomp() -> impl Strategy<Value = Seccomp> {
    (any::<bool>(), vec(number(), 0..60), vec(rule(), 0..12)).prop_map(|(usable, mut allow, deny)| {
        if usable {
            use nix::libc::{SYS_execve, SYS_exit_group, SYS_write};
            allow.retain(|number| (0..470).contains(number) && *number != nix::libc::SYS_clone3);
            allow.extend([SYS_execve, SYS_write, SYS_exit_group]);
        }
        Seccomp { allow, deny, explain: None }
    })
}

fn confinement() -> impl Strategy<Value = Confinement> {
    (
        vec((rlimit(), any::<u64>()), 0..12),
        vec(any::<u32>(), 0..4),
        any::<bool>(),
        any::<bool>(),
        option::of(landlock()),
        option::of(seccomp()),
    )
        .prop_map(|(rlimits, cpus, drop_capabilities, no_nested_user_namespaces, landlock, seccomp)| Confinement {
            rlimits,
            cpus,
            drop_capabilities,
            no_nested_user_namespaces,
            landlock,
            seccomp,
        })
}

fn watch() -> impl Strategy<Value = Watch> {
    let limit = || option::of(any::<u64>());
    (any::<bool>(), limit(), limit(), limit(), vec(path(), 0..4)).prop_map(
        |(waits, wall_time_ms, cpu_time_ms, memory, tmpfs)| Watch { waits, wall_time_ms, cpu_time_ms, memory, tmpfs },
    )
}

fn control_group() -> impl Strategy<Value = ControlGroup> {
    let version = prop_oneof![Just(CgroupVersion::V1), Just(CgroupVersion::V2)];
    let controller = prop_oneof![
        Just(Controller::Memory),
        Just(Controller::Processes),
        Just(Controller::Cpu),
        Just(Controller::CpuAccounting),
    ];
    let hierarchy = (path(), vec(controller, 0..6)).prop_map(|(parent, controllers)| Hierarchy { parent, controllers });
    (version, vec(hierarchy, 0..12), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(
        |(version, hierarchies, memory, processes, cpus)| ControlGroup {
            version,
            hierarchies,
            memory,
            processes,
            cpus,
        },
    )
}

/// Any spec.
pub(crate) fn any_spec() -> impl Strategy<Value = Spec> {
    let command = (vec(text(), 0..6), pairs(), path()).prop_map(|(argv, environment, directory)| Command {
        argv,
        environment,
        directory,
    });
    (container(), confinement(), watch(), option::of(control_group()), command).prop_map(
        |(container, confinement, watch, control_group, command)| Spec {
            container,
            confinement,
            watch,
            control_group,
            command,
        },
    )
}

/// One with nothing in it but the filter, so that every place of it can be tried.
pub(crate) fn smallest() -> Spec {
    Spec {
        container: Container::Builtin(Builtin {
            become_user: None,
            inside: Identity { uid: 1, gid: 1 },
            hostname: "h".into(),
            mounts: vec![Mount::File { at: "/f".into(), contents: vec![1, 2, 3] }],
            uplink: None,
        }),
        confinement: Confinement {
            landlock: Some(Landlock { read: vec!["/r".into()], ..Landlock::default() }),
            seccomp: Some(Seccomp { allow: vec![0, 1, 59, 231], deny: Vec::new(), explain: None }),
            ..Confinement::default()
        },
        watch: Watch::default(),
        control_group: None,
        command: Command { argv: vec!["/a".into()], environment: Vec::new(), directory: "/".into() },
    }
}

/// About as large as a message can be, of what is smallest as bytes and largest in memory.
pub(crate) fn large() -> Vec<Spec> {
    let of = |change: &dyn Fn(&mut Spec)| {
        let mut spec = smallest();
        change(&mut spec);
        spec
    };
    let filter = |deny| Some(Seccomp { allow: vec![0, 1, 59, 231], deny, explain: None });
    let condition = Condition { argument: 0, test: Test::Equal(0) };
    vec![
        of(&|spec| spec.command.argv = [vec!["/a".to_owned()], vec![String::new(); 1_000_000]].concat()),
        of(&|spec| spec.command.environment = vec![("a".to_owned(), String::new()); 300_000]),
        of(&|spec| spec.watch.tmpfs = vec![PathBuf::new(); 1_000_000]),
        of(&|spec| spec.confinement.cpus = vec![0; 1_000_000]),
        of(&|spec| {
            let Container::Builtin(builtin) = &mut spec.container else { return };
            builtin.mounts = vec![Mount::Directory { at: PathBuf::new() }; 400_000];
        }),
        of(&|spec| {
            spec.confinement.seccomp =
                Some(Seccomp { allow: [0, 1, 59, 231].repeat(200_000), deny: vec![], explain: None })
        }),
        of(&|spec| {
            spec.confinement.seccomp = filter(vec![DenyRule { syscall: 0, conditions: vec![condition; 3] }; 80_000]);
        }),
        of(&|spec| {
            spec.confinement.seccomp = filter(vec![DenyRule { syscall: 0, conditions: vec![condition; 250_000] }]);
        }),
    ]
}

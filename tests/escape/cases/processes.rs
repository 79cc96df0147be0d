//! Cases 23 to 45: processes and the kernel. Scenarios are in `processes_scenarios`.

use super::{
    files::absent,
    processes_scenarios::{kill_everybody, outlive, terminal, working_folder, written_to_a_terminal},
};
use crate::{
    case::{Act, Case, Outcome::*},
    world::Place,
};

#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            acts: trace,
            ..Case::new(23, Denied, "trace the bystander, process 1, its parent", "syscalls, processes")
        },
        Case {
            acts: memory,
            ..Case::new(24, Denied, "read memory and take descriptors of others", "syscalls, processes")
        },
        Case {
            acts: signals,
            scenario: Some(kill_everybody),
            gets: "everybody else lives",
            ..Case::new(25, Nothing, "kill everybody: -1, its parent, the worker", "processes, filesystem")
        },
        Case {
            acts: descriptors,
            known: "runc CVE-2024-21626",
            ..Case::new(26, Nothing, "use descriptors that leaked", "processes")
        },
        Case {
            acts: executables,
            known: "runc CVE-2019-5736",
            ..Case::new(
                27,
                Denied,
                "overwrite its own or the supervisor's program while it runs",
                "filesystem, processes",
            )
        },
        Case {
            acts: working_folders,
            scenario: Some(working_folder),
            known: "runc CVE-2024-21626",
            ..Case::new(28, Nothing, "start in a folder outside its root", "filesystem, processes")
        },
        Case {
            acts: terminal_input,
            scenario: Some(terminal),
            gets: "no terminal",
            known: "CVE-2017-5226, CVE-2019-10063",
            ..Case::new(29, Denied, "type into the owner's terminal (TIOCSTI, its high bits)", "syscalls, processes")
        },
        Case {
            acts: consoles,
            known: "CVE-2023-28100",
            ..Case::new(30, Denied, "paste with TIOCLINUX, open consoles", "syscalls, filesystem")
        },
        Case {
            scenario: Some(written_to_a_terminal),
            gets: "no escape reaches the terminal",
            ..Case::new(31, Nothing, "send escape sequences to the owner's terminal", "output")
        },
        Case {
            acts: namespaces,
            known: "CVE-2022-0185, CVE-2024-1086",
            ..Case::new(32, Denied, "make namespaces by unshare, clone, clone3", "syscalls, privileges")
        },
        Case { acts: others_namespaces, ..Case::new(33, Denied, "enter namespaces of others", "syscalls, processes") },
        Case {
            acts: foreign_calls,
            ..Case::new(34, Denied, "make system calls by the entries of x32 and of i386 (int 0x80)", "syscalls")
        },
        Case { acts: keyrings, ..Case::new(35, Denied, "use the owner's keyrings", "syscalls") },
        Case { acts: io_uring, ..Case::new(36, Denied, "use io_uring", "syscalls") },
        Case { acts: kernel_interfaces, ..Case::new(37, Denied, "use bpf, perf, userfaultfd, fanotify", "syscalls") },
        Case {
            acts: administration,
            ..Case::new(38, Denied, "load kernels and modules, reboot, swap, account", "syscalls")
        },
        Case { acts: clocks, ..Case::new(39, Denied, "set clock and names", "syscalls, privileges") },
        Case { acts: personality, ..Case::new(40, Denied, "weaken its own address space by personality", "syscalls") },
        Case {
            acts: system_v,
            ..Case::new(41, Denied, "share memory, queues, semaphores with other tasks", "ipc, syscalls")
        },
        Case {
            acts: covert,
            ..Case::new(42, Denied, "signal another task by locks on a file that both may read", "syscalls")
        },
        Case {
            acts: scheduling,
            ..Case::new(43, Denied, "get ahead of others: priorities, CPUs, locked memory", "cpu, syscalls")
        },
        Case {
            acts: process_controls,
            scenario: Some(outlive),
            gets: "killed with its supervisor",
            ..Case::new(
                44,
                Denied,
                "outlive its supervisor, change what is dumped, loosen filters",
                "syscalls, processes",
            )
        },
        Case { acts: status, ..Case::new(45, Nothing, "have any capability at all", "privileges") },
    ]
}

fn trace(place: &Place<'_>) -> Vec<Act> {
    let pid = place.world.bystander.pid;
    // PTRACE_SEIZE, PTRACE_ATTACH.
    vec![
        Act::native(format!("call\tptrace\t0x4206\t{pid}\t0\t0"), "ENOSYS").bare("ok"),
        Act::native(format!("call\tptrace\t16\t{pid}\t0\t0"), "ENOSYS").bare("ok"),
        Act::native("call\tptrace\t0x4206\t1\t0\t0", "ENOSYS").bare("EPERM"),
        Act::native("call\tptrace\t0\t0\t0\t0", "ENOSYS").bare("ok"),
        Act::native(format!("stat\t/proc/{pid}"), "ENOENT").bare("ok"),
    ]
}

fn memory(place: &Place<'_>) -> Vec<Act> {
    let bystander = &place.world.bystander;
    let (pid, address) = (bystander.pid, &bystander.address);
    vec![
        Act::native(format!("vm_read\t{pid}\t{address}"), "ENOSYS").bare("secret-of-the-owner"),
        Act::native(format!("call\tprocess_vm_writev\t{pid}\t0\t0\t0\t0\t0"), "ENOSYS").bare("ok"),
        Act::native(format!("mem_read\t{pid}\t{address}"), "ENOENT").bare("secret-of-the-owner"),
        Act::native(format!("steal_fd\t{pid}"), "ENOSYS").bare("ok"),
        Act::native(format!("call\tkcmp\t{pid}\t{pid}\t1\t0\t0"), "ENOSYS").bare("ok").may_be_lacking(),
        Act::native(format!("call\tprocess_madvise\t{pid}\t0\t0\t0\t0"), "ENOSYS").bare("EBADF").may_be_lacking(),
        Act::native(format!("call\tmove_pages\t{pid}\t0\t0\t0\t0\t0"), "ENOSYS").bare("ok").may_be_lacking(),
        Act::native("call\tprocess_mrelease\t-1\t0", "ENOSYS").bare("EBADF").may_be_lacking(),
        Act::native(format!("call\tmigrate_pages\t{pid}\t0\t0\t0"), "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native(format!("call\tget_robust_list\t{pid}\tz:8\tz:8"), "ESRCH|EPERM").bare("ok"),
        Act::native(format!("call\tprlimit64\t{pid}\t7\t0\tz:16"), "ESRCH|EPERM").bare("ok"),
    ]
}

fn signals(place: &Place<'_>) -> Vec<Act> {
    let pid = place.world.bystander.pid;
    vec![
        Act::native(format!("call\tkill\t{pid}\t0"), "ESRCH").bare("ok"),
        Act::native(format!("call\ttkill\t{pid}\t0"), "ESRCH").bare("ok"),
        Act::native(
            format!("call\trt_sigqueueinfo\t{pid}\t0\th:0000000000000000{}{}", "ff".repeat(4), "00".repeat(116)),
            "ESRCH",
        )
        .bare("ok"),
        Act::native(format!("call\tpidfd_open\t{pid}\t0"), "ENOSYS").bare("ok"),
        Act::native("call\tpidfd_send_signal\t0\t0\t0\t0", "ENOSYS").bare("EBADF"),
    ]
}

fn descriptors(_: &Place<'_>) -> Vec<Act> {
    // R itself keeps the script open that it runs (4); a batch adds its pipe.
    let open = "targets <- Sys.readlink(list.files('/proc/self/fd', full.names = TRUE)); \
                sort(unique(sub(':.*', '', targets[nzchar(targets) & !grepl('^/proc/', targets)])))";
    vec![
        Act::native("call\tfcntl\t9\t1", "EBADF").bare("ok"),
        Act::r(open, "/run/p2p-worker/runner.R pipe").bare("*"),
        Act::native("open\t/proc/self/fd/9", "ENOENT").bare("ok"),
        // Nothing is given to the worker, or taken from it, through what is open: no descriptor is a socket.
        Act::native("call\tsendmsg\t3\tz:56\t0", "ENOSYS|ENOTSOCK").bare("EBADF"),
        Act::native("call\trecvmsg\t1\tz:56\t0x40", "ENOSYS|ENOTSOCK")
            .stated("descriptor 1 of a control is a pipe too"),
    ]
}

fn executables(place: &Place<'_>) -> Vec<Act> {
    let jail = place.world.program("p2p-jail").display().to_string();
    vec![
        // Outside, it is the owner of the file or that it runs which is in the way.
        Act::native("open\t/proc/self/exe\twt", "EROFS").bare("ETXTBSY|EACCES"),
        Act::native("open\t/proc/1/exe\twt", "ENOENT").privileged("ETXTBSY|EACCES"),
        Act::native(format!("open\t{jail}\twt"), "ENOENT").bare("EACCES|ETXTBSY"),
        Act::native("open\t/run/p2p-jail\twt", if place.is_bubblewrap() { "EROFS" } else { "ENOENT" })
            .stated("bubblewrap shows it there; the first act is the control"),
    ]
}

fn working_folders(_: &Place<'_>) -> Vec<Act> {
    vec![
        Act::native("cwd", "/home/task").bare("/var/tmp/*"),
        Act::native("stat\tthesis.txt", "ENOENT").bare("ok"),
        Act::native("call\tfchdir\t9", "EBADF").bare("ENOTDIR"),
    ]
}

const TIOCSTI: &str = "0x5412";

fn terminal_input(_: &Place<'_>) -> Vec<Act> {
    let ioctl = |request: &str| Act::native(format!("call\tioctl\t0\t{request}\ts:x"), "EPERM").bare("ENOTTY");
    vec![
        ioctl(TIOCSTI),
        ioctl("0xdead00005412"),
        ioctl("0x100005412"),
        ioctl("0x540e"), // TIOCSCTTY
        Act::native("call\tioctl\t0\t0x5401\tz:64", "ENOTTY")
            .stated("TCGETS is allowed: what the filter's EPERM is told from"),
        Act::native("open\t/dev/tty", "ENOENT").bare("ENXIO|ok"),
    ]
}

fn consoles(_: &Place<'_>) -> Vec<Act> {
    let ioctl = |request: &str| Act::native(format!("call\tioctl\t0\t{request}\ts:x"), "EPERM").bare("ENOTTY");
    // TIOCLINUX, with high bits, TIOCCONS, KDSETMODE, VT_ACTIVATE, PIO_FONTX.
    let mut acts: Vec<Act> =
        ["0x541c", "0xdead0000541c", "0x541d", "0x4b3a", "0x5606", "0x4b6c"].into_iter().map(ioctl).collect();
    acts.extend(
        ["/dev/tty", "/dev/tty0", "/dev/vcs", "/dev/vcsa", "/dev/console", "/dev/pts/0", "/dev/ptmx"]
            .map(|path| absent(path, "ENOENT")),
    );
    acts
}

/// The flags of clone(2): mount, cgroup, uts, ipc, user, pid, net; time, which clone has no bit for.
const NAMESPACES: [&str; 7] =
    ["0x20000", "0x2000000", "0x4000000", "0x8000000", "0x10000000", "0x20000000", "0x40000000"];

fn namespaces(_: &Place<'_>) -> Vec<Act> {
    let mut acts = Vec::new();
    for flag in NAMESPACES {
        let number = u64::from_str_radix(&flag[2..], 16).unwrap();
        acts.push(Act::native(format!("call\tunshare\t{flag}"), "ENOSYS").privileged("ok"));
        // With SIGCHLD, so that the child can be waited for.
        acts.push(Act::native(format!("call\tclone\t{:#x}\t0\t0\t0\t0", number | 17), "EPERM").privileged("ok"));
    }
    // struct clone_args: flags, four fields of no use here, exit_signal.
    let clone3 =
        |flags: u64| format!("call\tclone3\th:{}{}{}{}\t64", hex(flags), hex(0).repeat(3), hex(17), hex(0).repeat(3));
    acts.push(Act::native("call\tunshare\t0x80", "ENOSYS").privileged("ok|EINVAL"));
    acts.push(Act::native("call\tunshare\t0x10000000", "ENOSYS").bare("ok"));
    acts.push(Act::native("call\tclone\t0x10000011\t0\t0\t0\t0", "EPERM").bare("ok"));
    // The upper half of the argument is not looked at by the kernel.
    acts.push(Act::native("call\tclone\t0xdead000010000011\t0\t0\t0\t0", "EPERM").bare("ok"));
    acts.push(Act::native(clone3(0x1000_0000), "ENOSYS").bare("ok"));
    acts.push(Act::native(clone3(0), "ENOSYS").bare("ok"));
    acts.push(
        Act::native("call\tclone\t17\t0\t0\t0\t0", "no outcome*|ok")
            .stated("no attack: clone without namespaces is fork"),
    );
    acts
}

/// A number as the eight bytes that it is in memory.
fn hex(number: u64) -> String {
    number.to_ne_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn others_namespaces(place: &Place<'_>) -> Vec<Act> {
    let pid = place.world.bystander.pid;
    let mut acts = vec![
        Act::native("call\tsetns\tfd:/proc/self/ns/net\t0", "ENOSYS").privileged("ok"),
        Act::native("call\tsetns\tfd:/proc/self/ns/user\t0", "ENOSYS").bare("EINVAL|EPERM"),
        Act::native("call\tsetns\t0\t0", "ENOSYS").bare("EINVAL"),
        Act::native(format!("open\t/proc/{pid}/ns/user"), "ENOENT").bare("ok"),
        Act::native("open\t/proc/1/ns/user", "ENOENT").privileged("ok"),
    ];
    // None is that of the host.
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        let code = format!("Sys.readlink('/proc/self/ns/{name}') == '{}'", host.display());
        acts.push(Act::r(code, "FALSE").bare("ok"));
    }
    acts
}

fn foreign_calls(_: &Place<'_>) -> Vec<Act> {
    let mut acts = Vec::new();
    // getpid, open, socket, mount; execve and ptrace as x32 has them.
    for number in ["39", "2", "41", "165", "520", "521"] {
        let act = Act::native(format!("x32\t{number}"), "ENOSYS");
        acts.push(
            act.stated("kernels of today have no x32, and say ENOSYS themselves: the filter's own test is in jail/"),
        );
    }
    // io_uring_setup, ptrace and bpf by their own numbers with the bit of x32.
    for number in ["425", "101", "321"] {
        acts.push(Act::native(format!("x32\t{number}"), "ENOSYS").stated("as the acts before"));
    }
    // getpid, unshare, keyctl, ptrace, socketcall, socket, bpf, io_uring_setup, clone3, mount_setattr.
    for number in ["20", "310", "288", "26", "102", "359", "357", "425", "435", "442"] {
        let act = Act::native(format!("int80\t{number}"), "signal 31");
        acts.push(act.bare("ok|E*").may_be_lacking());
    }
    acts
}

fn keyrings(_: &Place<'_>) -> Vec<Act> {
    vec![
        // KEYCTL_GET_KEYRING_ID and KEYCTL_READ of the session's and the user's keyring.
        Act::native("call\tkeyctl\t0\t-3\t0", "ENOSYS").bare("ok|ENOKEY").may_be_lacking(),
        Act::native("call\tkeyctl\t0\t-4\t1", "ENOSYS").bare("ok").may_be_lacking(),
        Act::native("call\tkeyctl\t11\t-4\tz:64\t64", "ENOSYS").bare("ok|ENOKEY|EACCES").may_be_lacking(),
        Act::native("call\tadd_key\ts:user\ts:p2p\ts:x\t1\t-2", "ENOSYS").bare("ok").may_be_lacking(),
        Act::native("call\trequest_key\ts:user\ts:p2p-none\t0\t0", "ENOSYS").bare("ENOKEY").may_be_lacking(),
    ]
}

fn io_uring(_: &Place<'_>) -> Vec<Act> {
    vec![
        Act::native("call\tio_uring_setup\t1\tz:256", "ENOSYS").bare("ok|EPERM").may_be_lacking(),
        Act::native("call\tio_uring_enter\t0\t0\t0\t0\t0\t0", "ENOSYS")
            .bare("EOPNOTSUPP|EBADF|EINVAL")
            .may_be_lacking(),
        Act::native("call\tio_uring_register\t-1\t0\t0\t0", "ENOSYS").bare("E*").may_be_lacking(),
        Act::native("call\tio_setup\t1\tz:8", "ENOSYS").bare("ok").may_be_lacking(),
    ]
}

fn kernel_interfaces(_: &Place<'_>) -> Vec<Act> {
    vec![
        Act::native("call\tbpf\t0\tz:128\t128", "ENOSYS").bare("E*|ok").may_be_lacking(),
        Act::native("call\tperf_event_open\tz:128\t0\t-1\t-1\t0", "ENOSYS").bare("E*|ok").may_be_lacking(),
        Act::native("call\tuserfaultfd\t1", "ENOSYS").bare("ok|EPERM").may_be_lacking(),
        Act::native("call\tfanotify_init\t0\t0", "ENOSYS").bare("EPERM|ok").may_be_lacking(),
        Act::native("call\tinotify_init1\t0", "ENOSYS").bare("ok").may_be_lacking(),
        Act::native("call\tlookup_dcookie\t0\tz:64\t64", "ENOSYS").bare("E*").may_be_lacking(),
        Act::native("call\tmodify_ldt\t0\tz:64\t64", "ENOSYS").bare("ok").may_be_lacking(),
        Act::native("call\tiopl\t0", "ENOSYS").bare("ok|EPERM").may_be_lacking(),
        Act::native("call\tioperm\t0\t1\t0", "ENOSYS").bare("ok|EPERM").may_be_lacking(),
        Act::native("call\tvmsplice\t1\t0\t0\t0", "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native("call\tuselib\ts:/x", "ENOSYS").bare("E*").may_be_lacking(),
        Act::native("call\tremap_file_pages\t0\t0\t0\t0\t0", "ENOSYS").bare("EINVAL").may_be_lacking(),
        Act::native("call\tmap_shadow_stack\t0\t4096\t0", "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native("call\tpkey_alloc\t0\t0", "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native("call\tsyslog\t10\t0\t0", "ENOSYS").bare("ok|EPERM").may_be_lacking(),
        // lsm_get_self_attr, lsm_set_self_attr, lsm_list_modules (Linux 6.8), mseal (6.10), cachestat (6.5), futex_wake,
        // futex_wait, futex_requeue (6.7), set_mempolicy_home_node (5.17).
        Act::native("call\t459\t100\tz:512\th:00020000\t0", "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native("call\t460\t100\tz:64\t64\t0", "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native("call\t461\tz:64\th:40000000\t0", "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native("call\t462\t0\t4096\t0", "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native("call\t454\tz:8\t0\t0\t2", "ENOSYS").bare("ok|0|E*").may_be_lacking(),
        Act::native("call\t455\tz:8\t1\t1\t2\t0\t0", "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native("call\t456\t0\t0\t0\t0", "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native("call\t450\t0\t0\t0\t0", "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native("call\tadd_key\ts:asymmetric\ts:x\ts:x\t1\t-2", "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native("open\t/dev/userfaultfd\trw", "ENOENT").stated("not every machine has it"),
        Act::native("call\t9999", "ENOSYS").stated("no kernel has it: the filter says the same of what is not listed"),
    ]
}

/// None may ever succeed, so the controls go no further than the kernel's own refusal.
fn administration(_: &Place<'_>) -> Vec<Act> {
    let calls = [
        "kexec_load\t0\t0\t0\t0",
        "kexec_file_load\t-1\t-1\t0\t0\t0",
        "init_module\t0\t0\ts:",
        "finit_module\t-1\ts:\t0",
        "delete_module\ts:p2p_none\t0",
        "reboot\t0\t0\t0\t0",
        "swapon\ts:/p2p-none\t0",
        "swapoff\ts:/p2p-none",
        "acct\ts:/p2p-none",
        "quotactl\t0\t0\t0\t0",
        "syslog\t3\tz:64\t64",
        "vhangup",
        "nfsservctl\t0\t0\t0",
        "umount2\ts:/p2p-none\t0",
        "sethostname\ts:p2p\t3",
        "setdomainname\ts:p2p\t3",
    ];
    let act = |call: &str| Act::native(format!("call\t{call}"), "ENOSYS").bare("E*|ok").may_be_lacking();
    calls.into_iter().map(act).collect()
}

fn clocks(_: &Place<'_>) -> Vec<Act> {
    vec![
        Act::native("call\tclock_settime\t0\tz:16", "ENOSYS").bare("EPERM"),
        Act::native("call\tsettimeofday\tz:16\t0", "ENOSYS").bare("EPERM"),
        // ADJ_OFFSET, then a query: both are the same call.
        Act::native(format!("call\tadjtimex\th:01{}", "00".repeat(255)), "ENOSYS").bare("EPERM"),
        Act::native("call\tclock_adjtime\t0\tz:256", "ENOSYS").bare("ok"),
        Act::native("call\tsethostname\ts:p2p\t3", "ENOSYS").privileged("ok"),
        Act::native("call\tsetdomainname\ts:p2p\t3", "ENOSYS").privileged("ok"),
        Act::native("call\tclock_gettime\t0\tz:16", "ok").stated("no attack: telling the time is allowed"),
    ]
}

fn personality(_: &Place<'_>) -> Vec<Act> {
    // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC, PER_LINUX32, and the query.
    ["0x40000", "0x400000", "8", "0xffffffff"]
        .map(|persona| Act::native(format!("call\tpersonality\t{persona}"), "ENOSYS").bare("ok"))
        .into()
}

fn system_v(_: &Place<'_>) -> Vec<Act> {
    vec![
        Act::native("call\tshmget\t0x70327077\t0\t0", "ENOSYS").bare("ENOENT").may_be_lacking(),
        Act::native("call\tshmat\t0\t0\t0", "ENOSYS").bare("EINVAL|ok").may_be_lacking(),
        Act::native("call\tsemget\t0x70327077\t0\t0", "ENOSYS").bare("ENOENT").may_be_lacking(),
        Act::native("call\tmsgget\t0x70327077\t0", "ENOSYS").bare("ENOENT").may_be_lacking(),
        Act::native("call\tmq_open\ts:p2p-none\t0\t0\t0", "ENOSYS").bare("ENOENT").may_be_lacking(),
        // /dev/shm is the task's own: `other_scratch` looks for others' files.
        Act::r("list.files('/dev/shm')", "").stated("`other_scratch` has a file there that is not seen"),
    ]
}

/// Two tasks that may read one file can see each other's locks on it: package code needs locks, and the profile that shares
/// files between strangers has decided so.
fn covert(place: &Place<'_>) -> Vec<Act> {
    let file = format!("{}/data.csv", place.world.shared().display());
    let why = "locks on files that are shared read-only, and how fast they can be read, tell one task of another";
    vec![
        Act::native(format!("call\tflock\tfd:{file}\t6"), "ok").stated("not denied").open(why),
        Act::native("call\tinotify_init", "ENOSYS").bare("E*|ok"),
        // Which parts of a shared file somebody has read lately: mincore, cachestat (Linux 6.5).
        Act::native("call\tmincore\t0\t0\tz:8", "ENOSYS").bare("ok"),
        Act::native(format!("call\t451\tfd:{file}\tz:16\tz:40\t0"), "ENOSYS").bare("ok").may_be_lacking(),
        // F_SETLEASE, which would keep the owner's programs from opening it, and F_NOTIFY.
        Act::native(format!("call\tfcntl\tfd:{file}\t1024\t0"), "EPERM").bare("ok"),
        Act::native(format!("call\tfcntl\tfd:{}\t1026\t1", place.world.shared().display()), "EPERM").bare("ok|EINVAL"),
    ]
}

fn scheduling(_: &Place<'_>) -> Vec<Act> {
    vec![
        // SCHED_FIFO, priority 1.
        Act::native("call\tsched_setscheduler\t0\t1\th:01000000", "ENOSYS").bare("EPERM"),
        Act::native("call\tsched_setparam\t0\th:00000000", "ENOSYS").bare("ok"),
        Act::native("call\tsched_setattr\t0\tz:48\t0", "ENOSYS").bare("E*|ok"),
        Act::native("call\tsched_setaffinity\t0\t8\th:ffffffffffffffff", "ENOSYS").bare("ok"),
        Act::native("call\tioprio_set\t1\t0\t0x2004", "ENOSYS").bare("EPERM|ok"),
        Act::native("call\tmlockall\t3", "ENOSYS").bare("ok|ENOMEM|EPERM"),
        Act::native("call\tmlock\tz:4096\t4096", "ENOSYS").bare("ok|ENOMEM|EPERM"),
        Act::native("call\tsetpriority\t0\t0\t-10", "EACCES|EPERM")
            .stated("the kernel's own answer, as RLIMIT_NICE is 0"),
        Act::native("call\tprlimit64\t0\t13\th:28000000000000002800000000000000\t0", "EPERM")
            .stated("RLIMIT_NICE: the kernel's own answer"),
        Act::native("call\tprlimit64\t0\t6\th:ffffffffffffffffffffffffffffffff\t0", "EPERM")
            .stated("RLIMIT_NPROC: a hard limit is not raised"),
    ]
}

fn process_controls(_: &Place<'_>) -> Vec<Act> {
    vec![
        // PR_SET_DUMPABLE, PR_SET_MM, PR_SET_SECCOMP, PR_SET_PTRACER, PR_SET_CHILD_SUBREAPER, PR_CAPBSET_DROP, PR_SET_KEEPCAPS,
        // PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_SET_SPECULATION_CTRL, PR_SET_TSC, PR_SET_UNALIGN.
        Act::native("call\tprctl\t4\t1\t0\t0\t0", "EPERM").bare("ok"),
        Act::native("call\tprctl\t35\t1\t0\t0\t0", "EPERM")
            .stated("the kernel asks for CAP_SYS_RESOURCE first, which no namespace gives"),
        Act::native("call\tprctl\t22\t99\t0\t0\t0", "EPERM").bare("EINVAL"),
        Act::native("call\tprctl\t0x59616d61\t-1\t0\t0\t0", "EPERM").bare("ok|EINVAL"),
        Act::native("call\tprctl\t36\t1\t0\t0\t0", "EPERM").bare("ok"),
        Act::native("call\tprctl\t8\t1\t0\t0\t0", "EPERM").bare("ok"),
        Act::native("call\tprctl\t28\t0\t0\t0\t0", "EPERM").privileged("ok"),
        Act::native("call\tprctl\t47\t4\t0\t0\t0", "EPERM").bare("ok"),
        Act::native("call\tprctl\t53\t0\t0\t0\t0", "EPERM").bare("E*|ok"),
        Act::native("call\tprctl\t0xdead00000004\t1\t0\t0\t0", "EPERM").bare("ok|EINVAL"),
        // PR_SET_MEMORY_MERGE: which pages others have, by merging one's own with them; PR_SCHED_CORE, PR_SET_SYSCALL_USER_DISPATCH,
        // PR_SET_MDWE, PR_SET_TIMERSLACK, PR_FUTEX_HASH, PR_SET_THP_DISABLE, PR_SET_NAME's neighbour PR_SET_ENDIAN.
        Act::native("call\tprctl\t67\t1\t0\t0\t0", "EPERM").bare("ok|EINVAL"),
        Act::native("call\tprctl\t62\t0\t0\t0\t0", "EPERM").bare("ok|EINVAL|ENODEV"),
        Act::native("call\tprctl\t59\t0\t0\t0\t0", "EPERM").bare("ok|EINVAL"),
        Act::native("call\tprctl\t65\t1\t0\t0\t0", "EPERM").bare("ok|EINVAL"),
        Act::native("call\tprctl\t29\t1\t0\t0\t0", "EPERM").bare("ok"),
        Act::native("call\tprctl\t78\t1\t16\t0\t0", "EPERM").bare("ok|EINVAL"),
        Act::native("call\tprctl\t41\t1\t0\t0\t0", "EPERM").bare("ok|EINVAL"),
        Act::native("call\tprctl\t20\t0\t0\t0\t0", "EPERM").bare("ok|EINVAL"),
        // A filter of its own could only tighten; it has no use for one.
        Act::native("call\tseccomp\t1\t0\t0", "ENOSYS").bare("EFAULT|EACCES"),
        Act::native("call\tseccomp\t2\t0\th:00000000", "ENOSYS").bare("ok"),
        Act::native("call\tlandlock_create_ruleset\t0\t0\t1", "ENOSYS").bare("ok").may_be_lacking(),
        Act::native("call\tprctl\t1\t0\t0\t0\t0", "ok")
            .stated("PR_SET_PDEATHSIG: the scenario clears it and dies all the same"),
        Act::native("call\tprctl\t38\t0\t0\t0\t0", "EINVAL")
            .stated("no_new_privs cannot be taken back: the kernel's own answer"),
    ]
}

fn status(_: &Place<'_>) -> Vec<Act> {
    let none = "0000000000000000";
    vec![
        Act::native("status\tCapInh\tCapPrm\tCapEff\tCapBnd\tCapAmb", &[none; 5].join(" ")).bare("*"),
        Act::native("status\tNoNewPrivs\tSeccomp", "1 2").bare("0 0"),
        Act::r(
            "sub('.*:\\t', '', grep('^(CapBnd|NoNewPrivs|Seccomp):', readLines('/proc/self/status'), value = TRUE))",
            &format!("{none} 1 2"),
        )
        .bare("*"),
        Act::native("call\tcapget\tz:8\tz:24", "ENOSYS").bare("EINVAL|ok"),
        Act::r("system('id -u', intern = TRUE)", "1000").bare("*"),
        Act::r("system('id -G', intern = TRUE)", "1000").bare("*"),
    ]
}

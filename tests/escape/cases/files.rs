//! Cases 1 to 22: files. Acts that many cases need; scenarios are in `files_scenarios`.

use std::path::Path;

use super::files_scenarios::{collected, erase, first_process, planted};
use crate::{
    case::{Act, Case, Outcome::*},
    world::{Place, quoted},
};

#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case { acts: secrets, ..Case::new(1, Nothing, "read keys and secrets in the owner's home", "filesystem") },
        Case {
            scenario: Some(erase),
            gets: "the owner's files unchanged",
            ..Case::new(2, Nothing, "erase the home, erase everything", "filesystem")
        },
        Case {
            acts: programs,
            ..Case::new(3, Denied, "write to R's library, `/usr`, the worker's program", "filesystem")
        },
        Case {
            scenario: Some(planted),
            gets: "gone for the next task",
            ..Case::new(4, Nothing, "plant `.Rprofile`, `.Renviron`, `.RData`, `Makevars`", "filesystem")
        },
        Case {
            acts: identity,
            ..Case::new(5, Nothing, "learn accounts, machine id, host name, hardware", "filesystem, processes")
        },
        Case {
            acts: links,
            scenario: Some(collected),
            known: "judge0 CVE-2024-28185, 28189, 29021; CVE-2024-42472",
            gets: "no link of the task is followed",
            ..Case::new(
                6,
                Nothing,
                "leave symbolic links for who collects the result, follow the owner's",
                "output, filesystem",
            )
        },
        Case { acts: hard_links, ..Case::new(7, Denied, "link a file of the host into scratch", "filesystem") },
        Case {
            acts: other_processes,
            scenario: Some(first_process),
            ..Case::new(8, Nothing, "look into other processes by `/proc/PID`", "processes, filesystem")
        },
        Case {
            acts: own_process,
            ..Case::new(9, Nothing, "find secrets and paths of the host in `/proc`", "processes, filesystem")
        },
        Case {
            acts: other_scratch,
            ..Case::new(10, Nothing, "open others' files in `/tmp`, `/dev/shm`, `/var/tmp`", "filesystem")
        },
        Case { acts: devices, ..Case::new(11, Denied, "make and open devices", "filesystem, syscalls") },
        Case { acts: set_user_id, ..Case::new(12, Nothing, "become root by set-user-id programs", "privileges") },
        Case { acts: sockets, ..Case::new(13, Nothing, "reach agents and daemons by their sockets", "filesystem") },
        Case {
            acts: abstract_sockets,
            ..Case::new(14, Nothing, "reach abstract sockets (X11, D-Bus)", "network, ipc, syscalls")
        },
        Case {
            acts: handles,
            known: "Shocker",
            ..Case::new(15, Denied, "open files by handle, past every path", "syscalls")
        },
        Case {
            acts: mounts,
            known: "runc CVE-2025-31133, 52565, 52881",
            ..Case::new(16, Denied, "mount, unmount, remount writable", "syscalls, privileges")
        },
        Case {
            acts: nested_mounts,
            known: "CVE-2022-0185",
            ..Case::new(17, Denied, "mount FUSE or overlay in a namespace of its own", "syscalls, privileges")
        },
        Case {
            acts: kernel_switches,
            known: "CVE-2022-0492 (release_agent)",
            ..Case::new(18, Denied, "write to `/proc/sys`, `/proc/sysrq-trigger`, `/sys`, cgroups", "filesystem")
        },
        Case {
            acts: roots,
            ..Case::new(19, Denied, "leave the root: chroot, pivot_root, `..`", "syscalls, filesystem")
        },
        Case {
            acts: own_programs,
            ..Case::new(20, Nothing, "run a program that it brought along, with more rights", "filesystem, privileges")
        },
        Case {
            acts: attributes,
            ..Case::new(21, Denied, "change mode, owner, times, attributes of shared files", "filesystem")
        },
        Case { acts: existence, ..Case::new(22, Nothing, "learn by stat() what exists on the host", "filesystem") },
    ]
}

/// Nothing must be at this path inside. The control is that it is there outside, if it is.
pub(super) fn absent(path: &str, inside: &str) -> Act {
    let act = Act::native(format!("stat\t{path}"), inside);
    // An ordinary user may not look everywhere, and then learns no more.
    match Path::new(path).symlink_metadata() {
        Ok(_) => act.bare("ok|EACCES"),
        Err(_) => act.stated("this machine does not have it"),
    }
}

fn secrets(place: &Place<'_>) -> Vec<Act> {
    let home = place.home();
    let mut acts = Vec::new();
    for name in [".ssh/id_ed25519", ".aws/credentials", ".config/secret.toml", ".Renviron", "thesis.txt"] {
        let path = home.join(name).display().to_string();
        acts.push(Act::r(format!("readLines({}); TRUE", quoted(&path)), "ENOENT").bare("ok"));
        acts.push(Act::native(format!("open\t{path}"), "ENOENT").bare("ok"));
        acts.push(Act::native(format!("open\t{path}\tw"), "ENOENT").bare("ok"));
    }
    acts.push(Act::native(format!("list\t{}", home.display()), "ENOENT").bare(".Renviron .aws .config *"));
    acts.push(
        Act::r("length(list.files('~', all.files = TRUE, no.. = TRUE))", "0").stated("`planted` finds files there"),
    );
    acts
}

/// As the owner of an installation, which the ordinary user is of the shared folder.
fn programs(place: &Place<'_>) -> Vec<Act> {
    let shared = place.world.shared().display().to_string();
    let ours = place.world.program("p2p-worker").display().to_string();
    vec![
        Act::native(format!("open\t{shared}/data.csv\twt"), "EROFS").bare("ok"),
        Act::native(format!("open\t{shared}/new.csv\tc"), "EROFS|EACCES").bare("ok"),
        Act::r(format!("writeLines('x,1', {})", quoted(format!("{shared}/data.csv"))), "EROFS").bare("ok"),
        // Outside, an ordinary user is stopped by these files' owner instead.
        Act::r("writeLines('', file.path(R.home(), 'etc', 'Rprofile.site'))", "EROFS").bare("EACCES"),
        Act::native("open\t/usr/bin/env\twt", "EROFS").bare("EACCES"),
        Act::native("call\tmkdir\ts:/usr/lib/p2p-escape\t511", "EROFS").bare("EACCES"),
        Act::native("call\tunlink\ts:/usr/bin/env", "EROFS").bare("EACCES"),
        Act::native("call\tmkdir\ts:/p2p-escape\t511", "EROFS").bare("EACCES"),
        Act::native(format!("open\t{ours}\twt"), "ENOENT").bare("EACCES|ETXTBSY"),
        Act::native("open\t/run/p2p-worker/runner.R\twt", "EROFS").bare("ENOENT|EACCES"),
        Act::native("open\t/tmp/p2p-escape-own\tc", "ok").stated("scratch is writable"),
    ]
}

fn identity(_: &Place<'_>) -> Vec<Act> {
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let mut acts = vec![
        Act::native("open\t/etc/shadow", "ENOENT").bare("EACCES"),
        Act::r("sub(':.*', '', readLines('/etc/passwd'))", "task nobody").bare("root *"),
        Act::r("Sys.info()[['nodename']]", "task").bare(&host),
        Act::r("readLines('/etc/hostname')", "task").bare(&format!("{host}|ENOENT")),
    ];
    let paths = ["/etc/machine-id", "/etc/resolv.conf", "/etc/ssh", "/sys", "/sys/class/dmi/id", "/var/lib/dbus"];
    acts.extend(paths.map(|path| absent(path, "ENOENT")));
    acts
}

/// A link in a shared folder leads to where it leads in the task's own root.
fn links(place: &Place<'_>) -> Vec<Act> {
    let link = place.world.shared().join("thesis").display().to_string();
    vec![Act::native(format!("open\t{link}"), "ENOENT").bare("ok")]
}

fn hard_links(place: &Place<'_>) -> Vec<Act> {
    let shared = place.world.shared().display().to_string();
    let home = place.home().display().to_string();
    let link = |from: &str, to: &str| format!("link\t{from}\t{to}");
    vec![
        Act::native(link(&format!("{shared}/data.csv"), &format!("{shared}/link.csv")), "EROFS").bare("ok"),
        Act::native(link(&format!("{shared}/data.csv"), "/tmp/p2p-link"), "EXDEV")
            .stated("the act before is its control"),
        Act::native(link("/usr/bin/env", "/tmp/p2p-link"), "EXDEV").stated("the first act is its control"),
        Act::native(link(&format!("{home}/thesis.txt"), "/tmp/p2p-link"), "ENOENT").bare("ok|EXDEV"),
        Act::native(link("/etc/passwd", "/home/task/passwd"), "EXDEV").bare("ENOENT"),
    ]
}

const OF_A_PROCESS: [&str; 7] = ["root", "cwd", "environ", "mem", "fd", "maps", "exe"];

fn other_processes(place: &Place<'_>) -> Vec<Act> {
    let bystander = &place.world.bystander;
    let mut acts = Vec::new();
    for name in OF_A_PROCESS {
        acts.push(Act::native(format!("open\t/proc/{}/{name}", bystander.pid), "ENOENT").bare("ok"));
        acts.push(Act::native(format!("open\t/proc/1/{name}"), "ENOENT").privileged("ok"));
    }
    acts.push(Act::native(format!("mem_read\t{}\t{}", bystander.pid, bystander.address), "ENOENT").bare("secret-*"));
    acts.push(Act::native(format!("read\t/proc/{}/environ", bystander.pid), "ENOENT").bare("read *"));
    acts
}

fn own_process(place: &Place<'_>) -> Vec<Act> {
    let folder = place.world.folder().display().to_string();
    vec![
        Act::native(format!("find\t{folder}"), "clean").bare("found"),
        Act::native("find\tsecret-of-the-owner", "clean").bare("found"),
        Act::native("env\tP2P_TOKEN", "unset").bare("secret-of-the-owner"),
        Act::native("env\tGITHUB_PAT", "unset").bare("secret-of-the-owner"),
        Act::native("open\t/proc/cmdline", "ENOENT|EACCES").bare("ok"),
        Act::native("open\t/proc/kallsyms", "ENOENT|EACCES").bare("ok"),
        Act::native("open\t/proc/keys", "ENOENT|EACCES").bare("ok").may_be_lacking(),
        Act::native("open\t/proc/sys/kernel/random/boot_id", "ENOENT|EACCES").bare("ok"),
    ]
}

fn other_scratch(place: &Place<'_>) -> Vec<Act> {
    place
        .world
        .litter()
        .iter()
        .map(|path| Act::native(format!("open\t{}", path.display()), "ENOENT").bare("ok"))
        .collect()
}

fn devices(_: &Place<'_>) -> Vec<Act> {
    let node = |kind: &str, device: &str| format!("call\tmknodat\t-100\ts:/tmp/node\t{kind}\t{device}");
    let mut acts = vec![
        Act::native(node("0x2180", "0x0101"), "EPERM")
            .stated("only root of the host can; the FIFO below is made by the same call"),
        Act::native(node("0x6180", "0x0800"), "EPERM")
            .stated("only root of the host can; the FIFO below is made by the same call"),
        Act::native("call\tmknod\ts:/tmp/node\t0x2180\t0x0101", "EPERM").stated("as by mknodat"),
        Act::native("call\tmknodat\t-100\ts:/tmp/fifo\t0x1180\t0", "ok")
            .stated("no attack: the control of the acts before"),
        Act::native("open\t/dev/null\trw", "ok").stated("no attack: one of the four devices that are there"),
    ];
    let names = [
        "mem",
        "port",
        "kmsg",
        "sda",
        "vda",
        "kvm",
        "fuse",
        "net/tun",
        "tty",
        "tty1",
        "vcs",
        "console",
        "ptmx",
        "pts",
        "zero",
        "input",
        "dri",
        "snapshot",
        "loop-control",
        "hugepages",
        "mqueue",
        "vsock",
        "userfaultfd",
        "shm/../mem",
    ];
    acts.extend(names.map(|name| absent(&format!("/dev/{name}"), "ENOENT")));
    acts
}

fn set_user_id(_: &Place<'_>) -> Vec<Act> {
    vec![
        Act::native("setuid\t/usr/bin/passwd", "it ended|uid 1000").bare("uid 0"),
        Act::native("status\tNoNewPrivs", "1").bare("0"),
        Act::native("call\tsetuid\t0", "ENOSYS").bare("EPERM"),
        // Where the call is allowed: there is no such user in the task's namespace.
        Act::native("call\tsetresuid\t0\t0\t0", "EINVAL|ENOSYS").bare("EPERM"),
        Act::native("call\tsetgroups\t0\t0", "ENOSYS").bare("EPERM"),
        Act::native("call\tcapset\tz:8\tz:24", "ENOSYS").bare("EINVAL"),
    ]
}

fn sockets(place: &Place<'_>) -> Vec<Act> {
    let socket = place.world.bystander.socket.display().to_string();
    let mut acts = vec![
        Act::native(format!("connect\t{socket}"), "ENOENT|ENOSYS").bare("ok"),
        Act::native(format!("stat\t{socket}"), "ENOENT").bare("ok"),
        Act::native("env\tSSH_AUTH_SOCK", "unset").bare(&socket),
        Act::native("env\tDBUS_SESSION_BUS_ADDRESS", "unset").bare("unix:path=*"),
        Act::native("env\tDISPLAY", "unset").bare(":0"),
        Act::native("env\tXDG_RUNTIME_DIR", "unset").bare("/run/user/0"),
    ];
    let paths = [
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/podman",
        "/run/containerd",
        "/run/dbus",
        "/run/user",
        "/run/systemd",
        "/run/nscd",
        "/run/sssd",
        "/tmp/.X11-unix",
        "/run/lock",
    ];
    acts.extend(paths.map(|path| absent(path, "ENOENT")));
    acts
}

fn abstract_sockets(place: &Place<'_>) -> Vec<Act> {
    let name = &place.world.bystander.abstract_name;
    vec![
        Act::native(format!("abstract\t{name}"), "ENOSYS|ECONNREFUSED|EPERM").bare("ok"),
        Act::r("any(grepl('@', readLines('/proc/net/unix')))", "ENOENT|FALSE").bare("ok"),
    ]
}

fn handles(_: &Place<'_>) -> Vec<Act> {
    vec![
        // struct file_handle with room for 128 bytes.
        Act::native(format!("call\tname_to_handle_at\t-100\ts:/usr\th:80000000{}\tz:8\t0", "00".repeat(132)), "ENOSYS")
            .bare("ok"),
        Act::native(
            format!("call\topen_by_handle_at\tfd:/usr\th:0800000001000000{}\t0", "02000000".repeat(2)),
            "ENOSYS",
        )
        .bare("EPERM|ESTALE"),
        // A process's handle from the file system of processes, which is found without a mount (FD_PIDFS_ROOT, Linux 6.17).
        Act::native(
            format!("call\topen_by_handle_at\t-10002\th:0800000001000000{}\t0", "02000000".repeat(2)),
            "ENOSYS",
        )
        .bare("EBADF|EINVAL|ESTALE|EPERM"),
    ]
}

fn mounts(_: &Place<'_>) -> Vec<Act> {
    vec![
        Act::native("call\tmount\ts:none\ts:/tmp\ts:tmpfs\t0\t0", "ENOSYS").privileged("ok"),
        Act::native("call\tmount\ts:/\ts:/tmp\t0\t0x1000\t0", "ENOSYS").privileged("ok|EINVAL"),
        Act::native("call\tmount\t0\ts:/proc\t0\t0x1020\t0", "ENOSYS").privileged("ok|EPERM"),
        Act::native("call\tfsopen\ts:tmpfs\t0", "ENOSYS").privileged("ok"),
        Act::native("call\tfsmount\t0\t0\t0", "ENOSYS").privileged("EINVAL"),
        Act::native("call\tfspick\t-100\ts:/proc\t0", "ENOSYS").privileged("ok"),
        Act::native("call\topen_tree\t-100\ts:/usr\t1", "ENOSYS").privileged("ok|EINVAL"),
        Act::native("call\tmove_mount\t-100\ts:/proc\t-100\ts:/tmp\t0", "ENOSYS").privileged("ok|EINVAL"),
        Act::native("call\tmount_setattr\t-100\ts:/proc\t0\tz:32\t32", "ENOSYS").privileged("ok"),
        Act::native("call\tumount2\ts:/proc\t2", "ENOSYS").privileged("ok"),
        Act::native("call\tlistmount\tz:32\tz:64\t1\t0", "ENOSYS").privileged("*").may_be_lacking(),
        // statmount, open_tree_attr, file_setattr, listns: what Linux 6.8 to 6.19 added (these numbers are the same everywhere).
        Act::native("call\t457\tz:32\tz:512\t512\t0", "ENOSYS").privileged("E*|ok").may_be_lacking(),
        Act::native("call\t467\t-100\ts:/usr\t1\tz:32\t32", "ENOSYS").privileged("E*|ok").may_be_lacking(),
        Act::native("call\t470\tz:64\tz:64\t8\t0", "ENOSYS").privileged("E*|ok").may_be_lacking(),
        Act::native("call\tfsconfig\t-1\t6\t0\t0\t0", "ENOSYS").privileged("EINVAL|EBADF"),
        Act::native("call\tquotactl_fd\t-1\t0\t0\t0", "ENOSYS").privileged("EBADF|EINVAL").may_be_lacking(),
        Act::native("run\t/usr/bin/mount\t-t\ttmpfs\tnone\t/tmp", "exit status: 32|exit status: 1").privileged("ok"),
    ]
}

fn nested_mounts(_: &Place<'_>) -> Vec<Act> {
    vec![
        Act::native("call\tunshare\t0x10020000", "ENOSYS").bare("ok"),
        Act::native("run\t/usr/bin/unshare\t--user\t--map-root-user\t--mount\t/usr/bin/true", "exit status: 1")
            .bare("ok"),
        Act::native("call\tmount\ts:none\ts:/tmp\ts:overlay\t0\ts:lowerdir=/usr,upperdir=/tmp,workdir=/tmp", "ENOSYS")
            .privileged("ok|EINVAL|ENODEV"),
        Act::native("call\tmount\ts:none\ts:/tmp\ts:fuse\t0\ts:fd=0,rootmode=40000,user_id=0,group_id=0", "ENOSYS")
            .privileged("EINVAL|ENODEV"),
        Act::native("open\t/dev/fuse\trw", "ENOENT").stated("`devices` says whether this machine has it"),
    ]
}

fn kernel_switches(place: &Place<'_>) -> Vec<Act> {
    // The jail's /proc has none of them; bubblewrap's is read-only, and only to be read for Landlock.
    let denied = if place.is_bubblewrap() { "EROFS|EACCES" } else { "ENOENT" };
    let write = |path: &str| Act::native(format!("open\t{path}\twt"), denied);
    let mut acts = vec![write("/proc/sys/net/ipv4/ip_forward").privileged("ok")];
    let paths = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/user/max_user_namespaces",
        "/proc/sysrq-trigger",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/irq/default_smp_affinity",
        "/proc/acpi/wakeup",
        "/proc/latency_stats",
    ];
    acts.extend(paths.map(|path| {
        let inside = if Path::new(path).exists() { denied } else { "ENOENT" };
        Act::native(format!("open\t{path}\twt"), inside).stated("only root of the host can; ip_forward is the control")
    }));
    acts.push(Act::native("open\t/proc/self/oom_score_adj\tw", "EACCES").bare("ok"));
    acts.push(Act::native("open\t/proc/self/uid_map\tw", "EACCES").bare("ok"));
    acts.push(Act::native("open\t/proc/self/mem\tw", "EACCES").bare("ok"));
    let absences = ["/sys/kernel/uevent_helper", "/sys/fs/cgroup", "/sys/kernel/debug", "/sys/firmware", "/sys/fs/bpf"];
    acts.extend(absences.map(|path| absent(path, "ENOENT")));
    acts
}

fn roots(place: &Place<'_>) -> Vec<Act> {
    let home = place.home().display().to_string();
    vec![
        Act::native("call\tchroot\ts:/tmp", "ENOSYS").privileged("ok"),
        Act::native("call\tpivot_root\ts:/proc\ts:/proc", "ENOSYS").privileged("ok|EBUSY|EINVAL"),
        Act::native(format!("stat\t/tmp/../../../..{home}"), "ENOENT").bare("ok"),
        Act::native(format!("stat\t/proc/self/root{home}"), "ENOENT").bare("ok"),
        Act::native(format!("stat\t/proc/self/cwd/../../..{home}"), "ENOENT").stated("as the act before"),
        Act::native("call\tfcntl\t9\t1", "EBADF").bare("ok"),
        Act::native("call\tfchdir\t3", "ENOTDIR").stated("descriptor 3 is the frames pipe inside"),
    ]
}

fn own_programs(_: &Place<'_>) -> Vec<Act> {
    let limits = "CapEff\tCapBnd\tNoNewPrivs\tSeccomp";
    vec![
        // 126: the shell found it and could not execute it, as Landlock says.
        Act::r("suppressWarnings(system2(probe, c('status', 'Seccomp'), stdout = FALSE, stderr = FALSE))", "126")
            .bare("0"),
        Act::native("run_from_memory\t/usr/bin/true", "ENOSYS").bare("ok"),
        Act::native("call\tmemfd_create\ts:x\t0", "ENOSYS").bare("ok"),
        // MFD_EXEC; a memory that not even the kernel maps.
        Act::native("call\tmemfd_create\ts:x\t0x10", "ENOSYS").bare("ok|EINVAL|EACCES"),
        Act::native("call\tmemfd_secret\t0", "ENOSYS").bare("ok").may_be_lacking(),
        Act::native("call\texecveat\t-100\ts:/nowhere\t0\t0\t0", "ENOSYS").bare("ENOENT"),
        // By the loader it runs, as this probe does, with no more rights than R.
        Act::native(format!("status\t{limits}"), "0000000000000000 0000000000000000 1 2").bare("0000000000000000 *"),
        Act::r("dyn.load(probe); TRUE", "error:*")
            .stated("policy: a program is no library, but libraries of the task may be mapped"),
    ]
}

fn attributes(place: &Place<'_>) -> Vec<Act> {
    let file = format!("{}/data.csv", place.world.shared().display());
    vec![
        Act::native(format!("call\tchmod\ts:{file}\t438"), "EROFS").bare("ok"),
        Act::native(format!("call\tfchmodat\t-100\ts:{file}\t438"), "EROFS").bare("ok"),
        Act::native(format!("call\tchown\ts:{file}\t-1\t-1"), "EROFS").bare("ok"),
        Act::native(format!("call\tutimensat\t-100\ts:{file}\t0\t0"), "EROFS").bare("ok"),
        Act::native(format!("call\ttruncate\ts:{file}\t0"), "EROFS").bare("ok"),
        Act::native(format!("call\tsetxattr\ts:{file}\ts:user.p2p\ts:x\t1\t0"), "ENOSYS|EROFS")
            .bare("ok|ENOTSUP|EOPNOTSUPP"),
        // setxattrat, removexattrat (Linux 6.13), file_setattr (6.17).
        Act::native(format!("call\t463\t-100\ts:{file}\t0\ts:user.p2p\tz:16\t16"), "ENOSYS")
            .bare("ok|E*")
            .may_be_lacking(),
        Act::native(format!("call\t466\t-100\ts:{file}\t0\ts:user.p2p"), "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native(format!("call\t469\t-100\ts:{file}\tz:24\t24\t0"), "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native(format!("call\tioctl\tfd:{file}\t0x40086602\tz:8"), "EPERM").bare("*"),
        Act::native(format!("call\tunlink\ts:{file}x"), "EROFS|ENOENT").stated("nothing is there; `programs` unlinks"),
    ]
}

fn existence(place: &Place<'_>) -> Vec<Act> {
    let home = place.home().display().to_string();
    let mut acts = vec![
        Act::native(format!("stat\t{home}"), "ENOENT").bare("ok"),
        Act::native(format!("call\taccess\ts:{home}/.ssh\t0"), "ENOENT").bare("ok"),
        Act::native(format!("call\treadlink\ts:{home}/.ssh\tz:64\t64"), "ENOENT").bare("EINVAL"),
        Act::native(format!("call\tchdir\ts:{home}"), "ENOENT").bare("ok"),
        Act::native(format!("call\topenat2\t-100\ts:{home}\tz:24\t24"), "ENOSYS").bare("ok"),
        // file_getattr and getxattrat (Linux 6.17, 6.13), which no filter of old names knows.
        Act::native(format!("call\t468\t-100\ts:{home}\tz:24\t24\t0"), "ENOSYS").bare("ok|E*").may_be_lacking(),
        Act::native(format!("call\t464\t-100\ts:{home}\t0\ts:user.p2p\tz:16\t16"), "ENOSYS")
            .bare("ok|E*")
            .may_be_lacking(),
    ];
    let paths = [
        "/root",
        "/srv",
        "/opt",
        "/mnt",
        "/media",
        "/boot",
        "/var/lib",
        "/var/log",
        "/var/spool",
        "/etc/sudoers",
        "/etc/crontab",
    ];
    acts.extend(paths.map(|path| absent(path, "ENOENT")));
    acts
}

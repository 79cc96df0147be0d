//! Each stage's effect, seen by `p2p-jail check` from inside a finished jail; beside each, what the same act gives outside.

use std::process::Command as Program;

use nix::unistd::geteuid;
use p2p_jail::spec::*;

use crate::harness::*;

/// `check` in a jail.
fn inside(starter: Starter, change: impl Fn(&mut Spec)) -> Finished {
    let mut spec =
        strict_spec(starter, &["/p2p-jail", "check", "/etc/passwd", "/etc/shadow", "/home", "/proc/1/environ"]);
    change(&mut spec);
    let finished = run(starter, &spec);
    assert_eq!(finished.ended().0, Exit::Code(0), "{finished:?}");
    finished
}

/// `check` as an ordinary user without a jail: the positive control.
fn outside() -> Finished {
    let mut command = Program::new(program());
    if geteuid().is_root() {
        command = Program::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program());
    }
    // Bounded, as it also counts how many children it can have.
    let output = command.arg("check").arg("/etc/passwd").arg("/home").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    Finished { reports: Vec::new(), frames: Vec::new(), text }
}

#[test]
fn identity_and_privileges() {
    for starter in starters() {
        let seen = inside(starter, |_| {});
        assert_eq!((seen.fact("uid"), seen.fact("gid")), ("1000", "1000"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(seen.fact(set), "0000000000000000", "{set}");
        }
        assert_eq!((seen.fact("NoNewPrivs"), seen.fact("Seccomp")), ("1", "2"));
        let loose = inside(starter, |spec| {
            spec.confinement.drop_capabilities = false;
            spec.confinement.seccomp = None;
        });
        assert_ne!(loose.fact("CapBnd"), "0000000000000000");
        assert_eq!(loose.fact("Seccomp"), "0");
    }
}

#[test]
fn processes_and_descriptors() {
    for starter in starters() {
        let seen = inside(starter, |_| {});
        assert_eq!(seen.fact("pid"), "2");
        assert_eq!(seen.fact("processes"), "1"); // Not even the init, which it may not trace.
        assert_eq!(seen.fact("fds"), "0,1,2,3");
        assert_eq!(seen.fact("read /proc/1/environ"), "ENOENT");
        assert_eq!(seen.fact("hostname"), "jail");
        // 30 in this user namespace, less the init and `check` itself.
        assert_eq!(seen.fact("children"), "28");
    }
    assert!(outside().fact("processes").parse::<usize>().unwrap() > 2);
    assert_ne!(outside().fact("hostname"), "jail");
}

#[test]
fn files() {
    for starter in starters() {
        let seen = inside(starter, |_| {});
        assert_eq!(seen.fact("write /"), "EROFS");
        assert_eq!(seen.fact("write /usr"), "EROFS");
        assert_eq!(seen.fact("write /proc/sys"), "ENOENT");
        assert_eq!(seen.fact("read /etc/passwd"), "ok");
        assert_eq!(seen.fact("read /etc/shadow"), "ENOENT");
        assert_eq!(seen.fact("read /home"), "ENOENT");
        assert_eq!(seen.fact("open /dev/zero"), "ENOENT");
        assert_eq!(seen.fact("bytes /proc/cmdline"), "ENOENT");
        let devices = ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom"];
        let free = inside(starter, |spec| spec.confinement.landlock = None);
        assert_eq!(free.fact("entries /dev"), devices.join(","));
        // Landlock alone: what is mounted but not granted.
        assert_eq!(seen.fact("entries /dev"), "");
        let lists = |spec: &mut Spec| spec.confinement.landlock.as_mut().unwrap().list.push("/".into());
        assert_eq!(inside(starter, lists).fact("entries /dev"), devices.join(","));
        assert_eq!(free.fact("space /tmp"), "16777216 100");
        assert_eq!(free.fact("space /dev/shm"), "8388608 50");
    }
    let free = outside();
    assert_eq!((free.fact("read /home"), free.fact("open /dev/zero")), ("ok", "ok"));
    assert!(free.fact("bytes /proc/cmdline").parse::<u32>().unwrap() > 0);
}

#[test]
fn system_calls() {
    let free = outside();
    let denied = [
        ("socket inet", "EPERM"),
        ("socket inet6", "EPERM"),
        ("socket netlink", "EPERM"),
        ("socket vsock", "EPERM"),
        ("socket unix", "ok"),
        ("connect 127.0.0.1", "EPERM"),
        ("clone3", "ENOSYS"),
        ("mount", "ENOSYS"),
        ("ptrace", "ENOSYS"),
        ("keyctl", "ENOSYS"),
        ("bpf", "ENOSYS"),
        ("io_uring_setup", "ENOSYS"),
        ("perf_event_open", "ENOSYS"),
        ("setns", "ENOSYS"),
        ("open_by_handle_at", "ENOSYS"),
        ("sched_setaffinity", "ENOSYS"),
        ("unshare user", "ENOSYS"),
        ("clone user", "EPERM"),
        ("ioctl TIOCSTI", "EPERM"),
        ("ioctl TIOCSTI_high", "EPERM"),
        ("ioctl TIOCLINUX", "EBADF"), // The control: another command of the same call.
        ("personality", "EPERM"),
        ("personality_query", "ok"),
        ("x32 getpid", "ENOSYS"),
        ("mmap shared anonymous", "EPERM"), // `check` itself maps private anonymous memory: the control.
        ("fcntl F_SETPIPE_SZ", "EBADF"),    // Allowed by this filter, so what a filter's denial is told from.
        ("setsockopt SO_SNDBUF", "EBADF"),
    ];
    for starter in starters() {
        let seen = inside(starter, |_| {});
        for (act, expected) in denied {
            assert_eq!(seen.fact(act), expected, "{act}");
        }
    }
    for act in
        ["socket inet", "clone user", "unshare user", "sched_setaffinity", "personality", "mmap shared anonymous"]
    {
        assert_eq!(free.fact(act), "ok", "{act}");
    }
    assert_eq!(free.fact("ioctl TIOCSTI"), "EBADF");
    assert_eq!(free.fact("ptrace"), "ESRCH");
    assert_eq!(free.fact("setns"), "EBADF");
    assert_ne!(free.fact("clone3"), "ENOSYS");
}

#[test]
fn no_user_namespaces_even_without_seccomp() {
    for starter in starters() {
        let without = inside(starter, |spec| spec.confinement.seccomp = None);
        assert_eq!(without.fact("unshare user"), "ENOSPC");
        assert_eq!(without.fact("clone user"), "ENOSPC");
        let control = inside(starter, |spec| {
            spec.confinement.seccomp = None;
            spec.confinement.no_nested_user_namespaces = false;
        });
        assert_eq!(control.fact("unshare user"), "ok");
    }
}

#[test]
fn no_network_even_without_seccomp() {
    for starter in starters() {
        let without = inside(starter, |spec| spec.confinement.seccomp = None);
        assert_eq!(without.fact("socket inet"), "ok");
        assert_eq!(without.fact("connect 127.0.0.1"), "EACCES"); // Landlock, from ABI 4 on.
        let namespace_alone = inside(starter, |spec| {
            spec.confinement.seccomp = None;
            spec.confinement.landlock = None;
        });
        assert_eq!(namespace_alone.fact("connect 127.0.0.1"), "ENETUNREACH");
    }
    assert_eq!(outside().fact("connect 127.0.0.1"), "ECONNREFUSED");
}

#[test]
fn limits() {
    for starter in starters() {
        let seen = inside(starter, |_| {});
        assert_eq!(seen.fact("rlimit nproc"), "30 30");
        assert_eq!(seen.fact("rlimit nofile"), "128 128");
        assert_eq!(seen.fact("rlimit fsize"), format!("{0} {0}", 64 << 20));
        // 1, not 0: see stages/limits.rs.
        assert_eq!(seen.fact("rlimit core"), "1 1");
        assert_eq!(seen.fact("rlimit memlock"), "0 0");
        assert_eq!((seen.fact("rlimit nice"), seen.fact("rlimit rtprio")), ("0 0", "0 0"));
        assert_eq!(seen.fact("cpus"), "1");
    }
}

/// `int 0x80` from a 64-bit program: getpid of i386 (number 20).
#[test]
#[cfg(target_arch = "x86_64")]
fn a_system_call_of_another_architecture_kills() {
    let source = "int main(void) { long r = 20; __asm__ volatile(\"int $0x80\" : \"+a\"(r) : : \"memory\"); return r > 0 ? 42 : 43; }";
    let folder = program().parent().unwrap().join("int80");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("int80.c"), source).unwrap();
    let compiled = Program::new("cc").arg("-o").arg(folder.join("int80")).arg(folder.join("int80.c")).status();
    assert!(compiled.unwrap().success(), "needs a C compiler");
    for starter in starters() {
        let run = |seccomp| {
            let mut spec = strict_spec(starter, &["/int80"]);
            let Container::Builtin(builtin) = &mut spec.container else { unreachable!() };
            builtin.mounts.push(Mount::Bind { from: folder.join("int80"), to: "/int80".into(), writable: false });
            spec.confinement.landlock.as_mut().unwrap().read_execute.push("/int80".into());
            spec.confinement.seccomp = seccomp;
            run(starter, &spec).ended().0
        };
        assert_eq!(run(Some(seccomp())), Exit::Signal(31));
        assert_eq!(run(None), Exit::Code(42));
    }
}

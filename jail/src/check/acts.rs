//! Acts that a task should not be able to do, tried one by one.
//!
//! Those that are system calls take only numbers and null, chosen so that the kernel, where it would let the call through, finds
//! nothing to do it to: a denial by a filter is another error than that. What the call says without a jail is noted.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::exit;

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, sched_getaffinity, sched_setaffinity, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::sockopt::{BindToDevice, SocketError};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, getsockopt, setsockopt, socket};
use nix::unistd::{Pid, pause};

use crate::check::{Line, said};
use crate::stages::network::TASK_LINK;
use crate::sys::{self, Forked};

/// Name, number, arguments. No argument is an address, none of the calls touches a descriptor or the memory that this process has
/// (what [`sys::probe`] asks for).
const CALLS: [(&str, c_long, [c_long; 5]); 28] = [
    // Without a jail: ok, each (the descriptor is left open).
    ("socket inet", libc::SYS_socket, [libc::AF_INET as c_long, libc::SOCK_STREAM as c_long, 0, 0, 0]),
    ("socket inet6", libc::SYS_socket, [libc::AF_INET6 as c_long, libc::SOCK_STREAM as c_long, 0, 0, 0]),
    ("socket netlink", libc::SYS_socket, [libc::AF_NETLINK as c_long, libc::SOCK_RAW as c_long, 0, 0, 0]),
    ("socket unix", libc::SYS_socket, [libc::AF_UNIX as c_long, libc::SOCK_STREAM as c_long, 0, 0, 0]),
    // ok, or EAFNOSUPPORT where the kernel lacks it.
    ("socket vsock", libc::SYS_socket, [libc::AF_VSOCK as c_long, libc::SOCK_STREAM as c_long, 0, 0, 0]),
    // EFAULT or EINVAL: no arguments.
    ("clone3", libc::SYS_clone3, [0; 5]),
    // EFAULT, or EPERM without CAP_SYS_ADMIN.
    ("mount", libc::SYS_mount, [0; 5]),
    // ESRCH: there is no process 0.
    ("ptrace", libc::SYS_ptrace, [libc::PTRACE_ATTACH as c_long, 0, 0, 0, 0]),
    // ESRCH: no process has this number.
    ("process_vm_readv", libc::SYS_process_vm_readv, [i32::MAX as c_long, 0, 0, 0, 0]),
    // ok: the number of the session's keyring; or ENOKEY.
    ("keyctl", libc::SYS_keyctl, [libc::KEYCTL_GET_KEYRING_ID as c_long, -3, 0, 0, 0]),
    // EINVAL, or EPERM where the machine reserves it to root.
    ("bpf", libc::SYS_bpf, [-1, 0, 0, 0, 0]),
    // EFAULT.
    ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, [0, -1, -1, -1, 0]),
    // EBADF: there is no such terminal. The second has bits above the 32 that the kernel looks at.
    ("ioctl TIOCSTI", libc::SYS_ioctl, [-1, 0x5412, 0, 0, 0]),
    ("ioctl TIOCSTI_high", libc::SYS_ioctl, [-1, 0xdead_0000_5412, 0, 0, 0]),
    ("ioctl TIOCLINUX", libc::SYS_ioctl, [-1, 0x541c, 0, 0, 0]),
    // ok: it sets what is set already, then turns address randomisation off for programs that this one executes (none).
    ("personality_query", libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0]),
    ("personality", libc::SYS_personality, [libc::ADDR_NO_RANDOMIZE as c_long, 0, 0, 0, 0]),
    // EBADF.
    ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0]),
    // EFAULT, or EPERM without CAP_DAC_READ_SEARCH.
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0, 0]),
    // EINVAL for unknown flags, or EPERM.
    ("userfaultfd", libc::SYS_userfaultfd, [-1, 0, 0, 0, 0]),
    ("fanotify_init", libc::SYS_fanotify_init, [-1, 0, 0, 0, 0]),
    // EBADF.
    ("move_mount", libc::SYS_move_mount, [-1, 0, -1, 0, 0]),
    // EINVAL, or EPERM without CAP_SYS_BOOT: the magic numbers are wrong.
    ("reboot", libc::SYS_reboot, [0; 5]),
    // ENOSYS on every machine where this program is not one of x32 (number 20, getpid is 39).
    ("x32 getpid", 0x4000_0000 + 39, [0; 5]),
    // ok: a page at a place of the kernel's choice, which nobody may touch and nobody does.
    ("mmap shared anonymous", libc::SYS_mmap, [0, 4096, libc::PROT_NONE as c_long, SHARED_ANONYMOUS, -1]),
    // EBADF.
    ("fcntl F_SETPIPE_SZ", libc::SYS_fcntl, [-1, libc::F_SETPIPE_SZ as c_long, 0, 0, 0]),
    ("setsockopt SO_SNDBUF", libc::SYS_setsockopt, [-1, libc::SOL_SOCKET as c_long, libc::SO_SNDBUF as c_long, 0, 0]),
];

/// The flags of memory that outlives its mapping in one process.
const SHARED_ANONYMOUS: c_long = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as c_long;

/// Places where nothing may be written.
const WRITES: [(&str, &str); 3] = [
    ("write /", "/p2p-jail-check"),
    ("write /usr", "/usr/p2p-jail-check"),
    ("write /proc/sys", "/proc/sys/kernel/hostname"),
];

/// The most children that are tried.
const MOST_CHILDREN: usize = 4096;

/// All of them.
pub(crate) fn all() -> Vec<Line> {
    let calls = CALLS.iter().map(|(name, number, arguments)| (*name, said(probe(*number, *arguments))));
    let writes = WRITES.iter().map(|(name, path)| (*name, write(path)));
    let others: [(&str, String); 9] = [
        ("connect 127.0.0.1", said(TcpStream::connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1)))),
        // Without a jail: whatever is there, or nothing until the time is over.
        ("connect private", connect(false)),
        ("connect private by device", connect(true)),
        // Without a jail: ok.
        ("open /dev/zero", said(File::open("/dev/zero"))),
        ("unshare user", in_child(|| unshare(CloneFlags::CLONE_NEWUSER))),
        ("clone user", in_child(clone_user)),
        ("memfd_create", said(memfd_create("check", MFdFlags::empty()).map_err(Into::into))),
        ("sched_setaffinity", said(keep_affinity().map_err(Into::into))),
        ("children", children().to_string()),
    ];
    calls.chain(writes).chain(others).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn probe(number: c_long, arguments: [c_long; 5]) -> std::io::Result<c_long> {
    sys::probe(number, arguments).map_err(Into::into)
}

/// An address that is nobody's on the internet (RFC 1918), from a socket that names its interface or not.
fn connect(by_device: bool) -> String {
    let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None);
    said(made.map_err(Into::into).and_then(|socket| {
        if by_device {
            setsockopt(&socket, BindToDevice, &OsString::from(TASK_LINK))?;
        }
        match nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrIn::new(10, 255, 255, 254, 1)) {
            Err(Errno::EINPROGRESS) => {
                let _ = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], PollTimeout::from(2000u16));
                match getsockopt(&socket, SocketError)? {
                    0 => Err(Errno::ETIMEDOUT.into()),
                    errno => Err(Errno::from_raw(errno).into()),
                }
            }
            other => Ok(other?),
        }
    }))
}

fn write(path: &str) -> String {
    let exists = std::path::Path::new(path).exists();
    let opened = OpenOptions::new().write(true).create(!exists).open(path);
    if opened.is_ok() && !exists {
        let _ = std::fs::remove_file(path);
    }
    said(opened)
}

fn keep_affinity() -> nix::Result<()> {
    let me = Pid::from_raw(0);
    sched_setaffinity(me, &sched_getaffinity(me)?)
}

/// Does something in a child, as it would change this process.
fn in_child(act: impl FnOnce() -> nix::Result<()>) -> String {
    match sys::fork(CloneFlags::empty()) {
        Ok(Forked::Child) => exit(act().err().map_or(0, |errno| errno as i32)),
        Ok(Forked::Parent { pid, .. }) => match sys::wait(Some(pid), false) {
            Ok(Some((_, crate::spec::Exit::Code(0)))) => "ok".into(),
            Ok(Some((_, crate::spec::Exit::Code(errno)))) => format!("{:?}", nix::errno::Errno::from_raw(errno)),
            other => format!("{other:?}"),
        },
        Err(errno) => format!("fork {errno:?}"),
    }
}

fn clone_user() -> nix::Result<()> {
    match sys::fork(CloneFlags::CLONE_NEWUSER)? {
        Forked::Child => exit(0),
        Forked::Parent { pid, .. } => sys::wait(Some(pid), false).map(drop),
    }
}

/// How many children it can have at once; they are killed.
fn children() -> usize {
    let mut made = Vec::new();
    while made.len() < MOST_CHILDREN {
        match sys::fork(CloneFlags::empty()) {
            Ok(Forked::Child) => {
                pause();
                exit(0)
            }
            // Without the handles: there may be fewer descriptors than children.
            Ok(Forked::Parent { pid, .. }) => made.push(pid),
            Err(_) => break,
        }
    }
    for pid in &made {
        let _ = nix::sys::signal::kill(*pid, nix::sys::signal::Signal::SIGKILL);
        let _ = sys::wait(Some(*pid), false);
    }
    made.len()
}

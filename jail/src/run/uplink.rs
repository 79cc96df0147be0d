//! pasta, the program outside of the jail that carries a task's packets: a child of the monitor's, in the task's control
//! group, which dies with the monitor.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::exit;

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, execve, pipe2};

use crate::failure::{At, Failure, Outcome};
use crate::prepared::c_path;
use crate::run::group::Group;
use crate::spec::{Stage, Uplink};
use crate::stages::descriptors;
use crate::stages::network::{NAME_SERVER, NEXT_HOP, PASTA_LINK, ROUTER};
use crate::sys::{self, Forked};

const STAGE: Stage = Stage::Namespaces;

/// The most descriptors, and so connections at once: each has buffers in the kernel.
const DESCRIPTORS: u64 = 1024;
/// How much of what it says is kept, in bytes.
const MOST_WORDS: u64 = 1024;

/// The running program.
#[derive(Debug)]
pub(crate) struct Pasta {
    /// Its number.
    pub(crate) pid: Pid,
    /// Refers to it for as long as it is not waited for.
    pub(crate) pidfd: OwnedFd,
    /// What it writes to its standard error; it must stay open, or writing would end it.
    words: File,
}

impl Pasta {
    /// Starts it for the user and network namespaces of that process, once that says on the socket that they are ready.
    pub(crate) fn start(uplink: &Uplink, init: Pid, ready: &UnixStream, group: Option<&Group>) -> Outcome<Self> {
        // Nothing comes where the init has failed; it says why itself.
        let _ = (&*ready).read(&mut [0; 1]);
        let (path, arguments) = (c_path(&uplink.program)?, arguments(uplink, init)?);
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).at(STAGE, || "pipe".into())?;
        match sys::fork(CloneFlags::empty()).at(STAGE, || "fork".into())? {
            Forked::Child => {
                let _ = group.map_or(Ok(()), Group::enter).and_then(|()| become_pasta(&writer, &path, &arguments));
                exit(127)
            }
            Forked::Parent { pid, pidfd } => Ok(Self { pid, pidfd, words: reader.into() }),
        }
    }

    /// Why the task cannot be started: it has ended before that.
    pub(crate) fn ended(&mut self) -> Failure {
        let mut words = Vec::new();
        let _ = Read::by_ref(&mut self.words).take(MOST_WORDS).read_to_end(&mut words);
        let words = String::from_utf8_lossy(&words);
        let useful: Vec<&str> = words.lines().filter(|line| !line.is_empty() && !line.contains("syslog")).collect();
        Failure::new(STAGE, format!("pasta ended: {}", useful.join("; ")))
    }
}

/// In the child: does not return but for a failure.
fn become_pasta(words: &OwnedFd, path: &CString, arguments: &[CString]) -> Outcome<()> {
    let words = descriptors::move_up(words.as_fd())?;
    let nothing = File::open("/dev/null").at(STAGE, || "opening /dev/null".into())?;
    let nothing = descriptors::move_up(nothing.as_fd())?;
    for (fd, number) in [(&nothing, 0), (&nothing, 1), (&words, 2)] {
        descriptors::place(fd.as_fd(), number)?;
    }
    descriptors::close_all_but(3, &[])?;
    std::mem::forget((words, nothing));
    sys::reset_signals();
    set_pdeathsig(Signal::SIGKILL).at(STAGE, || "prctl PR_SET_PDEATHSIG".into())?;
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS).at(STAGE, || "setrlimit".into())?;
    let environment: [CString; 0] = [];
    execve(path, arguments, &environment).at(STAGE, || "execve".into()).map(|never| match never {})
}

fn arguments(uplink: &Uplink, init: Pid) -> Outcome<Vec<CString>> {
    let address = |bytes: [u8; 4]| Ipv4Addr::from(bytes).to_string();
    let (router, hop, names) = (address(ROUTER), address(NEXT_HOP), address(NAME_SERVER));
    let (user, net) = (format!("/proc/{init}/ns/user"), format!("/proc/{init}/ns/net"));
    let program = uplink.program.to_string_lossy();
    [
        &*program,
        "--foreground",
        "--quiet",
        "--stderr",
        "--ipv4-only",
        "--no-icmp",
        "--no-dhcp",
        "--no-dhcpv6",
        "--no-ndp",
        "--no-ra",
        "--no-map-gw",
        "-t",
        "none",
        "-u",
        "none",
        "-T",
        "none",
        "-U",
        "none",
        "--address",
        &router,
        "--netmask",
        "24",
        "--gateway",
        &hop,
        "--dns-forward",
        &names,
        "--ns-ifname",
        PASTA_LINK,
        "--userns",
        &user,
        "--netns",
        &net,
    ]
    .into_iter()
    .map(|argument| CString::new(argument).map_err(|_| Failure::new(STAGE, "a NUL in an argument of pasta's")))
    .collect()
}

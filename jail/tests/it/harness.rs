//! A small supervisor: starts `p2p-jail run` as root or as an ordinary user, sends a spec, collects all that comes back.

use std::fs::{self, File};
use std::io::{IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{geteuid, pipe};
use p2p_jail::message;
use p2p_jail::spec::*;

/// The user of the host whose rights the tasks of these tests have.
pub(crate) const NOBODY: u32 = 65534;

/// Set, every jail whose init can be made ahead is: for the tests that run others again.
pub(crate) const AHEAD: &str = "P2P_JAIL_TEST_AHEAD";

/// Who starts `p2p-jail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starter {
    /// Root, who names a user to become.
    Root,
    /// An ordinary user.
    Ordinary,
}

/// Both, or only the second where the tests are not run by root.
pub(crate) fn starters() -> Vec<Starter> {
    if geteuid().is_root() { vec![Starter::Root, Starter::Ordinary] } else { vec![Starter::Ordinary] }
}

/// A copy of the program that everybody may execute, in a folder that everybody may enter and that goes with this process.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (program, _) = PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let built = test.parent().unwrap().parent().unwrap().join("examples/p2p-jail");
        let folder = std::env::temp_dir().join(format!("p2p-jail-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let copy = folder.join("p2p-jail");
        fs::copy(built, &copy).unwrap();
        // Its standard input ends when this process does, however that may be.
        let mut cleaner = Program::new("sh");
        cleaner.args(["-c", "cat; rm -rf -- \"$0\""]).arg(&folder).stdin(Stdio::piped()).stdout(Stdio::null());
        (copy, cleaner.spawn().unwrap())
    });
    program
}

/// What a task needs to run programs of this machine.
pub(crate) fn builtin(starter: Starter) -> Builtin {
    let bind = |from: &str, to: &str| Mount::Bind { from: from.into(), to: to.into(), writable: false };
    let mut mounts = vec![bind("/usr", "/usr")];
    for name in ["/bin", "/lib", "/lib64", "/sbin"] {
        match fs::read_link(name) {
            Ok(target) => mounts.push(Mount::Symlink { target, at: name.into() }),
            Err(_) if Path::new(name).exists() => mounts.push(bind(name, name)),
            Err(_) => {}
        }
    }
    mounts.extend([
        bind(program().to_str().unwrap(), "/p2p-jail"),
        Mount::Proc { to: "/proc".into(), only_processes: true },
        Mount::Devices { to: "/dev".into() },
        Mount::Tmpfs { to: "/dev/shm".into(), bytes: 8 << 20, inodes: 50 },
        Mount::Tmpfs { to: "/tmp".into(), bytes: 16 << 20, inodes: 100 },
        Mount::File { at: "/etc/passwd".into(), contents: b"task:x:1000:1000::/tmp:/bin/sh\n".to_vec() },
        Mount::Directory { at: "/empty".into() },
    ]);
    Builtin {
        become_user: (starter == Starter::Root).then_some(Identity { uid: NOBODY, gid: NOBODY }),
        inside: Identity { uid: 1000, gid: 1000 },
        hostname: "jail".into(),
        mounts,
        uplink: None,
    }
}

/// Every system call up to a recent one, but those that the tests expect to be denied.
pub(crate) fn seccomp() -> Seccomp {
    let denied = [
        libc::SYS_clone3,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_ptrace,
        libc::SYS_keyctl,
        libc::SYS_bpf,
        libc::SYS_io_uring_setup,
        libc::SYS_perf_event_open,
        libc::SYS_open_by_handle_at,
        libc::SYS_sched_setaffinity,
    ];
    let when = |argument, test| Condition { argument, test };
    let deny = |syscall, conditions| DenyRule { syscall, conditions };
    Seccomp {
        allow: (0..450).filter(|number| !denied.contains(number)).collect(),
        deny: vec![
            deny(libc::SYS_ioctl, vec![when(1, Test::Equal(0x5412))]),
            deny(libc::SYS_clone, vec![when(0, Test::BitSet(0x1000_0000))]),
            deny(libc::SYS_personality, vec![when(0, Test::NotEqual(0)), when(0, Test::NotEqual(0xffff_ffff))]),
            deny(libc::SYS_socket, vec![when(0, Test::NotEqual(1))]),
            // MAP_SHARED and MAP_ANONYMOUS together.
            deny(libc::SYS_mmap, vec![when(3, Test::BitSet(0x1)), when(3, Test::BitSet(0x20))]),
        ],
        explain: None,
    }
}

/// Everything that a strict profile asks for.
pub(crate) fn strict() -> Confinement {
    Confinement {
        rlimits: vec![
            (Rlimit::Processes, 30),
            (Rlimit::OpenFiles, 128),
            (Rlimit::FileSize, 64 << 20),
            (Rlimit::CoreDump, 0),
            (Rlimit::LockedMemory, 0),
            (Rlimit::Priority, 0),
        ],
        cpus: vec![0],
        drop_capabilities: true,
        no_nested_user_namespaces: true,
        landlock: Some(Landlock {
            tcp: false,
            list: Vec::new(),
            minimum_abi: 1,
            read_execute: ["/usr", "/p2p-jail"].map(PathBuf::from).to_vec(),
            read: ["/etc", "/proc", "/empty"].map(PathBuf::from).to_vec(),
            read_write: ["/tmp", "/dev/shm"].map(PathBuf::from).to_vec(),
            files_read_write: ["/dev/null", "/dev/full", "/dev/random", "/dev/urandom"].map(PathBuf::from).to_vec(),
        }),
        seccomp: Some(seccomp()),
    }
}

/// A command in the jail.
pub(crate) fn command(argv: &[&str]) -> Command {
    Command {
        argv: argv.iter().map(ToString::to_string).collect(),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), "/tmp".into())],
        directory: "/tmp".into(),
    }
}

/// A shell script in the builtin container under a strict confinement, with a wall time that no test should need.
pub(crate) fn shell(starter: Starter, script: &str) -> Spec {
    strict_spec(starter, &["/bin/sh", "-c", script])
}

/// A command in the builtin container under a strict confinement.
pub(crate) fn strict_spec(starter: Starter, argv: &[&str]) -> Spec {
    Spec {
        container: Container::Builtin(builtin(starter)),
        confinement: strict(),
        watch: Watch {
            wall_time_ms: Some(60_000),
            memory: Some(2 << 30),
            tmpfs: vec!["/tmp".into(), "/dev/shm".into()],
            ..Watch::default()
        },
        control_group: None,
        command: command(argv),
    }
}

/// A running `p2p-jail run`.
pub(crate) struct Jail {
    pub(crate) process: Child,
    pub(crate) control: UnixStream,
    stdin: Option<File>,
    frames: JoinHandle<Vec<u8>>,
    text: JoinHandle<Vec<u8>>,
}

/// All that came back.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) reports: Vec<Report>,
    pub(crate) frames: Vec<u8>,
    pub(crate) text: String,
}

impl Jail {
    /// Starts it and sends the spec; ahead of it, where that was asked for.
    pub(crate) fn start(starter: Starter, spec: &Spec) -> Self {
        match Ahead::of(spec).filter(|_| std::env::var_os(AHEAD).is_some()) {
            Some(ahead) => Waiting::start(starter, &message::encode(&ahead).unwrap()).take(spec),
            None => Self::start_raw(starter, &message::encode(spec).unwrap(), 3),
        }
    }

    /// Starts it and sends these bytes with the first so many of the three descriptors.
    pub(crate) fn start_raw(starter: Starter, bytes: &[u8], descriptors: usize) -> Self {
        Waiting::start_mode(starter, "run").take_raw(bytes, descriptors)
    }

    /// Gives the task its standard input.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.stdin.take().unwrap().write_all(bytes).unwrap();
    }

    /// The next report.
    pub(crate) fn report(&mut self) -> Option<Report> {
        self.control.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        match message::read(&mut self.control) {
            Ok(report) => Some(report),
            Err(message::MessageError::Closed) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Waits until the command runs: the process number that is reported.
    pub(crate) fn running(&mut self) -> i32 {
        loop {
            match self.report().expect("a report") {
                Report::Running { pid } => return pid,
                Report::Stage(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Asks what the command has reached; `None` if it has ended.
    pub(crate) fn reached(&mut self) -> Option<Reached> {
        // There may be nobody any more.
        let _ = self.control.write_all(&[0]);
        match self.report().expect("a report") {
            Report::Reached(reached) => Some(reached),
            Report::Ended { .. } => None,
            other => panic!("{other:?}"),
        }
    }

    /// Asks for an end.
    pub(crate) fn ask(&self) {
        self.control.shutdown(Shutdown::Write).unwrap();
    }

    /// Waits for the end of everything.
    pub(crate) fn finish(mut self) -> Finished {
        drop(self.stdin.take());
        let mut reports = Vec::new();
        while let Some(report) = self.report() {
            reports.push(report);
        }
        self.process.wait().unwrap();
        let text = String::from_utf8_lossy(&self.text.join().unwrap()).into_owned();
        Finished { reports, frames: self.frames.join().unwrap(), text }
    }
}

/// A `p2p-jail` that has not been told its task.
pub(crate) struct Waiting {
    pub(crate) process: Child,
    pub(crate) control: UnixStream,
}

impl Waiting {
    /// Starts `p2p-jail ahead` and sends these bytes, which should be an [`Ahead`].
    pub(crate) fn start(starter: Starter, ahead: &[u8]) -> Self {
        let started = Self::start_mode(starter, "ahead");
        (&started.control).write_all(ahead).unwrap();
        started
    }

    fn start_mode(starter: Starter, mode: &str) -> Self {
        let (control, theirs) = UnixStream::pair().unwrap();
        let process = launcher(starter).arg(mode).stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
        Self { process, control }
    }

    /// Sends the spec.
    pub(crate) fn take(self, spec: &Spec) -> Jail {
        self.take_raw(&message::encode(spec).unwrap(), 3)
    }

    fn take_raw(self, bytes: &[u8], descriptors: usize) -> Jail {
        let Self { process, control: ours } = self;
        let (stdin_read, stdin_write) = pipe().unwrap();
        let (frames_read, frames_write) = pipe().unwrap();
        let (text_read, text_write) = pipe().unwrap();
        let fds = [&stdin_read, &frames_write, &text_write].map(AsRawFd::as_raw_fd);
        let rights = [ControlMessage::ScmRights(&fds[..descriptors])];
        let rights = if descriptors == 0 { &[][..] } else { &rights[..] };
        let first = IoSlice::new(&bytes[..1]);
        sendmsg::<()>(ours.as_raw_fd(), &[first], rights, MsgFlags::empty(), None).unwrap();
        (&ours).write_all(&bytes[1..]).unwrap();
        cloexec(&[&stdin_write, &frames_read, &text_read]);
        Jail {
            process,
            control: ours,
            stdin: Some(stdin_write.into()),
            frames: collect(frames_read),
            text: collect(text_read),
        }
    }
}

impl Finished {
    /// How it ended; fails the test if it was refused.
    pub(crate) fn ended(&self) -> (Exit, Option<Stop>, Usage) {
        match self.reports.last() {
            Some(Report::Ended { exit, stopped, usage }) => (*exit, *stopped, *usage),
            _ => panic!("not ended: {self:?}"),
        }
    }

    /// Which stage was refused, why, with which error number; fails the test if it was not, or if anything ran.
    pub(crate) fn refused(&self) -> (Stage, &str, i32) {
        assert!(!self.reports.iter().any(|report| matches!(report, Report::Running { .. })), "it ran: {self:?}");
        match self.reports.last() {
            Some(Report::Refused { stage, what, errno }) => (*stage, what, *errno),
            _ => panic!("not refused: {self:?}"),
        }
    }

    /// The stages that were reported to be in force.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        let stage = |report: &Report| if let Report::Stage(stage, ..) = report { Some(*stage) } else { None };
        self.reports.iter().filter_map(stage).collect()
    }

    /// What `p2p-jail check` printed under this key.
    pub(crate) fn fact(&self, key: &str) -> &str {
        let line = self.text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {key:?} in:\n{}", self.text))
    }
}

/// Runs to the end.
pub(crate) fn run(starter: Starter, spec: &Spec) -> Finished {
    Jail::start(starter, spec).finish()
}

/// Whether a process with this word among its arguments exists. Each test uses a word of its own.
pub(crate) fn is_running(word: &str) -> bool {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.into_iter().any(|line| line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes()))
}

/// Waits for a condition, for at most ten seconds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        let _ = nix::poll::poll(&mut [], 5u16);
    }
    panic!("never: {what}");
}

fn launcher(starter: Starter) -> Program {
    let mut program_ = Program::new(program());
    if starter == Starter::Ordinary && geteuid().is_root() {
        program_ = Program::new("setpriv");
        program_.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program());
    }
    program_.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
    program_
}

fn collect(from: OwnedFd) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        File::from(from).take(64 << 20).read_to_end(&mut bytes).unwrap();
        bytes
    })
}

fn cloexec(fds: &[&OwnedFd]) {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    for fd in fds {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
}

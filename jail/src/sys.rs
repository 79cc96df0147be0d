//! System calls that neither std nor nix offers: the only file of this crate with `unsafe` in it.
//!
//! Each function is a thin, typed skin over one system call (or one small group that belongs together) and keeps no
//! state. What the calls are used for, and in which order, is decided elsewhere.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, c_uint, c_ulong};
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::spec::Exit;

type Result<T> = nix::Result<T>;

/// The highest descriptor number there can be, for [`close_range`].
pub(crate) const LAST_FD: RawFd = RawFd::MAX;

/// Attributes of a mount (mount_setattr(2)).
pub(crate) mod attribute {
    /// `MOUNT_ATTR_RDONLY`.
    pub(crate) const READ_ONLY: u64 = 0x1;
    /// `MOUNT_ATTR_NOSUID`.
    pub(crate) const NO_SETUID: u64 = 0x2;
    /// `MOUNT_ATTR_NODEV`.
    pub(crate) const NO_DEVICES: u64 = 0x4;
    /// `MOUNT_ATTR_NOEXEC`.
    pub(crate) const NO_EXEC: u64 = 0x8;
}

/// Which of the two processes after a fork this is.
pub(crate) enum Forked {
    /// The old one.
    Parent {
        /// The new process.
        pid: Pid,
        /// Refers to it even after its number has been given to another process.
        pidfd: OwnedFd,
    },
    /// The new one.
    Child,
}

/// Forks, the child in new namespaces (clone(2) without a stack of its own).
pub(crate) fn fork(namespaces: CloneFlags) -> Result<Forked> {
    let mut pidfd: c_int = -1;
    let flags = c_long::from(namespaces.bits() | libc::CLONE_PIDFD | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no stack given, this is fork(2): the child goes on with a copy of everything. This
    // program never has a second thread, so no lock can be held by a thread that the child does not have. The kernel writes
    // the new descriptor to `pidfd`, which lives until after the call. (The first three arguments have the same order on
    // every architecture but s390 and cris.)
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    match Errno::result(pid)? {
        0 => Ok(Forked::Child),
        pid => {
            let pid = Pid::from_raw(int(pid));
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
            Ok(Forked::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
        }
    }
}

/// Takes over a descriptor that this process inherited by agreement, or received in a message.
///
/// The caller must be the only one to ask for that number, and only once.
pub(crate) fn adopt(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_SETFD has no effect on memory, whatever the number.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the descriptor is open (the call above succeeded), and by the contract above nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether this descriptor is open.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: fcntl(2) with F_GETFD has no effect on memory, whatever the number.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Makes `fd` also known as `number`, which stays open across exec (dup2(2)). Whatever `number` was is closed.
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    // SAFETY: dup2(2) has no effect on memory. The callers run in a fresh child, before exec, and have moved every
    // descriptor that they still need away from the low numbers.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Closes all descriptors from `first` to `last`, both included (close_range(2), Linux 5.9).
pub(crate) fn close_range(first: RawFd, last: RawFd) -> Result<()> {
    let (first, last) = (c_long::from(first), c_long::from(last));
    // SAFETY: no effect on memory. The callers run in a fresh child and never touch an owner of a closed number again.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Sends SIGKILL to the process, even a stopped one (pidfd_send_signal(2), Linux 5.1).
pub(crate) fn kill(pidfd: BorrowedFd<'_>) -> Result<()> {
    let info: *const libc::siginfo_t = ptr::null();
    let fd = pidfd.as_raw_fd();
    // SAFETY: a null `siginfo_t` is allowed and means that of kill(2).
    Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, info, 0) }).map(drop)
}

/// `struct sched_attr` of sched_setattr(2), as Linux 3.14 had it.
#[repr(C)]
struct SchedulingAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks the kernel for short turns on the processor: who asks for little at a time is let on soon after it wakes up (a slice
/// of its own, Linux 6.12; an older kernel takes no notice). Nobody's share changes, and children have ordinary turns again.
pub(crate) fn ask_for_short_turns() -> Result<()> {
    const SLICE_NS: u64 = 100_000; // The shortest that there is.
    const RESET_ON_FORK_AND_KEEP_POLICY: u64 = 0x01 | 0x08;
    // SAFETY: no effect on memory; 0 stands for this process, which is there.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attributes = SchedulingAttributes {
        size: u32::try_from(size_of::<SchedulingAttributes>()).unwrap_or(0),
        policy: 0,
        flags: RESET_ON_FORK_AND_KEEP_POLICY,
        nice,
        priority: 0,
        runtime: SLICE_NS,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads one `struct sched_attr`, which outlives the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) }).map(drop)
}

/// Waits for a child that has ended, any or a certain one: its number and how it ended (wait4(2)). `None` if `nonblocking`
/// and none has.
pub(crate) fn wait(child: Option<Pid>, nonblocking: bool) -> Result<Option<(Pid, Exit)>> {
    let mut status: c_int = 0;
    let flags = libc::__WALL | if nonblocking { libc::WNOHANG } else { 0 };
    let which = child.map_or(-1, Pid::as_raw);
    // SAFETY: the kernel writes to `status`, which outlives the call; a null `rusage` is allowed.
    let pid = Errno::result(unsafe { libc::wait4(which, &raw mut status, flags, ptr::null_mut()) })?;
    let exit = if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        return Ok(None); // Only a stop, which a tracer could see.
    };
    Ok((pid != 0).then_some((Pid::from_raw(pid), exit)))
}

/// A descriptor for a running process (pidfd_open(2), Linux 5.3).
pub(crate) fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: no effect on memory.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    Ok(fresh(fd))
}

/// A detached copy of the mounts at `path` and below (open_tree(2), Linux 5.2).
pub(crate) fn clone_tree(path: &CStr) -> Result<OwnedFd> {
    let flags = 1 | libc::O_CLOEXEC | libc::AT_RECURSIVE; // OPEN_TREE_CLONE is 1.
    // SAFETY: `path` is a string that ends in NUL and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    Ok(fresh(Errno::result(fd)?))
}

/// Sets attributes on a mount, and on those below it if `recursive` (mount_setattr(2), Linux 5.12).
pub(crate) fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, set: u64) -> Result<()> {
    let values: [u64; 4] = [set, 0, 0, 0]; // struct mount_attr: set, clear, propagation, user namespace.
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let (fd, size) = (mount.as_raw_fd(), size_of_val(&values));
    // SAFETY: the path is an empty string, `values` has the layout of `struct mount_attr` (four u64) and its size is given.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, values.as_ptr(), size) };
    Errno::result(result).map(drop)
}

/// Attaches a detached mount on top of what `target` refers to (move_mount(2), Linux 5.2).
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = 0x4 | 0x40; // MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH.
    let (from, to, empty) = (mount.as_raw_fd(), target.as_raw_fd(), c"".as_ptr());
    // SAFETY: both paths are empty strings.
    Errno::result(unsafe { libc::syscall(libc::SYS_move_mount, from, empty, to, empty, flags) }).map(drop)
}

/// A new, detached file system of a kind that needs no source (fsopen(2), fsconfig(2), fsmount(2), Linux 5.2).
pub(crate) fn new_filesystem(kind: &CStr, options: &[(&CStr, CString)], attributes: u64) -> Result<OwnedFd> {
    // SAFETY: `kind` is a string that ends in NUL; 1 is FSOPEN_CLOEXEC.
    let context = fresh(Errno::result(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) })?);
    for (key, value) in options {
        configure(&context, 1, key.as_ptr(), value.as_ptr())?; // FSCONFIG_SET_STRING
    }
    configure(&context, 6, ptr::null(), ptr::null())?; // FSCONFIG_CMD_CREATE
    // SAFETY: no effect on memory; 1 is FSMOUNT_CLOEXEC.
    let mount = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, attributes) };
    Ok(fresh(Errno::result(mount)?))
}

fn configure(context: &OwnedFd, command: c_uint, key: *const libc::c_char, value: *const libc::c_char) -> Result<()> {
    // SAFETY: both callers above pass strings that end in NUL and outlive the call, or null where the command takes none.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) };
    Errno::result(result).map(drop)
}

/// The Landlock ABI of the running kernel (landlock_create_ruleset(2)): at least 1.
pub(crate) fn landlock_abi() -> Result<u32> {
    let nothing: *const libc::c_void = ptr::null();
    // SAFETY: with LANDLOCK_CREATE_RULESET_VERSION (1) the attributes must be null and are not read.
    let abi = Errno::result(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, 1) })?;
    Ok(u32::try_from(abi).unwrap_or(0))
}

/// Whether the extended attribute of the file has this value (getxattr(2)).
pub(crate) fn has_attribute(path: &CStr, name: &CStr, value: &[u8]) -> bool {
    let mut found = [0u8; 16];
    let (buffer, size) = (found.as_mut_ptr().cast::<libc::c_void>(), found.len());
    // SAFETY: both strings end in NUL; the kernel writes at most `size` bytes to `found`, which outlives the call.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer, size) };
    usize::try_from(length).is_ok_and(|length| found.get(..length) == Some(value))
}

/// Default action for every signal but one, and no signal blocked. Exec resets handlers, but not what is ignored. SIGXFSZ is
/// ignored: a write beyond the limit on files then fails with EFBIG, which R can tell its user, instead of ending R.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        let action = if signal == libc::SIGXFSZ { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: neither action runs code of ours. Numbers that cannot be set (SIGKILL, SIGSTOP, those of libc) fail
        // without effect.
        unsafe { libc::signal(signal, action) };
    }
    // An empty set has no member, so this cannot fail for a reason that we could act upon.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// The sets of capset(2), version 3: two words each of effective, permitted and inheritable.
type CapabilitySets = [[u32; 3]; 2];

/// `struct __user_cap_header_struct` for this process: `_LINUX_CAPABILITY_VERSION_3`, and 0 for the caller itself.
const CAPABILITY_HEADER: [u32; 2] = [0x2008_0522, 0];

/// Whether the capability is in the effective set of this process.
pub(crate) fn has_capability(number: u8) -> Result<bool> {
    let mut header = CAPABILITY_HEADER;
    let mut sets = CapabilitySets::default();
    // SAFETY: both arrays have the layout and the size that version 3 asks for, and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) };
    Errno::result(result)?;
    let word = sets.get(usize::from(number / 32)).map_or(0, |[effective, ..]| *effective);
    Ok(word & (1 << (number % 32)) != 0)
}

/// Empties the effective, permitted and inheritable sets.
pub(crate) fn clear_capabilities() -> Result<()> {
    let mut header = CAPABILITY_HEADER;
    let sets = CapabilitySets::default();
    // SAFETY: both arrays have the layout and the size that version 3 asks for, and outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) }).map(drop)
}

/// Takes a capability out of the bounding set; `EINVAL` for a number that the kernel does not know.
pub(crate) fn drop_from_bounding_set(number: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, c_ulong::from(number), 0)
}

/// Empties the ambient set.
pub(crate) fn clear_ambient_set() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, 4, 0) // PR_CAP_AMBIENT_CLEAR_ALL
}

/// Sets the securebits: uid 0 has no capability, changes of uid have no effect on them, none can be kept or made
/// ambient; each of these locked.
pub(crate) fn lock_securebits() -> Result<()> {
    prctl(libc::PR_SET_SECUREBITS, 0xEF, 0)
}

fn prctl(option: c_int, second: c_ulong, third: c_ulong) -> Result<()> {
    // SAFETY: the options used above take numbers, no pointers.
    Errno::result(unsafe { libc::prctl(option, second, third, 0, 0) }).map(drop)
}

/// Calls the kernel with numbers, to see what it says: for `check` alone.
///
/// The caller passes only numbers and null, and only calls that leave the memory that this process has and its descriptors
/// alone (a new mapping at a place of the kernel's choice does).
pub(crate) fn probe(number: c_long, arguments: [c_long; 5]) -> Result<c_long> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: by the contract above (`check::acts` has the list) the kernel has no address of ours to read or write.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, 0) })
}

/// Installs a seccomp filter for this process, which has `no_new_privs` (seccomp(2)). With `listens`, the kernel asks on the
/// returned descriptor (Linux 5.0).
pub(crate) fn install_filter(program: &[seccompiler::sock_filter], listens: bool) -> Result<Option<OwnedFd>> {
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    // libc and seccompiler each have their own `struct sock_filter`, of the kernel's one layout.
    let filter = program.as_ptr().cast_mut().cast::<libc::sock_filter>();
    let program = libc::sock_fprog { len: length, filter };
    let flags = if listens { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    // SAFETY: `program` names `length` instructions that outlive the call, and the kernel only reads them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    let fd = Errno::result(result)?;
    Ok(listens.then(|| fresh(fd)))
}

/// The next call about which the kernel asks (`SECCOMP_IOCTL_NOTIF_RECV`); waits for one. `ENOENT` if its caller has gone.
pub(crate) fn receive_question(listener: BorrowedFd<'_>) -> Result<libc::seccomp_notif> {
    // SAFETY: all of its fields are numbers, for which zero is a value; the kernel demands zeros.
    let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `struct seccomp_notif` to `question`, which outlives the call.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), 0xC050_2100, &raw mut question) })?;
    Ok(question)
}

/// Answers: this error, or (0) to go on as if nobody had been asked (`SECCOMP_IOCTL_NOTIF_SEND`; Linux 5.5).
pub(crate) fn answer_question(listener: BorrowedFd<'_>, id: u64, error: i32) -> Result<()> {
    let flags = if error == 0 { 1 } else { 0 }; // SECCOMP_USER_NOTIF_FLAG_CONTINUE
    let answer = libc::seccomp_notif_resp { id, val: 0, error: -error, flags };
    // SAFETY: the kernel reads one `struct seccomp_notif_resp`, which outlives the call.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), 0xC018_2101, &raw const answer) }).map(drop)
}

/// Whether the call with this number still waits for an answer (`SECCOMP_IOCTL_NOTIF_ID_VALID`, by its number since 5.17).
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one u64, which outlives the call.
    unsafe { libc::ioctl(listener.as_raw_fd(), 0x4008_2102, &raw const id) == 0 }
}

/// Owns a descriptor that a system call has just returned.
fn fresh(fd: c_long) -> OwnedFd {
    // SAFETY: the callers pass the result of a successful system call that made this descriptor; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(int(fd)) }
}

/// The kernel's descriptors and process numbers are `int`, though syscall(2) returns them as `long`.
#[expect(clippy::cast_possible_truncation, reason = "the kernel returned an int")]
fn int(value: c_long) -> c_int {
    value as c_int
}

//! Stage *Mounts*: a new root on a tmpfs, everything mounted in it, and the old root gone.
//!
//! Works with descriptors throughout (open_tree, fsmount, move_mount: Linux 5.2; mount_setattr: 5.12), so that no path of the
//! host is looked up again after the root has begun to change, and none inside is followed through a symbolic link.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, umask};
use nix::unistd::{chdir, fchdir, pivot_root};

use crate::failure::{At, Failure, Outcome};
use crate::prepared::c_path;
use crate::spec::{Mount, Stage};
use crate::stages::place::Place;
use crate::sys::{self, attribute::*};

const STAGE: Stage = Stage::Mounts;

/// The devices of every jail, and their numbers: whatever else the host calls `null` is not bound. Not `zero`: a shared
/// mapping of it is memory that the watch does not see once it is unmapped in part.
const DEVICES: [(&str, u64, u64); 4] = [("null", 1, 3), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9)];

/// The links in the folder of devices.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// A step whose source has been opened on the host, before the root changes.
struct Step<'spec> {
    mount: &'spec Mount,
    sources: Vec<OwnedFd>,
}

/// Builds the root and moves into it. Returns `/proc` of the new process namespace, mounted nowhere, for the watch.
pub(crate) fn build(mounts: &[Mount]) -> Outcome<OwnedFd> {
    umask(Mode::from_bits_truncate(0o022));
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).at(STAGE, || "making all mounts private".into())?;
    let steps = mounts.iter().map(open).collect::<Outcome<Vec<_>>>()?;
    let processes = proc(false)?;
    let root = new_root()?;
    for step in &steps {
        carry_out(step, &Place(root.as_fd()))?;
    }
    enter(root.as_fd())?;
    Ok(processes)
}

/// Makes user namespaces impossible inside the one that this process is in.
pub(crate) fn forbid_user_namespaces(processes: BorrowedFd<'_>) -> Outcome<()> {
    let stage = Stage::NestedNamespaces;
    let path = "sys/user/max_user_namespaces";
    let open = |flags| openat(processes, path, flags | OFlag::O_CLOEXEC, Mode::empty()).map(fs::File::from);
    let mut switch = open(OFlag::O_WRONLY).at(stage, || format!("opening /proc/{path} for writing"))?;
    switch.write_all(b"0").at(stage, || format!("writing 0 to /proc/{path}"))?;
    let switch = open(OFlag::O_RDONLY).at(stage, || format!("opening /proc/{path}"))?;
    let now = io::read_to_string(switch).at(stage, || format!("reading /proc/{path}"))?;
    if now.trim() == "0" { Ok(()) } else { Err(Failure::new(stage, format!("/proc/{path} stays {now:?}"))) }
}

fn open(mount: &Mount) -> Outcome<Step<'_>> {
    let sources = match mount {
        Mount::Bind { from, writable, .. } => {
            let read_only = if *writable { 0 } else { READ_ONLY };
            vec![clone_tree(from, NO_SETUID | NO_DEVICES | read_only)?]
        }
        Mount::Devices { .. } => DEVICES.iter().map(device).collect::<Outcome<_>>()?,
        _ => Vec::new(),
    };
    Ok(Step { mount, sources })
}

fn clone_tree(from: &Path, attributes: u64) -> Outcome<OwnedFd> {
    let tree = sys::clone_tree(&c_path(from)?).at(STAGE, || format!("open_tree {} on the host", from.display()))?;
    sys::set_attributes(tree.as_fd(), true, attributes)
        .at(STAGE, || format!("mount_setattr {attributes:#x} on the mounts at and below {}", from.display()))?;
    Ok(tree)
}

fn device(&(name, major, minor): &(&str, u64, u64)) -> Outcome<OwnedFd> {
    let path = Path::new("/dev").join(name);
    let node = clone_tree(&path, NO_SETUID | NO_EXEC)?;
    let found = fstat(&node).at(STAGE, || format!("fstat {}", path.display()))?;
    let is_device = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    if is_device && (libc::major(found.st_rdev).into(), libc::minor(found.st_rdev).into()) == (major, minor) {
        Ok(node)
    } else {
        Err(Failure::new(STAGE, format!("{} is not the device {major}:{minor}", path.display())))
    }
}

/// A tmpfs on top of `/proc`, which exists wherever this program can run; nobody outside sees it.
fn new_root() -> Outcome<OwnedFd> {
    let root = tmpfs(16 << 20, 1 << 16, "0755", NO_SETUID | NO_DEVICES | NO_EXEC)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let under = nix::fcntl::open("/proc", flags, Mode::empty()).at(STAGE, || "opening /proc".into())?;
    sys::attach(root.as_fd(), under.as_fd()).at(STAGE, || "move_mount of the new root".into())?;
    Ok(root)
}

fn tmpfs(bytes: u64, inodes: u64, mode: &str, attributes: u64) -> Outcome<OwnedFd> {
    if bytes == 0 || inodes == 0 {
        return Err(Failure::new(STAGE, "a tmpfs of 0 bytes or 0 inodes: to the kernel, 0 means no limit"));
    }
    let options = [(c"size", number(bytes)?), (c"nr_inodes", number(inodes)?), (c"mode", text(mode)?)];
    sys::new_filesystem(c"tmpfs", &options, attributes)
        .at(STAGE, || format!("making a tmpfs of {bytes} bytes and {inodes} inodes"))
}

/// A `/proc` of the process namespace that this process is in.
fn proc(only_processes: bool) -> Outcome<OwnedFd> {
    let only: [(&CStr, CString); 2] = [(c"subset", text("pid")?), (c"hidepid", text("ptraceable")?)];
    let options: &[(&CStr, CString)] = if only_processes { &only } else { &[] };
    let mounted = sys::new_filesystem(c"proc", options, NO_SETUID | NO_DEVICES | NO_EXEC);
    mounted.map_err(|errno| {
        let hint = match errno {
            Errno::EPERM => " (the kernel allows it only where the whole /proc is visible: not inside a container that masks parts of it)",
            Errno::EINVAL if only_processes => " (subset=pid needs Linux 5.8)",
            _ => "",
        };
        Failure { errno: errno as i32, ..Failure::new(STAGE, format!("mounting a new /proc{hint}")) }
    })
}

fn carry_out(step: &Step<'_>, place: &Place<'_>) -> Outcome<()> {
    match step.mount {
        Mount::Bind { to, .. } => step.sources.iter().try_for_each(|tree| attach_at(tree, to, place)),
        Mount::Tmpfs { to, bytes, inodes } => {
            attach_at(&tmpfs(*bytes, *inodes, "1777", NO_SETUID | NO_DEVICES)?, to, place)
        }
        Mount::Proc { to, only_processes } => attach_at(&proc(*only_processes)?, to, place),
        Mount::Devices { to } => devices(&step.sources, to, place),
        Mount::Symlink { target, at } => place.symlink(target, at),
        Mount::File { at, contents } => place.write(at, contents),
        Mount::Directory { at } => place.folder(at).map(drop),
    }
}

fn attach_at(tree: &OwnedFd, to: &Path, place: &Place<'_>) -> Outcome<()> {
    let kind = fstat(tree).at(STAGE, || format!("fstat of what is mounted at {}", to.display()))?.st_mode;
    let is_folder = SFlag::from_bits_truncate(kind) & SFlag::S_IFMT == SFlag::S_IFDIR;
    let target = if is_folder { place.folder(to)? } else { place.file(to)? };
    sys::attach(tree.as_fd(), target.as_fd()).at(STAGE, || format!("move_mount to {} in the new root", to.display()))
}

fn devices(nodes: &[OwnedFd], to: &Path, place: &Place<'_>) -> Outcome<()> {
    for (node, (name, ..)) in nodes.iter().zip(DEVICES) {
        attach_at(node, &to.join(name), place)?;
    }
    DEVICE_LINKS.iter().try_for_each(|(name, target)| place.symlink(Path::new(target), &to.join(name)))
}

/// pivot_root(2) with the old root stacked below the new one, from where it is detached: it never has a path inside.
fn enter(root: BorrowedFd<'_>) -> Outcome<()> {
    fchdir(root).at(STAGE, || "fchdir to the new root".into())?;
    pivot_root(".", ".").at(STAGE, || "pivot_root".into())?;
    umount2(".", MntFlags::MNT_DETACH).at(STAGE, || "detaching the old root".into())?;
    chdir("/").at(STAGE, || "chdir to the new root".into())?;
    sys::set_attributes(root, false, READ_ONLY).at(STAGE, || "making the new root read-only".into())
}

fn number(value: u64) -> Outcome<CString> {
    text(&value.to_string())
}

fn text(value: &str) -> Outcome<CString> {
    c_path(&PathBuf::from(value))
}

//! Acts that want more than their share: each goes on until it is refused or has had as much as its argument says, and gives
//! everything back.

use std::{
    fs::{self, File},
    io::Write,
    os::fd::AsRawFd,
    path::Path,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{Pid, pause},
};
use syscalls::Sysno;

use crate::{
    acts::{Outcome, errno, ok},
    raw,
};

const MIB: u64 = 1 << 20;

/// Tries a bomb: "ok" if it got all that it wanted, else the error that stopped it.
pub(crate) fn attempt(what: &str, arguments: &[&str]) -> Outcome {
    match (what, arguments) {
        ("processes", [most]) => processes(number(most)?, || {
            loop {
                pause();
            }
        }),
        ("zombies", [most]) => processes(number(most)?, || std::process::exit(0)),
        ("threads", [most]) => threads(number(most)?),
        ("descriptors", [most]) => descriptors(number(most)?),
        ("timers", [most]) => timers(number(most)?),
        ("mib", [folder, most]) => fill(Path::new(folder), number(most)?),
        ("files", [folder, most]) => files(Path::new(folder), number(most)?),
        ("sparse", [path, bytes]) => sparse(Path::new(path), number(bytes)?),
        ("core", []) => core_dump(),
        ("flood", [mib]) => flood(number(mib)?),
        ("memory", [mib]) => memory(number(mib)?),
        ("swapped", [mib]) => swapped(number(mib)?),
        ("pipe", []) => larger_pipe(),
        ("spin", []) => loop {
            std::hint::spin_loop();
        },
        ("stubborn", [_marker]) => stubborn(),
        // CLONE_VFORK and SIGCHLD: the parent waits in the kernel for a child that never ends, and only SIGKILL wakes it.
        ("vfork", [_marker]) => match raw::call(Sysno::clone as usize, [0x4011, 0, 0, 0, 0, 0])? {
            0 => stubborn(),
            _ => Ok(ok()),
        },
        _ => Ok(format!("no such bomb: {what} {arguments:?}")),
    }
}

fn number(word: &str) -> Result<u64, Errno> {
    word.parse().map_err(|_| Errno::EDOM)
}

/// Children that live until all are there.
fn processes(most: u64, life: impl Fn()) -> Outcome {
    let mut children: Vec<Pid> = Vec::new();
    let mut end = Ok(ok());
    for _ in 0..most {
        match raw::fork() {
            Ok(None) => {
                life();
                std::process::exit(0)
            }
            Ok(Some(child)) => children.push(child),
            Err(error) => {
                end = Err(error);
                break;
            }
        }
    }
    for child in &children {
        let _ = kill(*child, Signal::SIGKILL);
    }
    for child in children {
        let _ = waitpid(child, None);
    }
    end
}

fn threads(most: u64) -> Outcome {
    let (hold, held) = std::sync::mpsc::sync_channel::<()>(0);
    let held = std::sync::Arc::new(std::sync::Mutex::new(held));
    let mut running = Vec::new();
    let mut end = Ok(ok());
    for _ in 0..most {
        let held = std::sync::Arc::clone(&held);
        let waits = move || drop(held.lock().map(|held| held.recv()));
        match std::thread::Builder::new().stack_size(16 * 1024).spawn(waits) {
            Ok(thread) => running.push(thread),
            Err(error) => {
                end = Err(errno(&error));
                break;
            }
        }
    }
    drop(hold);
    running.into_iter().for_each(|thread| drop(thread.join()));
    end
}

fn descriptors(most: u64) -> Outcome {
    // As many as the hard limit allows.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let open = || File::open("/dev/null").map_err(|error| errno(&error));
    let open: Result<Vec<File>, Errno> = (0..most).map(|_| open()).collect();
    open.map(|_| ok())
}

/// POSIX timers, which are memory of the kernel.
fn timers(most: u64) -> Outcome {
    for _ in 0..most {
        let mut id = 0i32;
        raw::call(Sysno::timer_create as usize, [1, 0, &raw mut id as usize, 0, 0, 0])?;
    }
    Ok(ok())
}

/// Touches every page, and keeps it.
fn memory(mib: u64) -> Outcome {
    let mut kept = Vec::new();
    for _ in 0..mib {
        let mut piece: Vec<u8> = Vec::new();
        piece.try_reserve_exact(usize::try_from(MIB).unwrap_or(0)).map_err(|_| Errno::ENOMEM)?;
        piece.resize(usize::try_from(MIB).unwrap_or(0), 1);
        kept.push(piece);
    }
    Ok(format!("ok, {} MiB", std::hint::black_box(kept).len()))
}

/// Touches every page, keeps it, and asks the kernel to swap it out at once; how much of it is in swap then.
fn swapped(mib: u64) -> Outcome {
    let length = usize::try_from(MIB).unwrap_or(0);
    for _ in 0..mib {
        // PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS.
        let at = raw::call(Sysno::mmap as usize, [0, length, 3, 0x22, usize::MAX, 0])?;
        let at = usize::try_from(at).map_err(|_| Errno::EFAULT)?;
        // What cannot be shared or packed away.
        let random = File::open("/dev/urandom").map_err(|error| errno(&error))?;
        let fd = usize::try_from(random.as_raw_fd()).map_err(|_| Errno::EBADF)?;
        raw::call(Sysno::read as usize, [fd, at, length, 0, 0, 0])?;
        match raw::call(Sysno::madvise as usize, [at, length, MADV_PAGEOUT, 0, 0, 0]) {
            // Denied to tasks, and no reason to stop.
            Ok(_) | Err(Errno::EPERM) => {}
            Err(error) => return Err(error),
        }
    }
    let status = fs::read_to_string("/proc/self/status").map_err(|error| errno(&error))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSwap:")).unwrap_or_default();
    Ok(format!("ok, {mib} MiB, {} in swap", line.trim()))
}

/// Of madvise(2), Linux 5.4.
const MADV_PAGEOUT: usize = 21;

/// A pipe with room for a MiB, which is memory of the kernel.
fn larger_pipe() -> Outcome {
    let (reader, _writer) = nix::unistd::pipe()?;
    let fd = usize::try_from(reader.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let set_size = usize::try_from(libc::F_SETPIPE_SZ).unwrap_or(0);
    raw::call(Sysno::fcntl as usize, [fd, set_size, 1 << 20, 0, 0, 0]).map(|_| ok())
}

/// Files of 32 MiB each, until so many MiB are there.
fn fill(folder: &Path, most: u64) -> Outcome {
    let mut made = Vec::new();
    let mut end = Ok(ok());
    for at in 0..most.div_ceil(32) {
        let path = folder.join(format!("fill-{at}"));
        let file = File::create(&path).map_err(|error| errno(&error));
        made.push(path);
        let length = usize::try_from(32 * MIB).unwrap_or(0);
        let filled = file.and_then(|file| {
            let fd = usize::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?;
            raw::call(Sysno::fallocate as usize, [fd, 0, 0, length, 0, 0])
        });
        if let Err(error) = filled {
            end = Err(error);
            break;
        }
    }
    made.iter().for_each(|path| drop(fs::remove_file(path)));
    end
}

fn files(folder: &Path, most: u64) -> Outcome {
    let within = folder.join("files");
    fs::create_dir(&within).map_err(|error| errno(&error))?;
    let made: Result<Vec<()>, Errno> = (0..most)
        .map(|at| File::create(within.join(at.to_string())).map(drop).map_err(|error| errno(&error)))
        .collect();
    let _ = fs::remove_dir_all(&within);
    made.map(|_| ok())
}

fn sparse(path: &Path, bytes: u64) -> Outcome {
    let file = File::create(path).map_err(|error| errno(&error))?;
    let grown = file.set_len(bytes);
    let _ = fs::remove_file(path);
    grown.map(|()| ok()).map_err(|error| errno(&error))
}

/// Whether a crash leaves a core dump, or is handed to a program that collects them: the kernel says so to the parent.
fn core_dump() -> Outcome {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, hard, hard);
    }
    let Some(child) = raw::fork()? else { std::process::abort() };
    let mut status = 0i32;
    let pid = usize::try_from(child.as_raw()).map_err(|_| Errno::ESRCH)?;
    raw::call(Sysno::wait4 as usize, [pid, &raw mut status as usize, 0, 0, 0, 0])?;
    Ok(if libc::WCOREDUMP(status) { "a core dump" } else { "no core dump" }.to_owned())
}

/// Writes to standard error, which is the task's text.
fn flood(mib: u64) -> Outcome {
    let line = [b"all work and no play\n".repeat(3120), b"\x1b[31m\n".to_vec()].concat();
    let mut to = std::io::stderr().lock();
    for _ in 0..mib * 16 {
        to.write_all(&line).map_err(|error| errno(&error))?;
    }
    Ok(ok())
}

/// Ignores every signal that can be ignored, stops its parent, and sleeps for ever.
fn stubborn() -> Outcome {
    for signal in 1..64 {
        // struct sigaction of the kernel: handler SIG_IGN, no flags, no restorer, empty mask.
        let ignore = [1usize, 0, 0, 0];
        let _ = raw::call(Sysno::rt_sigaction as usize, [signal, ignore.as_ptr() as usize, 0, 8, 0, 0]);
    }
    let _ = kill(nix::unistd::getppid(), Signal::SIGSTOP);
    loop {
        pause();
    }
}

//! Acts on other processes and programs.

use std::{
    ffi::CString,
    fs,
    io::{IoSliceMut, Read, Write, stdin},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::FileExt,
            net::{SocketAddr, UnixStream},
        },
    },
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        uio::{RemoteIoVec, process_vm_readv},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};
use syscalls::Sysno;

use crate::{
    acts::{Outcome, done, errno, ok},
    raw::{self, call},
    words::number,
};

/// What the bystander keeps in its memory.
static SECRET: [u8; 19] = *b"secret-of-the-owner";

/// `PR_SET_PTRACER` and `PR_SET_PTRACER_ANY` (prctl(2)): Yama, where there is one, lets everybody trace it.
const TRACEABLE: raw::Arguments = [0x5961_6d61, usize::MAX, 0, 0, 0, 0];

/// Of execveat(2).
const AT_EMPTY_PATH: usize = 0x1000;

/// How often a program is looked at that has just been started, with 20 ms between.
const LOOKS: u32 = 250;

/// Says where its secret is, and waits until its standard input ends.
pub(crate) fn bystander() -> Outcome {
    let _ = call(Sysno::prctl as usize, TRACEABLE);
    println!("{:#x}", SECRET.as_ptr() as usize);
    let _ = std::io::stdout().flush();
    let _ = stdin().read_to_end(&mut Vec::new());
    Ok(ok())
}

fn pid(word: &str) -> Result<Pid, Errno> {
    word.parse().map(Pid::from_raw).map_err(|_| Errno::EDOM)
}

fn found(bytes: &[u8]) -> Outcome {
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// process_vm_readv(2) of the bystander's secret.
pub(crate) fn read_memory(of: &str, address: &str) -> Outcome {
    let mut bytes = [0; SECRET.len()];
    let base = number(address)?;
    let length =
        process_vm_readv(pid(of)?, &mut [IoSliceMut::new(&mut bytes)], &[RemoteIoVec { base, len: SECRET.len() }])?;
    found(bytes.get(..length).unwrap_or_default())
}

/// The same through `/proc/PID/mem`.
pub(crate) fn read_memory_file(of: &str, address: &str) -> Outcome {
    let mut bytes = [0; SECRET.len()];
    let memory = fs::File::open(format!("/proc/{of}/mem")).map_err(|error| errno(&error))?;
    memory.read_exact_at(&mut bytes, number(address)? as u64).map_err(|error| errno(&error))?;
    found(&bytes)
}

/// pidfd_open(2) and pidfd_getfd(2) of another process's descriptor 0.
pub(crate) fn steal_descriptor(of: &str) -> Outcome {
    let handle = call(Sysno::pidfd_open as usize, [number(of)?, 0, 0, 0, 0, 0])?;
    call(Sysno::pidfd_getfd as usize, [usize::try_from(handle).unwrap_or_default(), 0, 0, 0, 0, 0]).map(|_| ok())
}

/// Connects to an abstract socket.
pub(crate) fn connect_abstract(name: &str) -> Outcome {
    done(SocketAddr::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address)))
}

/// memfd_create(2), a program written to it, and execveat(2) of the descriptor.
pub(crate) fn run_from_memory(program: &str) -> Outcome {
    let bytes = fs::read(program).map_err(|error| errno(&error))?;
    let name = CString::from(c"program");
    let fd = call(Sysno::memfd_create as usize, [name.as_ptr() as usize, 0, 0, 0, 0, 0])?;
    let path = format!("/proc/self/fd/{fd}");
    fs::write(&path, bytes).map_err(|error| errno(&error))?;
    let (empty, arguments) = (CString::default(), [name.as_ptr() as usize, 0]);
    let (path, list) = (empty.as_ptr() as usize, arguments.as_ptr() as usize);
    let fd = usize::try_from(fd).unwrap_or_default();
    let Some(child) = raw::fork()? else {
        let failed = call(Sysno::execveat as usize, [fd, path, list, list + size_of::<usize>(), AT_EMPTY_PATH, 0]);
        std::process::exit(failed.err().map_or(0, |errno| errno as i32));
    };
    match waitpid(child, None)? {
        WaitStatus::Exited(_, 0) => Ok(ok()),
        WaitStatus::Exited(_, number) => Err(Errno::from_raw(number)),
        other => Ok(format!("{other:?}")),
    }
}

/// Starts a set-user-id program that waits for its standard input, and says as whom it runs.
pub(crate) fn setuid(program: &str) -> Outcome {
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| errno(&error))?;
    let mut said = "it ended".to_owned();
    for _ in 0..LOOKS {
        let user = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let uid = user.lines().find_map(|line| line.strip_prefix("Uid:"));
        // Real, effective, saved, file system.
        said = uid.and_then(|uid| uid.split_whitespace().nth(1)).map_or(said, |uid| format!("uid {uid}"));
        if said == "uid 0" || child.try_wait().is_ok_and(|ended| ended.is_some()) {
            break;
        }
        pause();
    }
    let _ = (child.kill(), child.wait());
    Ok(said)
}

#[expect(clippy::disallowed_methods, reason = "between two looks at another process")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

//! The thread that answers the kernel and writes down what it asked.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    libc,
};
use p2p_jail::{
    explain::{Listener, Question},
    spec::{Condition, Landlock, Seccomp, Spec, Test},
};

use super::{
    Denials, Denied,
    calls::{PathCall, Want, path_call},
};

/// How long the kernel is waited for until the next look whether the run is over (Linux before 5.9 does not say so).
const PATIENCE: Duration = Duration::from_millis(200);

/// The longest path, its NUL included (`PATH_MAX`).
const MOST_PATH: usize = 4096;

/// The least page size: a path that ends before an unmapped page is read up to it.
const PAGE: usize = 4096;

/// Folders that every task has its own of: what is not there is not for a profile to give.
const NOT_OF_PROFILES: [&str; 2] = ["/proc", "/dev"];

/// Somebody who watches one run.
#[derive(Debug)]
pub struct Witness {
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Denials>,
}

impl Witness {
    /// Begins to answer. `root` is where what the profile shares lies on the host: `/`, or the root file system in use.
    ///
    /// # Errors
    /// No thread can be started. The calls that would have been asked about then fail.
    pub fn start(listener: OwnedFd, spec: &Spec, root: &Path) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let policy = Policy {
            seccomp: spec.confinement.seccomp.clone().unwrap_or_default(),
            landlock: spec.confinement.landlock.clone(),
            writable: spec.watch.tmpfs.clone(),
            root: root.to_owned(),
        };
        let (listener, ends) = (Listener::new(listener), Arc::clone(&over));
        let listen = move || policy.listen(&listener, &ends);
        let thread = thread::Builder::new().name("witness".to_owned()).spawn(listen)?;
        Ok(Self { over, thread })
    }

    /// What was seen, when the run is over. Blocks for at most some hundred milliseconds.
    #[must_use]
    pub fn finish(self) -> Denials {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// What the sandbox decides by.
struct Policy {
    seccomp: Seccomp,
    landlock: Option<Landlock>,
    writable: Vec<PathBuf>,
    root: PathBuf,
}

impl Policy {
    fn listen(&self, listener: &Listener, over: &AtomicBool) -> Denials {
        let mut denials = Denials::default();
        loop {
            match listener.next(PATIENCE) {
                Ok(Some(question)) => self.answer(listener, &question, &mut denials),
                Ok(None) if over.load(Ordering::Relaxed) => return denials,
                Ok(None) => {}
                Err(_) => return denials,
            }
        }
    }

    /// The answer is "go on" for watched calls alone, which are allowed whatever their arguments.
    fn answer(&self, listener: &Listener, question: &Question, denials: &mut Denials) {
        let watched = self.seccomp.explain.as_ref().is_some_and(|explain| explain.watch.contains(&question.number));
        if watched {
            let denied = path_call(question.number).and_then(|call| self.look(listener, question, call));
            listener.go_on(question);
            denied.into_iter().for_each(|denied| denials.add(denied));
        } else if self.seccomp.allow.contains(&question.number) {
            listener.deny(question, Errno::EPERM as i32);
            denials.add(self.argument(question));
        } else {
            listener.deny(question, Errno::ENOSYS as i32);
            denials.add(Denied::Call(question.number));
        }
    }

    fn argument(&self, question: &Question) -> Denied {
        let mut rules = self.seccomp.deny.iter().filter(|rule| rule.syscall == question.number);
        let matching = rules.find(|rule| rule.conditions.iter().all(|condition| holds(condition, question)));
        let argument = matching.and_then(|rule| rule.conditions.first()).map_or(0, |first| first.argument);
        Denied::Argument { call: question.number, argument, value: value(question, argument) }
    }

    /// What the profile denies of the path that the call names, as far as can be seen.
    fn look(&self, listener: &Listener, question: &Question, call: PathCall) -> Option<Denied> {
        let proc = PathBuf::from(format!("/proc/{}", question.thread));
        let path = named(&proc, question, call)?;
        if NOT_OF_PROFILES.iter().any(|folder| path.starts_with(folder)) {
            return None;
        }
        let inside = File::open(proc.join("root")).ok()?;
        // Until here the thread was surely the one that asks, else all this is of somebody else.
        if !listener.waits(question) {
            return None;
        }
        match call.want.of(question) {
            Want::Write => self.written(&inside, path),
            Want::Execute => self.executed(&inside, path),
            Want::Read | Want::Open(_) => self.read(&inside, path, false),
        }
    }

    fn read(&self, inside: &File, path: PathBuf, execute: bool) -> Option<Denied> {
        if find(inside, &path).is_some() {
            return None;
        }
        let outside = below(&self.root, &path);
        fs::symlink_metadata(&outside).ok()?;
        // A link may be there, and what it leads to may not.
        let link = path.parent().and_then(|parent| find(inside, parent)).is_some_and(|real| real == path);
        let path = if link { fs::canonicalize(&outside).ok()? } else { path };
        Some(Denied::Absent { path, execute })
    }

    fn written(&self, inside: &File, path: PathBuf) -> Option<Denied> {
        let parent = path.parent()?;
        let real = find(inside, &path).or_else(|| find(inside, parent));
        match real {
            Some(real) if self.writable.iter().any(|folder| real.starts_with(folder)) => None,
            Some(real) if NOT_OF_PROFILES.iter().any(|folder| real.starts_with(folder)) => None,
            Some(_) => Some(Denied::ReadOnly(path)),
            None => below(&self.root, parent).is_dir().then_some(Denied::ReadOnly(path)),
        }
    }

    fn executed(&self, inside: &File, path: PathBuf) -> Option<Denied> {
        let Some(real) = find(inside, &path) else { return self.read(inside, path, true) };
        let landlock = self.landlock.as_ref()?;
        let granted = landlock.read_execute.iter().any(|folder| real.starts_with(folder));
        (!granted).then_some(Denied::NoExecute(real))
    }
}

impl Want {
    /// Reading or writing, where the flags of open(2) say it.
    fn of(self, question: &Question) -> Self {
        let Self::Open(flags) = self else { return self };
        let writes = u64::from((libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC).cast_unsigned());
        let flags = question.arguments.get(flags).copied().unwrap_or_default();
        if flags & writes == 0 { Self::Read } else { Self::Write }
    }
}

/// The lower half of an argument.
fn value(question: &Question, argument: u8) -> u32 {
    let argument = question.arguments.get(usize::from(argument)).copied().unwrap_or_default();
    u32::try_from(argument & u64::from(u32::MAX)).unwrap_or_default()
}

/// As the filter compares.
fn holds(condition: &Condition, question: &Question) -> bool {
    let value = value(question, condition.argument);
    match condition.test {
        Test::Equal(wanted) => value == wanted,
        Test::NotEqual(unwanted) => value != unwanted,
        Test::BitSet(bit) => value & bit == bit,
    }
}

/// The path that a call names, absolute inside. `None` where it names none, or cannot be read.
fn named(proc: &Path, question: &Question, call: PathCall) -> Option<PathBuf> {
    let argument = |index: usize| question.arguments.get(index).copied();
    let path = string(&proc.join("mem"), argument(call.path)?)?;
    if path.as_os_str().is_empty() {
        return None; // The descriptor itself is meant (AT_EMPTY_PATH).
    }
    if path.is_absolute() {
        return Some(tidy(&path));
    }
    let folder = call.folder.and_then(argument).map(|fd| u32::try_from(fd & u64::from(u32::MAX)).unwrap_or_default());
    let base = match folder.map(u32::cast_signed) {
        Some(fd) if fd != libc::AT_FDCWD => proc.join("fd").join(fd.to_string()),
        _ => proc.join("cwd"),
    };
    let base = fs::read_link(base).ok().filter(|base| base.is_absolute())?;
    Some(tidy(&base.join(path)))
}

/// A string that ends in NUL in the memory of the process.
fn string(memory: &Path, address: u64) -> Option<PathBuf> {
    let memory = File::open(memory).ok()?;
    let mut bytes = Vec::new();
    while bytes.len() < MOST_PATH {
        let from = address.checked_add(bytes.len() as u64)?;
        let mut page = [0u8; PAGE];
        let rest = page.get_mut(..PAGE - usize::try_from(from % PAGE as u64).ok()?)?;
        let read = memory.read_at(rest, from).ok().filter(|read| *read > 0)?;
        let read = rest.get(..read)?;
        if let Some(end) = read.iter().position(|byte| *byte == 0) {
            bytes.extend(read.get(..end)?);
            return Some(PathBuf::from(std::ffi::OsStr::from_bytes(&bytes)));
        }
        bytes.extend(read);
    }
    None
}

/// Without `.` and `..`, taken by the letter: links that lead elsewhere are for [`find`].
fn tidy(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut tidy = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => drop(tidy.pop()),
            Component::Normal(name) => tidy.push(name),
            _ => {}
        }
    }
    tidy
}

/// Where a path leads to inside, if it is there. Nothing is opened but a handle, and nothing outside of that root is reached.
fn find(root: &File, path: &Path) -> Option<PathBuf> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let handle = openat2(root, path, how).ok()?;
    fs::read_link(format!("/proc/self/fd/{}", handle.as_raw_fd())).ok()
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidied() {
        for (path, expected) in [("/a/./b/../c", "/a/c"), ("/../..", "/"), ("//x//", "/x"), ("/", "/")] {
            assert_eq!(tidy(Path::new(path)), Path::new(expected));
        }
    }

    #[test]
    fn strings_are_read_to_their_end_and_not_further() {
        let text = c"/etc/hosts";
        let memory = Path::new("/proc/self/mem");
        assert_eq!(string(memory, text.as_ptr() as u64), Some("/etc/hosts".into()));
        assert_eq!(string(memory, 0), None);
        assert_eq!(string(memory, u64::MAX - 3), None);
        let endless = vec![b'x'; 3 * MOST_PATH];
        assert_eq!(string(memory, endless.as_ptr() as u64), None);
    }

    #[test]
    fn what_is_found_is_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/passwd", root.path().join("up")).unwrap();
        fs::create_dir(root.path().join("x")).unwrap();
        let handle = File::open(root.path()).unwrap();
        assert_eq!(find(&handle, Path::new("/etc/passwd")), None);
        assert_eq!(find(&handle, Path::new("/up")), None);
        assert_eq!(find(&handle, Path::new("/x")), Some(root.path().join("x")));
    }
}

//! What is on this machine that a worker or a task of ours could have left behind.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// How long things may take to go: other programs of this machine make and remove the like meanwhile, and the kernel takes
/// network namespaces apart when it has time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A look at everything, to be compared with a later one.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    folder: PathBuf,
    files: BTreeSet<PathBuf>,
    cgroups: BTreeSet<PathBuf>,
    mounts: BTreeSet<String>,
}

/// What was not there before.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    pub(crate) processes: Vec<String>,
    pub(crate) mounts: Vec<String>,
    pub(crate) cgroups: Vec<PathBuf>,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) networks: usize,
}

impl Leftovers {
    fn is_empty(&self) -> bool {
        let Self { processes, mounts, cgroups, files, networks } = self;
        processes.is_empty() && mounts.is_empty() && cgroups.is_empty() && files.is_empty() && *networks == 0
    }
}

impl Look {
    /// Everything now; `folder` is the world's, by which our processes are known.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), files: files(folder), cgroups: cgroups(), mounts: mounts() }
    }

    /// What is there now beside what was; `spared` are processes that may live.
    pub(crate) fn leftovers(&self, spared: &[u32]) -> Leftovers {
        let waiting: Vec<u32> = spared.iter().flat_map(|worker| waiting(*worker)).collect();
        let ours = processes(&self.folder, &[spared, &waiting].concat());
        let is_waiting = |group: &&PathBuf| {
            let name = group.file_name().and_then(|name| name.to_str()?.strip_prefix("task-")).unwrap_or_default();
            name.split('-').next().and_then(|pid| pid.parse().ok()).is_some_and(|pid| waiting.contains(&pid))
        };
        // The folder of a worker that lives is named after it.
        let lives = |group: &&PathBuf| {
            let name = group.file_name().and_then(|name| name.to_str()?.strip_prefix("p2p-tasks-"));
            let pid = name.and_then(|name| name.split('-').next()?.parse().ok());
            pid.is_some_and(|pid| spared.contains(&pid))
        };
        let left = |group: &&PathBuf| !is_waiting(group) && !lives(group);
        Leftovers {
            networks: networks(&ours),
            processes: ours.into_iter().map(|(pid, line)| format!("{pid} {line}")).collect(),
            mounts: mounts().difference(&self.mounts).cloned().collect(),
            cgroups: cgroups().difference(&self.cgroups).filter(left).cloned().collect(),
            files: files(&self.folder).difference(&self.files).cloned().collect(),
        }
    }

    /// The same, after waiting for it to be nothing, and how long that took.
    pub(crate) async fn settled(&self, spared: &[u32]) -> (Leftovers, Duration) {
        let begin = Instant::now();
        loop {
            let left = self.leftovers(spared);
            if left.is_empty() || begin.elapsed() > PATIENCE {
                return (left, begin.elapsed());
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Processes with the folder's name in their command line or environment: every worker, every jail, every task.
pub(crate) fn processes(folder: &Path, spared: &[u32]) -> Vec<(u32, String)> {
    let name = folder.display().to_string();
    let ours = |pid: u32| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let is_ours = line.contains(&name) || String::from_utf8_lossy(&read("environ")).contains(&name);
        // What has ended and waits to be collected has neither; who should collect it is in the list.
        (is_ours && !spared.contains(&pid) && pid != std::process::id()).then_some((pid, line))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| ours(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// How many network namespaces they are in, ours not counted.
fn networks(processes: &[(u32, String)]) -> usize {
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let own = of("self");
    let all: BTreeSet<_> = processes.iter().filter_map(|(pid, _)| of(&pid.to_string())).collect();
    all.into_iter().filter(|found| Some(found) != own.as_ref()).count()
}

/// How many network namespaces the kernel has, as far as it tells (root, and a kernel that keeps them in a cache of their
/// own): other programs have some too.
pub(crate) fn kernel_networks() -> Option<u64> {
    let slabs = fs::read_to_string("/proc/slabinfo").ok()?;
    let line = slabs.lines().find_map(|line| line.strip_prefix("net_namespace "))?;
    line.split_whitespace().next()?.parse().ok()
}

/// In the world's folder, which is the folder for temporary files too, and what is named like ours where daemons leave things.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    walk(folder, &mut |path| found.insert(path));
    for shared in ["/run", "/dev/shm"] {
        let entries = fs::read_dir(shared).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("p2p-worker")));
    }
    found
}

/// Of a worker's children those that have no task: what sweeps up after it, and the jails that wait for one, with their inits,
/// which have no child as yet. There are few of them, however many tasks there were.
fn waiting(worker: u32) -> Vec<u32> {
    const MOST: usize = 1;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let children = |of: u32| parents.iter().filter(move |(_, parent)| *parent == of).map(|(pid, _)| *pid);
    let mode = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1).map(<[u8]>::to_vec).unwrap_or_default()
    };
    let idle = |monitor: &u32| mode(*monitor) == b"ahead" && children(*monitor).all(|init| children(init).count() == 0);
    let waiting = children(worker).filter(idle).take(MOST).flat_map(|monitor| children(monitor).chain([monitor]));
    waiting.chain(children(worker).filter(|child| mode(*child) == b"sweep").take(1)).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the state and the parent follow.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The groups of tasks, and the folders that workers make them in.
fn cgroups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    walk(Path::new("/sys/fs/cgroup"), &mut |path| {
        if path.is_dir() && path.to_string_lossy().contains("p2p-tasks-") {
            found.insert(path);
        }
        true
    });
    found
}

fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().map(str::to_owned).collect()
}

/// Every file and folder below, no symbolic link followed.
fn walk(folder: &Path, seen: &mut dyn FnMut(PathBuf) -> bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        seen(entry.path());
        if is_folder {
            walk(&entry.path(), seen);
        }
    }
}

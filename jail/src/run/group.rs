//! The control groups of one task: made, entered, read, removed.
//!
//! Everything that is needed later is opened when the group is made, with the rights that this program was started with:
//! the kernel looks at who opened a file of a control group, not at who writes to it (Linux 5.16, and the stable kernels
//! before it). The folder alone belongs to somebody who can remove it afterwards, which the supervisor sees to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::poll::{PollTimeout, poll};

use crate::failure::{At, Failure, Outcome};
use crate::spec::{CgroupVersion, ControlGroup, Controller, Stage};

const STAGE: Stage = Stage::ControlGroup;

/// The time in which the kernel counts how much of a processor was used, in microseconds.
const PERIOD_US: u64 = 100_000;

/// The most that the kernel counts at once, in bytes (a huge page): the limit is reached when less than this is left.
const ONE_CHARGE: u64 = 2 << 20;

/// How often the removal of a group is tried again, a millisecond apart: the last process may not have gone quite.
const MOST_TRIES: u32 = 500;

/// How many names are tried before it is given up to find one for the group.
const MOST_NAMES: u32 = 100;

/// The control groups of one task. Dropped, they are removed; nothing of the task may be left by then.
pub(crate) struct Group {
    version: CgroupVersion,
    limit: u64,
    folders: Vec<PathBuf>,
    controllers: Vec<Controller>,
    joins: Vec<File>,
    files: Files,
}

/// What is read while the task runs and when it has ended.
#[derive(Default)]
struct Files {
    memory_now: Option<File>,
    memory_most: Option<File>,
    memory_events: Option<File>,
    process_events: Option<File>,
    cpu: Option<File>,
    quota: Option<File>,
    kill: Option<File>,
}

/// What the kernel counted of a group's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Bytes now, files that were read included.
    pub(crate) now: u64,
    /// The most bytes until now, where the kernel keeps it.
    pub(crate) most: u64,
    /// Whether the group's own limit left a process without memory.
    pub(crate) full: bool,
    /// Whether the kernel killed a process of the group for want of memory.
    pub(crate) killed: bool,
}

/// A limit to be written: the file, the value, and whether a kernel without the file is as good.
struct Setting {
    file: &'static str,
    value: String,
    optional: bool,
}

impl Group {
    /// Makes the groups and sets their limits.
    pub(crate) fn make(wanted: &ControlGroup) -> Outcome<Self> {
        let mut group = Self {
            version: wanted.version,
            limit: wanted.memory,
            folders: Vec::new(),
            controllers: Vec::new(),
            joins: Vec::new(),
            files: Files::default(),
        };
        for hierarchy in &wanted.hierarchies {
            let folder = new_folder(&hierarchy.parent)?;
            group.folders.push(folder.clone());
            for controller in &hierarchy.controllers {
                for setting in settings(wanted, *controller) {
                    write(&folder, &setting)?;
                }
                group.files.open(wanted.version, *controller, &folder)?;
                group.controllers.push(*controller);
            }
            if wanted.version == CgroupVersion::V2 {
                group.files.cpu = opened(&folder, "cpu.stat", false)?;
                group.files.kill = writable(&folder, "cgroup.kill")?; // Linux 5.14
            }
            let join = folder.join("cgroup.procs");
            let opened = OpenOptions::new().write(true).open(&join);
            group.joins.push(opened.at(STAGE, || format!("opening {}", join.display()))?);
        }
        Ok(group)
    }

    /// A line for the owner.
    pub(crate) fn describe(&self) -> String {
        let name = |controller: &Controller| match controller {
            Controller::Memory => "memory",
            Controller::Processes => "pids",
            Controller::Cpu => "cpu",
            Controller::CpuAccounting => "cpuacct",
        };
        let version = if self.version == CgroupVersion::V1 { 1 } else { 2 };
        format!("cgroup v{version}: {}", self.controllers.iter().map(name).collect::<Vec<_>>().join(", "))
    }

    /// Moves this process into the groups; what it forks is born there.
    pub(crate) fn enter(&self) -> Outcome<()> {
        for (mut join, folder) in self.joins.iter().zip(&self.folders) {
            join.write_all(b"0").at(STAGE, || format!("joining {}", folder.display()))?;
        }
        Ok(())
    }

    /// What the kernel counted of memory; `None` if it does not.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let files = &self.files;
        let now = number(files.memory_now.as_ref()?)?;
        let events = text(files.memory_events.as_ref()?)?;
        let most = files.memory_most.as_ref().and_then(number).unwrap_or(now);
        let full = match self.version {
            CgroupVersion::V2 => value(&events, "oom").unwrap_or(0) > 0,
            // There is no such count, and that of failures stays 0 when it is memory and swap together that fail.
            CgroupVersion::V1 => most.saturating_add(ONE_CHARGE) >= self.limit,
        };
        Some(Memory { now, most, full, killed: value(&events, "oom_kill").unwrap_or(0) > 0 })
    }

    /// Milliseconds of processor time of everything that ever was in the group; `None` if the kernel does not count.
    pub(crate) fn cpu_ms(&self) -> Option<u64> {
        let text = text(self.files.cpu.as_ref()?)?;
        match self.version {
            CgroupVersion::V2 => Some(value(&text, "usage_usec")? / 1000),
            CgroupVersion::V1 => Some(text.trim().parse::<u64>().ok()? / 1_000_000),
        }
    }

    /// How many processes were not made because of the limit.
    pub(crate) fn refused_processes(&self) -> u64 {
        let events = self.files.process_events.as_ref().and_then(text);
        events.and_then(|events| value(&events, "max")).unwrap_or(0)
    }

    /// Whether the kernel itself kills all of the task when one process of it has no memory.
    pub(crate) fn kills_all(&self) -> bool {
        self.version == CgroupVersion::V2
    }

    /// Kills every process in the group, where the kernel can (version 2, Linux 5.14). Its share of the processors is lifted
    /// first: who has used it up would wait for the next period before it dies (before Linux 6.18).
    pub(crate) fn kill(&self) {
        if let Some(mut quota) = self.files.quota.as_ref() {
            let _ = quota.write_all(if self.version == CgroupVersion::V1 { b"-1" } else { b"max" });
        }
        if let Some(mut kill) = self.files.kill.as_ref() {
            let _ = kill.write_all(b"1");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            for _ in 0..MOST_TRIES {
                match fs::remove_dir(folder) {
                    Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                        let _ = poll(&mut [], PollTimeout::from(1u8));
                    }
                    // What cannot be removed now, the supervisor's next start removes.
                    _ => break,
                }
            }
        }
    }
}

impl Files {
    /// What tells how a task fared must be there as much as its limits, or a limit could bite without anybody hearing of it.
    /// What newer kernels alone have may be missing.
    fn open(&mut self, version: CgroupVersion, controller: Controller, folder: &Path) -> Outcome<()> {
        let must = |name: &str| opened(folder, name, false);
        let may = |name: &str| opened(folder, name, true);
        match (version, controller) {
            (CgroupVersion::V2, Controller::Memory) => {
                self.memory_now = must("memory.current")?;
                self.memory_most = may("memory.peak")?; // Linux 5.19
                self.memory_events = must("memory.events")?;
            }
            (CgroupVersion::V1, Controller::Memory) => {
                self.memory_now = must("memory.usage_in_bytes")?;
                self.memory_most = must("memory.max_usage_in_bytes")?;
                self.memory_events = must("memory.oom_control")?;
            }
            (_, Controller::Processes) => self.process_events = must("pids.events")?,
            (CgroupVersion::V1, Controller::CpuAccounting) => self.cpu = must("cpuacct.usage")?,
            (version, Controller::Cpu) => {
                let name = if version == CgroupVersion::V1 { "cpu.cfs_quota_us" } else { "cpu.max" };
                self.quota = writable(folder, name)?;
            }
            (CgroupVersion::V2, Controller::CpuAccounting) => {}
        }
        Ok(())
    }
}

/// A file of the group, to be read.
fn opened(folder: &Path, name: &str, optional: bool) -> Outcome<Option<File>> {
    unless_missing(&folder.join(name), optional, OpenOptions::new().read(true))
}

/// A file of the group, to be written to, where the kernel has it.
fn writable(folder: &Path, name: &str) -> Outcome<Option<File>> {
    unless_missing(&folder.join(name), true, OpenOptions::new().write(true))
}

fn unless_missing(path: &Path, optional: bool, how: &OpenOptions) -> Outcome<Option<File>> {
    match how.open(path) {
        Err(error) if optional && error.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some).at(STAGE, || format!("opening {}", path.display())),
    }
}

/// What the limits come to in the files of one controller, in this order.
fn settings(wanted: &ControlGroup, controller: Controller) -> Vec<Setting> {
    let must = |file, value: String| Setting { file, value, optional: false };
    let may = |file, value: String| Setting { file, value, optional: true };
    let (memory, quota) = (wanted.memory.to_string(), u64::from(wanted.cpus) * PERIOD_US);
    match (wanted.version, controller) {
        (CgroupVersion::V2, Controller::Memory) => vec![
            must("memory.max", memory),
            must("memory.oom.group", "1".to_owned()),
            // Not there on a kernel that has no swap, or does not count it.
            may("memory.swap.max", "0".to_owned()),
        ],
        (CgroupVersion::V1, Controller::Memory) => vec![
            must("memory.limit_in_bytes", memory.clone()),
            // Never swap for want of room in this group.
            may("memory.swappiness", "0".to_owned()),
            may("memory.memsw.limit_in_bytes", memory),
        ],
        (_, Controller::Processes) => vec![must("pids.max", wanted.processes.to_string())],
        (CgroupVersion::V2, Controller::Cpu) => vec![must("cpu.max", format!("{quota} {PERIOD_US}"))],
        (CgroupVersion::V1, Controller::Cpu) => {
            vec![must("cpu.cfs_period_us", PERIOD_US.to_string()), must("cpu.cfs_quota_us", quota.to_string())]
        }
        (_, Controller::CpuAccounting) => Vec::new(),
    }
}

/// Makes a folder that no other task has: named after this process, and with a number if somebody left that behind.
fn new_folder(parent: &Path) -> Outcome<PathBuf> {
    let name = format!("task-{}", std::process::id());
    for number in 0..MOST_NAMES {
        let folder = parent.join(if number == 0 { name.clone() } else { format!("{name}-{number}") });
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).at(STAGE, || format!("making the control group {}", folder.display())),
        }
    }
    Err(Failure::new(STAGE, format!("{MOST_NAMES} control groups named {name} are left in {}", parent.display())))
}

/// Writes a limit. Nothing may be read into a file that is not there: `create` is never said.
fn write(folder: &Path, setting: &Setting) -> Outcome<()> {
    let path = folder.join(setting.file);
    let written = OpenOptions::new().write(true).open(&path).and_then(|mut file| {
        // One write(2): the kernel takes each as a value of its own.
        let length = file.write(setting.value.as_bytes())?;
        if length == setting.value.len() { Ok(()) } else { Err(io::Error::from(ErrorKind::WriteZero)) }
    });
    match written {
        Err(error) if setting.optional && error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.at(STAGE, || format!("writing {:?} to {}", setting.value, path.display())),
    }
}

/// The contents of a small file of the kernel, from its beginning.
fn text(file: &File) -> Option<String> {
    let mut bytes = [0u8; 4096];
    let length = file.read_at(&mut bytes, 0).ok()?;
    String::from_utf8(bytes.get(..length)?.to_vec()).ok()
}

fn number(file: &File) -> Option<u64> {
    text(file)?.trim().parse().ok()
}

/// The value in a line `key value`.
fn value(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key).and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(version: CgroupVersion) -> ControlGroup {
        ControlGroup { version, hierarchies: Vec::new(), memory: 4096, processes: 7, cpus: 2 }
    }

    fn in_words(version: CgroupVersion, controller: Controller) -> Vec<String> {
        let settings = settings(&wanted(version), controller);
        settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    #[test]
    fn limits_come_to_these_files() {
        use CgroupVersion::{V1, V2};
        let memory = ["memory.max=4096", "memory.oom.group=1", "memory.swap.max=0"];
        assert_eq!(in_words(V2, Controller::Memory), memory);
        let memory = ["memory.limit_in_bytes=4096", "memory.swappiness=0", "memory.memsw.limit_in_bytes=4096"];
        assert_eq!(in_words(V1, Controller::Memory), memory);
        assert_eq!(in_words(V2, Controller::Cpu), ["cpu.max=200000 100000"]);
        assert_eq!(in_words(V1, Controller::Cpu), ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=200000"]);
        assert_eq!(in_words(V1, Controller::Processes), ["pids.max=7"]);
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!((value(events, "oom"), value(events, "oom_kill"), value(events, "none")), (Some(3), Some(2), None));
    }
}

//! The limits that are held from outside: when to look next, and what is over.
//!
//! Memory: a task with `c` processors gains at most `c` × 4 GiB in a second (page faults cost more than that), so the next
//! look comes when it could have reached its limit, between 1 ms and 250 ms from now, and not before as much time has passed
//! as the last look took. README.md has measured figures.
//!
//! What cannot be seen this way: what waits in sockets, and memory files or shared memory that are not mapped at the moment. A control group sees these; where there is one, the kernel itself holds the limit, and this
//! only hears of it, in order to end the rest of the task.

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::libc::dev_t;
use nix::sched::sched_getaffinity;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;
use nix::unistd::Pid;

use crate::clock;
use crate::run::census::{Memory, Processes};
use crate::run::group::{Group, Memory as GroupMemory};
use crate::run::kept::Kept;
use crate::spec::{Confinement, MOST_FILE_LOCKS, Stop, Watch as Limits};

/// The most memory that one processor is thought to fill, in bytes per millisecond.
const FILL_RATE: u64 = (4 << 30) / 1000;
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(250);
/// How often a control group is looked at in which the kernel kills one process at a time (version 1): a look reads three
/// small files, so this costs nothing that could be measured.
const GROUP_LOOK: Duration = Duration::from_millis(10);
/// After what time a look that found too much is repeated: a child between vfork and exec has its parent's memory, which
/// then seems to be there twice.
const SECOND_LOOK: Duration = Duration::from_millis(5);

/// Watches one running task.
pub(crate) struct Watch<'a> {
    limits: &'a Limits,
    group: Option<&'a Group>,
    processes: Processes,
    tmpfs: Vec<OwnedFd>,
    cpus: u64,
    began: Duration,
    next: Duration,
    suspected: bool,
    peak: u64,
    cpu_before: u64,
    objects: u64,
    next_objects: Duration,
    full: u64,
}

impl<'a> Watch<'a> {
    /// Begins now.
    pub(crate) fn new(
        limits: &'a Limits,
        group: Option<&'a Group>,
        confinement: &Confinement,
        processes: Processes,
        tmpfs: Vec<OwnedFd>,
    ) -> Self {
        let cpus = if confinement.cpus.is_empty() { available() } else { confinement.cpus.len() as u64 };
        let began = clock::now();
        let cpu_before = group.and_then(Group::cpu_ms).unwrap_or(0);
        Self {
            limits,
            group,
            processes,
            tmpfs,
            cpus,
            began,
            next: began,
            suspected: false,
            peak: 0,
            cpu_before,
            objects: 0,
            next_objects: began + LONGEST,
            full: 0,
        }
    }

    /// Begins to count anew: the command knows now what it is to do.
    pub(crate) fn begin(&mut self) {
        self.cpu_before = self.all_cpu_ms();
        self.began = clock::now();
        (self.next, self.next_objects) = (self.began, self.began + LONGEST);
    }

    /// When to look next, at the latest; `None` for never.
    pub(crate) fn due(&self) -> Option<Duration> {
        let samples = self.limits.memory.is_some() || self.limits.cpu_time_ms.is_some();
        [self.wall_limit(), samples.then_some(self.next)].into_iter().flatten().min()
    }

    /// What is over, if anything is.
    pub(crate) fn look(&mut self) -> Option<Stop> {
        let now = clock::now();
        if self.wall_limit().is_some_and(|limit| now >= limit) {
            return Some(Stop::WallTime);
        }
        if now < self.next {
            return None;
        }
        self.see_full();
        let mut wait = LONGEST;
        if let Some(limit) = self.limits.cpu_time_ms {
            let left = limit.checked_sub(self.cpu_ms()).filter(|left| *left > 0);
            let Some(left) = left else { return Some(Stop::CpuTime) };
            wait = wait.min(Duration::from_millis(left / self.cpus));
        }
        if now >= self.next_objects && self.limits.memory.is_some() {
            if self.count_objects() >= MOST_FILE_LOCKS {
                return Some(Stop::FileLocks);
            }
            self.next_objects = clock::now() + LONGEST.max(clock::now() - now);
        }
        match (self.group.and_then(|group| Some((group, group.memory()?))), self.limits.memory) {
            (Some((group, seen)), _) => {
                self.peak = self.peak.max(seen.most);
                if let Some(stop) = out_of_memory(&seen) {
                    return Some(stop);
                }
                wait = wait.min(if group.kills_all() { LONGEST } else { GROUP_LOOK });
            }
            (None, Some(limit)) => match self.look_at_memory(limit) {
                Ok(reached) => wait = wait.min(reached),
                Err(stop) => return Some(stop),
            },
            (None, None) => {}
        }
        let after = clock::now();
        self.next = after + wait.max(SHORTEST).max(after - now);
        None
    }

    /// Counts what the kernel keeps for the task beside its pages: mappings and what is open, which are memory (a control group
    /// counts those), and locks on files, whose number is returned. Who opens /proc/locks waits for all processors (a grace period
    /// of RCU, as `locks_start` of fs/locks.c takes a `percpu_rwsem` for writing): 8 to 20 ms, in which nothing else is seen. So
    /// this comes seldom, and not when a task begins, which has nothing then.
    fn count_objects(&mut self) -> u64 {
        let pids = self.processes.list();
        if self.group.is_none() {
            let mappings: u64 = pids.iter().map(|pid| self.processes.mappings(*pid)).sum();
            let kept = Kept::of(&self.processes, &pids, &self.limits.tmpfs);
            self.objects = mappings.saturating_mul(BYTES_OF_A_MAPPING).saturating_add(kept);
        }
        self.processes.file_locks(&pids, MOST_FILE_LOCKS)
    }

    /// When the limit could be reached, or that it is.
    fn look_at_memory(&mut self, limit: u64) -> Result<Duration, Stop> {
        let seen = self.memory(limit).and(self.objects);
        self.peak = self.peak.max(seen.probable);
        let left = limit.saturating_sub(seen.probable);
        if seen.certain >= limit || (left == 0 && self.suspected) {
            return Err(Stop::Memory);
        }
        self.suspected = left == 0;
        let reached = Duration::from_millis(left / (FILL_RATE * self.cpus));
        Ok(if self.suspected { SECOND_LOOK } else { reached })
    }

    /// Notes which tmpfs have no room at the moment.
    fn see_full(&mut self) {
        let full = self.tmpfs.iter().zip(0..u64::BITS).filter(|(tmpfs, _)| is_full(tmpfs));
        self.full = full.fold(self.full, |seen, (_, bit)| seen | 1 << bit);
    }

    /// Which tmpfs had no room at any look, this one included: see [`crate::spec::Reached::full_tmpfs`].
    pub(crate) fn full(&mut self) -> u64 {
        self.see_full();
        self.full
    }

    /// Milliseconds since the command was executed.
    pub(crate) fn wall_ms(&self) -> u64 {
        u64::try_from((clock::now() - self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// The most memory seen, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    fn wall_limit(&self) -> Option<Duration> {
        self.limits.wall_time_ms.map(|limit| self.began + Duration::from_millis(limit))
    }

    /// Milliseconds of processor time, of what lives and of what has been waited for.
    pub(crate) fn cpu_ms(&self) -> u64 {
        self.since_it_began(self.all_cpu_ms())
    }

    /// So much processor time without what was used before it began to count.
    pub(crate) fn since_it_began(&self, cpu_ms: u64) -> u64 {
        cpu_ms.saturating_sub(self.cpu_before)
    }

    fn all_cpu_ms(&self) -> u64 {
        if let Some(counted) = self.group.and_then(Group::cpu_ms) {
            return counted;
        }
        let alive: u64 = self.processes.list().into_iter().map(|pid| self.processes.cpu_ms(pid)).sum();
        alive + ended_cpu_ms()
    }

    /// What the task uses now. The page tables are walked only where it matters: that takes milliseconds.
    fn memory(&self, limit: u64) -> Seen {
        let pids = self.processes.list();
        let files = self.tmpfs.iter().map(used).sum::<u64>();
        let mapped: Vec<Memory> = pids.iter().map(|pid| self.processes.mapped(*pid)).collect();
        let largest = mapped.iter().map(|memory| memory.anonymous).max().unwrap_or(0);
        let shared = mapped.iter().map(|memory| memory.shared).max().unwrap_or(0);
        let certain = largest + files.max(shared);
        let sum = total(mapped.into_iter());
        let most = sum.anonymous + sum.shared + files;
        let probable = if certain >= limit || most < limit { most } else { self.exact(&pids, files, limit) };
        Seen { certain, probable }
    }

    /// Counts each page once: those that several processes share, and those of tmpfs files that are mapped as well.
    fn exact(&self, pids: &[i32], files: u64, limit: u64) -> u64 {
        let share = total(pids.iter().map(|pid| self.processes.share(*pid)));
        let (least, most) = (share.anonymous + share.shared.max(files), share.anonymous + share.shared + files);
        if least >= limit || most < limit {
            return if least >= limit { least } else { most };
        }
        let devices: Vec<dev_t> = self.tmpfs.iter().filter_map(|fd| Some(fstat(fd).ok()?.st_dev)).collect();
        let twice: u64 = pids.iter().map(|pid| self.processes.share_of(*pid, &devices)).sum();
        most.saturating_sub(twice)
    }
}

/// Whether the kernel killed a process of the group for want of memory, and whose limit it was.
pub(crate) fn out_of_memory(seen: &GroupMemory) -> Option<Stop> {
    seen.killed.then_some(if seen.full { Stop::Memory } else { Stop::MachineMemory })
}

/// How much memory a task uses.
struct Seen {
    /// At least this: what the largest process has to itself, and the larger of all tmpfs and the most shared memory that one
    /// process has mapped.
    certain: u64,
    /// Each page once, or an upper bound where that is enough to know.
    probable: u64,
}

impl Seen {
    /// With so many bytes more, which are certain.
    fn and(self, more: u64) -> Self {
        Self { certain: self.certain.saturating_add(more), probable: self.probable.saturating_add(more) }
    }
}

/// What the kernel keeps for a mapping (`vm_area_struct` and its place in a tree), rounded up, in bytes. A process can have
/// 65530 of them (`vm.max_map_count`), 16 MiB that no figure of its own memory shows.
const BYTES_OF_A_MAPPING: u64 = 256;

/// Processor time of all children of this process that have ended, and of theirs, in milliseconds.
pub(crate) fn ended_cpu_ms() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return 0 };
    let milliseconds = |time: nix::sys::time::TimeVal| time.tv_sec() * 1000 + time.tv_usec() / 1000;
    u64::try_from(milliseconds(usage.user_time()) + milliseconds(usage.system_time())).unwrap_or(0)
}

/// What the kernel keeps for each file, folder or link of a tmpfs, beside its contents: an inode and a name.
const BYTES_OF_A_FILE: u64 = 1024;

/// The bytes that a memory file system holds, empty files included: not every program that makes containers can limit
/// their number.
fn used(tmpfs: &OwnedFd) -> u64 {
    let Ok(found) = fstatfs(tmpfs) else { return 0 };
    let block = u64::try_from(found.block_size()).unwrap_or(0);
    let contents = found.blocks().saturating_sub(found.blocks_free()).saturating_mul(block);
    contents + found.files().saturating_sub(found.files_free()).saturating_mul(BYTES_OF_A_FILE)
}

/// Whether it takes no other byte, or no other file. One that has no limit on files says that it has none.
fn is_full(tmpfs: &OwnedFd) -> bool {
    let has_no = |all: u64, free: u64| all > 0 && free == 0;
    fstatfs(tmpfs)
        .is_ok_and(|found| has_no(found.blocks(), found.blocks_free()) || has_no(found.files(), found.files_free()))
}

fn total(parts: impl Iterator<Item = Memory>) -> Memory {
    parts.fold(Memory::default(), |sum, part| Memory {
        anonymous: sum.anonymous + part.anonymous,
        shared: sum.shared + part.shared,
    })
}

fn available() -> u64 {
    let set = sched_getaffinity(Pid::from_raw(0));
    let count = set.map_or(1, |set| (0..1024).filter(|cpu| set.is_set(*cpu) == Ok(true)).count());
    count.max(1) as u64
}

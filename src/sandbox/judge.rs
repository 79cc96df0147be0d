//! Comparing what `p2p-jail check` found inside with what the profile says, layer by layer.
//!
//! Each judgement lists what is wrong. Nothing wrong: enforced. For every act that is tried inside it is known what it
//! gives outside (see `p2p-jail`'s `check`), so that an act that fails for another reason is not taken for a denial.

use nix::errno::Errno;
use p2p_jail::spec::{CgroupVersion, Container, Controller, Rlimit, Stage};

use super::{
    ControlGroups, Driver, Enforcement, LaunchPlan, Layer, Machine, Profile, Share, TASK_ID,
    driver::{LIMITS_SIZE, memory_limit},
    facts::Facts,
    fix::landlock as landlock_fix,
    profile::Reach,
    show_bytes, show_duration, uplink,
};

/// What a filter says; no act of the check gives these two without one, except where noted.
const DENIED: [&str; 2] = ["ENOSYS", "EPERM"];

/// Acts that only the filter of system calls stops; outside each gives something else, as root and as an ordinary user.
const CALLS: [&str; 14] = [
    "clone3",
    "ptrace",
    "process_vm_readv",
    "keyctl",
    "io_uring_setup",
    "ioctl TIOCSTI",
    "ioctl TIOCSTI_high",
    "ioctl TIOCLINUX",
    "personality_query",
    "setns",
    "move_mount",
    "x32 getpid",
    "memfd_create",
    "sched_setaffinity",
];

/// Acts that the kernel itself denies to ordinary users with `EPERM`; the filter must deny them as unknown.
const UNKNOWN: [&str; 7] =
    ["mount", "bpf", "perf_event_open", "open_by_handle_at", "userfaultfd", "fanotify_init", "reboot"];

/// What a file gives that is not there, cannot be opened or is empty.
const UNREADABLE: [&str; 3] = ["ENOENT", "EACCES", "0"];

/// The plan, how it went, and what was found inside.
pub(super) struct Judge<'a> {
    pub(super) driver: Driver,
    pub(super) profile: &'a Profile,
    pub(super) machine: &'a Machine,
    pub(super) plan: &'a LaunchPlan,
    pub(super) stages: &'a [(Stage, String)],
    pub(super) shares: &'a [Share],
    pub(super) facts: Facts<'a>,
}

impl Judge<'_> {
    /// Every layer.
    pub(super) fn all(&self) -> Vec<(Layer, Enforcement)> {
        Layer::ALL.into_iter().map(|layer| (layer, self.layer(layer))).collect()
    }

    /// The supervisor's own doing, whatever the driver.
    pub(super) fn output(profile: &Profile) -> Enforcement {
        let (text, result) = (show_bytes(profile.limits.text), show_bytes(profile.limits.result));
        Enforcement::Enforced(format!("{text} of text kept, {result} of result taken"))
    }

    fn layer(&self, layer: Layer) -> Enforcement {
        let (how, wrong) = match layer {
            Layer::Filesystem => self.filesystem(),
            Layer::Network => self.network(),
            Layer::Processes => self.processes(),
            Layer::Ipc => self.ipc(),
            Layer::Syscalls => self.syscalls(),
            Layer::Privileges => self.privileges(),
            Layer::Memory => self.memory(),
            Layer::Cpu => self.cpu(),
            Layer::Pids => self.pids(),
            Layer::Disk => self.disk(),
            Layer::Time => self.time(),
            Layer::Output => return Self::output(self.profile),
        };
        let wrong: Vec<String> = wrong.into_iter().flatten().collect();
        match (wrong.is_empty(), self.goes_without(layer)) {
            (false, _) => Enforcement::Partly(wrong.join("; ")),
            (true, None) => Enforcement::Enforced(how),
            (true, Some(without)) => Enforcement::Reduced(format!("{how}; {without}")),
        }
    }

    fn filesystem(&self) -> (String, Vec<Option<String>>) {
        let read_only = ["EROFS", "EACCES"];
        let mut wrong = vec![
            self.expect("write /", &read_only),
            self.expect("write /usr", &read_only),
            self.expect("write /proc/sys", &["EROFS", "EACCES", "ENOENT"]),
            self.expect("hostname", &["task"]),
            self.expect("fds", &["0,1,2,3"]),
            self.expect("bytes /proc/cmdline", &UNREADABLE),
            self.expect("bytes /proc/keys", &UNREADABLE),
            self.strangers(),
        ];
        let outside = self.plan.spec.command.argv.iter().skip(2);
        wrong.extend(outside.map(|path| self.expect(&format!("read {path}"), &["ENOENT"])));
        let landlock = self.stages.iter().find(|(stage, _)| *stage == Stage::Landlock);
        if self.profile.landlock.required && landlock.is_none() {
            wrong.push(Some("Landlock is not in force".to_owned()));
        }
        let landlock = landlock.map_or_else(String::new, |(_, detail)| format!("; Landlock {detail}{}", self.later()));
        (format!("a root of its own, read-only{landlock}"), wrong)
    }

    /// What the profile does not insist on, and is not there.
    fn goes_without(&self, layer: Layer) -> Option<String> {
        let landlock = self.stages.iter().any(|(stage, _)| *stage == Stage::Landlock);
        if layer != Layer::Filesystem || landlock {
            return None;
        }
        Some(match self.machine.landlock_abi {
            Some(abi) => format!(
                "without Landlock, the second wall: this kernel has ABI {abi}, the profile asks for {}",
                self.profile.landlock.minimum_abi
            ),
            None => format!("without Landlock, the second wall: {}", landlock_fix(Errno::UnknownErrno, self.machine)),
        })
    }

    /// What newer kernels' Landlock would hold too; here namespaces, read-only mounts and seccomp alone do.
    fn later(&self) -> String {
        let abi = self.machine.landlock_abi.unwrap_or_default();
        let later = [(3, "truncation"), (4, "TCP"), (5, "ioctl on devices"), (6, "abstract sockets, signals")];
        let missing: Vec<&str> = later.iter().filter(|(since, _)| abi < *since).map(|(_, what)| *what).collect();
        if missing.is_empty() { String::new() } else { format!(" (not yet: {})", missing.join(", ")) }
    }

    /// Entries of `/` that the plan did not put there.
    fn strangers(&self) -> Option<String> {
        let planned = self.driver.mounts(self.profile, &[], self.machine).unwrap_or_default();
        let first = |path: &std::path::Path| path.iter().nth(1).map(|name| name.to_string_lossy().into_owned());
        let mut planned: Vec<_> = planned.iter().filter_map(|mount| first(super::driver::target(mount))).collect();
        planned.extend(self.shares.iter().filter_map(|share| first(&share.to)));
        planned.push("run".to_owned());
        let found = self.facts.get("entries /").split(',').filter(|name| !name.is_empty());
        let strangers: Vec<&str> = found.filter(|name| !planned.iter().any(|known| known == name)).collect();
        (!strangers.is_empty()).then(|| format!("/ has entries that nobody put there: {}", strangers.join(", ")))
    }

    fn network(&self) -> (String, Vec<Option<String>>) {
        let internet = self.profile.reach == Reach::Internet;
        let families: &[&str] = if internet { &[] } else { &["socket inet", "socket inet6", "connect 127.0.0.1"] };
        let families = families.iter().chain(&["socket netlink", "socket vsock"]);
        let mut wrong: Vec<_> = families.map(|act| self.expect(act, &DENIED)).collect();
        if internet {
            wrong.push(self.expect("connect 127.0.0.1", &["ECONNREFUSED"]));
            wrong.push(self.expect("connect private", &["EHOSTUNREACH"]));
            wrong.push(self.expect("connect private by device", &["EHOSTUNREACH"]));
        }
        let sockets = self.allows("socket") || self.allows("socketpair");
        wrong.push(self.expect("socket unix", if sockets { &["ok"] } else { &["ENOSYS"] }));
        if internet {
            return (format!("a network namespace behind a router of its own and pasta: {}", uplink::IN_WORDS), wrong);
        }
        let sockets = if sockets { "sockets of AF_UNIX only" } else { "no sockets at all" };
        (format!("a network namespace without network; {sockets}"), wrong)
    }

    fn processes(&self) -> (String, Vec<Option<String>>) {
        let few = |key: &str, most: u64| match self.facts.number(key) {
            Some(number) if (1..=most).contains(&number) => None,
            _ => Some(format!("{key} inside: {}", self.facts.get(key))),
        };
        let wrong = vec![few("processes", 4), few("pid", 16), self.expect("ptrace", &DENIED)];
        ("a process namespace of its own; tracing denied".to_owned(), wrong)
    }

    fn ipc(&self) -> (String, Vec<Option<String>>) {
        let shared = ["shmget", "msgget", "semget", "mq_open"].iter().any(|call| self.allows(call));
        let shared = shared.then(|| "System V or POSIX message queues and shared memory are allowed".to_owned());
        let wrong = vec![shared, self.expect("keyctl", &["ENOSYS"]), self.expect("memfd_create", &["ENOSYS"])];
        ("IPC and network namespaces of its own; no queues, semaphores, keyrings".to_owned(), wrong)
    }

    fn syscalls(&self) -> (String, Vec<Option<String>>) {
        let mut wrong: Vec<_> = CALLS.iter().map(|act| self.expect(act, &DENIED)).collect();
        wrong.extend(UNKNOWN.iter().map(|act| self.expect(act, &["ENOSYS"])));
        wrong.push(self.expect("Seccomp", &["2"]));
        let detail = self.stages.iter().find(|(stage, _)| *stage == Stage::Seccomp);
        (format!("seccomp: {}", detail.map_or("no filter reported", |(_, detail)| detail)), wrong)
    }

    fn privileges(&self) -> (String, Vec<Option<String>>) {
        let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
        let mut wrong: Vec<_> = sets.iter().map(|set| self.expect(set, &["0000000000000000"])).collect();
        let id = TASK_ID.to_string();
        wrong.push(self.expect("uid", &[&id]));
        wrong.push(self.expect("gid", &[&id]));
        wrong.push(self.expect("NoNewPrivs", &["1"]));
        wrong.push(self.expect("unshare user", &["ENOSYS", "EPERM", "ENOSPC"]));
        wrong.push(self.expect("clone user", &["ENOSYS", "EPERM", "ENOSPC"]));
        let uid = self.machine.task_user().map_or(0, |user| user.uid);
        (format!("no capabilities, no_new_privs, no user namespaces; uid {uid} of the host"), wrong)
    }

    /// Whether control groups with this controller were in force, as the jail reported.
    fn grouped(&self, controller: Controller) -> Option<&ControlGroups> {
        let reported = self.stages.iter().any(|(stage, _)| *stage == Stage::ControlGroup);
        self.machine.limits.control_groups().filter(|groups| reported && groups.have(controller))
    }

    fn memory(&self) -> (String, Vec<Option<String>>) {
        let total = show_bytes(memory_limit(self.profile, self.machine));
        let each = |limit| show_bytes(self.planned(limit).unwrap_or_default());
        let each = format!(
            "each process: {} of address space, {} of stack, {} open files",
            each(Rlimit::AddressSpace),
            each(Rlimit::Stack),
            self.planned(Rlimit::OpenFiles).unwrap_or_default()
        );
        match self.grouped(Controller::Memory) {
            Some(groups) => {
                // Version 1 can count swap with the memory; that a task asks for it (MADV_PAGEOUT) it cannot forbid.
                let swap = match groups.version {
                    CgroupVersion::V2 => "no swap",
                    CgroupVersion::V1 => "swap counted with it",
                };
                let how = format!("{total} in all, the kernel's for the task included, {swap}, {groups}; {each}");
                (how, self.of_each_process())
            }
            None => {
                let wrong = self.of_each_process().into_iter().chain(self.watched_memory()).collect();
                (format!("{total} in all, watched, what pipes hold included; {each}"), wrong)
            }
        }
    }

    /// What is wrong with the limits of each process on what it can make the kernel keep.
    fn of_each_process(&self) -> Vec<Option<String>> {
        [("as", Rlimit::AddressSpace), ("stack", Rlimit::Stack), ("nofile", Rlimit::OpenFiles)]
            .map(|(name, limit)| self.limited(name, limit))
            .into()
    }

    /// What is wrong with a watch as the only limit: it counts what processes have mapped and what is in tmpfs.
    fn watched_memory(&self) -> Vec<Option<String>> {
        let watched = self.plan.spec.watch.memory == Some(memory_limit(self.profile, self.machine));
        let sockets = self.allows("socketpair") || self.allows("socket");
        vec![
            (!watched).then(|| "memory is not watched".to_owned()),
            // The ways to memory that the watch does not see.
            self.expect("mmap shared anonymous", &["EPERM"]),
            self.expect("open /dev/zero", &["ENOENT", "EACCES"]),
            self.expect("fcntl F_SETPIPE_SZ", &["EPERM"]),
            self.expect("setsockopt SO_SNDBUF", &DENIED),
            sockets.then(|| {
                format!(
                    "what waits in sockets is not counted without control groups ({})",
                    self.machine.limits.obstacle()
                )
            }),
        ]
    }

    fn cpu(&self) -> (String, Vec<Option<String>>) {
        let cpus = self.plan.spec.confinement.cpus.len();
        let found = self.facts.get("cpus");
        let wrong = vec![
            (cpus == 0 || found != cpus.to_string()).then(|| format!("{found} CPUs inside instead of {cpus}")),
            self.expect("sched_setaffinity", &DENIED),
            self.limited("cpu", Rlimit::CpuSeconds),
        ];
        let time = show_duration(self.profile.limits.cpu_time);
        let share = self.grouped(Controller::Cpu).map_or(String::new(), |groups| format!(" and by {groups}"));
        let counted = match self.grouped(Controller::Memory).filter(|groups| groups.count_cpu_time()) {
            Some(groups) => format!("counted by {groups}"),
            None => "watched; children reaped unseen (SIGCHLD ignored) are bounded by wall time".to_owned(),
        };
        (format!("{cpus} CPU by affinity{share}; {time} of its time, {counted}"), wrong)
    }

    fn pids(&self) -> (String, Vec<Option<String>>) {
        let most = u64::from(self.profile.limits.processes);
        let made = self.facts.number("children");
        let bounded = made.is_some_and(|made| (1..most).contains(&made));
        let groups = self.grouped(Controller::Processes);
        let shared = groups.is_none() && !self.machine.kernel_at_least(5, 14);
        let wrong = vec![
            (!bounded).then(|| format!("{} processes could be made, the limit is {most}", self.facts.get("children"))),
            self.limited("nproc", Rlimit::Processes),
            shared.then(|| "before Linux 5.14 all processes of the same user count together".to_owned()),
        ];
        let by = groups.map_or_else(|| "rlimit in its own user namespace".to_owned(), ToString::to_string);
        (format!("{most} processes and threads, {by}; tried"), wrong)
    }

    fn disk(&self) -> (String, Vec<Option<String>>) {
        let external = matches!(self.plan.spec.container, Container::External(_));
        // One byte is none, and no program that collects core dumps is started for it.
        let dumps = self.facts.rlimit("core").is_none_or(|(soft, hard)| soft.max(hard) > 1);
        let dumps = dumps.then(|| "core dumps are written".to_owned());
        let mut wrong = vec![self.limited("fsize", Rlimit::FileSize), dumps];
        for path in ["/tmp", "/dev/shm"] {
            let Some(scratch) = self.profile.scratch.get(std::path::Path::new(path)) else { continue };
            let found = self.facts.space(path);
            let size = found.is_some_and(|(bytes, _)| bytes.abs_diff(scratch.size) < 64 << 10);
            let files = external || found.is_some_and(|(_, files)| files <= scratch.files);
            wrong.push((!size || !files).then(|| self.wrong_size(path)));
        }
        let files = if external { "files without limit of their own count as memory" } else { "files limited" };
        let size = show_bytes(self.planned(Rlimit::FileSize).unwrap_or_default());
        (format!("writes go to memory alone, sizes limited, {files}; {size} each file, no core dumps"), wrong)
    }

    fn wrong_size(&self, path: &str) -> String {
        let old = self.machine.bubblewrap.as_ref().is_some_and(|found| !found.at_least(LIMITS_SIZE.0, LIMITS_SIZE.1));
        if self.driver == Driver::Bubblewrap && old {
            let (major, minor) = LIMITS_SIZE;
            return format!(
                "bubblewrap before {major}.{minor} cannot limit the size of {path} (it counts as memory): apt upgrade, or --sandbox jail"
            );
        }
        format!("{path} has another size than it should: {}", self.facts.get(&format!("space {path}")))
    }

    fn time(&self) -> (String, Vec<Option<String>>) {
        let watched = self.plan.spec.watch.wall_time_ms.is_some();
        let wrong = vec![(!watched).then(|| "nobody watches the clock".to_owned())];
        (
            format!(
                "{} on the clock, then the whole container is killed",
                show_duration(self.profile.limits.wall_time)
            ),
            wrong,
        )
    }

    /// Whether the plan's filter allows this call with any argument at all.
    fn allows(&self, call: &str) -> bool {
        let Some(seccomp) = &self.plan.spec.confinement.seccomp else { return true };
        matches!(super::syscalls::call(call), Ok(super::syscalls::Call::Number(number)) if seccomp.allow.contains(&number))
    }

    /// Complains unless the value is one of those.
    fn expect(&self, key: &str, allowed: &[&str]) -> Option<String> {
        let found = self.facts.get(key);
        let shown = if found.is_empty() { "nothing" } else { found };
        (!allowed.contains(&found)).then(|| format!("{key} gives {shown} instead of {}", allowed.join(" or ")))
    }

    /// Complains unless the limit inside is the planned one, or a lower one that was there before.
    fn limited(&self, name: &str, limit: Rlimit) -> Option<String> {
        let (Some(planned), Some((soft, hard))) = (self.planned(limit), self.facts.rlimit(name)) else {
            return Some(format!("no limit {name}"));
        };
        (soft > planned || hard > planned).then(|| format!("the limit {name} is {soft} ({hard}) instead of {planned}"))
    }

    fn planned(&self, limit: Rlimit) -> Option<u64> {
        let rlimits = &self.plan.spec.confinement.rlimits;
        rlimits.iter().find(|(known, _)| *known == limit).map(|(_, value)| *value)
    }
}

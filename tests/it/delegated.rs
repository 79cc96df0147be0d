//! Control groups that are given to a user, as systemd or another root would: version 2 where it has controllers, else version 1.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command as Program,
    sync::atomic::{AtomicU32, Ordering},
};

const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "cpuacct"];

/// Groups given to a user, removed when dropped.
pub(crate) struct Delegated(Vec<PathBuf>);

impl Delegated {
    /// Made in the group of this process, which is root's.
    pub(crate) fn new(uid: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("p2p-worker-test-{}-{number}-{uid}", std::process::id());
        let second = mount_of("cgroup2", None).filter(|mount| has(&mount.join("cgroup.controllers"), "memory"));
        let made = match second {
            Some(mount) => {
                fs::write(mount.join("cgroup.subtree_control"), "+memory +pids +cpu").unwrap();
                vec![mount.join(&name)]
            }
            None => CONTROLLERS.iter().map(|controller| own_first(controller).join(&name)).collect(),
        };
        for group in &made {
            fs::create_dir_all(group).unwrap();
            if second_version(group) {
                // As systemd marks them.
                let mark = "import os, sys; os.setxattr(sys.argv[1], 'user.delegate', b'1')";
                assert!(Program::new("python3").args(["-c", mark]).arg(group).status().unwrap().success());
            }
            for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                let path = group.join(file);
                if path.exists() {
                    chown(path, Some(uid), Some(uid)).unwrap();
                }
            }
        }
        Self(made)
    }

    /// The folders: one, or one for each controller of version 1.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.0
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for group in &self.0 {
            let _ = fs::remove_dir(group.join("p2p-supervisor"));
            let removed = fs::remove_dir(group);
            if !std::thread::panicking() {
                removed.unwrap_or_else(|error| panic!("{}: {error}", group.display()));
            }
        }
    }
}

fn second_version(group: &Path) -> bool {
    group.join("cgroup.controllers").exists()
}

fn has(file: &Path, word: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_whitespace().any(|known| known == word))
}

/// Where a hierarchy is mounted: of this kind, with this option.
fn mount_of(kind: &str, option: Option<&str>) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let fits = fields[2] == kind && option.is_none_or(|option| fields[3].split(',').any(|known| known == option));
        fits.then(|| PathBuf::from(fields[1]))
    })
}

/// The group of this process in a hierarchy of version 1.
fn own_first(controller: &str) -> PathBuf {
    let mount = mount_of("cgroup", Some(controller)).unwrap_or_else(|| panic!("no {controller} in cgroup v1 or v2"));
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next()?.split(',').any(|name| name == controller).then(|| fields.next()).flatten()
    });
    mount.join(path.unwrap().trim_start_matches('/'))
}

//! Where this process is in the hierarchies of control groups, from `/proc/self`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What `/proc/self/cgroup` and `/proc/self/mountinfo` say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct View {
    hierarchies: Vec<Own>,
}

/// This process in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    /// Empty for version 2.
    controllers: Vec<String>,
    folder: PathBuf,
}

impl View {
    pub(super) fn discover() -> io::Result<Self> {
        let read = |name: &str| fs::read_to_string(Path::new("/proc/self").join(name));
        Ok(Self::parse(&read("cgroup")?, &read("mountinfo")?))
    }

    fn parse(cgroup: &str, mountinfo: &str) -> Self {
        let mounts: Vec<Mounted> = mountinfo.lines().filter_map(Mounted::parse).collect();
        let own = |line: &str| {
            // `id:controllers:path`; the id 0 without controllers is version 2 (cgroups(7)).
            let mut fields = line.splitn(3, ':');
            let (id, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let controllers: Vec<String> =
                names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            let second = id == "0" && controllers.is_empty();
            if !second && controllers.is_empty() {
                return None;
            }
            let same = |mount: &&Mounted| {
                mount.second == second && controllers.iter().all(|name| mount.options.iter().any(|o| o == name))
            };
            let folder = mounts.iter().filter(same).find_map(|mount| mount.place(path))?;
            Some(Own { controllers, folder })
        };
        Self { hierarchies: cgroup.lines().filter_map(own).collect() }
    }

    /// The group of this process in version 2.
    pub(super) fn second(&self) -> Option<&Path> {
        self.hierarchies.iter().find(|own| own.controllers.is_empty()).map(|own| own.folder.as_path())
    }

    /// The group of this process in the hierarchy of version 1 that has this controller.
    pub(super) fn first(&self, controller: &str) -> Option<&Path> {
        let has = |own: &&Own| own.controllers.iter().any(|name| name == controller);
        self.hierarchies.iter().find(has).map(|own| own.folder.as_path())
    }

    /// Whether memory is limited by version 1 on this machine.
    pub(super) fn has_v1_memory(&self) -> bool {
        self.first("memory").is_some()
    }
}

/// A mounted hierarchy.
#[derive(Debug)]
struct Mounted {
    second: bool,
    options: Vec<String>,
    root: PathBuf,
    at: PathBuf,
}

impl Mounted {
    /// A line of mountinfo: `id parent device root point options... - kind source options` (proc_pid_mountinfo(5)).
    fn parse(line: &str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, at) = (front.next()?, front.next()?);
        let mut back = back.split(' ');
        let (kind, options) = (back.next()?, back.nth(1)?);
        let second = match kind {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let options = options.split(',').map(str::to_owned).collect();
        Some(Self { second, options, root: root.into(), at: at.into() })
    }

    /// Where a group is to be found below this mount.
    fn place(&self, group: &str) -> Option<PathBuf> {
        let below = Path::new(group).strip_prefix(&self.root).ok()?;
        // With another namespace of groups, the path may lead out of what is visible.
        let plain = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        // Joining with nothing would leave a slash at the end.
        plain.then(|| if below.as_os_str().is_empty() { self.at.clone() } else { self.at.join(below) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_versions() {
        let mountinfo = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory
41 31 0:38 /box /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:39 / /proc rw - proc proc rw
";
        let cgroup = "9:name=systemd:/x\n4:memory:/a/b\n2:cpuacct,cpu:/\n0::/box/own\n";
        let view = View::parse(cgroup, mountinfo);
        assert_eq!(view.first("memory"), Some(Path::new("/sys/fs/cgroup/memory/a/b")));
        assert_eq!(view.first("cpu"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(view.first("pids"), None);
        assert_eq!(view.second(), Some(Path::new("/sys/fs/cgroup/unified/own")));
    }

    #[test]
    fn what_cannot_be_seen_is_not_there() {
        let mountinfo = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(View::parse("0::/../elsewhere\n", mountinfo).second(), None);
        assert_eq!(View::parse("0::/own\n", "").second(), None);
        assert_eq!(View::parse("nonsense\n1:2\n", "- x\n"), View::default());
    }
}

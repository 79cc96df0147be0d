//! Versions of the kernel, of R and of bubblewrap with well-known holes that a sandbox on top of them should worry about.
//!
//! By version numbers of the originals. Distributions mend holes without a new number, so what is found here is a reason to
//! look for updates, not a proof; and a number that is not here proves nothing either.

use serde::Serialize;

use super::super::{Bubblewrap, Machine, machine::numbers};

/// One known problem of something that is installed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Its name in the CVE list.
    pub id: &'static str,
    /// What has it, with the version.
    pub of: String,
    /// What it is, and whether a task could use it.
    pub what: String,
    /// Whether a task could use it from inside the sandbox, if it is not mended.
    pub reachable: bool,
    /// What to do.
    pub fix: String,
}

/// A hole of the kernel: in which mainline version it came, in which it was mended, and in which release of each long-term
/// branch.
struct Hole {
    id: &'static str,
    what: &'static str,
    since: (u32, u32),
    mended: (u32, u32),
    branches: &'static [(u32, u32, u32)],
    reachable: bool,
}

/// Compiled by hand; where it differs from the CVE entries of cve.org, which name the stable releases, they are right. Left
/// out are holes of drivers and file systems that a task cannot come near.
const HOLES: [Hole; 7] = [
    Hole {
        id: "CVE-2021-22555",
        what: "netfilter, through a user namespace",
        since: (2, 6),
        mended: (5, 12),
        branches: &[(5, 11, 15), (5, 10, 31), (5, 4, 113), (4, 19, 188)],
        reachable: false,
    },
    Hole {
        id: "CVE-2022-0185",
        what: "fsconfig, through a user namespace",
        since: (5, 1),
        mended: (5, 17),
        branches: &[(5, 16, 2), (5, 15, 16), (5, 10, 93), (5, 4, 173)],
        reachable: false,
    },
    Hole {
        id: "CVE-2022-0847",
        what: "\"Dirty Pipe\": writes to files that are only readable, such as the programs in /usr",
        since: (5, 8),
        mended: (5, 17),
        branches: &[(5, 16, 11), (5, 15, 25), (5, 10, 102)],
        reachable: true,
    },
    Hole {
        id: "CVE-2023-0386",
        what: "overlayfs, through a user namespace",
        since: (5, 11),
        mended: (6, 2),
        branches: &[(6, 1, 9), (5, 15, 91)],
        reachable: false,
    },
    Hole {
        id: "CVE-2023-32233",
        what: "nf_tables, through a user namespace",
        since: (3, 13),
        mended: (6, 4),
        branches: &[(6, 3, 2), (6, 2, 15), (6, 1, 28), (5, 15, 111), (5, 10, 180), (5, 4, 243), (4, 19, 283)],
        reachable: false,
    },
    Hole {
        id: "CVE-2023-3269",
        what: "\"StackRot\": memory maps, with calls that every program needs",
        since: (6, 1),
        mended: (6, 5),
        branches: &[(6, 4, 1), (6, 3, 11), (6, 1, 37)],
        reachable: true,
    },
    Hole {
        id: "CVE-2024-1086",
        what: "nf_tables, through a user namespace",
        since: (3, 15),
        mended: (6, 8),
        branches: &[(6, 7, 3), (6, 6, 15), (6, 1, 76), (5, 15, 149), (5, 10, 210), (5, 4, 269), (4, 19, 307)],
        reachable: false,
    },
];

impl Hole {
    fn is_in(&self, (major, minor, patch): (u32, u32, u32)) -> bool {
        let since = (major, minor) >= self.since && (major, minor) < self.mended;
        let branch = self.branches.iter().find(|(a, b, _)| (*a, *b) == (major, minor));
        since && branch.is_none_or(|(_, _, mended)| patch < *mended)
    }
}

/// What is known to be wrong here. `r` is the version of R, where there is one.
pub(super) fn problems(machine: &Machine, r: Option<&str>) -> Vec<Known> {
    let mut found = kernel(machine);
    found.extend(r.and_then(of_r));
    found.extend(machine.bubblewrap.as_ref().and_then(bubblewrap));
    found
}

fn kernel(machine: &Machine) -> Vec<Known> {
    let Some(version) = machine.mainline.or_else(|| numbers(&machine.kernel)) else { return Vec::new() };
    let (major, minor, patch) = version;
    let known = |hole: &Hole| Known {
        id: hole.id,
        of: format!("Linux {major}.{minor}.{patch}"),
        what: format!(
            "{}; {}",
            hole.what,
            if hole.reachable {
                "a task could use it"
            } else {
                "no task can come to it as long as the other layers hold, other programs of this machine can"
            }
        ),
        reachable: hole.reachable,
        fix: "update the kernel and boot again; your distribution may have mended it in this one".to_owned(),
    };
    HOLES.iter().filter(|hole| hole.is_in(version)).map(known).collect()
}

fn of_r(version: &str) -> Option<Known> {
    (numbers(version)? < (4, 4, 0)).then(|| Known {
        id: "CVE-2024-27322",
        of: format!("R {version}"),
        what: "reading an RDS can run code. Here that happens inside the sandbox alone, where code is run anyway; but \
               readRDS() of a result that you saved with -o is outside"
            .to_owned(),
        reachable: false,
        fix: "R 4.4.0 or newer (Debian from 13, Ubuntu from 25.04, or cloud.r-project.org)".to_owned(),
    })
}

fn bubblewrap(found: &Bubblewrap) -> Option<Known> {
    let (major, minor, patch) = found.version;
    found.setuid.then(|| Known {
        id: "CVE-2020-5291",
        of: format!("set-uid bubblewrap {major}.{minor}.{patch}"),
        what: if found.version < (0, 4, 1) {
            "any user of this machine can become root".to_owned()
        } else {
            "this one hole is mended from 0.4.1 on, but a program with root's rights that makes sandboxes is a risk of its \
             own"
            .to_owned()
        },
        reachable: false,
        fix: format!("allow user namespaces, then sudo chmod u-s {}", found.path.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(kernel: &str, mainline: Option<(u32, u32, u32)>) -> Vec<&'static str> {
        let machine = Machine { kernel: kernel.to_owned(), mainline, ..Machine::default() };
        problems(&machine, None).iter().map(|known| known.id).collect()
    }

    #[test]
    fn kernels_are_known_by_the_releases_that_mended_them() {
        assert_eq!(ids("6.18.44", None), Vec::<&str>::new());
        assert_eq!(ids("5.15.24", None), ["CVE-2022-0847", "CVE-2023-0386", "CVE-2023-32233", "CVE-2024-1086"]);
        assert_eq!(ids("5.15.149", None), Vec::<&str>::new());
        assert_eq!(ids("6.1.36", None), ["CVE-2023-3269", "CVE-2024-1086"]);
        // Debian's release has no patch level; what it was made of has.
        assert_eq!(ids("6.1.0-18-amd64", Some((6, 1, 76))), Vec::<&str>::new());
        assert_eq!(ids("6.1.0-9-amd64", Some((6, 1, 27))).len(), 3);
        // A branch that nobody maintained any more when the hole was found.
        assert!(ids("5.14.21", None).contains(&"CVE-2024-1086"));
        assert_eq!(ids("strange", None), Vec::<&str>::new());
    }

    #[test]
    fn r_and_bubblewrap() {
        let of = |r| problems(&Machine::default(), Some(r)).first().map(|known| known.id);
        assert_eq!((of("4.2.2"), of("4.4.0"), of("4.10.1")), (Some("CVE-2024-27322"), None, None));
        let with = |version, setuid| {
            let bubblewrap = Some(Bubblewrap { path: "/usr/bin/bwrap".into(), version, setuid });
            problems(&Machine { bubblewrap, ..Machine::default() }, None)
        };
        assert!(with((0, 4, 0), false).is_empty());
        assert!(with((0, 4, 0), true)[0].what.contains("become root"));
        assert!(with((0, 8, 0), true)[0].fix.contains("chmod u-s /usr/bin/bwrap"));
    }
}

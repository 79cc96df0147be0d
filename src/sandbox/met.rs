//! Limits that a task meets without being stopped: what it is told of them, and which it was seen to reach.
//!
//! Such a limit shows as an error of whoever met it ("No space left on device"), which says neither that it is the
//! worker's nor its value. Two things say so. What the jail saw for sure goes with the result as part of the layers
//! ([`Provenance::note_reached`]). And the R in the task gets the values ([`for_r`]): where its result is an error with the
//! words of such a limit, it adds which one it was, or perhaps was.

use std::path::Path;

use p2p_jail::spec::{Reached, Rlimit};

use super::{Driver, Enforcement, LaunchPlan, Layer, Profile, Provenance, Scratch, show_bytes};

/// What the detail of a layer says when its limit was reached.
const REACHED: &str = "this limit was reached";

/// The limits of a plan that R meets as errors, one in a line: kind, what R can look at to be sure, words for a person.
/// `heap` is what R may have for its objects, in bytes. What the plan does not limit is not in it.
#[must_use]
pub fn for_r(plan: &LaunchPlan, driver: Driver, profile: &Profile, heap: u64) -> String {
    let limits = &profile.limits;
    let limited = |limit| plan.spec.confinement.rlimits.iter().any(|(known, _)| *known == limit);
    let mut lines = vec![line("heap", "", &format!("{} for R's objects", show_bytes(heap)))];
    for path in &plan.spec.watch.tmpfs {
        let words = profile.scratch.get(path).map(|scratch| room(driver, path, scratch));
        lines.extend(words.map(|words| line("room", &path.display().to_string(), &words)));
    }
    let each = [
        (Rlimit::FileSize, "file", limits.file_size, format!("{} for one file", show_bytes(limits.file_size))),
        (Rlimit::OpenFiles, "descriptors", limits.open_files.into(), format!("{} open files", limits.open_files)),
        (
            Rlimit::Processes,
            "processes",
            limits.processes.into(),
            format!("{} processes and threads", limits.processes),
        ),
        (
            Rlimit::AddressSpace,
            "space",
            limits.address_space,
            format!("{} of address space for a process", show_bytes(limits.address_space)),
        ),
    ];
    let each = each.into_iter().filter(|(limit, ..)| limited(*limit));
    lines.extend(each.map(|(_, kind, value, words)| line(kind, &value.to_string(), &words)));
    lines.join("\n")
}

fn line(kind: &str, look_at: &str, words: &str) -> String {
    // The form is the owner's profile's to spoil, not a stranger's; R passes over what is not of it.
    [kind, look_at, words].join("\t")
}

/// How much there is in such a place. Bubblewrap limits the bytes only.
fn room(driver: Driver, path: &Path, scratch: &Scratch) -> String {
    let files = if driver == Driver::Jail { format!(" and {} files", scratch.files) } else { String::new() };
    format!("{}{files} in {}", show_bytes(scratch.size), path.display())
}

impl Provenance {
    /// Notes which limits were reached that leave a task running, as far as the jail saw it.
    pub fn note_reached(&mut self, reached: &Reached, driver: Driver, profile: &Profile) {
        // In the order in which every plan has them to be watched.
        let full = profile.scratch.iter().zip(0..u64::BITS).filter(|(_, bit)| reached.full_tmpfs & (1 << bit) != 0);
        let full: Vec<String> = full.map(|((path, scratch), _)| room(driver, path, scratch)).collect();
        let times = reached.refused_processes;
        self.note(
            Layer::Pids,
            (times > 0)
                .then(|| if times == 1 { format!("{REACHED} once") } else { format!("{REACHED} {times} times") }),
        );
        self.note(Layer::Disk, (!full.is_empty()).then(|| format!("{REACHED}: {}", full.join(", "))));
    }

    fn note(&mut self, layer: Layer, what: Option<String>) {
        let found = self.layers.iter_mut().find(|(known, _)| *known == layer);
        let Some((_, Enforcement::Enforced(detail) | Enforcement::Partly(detail) | Enforcement::Reduced(detail))) =
            found
        else {
            return;
        };
        what.into_iter().for_each(|what| detail.push_str(&format!("; {what}")));
    }

    /// The layers whose limit was reached in a way that leaves the task running, each with its detail.
    pub fn reached(&self) -> impl Iterator<Item = (Layer, &str)> {
        let details = self.layers.iter().map(|(layer, state)| (*layer, state.in_words().1));
        details.filter(|(_, detail)| detail.contains(REACHED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Surroundings;

    fn strict() -> Profile {
        Profile::load("strict", &Surroundings::default()).unwrap()
    }

    #[test]
    fn what_was_seen_is_said_with_its_value_and_nothing_else() {
        let enforced = |layer| (layer, Enforcement::Enforced("held".to_owned()));
        let before = Provenance {
            driver: "jail".to_owned(),
            profile: "strict".to_owned(),
            layers: vec![enforced(Layer::Pids), enforced(Layer::Disk)],
        };
        let after = |reached: Reached, driver| {
            let mut provenance = before.clone();
            provenance.note_reached(&reached, driver, &strict());
            provenance.reached().map(|(layer, detail)| format!("{layer} {detail}")).collect::<Vec<_>>()
        };
        assert_eq!(after(Reached::default(), Driver::Jail), Vec::<String>::new());
        let reached = Reached { refused_processes: 3, full_tmpfs: 0b100 };
        let (pids, disk) = ("pids held; this limit was reached 3 times", "disk held; this limit was reached: 512 MiB");
        assert_eq!(after(reached, Driver::Jail), [pids.to_owned(), format!("{disk} and 20000 files in /tmp")]);
        assert_eq!(after(reached, Driver::Bubblewrap), [pids.to_owned(), format!("{disk} in /tmp")]);
    }
}

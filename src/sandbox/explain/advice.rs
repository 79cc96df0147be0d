//! Denials in words, and as lines of a profile that would allow them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::{Path, PathBuf},
};

use super::{Denials, Denied};
use crate::{
    sandbox::{
        Layer,
        cgroup::Mechanism,
        machine::Machine,
        profile::{EMBEDDED, Profile, unsafe_to_share},
        syscalls,
        units::show_bytes,
    },
    text,
};

/// So many files of one folder are named as the folder.
const MANY: usize = 4;

/// What was denied beyond what R is denied in a run of nothing at all and, where that can be, the profile that would allow it.
/// Ends with a new line; empty if nothing was denied.
#[must_use]
pub fn advise(denials: &Denials, nothing: &Denials, profile: &Profile, machine: &Machine) -> String {
    let mut advice = Advice { profile, machine, lines: Vec::new(), toml: Toml::default(), usual: Vec::new() };
    let (own, usual) = denials.beyond(nothing);
    for denied in usual {
        let (what, _) = advice.words(denied);
        advice.usual.push(what);
    }
    // Only the task's own is to be allowed.
    advice.toml = Toml::default();
    for (denied, count) in gathered(&own, machine) {
        advice.take(&denied, count);
    }
    if advice.unwatched_sockets() {
        advice.toml.required = profile.required.iter().filter(|layer| **layer != Layer::Memory).copied().collect();
    }
    advice.in_words(denials.more)
}

/// The same, with many files of one folder as the folder.
fn gathered(denials: &Denials, machine: &Machine) -> BTreeMap<Denied, u64> {
    let folder = |denied: &Denied| match denied {
        Denied::Absent { path, execute: false } => {
            path.parent().filter(|folder| unsafe_to_share(folder, &machine.surroundings).is_none()).map(Path::to_owned)
        }
        _ => None,
    };
    let mut in_folder = BTreeMap::<PathBuf, usize>::new();
    for path in denials.seen.keys().filter_map(folder) {
        *in_folder.entry(path).or_default() += 1;
    }
    let mut gathered = BTreeMap::new();
    for (denied, count) in &denials.seen {
        let many = folder(denied).filter(|path| in_folder.get(path).is_some_and(|files| *files >= MANY));
        let denied = many.map_or_else(|| denied.clone(), |path| Denied::Absent { path, execute: false });
        *gathered.entry(denied).or_default() += count;
    }
    gathered
}

struct Advice<'a> {
    profile: &'a Profile,
    machine: &'a Machine,
    lines: Vec<String>,
    toml: Toml,
    /// What R is always denied.
    usual: Vec<String>,
}

/// What would have to be in the profile.
#[derive(Default)]
struct Toml {
    /// The layers that can still be required, if not all that are.
    required: Vec<Layer>,
    calls: BTreeSet<String>,
    exceptions: BTreeMap<String, BTreeSet<u32>>,
    read: BTreeMap<PathBuf, bool>,
    scratch: BTreeMap<PathBuf, String>,
}

impl Advice<'_> {
    fn take(&mut self, denied: &Denied, count: u64) {
        let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
        let (what, how) = self.words(denied);
        self.lines.push(format!("{what}, {times}: {how}"));
    }

    /// What it is, and how it was denied; what would allow it is added to the profile.
    fn words(&mut self, denied: &Denied) -> (String, String) {
        match denied {
            Denied::Call(number) => self.call(*number),
            Denied::Argument { call, argument, value } => self.argument(*call, *argument, *value),
            Denied::Absent { path, execute } => (show(path), self.absent(path, *execute)),
            Denied::ReadOnly(path) => (format!("writing {}", show(path)), self.read_only(path)),
            Denied::NoExecute(path) => (format!("executing {}", show(path)), self.no_execute(path)),
        }
    }

    fn call(&mut self, number: i64) -> (String, String) {
        let Some(name) = syscalls::name(number) else {
            return (
                format!("system call {number}"),
                "ENOSYS; it has no name here, no profile can allow it".to_owned(),
            );
        };
        let what = match syscalls::call(&name) {
            Ok(_) => "ENOSYS, it is not on the allow-list".to_owned(),
            Err(error) => format!("ENOSYS; {error}"),
        };
        if syscalls::call(&name).is_ok() {
            self.toml.calls.insert(name.clone());
        }
        (format!("system call {name}"), what)
    }

    fn argument(&mut self, call: i64, argument: u8, value: u32) -> (String, String) {
        let name = syscalls::name(call).unwrap_or_else(|| call.to_string());
        let shown = syscalls::constant_name(&name, value).map_or(String::new(), |name| format!(" ({name})"));
        let what = format!("argument {argument} of {name} = {value:#x}{shown}");
        let rule = self.profile.rules.iter().find(|rule| rule.denies(call, argument, value));
        let Some(rule) = rule else { return (what, "EPERM".to_owned()) };
        let denied = format!("EPERM by the rule {} ({})", rule.name, rule.why);
        if !rule.exceptions {
            return (what, format!("{denied}; no profile can make an exception"));
        }
        if let Some(why) = syscalls::never_excepted(&rule.call, value) {
            return (what, format!("{denied}; no profile can allow this value: {why}"));
        }
        self.toml.exceptions.entry(rule.name.clone()).or_default().insert(value);
        (what, denied)
    }

    fn absent(&mut self, path: &Path, execute: bool) -> String {
        if let Some(why) = unsafe_to_share(path, &self.machine.surroundings) {
            return format!("it is on this machine, not in the sandbox, and can never be shared: {why}");
        }
        let execute = self.toml.read.get(path).is_some_and(|known| *known) || execute;
        if path.to_str().is_some_and(|path| !path.contains(char::is_control)) {
            self.toml.read.insert(path.to_owned(), execute);
        }
        "it is on this machine and not shared with tasks".to_owned()
    }

    fn read_only(&mut self, path: &Path) -> String {
        let folder = path.parent().unwrap_or(path);
        if let Some(shared) = self.profile.read.keys().find(|shared| folder.starts_with(shared)) {
            return format!("no profile can make {} writable; tempdir() and the home folder are", show(shared));
        }
        if folder.parent().is_none() || folder.to_str().is_none_or(|folder| folder.contains(char::is_control)) {
            return "tempdir() and the home folder are writable".to_owned();
        }
        let entry = "size = \"64 MiB\", files = 1000".to_owned();
        self.toml.scratch.insert(folder.to_owned(), entry);
        "only scratch, which is forgotten with the task, can be written".to_owned()
    }

    fn no_execute(&mut self, path: &Path) -> String {
        if let Some((folder, scratch)) = self.profile.scratch.iter().find(|(folder, _)| path.starts_with(folder)) {
            let size = show_bytes(scratch.size);
            let entry = format!("size = \"{size}\", files = {}, execute = true", scratch.files);
            self.toml.scratch.insert(folder.clone(), entry);
            return format!("EACCES, programs in {} are not started", show(folder));
        }
        if let Some((shared, _)) = self.profile.read.iter().find(|(shared, _)| path.starts_with(shared)) {
            self.toml.read.insert(shared.clone(), true);
            return format!("EACCES, {} is shared without the right to execute", show(shared));
        }
        "EACCES, nothing is executed there".to_owned()
    }

    /// Whether the profile would ask for both what only control groups can count and for all of it to be counted.
    fn unwatched_sockets(&self) -> bool {
        let sockets = ["socket", "socketpair"].iter().any(|name| self.toml.calls.contains(*name));
        let watched = matches!(self.machine.limits, Mechanism::Watch { .. });
        sockets && watched && self.profile.required.contains(&Layer::Memory)
    }

    fn in_words(&self, more: u64) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        if !self.lines.is_empty() || more > 0 {
            let _ = writeln!(text, "Denied by the profile {} in this run:", self.profile.name);
        } else if !self.usual.is_empty() {
            let _ = writeln!(text, "The profile {} denied nothing of this code.", self.profile.name);
        }
        for line in &self.lines {
            let _ = writeln!(text, "  {line}");
        }
        if more > 0 {
            let _ = writeln!(text, "  and {more} times something else");
        }
        if !self.usual.is_empty() {
            let usual = self.usual.join(", ");
            let _ = writeln!(text, "R itself does without these, in every run, also of nothing: {usual}");
        }
        let toml = self.toml.write(&self.profile.name);
        if self.unwatched_sockets() {
            let _ = writeln!(
                text,
                "\nWhat waits in sockets is memory that only control groups count, and there are none here ({}); a profile with \
                 sockets cannot require the layer memory.",
                self.machine.limits.obstacle()
            );
        }
        if !toml.is_empty() {
            let _ = write!(
                text,
                "\nThis would allow it. Leave out what you would not give to a stranger, and say why the rest:\n\n{toml}"
            );
        }
        text
    }
}

impl Toml {
    fn write(&self, profile: &str) -> String {
        let Self { required, calls, exceptions, read, scratch } = self;
        let mut out = String::new();
        if calls.is_empty() && exceptions.is_empty() && read.is_empty() && scratch.is_empty() {
            return out;
        }
        let _ = match EMBEDDED.iter().any(|(name, _)| *name == profile) {
            true => writeln!(out, "inherits = {}", quoted(profile)),
            false => writeln!(out, "# added to the profile {profile}:"),
        };
        if !required.is_empty() {
            let names: Vec<String> = required.iter().map(|layer| quoted(&layer.to_string())).collect();
            let _ = writeln!(out, "[layers]\nrequired = [{}]", names.join(", "));
        }
        if !calls.is_empty() {
            let names: Vec<String> = calls.iter().map(|name| quoted(name)).collect();
            let _ = writeln!(out, "[syscalls.allow.mine]\nwhy = \"?\"\nnames = [{}]", names.join(", "));
        }
        for (rule, values) in exceptions {
            let values: Vec<String> = values.iter().map(|value| format!("{value:#x}")).collect();
            let _ = writeln!(out, "[syscalls.except.{rule}]\nwhy = \"?\"\nvalues = [{}]", values.join(", "));
        }
        if !read.is_empty() {
            let _ = writeln!(out, "[files.read]");
        }
        for (path, execute) in read {
            let execute = if *execute { "execute = true, " } else { "" };
            let _ = writeln!(out, "{} = {{ {execute}why = \"?\" }}", quoted(&path.to_string_lossy()));
        }
        if !scratch.is_empty() {
            let _ = writeln!(out, "[scratch]");
        }
        for (path, entry) in scratch {
            let _ = writeln!(out, "{} = {{ {entry}, why = \"?\" }}", quoted(&path.to_string_lossy()));
        }
        out
    }
}

/// As a TOML string. What a task named has no control characters when it comes here, so two escapes are enough.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A path that a task has named, for a terminal.
fn show(path: &Path) -> String {
    text::for_log(&path.to_string_lossy(), 300)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Surroundings;

    fn machine() -> Machine {
        let surroundings = Surroundings { home: Some("/home/alice".into()), state: None };
        Machine { surroundings, ..Machine::default() }
    }

    fn number(name: &str) -> i64 {
        match syscalls::call(name).unwrap() {
            syscalls::Call::Number(number) => number,
            syscalls::Call::Elsewhere => panic!("{name}"),
        }
    }

    fn absent(path: &str) -> Denied {
        Denied::Absent { path: path.into(), execute: false }
    }

    #[test]
    fn nothing_denied_nothing_said() {
        let strict = Profile::load("strict", &machine().surroundings).unwrap();
        assert_eq!(advise(&Denials::default(), &Denials::default(), &strict, &machine()), "");
    }

    #[test]
    fn what_is_advised_is_a_profile_that_allows_it() {
        let surroundings = machine().surroundings;
        let strict = Profile::load("strict", &surroundings).unwrap();
        let mut denials = Denials::default();
        let watch = number("inotify_init1");
        let ioctl = |value| Denied::Argument { call: number("ioctl"), argument: 1, value };
        let mut seen =
            vec![Denied::Call(watch), ioctl(0x5410), absent("/data/genomes"), absent("/opt/odd \"name\" \\")];
        seen.extend(["a", "b", "c", "d"].map(|name| absent(&format!("/srv/many/{name}"))));
        seen.push(Denied::NoExecute("/tmp/a.out".into()));
        seen.push(Denied::ReadOnly("/var/lib/thing/x".into()));
        seen.into_iter().for_each(|denied| denials.add(denied));
        let text = advise(&denials, &Denials::default(), &strict, &machine());
        let (_, toml) = text.split_once("the rest:\n\n").unwrap();
        let mine = Profile::parse("mine", toml, &surroundings).unwrap_or_else(|error| panic!("{error:?}\n{toml}"));
        assert!(mine.seccomp().allow.contains(&watch));
        assert!(!mine.rules.iter().any(|rule| rule.denies(number("ioctl"), 1, 0x5410)));
        assert!(mine.rules.iter().any(|rule| rule.denies(number("ioctl"), 1, 0x5412)));
        for path in ["/data/genomes", "/opt/odd \"name\" \\", "/srv/many"] {
            assert!(mine.read.contains_key(Path::new(path)), "{path}: {toml}");
        }
        assert!(mine.scratch[Path::new("/tmp")].execute && mine.scratch.contains_key(Path::new("/var/lib/thing")));
    }

    #[test]
    fn what_can_never_be_allowed_is_said() {
        let strict = Profile::load("strict", &machine().surroundings).unwrap();
        let argument = |call, argument, value| Denied::Argument { call: number(call), argument, value };
        for (denied, part) in [
            (Denied::Call(syscalls::Sysno::io_uring_setup.id().into()), "can never be allowed"),
            (argument("ioctl", 1, 0x5412), "no profile can allow this value"),
            (argument("clone", 0, 0x1000_0000), "no profile can make an exception"),
            (absent("/home/alice/.ssh/id_ed25519"), "can never be shared: secrets"),
            (absent("/sys/fs/cgroup"), "can never be shared"),
            (Denied::ReadOnly("/usr/lib/R/x".into()), "no profile can make /usr writable"),
            (Denied::ReadOnly("/x".into()), "tempdir()"),
            (absent("/data/a\nb"), "not shared"),
        ] {
            let mut denials = Denials::default();
            denials.add(denied);
            let text = advise(&denials, &Denials::default(), &strict, &machine());
            assert!(text.contains(part) && !text.contains("inherits"), "{text}");
        }
    }

    #[test]
    fn what_r_is_always_denied_is_not_the_codes_doing() {
        let strict = Profile::load("strict", &machine().surroundings).unwrap();
        let mut nothing = Denials::default();
        let socket = Denied::Call(number("socket"));
        [&socket, &socket, &absent("/opt/usual")].into_iter().for_each(|denied| nothing.add(denied.clone()));
        let text = advise(&nothing, &nothing, &strict, &machine());
        let usual = "R itself does without these, in every run, also of nothing: system call socket, /opt/usual\n";
        assert_eq!(text, format!("The profile strict denied nothing of this code.\n{usual}"));
        let mut more = nothing.clone();
        more.add(socket);
        let text = advise(&more, &nothing, &strict, &machine());
        assert!(text.contains("system call socket, once: ") && text.contains("names = [\"socket\"]"), "{text}");
        assert!(text.contains("of nothing: /opt/usual\n") && !text.contains("[files.read]"), "{text}");
    }

    #[test]
    fn memory_is_bounded() {
        let mut denials = Denials::default();
        (0..1000).for_each(|number| denials.add(Denied::Call(number)));
        denials.add(Denied::Call(3));
        assert_eq!((denials.seen.len(), denials.more), (200, 800));
        let strict = Profile::load("strict", &machine().surroundings).unwrap();
        assert!(advise(&denials, &Denials::default(), &strict, &machine()).contains("and 800 times something else"));
    }
}

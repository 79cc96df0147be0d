use p2p_jail::spec::Test;

use super::*;

fn surroundings() -> Surroundings {
    Surroundings { home: Some("/home/alice".into()), state: Some("/home/alice/.local/state/p2p-worker".into()) }
}

fn parse(text: &str) -> Result<Profile, ProfileError> {
    Profile::parse("mine", text, &surroundings())
}

/// The error and its causes, in one line.
fn refused(text: &str) -> String {
    let error = parse(text).expect_err(text);
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn the_embedded_profiles_hold() {
    for (name, _) in EMBEDDED {
        let profile = Profile::load(name, &surroundings()).unwrap();
        assert_eq!(profile.name, name);
        assert!(!profile.summary.is_empty());
        let reasons = profile.read.values().map(|readable| &readable.why);
        let reasons = reasons.chain(profile.scratch.values().map(|scratch| &scratch.why));
        let mut reasons = reasons.chain(profile.calls.iter().map(|group| &group.why));
        assert!(reasons.all(|why| !why.is_empty()));
    }
}

#[test]
fn strict_requires_all_and_standard_most() {
    let strict = Profile::load("strict", &surroundings()).unwrap();
    assert!(Layer::ALL.iter().all(|layer| strict.required.contains(layer)));
    assert!(strict.landlock.required && !strict.without_sandbox);
    let standard = Profile::load("standard", &surroundings()).unwrap();
    let optional: Vec<_> = Layer::ALL.into_iter().filter(|layer| !standard.required.contains(layer)).collect();
    assert_eq!(optional, [Layer::Memory, Layer::Pids, Layer::Disk]);
    let sockets = |profile: &Profile| profile.calls.iter().any(|group| group.names.contains(&"socketpair".to_owned()));
    assert!(sockets(&standard) && !sockets(&strict), "what waits in a socket is not counted");
    let (standard_deny, strict_deny) = (standard.seccomp().deny, strict.seccomp().deny);
    assert!(strict_deny.iter().all(|rule| standard_deny.contains(rule)));
    assert_eq!(standard_deny.len(), strict_deny.len() + 6, "socket, socketpair, four options of setsockopt");
    assert_eq!(standard.read, strict.read);
}

#[test]
fn only_what_differs_is_written() {
    let mine = parse(
        r#"
        inherits = "strict"
        [limits]
        memory = "3 GiB"
        cpus = 2
        [files]
        hide = ["/etc/fonts"]
        [files.read]
        "/data/genomes" = { why = "what we work on" }
        "/home/alice/R/library" = { why = "my packages", execute = true }
        [scratch]
        "/tmp" = { size = "2 GiB", files = 1000, why = "more room" }
        [environment]
        OMP_NUM_THREADS = "2"
        [syscalls.allow.inotify]
        why = "package later watches files"
        names = ["inotify_init1", "inotify_add_watch", "inotify_rm_watch"]
        "#,
    )
    .unwrap();
    let strict = Profile::load("strict", &surroundings()).unwrap();
    assert_eq!((mine.limits.memory, mine.limits.cpus, mine.limits.processes), (3 << 30, 2, strict.limits.processes));
    assert_eq!(mine.scratch[Path::new("/tmp")].size, 2 << 30);
    assert_eq!(mine.scratch.len(), strict.scratch.len());
    assert!(mine.read.contains_key(Path::new("/data/genomes")) && !mine.read.contains_key(Path::new("/etc/fonts")));
    assert_eq!(mine.environment["OMP_NUM_THREADS"], "2");
    assert_eq!(mine.environment["HOME"], "/home/task");
    assert_eq!(mine.seccomp().allow.len(), strict.seccomp().allow.len() + 3);
    assert_eq!(mine.seccomp().deny, strict.seccomp().deny);
}

#[test]
fn the_forms_of_rules() {
    let deny = |form: &str| {
        let rule = format!("[syscalls.rules.x]\nwhy = \"\"\ncall = \"mmap\"\nargument = 2\n{form}");
        let profile = parse(&format!("inherits = \"strict\"\n{rule}")).unwrap();
        let rule = profile.rules.into_iter().find(|rule| rule.name == "x").unwrap();
        let tests = |rule: DenyRule| rule.conditions.into_iter().map(|condition| condition.test).collect::<Vec<_>>();
        rule.deny.into_iter().map(tests).collect::<Vec<_>>()
    };
    assert_eq!(deny("only = [5, 6]"), [[Test::NotEqual(5), Test::NotEqual(6)]]);
    assert_eq!(deny("never = [5, \"F_SETPIPE_SZ\"]"), [[Test::Equal(5)], [Test::Equal(1031)]]);
    assert_eq!(deny("never_bits = [1, 4]"), [[Test::BitSet(1)], [Test::BitSet(4)]]);
    assert_eq!(deny("never_together = [\"MAP_SHARED\", \"MAP_ANONYMOUS\"]"), [[Test::BitSet(1), Test::BitSet(0x20)]]);
}

#[test]
fn typing_errors_are_errors() {
    for (text, part) in [
        ("inherits = \"strict\"\nmemroy = 1", "unknown field `memroy`"),
        ("inherits = \"strict\"\n[limits]\nmemroy = \"1 GiB\"", "unknown field `memroy`"),
        ("inherits = \"strict\"\n[limits]\nmemory = \"1 gigabyte\"", "needs a unit"),
        ("inherits = \"strict\"\n[limits]\nmemory = 5", "invalid type"),
        ("inherits = \"strict\"\n[layers]\nrequired = [\"filesystems\"]", "unknown variant `filesystems`"),
        ("inherits = \"strict\"\n[files.read]\n\"/data\" = { }", "missing field `why`"),
        (
            "inherits = \"strict\"\n[syscalls.allow.x]\nwhy = \"\"\nnames = [\"raed\"]",
            "no system call is named \"raed\"",
        ),
        ("inherits = \"lax\"", "only strict and standard"),
        ("inherits = \"mine\"", "only strict and standard"),
        ("", "inherits is not set"),
        ("inherits = \"strict", "TOML parse error"),
    ] {
        let error = refused(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn contradictions_are_errors() {
    for (text, part) in [
        ("[limits]\nmemory = \"300 MiB\"", "counts as memory and limits.memory is 300 MiB"),
        ("[limits]\nmemory = \"1 MiB\"", "R itself needs that much"),
        ("[limits]\ncpu_time = \"2 h\"", "can never be reached"),
        ("[limits]\nwall_time = \"0 s\"\ncpu_time = \"0 s\"", "at least 1 s"),
        ("[network]\nreach = \"internet\"", "without sockets for it: inherit from \"standard\""),
        ("[limits]\nprocesses = 0", "less than 4"),
        ("[limits]\nresult = \"3 GiB\"", "R makes it in limits.memory"),
        ("[limits]\nstack = \"2 GiB\"", "leaves no room"),
        ("[syscalls.except.nothing]\nwhy = \"\"\nvalues = [1]", "no inherited rule has this name"),
        ("[syscalls.except.clone-namespaces]\nwhy = \"\"\nvalues = [1]", "no exception can be made"),
        ("[syscalls.except.ioctl-requests]\nwhy = \"\"\nvalues = [\"TIOCSTI\"]", "never allowed"),
        ("[syscalls.except.ioctl-requests]\nwhy = \"\"\nvalues = []", "empty"),
        ("[syscalls.except.socket-family]\nwhy = \"\"\nvalues = [16]", "only AF_UNIX, AF_INET"),
        ("[files.read]\n\"/proc/x\" = { from = \"/data\", why = \"\" }", "outside /proc and /dev"),
        ("[files.read]\n\"/x\" = { from = \"/home/alice/.ssh\", why = \"\" }", "secrets"),
        ("[scratch]\n\"/usr/tmp\" = { size = \"1 MiB\", files = 100, why = \"\" }", "lies in /usr"),
        ("[scratch]\n\"/\" = { size = \"1 MiB\", files = 100, why = \"\" }", "not / or /dev itself"),
        ("[scratch]\n\"/x\" = { size = \"0 B\", files = 100, why = \"\" }", "at least 64 KiB"),
        ("[files]\nhide = [\"/etc/nothing\"]", "not shared anyway"),
        ("[files.write]\n\"/usr/x\" = { text = \"\", why = \"\" }", "cover one another"),
        ("[environment]\nLD_PRELOAD = \"/tmp/x.so\"", "what code runs"),
        ("[environment]\n\"A B\" = \"\"", "not a name"),
        (
            "[syscalls.rules.socket-family]\nwhy = \"\"\ncall = \"socket\"\nargument = 0\nonly = [2]",
            "cannot be replaced",
        ),
        ("[syscalls.rules.x]\nwhy = \"\"\ncall = \"socket\"\nargument = 6\nonly = [2]", "arguments 0 to 5"),
        ("[syscalls.rules.x]\nwhy = \"\"\ncall = \"socket\"\nargument = 1", "exactly one"),
        ("[syscalls.rules.x]\nwhy = \"\"\ncall = \"mmap\"\nargument = 3\nonly = [1]\nnever = [2]", "exactly one"),
        ("[syscalls.rules.x]\nwhy = \"\"\ncall = \"mmap\"\nargument = 3\nnever = []", "empty"),
        ("[syscalls.rules.x]\nwhy = \"\"\ncall = \"mmap\"\nargument = 3\nnever_together = [3]", "single bit"),
        ("[syscalls.rules.x]\nwhy = \"\"\ncall = \"socket\"\nargument = 1\nnever_bits = [3]", "single bit"),
        ("[syscalls.rules.x]\nwhy = \"\"\ncall = \"socket\"\nargument = 1\nonly = [\"AF_X\"]", "not a constant"),
        ("[syscalls.allow.x]\nwhy = \"\"\nnames = [\"io_uring_setup\"]", "can never be allowed"),
        ("[syscalls.allow.x]\nwhy = \"\"\nnames = [\"clone3\"]", "can never be allowed"),
    ] {
        let error = refused(&format!("inherits = \"strict\"\n{text}"));
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn what_is_not_safe_is_not_shared() {
    for path in [
        "/",
        "/home",
        "/home/alice",
        "/home/alice/.ssh",
        "/home/alice/.ssh/id_ed25519",
        "/home/alice/.config",
        "/proc",
        "/proc/1",
        "/sys",
        "/dev/sda",
        "/run",
        "/run/docker.sock",
        "/var",
        "/var/run/docker.sock",
        "/tmp",
        "/etc",
        "/etc/shadow",
        "/etc/ssh",
        "/etc/ssl",
        "/home/alice/.local",
        "/home/bob",
        "/home/bob/data",
        "/home/bob/.ssh",
        "/root",
        "/var/lib/docker",
        "/var/lib",
        "/home/alice/.local/state/p2p-worker/key",
        "data",
        "/data/../home",
    ] {
        let error = refused(&format!("inherits = \"strict\"\n[files.read]\n\"{path}\" = {{ why = \"\" }}"));
        assert!(error.contains("cannot be shared with tasks"), "{path}: {error}");
    }
    for path in ["/opt/R/4.5.1", "/home/alice/R/library", "/tmp/data", "/etc/ssl/certs", "/srv/data"] {
        assert_eq!(unsafe_to_share(Path::new(path), &surroundings()), None, "{path}");
    }
    let root = Surroundings { home: Some("/root".into()), state: None };
    for (path, shared) in
        [("/home/bob/data", true), ("/home/bob", false), ("/home/bob/.ssh", false), ("/home", false), ("/root/x", true)]
    {
        assert_eq!(unsafe_to_share(Path::new(path), &root).is_none(), shared, "{path}");
    }
}

#[test]
fn why_a_home_is_not_shared_is_that_it_is_a_home() {
    for (path, why) in [
        ("/home/alice", "it is your home folder; share a folder in it instead"),
        ("/home", "your home folder is in it; share a folder in it instead"),
        ("/home/bob", "it is a home folder; share a folder in it instead"),
        ("/home/alice/.local", "the worker's own keys are in /home/alice/.local/state/p2p-worker"),
    ] {
        assert_eq!(unsafe_to_share(Path::new(path), &surroundings()).as_deref(), Some(why), "{path}");
    }
}

#[test]
fn an_error_names_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    for (text, line, part) in [
        ("inherits = \"strict\"\n\n[limits]\ncpus = 1\nmemory = \"1 MiB\"", 5, "limits.memory = \"1 MiB\""),
        // What is wrong is inherited; the line is that of what made it so.
        ("inherits = \"strict\"\n[limits]\nmemory = \"300 MiB\"", 3, "scratch.\"/tmp\" may hold"),
        (
            "inherits = \"strict\"\n[files.read]\n\"/x\" = { why = \"\" }\n\"/root\" = { why = \"\" }",
            4,
            "/root cannot be",
        ),
        ("inherits = \"strict\"\n[syscalls.allow.x]\nwhy = \"\"\nnames = [\"raed\"]", 2, "syscalls.allow.x"),
        ("inherits = \"standard\"\n[network]\nreach = \"internet\"", 3, "socket-family"),
        ("summary = \"\"\ninherits = \"lax\"", 2, "lax"),
        ("inherits = \"strict\"\n[environment]\nLD_PRELOAD = \"x\"", 3, "LD_PRELOAD"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Profile::load(path.to_str().unwrap(), &surroundings()).unwrap_err().to_string();
        let place = format!("profile mine ({}, line {line}): ", path.display());
        assert!(error.starts_with(&place) && error.contains(part), "{error}");
    }
}

#[test]
fn the_examples_hold() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("sandbox-profiles/examples");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let profile = Profile::load(path.to_str().unwrap(), &surroundings()).unwrap();
        assert_eq!(profile.reach == Reach::Internet, profile.name == "internet");
        names.push(profile.name);
    }
    names.sort();
    assert_eq!(names, ["data", "internet"]);
}

#[test]
fn exceptions_extend_an_inherited_rule() {
    let mine =
        parse("inherits = \"standard\"\n[syscalls.except.socket-family]\nwhy = \"tests\"\nvalues = [\"AF_INET\"]")
            .unwrap();
    let rule = mine.rules.iter().find(|rule| rule.name == "socket-family").unwrap();
    let socket = rule.deny.first().unwrap().syscall;
    assert!(rule.why.ends_with("except: tests"));
    assert!(!rule.denies(socket, 0, 2) && !rule.denies(socket, 0, 1) && rule.denies(socket, 0, 10));
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let load = |path: &Path| Profile::load(path.to_str().unwrap(), &surroundings());
    assert!(matches!(load(&path), Err(ProfileError::NotFound { .. })));
    std::fs::write(&path, "inherits = \"standard\"").unwrap();
    let standard = Profile::load("standard", &surroundings()).unwrap();
    assert_eq!(load(&path).unwrap(), Profile { name: "mine".to_owned(), ..standard });
    std::fs::write(&path, vec![b'#'; 300 << 10]).unwrap();
    assert!(matches!(load(&path), Err(ProfileError::TooLong { .. })));
    std::fs::write(&path, b"\xff").unwrap();
    assert!(matches!(load(&path), Err(ProfileError::Read { .. })));
    let taken = folder.path().join("strict.toml");
    std::fs::write(&taken, "inherits = \"standard\"").unwrap();
    assert!(load(&taken).unwrap_err().to_string().contains("taken"));
}

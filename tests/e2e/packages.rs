//! Real R work runs unhindered under `strict`: with packages from Debian, in the machine's R and in a newer one, and what an
//! allow-list does stop is explained.

mod work;

use std::{fs, process::Output, thread};

use crate::world::{Who, World, stderr, stdout};

use work::{BASE, PACKAGES};

fn exec(world: &World, arguments: &[&str], code: &str) -> Output {
    let code = format!("{code}\ncat('done\\n')");
    world.command(&[&["exec"], arguments, &["-e", &code]].concat()).output().unwrap()
}

/// Each of them, two at a time; those that failed, with what they said.
fn failures(world: &World, arguments: &[&str], work: &[(&str, &str)]) -> Vec<String> {
    let run = |(name, code): &(&str, &str)| {
        let output = exec(world, arguments, code);
        let fine = output.status.success() && stdout(&output).ends_with("done\n");
        (!fine).then(|| format!("{name}: {}{}", stdout(&output), stderr(&output)))
    };
    let halves = work.split_at(work.len() / 2);
    thread::scope(|scope| {
        let first = scope.spawn(|| halves.0.iter().filter_map(run).collect::<Vec<_>>());
        let second: Vec<_> = halves.1.iter().filter_map(run).collect();
        first.join().unwrap().into_iter().chain(second).collect()
    })
}

/// With what the profile gives.
fn with_threads(work: &[(&'static str, &'static str)], threads: &str) -> Vec<(&'static str, String)> {
    work.iter().map(|(name, code)| (*name, code.replace("THREADS", threads))).collect()
}

fn all_succeed(world: &World, arguments: &[&str], work: &[(&str, &str)]) {
    let failures = failures(world, arguments, work);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn r_itself_works_under_strict() {
    all_succeed(&World::new(Who::Ordinary), &["--profile", "strict"], &BASE);
}

#[test]
fn packages_work_under_strict() {
    let world = World::new(Who::Ordinary);
    let work = with_threads(&PACKAGES, "1");
    let work: Vec<_> = work.iter().map(|(name, code)| (*name, code.as_str())).collect();
    all_succeed(&world, &["--profile", "strict"], &work);
}

#[test]
fn threads_take_a_profile_that_gives_them() {
    assert!(thread::available_parallelism().unwrap().get() > 1, "this test takes two CPUs");
    let world = World::new(Who::Ordinary);
    let path = world.folder.path().join("threads.toml");
    let variables =
        ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "R_DATATABLE_NUM_THREADS"].map(|name| format!("{name} = \"2\"\n"));
    let text = format!("inherits = \"strict\"\n[limits]\ncpus = 2\n[environment]\n{}", variables.concat());
    fs::write(&path, text).unwrap();
    let (name, code) = PACKAGES[0];
    all_succeed(&world, &["--profile", path.to_str().unwrap()], &[(name, &code.replace("THREADS", "2L"))]);
}

#[test]
fn it_works_in_bubblewrap_too() {
    let some =
        |name: &&(&str, &str)| ["regular_expressions", "plots_with_fonts", "processes", "forks"].contains(&name.0);
    let packages = with_threads(&PACKAGES, "1");
    let packages = packages.iter().map(|(name, code)| (*name, code.as_str()));
    let work: Vec<(&str, &str)> = BASE.iter().filter(some).copied().chain(packages).collect();
    all_succeed(&World::new(Who::Ordinary), &["--profile", "strict", "--sandbox", "bubblewrap"], &work);
}

#[test]
fn roots_tasks_work_too() {
    let some = |name: &&(&str, &str)| ["rscript_and_r_cmd", "temporary_files", "connections"].contains(&name.0);
    let work: Vec<(&str, &str)> = BASE.iter().filter(some).copied().collect();
    all_succeed(&World::new(Who::Me), &["--profile", "strict"], &work);
}

#[test]
fn a_newer_r_in_a_root_file_system_works() {
    let root = std::env::var("P2P_TEST_ROOT").expect("P2P_TEST_ROOT must be set, see scripts/test-root");
    let world = World::new(Who::Ordinary);
    // That system has neither fonts nor a compiler nor perl's regular tools.
    let without = ["plots_with_fonts", "rscript_and_r_cmd"];
    let work: Vec<(&str, &str)> = BASE.iter().filter(|(name, _)| !without.contains(name)).copied().collect();
    all_succeed(&world, &["--profile", "strict", "--root", &root], &work);
    let versions =
        "cat(paste(R.version$major, packageVersion('future') >= '1.40', !file.exists('/etc/debian_version')))";
    for driver in ["jail", "bubblewrap"] {
        let output = exec(&world, &["--profile", "strict", "--root", &root, "--sandbox", driver], versions);
        assert!(stdout(&output).starts_with("4 TRUE TRUE"), "{output:?}");
    }
    let bare = exec(&world, &["--sandbox", "none", "--root", &root], "1");
    assert_eq!(bare.status.code(), Some(2), "{bare:?}");
    assert!(stderr(&bare).contains("a root file system takes a sandbox"), "{bare:?}");
}

/// What strict denies of each kind, and what it allows.
const DENIED: &str = "print(file.exists('/etc/debian_version'))
    print(suppressWarnings(system('cp /usr/bin/true t && ./t', ignore.stderr = TRUE)))
    print(inherits(try(parallel::makeCluster(1), silent = TRUE), 'try-error'))
    print(file.exists('/etc/shadow')); print(suppressWarnings(file.create('/usr/x'))); print(readLines('/etc/hostname'))";

#[test]
fn what_a_profile_denies_is_explained() {
    for (driver, who) in [("jail", Who::Ordinary), ("jail", Who::Me), ("bubblewrap", Who::Ordinary)] {
        let world = World::new(who);
        let arguments = ["--profile", "strict", "--sandbox", driver];
        let normal = exec(&world, &arguments, DENIED);
        let explained = exec(&world, &[&arguments[..], &["--explain"]].concat(), DENIED);
        let text = stderr(&explained);
        assert_eq!(stdout(&explained), stdout(&normal), "{driver} {who:?}: {text}");
        assert!(stdout(&normal).starts_with("[1] FALSE\n[1] 126\n[1] TRUE\n[1] FALSE\n[1] FALSE\n"), "{normal:?}");
        for part in [
            "explained run",
            "system call socket, ",
            "/etc/debian_version, ",
            "and can never be shared: keys and accounts",
            "writing /usr/x, ",
            "executing /home/task/t, ",
        ] {
            assert!(text.contains(part), "{driver} {who:?}, {part}: {text}");
        }
        assert!(!stderr(&normal).contains("Denied"), "{normal:?}");
        what_is_advised_allows_it(&world, driver, &text);
    }
}

fn what_is_advised_allows_it(world: &World, driver: &str, text: &str) {
    let (_, advice) = text.split_once("why the rest:\n\n").unwrap();
    let toml: String =
        advice.lines().take_while(|line| !line.starts_with("Warning")).map(|line| format!("{line}\n")).collect();
    let path = world.folder.path().join("advised.toml");
    fs::write(&path, toml).unwrap();
    let allowed = exec(world, &["--profile", path.to_str().unwrap(), "--sandbox", driver], DENIED);
    assert!(stdout(&allowed).starts_with("[1] TRUE\n[1] 0\n"), "{driver}: {allowed:?}\n{text}");
}

/// The errors of calls that no task may make, by C code that the future carries with it.
const HOSTILE: &str = r##"Rcpp::cppFunction("IntegerVector errors() {
    long calls[][3] = {{SYS_unshare, 0x10000000, 0}, {SYS_bpf, 0, 0}, {SYS_seccomp, 1, 0}, {SYS_sendmsg, 64, 0},
        {SYS_socket, 1, 1}, {0x40000000 + 39, 0, 0}, {SYS_ioctl, 0, 0x5412}, {SYS_clone, 0x10000011, 0}, {SYS_mmap, 0, 0},
        {SYS_fcntl, 0, 1031}, {SYS_prctl, 4, 0}, {SYS_execveat, -1, 0}, {1000000, 0, 0}};
    IntegerVector errors;
    for (auto& call : calls) {
        long result = syscall(call[0], call[1], call[2], 3, call[0] == SYS_mmap ? 0x21 : 0, 0, 0);
        errors.push_back(result == -1 ? errno : 0);
    }
    return errors;
}", includes = c("#include <sys/syscall.h>", "#include <unistd.h>", "#include <errno.h>"))
cat(errors(), "\n")"##;

#[test]
fn an_explained_run_denies_the_same() {
    for (driver, who) in [("jail", Who::Ordinary), ("bubblewrap", Who::Me)] {
        let world = World::new(who);
        let normal = exec(&world, &["--profile", "strict", "--sandbox", driver], HOSTILE);
        // 38 is ENOSYS, not on the list; 1 is EPERM, a rule about an argument.
        let expected = "38 38 38 38 38 38 1 1 1 1 1 38 38 \ndone\n";
        assert_eq!(stdout(&normal), expected, "{driver} {who:?}: {normal:?}");
        let explained = exec(&world, &["--profile", "strict", "--sandbox", driver, "--explain"], HOSTILE);
        assert_eq!(stdout(&explained), expected, "{driver} {who:?}: {explained:?}");
        for part in [
            "system call unshare, once: ENOSYS; ",
            "argument 1 of ioctl = 0x5412 (TIOCSTI), once: EPERM by the rule ioctl-requests",
        ] {
            assert!(stderr(&explained).contains(part), "{part}: {explained:?}");
        }
    }
}

#[test]
fn nothing_is_explained_without_a_sandbox() {
    let world = World::new(Who::Me);
    let output = exec(&world, &["--explain", "--sandbox", "none"], "1");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("without a sandbox nothing is denied"), "{output:?}");
    let quiet = exec(&world, &["--explain", "--profile", "strict"], "x <- 1");
    assert_eq!((quiet.status.code(), stdout(&quiet).as_str()), (Some(0), "done\n"), "{quiet:?}");
    // R asks for sockets when it starts, and nobody has to allow that.
    assert!(stderr(&quiet).contains("denied nothing of this code"), "{quiet:?}");
    assert!(!stderr(&quiet).contains("inherits"), "{quiet:?}");
    let worker = world.command(&["--explain"]).output().unwrap();
    assert_eq!(worker.status.code(), Some(2), "no worker explains: {worker:?}");
}

#[test]
fn the_examples_can_be_used() {
    let world = World::new(Who::Ordinary);
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sandbox-profiles/examples");
    let data = world.folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("numbers"), "42\n").unwrap();
    let text = fs::read_to_string(examples.join("data.toml")).unwrap();
    let path = world.folder.path().join("data.toml");
    fs::write(&path, text.replace("/srv/data", data.to_str().unwrap())).unwrap();
    let code = "cat(readLines('/data/numbers'), suppressWarnings(file.create('/data/new')), '\\n')";
    for driver in ["jail", "bubblewrap"] {
        let output = exec(&world, &["--profile", path.to_str().unwrap(), "--sandbox", driver], code);
        assert_eq!(stdout(&output), "42 FALSE \ndone\n", "{output:?}");
    }
    let shown = world.command(&["profile", "show", path.to_str().unwrap()]).output().unwrap();
    assert!(
        stdout(&shown).contains(&format!("/data                  read, {} of the host", data.display())),
        "{shown:?}"
    );
    assert!(stdout(&shown).contains("R and its packages"), "{shown:?}");
    assert!(shown.status.success() && stdout(&shown).contains("Network\n  none, not even loopback\n"), "{shown:?}");
    // A profile that cannot be run here is shown as such, with the status that running it would have.
    let socket = world.folder.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (from, why) in
        [("/no/such/data", "does not exist on this machine"), (socket.to_str().unwrap(), "it is a socket")]
    {
        fs::write(&path, text.replace("/srv/data", from)).unwrap();
        let why = format!("{from} {}{why}", if from == "/no/such/data" { "" } else { "cannot be shared with tasks: " });
        let shown = world.command(&["profile", "show", path.to_str().unwrap()]).output().unwrap();
        assert_eq!(shown.status.code(), Some(2), "{shown:?}");
        assert!(stdout(&shown).contains(&format!("This driver cannot run it here: {why}")), "{shown:?}");
        let run = exec(&world, &["--profile", path.to_str().unwrap()], "1");
        assert!(run.status.code() == Some(2) && stderr(&run).contains(&why), "{run:?}");
    }
}

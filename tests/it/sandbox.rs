//! The sandbox on the machine that the tests run on.
//!
//! Nothing is skipped: a machine that cannot enforce `strict` fails these tests, and says why. When the tests are run by
//! root, those of this file are run once more by an ordinary user.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may")]

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    time::Duration,
};

use p2p_jail::spec::{Command, Exit, Stop};
use p2p_worker::sandbox::{
    Driver, Enforcement, Finished, Interpreter, Known, Layer, Machine, Profile, Question, Ready, SandboxError, Share,
    Surroundings, Task, examine, run_to_end, select, show,
};

/// Names the program `p2p-jail` for the run as an ordinary user.
const JAIL: &str = "P2P_WORKER_TEST_JAIL";

/// A user that nobody else uses, so that nobody else's tests can send signals to these.
const ORDINARY: u32 = 61234;

const DRIVERS: [Driver; 2] = [Driver::Jail, Driver::Bubblewrap];

fn known() -> Known {
    let jail = std::env::var_os(JAIL).unwrap_or_else(|| env!("CARGO_BIN_EXE_p2p-jail").into());
    let home = std::env::var_os("HOME").map(PathBuf::from);
    Known {
        jail: Some(jail.into()),
        become_user: None,
        // Those have tests of their own.
        no_control_groups: true,
        surroundings: Surroundings { home, state: None },
        search_path: std::env::var_os("PATH"),
        root: None,
    }
}

fn machine() -> Machine {
    Machine::discover(&known()).unwrap()
}

fn profile(name: &str) -> Profile {
    Profile::load(name, &known().surroundings).unwrap()
}

fn ready(driver: Driver, name: &str) -> Ready {
    select(driver, profile(name), machine(), &[]).unwrap_or_else(|error| panic!("{error}"))
}

fn task(argv: &[&str]) -> Task {
    let argv = argv.iter().map(|&argument| argument.to_owned()).collect();
    let command = Command { argv, environment: Vec::new(), directory: "/tmp".into() };
    Task { command, files: Vec::new(), shares: Vec::new(), slot: 0 }
}

fn rscript(code: &str) -> Task {
    task(&["/usr/bin/Rscript", "--vanilla", "-e", code])
}

fn run(ready: &Ready, task: &Task) -> Finished {
    run_to_end(&ready.plan(task).unwrap(), Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Runs R code in both drivers, and checks how it ends and what it says.
fn in_both(code: &str, exit: Exit, says: &str) {
    for driver in DRIVERS {
        let finished = run(&ready(driver, "strict"), &rscript(code));
        assert_eq!(finished.exit, exit, "{driver}: {}", finished.text);
        assert!(finished.text.contains(says), "{driver}: {}", finished.text);
    }
}

#[test]
fn both_drivers_enforce_every_layer_of_both_profiles() {
    for driver in DRIVERS {
        for name in ["strict", "standard"] {
            for (layer, state) in ready(driver, name).layers() {
                if (name, *layer) == ("standard", Layer::Memory) {
                    let Enforcement::Partly(why) = state else { panic!("{driver}: {state:?}") };
                    assert!(why.starts_with("what waits in sockets is not counted"), "{driver}: {why}");
                    continue;
                }
                assert!(matches!(state, Enforcement::Enforced(_)), "{driver} {name} {layer}: {state:?}");
            }
        }
    }
}

#[test]
fn r_works() {
    in_both("cat(1 + 1, getwd(), Sys.info()[['user']], path.expand('~'))", Exit::Code(0), "2 /tmp task /home/task");
}

#[test]
fn r_can_do_what_packages_need() {
    // A shell, forks, graphics, the BLAS, compiled code, fifo, files of its own.
    let code = "
        stopifnot(system('echo hello', intern = TRUE) == 'hello')
        stopifnot(identical(parallel::mclapply(1:4, function(i) i^2, mc.cores = 2), list(1, 4, 9, 16)))
        png(tempfile()); plot(1); text(1, 1, 'text'); invisible(dev.off())
        pdf(file.path(path.expand('~'), 'plot.pdf')); plot(1); invisible(dev.off())
        stopifnot(all.equal(crossprod(diag(300)), diag(300)))
        saveRDS(mtcars, f <- tempfile()); stopifnot(identical(readRDS(f), mtcars))
        stopifnot(nrow(list.files(R.home('library'), full.names = TRUE) |> file.info()) > 5)
        stopifnot(system('mkfifo /tmp/f') == 0)
        x <- numeric(1e7); setTimeLimit(elapsed = 20); Sys.sleep(0.01)
        stopifnot(nzchar(Sys.time()), is.character(sessionInfo()$running))
        invisible(capabilities()); cat('all of it')";
    in_both(code, Exit::Code(0), "all of it");
}

#[test]
fn the_files_of_the_owner_are_not_there() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir(home.path().join(".ssh")).unwrap();
    let key = home.path().join(".ssh/id_ed25519");
    fs::write(&key, "secret").unwrap();
    let code = format!(
        "unlink(c('~', '{home}', '/tmp', '/usr/lib/R'), recursive = TRUE, force = TRUE); system('rm -rf / 2>/dev/null')
         cat(tryCatch(readLines('{key}'), error = function(e) 'not there', warning = conditionMessage))",
        home = home.path().display(),
        key = key.display()
    );
    in_both(&code, Exit::Code(0), "No such file or directory");
    assert_eq!(fs::read_to_string(&key).unwrap(), "secret");
    assert!(Path::new("/usr/lib/R/library/base").exists());
}

#[test]
fn there_is_no_network() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::net::TcpStream::connect(("127.0.0.1", port)).expect("outside it can be reached");
    let code = format!(
        "s <- tryCatch(socketConnection('127.0.0.1', {port}, open = 'r+', timeout = 2),
            error = function(e) NULL, warning = function(w) NULL)
         cat(if (is.null(s)) 'no network' else 'connected')"
    );
    in_both(&code, Exit::Code(0), "no network");
}

#[test]
fn a_fork_bomb_ends_at_the_limit_of_processes() {
    let code = "
        n <- 0; while (!is.null(tryCatch({ j <- parallel::mcparallel(Sys.sleep(60)); n <- n + 1 },
            error = function(e) NULL, warning = function(w) NULL)) && n < 500) {}
        cat('made', n < 64)";
    in_both(code, Exit::Code(0), "made TRUE");
}

#[test]
fn a_memory_bomb_is_stopped() {
    // One vector is too much for the address space; many processes with a little each are too much for the watch.
    in_both("tryCatch(numeric(1e10), error = function(e) cat(conditionMessage(e)))", Exit::Code(0), "cannot allocate");
    let grow = "
        for (i in 1:30) parallel::mcparallel({ x <- list(); repeat { x <- c(x, list(rep(1, 1e6))); Sys.sleep(0.005) } })
        Sys.sleep(60)";
    let files = "repeat for (i in 1:1e6) file.create(sprintf('/dev/shm/%d', i))";
    for driver in DRIVERS {
        let mut profile = profile("strict");
        profile.limits.memory = 700 << 20;
        let ready = select(driver, profile, machine(), &[]).unwrap();
        assert_eq!(run(&ready, &rscript(grow)).stopped, Some(Stop::Memory), "{driver}");
    }
    // bubblewrap cannot limit the number of files, so they count.
    let mut profile = profile("strict");
    profile.limits.memory = 300 << 20;
    let ready = select(Driver::Bubblewrap, profile, machine(), &[]).unwrap();
    assert_eq!(run(&ready, &rscript(files)).stopped, Some(Stop::Memory));
}

/// The program of `unseen_memory.c`, compiled into a folder that can be shared.
fn unseen_memory() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (source, program) = (folder.path().join("unseen.c"), folder.path().join("unseen"));
    fs::write(&source, include_str!("unseen_memory.c")).unwrap();
    let compiled = std::process::Command::new("cc").arg("-o").arg(&program).arg(&source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn memory_that_the_watch_cannot_see_is_not_to_be_had() {
    let folder = unseen_memory();
    let outside = std::process::Command::new(folder.path().join("unseen")).output().unwrap();
    let outside = String::from_utf8(outside.stdout).unwrap();
    assert_eq!(outside, "private ok\nshared ok\nread-only ok\nzero ok\npipe ok\nsocket ok\nbuffer ok\n");
    let share = Share { from: folder.path().to_owned(), to: "/data/unseen".into(), execute: true };
    let memory = "private ok\nshared EPERM\nread-only EPERM\nzero ENOENT\npipe EPERM\n";
    for driver in DRIVERS {
        for (name, sockets) in [("strict", "socket ENOSYS\nbuffer ENOSYS\n"), ("standard", "socket ok\nbuffer EPERM\n")]
        {
            let ready = select(driver, profile(name), machine(), std::slice::from_ref(&share)).unwrap();
            let mut task = task(&["/data/unseen/unseen"]);
            task.shares = vec![share.clone()];
            let finished = run(&ready, &task);
            assert_eq!(finished.text, format!("{memory}{sockets}"), "{driver} {name}");
        }
    }
}

#[test]
fn endless_loops_end() {
    for driver in DRIVERS {
        let mut profile = profile("strict");
        profile.limits.cpu_time = Duration::from_secs(1);
        let ready = select(driver, profile.clone(), machine(), &[]).unwrap();
        assert_eq!(run(&ready, &rscript("repeat {}")).stopped, Some(Stop::CpuTime), "{driver}");
        profile.limits.wall_time = Duration::from_secs(1);
        let ready = select(driver, profile, machine(), &[]).unwrap();
        let asleep = "system('trap \"\" TERM INT HUP; setsid sleep 600 & sleep 600')";
        assert_eq!(run(&ready, &rscript(asleep)).stopped, Some(Stop::WallTime), "{driver}");
    }
}

#[test]
fn none_is_no_sandbox_and_is_refused_by_strict() {
    let refused = select(Driver::None, profile("strict"), machine(), &[]).unwrap_err();
    assert!(matches!(refused, SandboxError::WithoutSandbox { .. }), "{refused}");
    let ready = ready(Driver::None, "standard");
    // The positive control of the tests above: without a sandbox, the files of the owner are there.
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::set_permissions(secret.path(), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(secret.path(), "secret").unwrap();
    let script = format!("cat(readLines('{}', warn = FALSE), path.expand('~'), '\\n')", secret.path().display());
    let mut task = task(&["/usr/lib/R/bin/exec/R", "--vanilla", "--no-echo", "--file=/run/p2p/script.R"]);
    task.command.environment = vec![("R_HOME".to_owned(), "/usr/lib/R".to_owned())];
    task.files = vec![("/run/p2p/script.R".into(), script.into_bytes())];
    let finished = run(&ready, &task);
    assert!(finished.text.starts_with("secret /"), "{}", finished.text);
    assert!(!finished.text.contains(" /home/task "), "home is translated: {}", finished.text);
    let enforced: Vec<Layer> = ready
        .layers()
        .iter()
        .filter_map(|(layer, state)| matches!(state, Enforcement::Enforced(_)).then_some(*layer))
        .collect();
    assert_eq!(enforced, [Layer::Time, Layer::Output]);
}

#[test]
fn what_is_missing_is_named_with_its_fix() {
    let without = |change: fn(&mut Machine)| {
        let mut machine = machine();
        change(&mut machine);
        machine
    };
    let no_bubblewrap = without(|machine| machine.bubblewrap = None);
    let error = select(Driver::Bubblewrap, profile("strict"), no_bubblewrap, &[]).unwrap_err();
    assert!(error.is_not_enforced() && error.to_string().contains("apt install bubblewrap"), "{error}");

    let old = without(|machine| machine.kernel = "5.10.0-8-amd64".to_owned());
    let error = select(Driver::Jail, profile("strict"), old.clone(), &[]).unwrap_err();
    assert!(error.to_string().contains("pids partly: before Linux 5.14"), "{error}");
    select(Driver::Jail, profile("standard"), old, &[]).expect("standard does not require it");

    let mut newer = profile("strict");
    newer.landlock.minimum_abi = 1000;
    let error = select(Driver::Jail, newer.clone(), machine(), &[]).unwrap_err();
    assert!(error.to_string().contains("Landlock ABI"), "{error}");
    newer.landlock.required = false;
    newer.required.clear();
    select(Driver::Jail, newer, machine(), &[]).expect("then it is left out");
}

#[test]
fn a_hole_in_the_plan_is_seen_by_the_probe() {
    // Each hole is made in the profile that is probed, and the probe must find that the layer does not hold.
    let holes = [
        (Layer::Network, "standard", "socket-family"),
        (Layer::Syscalls, "strict", "ioctl-requests"),
        (Layer::Memory, "strict", "mmap-shared-anonymous"),
        (Layer::Memory, "strict", "pipe-size"),
    ];
    for driver in DRIVERS {
        for (layer, name, hole) in &holes {
            let mut profile = profile(name);
            profile.rules.retain(|rule| rule.name != *hole);
            let error = select(driver, profile, machine(), &[]).unwrap_err();
            let SandboxError::NotEnforced { missing, .. } = &error else { panic!("{error}") };
            assert_eq!(missing.iter().map(|(layer, _)| *layer).collect::<Vec<_>>(), [*layer], "{driver}: {error}");
        }
    }
}

#[test]
fn doctor_and_show_tell_what_holds() {
    let question = Question {
        driver: Driver::Jail,
        profile: profile("strict"),
        shares: Vec::new(),
        r: Ok(Interpreter { version: "4.4.1".to_owned(), future: "1.40.0".to_owned() }),
    };
    let doctor = examine(machine(), &question).unwrap();
    let text = doctor.render();
    assert!(doctor.is_enforced() && doctor.verdict.strict_runs, "{text}");
    assert!(text.lines().count() <= 40 && text.starts_with("YES"), "{text}");
    // Each limit that a profile has is there.
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for limit in [
        "in all, ",
        "2 GiB of address space",
        "8 MiB of stack",
        "256 open files",
        "512 MiB each file",
        "no core dumps",
        "64 processes",
        "1 CPU by",
        "30 min of its time",
        "30 min on the clock",
        "1 MiB of text",
        "256 MiB of result",
    ] {
        assert!(words.contains(limit), "{limit}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let json: serde_json::Value = serde_json::from_str(&doctor.to_json().unwrap()).unwrap();
    assert_eq!(json["drivers"][0]["driver"], "jail");
    let mut machine = machine();
    let strict = profile("strict");
    machine.look_for(&strict);
    let shares = [Share::same(Path::new("/opt"), true)];
    machine.look([Path::new("/opt")]);
    for driver in Driver::ALL {
        let shown = show(&strict, driver, &machine, &shares);
        assert!(shown.refused.is_none(), "{shown:?}");
        let shown = shown.text;
        assert_eq!(shown.contains("/opt  "), driver != Driver::None, "{shown}");
        assert!(shown.contains(driver.name()) && shown.contains("wall_time"), "{shown}");
        println!("{shown}");
    }
    println!("{text}");
}

#[test]
fn a_share_is_there_and_read_only() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(folder.path().join("data"), "shared").unwrap();
    let share = Share { from: folder.path().to_owned(), to: "/data/shared".into(), execute: false };
    for driver in DRIVERS {
        let ready = select(driver, profile("strict"), machine(), std::slice::from_ref(&share)).unwrap();
        let mut task = rscript("cat(readLines('/data/shared/data', warn = FALSE), file.create('/data/shared/new'))");
        task.shares = vec![share.clone()];
        let finished = run(&ready, &task);
        assert!(finished.text.contains("shared FALSE"), "{driver}: {}", finished.text);
    }
    assert!(!folder.path().join("new").exists());
}

#[test]
fn all_of_it_holds_for_an_ordinary_user_too() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = |from: &Path, name: &str| {
        let to = folder.path().join(name);
        fs::copy(from, &to).unwrap();
        to
    };
    let tests = copy(&std::env::current_exe().unwrap(), "tests");
    let jail = copy(known().jail.as_deref().unwrap(), "p2p-jail");
    let status = std::process::Command::new(tests)
        .args(["sandbox::", "--test-threads=2"])
        .env_clear()
        .env(JAIL, jail)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .current_dir("/")
        .uid(ORDINARY)
        .gid(ORDINARY)
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
}

/// Where nobody answers the kernel, the calls that it asks about fail, and with them the first exec.
#[test]
fn without_its_witness_an_explained_task_does_not_start() {
    for driver in DRIVERS {
        let ready = select(driver, profile("strict"), machine(), &[]).unwrap();
        let plan = ready.plan(&rscript("cat('ran')")).unwrap();
        assert_eq!(plan.spec.confinement.seccomp.as_ref().unwrap().explain, None, "nobody gets it unasked");
        let refused = p2p_worker::sandbox::run_to_end(&plan.explained().unwrap(), std::time::Duration::from_secs(60));
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("execve") && error.contains("Function not implemented"), "{driver}: {error}");
    }
    let bare = select(Driver::None, profile("standard"), machine(), &[]).unwrap();
    assert_eq!(bare.plan(&rscript("1")).unwrap().explained(), None);
}

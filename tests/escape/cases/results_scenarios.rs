//! Cases 68, 76 to 78 and 80 to 84: what is around a result: files, names, other tasks, the supervisor, the layers.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock},
};

use super::helpers::{
    Told, changed, eventually, expect, marker, no_process_with, open_folder, processes_with, public, rscript,
    worker_below,
};
use crate::world::{Driver, Place, Ran, quoted};

/// 68: whatever lies where the owner wants the result, the result replaces it, or nothing happens; it is never written through.
pub(super) fn output_file(place: &Place<'_>) -> Told {
    let folder = open_folder(place, &format!("output-{}", marker(place, 68)));
    let victim = folder.join("victim");
    fs::write(&victim, "untouched").unwrap();
    let refused = |path: &Path| {
        let ran = place.exec("'fine'", &["--output", &path.display().to_string()]);
        expect(&ran, 2, &[], &["is there already"])
    };
    let to = |path: &Path| place.exec("'fine'", &["--force", "--output", &path.display().to_string()]);
    let untouched =
        || if fs::read(&victim).unwrap() == b"untouched" { Ok(()) } else { Err("a link was followed".to_owned()) };
    let link = folder.join("link.rds");
    symlink(&victim, &link).unwrap();
    refused(&link)?;
    untouched()?;
    if !fs::symlink_metadata(&link).unwrap().is_symlink() {
        return Err("what was there is gone, and nobody said --force".to_owned());
    }
    expect(&to(&link), 0, &[], &[])?;
    untouched()?;
    if !fs::symlink_metadata(&link).unwrap().is_file() {
        return Err("the link is there still".to_owned());
    }
    static ONCE: OnceLock<Told> = OnceLock::new();
    let others = || {
        let (hard, fifo, socket) = (folder.join("hard.rds"), folder.join("fifo.rds"), folder.join("socket.rds"));
        fs::hard_link(&victim, &hard).unwrap();
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let _listening = UnixListener::bind(&socket).unwrap();
        for path in [&hard, &fifo, &socket] {
            refused(path)
                .and_then(|()| expect(&to(path), 0, &[], &[]))
                .map_err(|error| format!("{}: {error}", path.display()))?;
            untouched()?;
        }
        expect(&to(&folder), 2, &[], &["cannot"])
    };
    ONCE.get_or_init(others).clone()
}

/// Futures with names that no board line, path or option should meet: files, and what is wrong with the names.
fn misnamed(place: &Place<'_>) -> &'static [(PathBuf, &'static str)] {
    static FILES: OnceLock<Vec<(PathBuf, &'static str)>> = OnceLock::new();
    let names = [
        ("\"../../etc/passwd\"", "cannot contain"),
        ("\"a\\nid=b,type=accept\"", "cannot contain"),
        ("\"\\033]0;title\\007\"", "cannot contain"),
        ("strrep(\"x\", 4096)", "1 to 128 characters"),
        ("\"\"", "it has no uuid"),
        ("\"--profile=none,x\"", "cannot contain"),
    ];
    FILES.get_or_init(|| {
        let future = place.world.future("cat('evaluated\\n')");
        let folder = open_folder(place, "misnamed");
        let path = |at: usize| folder.join(format!("{at}.rds"));
        let saves = names.iter().enumerate().map(|(at, (name, _))| {
            format!("f$uuid <- {name}; saveRDS(f, {}, compress = FALSE); ", quoted(path(at).display()))
        });
        rscript(&format!("f <- readRDS({}); {}", quoted(future.display()), saves.collect::<String>())).unwrap();
        let files = names.iter().enumerate().map(|(at, (_, wrong))| (path(at), *wrong));
        files.inspect(|(path, _)| public(path, &fs::read(path).unwrap())).collect()
    })
}

/// 76: names of futures, here; names of files, once.
pub(super) fn names(place: &Place<'_>) -> Told {
    static ONCE: OnceLock<Told> = OnceLock::new();
    let refused = |(path, wrong): &(PathBuf, &str)| {
        let ran = Ran::of(&place.exec_command(path, &[]).output().unwrap());
        let said = format!("{}{}", ran.stdout, ran.stderr);
        if said.contains("evaluated") || said.contains('\u{1b}') {
            return Err(format!("it ran, or its name was printed as it is: {said:?}"));
        }
        expect(&ran, 2, &[], &[wrong])
    };
    let files = misnamed(place);
    let turn = place.to_string().len() % files.len();
    refused(&files[turn])?;
    ONCE.get_or_init(|| files.iter().try_for_each(refused).and_then(|()| file_names(place))).clone()
}

fn file_names(place: &Place<'_>) -> Told {
    let folder = open_folder(place, "files");
    // Where the programs of the suite start, there is one.
    public(&folder.join("thesis.txt"), b"");
    let future = fs::read(place.world.future("cat('fine\\n')")).unwrap();
    for name in [&b"--profile"[..], b"-e", b"line\nend.rds", b"\x1b[31m.rds", b"\xff.rds", b"$(id).rds"] {
        let name = std::ffi::OsStr::from_bytes(name);
        public(&folder.join(name), &future);
        let run = |first: &[&str]| {
            let driver = place.driver.to_string();
            let mut command = place.worker(&["exec", "--sandbox", &driver]);
            Ran::of(&command.args(first).arg(name).current_dir(&folder).env("HOME", place.home()).output().unwrap())
        };
        let told = expect(&run(&["--"]), 0, &["fine"], &[]);
        told.map_err(|error| format!("{}: {error}", name.display()))?;
    }
    let missing = Ran::of(&place.exec_command(Path::new("/no/\u{1b}[31m\nfile.rds"), &[]).output().unwrap());
    if missing.stderr.contains('\u{1b}') { Err(format!("{missing:?}")) } else { expect(&missing, 2, &[], &["/no/"]) }
}

/// 77: what one task leaves, the next must not find.
pub(super) fn after_another(place: &Place<'_>) -> Told {
    let look = "cat('state', exists('left'), getOption('left', 'none'), Sys.getenv('LEFT', 'none'), \
                'tools:left' %in% search(), 'splines' %in% loadedNamespaces(), \
                length(list.files(c('/tmp', '/dev/shm', '~'), pattern = 'left', recursive = TRUE, all.files = TRUE)), \
                getwd(), '\\n')";
    let leave = "left <- 1; assign('left', 1, globalenv()); options(left = 'some'); Sys.setenv(LEFT = 'some'); \
                 attach(NULL, name = 'tools:left'); loadNamespace('splines'); file.create('/tmp/left', '~/left', '/dev/shm/left'); \
                 dir.create(file.path(tempdir(), 'left')); setwd('/tmp')";
    let first = place.evaluate(&format!("invisible({{{leave}}}); {look}"));
    expect(&first, 0, &["state TRUE some some TRUE TRUE 3"], &[])?;
    let second = place.evaluate(look);
    expect(&second, 0, &["state FALSE none none FALSE FALSE 0 /home/task"], &[])
}

/// 78 and 81: a task looks around while another one runs, whose supervisor is then killed.
pub(super) fn beside_another(place: &Place<'_>) -> Told {
    static RAN: Mutex<BTreeMap<String, Told>> = Mutex::new(BTreeMap::new());
    let known = RAN.lock().unwrap().get(&place.to_string()).cloned();
    known.unwrap_or_else(|| {
        let told = look_and_kill(place);
        RAN.lock().unwrap().insert(place.to_string(), told.clone());
        told
    })
}

fn look_and_kill(place: &Place<'_>) -> Told {
    let mark = marker(place, 78);
    let running = format!(
        "file.create('/tmp/p2p-beside', '/dev/shm/p2p-beside', '~/p2p-beside'); \
         system('(setsid nohup sleep {mark} >/dev/null 2>&1 &) &'); system('sleep {mark}')"
    );
    let future = place.world.future(&running);
    let mut first = place.exec_command(&future, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = eventually("the first task runs", || processes_with(&mark).len() >= 2);
    if started.is_err() {
        let _ = (first.kill(), first.wait());
        return started;
    }
    let look = format!(
        "ps <- unlist(lapply(Sys.glob('/proc/[0-9]*/cmdline'), readLines, warn = FALSE, skipNul = TRUE)); \
         cat('seen', any(grepl('{mark}', ps)), any(grepl('--sandbox', ps)), \
         any(grepl('p2p-beside', list.files(c('/tmp', '/dev/shm', '~'), recursive = TRUE))), \
         length(Sys.glob('/proc/[0-9]*')) < 6, \
         inherits(try(suppressWarnings(system('kill -9 {pid} 2>/dev/null')), silent = TRUE), 'try-error'), '\\n')",
        pid = processes_with(&mark)[0]
    );
    let told = expect(&place.evaluate(&look), 0, &["seen FALSE FALSE FALSE TRUE"], &[]);
    let still_there = processes_with(&mark).len();
    let worker = worker_below(first.id());
    // A worker that is gone already leaves `timeout`, which ends by itself.
    if let Some(worker) = worker {
        let worker = nix::unistd::Pid::from_raw(i32::try_from(worker).unwrap());
        nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let _ = first.wait();
    worker.ok_or("the supervisor is gone before it was killed")?;
    told?;
    if still_there < 2 {
        return Err("the second task ended processes of the first".to_owned());
    }
    eventually("all processes of the first task are gone", || processes_with(&mark).is_empty())?;
    no_process_with(&mark)?;
    let spool = place.home().join(".local/state/p2p-worker/spool");
    let left: Vec<_> = fs::read_dir(&spool).unwrap().collect();
    if left.is_empty() { Ok(()) } else { Err(format!("files are left: {left:?}")) }
}

/// 80: a future whose name is a promise, which runs where it is looked at.
pub(super) fn evil_future(place: &Place<'_>) -> Told {
    static FILES: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    let (file, written) = FILES.get_or_init(|| {
        let folder = open_folder(place, "evil");
        let (file, written) = (folder.join("evil.rds"), folder.join("written"));
        let future = place.world.future("cat('evaluated\\n')");
        let (from, to, touched) =
            (quoted(future.display()), quoted(file.display()), quoted(written.display()));
        let code = format!(
            "f <- readRDS({from}); rm('uuid', envir = f); \
             eval(substitute(delayedAssign('uuid', {{ base::file.create(T); base::system('echo $(hostname) $(id -u) >&2'); \
             'evil-1' }}, globalenv(), F), list(T = {touched}, F = f))); saveRDS(f, {to}, compress = FALSE)"
        );
        rscript(&code).unwrap();
        // The control: whoever looks at it runs it.
        rscript(&format!("f <- readRDS({to}); f$uuid")).unwrap();
        assert!(written.exists(), "the promise did not run");
        fs::remove_file(&written).unwrap();
        public(&file, &fs::read(&file).unwrap());
        (file, written)
    });
    let ran = Ran::of(&place.exec_command(file, &[]).output().unwrap());
    if written.exists() {
        return Err(format!("code of the future ran outside of the sandbox: {ran:?}"));
    }
    // It ran inside, where the machine is called task and the user has the number 1000.
    expect(&ran, 0, &["evaluated"], &["task 1000"])
}

fn nothing_was_run(ran: &Ran, says: &[&str]) -> Told {
    if ran.stdout.contains("evaluated") || ran.stderr.contains("evaluated") {
        return Err(format!("it was run: {ran:?}"));
    }
    expect(ran, 3, &[], says)
}

/// 82: a layer that the profile requires and the kernel lacks.
pub(super) fn layer_missing(place: &Place<'_>) -> Told {
    let profile = changed(place, "[landlock]\nrequired = true\nminimum_abi = 1000\n");
    nothing_was_run(&place.exec("cat('evaluated\\n')", &["--profile", &profile]), &["Landlock ABI", "1000"])
}

/// 83: descriptors run out while the sandbox is made.
pub(super) fn half_way(place: &Place<'_>) -> Told {
    let future = place.world.future("cat('evaluated\\n')");
    let name = place.driver.to_string();
    // The jail opens each mount's source and runs out in the middle; bubblewrap needs fewer.
    let most = if place.driver == Driver::Jail { "--nofile=22" } else { "--nofile=16" };
    let mut command = place.run_program(Path::new("/usr/bin/prlimit"));
    command.arg(most).arg(place.world.program("p2p-worker")).args(["exec", "--sandbox", &name, "--profile"]);
    command.arg(place.profile.to_string()).arg(&future);
    nothing_was_run(&Ran::of(&command.output().unwrap()), &["Too many open files"])
}

/// The ABI of this kernel's Landlock, as the kernel itself says it; 0 for none.
pub(super) fn landlock_abi(place: &Place<'_>) -> u32 {
    static ABI: OnceLock<u32> = OnceLock::new();
    *ABI.get_or_init(|| {
        // LANDLOCK_CREATE_RULESET_VERSION
        let mut probe = Command::new(place.world.program("escape-probe"));
        let output = probe.args(["value", "landlock_create_ruleset", "0", "0", "1"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0)
    })
}

/// 84: which Landlock is in force is told, by the program as this place would run it, and it is the kernel's own.
pub(super) fn doctor(place: &Place<'_>) -> Told {
    let command = |arguments: &[&str]| Ran::of(&place.worker(arguments).output().unwrap());
    let abi = landlock_abi(place);
    let driver = place.driver.to_string();
    let profile = place.profile.to_string();
    let ran = command(&["doctor", "--sandbox", &driver, "--profile", &profile]);
    let words = ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    if ran.status == Some(0) && words.contains(&format!("Landlock ABI {abi} ")) {
        return Ok(());
    }
    Err(format!("the kernel has ABI {abi}, and doctor says {ran:?}"))
}

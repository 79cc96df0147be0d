//! `p2p-worker client --stdio`, by a driver that speaks its lines as the R package does: docs/client-stdio.md.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::world::{Who, World, eventually, processes_with};

/// The R session's side of the pipes.
pub(crate) struct Driver {
    child: Child,
    orders: Option<ChildStdin>,
    events: Arc<Mutex<Vec<Event>>>,
    folder: PathBuf,
}

/// One line: its kind and its pairs.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    kind: String,
    pairs: HashMap<String, String>,
}

impl Event {
    fn read(line: &str) -> Self {
        let mut fields = line.split('\t');
        let kind = fields.next().unwrap().to_owned();
        let pairs = fields.map(|field| field.split_once('=').unwrap()).map(|(k, v)| (k.to_owned(), plain(v))).collect();
        Self { kind, pairs }
    }

    fn get(&self, key: &str) -> &str {
        self.pairs.get(key).map_or("", String::as_str)
    }

    fn is(&self, kind: &str, future: &str) -> bool {
        self.kind == kind && self.get("future") == future
    }
}

/// A value without its `%XX`.
fn plain(value: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), value.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
        } else {
            byte
        });
    }
    String::from_utf8(bytes).unwrap()
}

impl Driver {
    /// Starts the program and shakes hands.
    pub(crate) fn new(world: &World, flags: &[&str]) -> Self {
        let driver = Self::silent(world, flags);
        driver.say("hello\tprotocol=2\tpackage=0.1.0\tr=4.6.0");
        driver.wait("hello", |event| event.kind == "hello");
        driver
    }

    fn silent(world: &World, flags: &[&str]) -> Self {
        let folder = world.path("session");
        // By whoever this world is for: the folder must be theirs.
        let made = world.by_whom(&["mkdir", "-m", "700", folder.to_str().unwrap()]).status().unwrap();
        assert!(made.success());
        let board = world.board();
        let mut command = world.command(&["client", "--stdio", "--board", &board, "--accept-new", "--folder"]);
        command.arg(&folder).args(flags).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let orders = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().unwrap().push(Event::read(&line));
            }
        });
        Self { child, orders, events, folder }
    }

    pub(crate) fn say(&self, line: &str) {
        writeln!(self.orders.as_ref().unwrap(), "{line}").unwrap();
    }

    fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    fn wait(&self, what: &str, is_it: impl Fn(&Event) -> bool) -> Event {
        let mut found = None;
        eventually(&format!("{what}; came: {:#?}", self.events().iter().rev().take(3).collect::<Vec<_>>()), || {
            found = self.events().into_iter().find(&is_it);
            found.is_some()
        });
        found.unwrap()
    }

    pub(crate) fn wait_for(&self, kind: &str, future: &str) -> Event {
        self.wait(&format!("{kind} of {future}"), |event| event.is(kind, future))
    }

    /// Makes futures of these expressions in the folder, uncompressed and native, and gives their names.
    fn make(&self, expressions: &[&str]) -> Vec<String> {
        let make = |(number, expression): (usize, &&str)| {
            format!(
                "f <- future::future({{ {expression} }}, lazy = TRUE, globals = FALSE)
                 writeBin(serialize(f, NULL, xdr = FALSE), '{}/in{number}')
                 cat(paste(f$uuid, collapse = '-'), '\\n')\n",
                self.folder.display()
            )
        };
        let code: String = expressions.iter().enumerate().map(make).collect();
        let made = rscript(&code);
        for number in 0..expressions.len() {
            self.give(&format!("in{number}"));
        }
        made.split_whitespace().map(str::to_owned).collect()
    }

    /// Makes futures of these expressions about one large object, which is the first in their files, as the R package does.
    pub(crate) fn make_around(&self, large: &str, expressions: &[String]) -> Vec<String> {
        let make = |(number, expression): (usize, &String)| {
            format!(
                "f <- future::future({{ {expression} }}, lazy = TRUE, globals = list(big = big))
                 e <- new.env(hash = FALSE, parent = emptyenv())
                 for (name in setdiff(names(f), 'globals')) assign(name, f[[name]], envir = e)
                 assign('globals', f$globals, envir = e)
                 writeBin(serialize(structure(e, class = class(f)), NULL, xdr = FALSE), '{}')
                 cat(paste(f$uuid, collapse = '-'), '\n')\n",
                self.file(&format!("in{number}")).display()
            )
        };
        let code: String = expressions.iter().enumerate().map(make).collect();
        let made = rscript(&format!("{large}\n{code}"));
        (0..expressions.len()).for_each(|number| self.give(&format!("in{number}")));
        made.split_whitespace().map(str::to_owned).collect()
    }

    /// A file of the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Gives a file to the owner of the folder.
    fn give(&self, name: &str) {
        let owner = fs::metadata(&self.folder).map(|found| std::os::unix::fs::MetadataExt::uid(&found)).unwrap();
        std::os::unix::fs::chown(self.folder.join(name), Some(owner), None).unwrap();
    }

    /// Posts the futures of these expressions.
    fn post(&self, expressions: &[&str], terms: &str) -> Vec<String> {
        let futures = self.make(expressions);
        for (number, future) in futures.iter().enumerate() {
            self.say(&format!("post\tfuture={future}\tfile=in{number}{terms}"));
        }
        futures
    }

    fn post_one(&self, expression: &str, terms: &str) -> String {
        self.post(&[expression], terms).remove(0)
    }

    /// What R finds in a file of the folder, evaluated with `x` being it.
    pub(crate) fn look(&self, event: &Event, code: &str) -> String {
        let path = self.folder.join(event.get("file"));
        rscript(&format!("x <- readRDS('{}'); cat({code})", path.display()))
    }

    /// The end of the R session; the exit status.
    fn leave(mut self) -> Option<i32> {
        drop(self.orders.take());
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rscript(code: &str) -> String {
    // What `-e` takes has a bound.
    let mut script = tempfile::NamedTempFile::new().unwrap();
    script.write_all(code.as_bytes()).unwrap();
    let output = Command::new("Rscript").arg("--vanilla").arg(script.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Code that sleeps with this argument on a command line, and the argument.
fn sleeper() -> (String, String) {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let marker = format!("{}.{number:04}", 40_000 + std::process::id() % 10_000);
    (format!("system('sleep {marker}'); 'slept'"), marker)
}

#[test]
fn futures_become_values_and_progress_comes_while_they_run() {
    for who in [Who::Me, Who::Ordinary] {
        let world = World::new(who);
        let _worker = world.worker(&["--slots", "2"]);
        let driver = Driver::new(&world, &[]);
        let say = "signalCondition(structure(class = c('immediateCondition', 'condition'), list(message = 'half', call = NULL)))";
        let codes = [
            "21 * 2".to_owned(),
            "stop('no')".to_owned(),
            format!("{say}; Sys.sleep(3); 'whole'"),
            "stats::lm(mpg ~ wt, datasets::mtcars)".to_owned(),
            "f <- function(x) x + 1; f(1); f(2); f(3); list(f, quote(a + b), data.frame(a = 1:3))".to_owned(),
        ];
        let futures = driver.post(&codes.each_ref().map(String::as_str), "");
        let [value, error, progress, model, code] = &futures[..] else { panic!("{futures:?}") };
        let told = driver.wait_for("progress", progress);
        assert!(!driver.events().iter().any(|event| event.is("done", progress)), "it comes while the future runs");
        assert_eq!(driver.look(&told, "conditionMessage(x)"), "half");
        let done = driver.wait_for("done", value);
        assert_eq!(driver.look(&done, "x$value"), "42", "{who:?}");
        assert_eq!((done.get("driver"), done.get("profile")), ("jail", "standard"));
        assert!(done.get("layers").contains("filesystem:enforced"), "{done:?}");
        let done = driver.wait_for("done", error);
        assert_eq!(driver.look(&done, "class(x$conditions[[1]]$condition)"), "simpleError error condition");
        let done = driver.wait_for("done", progress);
        assert_eq!(driver.look(&done, "x$value"), "whole");
        let done = driver.wait_for("done", model);
        assert_eq!(driver.look(&done, "class(x$value)"), "lm", "what a policy of every day lets through");
        let done = driver.wait_for("done", code);
        assert_eq!(driver.look(&done, "x$value[[1]](1)"), "2");
        driver.say("status");
        driver.say("ping\tn=7");
        driver.wait("pong", |event| event.kind == "pong" && event.get("n") == "7");
        let worker = driver.wait("the worker", |event| event.kind == "worker");
        assert_eq!((worker.get("driver"), worker.get("profile")), ("jail", "standard"), "{worker:?}");
        let status = driver.wait("status", |event| event.kind == "status");
        assert_eq!((status.get("state"), status.get("open"), status.get("workers")), ("joined", "0", "1"));
        let mut left =
            fs::read_dir(&driver.folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(
            left.all(|name| name.ends_with(".result.rds") || name.ends_with(".progress.rds")),
            "inputs are removed"
        );
        assert_eq!(driver.leave(), Some(0));
    }
}

#[test]
fn what_is_withdrawn_and_what_is_left_stops_at_the_worker() {
    let world = World::new(Who::Me);
    let _worker = world.worker(&["--slots", "2"]);
    let driver = Driver::new(&world, &[]);
    let (code, marker) = sleeper();
    let future = driver.post_one(&code, "");
    eventually("the task runs", || !processes_with(&marker).is_empty());
    driver.say(&format!("withdraw\tfuture={future}"));
    assert_eq!(driver.wait_for("failed", &future).get("class"), "withdrawn");
    eventually("every process of the task is gone", || processes_with(&marker).is_empty());
    let next = driver.post_one("'next'", "");
    driver.wait_for("done", &next);
    let late = driver.post_one("Sys.sleep(600)", "\ttimeout=2");
    assert_eq!(driver.wait_for("failed", &late).get("class"), "timeout");

    let (code, marker) = sleeper();
    driver.post_one(&code, "");
    eventually("the task runs", || !processes_with(&marker).is_empty());
    assert_eq!(driver.leave(), Some(0), "the end of the orders is the end of the session");
    eventually("every process of the task is gone", || processes_with(&marker).is_empty());
}

#[test]
fn a_lost_worker_is_replaced_unless_nobody_else_may_have_the_future() {
    let world = World::new(Who::Me);
    let mut worker = world.worker(&["--slots", "2"]);
    let driver = Driver::new(&world, &[]);
    let ((once, first), (again, second)) = (sleeper(), sleeper());
    let once = driver.post_one(&once, "\tretry=0");
    let again = driver.post_one(&again, "");
    eventually("both run", || !processes_with(&first).is_empty() && !processes_with(&second).is_empty());
    driver.wait_for("running", &once);
    driver.wait_for("running", &again);
    worker.signal(Signal::SIGKILL);
    worker.wait();
    let failed = driver.wait_for("failed", &once);
    assert_eq!(failed.get("class"), "interrupted", "{failed:?}");
    assert!(failed.get("reason").contains("was lost") && !failed.get("hint").is_empty(), "{failed:?}");
    driver.wait_for("doubted", &again);
    // With a state folder and so a peer id of its own: that of the lost one is passed over for a while.
    let state = world.path("other").display().to_string();
    let _other = world.worker(&["--state", &state]);
    eventually("the other worker has it", || !processes_with(&second).is_empty());
    for pid in processes_with(&second) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let done = driver.wait_for("done", &again);
    assert_eq!(driver.look(&done, "x$value"), "slept");
    let ends = driver.events().into_iter().filter(|event| matches!(event.kind.as_str(), "done" | "failed"));
    assert_eq!(ends.count(), 2, "one end for each");
    assert_eq!(driver.leave(), Some(0));
}

#[test]
fn a_result_that_the_policy_does_not_allow_is_refused_and_named() {
    let world = World::new(Who::Me);
    let _worker = world.worker(&[]);
    let driver = Driver::new(&world, &[]);
    let promise = "local({ f <- function(x) function() x; list(1, f(stop('never'))) })";
    for (code, policy, words) in [
        (promise, "standard", "a promise, whose code runs when it is touched (at value[[2]]"),
        ("makeActiveBinding('a', function() 1, environment()); environment()", "standard", "an active binding"),
        ("function(x) x", "data-only", "a function (at value)"),
        ("list(a = 1, b = quote(f(x)))", "data-only", "a call or a symbol (at value[[2]])"),
    ] {
        let future = driver.post_one(code, &format!("\tresults={policy}"));
        let failed = driver.wait("the end", |event| event.is("failed", &future) || event.is("done", &future));
        assert_eq!(failed.get("class"), "refused", "{code}: {failed:?}");
        assert!(failed.get("reason").contains(words), "{code}: {failed:?}");
    }
    for (code, policy) in
        [(promise, "any"), ("warning('careful'); data.frame(a = 1:3, b = factor(c('x', 'y', 'z')))", "data-only")]
    {
        let future = driver.post_one(code, &format!("\tresults={policy}"));
        driver.wait_for("done", &future);
    }
    assert_eq!(driver.leave(), Some(0));
}

/// The programs as they are: what the second future over the same object has in common with the first does not travel again.
#[test]
fn a_big_global_travels_once() {
    let world = World::new(Who::Ordinary);
    let worker = world.wrapped_worker(&["env", "P2P_WORKER_LOG=p2p_worker=debug"], &["--cache", "100 MiB"]);
    let driver = Driver::new(&world, &[]);
    let code = "globals = list(big = big)";
    let [first, second] = [0, 1].map(|number| {
        let made = rscript(&format!(
            "set.seed(1); big <- runif(2.5e6); f <- future::future(length(big) + {number}, lazy = TRUE, {code})
             writeBin(serialize(f, NULL, xdr = FALSE), '{}/big{number}')
             cat(paste(f$uuid, collapse = '-'))",
            driver.folder.display()
        ));
        driver.give(&format!("big{number}"));
        driver.say(&format!("post\tfuture={made}\tfile=big{number}"));
        let done = driver.wait_for("done", &made);
        assert_eq!(driver.look(&done, "x$value"), (2_500_000 + number).to_string());
        let agreed = |line: &str| line.contains("agreed on what is sent") && line.contains(&made);
        let log = worker.log();
        let line = log.lines().find(|line| agreed(line)).unwrap_or_else(|| panic!("{log}"));
        let bytes = line.split("bytes=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
        bytes.parse::<u64>().unwrap()
    });
    assert!(first >= 20_000_000, "{first} bytes");
    assert!(second < 400_000, "{second} bytes");
    assert_eq!(driver.leave(), Some(0));
}

#[test]
fn a_hundred_small_futures_on_two_slots() {
    let world = World::new(Who::Me);
    let _worker = world.worker(&["--slots", "2"]);
    let driver = Driver::new(&world, &[]);
    let codes: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let futures = driver.post(&codes.iter().map(String::as_str).collect::<Vec<_>>(), "");
    // Each quarter has its own time: a busy machine needs a second for each R that it starts.
    for many in [25, 50, 75, 100] {
        eventually("so many are done", || driver.events().iter().filter(|event| event.kind == "done").count() >= many);
    }
    for (number, future) in futures.iter().enumerate().step_by(33) {
        let done = driver.wait_for("done", future);
        assert_eq!(driver.look(&done, "x$value"), number.to_string());
    }
    assert!(driver.events().iter().all(|event| event.kind != "failed"));
    assert_eq!(driver.leave(), Some(0));
}

#[test]
fn what_is_wrong_is_said_and_harms_nothing() {
    let world = World::new(Who::Me);
    let driver = Driver::silent(&world, &[]);
    driver.say("hello\tprotocol=3\tpackage=9.9");
    let refused = driver.wait("the refusal", |event| event.kind == "refused");
    assert!(
        refused.get("reason").contains("9.9 speaks protocol 3") && !refused.get("version").is_empty(),
        "{refused:?}"
    );
    let folder = driver.folder.clone();
    assert_eq!(driver.leave(), Some(2));
    fs::remove_dir(&folder).unwrap();

    let driver = Driver::new(&world, &["--cluster", "bob/friends"]);
    let gone = driver.wait("the board", |event| event.kind == "board");
    assert_eq!(gone.get("state"), "gone", "{gone:?}");
    assert!(gone.get("reason").contains("no access") && gone.get("hint").contains("owner"), "{gone:?}");
    assert_eq!(driver.leave(), Some(5));
    fs::remove_dir(&folder).unwrap();

    let driver = Driver::new(&world, &[]);
    for order in ["walk", "post\tfuture=f", "post\tfuture=f\tfile=..%2Fx", "ping\tn=x", "hello\tprotocol=2", "\u{e4}"] {
        driver.say(order);
    }
    driver.say("post\tfuture=f-1\tfile=none");
    assert_eq!(driver.wait_for("failed", "f-1").get("class"), "launch");
    driver.say("ping\tn=1");
    driver.wait("pong", |event| event.kind == "pong");
    assert_eq!(driver.events().iter().filter(|event| event.kind == "error").count(), 6);
    assert_eq!(driver.leave(), Some(0));
    let wide = world.path("wide");
    fs::create_dir(&wide).unwrap();
    let output = world.command(&["client", "--stdio", "--folder", wide.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(crate::world::stderr(&output).contains("0700"), "{output:?}");
}

//! Where a sabotage takes place, and what is looked at afterwards.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use crate::world::{Who, World, eventually, processes_with, stderr, stdout};

/// What the future of these tests prints, by R and past R.
const MARK: &str = "EVALUATED";

/// How many jails a worker makes ahead of its tasks, at most (`src/runner/ahead.rs`).
const MOST_AHEAD: usize = 2;

/// A world in which every way that an evaluated future could leave a trace is watched.
pub(crate) struct Scene {
    pub(crate) world: World,
    saboteur: PathBuf,
    /// Where the future tries to leave a file: everybody may.
    open: PathBuf,
    temporary: PathBuf,
}

/// What a run of the program came to.
pub(crate) struct Seen {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Whether there is any trace of the future.
    pub(crate) evaluated: bool,
    /// Whether it could leave a file on this machine.
    pub(crate) left_a_file: bool,
    /// The programs that were executed, where the saboteur was there to see it.
    pub(crate) executed: Vec<String>,
}

impl Scene {
    pub(crate) fn new(who: Who) -> Self {
        let world = World::new(who);
        let folder = |name: &str| {
            let path = world.folder.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            path
        };
        let (open, temporary) = (folder("open"), folder("temporary"));
        let saboteur = world.folder.path().join("saboteur");
        fs::copy(compiled(), &saboteur).unwrap();
        Self { world, saboteur, open, temporary }
    }

    /// A folder of this scene that everybody may write to.
    pub(crate) fn open(&self) -> &Path {
        &self.open
    }

    /// A line that runs a program under these rules.
    pub(crate) fn under<'a>(&'a self, rules: &[&'a str]) -> Vec<&'a str> {
        let mut line = vec![self.saboteur.to_str().unwrap()];
        line.extend(rules);
        line.push("--");
        line
    }

    /// The code of the future.
    pub(crate) fn future(&self) -> String {
        // The word is put together, so that a message that repeats the code does not look like it.
        format!(
            "w <- paste0('EVAL', 'UATED'); cat(w, '\\n'); system(paste('echo', w, '>&2'));
             suppressWarnings(file.create('{}'))",
            self.trace().display()
        )
    }

    fn trace(&self) -> PathBuf {
        self.open.join("trace")
    }

    /// `p2p-worker exec` of that future, with these arguments, under these rules.
    pub(crate) fn exec(&self, rules: &[&str], arguments: &[&str]) -> Seen {
        self.exec_within(&[], rules, arguments)
    }

    /// The same after another program, which executes the saboteur.
    pub(crate) fn exec_within(&self, wrapper: &[&str], rules: &[&str], arguments: &[&str]) -> Seen {
        let log = self.open.join("executed");
        let _ = fs::remove_file(&log);
        let mut rules = rules.to_vec();
        rules.splice(0..0, ["--log", log.to_str().unwrap()]);
        let mut seen = self.exec_by(&[wrapper, &self.under(&rules)].concat(), arguments);
        let executed = fs::read_to_string(&log).unwrap();
        seen.executed = executed.lines().map(str::to_owned).collect();
        seen.evaluated |= seen.executed.iter().any(|program| program.ends_with("bin/exec/R") || program == "?");
        seen
    }

    /// The same, executed by any program.
    pub(crate) fn exec_by(&self, wrapper: &[&str], arguments: &[&str]) -> Seen {
        let future = self.future();
        let mut line = vec!["exec"];
        line.extend(arguments);
        line.extend(["-e", &future]);
        self.look(&mut self.world.wrapped(wrapper, &line))
    }

    /// Runs a command and looks for traces of the future.
    pub(crate) fn look(&self, command: &mut Command) -> Seen {
        let output = command.env("TMPDIR", &self.temporary).output().unwrap();
        Seen::of(&output, fs::remove_file(self.trace()).is_ok())
    }

    /// Submits this scene's future until it is refused: what the worker made ahead while all was well serves a future or two,
    /// with every layer in force.
    pub(crate) fn refused(&self, mut submit: impl FnMut() -> Output) -> Output {
        for _ in 0..=MOST_AHEAD {
            let output = submit();
            if output.status.code() != Some(0) {
                return output;
            }
            assert!(stdout(&output).contains(MARK), "{output:?}");
            assert!(fs::remove_file(self.trace()).is_err(), "it left a file on this machine");
        }
        panic!("nothing is refused, though more futures were run than jails were made ahead");
    }

    /// Checks that no process and no file is left of anything.
    pub(crate) fn nothing_is_left(&self) {
        let jail = self.world.programs().join("p2p-jail").display().to_string();
        eventually("no process is left", || processes_with(&jail).is_empty());
        let left: Vec<_> = fs::read_dir(&self.temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
        let spool = self.world.path(".local/state/p2p-worker/spool");
        let spooled = fs::read_dir(&spool).map_or(0, Iterator::count);
        assert_eq!(spooled, 0, "{}", spool.display());
    }
}

impl Seen {
    fn of(output: &Output, trace: bool) -> Self {
        let (stdout, stderr) = (stdout(output), stderr(output));
        let evaluated = trace || stdout.contains(MARK) || stderr.contains(MARK);
        Self { status: output.status.code(), stdout, stderr, evaluated, left_a_file: trace, executed: Vec::new() }
    }

    /// Checks that nothing was run, that the status is the one of a sandbox that cannot be had, and what was said.
    pub(crate) fn is_refused(&self, what: &str, words: &[&str]) {
        assert!(!self.evaluated, "{what}: {self}");
        assert_eq!(self.status, Some(3), "{what}: {self}");
        self.says(what, words);
    }

    pub(crate) fn says(&self, what: &str, words: &[&str]) {
        for word in words {
            assert!(self.stderr.contains(word), "{what} does not say {word:?}: {self}");
        }
        assert!(!self.stderr.contains("panicked"), "{what}: {self}");
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, stdout, stderr, evaluated, executed, .. } = self;
        write!(f, "{status:?} evaluated {evaluated}\n{stdout}\n{stderr}\n{executed:?}")
    }
}

/// The program of `saboteur.c`.
fn compiled() -> &'static Path {
    static PROGRAM: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, program) = PROGRAM.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("saboteur.c"), folder.path().join("saboteur"));
        fs::write(&source, include_str!("saboteur.c")).unwrap();
        let compiled =
            Command::new("cc").args(["-O1", "-Wall", "-Werror", "-o"]).arg(&program).arg(&source).output().unwrap();
        assert!(compiled.status.success(), "{}", stderr(&compiled));
        (folder, program)
    });
    program
}

/// A line that runs a program in a mount namespace of its own, after these commands of the shell: as root directly, as an
/// ordinary user with rights in a user namespace that it has lost again when the program runs.
pub(crate) fn after_as(who: Who, commands: &str, more: &[&'static str]) -> Vec<String> {
    let root = who == Who::Me && nix::unistd::geteuid().is_root();
    let user: &[&str] = if root { &[] } else { &["--user", "--map-current-user", "--keep-caps"] };
    let drop = if root { "" } else { "setpriv --inh-caps=-all --ambient-caps=-all --" };
    let script = format!("set -e; {commands}; exec {drop} \"$@\"");
    let line = ["unshare", "--mount"].iter().chain(user).chain(more).chain(&["sh", "-c"]);
    let line = line.map(|word| (*word).to_owned());
    line.chain([script, "sh".to_owned()]).collect()
}

/// Borrowed, as lines of arguments are taken.
pub(crate) fn borrowed(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

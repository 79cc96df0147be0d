//! Where the tasks of the suite run: users with something to lose, the real programs, and one future that carries the
//! native probe and any script.

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::case::{Act, How};

/// A user that nobody else uses, for whoever runs the tests as root.
const ORDINARY: u32 = 61236;

/// Seconds after which a task that should have ended long ago is given up.
const PATIENCE: &str = "300";

/// How many bytes the future holds for its script (template.R).
const SCRIPT: usize = 196_608;

/// Who makes the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Driver {
    Jail,
    Bubblewrap,
    /// For controls.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Profile {
    Strict,
    Standard,
}

/// Who runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum User {
    Ordinary,
    /// Only where root runs the tests.
    Root,
}

/// What is the same for all tasks.
pub(crate) struct World {
    folder: tempfile::TempDir,
    template: Vec<u8>,
    /// Where in the template the script begins.
    script: usize,
    next: AtomicU32,
}

/// One combination: driver, profile, user.
#[derive(Clone, Copy)]
pub(crate) struct Place<'world> {
    pub(crate) world: &'world World,
    pub(crate) driver: Driver,
    pub(crate) profile: Profile,
    pub(crate) user: User,
}

/// What came of a task.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit status of the program.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("p2p-escape-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let programs = folder.path().join("bin");
        fs::create_dir(&programs).unwrap();
        // The build folder may be where an ordinary user cannot go.
        let ours = [env!("CARGO_BIN_EXE_p2p-worker"), env!("CARGO_BIN_EXE_p2p-jail")];
        for program in ours.map(PathBuf::from).into_iter().chain([probe()]) {
            let to = programs.join(program.file_name().unwrap());
            fs::copy(&program, &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let (template, script) = template(folder.path(), &programs.join("escape-probe"));
        let world = Self { folder, template, script, next: AtomicU32::new(0) };
        for user in users() {
            world.furnish(user);
        }
        world
    }

    /// Fills a home folder with what must not leak.
    fn furnish(&self, user: User) {
        let home = self.home(user);
        for name in [".ssh/id_ed25519", ".aws/credentials", ".config/secret.toml", ".Renviron", "thesis.txt"] {
            let path = home.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "P2P_SECRET=ten-years-of-work\n").unwrap();
        }
        if user == User::Ordinary && nix::unistd::geteuid().is_root() {
            own(&home);
        }
    }

    pub(crate) fn home(&self, user: User) -> PathBuf {
        self.folder.path().join(if user == User::Root { "root" } else { "home" })
    }

    /// A program of the suite: `p2p-worker`, `p2p-jail`, `escape-probe`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.path().join("bin").join(name)
    }

    /// A folder that only the tests use, on the host.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A folder with something in it that a control may destroy, belonging to the ordinary user.
    pub(crate) fn sacrifice(&self) -> PathBuf {
        let folder = self.folder.path().join(format!("sacrifice-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(folder.join("inside")).unwrap();
        fs::write(folder.join("inside/file"), "x").unwrap();
        if nix::unistd::geteuid().is_root() {
            own(&folder);
        }
        folder
    }

    /// Writes a future that runs this script after task.R, and returns its file, which everybody may read.
    fn future(&self, script: &str) -> PathBuf {
        assert!(script.len() < SCRIPT, "the script is too long: {} bytes", script.len());
        let mut bytes = self.template.clone();
        let place = &mut bytes[self.script..self.script + SCRIPT];
        place.fill(b'\n');
        place[..script.len()].copy_from_slice(script.as_bytes());
        let path = self.folder.path().join(format!("{}.rds", self.next.fetch_add(1, Ordering::Relaxed)));
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }
}

impl<'world> Place<'world> {
    pub(crate) fn new(world: &'world World, driver: Driver, profile: Profile, user: User) -> Self {
        Self { world, driver, profile, user }
    }

    /// The same without a sandbox.
    pub(crate) fn bare(self) -> Self {
        Self { driver: Driver::None, profile: Profile::Standard, user: User::Ordinary, ..self }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.world.home(self.user)
    }

    pub(crate) fn is_bubblewrap(&self) -> bool {
        self.driver == Driver::Bubblewrap
    }

    /// Any program, run by this place's user with a clean environment, ended after five minutes.
    pub(crate) fn run_program(&self, program: &Path) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", PATIENCE]);
        if self.user == User::Ordinary && nix::unistd::geteuid().is_root() {
            let id = ORDINARY.to_string();
            command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all", "--"]);
        }
        command.arg(program).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", self.home());
        // What must not get into a task.
        command.env("P2P_WORKER_TEST_TOKEN", "secret-of-the-owner").stdin(Stdio::null());
        command.current_dir("/");
        command
    }

    /// `p2p-worker` with these arguments.
    pub(crate) fn worker(&self, arguments: &[&str]) -> Command {
        let mut command = self.run_program(&self.world.program("p2p-worker"));
        command.args(arguments);
        command
    }

    /// Evaluates R code as a future in this sandbox, by `p2p-worker exec`. The helpers of task.R are there.
    pub(crate) fn evaluate(&self, script: &str) -> Ran {
        self.evaluate_under(&self.profile.to_string(), script)
    }

    /// As [`Place::evaluate`], under another profile: a name or the path of a file.
    pub(crate) fn evaluate_under(&self, profile: &str, script: &str) -> Ran {
        let future = self.world.future(script);
        let driver = self.driver.to_string();
        let output = self.worker(&["exec", "--sandbox", &driver, "--profile", profile]).arg(&future).output();
        let _ = fs::remove_file(future);
        Ran::of(&output.unwrap())
    }

    /// Tries acts in one task: what each came to.
    pub(crate) fn attempt(&self, acts: &BTreeMap<String, &Act>) -> (BTreeMap<String, String>, Ran) {
        let ran = self.evaluate(&script(acts));
        (ran.outcomes(), ran)
    }

    /// Tries native acts directly, by root of a user namespace of its own.
    pub(crate) fn attempt_privileged(&self, acts: &BTreeMap<String, &Act>) -> (BTreeMap<String, String>, Ran) {
        let input = self.world.folder().join(format!("acts-{}", self.world.next.fetch_add(1, Ordering::Relaxed)));
        fs::write(&input, native_lines(acts).join("\n")).unwrap();
        let mut command = self.run_program(Path::new("/usr/bin/unshare"));
        command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "--net", "--ipc"]);
        command.args(["--uts", "--cgroup", "--"]).arg(self.world.program("escape-probe")).arg("batch");
        let output = command.stdin(fs::File::open(&input).unwrap()).output().unwrap();
        let ran = Ran::of(&output);
        (ran.outcomes(), ran)
    }
}

impl Ran {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// What the acts came to, by name.
    pub(crate) fn outcomes(&self) -> BTreeMap<String, String> {
        let lines = self.stdout.lines().filter_map(|line| line.strip_prefix("@@")?.split_once('\t'));
        lines.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())).collect()
    }
}

/// The users that this run of the tests can have.
pub(crate) fn users() -> Vec<User> {
    let root = nix::unistd::geteuid().is_root();
    [User::Ordinary].into_iter().chain(root.then_some(User::Root)).collect()
}

/// An R string.
pub(crate) fn quoted(text: impl fmt::Display) -> String {
    let text = text.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
    format!("\"{text}\"")
}

/// Gives a tree to the ordinary user.
pub(crate) fn own(path: &Path) {
    std::os::unix::fs::lchown(path, Some(ORDINARY), Some(ORDINARY)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().for_each(|entry| own(&entry.unwrap().path()));
    }
}

fn script(acts: &BTreeMap<String, &Act>) -> String {
    let native = native_lines(acts).iter().map(quoted).collect::<Vec<_>>().join(",\n");
    let r = acts.iter().filter_map(|(name, act)| match &act.how {
        How::R(code) => Some(format!("{} = {}", quoted(name), quoted(code))),
        How::Native(_) => None,
    });
    format!("native_acts(c({native}))\nr_acts(c({}))\n", r.collect::<Vec<_>>().join(",\n"))
}

fn native_lines(acts: &BTreeMap<String, &Act>) -> Vec<String> {
    let line = |(name, act): (&String, &&Act)| match &act.how {
        How::Native(act) => Some(format!("{name}\t{act}")),
        How::R(_) => None,
    };
    acts.iter().filter_map(line).collect()
}

/// The native probe, which is an example of this package: `cargo test` builds it, `cargo test --test escape` does not.
fn probe() -> PathBuf {
    let probe = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples").join("escape-probe");
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escape/probe");
    let newest = fs::read_dir(source).unwrap().filter_map(|entry| modified(&entry.unwrap().path())).max();
    assert!(modified(&probe) >= newest, "{} is out of date: cargo build --example escape-probe", probe.display());
    probe
}

/// The future that carries everything, and where its script begins.
fn template(folder: &Path, probe: &Path) -> (Vec<u8>, usize) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escape");
    let to = folder.join("template.rds");
    let mut command = Command::new("Rscript");
    command.arg("--vanilla").arg(source.join("template.R")).arg(source.join("task.R")).arg(probe).arg(&to);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let bytes = fs::read(to).unwrap();
    let marks = bytes.windows(64).position(|window| window.iter().all(|&byte| byte == b'#')).unwrap();
    (bytes, marks)
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jail => "jail",
            Self::Bubblewrap => "bubblewrap",
            Self::None => "none",
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Standard => "standard",
        })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ordinary => "user",
            Self::Root => "root",
        })
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.driver, self.profile, self.user)
    }
}

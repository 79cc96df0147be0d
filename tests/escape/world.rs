//! Where the tasks of the suite run: users with something to lose, the real programs, and one future that carries the
//! native probe and any script.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{BufRead, BufReader},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::case::{Act, How};

/// A user that nobody else uses, for whoever runs the tests as root.
const ORDINARY: u32 = 61236;

/// How root becomes that user.
const AS_ORDINARY: [&str; 8] =
    ["setpriv", "--reuid", "61236", "--regid", "61236", "--clear-groups", "--inh-caps=-all", "--"];

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
    /// A folder of the owner that every profile of the suite shares read-only.
    shared: tempfile::TempDir,
    pub(crate) bystander: Bystander,
    /// Files of others, which everybody may read, where every program leaves some.
    litter: Vec<tempfile::NamedTempFile>,
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

/// A process of the ordinary user that tasks must not touch, and that controls can: it lets everybody trace it, has a
/// secret in memory, in its environment and open on its descriptor 0, and listens on two sockets of the host.
pub(crate) struct Bystander {
    process: Child,
    pub(crate) pid: u32,
    /// Where in its memory the secret begins.
    pub(crate) address: String,
    /// A socket with a name in the file system, which everybody may connect to.
    pub(crate) socket: PathBuf,
    /// The name of an abstract socket.
    pub(crate) abstract_name: String,
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
        // Not in /tmp, which no profile can share a part of.
        let [folder, shared] = ["p2p-escape-", "p2p-shared-"].map(|prefix| {
            let folder = tempfile::Builder::new().prefix(prefix).tempdir_in("/var/tmp").unwrap();
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
            folder
        });
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
        fs::write(shared.path().join("data.csv"), "x\n1\n").unwrap();
        if is_root() {
            own(shared.path());
        }
        let bystander = Bystander::start(folder.path(), &programs.join("escape-probe"));
        let litter = ["/tmp", "/var/tmp", "/dev/shm"].map(|folder| {
            let file = tempfile::Builder::new().prefix("p2p-escape-").tempfile_in(folder).unwrap();
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o666)).unwrap();
            file
        });
        let world =
            Self { folder, shared, bystander, litter: litter.into(), template, script, next: AtomicU32::new(0) };
        users().into_iter().for_each(|user| world.furnish(user));
        [Profile::Strict, Profile::Standard].into_iter().for_each(|profile| world.write_profile(profile));
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
        if user == User::Ordinary && is_root() {
            own(&home);
        }
    }

    /// The profile with the shared folder, which is all that it has more.
    fn write_profile(&self, profile: Profile) {
        let text = format!(
            "inherits = \"{profile}\"\n\n[files.read]\n{} = {{ why = \"data of the owner\" }}\n",
            quoted(self.shared().display())
        );
        fs::write(self.profile_file(profile), text).unwrap();
    }

    fn profile_file(&self, profile: Profile) -> PathBuf {
        self.folder.path().join(format!("{profile}-with-data.toml"))
    }

    /// The files of others.
    pub(crate) fn litter(&self) -> Vec<&Path> {
        self.litter.iter().map(tempfile::NamedTempFile::path).collect()
    }

    /// A folder of the ordinary user that the task may read, with the file `data.csv`.
    pub(crate) fn shared(&self) -> &Path {
        self.shared.path()
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

    /// A number that was not given before.
    pub(crate) fn unique(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A folder with something in it that a control may destroy, belonging to the ordinary user.
    pub(crate) fn sacrifice(&self) -> PathBuf {
        let folder = self.folder.path().join(format!("sacrifice-{}", self.unique()));
        fs::create_dir_all(folder.join("inside")).unwrap();
        fs::write(folder.join("inside/file"), "x").unwrap();
        if is_root() {
            own(&folder);
        }
        folder
    }

    /// Writes a future that runs this script after task.R, and returns its file, which everybody may read.
    pub(crate) fn future(&self, script: &str) -> PathBuf {
        assert!(script.len() < SCRIPT, "the script is too long: {} bytes", script.len());
        let mut bytes = self.template.clone();
        let place = &mut bytes[self.script..self.script + SCRIPT];
        place.fill(b'\n');
        place[..script.len()].copy_from_slice(script.as_bytes());
        let path = self.folder.path().join(format!("{}.rds", self.unique()));
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

    /// Any program, run by this place's user, ended after five minutes. What must not get into a task, it has: variables
    /// with secrets and agents in the environment, a file open on descriptor 9, a working folder in the home.
    pub(crate) fn run_program(&self, program: &Path) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", PATIENCE]);
        if self.user == User::Ordinary && is_root() {
            command.args(AS_ORDINARY);
        }
        command.args(["sh", "-c", "exec 9<~/thesis.txt; exec \"$@\"", "sh"]).arg(program).env_clear();
        command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", self.home());
        let socket = self.world.bystander.socket.display().to_string();
        command.env("P2P_TOKEN", "secret-of-the-owner").env("GITHUB_PAT", "secret-of-the-owner");
        command.env("SSH_AUTH_SOCK", &socket).env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={socket}"));
        command.env("DISPLAY", ":0").env("WAYLAND_DISPLAY", "wayland-0").env("XDG_RUNTIME_DIR", "/run/user/0");
        command.current_dir(self.home()).stdin(Stdio::null());
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
        self.exec(script, &[])
    }

    /// The same with more arguments, such as another `--profile`.
    pub(crate) fn exec(&self, script: &str, more: &[&str]) -> Ran {
        let future = self.world.future(script);
        let output = self.exec_command(&future, more).output();
        let _ = fs::remove_file(future);
        Ran::of(&output.unwrap())
    }

    /// The same, to be started otherwise.
    pub(crate) fn exec_command(&self, future: &Path, more: &[&str]) -> Command {
        let mut command = self.worker(&["exec", "--sandbox", &self.driver.to_string()]);
        if !more.contains(&"--profile") {
            command.arg("--profile").arg(self.world.profile_file(self.profile));
        }
        command.args(more).arg(future);
        command
    }

    /// Tries acts in one task: what each came to.
    pub(crate) fn attempt(&self, acts: &BTreeMap<String, &Act>) -> (BTreeMap<String, String>, Ran) {
        let ran = self.evaluate(&script(acts));
        (ran.outcomes(), ran)
    }

    /// Tries native acts without `p2p-worker`.
    pub(crate) fn attempt_directly(&self, acts: &BTreeMap<String, &Act>) -> (BTreeMap<String, String>, Ran) {
        let mut command = self.run_program(&self.world.program("escape-probe"));
        command.arg("batch");
        self.batch(command, acts)
    }

    /// Tries native acts without `p2p-worker`, by root of a user namespace of its own.
    pub(crate) fn attempt_privileged(&self, acts: &BTreeMap<String, &Act>) -> (BTreeMap<String, String>, Ran) {
        let mut command = self.run_program(Path::new("/usr/bin/unshare"));
        command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "--net", "--ipc"]);
        command.args(["--uts", "--cgroup", "--"]).arg(self.world.program("escape-probe")).args(["batch", "mounts"]);
        self.batch(command, acts)
    }

    fn batch(&self, mut probe: Command, acts: &BTreeMap<String, &Act>) -> (BTreeMap<String, String>, Ran) {
        let input = self.world.folder().join(format!("acts-{}", self.world.unique()));
        fs::write(&input, native_lines(acts).join("\n")).unwrap();
        let output = probe.stdin(fs::File::open(&input).unwrap()).output().unwrap();
        let ran = Ran::of(&output);
        (ran.outcomes(), ran)
    }
}

impl Bystander {
    fn start(folder: &Path, probe: &Path) -> Self {
        let socket = folder.join("agent.sock");
        let abstract_name = format!("p2p-escape-{}", std::process::id());
        let mut command = Command::new(if is_root() { AS_ORDINARY[0] } else { "/usr/bin/env" });
        command.args(if is_root() { &AS_ORDINARY[1..] } else { &[] }).arg(probe).arg("bystander");
        command.env("SECRET", "secret-of-the-owner");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
        listen(&SocketAddr::from_pathname(&socket).unwrap());
        listen(&SocketAddr::from_abstract_name(&abstract_name).unwrap());
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
        Self { pid: process.id(), process, address: address.trim().to_owned(), socket, abstract_name }
    }

    /// Whether it lives and is neither stopped nor traced.
    pub(crate) fn is_well(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        status.contains("State:\tS") && status.contains("TracerPid:\t0")
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Listens for ever, accepting nothing: the kernel completes connections all the same.
fn listen(address: &SocketAddr) {
    let listener = UnixListener::bind_addr(address).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

impl Ran {
    pub(crate) fn of(output: &Output) -> Self {
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
    [User::Ordinary].into_iter().chain(is_root().then_some(User::Root)).collect()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
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
    format!("native_acts(as.character(c({native})))\nr_acts(c({}))\n", r.collect::<Vec<_>>().join(",\n"))
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

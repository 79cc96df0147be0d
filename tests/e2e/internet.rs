//! Tasks with the internet and without this machine and its network, on a machine that has all three: see
//! `internet/neighbourhood.py`. What must not be reached is reached from outside of the jail first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::world::{Process, Running, Who, World, below, eventually, is_gone, stderr, stdout};

const VISITOR: &str = include_str!("internet/visitor.py");
const INTERNET: &str = "203.0.113.9";
/// The outer address of the network's router: public as any other, and so not closed (SECURITY.md says so).
const ROUTER_OUTSIDE: &str = "203.0.113.1";

/// A machine with its network and an internet.
struct Neighbourhood {
    world: World,
    profile: String,
    services: Running,
    /// Processes of the network and of the internet.
    others: [String; 2],
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// With all rights over the namespaces of that process.
fn enter(pid: &str, mounts: bool) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", pid, "-n"]);
    if mounts {
        command.arg("-m");
    }
    if !is_root() {
        command.args(["-U", "--preserve-credentials"]);
    }
    command
}

impl Neighbourhood {
    fn new(who: Who, name_server: &str) -> Self {
        let world = World::new(who);
        let profile = world.folder.path().join("internet.toml");
        fs::write(&profile, include_str!("../../sandbox-profiles/examples/internet.toml")).unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["-n", "-m"]);
        if !is_root() {
            unshare.args(["-U", "-r"]);
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/internet/neighbourhood.py");
        unshare.args(["/usr/bin/python3", script]).arg(world.folder.path()).arg(name_server).stdin(Stdio::piped());
        let services = Running::start(unshare);
        services.wait_for("ready");
        let line = services.wait_for("the others are");
        let mut numbers = line.split(' ').filter(|word| word.parse::<u32>().is_ok()).map(str::to_owned);
        let others = [numbers.next().unwrap(), numbers.next().unwrap()];
        Self { world, profile: profile.display().to_string(), services, others }
    }

    /// The same command on this machine, by whoever would have run it.
    fn here(&self, command: &Command) -> Command {
        let mut entered = enter(&self.services.pid().to_string(), true);
        if !is_root() {
            // Nobody special there either.
            let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
            entered.args(["unshare", "-U", &format!("--map-user={user}"), &format!("--map-group={group}")]);
        }
        entered.arg(command.get_program()).args(command.get_args());
        entered.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        entered.env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        entered
    }

    /// `p2p-worker exec` of this under the profile with the internet.
    fn exec(&self, code: &str) -> Command {
        self.here(&self.world.command(&["exec", "--profile", &self.profile, "-e", code]))
    }

    /// What the services hear of this.
    fn heard(&self, what: &str) -> Vec<String> {
        self.services.log().lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
    }

    fn socket(&self) -> String {
        format!("p2p-neighbour-{}", self.services.pid())
    }

    /// A datagram from that process's namespace to that port of this machine, and to a service of it.
    fn send_from(&self, pid: &str, address: &str, port: &str, text: &str) {
        let script = "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                      for port in (sys.argv[2], 8001):\n    s.sendto(sys.argv[3].encode(), (sys.argv[1], int(port)))\n";
        let status = enter(pid, false).args(["/usr/bin/python3", "-c", script, address, port, text]).status().unwrap();
        assert!(status.success());
    }
}

/// The code of R for a script of Python's.
fn python(script: &str, arguments: &str) -> String {
    format!(
        "f <- tempfile(); writeLines(r\"----({script})----\", f); \
         cat(system2('/usr/bin/python3', c(f, {arguments}), stdout = TRUE, stderr = TRUE), sep = '\\n')"
    )
}

/// What came of each way to each address.
fn visits(output: &Output) -> BTreeMap<String, String> {
    let text = stdout(output);
    assert!(text.contains("\nvisited\n"), "{text}\n{}", stderr(output));
    text.lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(way, found)| (way.to_owned(), found.to_owned()))
        .collect()
}

/// The addresses that were reached by a way that begins like this.
fn reached<'a>(visits: &'a BTreeMap<String, String>, way: &str) -> BTreeSet<&'a str> {
    let ours = visits.iter().filter(|(known, found)| known.starts_with(way) && found.starts_with("reached"));
    ours.filter_map(|(known, _)| known.rsplit(' ').next()).collect()
}

fn everybody_is_there(visits: &BTreeMap<String, String>) {
    let near = ["10.9.0.1", "10.9.0.2", "127.0.0.1", "192.0.2.1", "198.51.100.1", "198.51.100.7"];
    let all: BTreeSet<&str> = near.into_iter().chain([ROUTER_OUTSIDE, INTERNET]).collect();
    for way in ["tcp ", "udp "] {
        assert_eq!(reached(visits, way), all, "{way}: {visits:#?}");
    }
    for way in ["tcp-device", "udp-device", "tcp-unicast", "udp-unicast", "udp-pktinfo"] {
        assert!(
            reached(visits, way).is_superset(&["10.9.0.1", "192.0.2.1", "198.51.100.1"].into()),
            "{way}: {visits:#?}"
        );
    }
    for way in ["multicast ", "multicast-device", "multicast-if"] {
        assert!(reached(visits, way).is_superset(&["224.0.0.251", "239.1.2.3"].into()), "{way}: {visits:#?}");
    }
    assert_eq!(reached(visits, "abstract").len(), 1);
}

fn only_the_internet_is_there(visits: &BTreeMap<String, String>) {
    let far: BTreeSet<&str> = [ROUTER_OUTSIDE, INTERNET].into();
    assert_eq!(reached(visits, ""), far, "{visits:#?}");
    for way in ["tcp ", "tcp-device", "tcp-unicast"] {
        assert_eq!(reached(visits, way), far, "{way}: {visits:#?}");
    }
    // The network's router answers datagrams with its inner address, and is not heard.
    for way in ["udp ", "udp-device", "udp-pktinfo", "udp-unicast"] {
        assert_eq!(reached(visits, way), [INTERNET].into(), "{way}: {visits:#?}");
    }
    let found = |way: &str| visits.iter().find(|(known, _)| known.starts_with(way)).unwrap().1.as_str();
    for way in ["tcp6 ", "tcp6-mapped", "raw", "packet", "netlink"] {
        assert_eq!(found(way), "EPERM", "{way}");
    }
    assert_eq!((found("ping"), found("abstract")), ("EACCES", "ECONNREFUSED"));
    assert_eq!(found("name"), INTERNET);
}

fn the_internet_and_nobody_near(who: Who, name_server: &str) {
    let neighbourhood = Neighbourhood::new(who, name_server);
    let socket = neighbourhood.socket();
    let control = neighbourhood.world.by_whom(&["/usr/bin/python3", "-c", VISITOR, "lan0", "control", &socket]);
    let control = visits(&neighbourhood.here(&control).output().unwrap());
    everybody_is_there(&control);
    let code = python(VISITOR, &format!("'eth0', 'task', '{socket}'"));
    let task = visits(&neighbourhood.exec(&code).output().unwrap());
    assert_eq!(task.len(), control.len(), "{task:#?}");
    only_the_internet_is_there(&task);
    let beyond = |line: &String| line.starts_with("internet ") || line.contains(&format!(" to {ROUTER_OUTSIDE} "));
    let heard = neighbourhood.heard("heard task");
    assert!(!heard.is_empty() && heard.iter().all(beyond), "{heard:#?}");
    assert!(
        neighbourhood.heard("machine heard control").len() > 3 && neighbourhood.heard("lan heard control").len() > 3
    );
}

#[test]
fn a_task_reaches_the_internet_and_nobody_near() {
    the_internet_and_nobody_near(Who::Me, "10.9.0.1");
}

#[test]
fn so_does_one_of_an_ordinary_users_where_names_come_from_loopback() {
    the_internet_and_nobody_near(Who::Ordinary, "127.0.0.53");
}

/// pasta (2023-03-09) takes datagrams from anybody on a port from which the task has sent one.
#[test]
fn nobody_near_can_send_to_a_task() {
    let neighbourhood = Neighbourhood::new(Who::Ordinary, "10.9.0.1");
    let code = python(include_str!("internet/called.py"), "''");
    let task = Running::start(neighbourhood.exec(&code));
    let line = neighbourhood.services.wait_for("internet heard call me");
    let port = line.rsplit(' ').next().unwrap();
    let machine = neighbourhood.services.pid().to_string();
    for (name, pid, addresses) in [
        ("machine", &machine, &["127.0.0.1", "10.9.0.2", "198.51.100.7"][..]),
        ("lan", &neighbourhood.others[0], &["10.9.0.2", "198.51.100.7"]),
    ] {
        for address in addresses {
            let text = format!("near from {name} to {address}");
            neighbourhood.send_from(pid, address, port, &text);
            neighbourhood.services.wait_for(&format!("machine heard {text}"));
        }
    }
    fs::write(neighbourhood.world.folder.path().join("enough"), "").unwrap();
    task.wait_for("got enough");
    task.wait_for("that was all");
    assert!(task.log().contains("got reached internet"), "{}", task.log());
    assert!(!task.log().contains("near"), "{}", task.log());
}

/// A task that talks to the internet, the processes that this takes, the monitor's and pasta's numbers.
fn talking(neighbourhood: &Neighbourhood, word: &str) -> (Running, Vec<Process>, [i32; 2]) {
    let code = python(include_str!("internet/talking.py"), &format!("'{word}'"));
    let task = Running::start(neighbourhood.exec(&code));
    neighbourhood.services.wait_for(&format!("internet heard {word}"));
    let processes = below(task.pid());
    let is_pasta = |name: &String| name.starts_with("pasta") || name.starts_with("passt");
    let pasta: Vec<_> = processes.iter().filter(|(_, _, name)| is_pasta(name)).collect();
    let [(pasta, monitor, _)] = pasta[..] else { panic!("{processes:?}") };
    let numbers = [*monitor, pasta.0];
    (task, processes.into_iter().map(|(process, _, _)| process).collect(), numbers)
}

fn whoever_dies(who: Who) {
    let neighbourhood = Neighbourhood::new(who, "10.9.0.1");
    let all_gone = |processes: &[Process]| eventually("nothing is left", || processes.iter().all(is_gone));

    let (mut task, processes, [monitor, _]) = talking(&neighbourhood, "monitor");
    kill(Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
    all_gone(&processes);
    assert!(task.wait().is_some_and(|status| status != 0), "{}", task.log());

    let (task, processes, _) = talking(&neighbourhood, "supervisor");
    task.signal(Signal::SIGKILL);
    all_gone(&processes);

    let (mut task, processes, [_, pasta]) = talking(&neighbourhood, "pasta");
    kill(Pid::from_raw(pasta), Signal::SIGKILL).unwrap();
    // A task without the network that it was promised does not go on.
    assert_eq!(task.wait(), Some(4), "{}", task.log());
    task.wait_for("the way to the internet broke down there");
    assert!(!task.log().contains("that was all"), "{}", task.log());
    all_gone(&processes);
    assert_eq!(neighbourhood.heard("machine heard").len() + neighbourhood.heard("lan heard").len(), 0);
}

#[test]
fn nothing_stays_and_nothing_is_gained_whoever_dies() {
    whoever_dies(Who::Me);
}

#[test]
fn nothing_stays_of_an_ordinary_users_either() {
    whoever_dies(Who::Ordinary);
}

/// All programs of this machine but pasta.
fn without_pasta(world: &World) -> PathBuf {
    let folder = world.folder.path().join("without");
    fs::create_dir(&folder).unwrap();
    for program in fs::read_dir("/usr/bin").unwrap() {
        let program = program.unwrap();
        if !program.file_name().to_string_lossy().starts_with("pas") {
            std::os::unix::fs::symlink(program.path(), folder.join(program.file_name())).unwrap();
        }
    }
    folder
}

#[test]
fn it_is_refused_where_it_cannot_be_held() {
    let world = World::new(Who::Ordinary);
    let profile = world.folder.path().join("internet.toml");
    fs::write(&profile, include_str!("../../sandbox-profiles/examples/internet.toml")).unwrap();
    let exec = |more: &[&str]| {
        let arguments = [&["exec", "--profile", profile.to_str().unwrap(), "-e", "cat('evaluated')"], more].concat();
        world.command(&arguments)
    };
    let refused = |output: Output, why: &str| {
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(stderr(&output).contains(why) && !stdout(&output).contains("evaluated"), "{output:?}");
    };
    let missing = exec(&[]).env("PATH", without_pasta(&world)).output().unwrap();
    refused(missing, "there is no program pasta on the PATH: apt-get install passt");
    refused(exec(&["--sandbox", "bubblewrap"]).output().unwrap(), "--sandbox jail");
    refused(exec(&["--sandbox", "none"]).output().unwrap(), "--sandbox jail");
    // One that ends at once says why.
    let broken = world.folder.path().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("pasta"), "#!/bin/sh\necho no luck today >&2\nexit 1\n").unwrap();
    fs::set_permissions(broken.join("pasta"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", broken.display());
    refused(exec(&[]).env("PATH", path).output().unwrap(), "pasta ended: no luck today");
    // This machine's own address and routes, which nobody may take away, are in what `profile show` says.
    let shown = world.command(&["profile", "show", profile.to_str().unwrap()]).output().unwrap();
    let text = stdout(&shown);
    assert!(text.contains("\nNetwork\n") && text.contains("not closed: public addresses that are near"), "{text}");
}

//! Several machines: each a network namespace, joined by a switch that delays, loses and cuts (`switch.py`). Made by root as
//! root, by an ordinary user within a user namespace.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::world::{Running, Who, World, eventually};

/// The machines of a test.
pub(crate) struct Hosts {
    world: World,
    machines: Vec<Machine>,
    switch: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _wire: Holder,
}

struct Machine {
    name: &'static str,
    holder: Holder,
}

/// A process that does nothing but keep a namespace.
struct Holder(Child);

impl Holder {
    fn start(mut command: Command) -> Self {
        let child = command.args(["sleep", "infinity"]).stdin(Stdio::null()).spawn().unwrap();
        let name = format!("/proc/{}/comm", child.id());
        eventually("the namespace is there", || fs::read_to_string(&name).is_ok_and(|name| name.trim() == "sleep"));
        Self(child)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command in the network namespace of a process, with all rights over it.
fn inside(pid: &str) -> Vec<String> {
    let mut line = vec!["nsenter", "-t", pid, "-n"];
    if !is_root() {
        line.extend(["-U", "--preserve-credentials"]);
    }
    line.into_iter().map(str::to_owned).collect()
}

fn command(line: &[String]) -> Command {
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]);
    command
}

fn wire() -> Holder {
    let mut unshare = Command::new("unshare");
    unshare.arg("-n");
    if !is_root() {
        unshare.args(["-U", "-r"]);
    }
    Holder::start(unshare)
}

impl Hosts {
    /// A board, a client and so many workers, each on a machine of its own: `board`, `client`, `w1`, `w2`, …
    pub(crate) fn new(workers: usize) -> Self {
        let wire = wire();
        let names = ["board", "client", "w1", "w2", "w3"];
        let machine = |name: &&'static str| {
            let mut unshare = command(&inside(&wire.pid()));
            unshare.args(["unshare", "-n"]);
            Machine { name, holder: Holder::start(unshare) }
        };
        let machines: Vec<Machine> = names.iter().take(2 + workers).map(machine).collect();
        let mut switch = command(&inside(&wire.pid()));
        switch.args(["python3", "-c", include_str!("switch.py")]);
        for (number, machine) in machines.iter().enumerate() {
            switch.arg(format!("{}:{}:{}", machine.name, machine.holder.pid(), Self::address(number)));
        }
        let mut switch = switch.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, mut answers) = (switch.stdin.take().unwrap(), BufReader::new(switch.stdout.take().unwrap()));
        let mut ready = String::new();
        answers.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "the switch does not stand");
        let by = Self::as_program(&machines[0]);
        let by: Vec<&str> = by.iter().map(String::as_str).collect();
        let world = World::with_board(Who::Me, &Self::address(0), &by);
        Self { world, machines, switch, orders, answers, _wire: wire }
    }

    fn address(number: usize) -> String {
        format!("10.77.0.{}", number + 1)
    }

    fn machine(&self, name: &str) -> &Machine {
        self.machines.iter().find(|machine| machine.name == name).unwrap()
    }

    /// What stands before a program on this machine. Whoever is no root there is nobody special here either.
    fn as_program(machine: &Machine) -> Vec<String> {
        let mut line = inside(&machine.holder.pid());
        if !is_root() {
            let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
            let ids = [format!("--map-user={user}"), format!("--map-group={group}")];
            line.extend(["unshare".to_owned(), "-U".to_owned()].into_iter().chain(ids));
        }
        line
    }

    fn told(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "ok\n", "{order}");
    }

    /// Every frame is so late, each way.
    pub(crate) fn delay(&mut self, milliseconds: u32) {
        self.told(&format!("delay {milliseconds}"));
    }

    /// Of a thousand frames so many are lost.
    pub(crate) fn lose(&mut self, per_mille: u32) {
        self.told(&format!("loss {per_mille}"));
    }

    pub(crate) fn cut(&mut self, name: &str) {
        self.told(&format!("cut {name}"));
    }

    pub(crate) fn join(&mut self, name: &str) {
        self.told(&format!("join {name}"));
    }

    /// Gives a machine another address in place of its own.
    pub(crate) fn move_to(&self, name: &str, address: &str) {
        let ip = |arguments: &[&str]| {
            let done = command(&inside(&self.machine(name).holder.pid())).arg("ip").args(arguments).status().unwrap();
            assert!(done.success(), "ip {arguments:?}");
        };
        ip(&["address", "flush", "dev", "eth0", "scope", "global"]);
        ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"]);
    }

    /// Whether a program on this machine has this UDP port.
    pub(crate) fn has_port(&self, name: &str, port: u16) -> bool {
        let table = fs::read_to_string(format!("/proc/{}/net/udp", self.machine(name).holder.pid())).unwrap();
        table.contains(&format!(":{port:04X} "))
    }

    /// A worker on its machine, with a state folder of its own, that has joined.
    pub(crate) fn worker(&self, name: &str) -> Running {
        let state = self.world.path(name);
        let by = Self::as_program(self.machine(name));
        let by: Vec<&str> = by.iter().map(String::as_str).collect();
        self.world.wrapped_worker(&by, &["--state", state.to_str().unwrap()])
    }

    /// `p2p-worker submit` on the client's machine, ready to be run.
    pub(crate) fn submit(&self, arguments: &[&str]) -> Command {
        let by = Self::as_program(self.machine("client"));
        let by: Vec<&str> = by.iter().map(String::as_str).collect();
        let board = self.world.board();
        let mut command = self.world.wrapped(&by, &["submit", "--board", &board, "--accept-new"]);
        command.args(arguments);
        command
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.world.path(name)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = self.switch.kill();
        let _ = self.switch.wait();
    }
}

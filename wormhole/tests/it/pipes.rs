//! The program by itself: what confines it, and what it makes of a p2p-worker that does not keep to the contract.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
};

use p2p_wormhole_contract::{
    CONTRACT,
    frame::{self, HEADER},
    message::{Event, Failure, Layer, Order},
};

use crate::world::eventually;

struct Bare(Child);

impl Bare {
    fn start(wrapper: &[&str]) -> Self {
        let line = [wrapper, &[env!("CARGO_BIN_EXE_p2p-wormhole")]].concat();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn hear(&mut self) -> Event {
        let output = self.0.stdout.as_mut().unwrap();
        let mut header = [0; HEADER];
        output.read_exact(&mut header).unwrap();
        let (_, length) = frame::parse(header).unwrap();
        let mut body = vec![0; length];
        output.read_exact(&mut body).unwrap();
        frame::decode(&body).unwrap()
    }

    fn confined(&mut self) -> Vec<Layer> {
        let mut contract = [0; 8];
        self.0.stdout.as_mut().unwrap().read_exact(&mut contract).unwrap();
        assert_eq!(u64::from_le_bytes(contract), CONTRACT);
        match self.hear() {
            Event::Confined(layers) => layers,
            other => panic!("{other:?}"),
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.0.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn status(&self, key: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What it reports is what the kernel says of it, before it was told anything.
#[test]
fn it_confines_itself_first() {
    let mut program = Bare::start(&[]);
    let layers = program.confined();
    let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["identity", "limits", "no_new_privs", "Landlock", "seccomp"]);
    assert_eq!(program.status("NoNewPrivs"), "1");
    assert_eq!(program.status("Seccomp"), "2");
    assert_eq!(program.status("CapEff"), "0000000000000000");
    assert_eq!(program.status("CapPrm"), "0000000000000000");
    assert!(!program.status("Uid").split_whitespace().any(|uid| uid == "0"));
    for layer in layers.iter().filter(|layer| layer.name != "Landlock") {
        assert!(layer.enforced, "{layer:?}");
    }
    // Landlock may be missing or old where the tests run; then that is said.
    let abi = p2p_jail_abi();
    let landlock = layers.iter().find(|layer| layer.name == "Landlock").unwrap();
    assert_eq!(landlock.enforced, abi >= 6, "ABI {abi}: {landlock:?}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.0.id()));
    if let Ok(limits) = limits {
        assert!(limits.lines().any(|line| line.starts_with("Max address space") && line.contains("1073741824")));
    }
}

fn p2p_jail_abi() -> u32 {
    p2p_jail::landlock_abi().unwrap_or(0)
}

#[test]
fn a_p2p_worker_of_another_build_is_refused() {
    let mut program = Bare::start(&[]);
    program.confined();
    program.say(&(CONTRACT ^ 1).to_le_bytes());
    assert!(matches!(program.hear(), Event::Failed(Failure::Contract(why)) if why.contains("another build")));
    assert!(!program.0.wait().unwrap().success());
}

#[test]
fn orders_that_are_none_are_refused() {
    let empty = frame::encode(&Order::Addresses(Vec::new())).unwrap();
    let orders: [&[u8]; 4] = [&empty, &[7, 1, 0, 0, 0], &[0, 1, 0, 0, 0, 99], &[1, 1, 0, 0, 0, 1]];
    for order in orders {
        let mut program = Bare::start(&[]);
        program.confined();
        program.say(&CONTRACT.to_le_bytes());
        program.say(order);
        assert!(matches!(program.hear(), Event::Failed(Failure::Contract(_))), "{order:?}");
    }
}

#[test]
fn it_is_not_for_hands() {
    let by_hand = Command::new(env!("CARGO_BIN_EXE_p2p-wormhole")).arg("--help").output().unwrap();
    assert_eq!(by_hand.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&by_hand.stderr).contains("started by p2p-worker"));
    let no_pipes = Command::new(env!("CARGO_BIN_EXE_p2p-wormhole")).stdin(Stdio::null()).output().unwrap();
    assert_eq!(no_pipes.status.code(), Some(2), "{no_pipes:?}");
}

#[test]
fn it_ends_with_its_input() {
    let mut program = Bare::start(&[]);
    program.confined();
    drop(program.0.stdin.take());
    eventually("it ends", || program.0.try_wait().unwrap().is_some());
}

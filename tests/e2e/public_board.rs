//! `p2p-worker` and `p2p-worker submit` as somebody types them who can type `ssh pipe.pico.sh`: with nothing else. The public
//! board is a stand-in that is made with nothing of ours, and the system's ssh finds it by its configuration.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use crate::world::{Running, stderr, stdout};

struct PublicBoard {
    folder: tempfile::TempDir,
    board: Child,
}

impl PublicBoard {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("p2p-public-").tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("home/.ssh")).unwrap();
        for key in ["host", "home/.ssh/id_ed25519"] {
            let make = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(key)).status();
            assert!(make.unwrap().success());
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/pico.py");
        let mut board = Command::new("/usr/bin/python3")
            .arg(script)
            .arg(path("host"))
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(board.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let public = fs::read_to_string(path("host.pub")).unwrap();
        fs::write(path("home/.ssh/known_hosts"), format!("pico {public}")).unwrap();
        // ssh takes the home folder from the system's accounts, whatever the environment says, so it is told here.
        let home = path("home/.ssh");
        let config = format!(
            "Host pico.sh pipe.pico.sh\n  HostName 127.0.0.1\n  Port {}\n  HostKeyAlias pico\n  IdentityAgent none\n  \
             IdentityFile {home}/id_ed25519\n  UserKnownHostsFile {home}/known_hosts\n",
            port.trim(),
            home = home.display(),
        );
        fs::write(path("home/.ssh/config"), config).unwrap();
        fs::create_dir(path("bin")).unwrap();
        let ssh = format!(
            "#!/bin/sh\necho \"$@\" >>'{}'\nexec /usr/bin/ssh -F '{}/config' \"$@\"\n",
            path("commands").display(),
            home.display()
        );
        fs::write(path("bin/ssh"), ssh).unwrap();
        fs::set_permissions(path("bin/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, board }
    }

    /// The program with no option for the board.
    fn command(&self, arguments: &[&str]) -> Command {
        let path = format!("{}:/usr/bin:/bin", self.folder.path().join("bin").display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2p-worker"));
        command.args(arguments).env_clear().env("PATH", path).env("HOME", self.folder.path().join("home"));
        command.env("P2P_WORKER_LOG", "info").stdin(Stdio::null());
        command
    }
}

impl Drop for PublicBoard {
    fn drop(&mut self) {
        let _ = self.board.kill();
        let _ = self.board.wait();
    }
}

#[test]
fn who_can_type_ssh_needs_no_options() {
    let public = PublicBoard::start();
    let worker = Running::start(public.command(&[]));
    worker.wait_for("joined the cluster");
    let output = public.command(&["submit", "--show-worker", "-e", "6 * 7"]).output().unwrap();
    assert_eq!(
        (output.status.code(), stdout(&output)),
        (Some(0), "[1] 42\n".to_owned()),
        "{output:?} {}",
        worker.log()
    );
    assert!(stderr(&output).contains("resolved by alice@"), "the account's name is the board's word: {output:?}");
    // By the system's ssh, as a person would type it: the account at pico.sh, the personal cluster at pipe.pico.sh.
    let commands = fs::read_to_string(public.folder.path().join("commands")).unwrap();
    assert!(commands.lines().any(|line| line.ends_with("-- pico.sh user")), "{commands}");
    let pipes = commands.lines().filter(|line| line.contains("-- pipe.pico.sh pipe personal/future.p2p"));
    assert_eq!(pipes.count(), 2, "{commands}");
    // What pings answers have to be, nobody asked for: ours sent none.
    assert!(!public.folder.path().join("unasked").exists());

    fs::write(public.folder.path().join("close"), "").unwrap();
    worker.wait_for("the board is away");
    let output = public.command(&["submit", "-e", "'again'"]).output().unwrap();
    assert_eq!(stdout(&output), "[1] \"again\"\n", "{output:?} {}", worker.log());
}

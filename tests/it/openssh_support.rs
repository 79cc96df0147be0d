//! Real OpenSSH servers, agents and certificates for the tests of the sign-in.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use p2p_worker::board::ssh::SshBoardConfig;
use tempfile::TempDir;

use super::board_support::make_key;

/// What answers as a board does, behind sshd: one account, and a topic that only echoes.
const BOARD: &str = r#"#!/bin/sh
case "$SSH_ORIGINAL_COMMAND" in
user) printf 'alice\r\nid\r\n2026-01-01T00:00:00Z\r\n' ;;
ls) printf 'no pubsub channels found\r\n' ;;
pipe*) exec cat ;;
*) echo "no such command" >&2; exit 1 ;;
esac
"#;

/// An sshd on loopback, with a folder for everything.
pub(crate) struct Sshd {
    process: Child,
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
}

impl Sshd {
    /// With these lines in its configuration, where `DIR` is its folder; `prepare` may put files there first. There are
    /// host keys of three kinds, and the key `alice` may sign in.
    pub(crate) fn start(lines: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for kind in ["ed25519", "ecdsa", "rsa"] {
            keygen(&["-q", "-t", kind, "-N", "", "-f"], &path(&format!("host_{kind}")), &[]);
        }
        let alice = make_key(folder.path(), "alice", "");
        std::fs::copy(alice.with_extension("pub"), path("authorized")).unwrap();
        std::fs::write(path("board.sh"), BOARD).unwrap();
        std::fs::set_permissions(path("board.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        prepare(folder.path());
        let (process, port) = serve(folder.path(), lines);
        let sshd = Self { process, port, folder };
        let keys = ["ed25519", "ecdsa", "rsa"].map(|kind| sshd.known_line(kind));
        std::fs::write(sshd.path("known_hosts"), keys.concat()).unwrap();
        sshd
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A line of known hosts for its key of one kind.
    pub(crate) fn known_line(&self, kind: &str) -> String {
        let key = std::fs::read_to_string(self.path(&format!("host_{kind}.pub"))).unwrap();
        format!("[127.0.0.1]:{} {key}", self.port)
    }

    /// How to sign in there as alice, with nothing taken from the machine that runs the test.
    pub(crate) fn config(&self) -> SshBoardConfig {
        let address = format!("127.0.0.1:{}", self.port).parse().unwrap();
        let mut config = SshBoardConfig::new(address, self.folder.path());
        config.ssh_folder = None;
        config.agent = None;
        config.identities = vec![self.path("alice")];
        config
    }

    /// The same with a home of its own, whose `.ssh/config` has these lines.
    pub(crate) fn config_with(&self, lines: &str) -> SshBoardConfig {
        let home = self.path("home/.ssh");
        std::fs::create_dir_all(&home).unwrap();
        private(&home.join("config"), lines);
        let mut config = self.config();
        config.system_folder = self.path("none");
        config.ssh_folder = Some(home);
        config.identities.clear();
        config
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Each connection has processes of its own.
        for pid in descendants(self.process.id()) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid.cast_signed()),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn descendants(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().map(|child| child.parse().unwrap());
    children.flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

/// Starts sshd on a port that is free; another program may take it in between, so several are tried.
fn serve(folder: &Path, lines: &str) -> (Child, u16) {
    if nix::unistd::getuid().is_root() {
        // Debian makes it when the service starts.
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    for _ in 0..20 {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let usual = "PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\nLogLevel VERBOSE\n\
            AuthorizedKeysFile DIR/authorized\nHostKey DIR/host_ed25519\nHostKey DIR/host_ecdsa\nHostKey DIR/host_rsa\n";
        let text = format!("{lines}\nPort {port}\nListenAddress 127.0.0.1\n{usual}ForceCommand DIR/board.sh\n");
        let text = text.replace("DIR", &folder.display().to_string());
        std::fs::write(folder.join("sshd_config"), text).unwrap();
        let mut process = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(folder.join("sshd_config"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("sshd is installed");
        let mut errors = BufReader::new(process.stderr.take().unwrap());
        let mut said = String::new();
        while errors.read_line(&mut said).unwrap() > 0 {
            if said.contains("Server listening") {
                // It says more for every connection, which somebody has to read.
                std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
                return (process, port);
            }
        }
        process.wait().unwrap();
        assert!(said.contains("Address already in use"), "{said}");
    }
    panic!("no port is free");
}

/// Runs ssh-keygen with a path between the arguments.
pub(crate) fn keygen(before: &[&str], path: &Path, after: &[&str]) {
    let made = Command::new("ssh-keygen").args(before).arg(path).args(after).output().expect("ssh-keygen is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Signs a public key: `ssh-keygen -s CA … KEY.pub` makes `KEY-cert.pub`.
pub(crate) fn certify(authority: &Path, key: &Path, arguments: &[&str]) {
    let authority = authority.to_str().unwrap();
    let before = [&["-q", "-s", authority, "-I", "test"], arguments].concat();
    keygen(&before, &key.with_extension("pub"), &[]);
}

/// Writes a file that its owner alone may read.
pub(crate) fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// An ssh-agent of the test's own.
pub(crate) struct Agent {
    process: Child,
    pub(crate) socket: PathBuf,
}

impl Agent {
    pub(crate) fn start(folder: &Path) -> Self {
        let socket = folder.join("agent");
        let mut process = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .expect("ssh-agent is installed");
        // It prints its settings once it listens.
        let mut first = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.contains("SSH_AUTH_SOCK"), "{first}");
        Self { process, socket }
    }

    /// Adds a key, and the certificate beside it if there is one.
    pub(crate) fn add(&self, key: &Path, passphrase: &str) {
        // ssh-add takes a passphrase from a program alone; the key is unlocked in a copy instead.
        let copy = key.with_file_name(format!("{}.unlocked", key.file_name().unwrap().to_str().unwrap()));
        std::fs::copy(key, &copy).unwrap();
        let certificate = |key: &Path| PathBuf::from(format!("{}-cert.pub", key.display()));
        if certificate(key).exists() {
            std::fs::copy(certificate(key), certificate(&copy)).unwrap();
        }
        keygen(&["-q", "-p", "-P", passphrase, "-N", "", "-f"], &copy, &[]);
        self.add_as_it_is(&copy);
        std::fs::remove_file(copy).unwrap();
    }

    fn add_as_it_is(&self, key: &Path) {
        let added = Command::new("ssh-add").arg(key).env("SSH_AUTH_SOCK", &self.socket).output().unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An agent that holds one security key, whose part a plain Ed25519 key plays: the private file `key` signs what a security key
/// would sign. Gives back its socket; the public key, as authorized_keys has it, is in `key.sk.pub`.
pub(crate) fn security_key_agent(folder: &Path, key: &Path) -> PathBuf {
    use russh::keys::{PrivateKey, signature::Signer};
    let private = PrivateKey::read_openssh_file(key).unwrap();
    let secret = private.key_data().ed25519().unwrap().clone();
    let blob = [string(b"sk-ssh-ed25519@openssh.com"), string(&secret.public.0), string(b"ssh:")].concat();
    let line = format!("sk-ssh-ed25519@openssh.com {}\n", base64(&blob));
    std::fs::write(key.with_extension("sk.pub"), line).unwrap();
    let socket = folder.join("sk-agent");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            while let Some(request) = frame(&mut stream) {
                let answer = match request.first() {
                    // What it holds.
                    Some(11) => [&[12][..], &1u32.to_be_bytes(), &string(&blob), &string(b"sk")].concat(),
                    Some(13) => {
                        let (asked, rest) = take_string(&request[1..]);
                        assert_eq!(asked, blob);
                        let (data, _) = take_string(rest);
                        // PROTOCOL.u2f: the signature is over the application, flags, a counter and the message.
                        let counter = 7u32.to_be_bytes();
                        let signed = [&digest(b"ssh:")[..], &[1], &counter, &digest(data)].concat();
                        let signature = secret.try_sign(&signed).unwrap();
                        let bytes = [string(b"sk-ssh-ed25519@openssh.com"), string(signature.as_bytes())].concat();
                        [&[14][..], &string(&[&bytes[..], &[1], &counter].concat())].concat()
                    }
                    // Extensions among them.
                    _ => vec![5],
                };
                std::io::Write::write_all(&mut stream, &string(&answer)).unwrap();
            }
        }
    });
    socket
}

fn frame(from: &mut impl Read) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn take_string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    bytes[4..].split_at(length)
}

/// SHA-256 and base64 by the programs that every system has.
fn piped(program: &str, arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

fn digest(bytes: &[u8]) -> Vec<u8> {
    let hex = piped("sha256sum", &[], bytes);
    (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn base64(bytes: &[u8]) -> String {
    piped("base64", &["-w0"], bytes)
}

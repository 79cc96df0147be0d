//! Passphrases on a terminal, which a process of its own gets from script(1).

use std::{io::Write, process::Stdio, time::Duration};

use p2p_worker::board::{Board, ssh::SshBoard};

use super::{
    board_support::{Served, make_key, soon},
    openssh_support::private,
};

/// Set for the process that has the terminal: its folder and port.
const CHILD: &str = "P2P_WORKER_TEST_TERMINAL";

/// Not a test by itself: what runs on the terminal.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal() {
    let Ok(place) = std::env::var(CHILD) else { return };
    let (folder, port) = place.rsplit_once(':').unwrap();
    let folder = std::path::Path::new(folder);
    let mut config = p2p_worker::board::SshBoardConfig::new(format!("127.0.0.1:{port}").parse().unwrap(), folder);
    config.ssh_folder = Some(folder.join(".ssh"));
    config.agent = None;
    config.passphrases = true;
    let board = SshBoard::new(config);
    println!("first: {}", answer(&board).await);
    // Once open, a key stays open.
    println!("second: {}", answer(&board).await);
}

async fn answer(board: &SshBoard) -> String {
    match board.user().await {
        Ok(name) => name.as_str().to_owned(),
        Err(error) => format!("{error}"),
    }
}

/// Runs the above on a terminal, answering each question; gives back all that was shown.
async fn with_answers(served: &Served, answers: &[&str]) -> String {
    let program = std::env::current_exe().unwrap();
    let command = format!("{} board_terminal::on_a_terminal --exact --nocapture", program.display());
    let mut child = tokio::process::Command::new("script")
        .args(["-q", "-e", "-c", &command, "/dev/null"])
        .env(CHILD, format!("{}:{}", served.folder.path().display(), served.port))
        .env_remove("INVOCATION_ID")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("script is installed (bsdutils)");
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = Vec::new();
    let mut answers = answers.iter();
    let talk = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut asked = 0;
        let mut piece = [0; 4096];
        loop {
            let count = output.read(&mut piece).await.unwrap_or(0);
            if count == 0 {
                break;
            }
            shown.extend_from_slice(&piece[..count]);
            let questions = String::from_utf8_lossy(&shown).matches("Enter passphrase for key").count();
            while asked < questions {
                asked += 1;
                // The terminal throws away what was typed before the question; it is asked for after the echo is off.
                tokio::time::sleep(Duration::from_millis(300)).await;
                if let Some(answer) = answers.next() {
                    input.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        }
    };
    soon("the terminal's end", talk).await;
    soon("the end", child.wait()).await.unwrap();
    std::io::stdout().flush().unwrap();
    String::from_utf8_lossy(&shown).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_is_asked_for_once_and_never_shown() {
    let served = Served::with(&["alice"]).await;
    let ssh = served.path(".ssh");
    std::fs::create_dir(&ssh).unwrap();
    let key = make_key(&ssh, "id_ed25519", "the passphrase");
    served.add("alice", &key);
    // A key that the board does not want is not asked about.
    make_key(&ssh, "id_rsa", "another passphrase");
    let shown = with_answers(&served, &["a wrong one\r", "the passphrase\r"]).await;
    assert!(shown.contains("first: alice") && shown.contains("second: alice"), "{shown}");
    assert_eq!(shown.matches("Enter passphrase for key").count(), 2, "{shown}");
    assert!(
        shown.contains("not the passphrase") && !shown.contains("wrong one") && !shown.contains("id_rsa"),
        "{shown}"
    );

    // Who gives up is told what was tried; the terminal is as before.
    let shown = with_answers(&served, &["\u{3}", "\u{3}"]).await;
    assert!(shown.contains("first: ") && shown.contains("its passphrase was not given"), "{shown}");

    // Nobody is asked where the configuration says so.
    private(&ssh.join("config"), "BatchMode yes\n");
    let shown = with_answers(&served, &[]).await;
    assert!(shown.contains("has a passphrase") && !shown.contains("Enter passphrase"), "{shown}");
    served.stop().await;
}

/// Runs the above without a terminal, with a program in `SSH_ASKPASS`; gives back what it printed.
async fn with_program(served: &Served, script: &str, more: &[(&str, &str)]) -> String {
    use std::os::unix::fs::PermissionsExt;
    let program = served.path("askpass");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = tokio::process::Command::new("setsid");
    command.arg("-w").arg(std::env::current_exe().unwrap());
    command.args(["board_terminal::on_a_terminal", "--exact", "--nocapture"]);
    for name in ["DISPLAY", "WAYLAND_DISPLAY", "SSH_ASKPASS_REQUIRE"] {
        command.env_remove(name);
    }
    command.env(CHILD, format!("{}:{}", served.folder.path().display(), served.port)).env("SSH_ASKPASS", &program);
    let output = command.envs(more.iter().copied()).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = soon("the end", output).await.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_the_program_of_ssh_askpass_is_asked_as_ssh_asks_it() {
    let served = Served::with(&["alice"]).await;
    let ssh = served.path(".ssh");
    std::fs::create_dir(&ssh).unwrap();
    let key = make_key(&ssh, "id_ed25519", "the passphrase");
    served.add("alice", &key);
    let asked = served.path("asked");
    let answers = format!("echo \"$1\" >> '{}'; echo 'the passphrase'", asked.display());
    let questions = || std::fs::read_to_string(&asked).unwrap_or_default().lines().count();
    let (display, force, never) =
        (("DISPLAY", ":0"), ("SSH_ASKPASS_REQUIRE", "force"), ("SSH_ASKPASS_REQUIRE", "never"));

    for more in [&[display][..], &[force]] {
        let said = with_program(&served, &answers, more).await;
        assert!(said.contains("first: alice") && said.contains("second: alice"), "{more:?}: {said}");
    }
    assert_eq!(questions(), 2, "once for each process");
    let question = std::fs::read_to_string(&asked).unwrap();
    assert!(question.starts_with("Enter passphrase for key '") && question.contains("id_ed25519"), "{question}");

    for more in [&[][..], &[display, never]] {
        let said = with_program(&served, &answers, more).await;
        assert!(said.contains("first: ") && said.contains("SSH_ASKPASS"), "{more:?}: {said}");
    }
    assert_eq!(questions(), 2, "nobody was asked");
    // The user cancels; a program that does not stop talking.
    for script in ["echo 'the passphrase'; exit 1", "yes"] {
        let said = with_program(&served, script, &[force]).await;
        assert!(said.contains("first: ") && !said.contains("alice"), "{script}: {said}");
    }
    served.stop().await;
}

//! Peers that lie, by the whole way: results that are none, and lines on the board that nobody of ours would write. What holds of
//! them inside one program is in `tests/it/transfer_hostile.rs`, `tests/it/rds.rs` and `src/proto`.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use crate::world::{Running, Who, World, stderr, stdout};

/// R code that gives these bytes, an expression, as the result.
fn saying(bytes: &str) -> String {
    format!(
        "con <- file('/dev/fd/3', 'wb', raw = TRUE); head <- serialize(NULL, NULL)[1:23]; \
         writeBin(c(charToRaw('R'), as.raw(rep(255, 4)), {bytes}), con); close(con); quit(save = 'no', runLast = FALSE)"
    )
}

#[test]
fn forged_results_are_refused_by_the_client_and_the_worker_goes_on() {
    for who in [Who::Me, Who::Ordinary] {
        let world = World::new(who);
        let worker = world.worker(&["--profile", "strict"]);
        let result =
            "structure(class = 'FutureResult', list(value = 1, stdout = 'forged', conditions = list(), uuid = 'x'))";
        for (bytes, says) in [
            (format!("serialize({result}, NULL)"), "the result of another future"),
            (format!("serialize({result}, NULL), raw(1)"), "1 bytes follow its end"),
            (format!("memCompress(serialize({result}, NULL), 'gzip')"), "it is compressed"),
            ("head, as.raw(c(rep(c(0, 0, 0, 19, 0, 0, 0, 1), 3e6), 0, 0, 0, 254))".to_owned(), "levels deep"),
            ("head, as.raw(c(0, 0, 0, 5, 0, 0, 0, 252, 0, 0, 0, 254))".to_owned(), "a promise as a value"),
        ] {
            let saved = world.path("saved.rds");
            let output = world.submit(&["-o", saved.to_str().unwrap(), "-e", &saying(&bytes)]).output().unwrap();
            assert_eq!(output.status.code(), Some(5), "{who:?} {output:?}");
            assert!(stderr(&output).contains(says) && !stderr(&output).contains("panicked"), "{who:?} {output:?}");
            assert!(!saved.exists(), "{who:?} {says}: it was saved");
        }
        assert_eq!(stdout(&world.evaluate("'next'")), "[1] \"next\"\n", "{}", worker.log());
    }
}

#[test]
fn hostile_lines_on_the_board_change_nothing() {
    let world = World::new(Who::Me);
    let worker = world.worker(&[]);
    let now: u64 = stdout(&Command::new("date").arg("+%s").output().unwrap()).trim().parse().unwrap();
    let soon = now + 60;
    let names = [
        "../../etc/passwd",
        "-oProxyCommand=id",
        "$(id)",
        "\u{1b}]0;title\u{7}",
        "x\0y",
        "ä",
        &"x".repeat(4096),
        "",
        "--",
        "-1",
    ];
    let mut lines: Vec<String> = Vec::new();
    for name in names {
        for (from, future) in [("mallory@evil:1", name), (name, "abc-1")] {
            let pair = format!("from={from},future={future},size=100,label={name},protocols=libp2p");
            lines.push(format!("when=x,expires={soon},type=request,{pair}"));
            lines.push(format!(
                "when=x,expires={soon},type=accept,to={name},via=libp2p://{name}/{name},at={name},{pair}"
            ));
            lines.push(format!("when=x,expires={soon},type=withdraw,{pair}"));
            lines.push(format!("when=x,expires={soon},type=result,to={name},{pair}"));
        }
    }
    for expires in ["-1", "0", "18446744073709551615", "99999999999999999999", "NaN", "1e999"] {
        lines.push(format!("when=x,expires={expires},type=request,from=m@x:1,future=a-1,size=1,protocols=libp2p"));
        lines.push(format!("when=x,expires={soon},type=request,from=m@x:1,future=a-1,size={expires},protocols=libp2p"));
    }
    lines.push("=".repeat(10_000));
    lines.push(",".repeat(10_000));
    write_to_board(&world, &lines);
    // The worker is there, does not hold a slot for any of it for longer than an offer lasts, and tells nobody's terminal.
    assert_eq!(stdout(&world.evaluate("'next'")), "[1] \"next\"\n", "{}", worker.log());
    let log = worker.log();
    assert!(!log.contains("panicked") && !log.contains('\u{1b}'), "{log}");
}

/// Another member of the cluster, with OpenSSH.
fn write_to_board(world: &World, lines: &[String]) {
    let ssh = || {
        let mut ssh = Command::new("ssh");
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]);
        ssh.args(["-p", &world.port().to_string(), "-i"]).arg(world.home().join(".ssh/id_ed25519"));
        ssh.args(["127.0.0.1", "pipe", "personal/future.p2p"]).stdin(Stdio::piped());
        ssh
    };
    let reader = Running::start(ssh());
    let mut writer = ssh().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let last = "when=x,expires=1,type=none,from=the-last-line@x:1";
    let mut stdin = writer.stdin.take().unwrap();
    for line in lines.iter().map(String::as_str).chain([last]) {
        // The board may have had enough; then another connection says the last line.
        if stdin.write_all(format!("{line}\n").as_bytes()).is_err() {
            break;
        }
    }
    let _ = stdin.flush();
    let mut another = ssh().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    another.stdin.take().unwrap().write_all(format!("{last}\n").as_bytes()).unwrap();
    reader.wait_for("the-last-line");
    for mut client in [writer, another] {
        let _ = client.kill();
        let _ = client.wait();
    }
}

//! `p2p-worker board` as it is typed.

use std::{path::Path, process::Command, time::Duration};

use clap::Parser;
use tokio::{sync::oneshot, time::timeout};

use super::*;
use crate::board::{Board, SshBoard, SshBoardConfig};

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(40), work).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

fn make_key(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
    assert!(made.expect("ssh-keygen is installed").success());
    path
}

#[derive(Parser)]
struct Typed {
    #[command(flatten)]
    args: BoardArgs,
}

async fn board(state: &Path, arguments: &[&str]) -> Result<String, BoardCommandError> {
    let args = Typed::parse_from([&["board"], arguments].concat()).args;
    let mut out = Vec::new();
    soon("the command", run(args, state, &mut out, |_| {}, async {})).await?;
    Ok(String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn accounts_are_added_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("not there yet");
    let key = make_key(folder.path(), "key");
    let public = key.with_extension("pub");
    let public = public.to_str().unwrap();
    let added = board(&state, &["user", "add", "alice", public]).await.unwrap();
    assert!(added.starts_with("alice  ") && added.contains("  SHA256:"), "{added}");
    assert_eq!(board(&state, &["user", "list"]).await.unwrap(), added);
    assert_eq!(board(&state, &["user", "add", "alice", public]).await.unwrap(), added, "adding twice adds nothing");
    assert_eq!(board(&state, &["user", "list"]).await.unwrap(), added);

    let taken = board(&state, &["user", "add", "bob", public]).await.unwrap_err();
    assert!(taken.to_string().contains("belongs to alice"), "{taken}");
    let other = make_key(folder.path(), "other").with_extension("pub");
    for name in ["Alice", "public"] {
        let refused = board(&state, &["user", "add", name, other.to_str().unwrap()]).await.unwrap_err();
        assert!(refused.is_usage(), "{refused}");
    }
    let private = board(&state, &["user", "add", "bob", key.to_str().unwrap()]).await.unwrap_err();
    assert!(private.hint().unwrap().contains(".pub"), "{private:?}");
    assert!(board(&state, &["user", "remove", "bob"]).await.is_err());
    board(&state, &["user", "remove", "alice"]).await.unwrap();
    assert_eq!(board(&state, &["user", "list"]).await.unwrap(), "");
    assert!(Typed::try_parse_from(["board", "user", "add", "a/b", public]).is_err());
}

#[tokio::test]
async fn comments_survive_and_a_spoilt_file_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("accounts");
    let public = make_key(folder.path(), "key").with_extension("pub");
    std::fs::write(&file, "# my friends\n").unwrap();
    board(folder.path(), &["user", "add", "alice", public.to_str().unwrap()]).await.unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# my friends\nalice "), "{text}");
    let spoilt = format!("{text}bob half a line");
    std::fs::write(&file, &spoilt).unwrap();
    let error = board(folder.path(), &["user", "add", "carol", public.to_str().unwrap()]).await.unwrap_err();
    assert!(error.to_string().contains("accounts, line 3: "), "{error}");
    assert!(error.hint().unwrap().contains("Repair"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), spoilt);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_says_where_it_listens_and_which_key_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let key = make_key(folder.path(), "key");
    board(&state, &["user", "add", "alice", key.with_extension("pub").to_str().unwrap()]).await.unwrap();
    // Serving ends at once, because `board` passes a shutdown that is done.
    let said = board(&state, &["--listen", "127.0.0.1:0"]).await.unwrap();
    assert!(said.contains("board:    127.0.0.1:") && said.contains("host key: SHA256:"), "{said}");
    assert_eq!(said.lines().nth(1), board(&state, &["--listen", "127.0.0.1:0"]).await.unwrap().lines().nth(1));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = board(&state, &["--listen", &address]).await.unwrap_err();
    assert!(error.hint().unwrap().contains("--listen") && !error.is_usage(), "{error}");

    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel();
    let args = Typed::parse_from(["board", "--listen", "127.0.0.1:0"]).args;
    let serving = tokio::spawn(async move {
        let mut out = Vec::new();
        let (listening, shutdown) = (|says| tell.send(says).unwrap(), async { drop(stopped.await) });
        run(args, &state, &mut out, listening, shutdown).await.map(|()| String::from_utf8(out).unwrap())
    });
    let says = soon("the board", told).await.unwrap();
    let address = says.strip_prefix("listening on ").unwrap();
    let mut config = SshBoardConfig::new(address.parse().unwrap(), &folder.path().join("client"));
    (config.ssh_folder, config.agent, config.identities, config.accept_new) = (None, None, vec![key], true);
    let client = SshBoard::new(config);
    soon("the account", client.user()).await.unwrap();
    stop.send(()).unwrap();
    assert!(soon("the end", serving).await.unwrap().unwrap().contains(address));
}

#[tokio::test]
async fn a_host_key_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    board(folder.path(), &["--listen", "127.0.0.1:0"]).await.unwrap();
    let key = folder.path().join("host_key");
    let mode = std::fs::metadata(&key).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = board(folder.path(), &["--listen", "127.0.0.1:0"]).await.unwrap_err();
    assert!(error.hint().unwrap().contains("chmod 600"), "{error}");
}

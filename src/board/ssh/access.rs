//! Who we are on a board, and whether a topic let us in.

use super::{
    SshBoardConfig,
    session::{Session, printable},
};
use crate::{
    board::BoardError,
    ids::{Topic, UserName},
};

/// Asks for the name of our account.
///
/// # Errors
/// Those of [`Session::open`]; [`BoardError::Command`] when the answer is not three lines that begin with a name.
pub(super) async fn user(config: &SshBoardConfig) -> Result<UserName, BoardError> {
    let session = Session::open(config, &config.target(&config.address.account_host())).await?;
    let answer = session.command("user").await?;
    let wrong =
        |answer: String| BoardError::Command { host: session.host().to_owned(), command: "user".into(), answer };
    if answer.status.is_some_and(|status| status != 0) {
        return Err(wrong(answer.complaint()));
    }
    let name = read_user(&answer.output).ok_or_else(|| wrong(answer.complaint()))?;
    session.close().await;
    Ok(name)
}

fn read_user(output: &[u8]) -> Option<UserName> {
    let lines: Vec<&str> = std::str::from_utf8(output).ok()?.lines().map(str::trim).collect();
    match lines.as_slice() {
        [name, _, time] if time.parse::<jiff::Timestamp>().is_ok() => name.parse().ok(),
        _ => None,
    }
}

/// Looks whether a board has put us on a private topic of our own instead of the one that we asked for.
///
/// A board does so silently when the owner does not share the topic. Then `ls` shows one more client on a topic of ours,
/// `me/owner/name/…`, than it did before we joined.
#[derive(Debug)]
pub(super) struct AccessCheck {
    topic: Topic,
    before: Option<usize>,
}

impl AccessCheck {
    /// Looks before joining. There is nothing to look at for a topic of our own: those have no owner in their name.
    pub(super) async fn before(config: &SshBoardConfig, session: &Session, topic: &Topic) -> Self {
        let is_foreign = topic.as_str().matches('/').count() >= 2;
        let before = if is_foreign { private_clients(config, session, topic).await } else { None };
        Self { topic: topic.clone(), before }
    }

    /// Looks after joining. A board that does not answer is believed.
    ///
    /// # Errors
    /// [`BoardError::NoAccess`].
    pub(super) async fn after(self, config: &SshBoardConfig, session: &Session) -> Result<(), BoardError> {
        let Some(before) = self.before else { return Ok(()) };
        match private_clients(config, session, &self.topic).await {
            Some(after) if after > before => Err(BoardError::NoAccess { topic: self.topic }),
            _ => Ok(()),
        }
    }
}

/// How many clients are on our private topic of this name; `None` when the board does not say.
async fn private_clients(config: &SshBoardConfig, session: &Session, topic: &Topic) -> Option<usize> {
    let answer = match session.command("ls").await {
        Ok(answer) if !answer.output.is_empty() => answer,
        // The board may allow one command a connection.
        _ => Session::open(config, &config.target(&config.address)).await.ok()?.command("ls").await.ok()?,
    };
    let count = count_private(&answer.output, topic);
    if count.is_none() {
        tracing::debug!(
            answer = printable(&answer.output),
            "the board does not list its topics; access is not checked"
        );
    }
    count
}

/// Reads the answer to `ls`: the clients under `- account/topic:`, at least one for a topic that is there.
fn count_private(output: &[u8], topic: &Topic) -> Option<usize> {
    let text = String::from_utf8_lossy(output);
    let mut lines = text.lines().map(str::trim_end);
    match lines.next()? {
        "no pubsub channels found" => return Some(0),
        "Channel Information" => {}
        _ => return None,
    }
    let is_ours = |line: &str| {
        let name = line.strip_prefix("- ").and_then(|rest| rest.split_once(':')).map(|(name, _)| name);
        name.and_then(|name| name.split_once('/')).is_some_and(|(_, rest)| rest == topic.as_str())
    };
    let mut under = lines.skip_while(|line| !is_ours(line));
    if under.next().is_none() {
        return Some(0);
    }
    let clients = under.take_while(|line| line.starts_with(' ')).filter(|line| line.trim_start().starts_with("- "));
    Some(clients.count().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lines_are_an_account_and_nothing_else_is() {
        assert_eq!(read_user(b"alice\r\nid\r\n2026-11-22T14:03:59Z\r\n").unwrap().as_str(), "alice");
        assert_eq!(read_user(b"alice\nid\n2026-11-22T14:03:59.123+01:00\n").unwrap().as_str(), "alice");
        for answer in [&b""[..], b"alice\n", b"you have to sign up\nat\npico.sh\n", b"a b\nid\n2026-11-22T14:03:59Z\n"]
        {
            assert_eq!(read_user(answer), None);
        }
    }

    #[test]
    fn clients_of_a_private_topic_are_counted_in_listings_of_both_kinds() {
        let topic: Topic = "alice/friends/future.p2p".parse().unwrap();
        assert_eq!(count_private(b"no pubsub channels found\r\n", &topic), Some(0));
        assert_eq!(count_private(b"banner\r\n", &topic), None);
        let listing = b"Channel Information\r\n- bob/x: (Access List: alice)\r\n  Pipes:\r\n  - 1 (bob@h)\r\n\
            - bob/alice/friends/future.p2p:\r\n  Clients:\r\n  Pipes:\r\n  - 2 (bob@h)\r\n  - 3 (bob@h)\r\n- bob/y:\r\n  Pipes:\r\n  - 4\r\n";
        assert_eq!(count_private(listing, &topic), Some(2));
        assert_eq!(count_private(listing, &"alice/other/future.p2p".parse().unwrap()), Some(0));
        assert_eq!(count_private(b"Channel Information\r\n- bob/alice/friends/future.p2p:\r\n", &topic), Some(1));
    }
}

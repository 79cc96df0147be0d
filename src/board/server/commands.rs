//! What a client may ask for, and how it is answered: text in, text out.
//!
//! The forms are those of the public board, because R clients read them.

use std::fmt::Write;

use super::Identity;
use crate::{
    board::hub::{Channel, Direction},
    ids::{Topic, UserName},
};

/// The longest command, in bytes; the longest honest one is a `pipe` with an access list.
const MOST_COMMAND: usize = 32 * 1024;

/// How many accounts an access list may name.
pub const MOST_GUESTS: usize = 256;

/// The longest code that is looked at, in bytes.
const MOST_CODE: usize = 64;

/// What `help` and a session without a command say.
pub(super) const HELP: &str = "\
This is a message board for futures. Commands:
  user                              your account: name, id, time of creation
  ls                                your topics and who is on them
  pipe TOPIC [-r] [-a USER,USER...] [-c] [-p]
                                    read and write lines; -r: your own come back too;
                                    -a: who else may use your topic while you stay;
                                    -p: a public topic; -c: no status text
  pub TOPIC, sub TOPIC              write alone (until your input ends), read alone
  join CODE                         have the account that a code was made for (for keys without one)
  help                              this text
";

/// A command that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    User,
    List,
    Help,
    Join(Join),
    /// Have the account that a code was made for.
    Redeem(String),
}

/// `pipe`, `pub` or `sub` with their options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Join {
    pub(super) direction: Direction,
    pub(super) topic: Topic,
    pub(super) echo: bool,
    pub(super) shares_with: Vec<UserName>,
    pub(super) public: bool,
}

/// Reads a command; the error is a text for the client.
pub(super) fn parse(command: &[u8]) -> Result<Command, String> {
    let text = std::str::from_utf8(command).ok().filter(|text| text.len() <= MOST_COMMAND);
    let mut words = text.ok_or("the command is too long or not UTF-8")?.split_ascii_whitespace();
    match words.next() {
        None | Some("help") => Ok(Command::Help),
        Some("user") => Ok(Command::User),
        Some("ls") => Ok(Command::List),
        Some("join") => redeem(words),
        Some("pipe") => join(Direction::Pipe, words),
        Some("pub") => join(Direction::Publish, words),
        Some("sub") => join(Direction::Subscribe, words),
        Some(other) => Err(format!("unknown command {:?}; try: help", shortened(other))),
    }
}

fn join<'a>(direction: Direction, words: impl Iterator<Item = &'a str>) -> Result<Command, String> {
    let (mut topic, mut echo, mut public) = (None, false, false);
    let mut shares_with = Vec::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        match word {
            "-r" => echo = true,
            // There is no status text to leave out.
            "-c" => {}
            "-p" => public = true,
            // An empty list leaves no word behind: the client's ssh joins its arguments with spaces.
            "-a" => shares_with.extend(guests(words.next_if(|next| !next.starts_with('-')).unwrap_or_default())?),
            _ if word.starts_with("-a=") => shares_with.extend(guests(word.trim_start_matches("-a="))?),
            _ if word.starts_with('-') => return Err(format!("unknown option {:?}; try: help", shortened(word))),
            _ if topic.is_none() => topic = Some(word.parse::<Topic>().map_err(|error| error.to_string())?),
            _ => return Err("there is more than one topic; try: help".to_owned()),
        }
    }
    let topic = topic.ok_or("a topic is needed; try: help")?;
    if shares_with.len() > MOST_GUESTS {
        return Err(format!("an access list can name {MOST_GUESTS} accounts at most"));
    }
    Ok(Command::Join(Join { direction, topic, echo, shares_with, public }))
}

fn redeem<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Command, String> {
    match (words.next(), words.next()) {
        (Some(code), None) if code.len() <= MOST_CODE => Ok(Command::Redeem(code.to_owned())),
        _ => Err("a code is needed, and nothing else: join CODE".to_owned()),
    }
}

/// What somebody is told whose key has no account, whatever they asked for.
pub(super) fn no_account(fingerprint: &str) -> String {
    format!(
        "your key {fingerprint} has no account on this board\r\nif its owner gave you a code: ssh … join CODE (the same \
         host, port and key as now)\r\nif not: ask for a code, or send the owner your public key\r\n"
    )
}

fn guests(list: &str) -> Result<Vec<UserName>, String> {
    let names = list.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.parse().map_err(|error| format!("{:?}: {error}", shortened(name)))).collect()
}

fn shortened(word: &str) -> String {
    word.chars().take(40).collect()
}

/// What `user` answers: three lines and nothing else.
pub(super) fn user(identity: &Identity) -> String {
    format!("{}\n{}\n{}\n", identity.user, identity.id, identity.created)
}

/// What `ls` answers, with CRLF line ends.
pub(super) fn listing(channels: &[Channel]) -> String {
    if channels.is_empty() {
        return "no pubsub channels found\r\n".to_owned();
    }
    let mut text = "Channel Information\r\n".to_owned();
    for channel in channels {
        let names: Vec<&str> = channel.shared_with.iter().map(UserName::as_str).collect();
        let shared = if names.is_empty() { String::new() } else { format!(" (Access List: {})", names.join(", ")) };
        // Writing to a String cannot fail.
        let _ = write!(text, "- {}:{shared}\r\n", channel.name);
        for (kind, title) in [(Direction::Publish, "Pubs"), (Direction::Subscribe, "Subs"), (Direction::Pipe, "Pipes")]
        {
            let clients: Vec<&str> =
                channel.clients.iter().filter(|client| client.0 == kind).map(|client| client.1.as_str()).collect();
            if !clients.is_empty() {
                let _ = write!(text, "  {title}:\r\n  - {}\r\n", clients.join("\r\n  - "));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_that_r_clients_send_are_understood() {
        let Command::Join(join) = parse(b"pipe alice/friends/future.p2p -r -a bob,carol -c").unwrap() else { panic!() };
        assert_eq!((join.topic.as_str(), join.echo), ("alice/friends/future.p2p", true));
        assert_eq!(join.shares_with.iter().map(UserName::as_str).collect::<Vec<_>>(), ["bob", "carol"]);
        // `-a` takes the next word for its list, and no account's name holds a `/`.
        assert!(parse(b"pipe -a friends/x").is_err());
    }

    #[test]
    fn an_empty_access_list_is_an_empty_list() {
        let Command::Join(join) = parse(b"pipe friends/x -r -a").unwrap() else { panic!() };
        assert!(join.shares_with.is_empty());
        let Command::Join(join) = parse(b"pipe friends/x -a -r").unwrap() else { panic!() };
        assert!(join.echo);
    }

    #[test]
    fn other_commands_are_refused_and_never_echoed_raw() {
        for command in [&b"rm -rf /"[..], b"\x1b]0;x", b"pipe", b"pipe a b", b"pipe a -x", b"\xff", b"pipe a;b"] {
            let error = parse(command).unwrap_err();
            assert!(error.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{error}");
        }
        assert!(parse(&[b'x'; MOST_COMMAND + 1]).is_err());
        assert_eq!(parse(b"join abc"), Ok(Command::Redeem("abc".to_owned())));
        for command in [&b"join"[..], b"join a b", &[b"join ", &[b'x'; MOST_CODE + 1][..]].concat()] {
            assert!(parse(command).is_err());
        }
        assert_eq!(parse(b"  ls "), Ok(Command::List));
    }

    #[test]
    fn a_listing_has_the_form_that_r_clients_read() {
        assert_eq!(listing(&[]), "no pubsub channels found\r\n");
        let channel = Channel {
            name: "alice/friends/future.p2p".to_owned(),
            shared_with: ["carol", "bob"].iter().map(|name| name.parse().unwrap()).collect(),
            clients: vec![(Direction::Pipe, "1 (alice@192.0.2.1:5)".to_owned())],
        };
        assert_eq!(
            listing(&[channel]),
            "Channel Information\r\n- alice/friends/future.p2p: (Access List: bob, carol)\r\n  Pipes:\r\n  - 1 \
             (alice@192.0.2.1:5)\r\n"
        );
    }
}

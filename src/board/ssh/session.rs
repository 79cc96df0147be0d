//! A connection to a board, by our own SSH or by the system's: commands, and channels that carry a topic.

use std::{net::IpAddr, time::Duration};

use russh::{ChannelReadHalf, ChannelWriteHalf, client::Msg};

use super::{
    SshBoardConfig, SshChoice,
    connect::{self, Connection},
    program::{self, Program},
    settings::Target,
};
use crate::{board::BoardError, text};

/// The most that the answer to a command may have, in bytes.
const MOST_ANSWER: usize = 256 * 1024;

/// A connection that is signed in.
pub(super) enum Session {
    Own(Connection),
    System(Program),
}

impl Session {
    /// # Errors
    /// Those of [`Connection::open`]; the system's ssh is not started before there is a command.
    pub(super) async fn open(config: &SshBoardConfig, target: &Target) -> Result<Self, BoardError> {
        match &config.ssh {
            SshChoice::Own => {}
            SshChoice::Usual if !program::is_usual_for(config, target).await => {}
            SshChoice::Usual => return Ok(Self::System(Program::new(config, &program::SshProgram::default(), target))),
            SshChoice::System(program) => return Ok(Self::System(Program::new(config, program, target))),
        }
        Connection::open(config, target).await.map(Self::Own)
    }

    /// The board's name in messages.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Own(connection) => &connection.host,
            Self::System(program) => program.host(),
        }
    }

    /// From which address of this machine it goes, where that is known.
    pub(super) fn from(&self) -> Option<IpAddr> {
        match self {
            Self::Own(connection) => connection.from,
            Self::System(_) => None,
        }
    }

    /// How long the first answer may take, where that is not as usual.
    pub(super) fn patience(&self) -> Option<Duration> {
        match self {
            Self::Own(_) => None,
            Self::System(program) => Some(program.patience()),
        }
    }

    /// That a command ended when it should not have.
    pub(super) fn refused(&self, command: &str, answer: &Answer) -> BoardError {
        let failed = match self {
            Self::Own(_) => None,
            Self::System(program) => program.failure(answer),
        };
        let (host, command) = (self.host().to_owned(), command.to_owned());
        failed.unwrap_or_else(|| BoardError::Command { host, command, answer: answer.complaint() })
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// [`BoardError`]; that the command failed is no error here.
    pub(super) async fn command(&self, command: &str) -> Result<Answer, BoardError> {
        match self {
            Self::Own(connection) => connection.command(command).await,
            Self::System(program) => program.command(command).await,
        }
    }

    /// A channel on which a command runs.
    ///
    /// # Errors
    /// [`BoardError`].
    pub(super) async fn channel(&self, command: &str) -> Result<Channel, BoardError> {
        match self {
            Self::Own(connection) => connection.channel(command).await,
            Self::System(program) => program.channel(command).await,
        }
    }

    /// Says goodbye, so that the board knows at once.
    pub(super) async fn close(self) {
        if let Self::Own(connection) = self {
            connection.close().await;
        }
    }
}

/// Both halves of a channel.
pub(super) struct Channel {
    pub(super) read: Reading,
    pub(super) write: Writing,
}

/// What comes from a channel.
pub(super) enum Reading {
    Own(ChannelReadHalf),
    System(Box<program::Output>),
}

/// Something that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Output(Vec<u8>),
    Errors(Vec<u8>),
    Status(u32),
    /// Nothing more comes, because the board wants it so.
    Closed,
    Nothing,
}

impl Reading {
    /// The next thing; `None` when the connection has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Said> {
        match self {
            Self::Own(half) => half.wait().await.map(connect::said),
            Self::System(output) => output.next().await,
        }
    }
}

/// What goes into a channel.
pub(super) enum Writing {
    Own(ChannelWriteHalf<Msg>),
    System(program::Input),
}

impl Writing {
    /// # Errors
    /// Whatever broke the connection.
    pub(super) async fn send(&mut self, data: Vec<u8>) -> Result<(), russh::Error> {
        match self {
            Self::Own(half) => half.data_bytes(data).await,
            Self::System(input) => input.send(&data).await.map_err(russh::Error::IO),
        }
    }
}

/// What a command printed and how it ended.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) output: Vec<u8>,
    pub(super) errors: Vec<u8>,
    pub(super) status: Option<u32>,
}

impl Answer {
    /// Takes in what came; false when there will be no more.
    pub(super) fn take(&mut self, said: &Said) -> bool {
        match said {
            Said::Output(data) => append(&mut self.output, data),
            Said::Errors(data) => append(&mut self.errors, data),
            Said::Status(status) => self.status = Some(*status),
            Said::Closed => return false,
            Said::Nothing => {}
        }
        true
    }

    /// The end of what it said about a failure, for a person.
    pub(super) fn complaint(&self) -> String {
        let said = if self.errors.is_empty() { &self.output } else { &self.errors };
        let printable = printable(said);
        match (printable.is_empty(), self.status) {
            (false, _) => printable,
            (true, Some(status)) => format!("exit status {status}"),
            (true, None) => "no answer".to_owned(),
        }
    }
}

fn append(to: &mut Vec<u8>, data: &[u8]) {
    to.extend(data.iter().take(MOST_ANSWER.saturating_sub(to.len())));
}

/// The beginning of a text of the board's on one line, safe for a terminal.
pub(super) fn printable(answer: &[u8]) -> String {
    let beginning = String::from_utf8_lossy(answer.get(..1000).unwrap_or(answer)).into_owned();
    let words: Vec<&str> = beginning.split_whitespace().collect();
    text::for_log(&words.join(" "), 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_board_says_is_harmless_on_a_terminal() {
        assert_eq!(printable(b"\x1b]0;x\x07 no\r\n such\ttopic \xff"), "␛]0;x␇ no such topic \u{fffd}");
        assert_eq!(printable(&[b'x'; 5000]).chars().count(), 201);
    }
}

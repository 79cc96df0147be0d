//! How a command fails: an exit status that is the same everywhere, a chain of causes, a line that says what to do.

use std::{error::Error, process::ExitCode};

use crate::{
    board::BoardError, config::ConfigError, error_chain, runner::WorkbenchError, sandbox::SandboxError, text,
    transfer::TransferError,
};

/// The exit statuses, documented in the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The R code failed.
    Code = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// The sandbox cannot be enforced here; nothing was run.
    Sandbox = 3,
    /// The task was stopped by a limit or on request.
    Stopped = 4,
    /// The board or a transfer failed.
    Network = 5,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// Why a command ended without success.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub status: Status,
    /// The causes. `None` where everything has been said already.
    pub error: Option<Box<dyn Error + Send + Sync>>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with this cause.
    pub fn new(status: Status, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { status, error: Some(error.into()), hint: None }
    }

    /// Only an exit status: what there was to say has been printed.
    #[must_use]
    pub fn silent(status: Status) -> Self {
        Self { status, error: None, hint: None }
    }

    /// With a line that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The whole message, as `main` prints it: the chain of causes, then the hint. Whatever a stranger's machine
    /// contributed to it is made harmless for a terminal.
    #[must_use]
    pub fn message(&self) -> Option<String> {
        let error = self.error.as_deref()?;
        let chain = error_chain(error);
        let hint = self.hint.as_deref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        Some(text::for_terminal(&format!("p2p-worker: {chain}{hint}")))
    }
}

macro_rules! fails_with {
    ($($error:ty => $status:expr),+ $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new($status, error)
            }
        })+
    };
}

fails_with! {
    ConfigError => Status::Usage,
    TransferError => Status::Network,
}

impl From<BoardError> for Failure {
    fn from(error: BoardError) -> Self {
        let hint = error.hint();
        let status = if error.is_configuration() { Status::Usage } else { Status::Network };
        Self { hint, ..Self::new(status, error) }
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        Self::new(if error.is_not_enforced() { Status::Sandbox } else { Status::Usage }, error)
    }
}

impl From<WorkbenchError> for Failure {
    fn from(error: WorkbenchError) -> Self {
        let status = match &error {
            WorkbenchError::Sandbox(error) if error.is_not_enforced() => Status::Sandbox,
            WorkbenchError::Refused(_) => Status::Sandbox,
            WorkbenchError::Interrupted => Status::Stopped,
            // A result that nobody can show is one that did not come.
            WorkbenchError::Scan(_) | WorkbenchError::Show(_) | WorkbenchError::Replay(_) => Status::Network,
            _ => Status::Usage,
        };
        Self::new(status, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_chain_and_a_hint_without_escapes() {
        let error = ConfigError::Name {
            flag: "cluster",
            value: "\u{1b}[31m".to_owned(),
            source: "x".parse::<crate::ids::ClusterName>().unwrap_err(),
        };
        let message = Failure::from(error).hint("try alice/friends").message().unwrap();
        assert!(!message.contains('\u{1b}'), "{message:?}");
        assert!(message.ends_with("a cluster's name must look like owner/name\nhint: try alice/friends"), "{message}");
    }
}

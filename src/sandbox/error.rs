//! Why nothing can be started in the sandbox that was asked for.

use std::{fmt::Write, io};

use super::{Driver, Enforcement, Layer, MachineError, PlanError, ProfileError};

/// Why nothing can be started in the sandbox that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Required layers do not hold on this machine. Exit status 3.
    #[error(
        "the profile {profile} cannot be enforced here by the driver {driver}, so nothing is run:{}",
        list(missing)
    )]
    NotEnforced {
        /// The driver.
        driver: Driver,
        /// The profile's name.
        profile: String,
        /// The layers that do not hold and are required.
        missing: Vec<(Layer, Enforcement)>,
    },
    /// The profile does not allow the driver `none`. Exit status 3.
    #[error("the profile {profile} is never run without a sandbox; use --profile standard with --sandbox none")]
    WithoutSandbox {
        /// The profile's name.
        profile: String,
    },
    /// No such driver.
    #[error("no sandbox driver is named {name:?}; known: jail, bubblewrap, none")]
    UnknownDriver {
        /// What was asked for.
        name: String,
    },
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// This machine lacks something basic.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The driver cannot plan this.
    #[error("the task cannot be put into the sandbox")]
    Plan(#[from] PlanError),
    /// The folder of the driver `none`.
    #[error("cannot make the folder for the task's files")]
    BareFolder {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SandboxError {
    /// Whether this means that the sandbox cannot be enforced here (exit status 3), and not a wrong configuration (2).
    #[must_use]
    pub fn is_not_enforced(&self) -> bool {
        match self {
            Self::NotEnforced { .. } | Self::WithoutSandbox { .. } => true,
            // No p2p-jail, no /proc: nothing can be enforced. That tasks were to be root's is a mistake of the owner's.
            Self::Machine(error) => !matches!(error, MachineError::RootTasks),
            Self::Plan(error) => matches!(
                error,
                PlanError::NoBubblewrap | PlanError::OldBubblewrap { .. } | PlanError::NoInternet { .. }
            ),
            _ => false,
        }
    }
}

/// One line for each reason, with the layers that share it.
fn list(missing: &[(Layer, Enforcement)]) -> String {
    let mut reasons: Vec<(&Enforcement, Vec<String>)> = Vec::new();
    for (layer, state) in missing {
        match reasons.iter_mut().find(|(known, _)| *known == state) {
            Some((_, layers)) => layers.push(layer.to_string()),
            None => reasons.push((state, vec![layer.to_string()])),
        }
    }
    let mut text = String::new();
    for (state, layers) in reasons {
        let (word, detail) = state.in_words();
        let _ = write!(text, "\n  {} {word}: {detail}", layers.join(", "));
    }
    text
}

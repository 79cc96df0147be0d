//! What the owner sees of a running program: the log on stderr, and what [`notify`] tells the manager of services.
//!
//! Under systemd the journal adds the time; on a terminal a line begins with it. What is logged of a peer's text goes
//! through [`crate::text`] first.

pub mod notify;

use std::{
    fmt,
    io::{self, IsTerminal},
};

use tracing_subscriber::{
    EnvFilter,
    fmt::{format::Writer, time::FormatTime},
};

use crate::clock;

struct LocalTime;

impl FormatTime for LocalTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", clock::local_time())
    }
}

/// Starts the log: `P2P_WORKER_LOG` (`debug`, `p2p_worker::board=trace`, …), else `default` for our own modules and
/// warnings of everybody else's.
pub fn start(default: &str) {
    let wanted = std::env::var("P2P_WORKER_LOG").unwrap_or_else(|_| default.to_owned());
    // A bare level is for our own modules: the network's say more than anybody wants to know.
    let is_level = wanted.chars().all(|c| c.is_ascii_alphabetic());
    let directives = if is_level { format!("error,p2p_worker={wanted}") } else { wanted };
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("error,p2p_worker=info"));
    let terminal = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // A second start (a test that runs commands in one process) keeps the first log.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() && !terminal {
        log.without_time().with_ansi(false).try_init()
    } else {
        // https://no-color.org
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        log.with_timer(LocalTime).with_ansi(colours).try_init()
    };
}

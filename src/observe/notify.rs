//! Telling the manager of services how the service is: sd_notify(3), without its library.
//!
//! A datagram of lines `NAME=value` to the socket that `$NOTIFY_SOCKET` names, in the file system or, with an `@`, in the
//! abstract namespace. Where nobody asked for it, nothing is sent. That it cannot be sent is never a reason to stop: the
//! manager notices by itself, and stops a service that it does not hear from.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// The most characters of a status that are sent.
const MOST_STATUS: usize = 200;

/// Whoever manages this service.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    watchdog: Option<Duration>,
}

/// What a service says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It does what it is for, from now on.
    Ready,
    /// It ends, in good order, for which it may need this long.
    Stopping(Duration),
    /// It is alive.
    Alive,
    /// A line for people.
    Status(String),
}

impl Manager {
    /// The manager that the environment names; `None` without one, or where it cannot be reached.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let address = env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty())?;
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        // Meant for this process, and not for the one that started it (sd_watchdog_enabled(3)).
        let mine = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|time| mine && *time > 0).map(Duration::from_micros);
        Self::connect(&address, watchdog)
            .inspect_err(|error| tracing::warn!(%address, %error, "the manager of services cannot be told anything"))
            .ok()
    }

    /// The manager that listens at an address as in `$NOTIFY_SOCKET`.
    pub(crate) fn connect(address: &str, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A manager that does not read must not stop us.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, watchdog })
    }

    /// How often [`Notice::Alive`] must come: in half the time after which the manager ends the service (`WatchdogSec=`).
    #[must_use]
    pub fn every(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// Tells it all of these at once.
    pub fn tell(&self, notices: &[Notice]) {
        let lines: Vec<String> = notices.iter().map(Notice::line).collect();
        if let Err(error) = self.socket.send(lines.join("\n").as_bytes()) {
            tracing::debug!(%error, "the manager of services was not told");
        }
    }
}

impl Notice {
    fn line(&self) -> String {
        match self {
            Self::Ready => "READY=1".to_owned(),
            Self::Stopping(time) => format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", time.as_micros()),
            Self::Alive => "WATCHDOG=1".to_owned(),
            Self::Status(text) => format!("STATUS={}", crate::text::for_log(text, MOST_STATUS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_hears_what_it_is_told_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify").display().to_string();
        let name = format!("p2p-worker-test-{}", std::process::id());
        let manager = UnixDatagram::bind(&path).unwrap();
        let abstracted = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (address, socket) in [(path, manager), (format!("@{name}"), abstracted)] {
            let to = Manager::connect(&address, Some(Duration::from_secs(60))).unwrap();
            assert_eq!(to.every(), Some(Duration::from_secs(30)));
            to.tell(&[Notice::Ready, Notice::Status("a line\nREADY=0".to_owned())]);
            let said = heard(&socket);
            assert!(said.starts_with("READY=1\nSTATUS=a line") && said.lines().count() == 2, "{said}");
            to.tell(&[Notice::Alive]);
            assert_eq!(heard(&socket), "WATCHDOG=1");
            to.tell(&[Notice::Stopping(Duration::from_secs(2))]);
            assert_eq!(heard(&socket), "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000");
        }
        assert!(Manager::connect("/nonexistent/notify", None).is_err());
    }

    #[test]
    fn a_manager_that_does_not_listen_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let to = Manager::connect(path.to_str().unwrap(), None).unwrap();
        // More than any queue of datagrams holds.
        (0..10_000).for_each(|_| to.tell(&[Notice::Alive]));
        drop(manager);
        to.tell(&[Notice::Alive]);
    }
}

//! Where the mailbox server and the relay are, as a person writes it.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use p2p_wormhole_contract::message::Host;

/// The longest host name, in bytes (RFC 1035).
const LONGEST_NAME: usize = 253;
/// The longest path of a mailbox server's URL, in bytes.
const LONGEST_PATH: usize = 255;

/// Why a text is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// TLS is not spoken.
    #[error(
        "{0} is a mailbox server with TLS, which is not supported; what passes through it is encrypted without, so use its ws:// address"
    )]
    Tls(String),
    /// Not a URL of a mailbox server.
    #[error("{0} is not the URL of a mailbox server; write it like ws://relay.magic-wormhole.io:4000/v1")]
    Mailbox(String),
    /// Not the address of a relay.
    #[error("{0} is not the address of a transit relay; write it like tcp:transit.magic-wormhole.io:4001")]
    Relay(String),
}

/// A mailbox server, `ws://host:port/path`. Without a port it is 80 (RFC 6455).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxUrl {
    /// Name or address, and port.
    pub(super) host: Host,
    /// From the `/` on.
    pub(super) path: String,
}

impl Default for MailboxUrl {
    /// The public one, `ws://relay.magic-wormhole.io:4000/v1`.
    fn default() -> Self {
        let host = Host { name: "relay.magic-wormhole.io".to_owned(), port: 4000 };
        Self { host, path: "/v1".to_owned() }
    }
}

impl FromStr for MailboxUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Mailbox(text.escape_debug().take(LONGEST_NAME).collect());
        if text.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("wss://")) {
            return Err(AddressError::Tls(text.escape_debug().take(LONGEST_NAME).collect()));
        }
        let rest = text.strip_prefix("ws://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).ok_or_else(wrong)?;
        let host = host(authority, Some(80)).ok_or_else(wrong)?;
        let fine = |c: char| c.is_ascii_graphic() && c != '#';
        if path.len() > LONGEST_PATH || !path.chars().all(fine) {
            return Err(wrong());
        }
        Ok(Self { host, path: if path.is_empty() { "/".to_owned() } else { path.to_owned() } })
    }
}

impl fmt::Display for MailboxUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}{}", authority(&self.host), self.path)
    }
}

/// A transit relay, `tcp:host:port`; `tcp://host:port` and `host:port` are understood too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayAddress(pub(super) Host);

impl Default for RelayAddress {
    /// The public one, `tcp:transit.magic-wormhole.io:4001`.
    fn default() -> Self {
        Self(Host { name: "transit.magic-wormhole.io".to_owned(), port: 4001 })
    }
}

impl FromStr for RelayAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = text.strip_prefix("tcp:").unwrap_or(text);
        let found = host(rest.strip_prefix("//").unwrap_or(rest), None).map(Self);
        found.ok_or_else(|| AddressError::Relay(text.escape_debug().take(LONGEST_NAME).collect()))
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp:{}", authority(&self.0))
    }
}

pub(super) fn authority(host: &Host) -> String {
    let Host { name, port } = host;
    if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
}

/// `name:port`, `1.2.3.4:port` or `[::1]:port`.
fn host(text: &str, default_port: Option<u16>) -> Option<Host> {
    let (name, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            (address.parse::<Ipv6Addr>().ok()?.to_string(), rest)
        }
        None => {
            let (name, rest) = text.split_at_checked(text.find(':').unwrap_or(text.len()))?;
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let named = (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(fine);
            (named.then(|| name.to_owned())?, rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None => rest.is_empty().then_some(default_port)??,
    };
    (port != 0).then_some(Host { name, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_their_text_form() {
        for text in
            ["ws://relay.magic-wormhole.io:4000/v1", "ws://127.0.0.1:4000/v1", "ws://[::1]:4000/", "ws://x:1/a?b"]
        {
            assert_eq!(text.parse::<MailboxUrl>().unwrap().to_string(), text);
        }
        assert_eq!("ws://x".parse::<MailboxUrl>().unwrap().to_string(), "ws://x:80/");
        for text in ["tcp:transit.magic-wormhole.io:4001", "tcp:[::1]:4001"] {
            assert_eq!(text.parse::<RelayAddress>().unwrap().to_string(), text);
        }
        assert_eq!("tcp://x:1".parse::<RelayAddress>(), "x:1".parse());
        assert_eq!(MailboxUrl::default(), MailboxUrl::default().to_string().parse().unwrap());
        assert_eq!(RelayAddress::default(), RelayAddress::default().to_string().parse().unwrap());
    }

    #[test]
    fn what_is_none_is_refused_with_an_example() {
        for text in ["", "http://x", "ws://", "ws://a b:1", "ws://u@x:1", "ws://x:0", "ws://x:1/\u{1b}", "ws://[::1"] {
            assert!(matches!(text.parse::<MailboxUrl>(), Err(AddressError::Mailbox(_))), "{text:?}");
        }
        assert!(matches!("wss://x/v1".parse::<MailboxUrl>(), Err(AddressError::Tls(_))));
        for text in ["", "x", "tcp:x", "udp:x:1", "tcp:x:70000"] {
            assert!(matches!(text.parse::<RelayAddress>(), Err(AddressError::Relay(_))), "{text:?}");
        }
    }
}

//! The messages of Magic-Wormhole's file transfer (version 1), JSON on the mailbox: what they look like, and nothing else.
//!
//! Source: magic-wormhole-protocols, `file-transfer-protocol.md` and `transit.md`. Everything in a letter of the peer may be
//! missing, and what is unknown is left out.

use std::net::{IpAddr, SocketAddr};

use p2p_wormhole_contract::message::{Failure, Host, MAX_RELAYS, Offered};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::Value;

use crate::{addresses::MOST, failure::bounded};

/// The most hints of a letter that are looked at.
const MOST_HINTS: usize = 64;
/// The longest host name (RFC 1035).
const LONGEST_NAME: usize = 253;
/// The only file name that is ever sent. Those that come are not even read.
const FILE_NAME: &str = "future.rds";

/// One message of the peer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Letter {
    pub(crate) transit: Option<TransitLetter>,
    pub(crate) offer: Option<Offer>,
    pub(crate) answer: Option<Answer>,
    pub(crate) error: Option<String>,
}

/// How the peer can be reached.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct TransitLetter {
    #[serde(rename = "hints-v1")]
    hints: Option<Vec<Value>>,
}

/// What the peer has.
#[derive(Debug, Deserialize)]
pub(crate) struct Offer {
    file: Option<FileOffer>,
    directory: Option<IgnoredAny>,
    message: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct FileOffer {
    filesize: Value,
}

/// What the peer says to an offer.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    file_ack: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Hint {
    #[serde(rename = "type")]
    kind: String,
    // wormhole-william writes null where another one leaves it out.
    hostname: Option<String>,
    port: Option<u16>,
    hints: Option<Vec<Value>>,
}

impl Letter {
    /// Takes bytes for a letter.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(bytes).map_err(|error| Failure::Protocol(bounded(&format!("not a message: {error}"))))
    }
}

impl Offer {
    /// The bytes of the one file that is offered.
    pub(crate) fn size(&self) -> Result<u64, Failure> {
        match self {
            Self { file: Some(file), .. } => {
                let size = file.filesize.as_u64();
                size.ok_or_else(|| Failure::Protocol(bounded(&format!("a file of {} bytes", file.filesize))))
            }
            Self { directory: Some(_), .. } => Err(Failure::Offer(Offered::Folder)),
            Self { message: Some(_), .. } => Err(Failure::Offer(Offered::Text)),
            _ => Err(Failure::Offer(Offered::Unknown)),
        }
    }
}

impl Answer {
    /// Whether the peer takes the file.
    pub(crate) fn takes_file(&self) -> bool {
        self.file_ack.as_deref() == Some("ok")
    }
}

impl TransitLetter {
    /// Where the peer says that it can be reached directly: addresses only, since names would be looked up for a stranger.
    pub(crate) fn direct(&self) -> Vec<SocketAddr> {
        let hosts = self.hints().filter(|hint| hint.kind == "direct-tcp-v1").filter_map(|hint| hint.host());
        let address = |host: Host| Some(SocketAddr::new(host.name.parse::<IpAddr>().ok()?, host.port));
        hosts.filter_map(address).take(MOST).collect()
    }

    /// The relays that the peer uses.
    pub(crate) fn relays(&self) -> Vec<Host> {
        let relays = self.hints().filter(|hint| hint.kind == "relay-v1");
        let inner = relays.flat_map(|relay| relay.hints.into_iter().flatten().take(MOST_HINTS).filter_map(read_hint));
        inner.filter(|hint| hint.kind == "direct-tcp-v1").filter_map(|hint| hint.host()).take(MAX_RELAYS).collect()
    }

    fn hints(&self) -> impl Iterator<Item = Hint> {
        self.hints.iter().flatten().take(MOST_HINTS).cloned().filter_map(read_hint)
    }
}

fn read_hint(hint: Value) -> Option<Hint> {
    serde_json::from_value(hint).ok()
}

impl Hint {
    /// Name and port, where they can be some.
    fn host(&self) -> Option<Host> {
        let name = self.hostname.as_deref()?;
        let port = self.port.filter(|port| *port != 0)?;
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
        let named = (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(fine);
        named.then(|| Host { name: name.to_owned(), port })
    }
}

#[derive(Serialize)]
struct DirectHint<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    hostname: &'a str,
    port: u16,
    priority: f32,
}

fn direct_hint(hostname: &str, port: u16) -> Value {
    serde_json::to_value(DirectHint { kind: "direct-tcp-v1", hostname, port, priority: 0.0 }).unwrap_or_default()
}

/// Our way to be reached.
pub(crate) fn transit(direct: bool, addresses: &[SocketAddr], relayed: bool, relays: &[&Host]) -> Value {
    let abilities = [(direct, "direct-tcp-v1"), (relayed, "relay-v1")];
    let abilities: Vec<Value> =
        abilities.iter().filter(|(able, _)| *able).map(|(_, kind)| serde_json::json!({ "type": kind })).collect();
    let direct = addresses.iter().map(|address| direct_hint(&address.ip().to_string(), address.port()));
    let relays = relays
        .iter()
        .map(|host| serde_json::json!({ "type": "relay-v1", "hints": [direct_hint(&host.name, host.port)] }));
    let hints: Vec<Value> = direct.chain(relays).collect();
    serde_json::json!({ "transit": { "abilities-v1": abilities, "hints-v1": hints } })
}

/// Our offer.
pub(crate) fn offer(size: u64) -> Value {
    serde_json::json!({ "offer": { "file": { "filename": FILE_NAME, "filesize": size } } })
}

/// Our consent.
pub(crate) fn consent() -> Value {
    serde_json::json!({ "answer": { "file_ack": "ok" } })
}

/// Why we give up.
pub(crate) fn error(why: &str) -> Value {
    serde_json::json!({ "error": why })
}

/// The receiver's last word, on the transit connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) ack: String,
    #[serde(default)]
    pub(crate) sha256: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(value: Value) -> Letter {
        Letter::read(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_we_say_of_ourselves_is_understood() {
        let address = "10.0.0.1:7".parse().unwrap();
        let host = Host { name: "relay.example".to_owned(), port: 4001 };
        let said = letter(transit(true, &[address], true, &[&host])).transit.unwrap();
        assert_eq!(said.direct(), [address]);
        assert_eq!(said.relays(), [host]);
        assert_eq!(letter(offer(5)).offer.unwrap().size(), Ok(5));
        assert!(letter(consent()).answer.unwrap().takes_file());
        assert_eq!(letter(error("no")).error.unwrap(), "no");
    }

    #[test]
    fn only_a_file_of_a_size_is_an_offer() {
        let of = |offer: Value| letter(serde_json::json!({ "offer": offer })).offer.unwrap().size();
        assert_eq!(of(serde_json::json!({ "message": "hi" })), Err(Failure::Offer(Offered::Text)));
        let folder = serde_json::json!({ "directory": { "mode": "zipfile/deflated", "dirname": "x", "zipsize": 1 } });
        assert_eq!(of(folder), Err(Failure::Offer(Offered::Folder)));
        assert_eq!(of(serde_json::json!({})), Err(Failure::Offer(Offered::Unknown)));
        for size in [serde_json::json!(-1), serde_json::json!("1"), serde_json::json!(1.5), serde_json::json!(1e30)] {
            let file = serde_json::json!({ "file": { "filename": "../x", "filesize": size } });
            assert!(matches!(of(file), Err(Failure::Protocol(_))));
        }
    }

    #[test]
    fn hints_that_are_none_are_left_out() {
        let hints = serde_json::json!([
            1, {}, { "type": "tor-tcp-v1", "hostname": "x.onion", "port": 1 },
            { "type": "direct-tcp-v1", "hostname": "a name", "port": 1 },
            { "type": "direct-tcp-v1", "hostname": "example.org", "port": 1 },
            { "type": "direct-tcp-v1", "hostname": "1.2.3.4", "port": 70000 },
            { "type": "direct-tcp-v1", "hostname": "1.2.3.4", "port": 0 },
            { "type": "direct-tcp-v1", "hostname": "1.2.3.4", "port": 5, "priority": 0.5, "hints": null },
            { "type": "relay-v1", "hints": [{ "type": "direct-tcp-v1", "hostname": "r\u{1b}", "port": 1 }, 7] },
        ]);
        let said = letter(serde_json::json!({ "transit": { "hints-v1": hints } })).transit.unwrap();
        assert_eq!(said.direct(), ["1.2.3.4:5".parse().unwrap()]);
        assert!(said.relays().is_empty());
    }
}

//! The messages on a board: one line of `key=value` pairs joined by `,`, without quoting, so no value holds `,` or `=`.
//!
//! The keys and their order are those of the R package future.p2p, whose peers ignore keys that they do not know. Ours
//! add `peer` to an offer (the worker's libp2p peer id) and `at` to an accept (the client's addresses).

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{
    clock::Timestamp,
    ids::{Address, ClaimCode, FutureId, IdError, NodeId, PeerName, Ticket, Word},
};

/// The protocol name of our libp2p transfer in a `protocols` list.
pub const LIBP2P: &str = "libp2p";

/// That of R peers.
pub const WORMHOLE: &str = "wormhole";

/// How far in the future an `expires` may lie; beyond it the line is absurd. R clients say hello for an hour.
pub const LONGEST_VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// The most addresses taken from one `accept`.
pub const MAX_ADDRESSES: usize = 16;

/// The most pairs in one line.
const MAX_PAIRS: usize = 32;

/// Who says hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Resolves futures.
    Worker,
    /// Posts futures.
    Client,
    /// Hosts the cluster.
    Cluster,
}

/// By which transfer a future and its result travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// Ours: the client's peer id, and a ticket for the worker that was accepted.
    Libp2p {
        /// The client's peer id.
        node: NodeId,
        /// What the worker shows.
        ticket: Ticket,
    },
    /// Magic wormhole, as R peers do; the code without its suffix.
    Wormhole {
        /// Drawn by the client for this accept.
        code: ClaimCode,
    },
}

impl Via {
    /// The transfer's name.
    #[must_use]
    pub fn transfer(&self) -> &'static str {
        match self {
            Self::Libp2p { .. } => LIBP2P,
            Self::Wormhole { .. } => WORMHOLE,
        }
    }
}

/// A message. `from` is whatever its sender wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A peer is there.
    Hello {
        /// As what.
        role: Role,
        /// Who.
        from: PeerName,
        /// Which transfers it knows.
        protocols: Protocols,
        /// What it says of itself.
        about: About,
    },
    /// A client has this future.
    Request {
        /// The client.
        from: PeerName,
        /// The future.
        future: FutureId,
        /// Bytes of its RDS.
        size: u64,
        /// Which transfers the client knows.
        protocols: Protocols,
    },
    /// A worker would take it.
    Offer {
        /// The worker.
        from: PeerName,
        /// The client.
        to: PeerName,
        /// The future.
        future: FutureId,
        /// Which transfers the worker knows.
        protocols: Protocols,
        /// The worker's libp2p peer id.
        peer: Option<NodeId>,
    },
    /// The client chose this worker.
    Accept {
        /// The client.
        from: PeerName,
        /// The worker.
        to: PeerName,
        /// The future.
        future: FutureId,
        /// How it travels.
        via: Via,
        /// Where the client listens.
        at: Vec<Address>,
    },
    /// The worker is about to send the result.
    Result {
        /// The worker.
        from: PeerName,
        /// The client.
        to: PeerName,
        /// The future.
        future: FutureId,
        /// How it travels: what the accept said.
        via: Via,
    },
    /// The client no longer wants it.
    Withdraw {
        /// The client.
        from: PeerName,
        /// The worker, where one was accepted.
        to: Option<PeerName>,
        /// The future.
        future: FutureId,
    },
}

/// The transfers that a peer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protocols {
    /// Ours.
    pub libp2p: bool,
    /// That of R peers.
    pub wormhole: bool,
}

/// What a worker says of itself beside its protocols; R peers neither write nor read it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// The version of its R.
    pub r: Option<Word>,
    /// Who makes its sandbox.
    pub driver: Option<Word>,
    /// The name of its profile.
    pub profile: Option<Word>,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { r, driver, profile } = self;
        let said = [("r", r), ("driver", driver), ("profile", profile)];
        said.iter().try_for_each(|(key, word)| word.iter().try_for_each(|word| write!(f, ",{key}={word}")))
    }
}

/// Why a line is not a message. None of them is worth more than a counter: anybody can write anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It does not begin with `when=`; such lines are for nobody, or for a person.
    #[error("not a message")]
    NotAMessage,
    /// It is not ASCII text, or not in pairs.
    #[error("malformed line")]
    Malformed,
    /// A key comes twice.
    #[error("a key is repeated")]
    Repeated,
    /// A key is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value is not of its form.
    #[error("{key} is not of its form")]
    Value {
        /// Whose value.
        key: &'static str,
    },
    /// It is no longer valid.
    #[error("expired")]
    Expired,
    /// It claims to be valid for more than [`LONGEST_VALIDITY`].
    #[error("absurd time of expiry")]
    Absurd,
    /// A type that nobody told us of.
    #[error("unknown type")]
    UnknownType,
}

/// A message that was read, with the time until which it is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub message: Message,
    /// Until when. A `withdraw` has none.
    pub expires: Option<Timestamp>,
}

/// The pairs of one line.
struct Pairs<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Pairs<'a> {
    fn read(line: &'a [u8]) -> Result<Self, LineError> {
        if !line.starts_with(b"when=") {
            return Err(LineError::NotAMessage);
        }
        let text = std::str::from_utf8(line).map_err(|_| LineError::Malformed)?;
        let mut pairs = BTreeMap::new();
        for pair in text.split(',') {
            let (key, value) = pair.split_once('=').ok_or(LineError::Malformed)?;
            if value.contains('=') || pairs.len() >= MAX_PAIRS {
                return Err(LineError::Malformed);
            }
            if pairs.insert(key, value).is_some() {
                return Err(LineError::Repeated);
            }
        }
        Ok(Self(pairs))
    }

    fn text(&self, key: &'static str) -> Result<&'a str, LineError> {
        self.0.get(key).copied().ok_or(LineError::Missing(key))
    }

    fn id<T: std::str::FromStr<Err = IdError>>(&self, key: &'static str) -> Result<T, LineError> {
        self.text(key)?.parse().map_err(|_| LineError::Value { key })
    }

    fn number(&self, key: &'static str) -> Result<u64, LineError> {
        let text = self.text(key)?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or(LineError::Value { key })
    }

    /// When the line expires, checked against the clock. R writes whole seconds.
    fn expires(&self, now: Timestamp) -> Result<Timestamp, LineError> {
        let expires = Timestamp::from_unix_seconds(self.number("expires")?);
        if expires <= now {
            Err(LineError::Expired)
        } else if expires > now + LONGEST_VALIDITY {
            Err(LineError::Absurd)
        } else {
            Ok(expires)
        }
    }

    fn protocols(&self) -> Protocols {
        let list = self.0.get("protocols").copied().unwrap_or_default();
        let has = |name| list.split(';').any(|protocol| protocol == name);
        Protocols { libp2p: has(LIBP2P), wormhole: has(WORMHOLE) }
    }

    fn via(&self) -> Result<Via, LineError> {
        let wrong = LineError::Value { key: "via" };
        let (scheme, rest) = self.text("via")?.split_once("://").ok_or(wrong.clone())?;
        match scheme {
            LIBP2P => {
                let (node, ticket) = rest.split_once('/').ok_or(wrong.clone())?;
                let node = node.parse().map_err(|_| wrong.clone())?;
                Ok(Via::Libp2p { node, ticket: ticket.parse().map_err(|_| wrong)? })
            }
            WORMHOLE => Ok(Via::Wormhole { code: rest.parse().map_err(|_| wrong)? }),
            _ => Err(wrong),
        }
    }

    /// What is not of its form is not said: it is for people alone.
    fn about(&self) -> About {
        let word = |key| self.0.get(key).and_then(|text| text.parse().ok());
        About { r: word("r"), driver: word("driver"), profile: word("profile") }
    }

    fn addresses(&self) -> Result<Vec<Address>, LineError> {
        let list = self.0.get("at").copied().unwrap_or_default();
        let wrong = |_| LineError::Value { key: "at" };
        list.split(';').filter(|text| !text.is_empty()).take(MAX_ADDRESSES).map(|a| a.parse().map_err(wrong)).collect()
    }
}

impl Received {
    /// Reads one line, without its end.
    ///
    /// # Errors
    /// Any of [`LineError`]; never panics, whatever the bytes.
    pub fn read(line: &[u8], now: Timestamp) -> Result<Self, LineError> {
        let pairs = Pairs::read(line)?;
        let from = pairs.id("from")?;
        let kind = pairs.text("type")?;
        let expires = if kind == "withdraw" { None } else { Some(pairs.expires(now)?) };
        let protocols = pairs.protocols();
        let hello = |role, from| Message::Hello { role, from, protocols, about: pairs.about() };
        let message = match kind {
            "worker" => hello(Role::Worker, from),
            "client" => hello(Role::Client, from),
            "cluster" => hello(Role::Cluster, from),
            "request" => Message::Request { from, future: pairs.id("future")?, size: pairs.number("size")?, protocols },
            "offer" => {
                let peer = pairs.0.contains_key("peer").then(|| pairs.id("peer")).transpose()?;
                Message::Offer { from, to: pairs.id("to")?, future: pairs.id("future")?, protocols, peer }
            }
            "accept" => {
                let (via, at) = (pairs.via()?, pairs.addresses()?);
                Message::Accept { from, to: pairs.id("to")?, future: pairs.id("future")?, via, at }
            }
            "result" => Message::Result { from, to: pairs.id("to")?, future: pairs.id("future")?, via: pairs.via()? },
            "withdraw" => {
                let to = pairs.0.contains_key("to").then(|| pairs.id("to")).transpose()?;
                Message::Withdraw { from, to, future: pairs.id("future")? }
            }
            _ => return Err(LineError::UnknownType),
        };
        Ok(Self { message, expires })
    }
}

impl Message {
    /// The line that says this, without its end. `when` is local time as `2026-11-22T14:03:59`.
    #[must_use]
    pub fn to_line(&self, when: &str, expires: Timestamp) -> String {
        let until = format!("when={when},expires={}", expires.unix_seconds());
        match self {
            Self::Hello { role, from, protocols, about } => {
                format!("{until},type={role},from={from},protocols={protocols}{about}")
            }
            Self::Request { from, future, size, protocols } => {
                format!("{until},type=request,from={from},future={future},size={size},protocols={protocols}")
            }
            Self::Offer { from, to, future, protocols, peer } => {
                let peer = peer.as_ref().map(|node| format!(",peer={node}")).unwrap_or_default();
                format!("{until},type=offer,from={from},to={to},future={future},protocols={protocols}{peer}")
            }
            Self::Accept { from, to, future, via, at } => {
                let at: Vec<&str> = at.iter().take(MAX_ADDRESSES).map(Address::as_str).collect();
                let at = if at.is_empty() { String::new() } else { format!(",at={}", at.join(";")) };
                format!("{until},type=accept,from={from},to={to},future={future},via={via}{at}")
            }
            Self::Result { from, to, future, via } => {
                format!("{until},type=result,from={from},to={to},future={future},via={via}")
            }
            Self::Withdraw { from, to, future } => {
                let to = to.as_ref().map(|to| format!(",to={to}")).unwrap_or_default();
                format!("when={when},type=withdraw,from={from}{to},future={future}")
            }
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Worker => "worker",
            Self::Client => "client",
            Self::Cluster => "cluster",
        })
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Libp2p { node, ticket } => write!(f, "{LIBP2P}://{node}/{ticket}"),
            Self::Wormhole { code } => write!(f, "{WORMHOLE}://{code}"),
        }
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.libp2p, self.wormhole) {
            (true, true) => "wormhole;libp2p",
            (true, false) => LIBP2P,
            (false, true) => WORMHOLE,
            (false, false) => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_795_361_280_000);
    const WHEN: &str = "2026-11-22T15:28:00";

    fn read(line: &str) -> Result<Received, LineError> {
        Received::read(line.as_bytes(), NOW)
    }

    #[test]
    fn a_recorded_request_of_future_p2p_is_read() {
        let line = "when=2026-11-22T15:28:00,expires=1795361290,type=request,from=alice@vm:27182,\
                    future=966bf19751d075594416b587d93b2873-1,size=823,protocols=wormhole";
        let received = read(line).unwrap();
        assert_eq!(received.expires, Some(Timestamp::from_unix_seconds(1_795_361_290)));
        let expected = Message::Request {
            from: "alice@vm:27182".parse().unwrap(),
            future: "966bf19751d075594416b587d93b2873-1".parse().unwrap(),
            size: 823,
            protocols: Protocols { libp2p: false, wormhole: true },
        };
        assert_eq!(received.message, expected);
        assert_eq!(expected.to_line(WHEN, Timestamp::from_unix_seconds(1_795_361_290)), line);
    }

    /// Every message of future.p2p that was recorded, read and written again.
    #[test]
    fn the_recorded_lines_of_future_p2p_are_read_and_written_as_they_are() {
        let transcript = include_str!("../../tests/data/board-transcript.log");
        let chunks = transcript.lines().filter_map(|line| line.split('\'').nth(1));
        let lines: Vec<&str> = chunks.flat_map(|chunk| chunk.split("\\n")).filter(|line| !line.is_empty()).collect();
        for line in &lines {
            let start = Timestamp::from_unix_seconds(1_795_361_270);
            let received = Received::read(line.as_bytes(), start).unwrap();
            let when = &line["when=".len()..line.find(',').unwrap()];
            assert_eq!(received.message.to_line(when, received.expires.unwrap_or_default()), *line);
        }
        assert!(lines.len() > 40, "{}", lines.len());
    }

    #[test]
    fn what_we_write_is_read_back() {
        let (from, to): (PeerName, PeerName) = ("a@b:1".parse().unwrap(), "c@d:2".parse().unwrap());
        let future: FutureId = "f-1".parse().unwrap();
        let (from2, to2, future2) = (from.clone(), to.clone(), future.clone());
        let node: NodeId = "12D3KooWExample".parse().unwrap();
        let protocols = Protocols { libp2p: true, wormhole: true };
        let via = Via::Libp2p { node: node.clone(), ticket: Ticket([9; 16]) };
        let wormhole = Via::Wormhole { code: "0030-32543fbc7bc7".parse().unwrap() };
        let at = vec!["/ip4/127.0.0.1/udp/4001/quic-v1".parse().unwrap(), "/ip4/127.0.0.1/tcp/4001".parse().unwrap()];
        let word = |text: &str| Some(text.parse().unwrap());
        let about = About { r: word("4.2.2"), driver: None, profile: word("strict") };
        for message in [
            Message::Hello { role: Role::Worker, from: from.clone(), protocols, about: About::default() },
            Message::Hello { role: Role::Worker, from: from.clone(), protocols, about },
            Message::Request { from: from.clone(), future: future.clone(), size: 7, protocols },
            Message::Offer { from: from.clone(), to: to.clone(), future: future.clone(), protocols, peer: Some(node) },
            Message::Accept { from: from.clone(), to: to.clone(), future: future.clone(), via, at },
            Message::Result { from, to: to.clone(), future: future.clone(), via: wormhole },
            Message::Withdraw { from: from2, to: Some(to2), future: future2 },
        ] {
            let line = message.to_line(WHEN, NOW + Duration::from_secs(10));
            assert_eq!(read(&line).unwrap().message, message, "{line}");
        }
    }

    #[test]
    fn bad_lines_are_refused_with_their_reason() {
        let good = "when=x,expires=1795361290,type=request,from=a@b:1,future=f-1,size=1,protocols=libp2p";
        assert!(read(good).is_ok());
        for (from, to, error) in [
            ("when=x,", "", LineError::NotAMessage),
            ("size=1,", "", LineError::Missing("size")),
            ("size=1", "size=-1", LineError::Value { key: "size" }),
            ("size=1", "size=+1", LineError::Value { key: "size" }),
            ("size=1", "size=99999999999999999999999", LineError::Value { key: "size" }),
            ("size=1", "size=1,size=2", LineError::Repeated),
            ("size=1", "size", LineError::Malformed),
            ("size=1", "size=1=2", LineError::Malformed),
            ("1795361290", "1795361270", LineError::Expired),
            ("1795361290", "9999999999", LineError::Absurd),
            ("type=request", "type=\u{1b}[31m", LineError::UnknownType),
            ("from=a@b:1", "from=a\u{1b}[31m", LineError::Value { key: "from" }),
            ("future=f-1", "future=../f", LineError::Value { key: "future" }),
            ("request", "result,to=c@d:1,via=wormhole://no-code", LineError::Value { key: "via" }),
            ("request", "accept,to=c@d:1,via=wormhole://1", LineError::Value { key: "via" }),
        ] {
            assert_eq!(read(&good.replace(from, to)), Err(error), "{from} → {to}");
        }
        assert_eq!(Received::read(b"when=\xff\xfe,type=worker", NOW), Err(LineError::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(line in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Received::read(&line, NOW);
        }

        #[test]
        fn any_pairs_are_survived(rest in "[a-z=,;:/@0-9]{0,200}") {
            let _ = read(&format!("when=1,expires=1795361290,{rest}"));
        }
    }
}

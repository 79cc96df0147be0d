//! Names and numbers that cross trust borders, each with its own type and each checked where it comes in.
//!
//! A value of one of these types can be put into a board line, a log line or a message to a person as it is: it holds
//! visible ASCII only, neither `,` nor `=` (which separate the pairs of a board line), and has a bounded length.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not such a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// There is nothing, or too much of it.
    #[error("{what} must have 1 to {most} characters, and this one has {length}")]
    Length {
        /// Which kind of name.
        what: &'static str,
        /// The bound.
        most: usize,
        /// What was found.
        length: usize,
    },
    /// A character that such a name cannot have.
    #[error("{what} cannot contain {character:?}")]
    Character {
        /// Which kind of name.
        what: &'static str,
        /// The first such character.
        character: char,
    },
    /// It lacks its form.
    #[error("{what} must look like {form}")]
    Form {
        /// Which kind of name.
        what: &'static str,
        /// An example.
        form: &'static str,
    },
}

fn check(what: &'static str, text: &str, most: usize, allowed: impl Fn(char) -> bool) -> Result<(), IdError> {
    let length = text.chars().count();
    if length == 0 || text.len() > most {
        return Err(IdError::Length { what, most, length });
    }
    match text.chars().find(|&character| !allowed(character)) {
        Some(character) => Err(IdError::Character { what, character }),
        None => Ok(()),
    }
}

/// Whether a character may stand in a value of a board line.
fn is_value_character(c: char) -> bool {
    c.is_ascii_graphic() && c != ',' && c != '='
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $most:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check($what, text, $most, $allowed)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A future's name: the parts of its uuid joined by `-`, 1 to 128 letters, digits and hyphens.
    FutureId, "a future's name", 128, |c| c.is_ascii_alphanumeric() || c == '-'
}

text_id! {
    /// A peer's name on the board as it writes it itself (`user@host:pid`); anybody can write any name. 1 to 255
    /// characters.
    PeerName, "a peer's name", 255, is_value_character
}

text_id! {
    /// An account of a board: 1 to 64 letters, digits, `.`, `_` and `-`.
    UserName, "an account's name", 64, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

text_id! {
    /// A libp2p peer id in its usual text form (base58 of a multihash), 1 to 128 letters and digits. Whether it is one
    /// is found out where it is dialled.
    NodeId, "a libp2p peer id", 128, |c| c.is_ascii_alphanumeric()
}

text_id! {
    /// A libp2p multiaddr as text, 1 to 255 characters, without `;`, which separates several of them.
    Address, "a libp2p address", 255, |c| is_value_character(c) && c != ';'
}

text_id! {
    /// A word that a peer says of itself, the name of a profile for instance: 1 to 64 characters.
    Word, "a word", 64, is_value_character
}

text_id! {
    /// A topic of a board as it is typed by one user, 1 to 255 letters, digits and `. _ - /`.
    Topic, "a topic", 255, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/')
}

/// What the two wormhole codes of one accepted future have in common, as it stands in an `accept`: a nameplate of digits,
/// which may begin with zeros, a hyphen, and a password, 3 to 120 visible ASCII characters: `6230-32543fbc7bc7`. Whoever
/// reads the board knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimCode(String);

impl ClaimCode {
    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClaimCode {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let what = "a wormhole code";
        check(what, text, 120, is_value_character)?;
        let (nameplate, password) = text.split_once('-').unwrap_or_default();
        let digits = !nameplate.is_empty() && nameplate.bytes().all(|byte| byte.is_ascii_digit());
        if digits && !password.is_empty() {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::Form { what, form: "6230-32543fbc7bc7" })
        }
    }
}

impl fmt::Display for ClaimCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PeerName {
    /// The name of this process on a board, `user@host:pid`, with what a board line cannot carry left out.
    #[must_use]
    pub fn of_this_process(me: &UserName) -> Self {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let host: String =
            host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')).take(64).collect();
        let host = if host.is_empty() { "localhost" } else { &host };
        // An account has at most 64 characters, all of which a peer's name may have.
        Self(format!("{me}@{host}:{}", std::process::id()))
    }
}

/// A named group of peers, `owner/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterName {
    /// The account that owns it.
    pub owner: UserName,
    /// Its name, of the same form as an account's.
    pub name: UserName,
}

impl ClusterName {
    /// The topic by which `me` reaches this cluster: without the owner's name for the owner alone.
    ///
    /// # Errors
    /// When both names are so long that the topic is over its bound.
    pub fn topic(&self, me: &UserName) -> Result<Topic, IdError> {
        if *me == self.owner {
            format!("{}/future.p2p", self.name).parse()
        } else {
            format!("{}/{}/future.p2p", self.owner, self.name).parse()
        }
    }
}

impl FromStr for ClusterName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let form = IdError::Form { what: "a cluster's name", form: "owner/name" };
        let (owner, name) = text.split_once('/').ok_or(form)?;
        Ok(Self { owner: owner.parse()?, name: name.parse()? })
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// Writes bytes as lower-case hexadecimal digits.
fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// 128 random bits that let one worker fetch one future once. Whoever knows it still has to prove the peer id that it
/// was made for. Not shown by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ticket(pub [u8; 16]);

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

impl FromStr for Ticket {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let form = IdError::Form { what: "a ticket", form: "32 hexadecimal digits" };
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(form);
        }
        u128::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| form)
    }
}

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

/// The name of a piece of a future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceName {
    /// Its bytes.
    pub length: u32,
    /// BLAKE3 of them.
    pub digest: Digest,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_separators_or_escapes_are_refused() {
        for text in ["", "a,b", "a=b", "a\u{1b}[31m", "a b", "ä"] {
            assert!(text.parse::<PeerName>().is_err(), "{text:?}");
        }
        assert!("../x".parse::<FutureId>().is_err());
        assert!("alice@host:1".parse::<PeerName>().is_ok());
    }

    #[test]
    fn the_owner_reaches_a_cluster_by_a_shorter_topic() {
        let cluster: ClusterName = "alice/friends".parse().unwrap();
        assert_eq!(cluster.topic(&"alice".parse().unwrap()).unwrap().as_str(), "friends/future.p2p");
        assert_eq!(cluster.topic(&"bob".parse().unwrap()).unwrap().as_str(), "alice/friends/future.p2p");
        assert!("alice".parse::<ClusterName>().is_err());
        assert!("alice/a/b".parse::<ClusterName>().is_err());
    }

    #[test]
    fn a_claims_code_begins_with_digits() {
        for text in ["0000-32543fbc7bc7", "0007-a", "6230-x-y"] {
            assert_eq!(text.parse::<ClaimCode>().unwrap().to_string(), text);
        }
        for text in
            ["", "-", "12", "12-", "-a", "1x-a", "1-a b", "1-a,b", "1-\u{1b}", &format!("1-{}", "a".repeat(120))]
        {
            assert!(text.parse::<ClaimCode>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_ticket_survives_its_text_form() {
        let ticket = Ticket([7; 16]);
        assert_eq!(ticket.to_string().parse::<Ticket>().unwrap(), ticket);
        assert!("+7070707070707070707070707070707".parse::<Ticket>().is_err());
    }
}

//! How a board is that serves: what `p2p-worker board status` shows.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::ids::UserName;

/// A board at one moment. Everything but the names counts since it was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Where it listens.
    pub listens: String,
    /// SHA-256 of its host key.
    pub host_key: String,
    /// When it was started, RFC 3339 in UTC.
    pub since: String,
    /// Accounts.
    pub accounts: usize,
    /// Their keys.
    pub keys: usize,
    /// Invitations that can still be used.
    pub invitations: usize,
    /// Connections that have signed in.
    pub signed_in: usize,
    /// Connections that have not, or whose key has no account.
    pub strangers: usize,
    /// As many connections as there can be.
    pub most_connections: usize,
    /// Who has signed in, and over how many connections.
    pub members: BTreeMap<UserName, usize>,
    /// The topics that somebody is on.
    pub topics: Vec<TopicStatus>,
    /// Lines.
    pub lines: Flow,
    /// Their bytes, without line ends.
    pub bytes: Flow,
    /// Bytes that wait for readers now; what waits for several counts for each.
    pub waiting_bytes: usize,
    /// Sign-ins that failed, codes that were wrong included.
    pub refused_sign_ins: u64,
    /// Connections that were closed at once: too many, or from where too many sign-ins had failed.
    pub turned_away: u64,
    /// Keys that were added by codes.
    pub joined: u64,
    /// Clients that were cut off because they did not read.
    pub too_slow: u64,
    /// Guests that were cut off because nobody let them in any more.
    pub access_ended: u64,
}

/// A topic that somebody is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicStatus {
    /// `account/topic`.
    pub name: String,
    /// Who else may use it now.
    pub access_list: Vec<UserName>,
    /// The clients that are on it: `<id> (<account>@<address>)`.
    pub clients: Vec<String>,
}

/// What comes in, and what goes out to all readers together.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Flow {
    /// In all.
    pub posted: u64,
    /// In a second, over the last few.
    pub posted_a_second: f64,
    /// In all, counted once for each reader.
    pub delivered: u64,
    /// In a second, over the last few.
    pub delivered_a_second: f64,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "board:       {} since {} (p2p-worker {})", self.listens, self.since, self.version)?;
        writeln!(f, "host key:    {}", self.host_key)?;
        let Self { accounts, keys, invitations, signed_in, strangers, most_connections, .. } = self;
        writeln!(f, "accounts:    {accounts} with {keys} keys, {invitations} open invitations")?;
        writeln!(f, "connections: {signed_in} signed in, {strangers} not, of {most_connections}")?;
        for (account, connections) in &self.members {
            writeln!(f, "  {account}: {connections}")?;
        }
        writeln!(f, "lines:       {}", self.lines)?;
        writeln!(f, "bytes:       {}, {} waiting", self.bytes, self.waiting_bytes)?;
        let Self { refused_sign_ins, turned_away, joined, too_slow, access_ended, .. } = self;
        writeln!(f, "refused:     {refused_sign_ins} sign-ins, {turned_away} connections; {joined} joined by a code")?;
        writeln!(f, "cut off:     {too_slow} that did not read, {access_ended} whose access ended")?;
        writeln!(f, "topics:      {}", self.topics.len())?;
        for topic in &self.topics {
            let list: Vec<&str> = topic.access_list.iter().map(UserName::as_str).collect();
            let list = if list.is_empty() { String::new() } else { format!(" (shared with {})", list.join(", ")) };
            writeln!(f, "  {}{list}", topic.name)?;
            for client in &topic.clients {
                writeln!(f, "    {client}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { posted, posted_a_second, delivered, delivered_a_second } = self;
        write!(f, "{posted} in ({posted_a_second:.1}/s), {delivered} out ({delivered_a_second:.1}/s)")
    }
}

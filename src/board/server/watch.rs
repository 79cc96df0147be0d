//! What a board counts of itself, and how it is put together for its owner.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::time::Instant;

use super::{
    Shared,
    invites::rfc3339,
    status::{Flow, Status, TopicStatus},
};
use crate::{
    board::hub::{Channel, Traffic},
    clock::{self, Timestamp},
};

/// How many connections are turned away for each line of the log that tells of them.
const TURNED_AWAY_A_LINE: u64 = 100;

/// Counters, and the traffic at the last two looks.
#[derive(Debug)]
pub(super) struct Counts {
    since: Timestamp,
    refused: AtomicU64,
    turned_away: AtomicU64,
    joined: AtomicU64,
    looks: Mutex<Looks>,
}

#[derive(Debug, Clone, Copy)]
struct Looks {
    at: Instant,
    traffic: Traffic,
    /// In a second, between the last two looks.
    lines: (f64, f64),
    bytes: (f64, f64),
}

impl Default for Counts {
    fn default() -> Self {
        let zero = AtomicU64::default;
        let looks = Looks { at: Instant::now(), traffic: Traffic::default(), lines: (0.0, 0.0), bytes: (0.0, 0.0) };
        Self { since: clock::now(), refused: zero(), turned_away: zero(), joined: zero(), looks: Mutex::new(looks) }
    }
}

impl Counts {
    /// A sign-in failed.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A key was added by a code.
    pub(super) fn joined(&self) {
        self.joined.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed at once. Whoever floods a board does not flood its log.
    pub(super) fn turned_away(&self, address: SocketAddr) {
        let before = self.turned_away.fetch_add(1, Ordering::Relaxed);
        if before.is_multiple_of(TURNED_AWAY_A_LINE) {
            let all = before.saturating_add(1);
            tracing::warn!(%address, all, "turned away: too many connections, or too many failed sign-ins from there");
        }
    }

    /// Remembers the traffic so far, for what it is in a second.
    pub(super) fn sample(&self, traffic: Traffic) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, last) = (Instant::now(), looks.traffic);
        let seconds = now.duration_since(looks.at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        // Exact up to 2^53, which is more than any board carries.
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        *looks = Looks {
            at: now,
            traffic,
            lines: (rate(traffic.posted, last.posted), rate(traffic.delivered, last.delivered)),
            bytes: (rate(traffic.posted_bytes, last.posted_bytes), rate(traffic.delivered_bytes, last.delivered_bytes)),
        };
    }
}

impl Shared {
    /// Looks at the accounts as they are now, and cuts whoever was removed.
    pub(super) async fn look(&self) {
        self.signed_in.cut_removed(&self.directory.current().await);
    }

    /// How the board is.
    pub(super) async fn status(&self, listens: SocketAddr, host_key: String) -> Status {
        let accounts = self.directory.current().await;
        let mut names: Vec<_> = accounts.iter().map(|account| &account.name).collect();
        names.sort();
        names.dedup();
        let mut members = BTreeMap::new();
        for account in self.signed_in.members() {
            *members.entry(account).or_insert(0usize) += 1;
        }
        let invites = self.accounts.clone();
        let invitations = tokio::task::spawn_blocking(move || invites.invites().map(|all| all.len())).await;
        let (traffic, waiting_bytes) = self.hub.traffic();
        let Looks { lines, bytes, .. } = *self.counts.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let flow = |posted, delivered, rates: (f64, f64)| Flow {
            posted,
            posted_a_second: rates.0,
            delivered,
            delivered_a_second: rates.1,
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listens: listens.to_string(),
            host_key,
            since: rfc3339(self.counts.since),
            accounts: names.len(),
            keys: accounts.len(),
            invitations: invitations.ok().and_then(Result::ok).unwrap_or_default(),
            signed_in: members.values().sum(),
            strangers: self.strangers.count(),
            most_connections: self.limits.connections,
            members,
            topics: self.hub.all_channels().into_iter().map(topic).collect(),
            lines: flow(traffic.posted, traffic.delivered, lines),
            bytes: flow(traffic.posted_bytes, traffic.delivered_bytes, bytes),
            waiting_bytes,
            refused_sign_ins: self.counts.refused.load(Ordering::Relaxed),
            turned_away: self.counts.turned_away.load(Ordering::Relaxed),
            joined: self.counts.joined.load(Ordering::Relaxed),
            too_slow: traffic.too_slow,
            access_ended: traffic.access_ended,
        }
    }
}

fn topic(channel: Channel) -> TopicStatus {
    TopicStatus {
        name: channel.name,
        access_list: channel.shared_with.into_iter().collect(),
        clients: channel.clients.into_iter().map(|(_, client)| client).collect(),
    }
}

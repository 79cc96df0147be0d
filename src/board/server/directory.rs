//! Who may sign in, and who has.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use russh::keys::PublicKey;
use tokio_util::sync::CancellationToken;

use super::{
    accounts::{Account, Accounts},
    files::Stamp,
    limits::BoardLimits,
    pace::{AccountPace, Pace},
};
use crate::{board::ServeError, ids::UserName};

/// Who somebody is, as far as the board tells.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) user: UserName,
    pub(super) id: String,
    pub(super) created: String,
}

impl From<&Account> for Identity {
    fn from(account: &Account) -> Self {
        Self { user: account.name.clone(), id: account.id.clone(), created: account.created.clone() }
    }
}

/// The accounts as they were last read from their file.
#[derive(Debug)]
pub(super) struct Directory {
    accounts: Accounts,
    read: Mutex<(Option<Stamp>, Arc<Vec<Account>>)>,
}

impl Directory {
    /// # Errors
    /// When the accounts cannot be read.
    pub(super) fn new(accounts: Accounts) -> Result<Self, ServeError> {
        let read = Mutex::new((accounts.stamp(), Arc::new(accounts.list()?)));
        Ok(Self { accounts, read })
    }

    /// The account of a key, looked up in the file as it is now.
    pub(super) async fn identify(self: &Arc<Self>, key: &PublicKey) -> Option<Identity> {
        let accounts = self.current().await;
        accounts.iter().find(|account| account.key.key_data() == key.key_data()).map(Identity::from)
    }

    /// The accounts as they are now; as they were before if the file cannot be read, which is logged.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<Vec<Account>> {
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || this.refresh()).await;
        read.unwrap_or_else(|_| Arc::clone(&self.last().1))
    }

    fn refresh(&self) -> Arc<Vec<Account>> {
        let stamp = self.accounts.stamp();
        let mut last = self.last();
        if last.0 != stamp {
            match self.accounts.list() {
                Ok(accounts) => *last = (stamp, Arc::new(accounts)),
                Err(error) => tracing::error!(%error, "the accounts cannot be read; those read before stay in force"),
            }
        }
        Arc::clone(&last.1)
    }

    fn last(&self) -> MutexGuard<'_, (Option<Stamp>, Arc<Vec<Account>>)> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everybody who has signed in.
#[derive(Debug)]
pub(super) struct Seats {
    limits: BoardLimits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    by_number: HashMap<u64, Seat>,
    last: u64,
    /// Of every account that was here since it was made, so at most of all accounts.
    paces: HashMap<UserName, AccountPace>,
}

#[derive(Debug)]
struct Seat {
    user: UserName,
    address: SocketAddr,
    key: PublicKey,
    cut: CancellationToken,
}

/// The place of one connection that has signed in.
#[derive(Debug)]
pub(super) struct SignedIn {
    seats: Arc<Seats>,
    number: u64,
    pub(super) pace: Pace,
}

impl Seats {
    pub(super) fn new(limits: BoardLimits) -> Self {
        Self { limits, taken: Mutex::default() }
    }

    /// A place, unless the account has too many.
    pub(super) fn enter(
        self: &Arc<Self>,
        identity: &Identity,
        address: SocketAddr,
        key: &PublicKey,
        cut: &CancellationToken,
    ) -> Option<SignedIn> {
        let mut taken = self.taken();
        let same = taken.by_number.values().filter(|seat| seat.user == identity.user).count();
        if same >= self.limits.connections_of_account {
            return None;
        }
        taken.last = taken.last.saturating_add(1);
        let number = taken.last;
        let seat = Seat { user: identity.user.clone(), address, key: key.clone(), cut: cut.clone() };
        taken.by_number.insert(number, seat);
        let rate = self.limits.lines_a_second;
        let account = taken.paces.entry(identity.user.clone()).or_insert_with(|| AccountPace::new(rate));
        let pace = account.connection();
        Some(SignedIn { seats: Arc::clone(self), number, pace })
    }

    /// Cuts every connection whose key is not that of its account any more.
    pub(super) fn cut_removed(&self, accounts: &[Account]) {
        let mut taken = self.taken();
        for Seat { user, key, cut, address } in taken.by_number.values() {
            let is_it = |account: &Account| account.name == *user && account.key.key_data() == key.key_data();
            if !accounts.iter().any(is_it) {
                tracing::info!(%user, %address, "cut off: the account or its key was removed");
                cut.cancel();
            }
        }
        taken.paces.retain(|user, _| accounts.iter().any(|account| account.name == *user));
    }

    /// The account of every connection that has signed in.
    pub(super) fn members(&self) -> Vec<UserName> {
        self.taken().by_number.values().map(|seat| seat.user.clone()).collect()
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SignedIn {
    fn drop(&mut self) {
        self.seats.taken().by_number.remove(&self.number);
    }
}

//! Who may sign in, and who has.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use russh::keys::PublicKey;
use tokio_util::sync::CancellationToken;

use super::{
    accounts::{Account, Accounts, Stamp},
    limits::CONNECTIONS_OF_ACCOUNT,
};
use crate::{board::ServeError, ids::UserName};

/// Who somebody is, as far as the board tells.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) user: UserName,
    pub(super) id: String,
    pub(super) created: String,
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
        let account = accounts.iter().find(|account| account.key.key_data() == key.key_data())?;
        Some(Identity { user: account.name.clone(), id: account.id.clone(), created: account.created.clone() })
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

    fn last(&self) -> std::sync::MutexGuard<'_, (Option<Stamp>, Arc<Vec<Account>>)> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everybody who has signed in.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    by_number: HashMap<u64, (UserName, PublicKey, CancellationToken)>,
    last: u64,
}

/// The place of one connection that has signed in.
#[derive(Debug)]
pub(super) struct SignedIn {
    seats: Arc<Seats>,
    number: u64,
}

impl Seats {
    /// A place, unless the account has too many.
    pub(super) fn enter(
        self: &Arc<Self>,
        identity: &Identity,
        key: &PublicKey,
        cut: &CancellationToken,
    ) -> Option<SignedIn> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = taken.by_number.values().filter(|(user, ..)| *user == identity.user).count();
        if same >= CONNECTIONS_OF_ACCOUNT {
            return None;
        }
        taken.last = taken.last.saturating_add(1);
        let number = taken.last;
        taken.by_number.insert(number, (identity.user.clone(), key.clone(), cut.clone()));
        Some(SignedIn { seats: Arc::clone(self), number })
    }

    /// Cuts every connection whose key is not that of its account any more.
    pub(super) fn cut_removed(&self, accounts: &[Account]) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (user, key, cut) in taken.by_number.values() {
            let is_it = |account: &Account| account.name == *user && account.key.key_data() == key.key_data();
            if !accounts.iter().any(is_it) {
                tracing::info!(%user, "cut off: the account or its key was removed");
                cut.cancel();
            }
        }
    }
}

impl Drop for SignedIn {
    fn drop(&mut self) {
        self.seats.0.lock().unwrap_or_else(PoisonError::into_inner).by_number.remove(&self.number);
    }
}

//! The board's SSH server: accounts by public key alone, topics by exec, so that plain OpenSSH and R clients work
//! against it as they do against pipe.pico.sh.
//!
//! The SSH login name is ignored, there are no passwords, no forwarding and no subsystems. What topics are is in
//! [`super::hub`]; everything that one client can take from the others is bounded in `limits` and `pace`. A key without an
//! account may sign in to use a code (`join CODE`) and for nothing else.

mod accounts;
mod commands;
mod control;
mod cut;
mod directory;
mod files;
mod host_key;
mod invites;
mod limits;
mod pace;
mod pipe;
mod session;
mod status;
mod watch;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use russh::{
    MethodKind, MethodSet, SshId,
    keys::{HashAlg, PublicKey},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use accounts::{Account, Accounts};
pub use commands::MOST_GUESTS;
pub use control::{look, status};
pub use invites::Invite;
pub(crate) use invites::rfc3339;
pub use limits::BoardLimits;
pub use status::{Flow, Status, TopicStatus};

use control::{Asked, Control, Question};
use cut::Cuttable;
use directory::{Directory, Identity, Seats, SignedIn};
use limits::{Failures, Stranger, Strangers};
use session::Connection;
use watch::Counts;

use super::{ServeError, hub::Hub};

/// How often the accounts are looked at for removed ones, where somebody has changed the file by hand; signing in always
/// looks, and our own commands ask for it.
const LOOK_AT_ACCOUNTS: Duration = Duration::from_secs(5);
/// A client that says nothing for this long is asked whether it is there, twice: one that is gone is noticed within 30 s.
const KEEPALIVE: Duration = Duration::from_secs(8);
/// A connection on which nothing at all moves for this long is dropped.
const DEAD: Duration = Duration::from_secs(45);
/// How long clients have to say goodbye when the board stops.
const GOODBYE: Duration = Duration::from_secs(3);

/// What a board needs.
#[derive(Debug, Clone)]
pub struct BoardServerConfig {
    /// Where to listen, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// The folder of its host key and accounts; made if it is not there.
    pub state: PathBuf,
}

/// A board that listens already and answers once it runs.
#[derive(Debug)]
pub struct BoardServer {
    listener: TcpListener,
    address: SocketAddr,
    host_key: PublicKey,
    control: Control,
    ssh: Arc<russh::server::Config>,
    shared: Arc<Shared>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    hub: Arc<Hub>,
    accounts: Accounts,
    directory: Arc<Directory>,
    signed_in: Arc<Seats>,
    strangers: Arc<Strangers>,
    failures: Failures,
    limits: BoardLimits,
    counts: Counts,
}

impl BoardServer {
    /// Reads the state, makes a host key at the first start, and listens; with the usual limits.
    ///
    /// # Errors
    /// As [`BoardServer::bind_within`].
    pub async fn bind(config: BoardServerConfig) -> Result<Self, ServeError> {
        Self::bind_within(config, BoardLimits::default()).await
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// [`ServeError`], each with what to do about it where there is something.
    pub async fn bind_within(config: BoardServerConfig, limits: BoardLimits) -> Result<Self, ServeError> {
        let accounts = Accounts::open(&config.state)?;
        let directory = Arc::new(Directory::new(accounts.clone())?);
        accounts.invites()?;
        let key = host_key::load_or_make(&config.state)?;
        let control = Control::bind(&config.state)?;
        let failed = |source| ServeError::Listen { address: config.listen.clone(), source };
        let listener = TcpListener::bind(&config.listen).await.map_err(failed)?;
        let shared = Shared {
            hub: Arc::default(),
            accounts,
            directory,
            signed_in: Arc::new(Seats::new(limits)),
            strangers: Arc::default(),
            failures: Failures::default(),
            limits,
            counts: Counts::default(),
        };
        Ok(Self {
            address: listener.local_addr().map_err(failed)?,
            listener,
            host_key: key.public_key().clone(),
            control,
            ssh: Arc::new(ssh_config(key)),
            shared: Arc::new(shared),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The public half of its host key, for a client's known hosts.
    #[must_use]
    pub fn host_key(&self) -> &PublicKey {
        &self.host_key
    }

    /// SHA-256 of its host key as OpenSSH shows it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.host_key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Its accounts; changes hold from the next sign-in on.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.shared.accounts
    }

    /// Serves until `shutdown` is done, then cuts all connections and stops listening.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
        let _stop_if_dropped = stop.clone().drop_guard();
        let places = Arc::new(Semaphore::new(self.shared.limits.connections));
        let mut look = tokio::time::interval(LOOK_AT_ACCOUNTS);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                _ = look.tick() => {
                    self.shared.look().await;
                    self.shared.counts.sample(self.shared.hub.traffic().0);
                }
                asked = self.control.next() => drop(connections.spawn(self.answer(asked))),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => match self.admit(&places, address) {
                        Some(admitted) => {
                            connections.spawn(self.serve(stream, address, admitted, stop.child_token()));
                        }
                        None => self.shared.counts.turned_away(address),
                    },
                    Err(error) => wait_after(&error).await,
                },
            }
        }
        stop.cancel();
        connections.close();
        if tokio::time::timeout(GOODBYE, connections.wait()).await.is_err() {
            tracing::debug!("some connections did not end in time");
        }
    }

    /// Answers the owner's question.
    fn answer(&self, asked: Asked) -> impl Future<Output = ()> + Send + use<> {
        let (shared, listens, host_key) = (Arc::clone(&self.shared), self.address, self.fingerprint());
        asked.answer(async move |question| match question {
            Question::Look => {
                shared.look().await;
                "done\n".to_owned()
            }
            // Strings and numbers can always be written as JSON.
            Question::Status => serde_json::to_string(&shared.status(listens, host_key).await).unwrap_or_default(),
        })
    }

    fn admit(&self, places: &Arc<Semaphore>, address: SocketAddr) -> Option<(OwnedSemaphorePermit, Stranger)> {
        if !self.shared.failures.may_try(address.ip(), tokio::time::Instant::now()) {
            return None;
        }
        let place = Arc::clone(places).try_acquire_owned().ok()?;
        Some((place, self.shared.strangers.admit(address.ip())?))
    }

    /// One connection from its first byte to its last.
    fn serve(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        (place, stranger): (OwnedSemaphorePermit, Stranger),
        cut: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (shared, ssh) = (Arc::clone(&self.shared), Arc::clone(&self.ssh));
        async move {
            let _place = place;
            // Lines are short and somebody waits for each.
            let _ = stream.set_nodelay(true);
            let signed_in = CancellationToken::new();
            let stream = Cuttable::new(stream, &cut);
            let grace = shared.limits.sign_in;
            let connection = Connection::new(shared, address, cut.clone(), signed_in.clone());
            let running = async { russh::server::run_stream(ssh, stream, connection).await?.await };
            tokio::pin!(running);
            let ended = tokio::select! {
                ended = &mut running => ended,
                () = sign_in_or_cut(grace, &signed_in, &cut) => {
                    drop(stranger);
                    running.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%address, %error, "a connection ended");
            }
        }
    }
}

fn ssh_config(key: russh::keys::PrivateKey) -> russh::server::Config {
    russh::server::Config {
        server_id: SshId::Standard(concat!("SSH-2.0-p2p-worker_", env!("CARGO_PKG_VERSION")).into()),
        methods: MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]),
        // That a key is unknown is no secret: the protocol tells it before anything is signed.
        auth_rejection_time: Duration::from_millis(50),
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: limits::SIGN_IN_ATTEMPTS,
        keys: vec![key],
        window_size: 128 * 1024,
        maximum_packet_size: limits::PACKET,
        channel_buffer_size: limits::PACKETS,
        inactivity_timeout: Some(DEAD),
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 3,
        nodelay: true,
        ..russh::server::Config::default()
    }
}

async fn sign_in_or_cut(grace: Duration, signed_in: &CancellationToken, cut: &CancellationToken) {
    if tokio::time::timeout(grace, signed_in.cancelled()).await.is_err() {
        cut.cancel();
    }
}

/// After a failed accept, so that a lack of file descriptors does not become a busy loop.
async fn wait_after(error: &io::Error) {
    tracing::error!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

//! The board's SSH server: accounts by public key alone, topics by exec, so that plain OpenSSH and R clients work
//! against it as they do against pipe.pico.sh.
//!
//! The SSH login name is ignored, there are no passwords, no forwarding and no subsystems. What topics are is in
//! [`super::hub`]; everything that one client can take from the others is bounded in `limits`.

mod accounts;
mod commands;
mod directory;
mod host_key;
mod limits;
mod pipe;
mod session;

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
use directory::{Directory, Identity, Seats, SignedIn};
use limits::{Cuttable, Stranger, Strangers};
use session::Connection;

use super::{ServeError, hub::Hub};

/// How often the accounts are looked at for removed ones; signing in always looks.
const LOOK_AT_ACCOUNTS: Duration = Duration::from_secs(5);
/// A client that says nothing for this long is asked whether it is there, three times.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// A connection on which nothing at all moves for this long is dropped.
const DEAD: Duration = Duration::from_secs(90);
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
    accounts: Accounts,
    ssh: Arc<russh::server::Config>,
    shared: Arc<Shared>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    hub: Arc<Hub>,
    directory: Arc<Directory>,
    signed_in: Arc<Seats>,
}

impl BoardServer {
    /// Reads the state, makes a host key at the first start, and listens.
    ///
    /// # Errors
    /// [`ServeError`], each with what to do about it where there is something.
    pub async fn bind(config: BoardServerConfig) -> Result<Self, ServeError> {
        let accounts = Accounts::open(&config.state)?;
        let directory = Arc::new(Directory::new(accounts.clone())?);
        let key = host_key::load_or_make(&config.state)?;
        let failed = |source| ServeError::Listen { address: config.listen.clone(), source };
        let listener = TcpListener::bind(&config.listen).await.map_err(failed)?;
        Ok(Self {
            address: listener.local_addr().map_err(failed)?,
            listener,
            host_key: key.public_key().clone(),
            accounts,
            ssh: Arc::new(ssh_config(key)),
            shared: Arc::new(Shared { hub: Arc::default(), directory, signed_in: Arc::default() }),
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
        &self.accounts
    }

    /// Serves until `shutdown` is done, then cuts all connections and stops listening.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
        let _stop_if_dropped = stop.clone().drop_guard();
        let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
        let strangers = Arc::new(Strangers::default());
        let mut look = tokio::time::interval(LOOK_AT_ACCOUNTS);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                _ = look.tick() => self.shared.signed_in.cut_removed(&self.shared.directory.current().await),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => match admit(&places, &strangers, address) {
                        Some(admitted) => {
                            connections.spawn(self.serve(stream, address, admitted, stop.child_token()));
                        }
                        None => tracing::warn!(%address, "turned away: too many connections"),
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
            let connection = Connection::new(shared, address, cut.clone(), signed_in.clone());
            let running = async { russh::server::run_stream(ssh, stream, connection).await?.await };
            tokio::pin!(running);
            let ended = tokio::select! {
                ended = &mut running => ended,
                () = sign_in_or_cut(&signed_in, &cut) => {
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
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
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

fn admit(
    places: &Arc<Semaphore>,
    strangers: &Arc<Strangers>,
    address: SocketAddr,
) -> Option<(OwnedSemaphorePermit, Stranger)> {
    let place = Arc::clone(places).try_acquire_owned().ok()?;
    Some((place, strangers.admit(address.ip())?))
}

async fn sign_in_or_cut(signed_in: &CancellationToken, cut: &CancellationToken) {
    if tokio::time::timeout(limits::SIGN_IN, signed_in.cancelled()).await.is_err() {
        cut.cancel();
    }
}

/// After a failed accept, so that a lack of file descriptors does not become a busy loop.
async fn wait_after(error: &io::Error) {
    tracing::error!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

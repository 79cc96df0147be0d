//! fd 0 and fd 1: frames from and to p2p-worker, and the end of file that means *stop*.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread,
};

use async_io::Async;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use futures_util::task::AtomicWaker;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::dup,
};
use p2p_wormhole_contract::{
    CONTRACT, GRACE,
    frame::{self, HEADER, Kind},
    message::{Event, Failure, Order},
};

use crate::{failure::chain, time::within};

/// Both pipes.
pub(crate) struct Pipes {
    pub(crate) input: Input,
    pub(crate) output: Output,
    pub(crate) hangup: Hangup,
}

/// Takes fd 0 and fd 1, and begins to watch fd 0.
pub(crate) fn open() -> io::Result<Pipes> {
    let input = Async::new(File::from(dup(io::stdin())?))?;
    let output = Async::new(File::from(dup(io::stdout())?))?;
    let hangup = Hangup::watch(dup(io::stdin())?)?;
    Ok(Pipes { input: Input { pipe: input }, output: Output { pipe: output, waiting: Vec::new() }, hangup })
}

/// Frames from p2p-worker.
pub(crate) struct Input {
    pipe: Async<File>,
}

impl Input {
    /// Reads the first eight bytes.
    pub(crate) async fn greeting(&mut self) -> Result<(), Failure> {
        let mut contract = [0; 8];
        self.fill(&mut contract).await?;
        if u64::from_le_bytes(contract) == CONTRACT {
            Ok(())
        } else {
            Err(Failure::Contract("it is of another build; after an upgrade, restart p2p-worker".to_owned()))
        }
    }

    /// The next message.
    pub(crate) async fn order(&mut self) -> Result<Order, Failure> {
        match self.frame().await? {
            (Kind::Message, body) => frame::decode(&body).map_err(|error| Failure::Contract(chain(&error))),
            (Kind::Data, _) => Err(Failure::Contract("data where a message belongs".to_owned())),
        }
    }

    /// The next piece of the payload.
    pub(crate) async fn data(&mut self) -> Result<Vec<u8>, Failure> {
        match self.frame().await? {
            (Kind::Data, body) => Ok(body),
            (Kind::Message, _) => Err(Failure::Contract("a message where data belongs".to_owned())),
        }
    }

    async fn frame(&mut self) -> Result<(Kind, Vec<u8>), Failure> {
        let mut header = [0; HEADER];
        self.fill(&mut header).await?;
        let (kind, length) = frame::parse(header).map_err(|error| Failure::Contract(chain(&error)))?;
        let mut body = vec![0; length];
        self.fill(&mut body).await?;
        Ok((kind, body))
    }

    /// Its end of file is that of [`Hangup`].
    async fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Failure> {
        self.pipe.read_exact(buffer).await.map_err(|_| Failure::Cancelled)
    }
}

/// Frames to p2p-worker. Nothing of a frame is lost when somebody stops waiting: the rest of it goes first next time.
pub(crate) struct Output {
    pipe: Async<File>,
    waiting: Vec<u8>,
}

impl Output {
    /// The first eight bytes, and the first message.
    pub(crate) async fn greeting(&mut self, first: &Event) -> Result<(), Failure> {
        self.waiting.extend(CONTRACT.to_le_bytes());
        self.say(first).await
    }

    /// A message.
    pub(crate) async fn say(&mut self, event: &Event) -> Result<(), Failure> {
        self.waiting.extend(frame::encode(event).map_err(|error| Failure::Contract(chain(&error)))?);
        self.flush().await
    }

    /// A piece of the payload.
    pub(crate) async fn data(&mut self, data: &[u8]) -> Result<(), Failure> {
        for piece in data.chunks(frame::MAX_DATA) {
            let header = frame::header(Kind::Data, piece.len()).map_err(|error| Failure::Contract(chain(&error)))?;
            self.waiting.extend(header);
            self.waiting.extend(piece);
            self.flush().await?;
        }
        Ok(())
    }

    /// The last message, if p2p-worker takes it in time.
    pub(crate) async fn last(&mut self, event: &Event) {
        let _ = within(GRACE, self.say(event)).await;
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        while !self.waiting.is_empty() {
            let written = self.pipe.write(&self.waiting).await.map_err(|_| Failure::Cancelled)?;
            self.waiting.drain(..written);
        }
        Ok(())
    }
}

/// Is over when p2p-worker has closed fd 0, or is dead.
#[derive(Clone)]
pub(crate) struct Hangup(Arc<State>);

#[derive(Default)]
struct State {
    gone: AtomicBool,
    waker: AtomicWaker,
}

impl Hangup {
    /// A thread of its own, since it has to see the end also while bytes wait to be read, and while the library computes
    /// what a mailbox server asks of it. It gives the other thread [`GRACE`], and then ends the process.
    fn watch(input: OwnedFd) -> io::Result<Self> {
        let state = Arc::<State>::default();
        let seen = Arc::clone(&state);
        thread::Builder::new().name("hangup".to_owned()).spawn(move || {
            wait_for_hangup(&input);
            seen.gone.store(true, Ordering::SeqCst);
            seen.waker.wake();
            let grace = PollTimeout::try_from(GRACE).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut [], grace);
            std::process::exit(1);
        })?;
        Ok(Self(state))
    }
}

/// With no event asked for, poll(2) answers only when nobody can write any more, whatever is left to read.
fn wait_for_hangup(input: &OwnedFd) {
    let mut polled = [PollFd::new(input.as_fd(), PollFlags::empty())];
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) | Ok(0) => {}
            _ => return,
        }
    }
}

impl Future for Hangup {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.waker.register(context.waker());
        if self.0.gone.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

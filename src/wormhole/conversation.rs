//! What is said over the pipes of one `p2p-wormhole`, from its first word to its last.

use std::time::Duration;

use p2p_wormhole_contract::{
    CONTRACT,
    frame::{self, HEADER, Kind, MAX_DATA},
    message::{Event, Failure, Layer, MAX_RELAYS, MAX_TEXT, Order, Phase, Request, Task, Times},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, ChildStdout},
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{Patience, Progress, WormholeConfig, WormholeError, names};
use crate::{
    spool::{Reader, SpoolError, SpoolWriter},
    text,
};

/// How long the program may take to confine itself.
const START: Duration = Duration::from_secs(10);
/// How far beyond a phase's bound, which it watches itself, it may go before it is given up.
const OVERDUE: Duration = Duration::from_secs(5);
/// Orders that wait to be written.
const QUEUE: usize = 4;

/// Our end of the payload.
pub(super) enum Ends<'a> {
    /// It is read from here.
    Payload(Reader),
    /// It is written there.
    Spool(&'a mut SpoolWriter),
}

/// What is to be written to the program.
enum Todo {
    Order(Vec<u8>),
    Payload,
}

pub(super) struct Conversation<'a, P> {
    config: &'a WormholeConfig,
    request: Box<Request>,
    payload: Option<Reader>,
    ear: Ear<'a, P>,
}

impl<'a, P: FnMut(Progress) + Send> Conversation<'a, P> {
    pub(super) fn new(config: &'a WormholeConfig, request: Box<Request>, ends: Ends<'a>, progress: P) -> Self {
        let (payload, spool) = match ends {
            Ends::Payload(file) => (Some(file), None),
            Ends::Spool(writer) => (None, Some(writer)),
        };
        let ear = Ear {
            task: request.task,
            times: request.times,
            spool,
            progress,
            phase: None,
            announced: None,
            deadline: Instant::now() + START,
        };
        Self { config, request, payload, ear }
    }

    /// Speaks until the last message. Closes both pipes.
    pub(super) async fn hold(self, input: ChildStdin, output: ChildStdout) -> Result<(), WormholeError> {
        let (todo, orders) = mpsc::channel(QUEUE);
        let Self { config, request, payload, ear } = self;
        let hearing = ear.listen(output, config, request, todo);
        let writing = write(input, orders, payload);
        tokio::select! { biased;
            ended = hearing => ended,
            failed = writing => Err(failed),
        }
    }
}

/// Writes what it is told to. A pipe that breaks is no error here: why, the program's last message tells.
async fn write(mut input: ChildStdin, mut orders: mpsc::Receiver<Todo>, mut payload: Option<Reader>) -> WormholeError {
    let mut broken = input.write_all(&CONTRACT.to_le_bytes()).await.is_err();
    while let Some(todo) = orders.recv().await {
        let written = match todo {
            _ if broken => Ok(()),
            Todo::Order(frame) => input.write_all(&frame).await.map_err(|_| Unwritten::Pipe),
            Todo::Payload => pour(payload.take(), &mut input).await,
        };
        match written {
            Ok(()) => {}
            Err(Unwritten::Pipe) => broken = true,
            Err(Unwritten::Source(error)) => return error,
        }
    }
    std::future::pending().await
}

enum Unwritten {
    Pipe,
    Source(WormholeError),
}

/// The whole payload, piece by piece.
async fn pour(payload: Option<Reader>, input: &mut ChildStdin) -> Result<(), Unwritten> {
    let Some(mut payload) = payload else { return Ok(()) };
    let unread = |source| SpoolError::Read { what: "a temporary file".to_owned(), source };
    loop {
        let piece = payload.next(MAX_DATA).await.map_err(|error| Unwritten::Source(unread(error).into()))?;
        if piece.is_empty() {
            return Ok(());
        }
        let header = frame::header(Kind::Data, piece.len()).map_err(|error| Unwritten::Source(error.into()))?;
        input.write_all(&header).await.map_err(|_| Unwritten::Pipe)?;
        input.write_all(&piece).await.map_err(|_| Unwritten::Pipe)?;
    }
}

/// Hears what the program says, and holds it to its bounds.
struct Ear<'a, P> {
    task: Task,
    times: Times,
    spool: Option<&'a mut SpoolWriter>,
    progress: P,
    phase: Option<Phase>,
    /// Bytes that are to come or to go, once there is a connection.
    announced: Option<u64>,
    deadline: Instant,
}

impl<P: FnMut(Progress) + Send> Ear<'_, P> {
    async fn listen(
        mut self,
        mut output: ChildStdout,
        config: &WormholeConfig,
        request: Box<Request>,
        todo: mpsc::Sender<Todo>,
    ) -> Result<(), WormholeError> {
        confined(&self.layers(&mut output).await?, config.weaker)?;
        order(&todo, &Order::Request(request)).await?;
        loop {
            match self.frame(&mut output).await? {
                (Kind::Data, piece) => self.take(&piece)?,
                (Kind::Message, body) => match frame::decode(&body)? {
                    Event::Resolve(hosts) if hosts.len() <= MAX_RELAYS => {
                        let found = names::of_stranger(&hosts, config.patience.names).await;
                        order(&todo, &Order::Addresses(found)).await?;
                    }
                    Event::Done => return self.done(),
                    Event::Failed(Failure::Cancelled) => return Err(WormholeError::Cancelled),
                    Event::Failed(failure) => return Err(failure.map_text(clean).into()),
                    event => self.note(event, &todo).await?,
                },
            }
        }
    }

    /// What it says first: its build, and what confines it.
    async fn layers(&mut self, output: &mut ChildStdout) -> Result<Vec<Layer>, WormholeError> {
        let mut contract = [0; 8];
        self.fill(output, &mut contract).await?;
        if u64::from_le_bytes(contract) != CONTRACT {
            return Err(WormholeError::OtherBuild);
        }
        let (Kind::Message, body) = self.frame(output).await? else {
            return Err(WormholeError::Contract("data before its first message"));
        };
        match frame::decode(&body)? {
            Event::Confined(layers) if layers.is_empty() => {
                Err(WormholeError::Contract("it says nothing of what confines it"))
            }
            Event::Confined(layers) => Ok(layers.into_iter().map(clean_layer).collect()),
            _ => Err(WormholeError::Contract("another message than what confines it")),
        }
    }

    async fn note(&mut self, event: Event, todo: &mpsc::Sender<Todo>) -> Result<(), WormholeError> {
        match event {
            Event::Phase(phase) => {
                self.phase = Some(phase);
                self.deadline = Instant::now() + self.bound() + OVERDUE;
                (self.progress)(Progress::Waiting(phase));
            }
            Event::Connected { with, relayed, size } if self.announced.is_none() => {
                match self.task {
                    Task::Send { size: ours } if size == ours => {
                        let _ = todo.send(Todo::Payload).await;
                    }
                    Task::Receive { most } if size <= most => {}
                    _ => return Err(WormholeError::Contract("a size that was not asked for")),
                }
                self.announced = Some(size);
                (self.progress)(Progress::Connected { with, relayed, size });
            }
            Event::Progress(bytes) if self.spool.is_none() && self.announced.is_some_and(|size| bytes <= size) => {
                (self.progress)(Progress::Bytes(bytes));
            }
            _ => return Err(WormholeError::Contract("a message that does not belong there")),
        }
        Ok(())
    }

    /// A piece of what is received.
    fn take(&mut self, piece: &[u8]) -> Result<(), WormholeError> {
        let announced = self.announced.ok_or(WormholeError::Contract("data before there is a connection"))?;
        let spool = self.spool.as_mut().ok_or(WormholeError::Contract("data where none is to come"))?;
        if announced - spool.size() < piece.len() as u64 {
            return Err(WormholeError::Contract("more data than was announced"));
        }
        spool.write(piece)?;
        (self.progress)(Progress::Bytes(spool.size()));
        Ok(())
    }

    fn done(self) -> Result<(), WormholeError> {
        let announced = self.announced.ok_or(WormholeError::Contract("an end before there is a connection"))?;
        match self.spool {
            Some(spool) if spool.size() != announced => Err(WormholeError::Contract("an end before the data's")),
            _ => Ok(()),
        }
    }

    async fn frame(&mut self, output: &mut ChildStdout) -> Result<(Kind, Vec<u8>), WormholeError> {
        let mut header = [0; HEADER];
        self.fill(output, &mut header).await?;
        let (kind, length) = frame::parse(header)?;
        let mut body = vec![0; length];
        self.fill(output, &mut body).await?;
        Ok((kind, body))
    }

    async fn fill(&mut self, output: &mut ChildStdout, buffer: &mut [u8]) -> Result<(), WormholeError> {
        match timeout_at(self.deadline, output.read_exact(buffer)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(WormholeError::Died { how: error.to_string() }),
            Err(_) => Err(WormholeError::Stuck { phase: self.phase, after: self.bound() + OVERDUE }),
        }
    }

    fn bound(&self) -> Duration {
        self.phase.map_or(START, |phase| Duration::from_millis(self.times.of(phase)))
    }
}

async fn order(todo: &mpsc::Sender<Todo>, order: &Order) -> Result<(), WormholeError> {
    let _ = todo.send(Todo::Order(frame::encode(order)?)).await;
    Ok(())
}

/// What a program that was started says first.
pub(super) async fn layers(mut output: ChildStdout) -> Result<Vec<Layer>, WormholeError> {
    let times = Patience::default().times();
    let task = Task::Receive { most: 0 };
    let deadline = Instant::now() + START;
    let mut ear = Ear { task, times, spool: None, progress: |_| (), phase: None, announced: None, deadline };
    ear.layers(&mut output).await
}

/// Whether the program's own sandbox is good enough.
fn confined(layers: &[Layer], weaker: bool) -> Result<(), WormholeError> {
    let shown = |layer: &Layer| format!("{}: {}", layer.name, layer.detail);
    let missing: Vec<String> = layers.iter().filter(|layer| !layer.enforced).map(shown).collect();
    let missing = missing.join("; ");
    if missing.is_empty() {
        return Ok(());
    }
    if !weaker {
        return Err(WormholeError::Weaker { missing });
    }
    tracing::debug!(%missing, "p2p-wormhole is not wholly confined here");
    Ok(())
}

fn clean_layer(layer: Layer) -> Layer {
    Layer { name: clean(&layer.name), detail: clean(&layer.detail), ..layer }
}

/// A text of a program that speaks with strangers, for logs and terminals.
fn clean(text: &str) -> String {
    text::for_log(text, MAX_TEXT)
}

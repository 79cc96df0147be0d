//! All ways to the peer at once; the first one that leads there is taken, and direct ones have a head start.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    time::Duration,
};

use async_io::{Async, Timer};
use futures_lite::StreamExt;
use futures_util::{future::LocalBoxFuture, stream::FuturesUnordered};
use p2p_wormhole_contract::message::Failure;

use super::{Records, Road, Role, Words};
use crate::{failure, time::within};

/// How much later relays are asked, where there may be a direct way.
const HEAD_START: Duration = Duration::from_secs(1);
/// For whoever connects to us to show that it is the peer.
const GREETING: Duration = Duration::from_secs(10);
/// The most of those that may be about to show it.
const STRANGERS: usize = 8;
/// The most that may try at all.
const VISITS: usize = 256;
/// Of so many ways it is told why they did not work.
const REASONS: usize = 6;

/// A connection on which the sender said *go*.
pub(crate) struct Connection {
    pub(crate) records: Records,
    pub(crate) with: SocketAddr,
    pub(crate) relayed: bool,
}

enum Step {
    /// Somebody connected to the listener.
    Came(Async<TcpListener>, Option<(Async<TcpStream>, SocketAddr)>),
    /// One who came turned out not to be the peer.
    Stranger,
    /// A way that leads to the peer.
    Ready { stream: Async<TcpStream>, with: SocketAddr, relayed: bool },
    /// A way that does not.
    Blocked(String),
}

type Steps = FuturesUnordered<LocalBoxFuture<'static, Step>>;

/// Tries all ways. Ends with an error when none is left; the caller bounds the time.
pub(crate) async fn connect(road: Road, words: Words) -> Result<Connection, Failure> {
    let words = Rc::new(words);
    let steps = begin(road, &words);
    let (mut steps, mut strangers, mut visits, mut reasons) = (steps, 0, 0, Vec::new());
    while let Some(step) = steps.next().await {
        match step {
            Step::Came(listener, visitor) => {
                if let Some((stream, with)) = visitor.filter(|_| strangers < STRANGERS) {
                    strangers += 1;
                    steps.push(Box::pin(receive_visitor(stream, with, Rc::clone(&words))));
                }
                visits += 1;
                if visits < VISITS {
                    steps.push(Box::pin(accept(listener)));
                }
            }
            Step::Stranger => strangers = strangers.saturating_sub(1),
            Step::Ready { mut stream, with, relayed } => match decide(&mut stream, words.role()).await {
                Ok(()) => return Ok(Connection { records: Records::new(stream, &words), with, relayed }),
                Err(why) => reasons.push(format!("{with}: {why}")),
            },
            Step::Blocked(why) => reasons.push(why),
        }
    }
    reasons.truncate(REASONS);
    let why = if reasons.is_empty() { "neither side can be reached".to_owned() } else { reasons.join("; ") };
    Err(Failure::NoWay(failure::bounded(&why)))
}

fn begin(road: Road, words: &Rc<Words>) -> Steps {
    let steps = Steps::new();
    let direct = !road.direct.is_empty() || !road.listening.listeners.is_empty();
    for listener in road.listening.listeners {
        steps.push(Box::pin(accept(listener)));
    }
    for address in road.direct {
        steps.push(Box::pin(dial(address, false, Duration::ZERO, Rc::clone(words))));
    }
    let delay = if direct { HEAD_START } else { Duration::ZERO };
    for address in road.relays {
        steps.push(Box::pin(dial(address, true, delay, Rc::clone(words))));
    }
    steps
}

/// The receiver has heard the decision when a way is ready.
async fn decide(stream: &mut Async<TcpStream>, role: Role) -> Result<(), String> {
    match role {
        Role::Sender => Words::go(stream).await,
        Role::Receiver => Ok(()),
    }
}

async fn accept(listener: Async<TcpListener>) -> Step {
    let visitor = listener.accept().await.ok();
    if visitor.is_none() {
        Timer::after(HEAD_START).await; // No descriptor is left, perhaps: not again at once.
    }
    Step::Came(listener, visitor)
}

async fn receive_visitor(mut stream: Async<TcpStream>, with: SocketAddr, words: Rc<Words>) -> Step {
    match within(GREETING, words.greet(&mut stream)).await {
        Some(Ok(())) => match chosen(&mut stream, &words).await {
            Ok(()) => Step::Ready { stream, with, relayed: false },
            Err(_) => Step::Stranger,
        },
        _ => Step::Stranger,
    }
}

async fn dial(with: SocketAddr, relayed: bool, delay: Duration, words: Rc<Words>) -> Step {
    Timer::after(delay).await;
    let tried = async {
        let mut stream = Async::<TcpStream>::connect(with).await.map_err(|error| error.to_string())?;
        if relayed {
            words.ask_relay(&mut stream).await?;
        }
        words.greet(&mut stream).await?;
        chosen(&mut stream, &words).await?;
        Ok::<_, String>(stream)
    };
    match tried.await {
        Ok(stream) => Step::Ready { stream, with, relayed },
        Err(why) if relayed => Step::Blocked(format!("relay {with}: {why}")),
        Err(why) => Step::Blocked(format!("{with}: {why}")),
    }
}

async fn chosen(stream: &mut Async<TcpStream>, words: &Words) -> Result<(), String> {
    match words.role() {
        Role::Sender => Ok(()),
        Role::Receiver => Words::wait_for_go(stream).await,
    }
}

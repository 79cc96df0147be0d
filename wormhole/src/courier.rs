//! One transfer from the request to the last message.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use p2p_wormhole_contract::message::{Event, Failure, Host, Layer, Order, Phase, Reach, Relay, Request, Task};

use crate::{
    code::{self, Code},
    failure,
    letters::{self, TransitLetter},
    meeting::{Agreement, Meeting, Place},
    pipes::{Hangup, Pipes},
    receive, send,
    time::{bounded, within},
    transit::{Connection, Listening, Road, Role, Words, connect},
};

/// How long a reason of the peer's may come after its connection has broken.
const REASON: Duration = Duration::from_secs(1);

/// Says what confines this program, takes the request and carries it out. The last message is sent here only if all went
/// well.
pub(crate) async fn serve(pipes: &mut Pipes, layers: Vec<Layer>, here: &[IpAddr]) -> Result<(), Failure> {
    pipes.output.greeting(&Event::Confined(layers)).await?;
    pipes.input.greeting().await?;
    let request = match pipes.input.order().await? {
        Order::Request(request) => *request,
        Order::Addresses(_) => return Err(Failure::Contract("no request".to_owned())),
    };
    let code = check(&request)?;
    let hangup = pipes.hangup.clone();
    let mut place = Place::new(code);
    let met = unless(hangup.clone(), Box::pin(meet(pipes, &request, &mut place))).await;
    let meeting = match met {
        Ok(agreement) => place.with(agreement)?,
        Err(failure) => {
            place.leave(&failure).await;
            return Err(failure);
        }
    };
    let mut transfer = Transfer { pipes, request: &request, here, meeting };
    let result = unless(hangup, Box::pin(transfer.run())).await;
    let Transfer { pipes, meeting, .. } = transfer;
    if result.is_ok() {
        pipes.output.last(&Event::Done).await;
    }
    meeting.leave(&result).await;
    result
}

fn check(request: &Request) -> Result<Code, Failure> {
    let code = code::parse(&request.code);
    if request.reach == Reach::Nowhere && !request.relayed {
        return Err(Failure::Request("neither direct connections nor relays are allowed".to_owned()));
    }
    code.ok_or_else(|| Failure::Request("the code is not a number, a hyphen and a password".to_owned()))
}

/// Carries on unless p2p-worker hangs up.
async fn unless<T>(hangup: Hangup, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let cancelled = async {
        hangup.await;
        Err(Failure::Cancelled)
    };
    futures_lite::future::or(cancelled, work).await
}

async fn meet(pipes: &mut Pipes, request: &Request, place: &mut Place) -> Result<Agreement, Failure> {
    let times = &request.times;
    pipes.output.say(&Event::Phase(Phase::Mailbox)).await?;
    bounded(Phase::Mailbox, times.mailbox_ms, Box::pin(place.open(&request.mailbox))).await?;
    pipes.output.say(&Event::Phase(Phase::Peer)).await?;
    bounded(Phase::Peer, times.peer_ms, place.agree()).await
}

/// A transfer with a peer that knows the password.
struct Transfer<'a> {
    pipes: &'a mut Pipes,
    request: &'a Request,
    here: &'a [IpAddr],
    meeting: Meeting,
}

impl Transfer<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        let times = self.request.times;
        self.pipes.output.say(&Event::Phase(Phase::Offer)).await?;
        let agreed = bounded(Phase::Offer, times.offer_ms, self.agree()).await?;
        self.pipes.output.say(&Event::Phase(Phase::Connect)).await?;
        let Agreed { road, words, size } = agreed;
        let meeting = &mut self.meeting;
        let connecting = bounded(Phase::Connect, times.connect_ms, connect(road, words));
        let Connection { mut records, with, relayed } = explained(meeting, connecting).await?;
        self.pipes.output.say(&Event::Connected { with, relayed, size }).await?;
        self.pipes.output.say(&Event::Phase(Phase::Payload)).await?;
        let stall = Duration::from_millis(times.stall_ms);
        let pipes = &mut *self.pipes;
        let payload = async {
            match self.request.task {
                Task::Send { size } => send::payload(pipes, &mut records, size, stall).await,
                Task::Receive { .. } => receive::payload(&mut pipes.output, &mut records, size, stall).await,
            }
        };
        explained(meeting, bounded(Phase::Payload, times.payload_ms, payload)).await
    }

    /// Exchanges offers and answers, and ways to reach each other.
    async fn agree(&mut self) -> Result<Agreed, Failure> {
        let Request { task, reach, relayed, relays, .. } = self.request;
        let role = match task {
            Task::Send { .. } => Role::Sender,
            Task::Receive { .. } => Role::Receiver,
        };
        let listening = Listening::new(self.here, *reach);
        let ours: &[Relay] = if *relayed { relays } else { &[] };
        let hosts: Vec<&Host> = ours.iter().map(|relay| &relay.host).collect();
        let letter = letters::transit(*reach > Reach::Nowhere, &listening.told, *relayed, &hosts);
        let (size, theirs) = match *task {
            Task::Send { size } => (size, send::offer(&mut self.meeting, &letter, size).await?),
            Task::Receive { most } => receive::consent(&mut self.meeting, &letter, most).await?,
        };
        let their_relays = if *relayed { self.resolve(&theirs, ours).await? } else { Vec::new() };
        let road = Road::new(listening, *reach, &theirs.direct(), ours, &their_relays);
        let words = self.meeting.transit_key().and_then(|key| Words::new(role, &key));
        let words = words.ok_or_else(failure::no_random_bits)?;
        Ok(Agreed { road, words, size })
    }

    /// What the names of the peer's relays mean, where they are not ours. This program cannot ask for names itself.
    async fn resolve(&mut self, theirs: &TransitLetter, ours: &[Relay]) -> Result<Vec<Relay>, Failure> {
        let known = |host: &Host| ours.iter().any(|relay| relay.host == *host);
        let hosts: Vec<Host> = theirs.relays().into_iter().filter(|host| !known(host)).collect();
        let mut found: HashMap<Host, Vec<IpAddr>> = HashMap::new();
        let (named, numbered): (Vec<_>, Vec<_>) =
            hosts.into_iter().partition(|host| host.name.parse::<IpAddr>().is_err());
        found.extend(numbered.into_iter().map(|host| {
            let address = host.name.parse().ok();
            (host, Vec::from_iter(address))
        }));
        if !named.is_empty() {
            self.pipes.output.say(&Event::Resolve(named.clone())).await?;
            match self.pipes.input.order().await? {
                Order::Addresses(addresses) => found.extend(named.into_iter().zip(addresses)),
                Order::Request(_) => return Err(Failure::Contract("a second request".to_owned())),
            }
        }
        Ok(found.into_iter().map(|(host, addresses)| Relay { host, addresses }).collect())
    }
}

/// What was agreed.
struct Agreed {
    road: Road,
    words: Words,
    size: u64,
}

/// The result of the work; but what the peer says of why it gives up is a better reason than that its connection broke.
async fn explained<T>(meeting: &mut Meeting, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut complaint = std::pin::pin!(meeting.complaint());
    let complained = async { Err(complaint.as_mut().await) };
    let result = futures_lite::future::or(work, complained).await;
    match result {
        Err(failure @ (Failure::Lost { .. } | Failure::NoWay(_))) => {
            Err(within(REASON, complaint).await.unwrap_or(failure))
        }
        result => result,
    }
}

/// A peer's last word that is not what it should be.
pub(crate) fn out_of_order(what: &str) -> Failure {
    Failure::Protocol(failure::bounded(&format!("{what} was expected")))
}

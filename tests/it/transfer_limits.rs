//! Who gets how many connections and streams of a real node.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use p2p_worker::{
    proto::{
        frames::{Frame, FromClient, FromWorker},
        refusal::Refusal,
    },
    transfer::{
        Network,
        libp2p::{Listen, Node, NodeConfig},
    },
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::transfer_support::{ANY, FETCH, Hand, LONG, Pair, Tcp, hello};

async fn node(listen: &[&str]) -> Node {
    let listen = Listen::On(listen.iter().map(|address| address.parse().unwrap()).collect());
    let idle = Duration::from_millis(300);
    Node::start(NodeConfig { listen, idle, ..NodeConfig::default() }).await.unwrap()
}

fn socket_address(node: &Node) -> SocketAddr {
    let addresses = node.addresses();
    let tcp = addresses.iter().find(|address| address.as_str().contains("/tcp/")).unwrap().to_string();
    let port: u16 = tcp.rsplit('/').next().unwrap().parse().unwrap();
    ([127, 0, 0, 1], port).into()
}

/// Waits for a condition.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn who_says_nothing_is_counted_and_keeps_nobody_out() {
    let client = node(&["/ip4/127.0.0.1/tcp/0"]).await;
    let worker = Node::start(NodeConfig::default()).await.unwrap();
    client.allow(worker.id());
    // Another address of loopback, which plays another machine.
    let mut crowd: Vec<TcpStream> = Vec::new();
    for _ in 0..40 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        crowd.push(socket.connect(socket_address(&client)).await.unwrap());
    }
    // All beyond the limit of a place are closed at once, the others wait for their handshake.
    let mut closed = 0;
    for stream in &mut crowd {
        let mut buffer = [0; 64];
        let ended = async {
            // libp2p may say its first word before it hears that the connection is not wanted.
            while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
        };
        closed += usize::from(timeout(Duration::from_millis(100), ended).await.is_ok());
    }
    assert!(closed >= 40 - 16, "{closed} of 40");
    worker.dial(client.id(), &client.addresses(), ANY).await.unwrap();
    assert_eq!(client.connections(), 1);
}

#[tokio::test]
async fn a_stranger_is_let_go_after_the_handshake_and_an_idle_peer_after_a_while() {
    let client = Arc::new(node(&["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"]).await);
    // Streams that are taken are dropped at once; one that waited to be taken would keep its connection.
    let taker = Arc::clone(&client);
    tokio::spawn(async move { while taker.accept().await.is_some() {} });
    let (stranger, worker) = (node(&[]).await, node(&[]).await);
    for _ in 0..20 {
        assert!(stranger.dial(client.id(), &client.addresses(), ANY).await.is_err());
    }
    until("a stranger's connections are closed", || client.connections() == 0).await;
    client.allow(worker.id());
    let stream = worker.dial(client.id(), &client.addresses(), ANY).await.unwrap();
    until("a friend's connection is there", || client.connections() > 0).await;
    drop(stream);
    until("an idle connection is closed", || client.connections() == 0 && worker.connections() == 0).await;
}

#[tokio::test]
async fn one_peer_has_so_many_streams_without_a_ticket_and_the_others_have_theirs() {
    let pair = Pair::new(&Tcp).await;
    let delivery = pair.grant(b"future");
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(pair.hand().await);
    }
    let mut ended = 0;
    for hand in &mut silent {
        ended += usize::from(timeout(Duration::from_millis(100), hand.hear::<FromClient>()).await.is_ok());
    }
    assert!(ended >= 30 - 8, "{ended} of 30");
    // Another worker is let in at once.
    let other = crate::transfer_support::transfer(&Tcp, Default::default()).await;
    let own = pair.grant_to(other.network().id(), b"another future");
    let (client, addresses) = (pair.client.network().id(), pair.client.network().addresses());
    let mut hand = Hand::new(other.network().dial(client, &addresses, ANY).await.unwrap().0);
    hand.say(&FromWorker::Hello(hello(delivery.ticket, FETCH))).await;
    let refused = hand.until(|frame| match frame {
        Frame::Control(FromClient::Refuse(refusal)) => Some(refusal),
        _ => None,
    });
    assert_eq!(refused.await, Refusal::Ticket);
    let mut hand = Hand::new(other.network().dial(client, &addresses, ANY).await.unwrap().0);
    hand.say(&FromWorker::Hello(hello(own.ticket, FETCH))).await;
    hand.until(|frame| matches!(frame, Frame::Control(FromClient::Future { .. })).then_some(())).await;
}

#[tokio::test]
async fn dead_addresses_do_not_delay() {
    let client = node(&["/ip4/127.0.0.1/tcp/0"]).await;
    let worker = Node::start(NodeConfig::default()).await.unwrap();
    client.allow(worker.id());
    // A UDP socket that never answers, a TCP port that nobody listens on, addresses that lead nowhere (RFC 5737, 3849).
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut addresses = vec![
        format!("/ip4/127.0.0.1/udp/{port}/quic-v1"),
        "/ip4/127.0.0.1/tcp/1".to_owned(),
        "/ip4/192.0.2.1/tcp/4001".to_owned(),
        "/ip4/192.0.2.1/udp/4001/quic-v1".to_owned(),
        "/ip6/2001:db8::1/tcp/4001".to_owned(),
    ];
    addresses.extend(client.addresses().iter().map(ToString::to_string));
    let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let begin = tokio::time::Instant::now();
    worker.dial(client.id(), &addresses, ANY).await.unwrap();
    // A dial that waited for the dead ones would take its 5 to 10 seconds.
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn ipv6_works_by_both_ways() {
    for address in ["/ip6/::1/tcp/0", "/ip6/::1/udp/0/quic-v1"] {
        let client = node(&[address]).await;
        let worker = Node::start(NodeConfig::default()).await.unwrap();
        client.allow(worker.id());
        assert!(client.addresses()[0].as_str().starts_with("/ip6/::1/"), "{:?}", client.addresses());
        worker.dial(client.id(), &client.addresses(), ANY).await.unwrap();
    }
}

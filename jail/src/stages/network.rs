//! The way to the internet, and to nothing else: part of the stage *Namespaces*.
//!
//! The task's network namespace has one end of a veth pair. The other end is in a second namespace, the *router*, in
//! which no process of the task ever is, with the interface of a user-mode network program (pasta) that the monitor started
//! outside. The router forwards, but for the blocks that are closed: what comes in to be forwarded is looked up in
//! its routes whatever the sender asked for. Routes in the task's own namespace would not do: for a socket that names
//! its interface (`SO_BINDTODEVICE`, `IP_PKTINFO`, `IP_UNICAST_IF`), IPv4 takes an unreachable address to be on that link.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};

use crate::clock;
use crate::failure::{At, Failure, Outcome};
use crate::spec::{Ipv4Block, Stage};
use crate::stages::rtnetlink::{Routing, Way};

const STAGE: Stage = Stage::Namespaces;

/// The interface that pasta makes in the router.
pub(crate) const PASTA_LINK: &str = "way";
/// The task's interface.
pub(crate) const TASK_LINK: &str = "eth0";
/// The router's addresses: towards pasta, the next hop there, towards the task. The task's. All of a block for protocols
/// (RFC 6890) that is closed otherwise.
pub(crate) const ROUTER: [u8; 4] = [192, 0, 0, 2];
pub(crate) const NEXT_HOP: [u8; 4] = [192, 0, 0, 1];
const ROUTER_INSIDE: [u8; 4] = [192, 0, 0, 5];
const TASK: [u8; 4] = [192, 0, 0, 6];
/// Where pasta answers for the host's name server.
pub(crate) const NAME_SERVER: [u8; 4] = [192, 0, 0, 53];

/// As pasta has it: the largest packet of 802.3, rounded to words.
const MTU: u32 = 65520;
const PATIENCE: Duration = Duration::from_secs(10);
/// In this order. Nobody can be answered who cannot be sent to: what comes in with a sender that is closed, or that would not
/// be reached by that link, is dropped (`rp_filter`), so nobody near can send to the task. Then it forwards.
///
/// That a place is closed the task is told by ICMP, which the kernel does five times at once and once a second after; the limit
/// that is lifted here would make that two.
const SETTINGS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/conf/all/rp_filter", "1"),
    ("/proc/sys/net/ipv4/icmp_ratelimit", "0"),
    ("/proc/sys/net/ipv4/ip_forward", "1"),
];
const EVERYTHING: Ipv4Block = Ipv4Block { address: [0; 4], prefix: 0 };

/// In the init, which is in the router: waits for pasta, and makes and enters the task's network namespace.
pub(crate) fn connect(closed: &[Ipv4Block]) -> Outcome<()> {
    let router = own_namespace()?;
    wait_for_pasta()?;
    unshare(CloneFlags::CLONE_NEWNET).at(STAGE, || "unshare of the network namespace".into())?;
    let task = own_namespace()?;
    inside(&router).at(STAGE, || "rtnetlink, the task's link".into())?;
    enter(&router)?;
    outside(closed).at(STAGE, || "rtnetlink, the router's links and routes".into())?;
    SETTINGS.iter().try_for_each(|(path, value)| fs::write(path, value).at(STAGE, || format!("writing {path}")))?;
    enter(&task)
}

fn own_namespace() -> Outcome<File> {
    File::open("/proc/self/ns/net").at(STAGE, || "opening /proc/self/ns/net".into())
}

fn enter(namespace: &File) -> Outcome<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).at(STAGE, || "entering a network namespace".into())
}

fn wait_for_pasta() -> Outcome<()> {
    let routing = Routing::here().at(STAGE, || "socket AF_NETLINK".into())?;
    let deadline = clock::now() + PATIENCE;
    loop {
        match routing.link(PASTA_LINK) {
            Ok(_) => return Ok(()),
            Err(Errno::ENODEV) if clock::now() < deadline => {
                let _ = poll(&mut [] as &mut [PollFd<'_>], PollTimeout::from(2u8));
            }
            Err(Errno::ENODEV) => return Err(Failure::new(STAGE, "pasta made no interface in 10 s")),
            Err(errno) => return Err(errno).at(STAGE, || "rtnetlink, looking for pasta's link".into()),
        }
    }
}

/// The task's namespace: its own loopback, and one link to the router.
fn inside(router: &File) -> nix::Result<()> {
    let routing = Routing::here()?;
    routing.up(routing.link("lo")?, None)?;
    routing.add_pair(TASK_LINK, "task", router.as_fd())?;
    let link = routing.link(TASK_LINK)?;
    routing.add_address(link, TASK)?;
    routing.up(link, Some(MTU))?;
    routing.add_route(EVERYTHING, Way::Router(ROUTER_INSIDE, link))
}

/// The router: what is closed first.
fn outside(closed: &[Ipv4Block]) -> nix::Result<()> {
    let routing = Routing::here()?;
    closed.iter().try_for_each(|block| routing.add_route(*block, Way::Nowhere))?;
    let (pasta, task) = (routing.link(PASTA_LINK)?, routing.link("task")?);
    routing.add_address(pasta, ROUTER)?;
    routing.add_address(task, ROUTER_INSIDE)?;
    routing.up(pasta, Some(MTU))?;
    routing.up(task, Some(MTU))?;
    let only = |address| Ipv4Block { address, prefix: 32 };
    routing.add_route(only(TASK), Way::Link(task))?;
    routing.add_route(only(NAME_SERVER), Way::Router(NEXT_HOP, pasta))?;
    routing.add_route(EVERYTHING, Way::Router(NEXT_HOP, pasta))
}

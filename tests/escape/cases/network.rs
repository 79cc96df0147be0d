//! Cases 61 to 67: the network.

use std::{
    net::{IpAddr, TcpListener, UdpSocket},
    sync::OnceLock,
};

use crate::{
    case::{Act, Case, Outcome::*},
    world::{Place, Profile},
};

const LAYERS: &str = "network, syscalls";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case { acts: metadata, ..Case::new(61, Denied, "ask the cloud's metadata service for credentials", LAYERS) },
        Case { acts: local_services, ..Case::new(62, Denied, "talk to services of this machine", LAYERS) },
        Case {
            acts: neighbours,
            ..Case::new(63, Denied, "talk to the neighbours: router, multicast, broadcast", LAYERS)
        },
        Case { acts: names, ..Case::new(64, Nothing, "send data out in names to be resolved", "network, filesystem") },
        Case { acts: families, ..Case::new(65, Denied, "open sockets of any family, type and protocol", LAYERS) },
        Case { acts: listening, ..Case::new(66, Denied, "listen on ports of this machine", LAYERS) },
        Case {
            acts: environment,
            ..Case::new(67, Nothing, "read tokens and proxies from the environment", "filesystem")
        },
    ]
}

/// A service of this machine, on both loopbacks where there are two: the ports.
fn service() -> (u16, Option<u16>) {
    static PORTS: OnceLock<(u16, Option<u16>)> = OnceLock::new();
    let listen = |address: &str| -> Option<u16> {
        let listener = TcpListener::bind((address, 0)).ok()?;
        let port = listener.local_addr().ok()?.port();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        Some(port)
    };
    *PORTS.get_or_init(|| (listen("127.0.0.1").unwrap(), listen("::1")))
}

/// What a socket that is not AF_UNIX comes to: `strict` has no sockets at all.
fn refused(place: &Place<'_>) -> &'static str {
    match place.profile {
        Profile::Strict => "ENOSYS",
        Profile::Standard => "EPERM",
    }
}

const NOT_EVERYWHERE: &str = "not every machine has such a neighbour; case 62 has the control of the same act";

fn metadata(place: &Place<'_>) -> Vec<Act> {
    let hosts = ["169.254.169.254", "169.254.170.2", "100.100.100.200", "fd00:ec2::254"];
    let tcp =
        hosts.map(|host| Act::native(format!("inet\tconnect\t{host}\t80"), refused(place)).stated(NOT_EVERYWHERE));
    let r = "s <- socketConnection('169.254.169.254', 80L, timeout = 2L); close(s)";
    tcp.into_iter().chain([Act::r(r, "error: *").stated(NOT_EVERYWHERE)]).collect()
}

fn local_services(place: &Place<'_>) -> Vec<Act> {
    let (four, six) = service();
    let mut acts = vec![
        Act::native(format!("inet\tconnect\t127.0.0.1\t{four}"), refused(place)).bare("ok"),
        Act::native(format!("inet\tconnect\t127.1.2.3\t{four}"), refused(place)).stated("as 127.0.0.1"),
        Act::native("inet\tdatagram\t127.0.0.1\t9", refused(place)).bare("ok"),
        Act::r(format!("s <- socketConnection('127.0.0.1', {four}L, timeout = 5L); close(s)"), "error: *").bare("ok"),
        Act::r(format!("s <- socketConnection('localhost', {four}L, timeout = 5L); close(s)"), "error: *").bare("ok"),
        Act::r(format!("readLines('http://127.0.0.1:{four}/')"), "error: *").stated("nothing is answered there"),
    ];
    let own = own_address().to_string();
    acts.push(
        Act::native(format!("inet\tconnect\t{own}\t22"), refused(place)).stated("not every machine serves there"),
    );
    if let Some(port) = six {
        acts.push(Act::native(format!("inet\tconnect\t::1\t{port}"), refused(place)).bare("ok"));
    }
    acts
}

/// The address that this machine has in its own network, if it is in one. No packet is sent to find it.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let found = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    found.map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip())
}

fn neighbours(place: &Place<'_>) -> Vec<Act> {
    let tcp = ["192.168.0.1", "192.168.1.1", "10.0.0.1", "172.17.0.1"];
    let udp = ["224.0.0.251\t5353", "239.255.255.250\t1900", "255.255.255.255\t9", "ff02::fb\t5353"];
    let tcp = tcp.map(|host| Act::native(format!("inet\tconnect\t{host}\t80"), refused(place)).stated(NOT_EVERYWHERE));
    let udp = udp.map(|host| Act::native(format!("inet\tdatagram\t{host}"), refused(place)).stated(NOT_EVERYWHERE));
    tcp.into_iter().chain(udp).collect()
}

fn names(_: &Place<'_>) -> Vec<Act> {
    let sockets = [
        "/run/nscd/socket",
        "/var/run/nscd/socket",
        "/run/systemd/resolve/io.systemd.Resolve",
        "/run/systemd/userdb",
        "/run/dbus/system_bus_socket",
        "/run/avahi-daemon/socket",
    ];
    let sockets = sockets.map(|path| Act::native(format!("stat\t{path}"), "ENOENT").stated("not every machine has it"));
    let mut acts: Vec<Act> = sockets.into_iter().collect();
    acts.push(Act::native("stat\t/etc/resolv.conf", "ENOENT").bare("ok"));
    let lookup = "is.null(suppressWarnings(utils::nsl('secret.example.org')))";
    acts.push(Act::r(lookup, "ok").stated("a machine without a network resolves it as little"));
    acts.push(
        Act::r("utils::nsl('localhost')", "127.0.0.1").stated("the file that the profile made up, and nothing else"),
    );
    let nothing = "system(\"perl -MSocket -e 'exit(defined(inet_aton(q(secret.example.org))) ? 0 : 3)'\")";
    acts.push(Act::r(nothing, "3").stated("a machine without a network resolves it as little"));
    acts
}

fn families(place: &Place<'_>) -> Vec<Act> {
    let some = match place.profile {
        Profile::Strict => "none",
        Profile::Standard => "1",
    };
    let pair = if place.profile == Profile::Strict { "ENOSYS" } else { "EPERM" };
    vec![
        Act::native("inet\tfamilies", some).bare("1,2*"),
        Act::native("call\tsocketpair\t16\t3\t0\tz:8", pair).bare("EOPNOTSUPP | EPROTONOSUPPORT | ESOCKTNOSUPPORT"),
        Act::native("call\tsocket\t0xffffffff00000002\t1\t0", pair).bare("ok"),
    ]
}

fn listening(place: &Place<'_>) -> Vec<Act> {
    vec![
        Act::native("inet\tlisten\t127.0.0.1\t0", refused(place)).bare("ok"),
        Act::native("inet\tlisten\t0.0.0.0\t0", refused(place)).bare("ok"),
        Act::r(format!("close(serverSocket({}L))", free_port()), "error: *").bare("ok"),
    ]
}

/// A port that nobody used a moment ago.
fn free_port() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(|| TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port())
}

fn environment(_: &Place<'_>) -> Vec<Act> {
    let mut acts: Vec<Act> = ["P2P_TOKEN", "GITHUB_PAT", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS"]
        .map(|name| Act::native(format!("env\t{name}"), "unset").bare("secret* | unix* | /*"))
        .into_iter()
        .collect();
    let planned = "the environment is made from nothing without a sandbox too";
    acts.push(Act::r("any(grepl('secret|proxy|token', Sys.getenv(), ignore.case = TRUE))", "FALSE").stated(planned));
    let proxies = "any(nzchar(Sys.getenv(c('http_proxy', 'https_proxy', 'AWS_SECRET_ACCESS_KEY', 'R_PROFILE_USER'))))";
    acts.push(Act::r(proxies, "FALSE").stated(planned));
    acts.push(
        Act::r("unname(getOption('repos'))[1]", "@CRAN@").stated("R's own default: no profile of the owner is read"),
    );
    acts
}

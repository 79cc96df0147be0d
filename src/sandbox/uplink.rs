//! The way to the internet of tasks whose profile says `network.reach = "internet"`: what is closed all the same.

use p2p_jail::spec::{Ipv4Block, Uplink};

use super::{Driver, Machine, PlanError, Profile, profile::Reach};

/// Not the internet (RFC 6890 and the IANA registry of special addresses), but for the blocks of documentation, which lead
/// nowhere.
const CLOSED: [([u8; 4], u8); 13] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 31, 196, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// What holds, for the owner; the jail adds what it finds at each task's start (`stages::rtnetlink`).
pub(super) const IN_WORDS: &str = "TCP and UDP over IPv4 to public addresses, no IPv6; closed: private, shared, link-local, \
    multicast and reserved ones, and at each task's start this machine's addresses, its networks, and where its routes \
    lead but the default; names are asked of this machine's name server";

/// What does not, which the owner has to know.
pub(super) const NOT_HELD: &str = "public addresses that are near all the same: the router's outer one, other networks of \
    the same institution behind the default route, addresses that this machine gets later; this machine's address is what \
    others see";

/// The way that this profile asks for, if any.
///
/// # Errors
/// [`PlanError::NoInternet`] where it cannot be held.
pub(super) fn uplink(driver: Driver, profile: &Profile, machine: &Machine) -> Result<Option<Uplink>, PlanError> {
    if profile.reach == Reach::None {
        return Ok(None);
    }
    let refuse = |why: &str| Err(PlanError::NoInternet { why: why.to_owned() });
    let Some(program) = machine.pasta.clone() else {
        return refuse("there is no program pasta on the PATH: apt-get install passt");
    };
    if driver != Driver::Jail {
        return refuse("the driver jail alone closes this machine and its network: --sandbox jail");
    }
    if !machine.tun {
        return refuse(
            "/dev/net/tun is not there or not open to every user, as udev has it: sudo modprobe tun, sudo chmod 666 \
             /dev/net/tun (a systemd unit with PrivateDevices=yes hides it: see systemd/p2p-worker.service)",
        );
    }
    let closed = CLOSED.map(|(address, prefix)| Ipv4Block { address, prefix }).to_vec();
    Ok(Some(Uplink { program, closed }))
}

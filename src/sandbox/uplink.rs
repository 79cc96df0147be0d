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
        return refuse("the program pasta is not installed: apt-get install passt");
    };
    if driver != Driver::Jail {
        return refuse("only p2p-jail closes this machine and its network: --sandbox jail");
    }
    if !machine.tun {
        return refuse("/dev/net/tun is not open to every user, as udev has it: chmod 666 /dev/net/tun (modprobe tun)");
    }
    let closed = CLOSED.map(|(address, prefix)| Ipv4Block { address, prefix }).to_vec();
    Ok(Some(Uplink { program, closed }))
}

//! A payload of 1 GiB never sits in memory: measured in a process of its own, which plays both sides.

use std::{fs, process::Stdio, sync::Arc, time::Duration};

use p2p_worker::{
    spool::{SpoolWriter, Spooled},
    transfer::{DeliveryEvent, Grant, Network, TransferConfig},
};
use tokio::{process::Command, time::timeout};

use crate::transfer_support::{Pair, Quic, Site, Tcp, all_events, future, provenance, transfer};

const GIBIBYTE: u64 = 1 << 30;
/// What both sides together may have resident at their peak, in KiB: windows, queues, pieces, and the program itself.
const MOST: u64 = 160 << 10;

#[tokio::test]
async fn a_gibibyte_never_sits_in_memory() {
    let this = std::env::current_exe().unwrap();
    for name in ["by_tcp", "by_quic"] {
        let mut child = Command::new(&this);
        child.args(["--exact", &format!("transfer_memory::{name}"), "--ignored", "--nocapture"]);
        let child = child.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = timeout(Duration::from_secs(240), child).await.expect("a gibibyte there and back").unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let peak = text.lines().find_map(|line| line.split("peak ").nth(1)?.parse::<u64>().ok());
        let peak = peak.unwrap_or_else(|| panic!("{text}"));
        assert!(peak < MOST, "{name}: {peak} KiB resident");
    }
}

#[tokio::test]
#[ignore = "a part of a_gibibyte_never_sits_in_memory, which runs it in a process of its own"]
async fn by_tcp() {
    run(&Tcp).await;
}

#[tokio::test]
#[ignore = "a part of a_gibibyte_never_sits_in_memory, which runs it in a process of its own"]
async fn by_quic() {
    run(&Quic).await;
}

/// A file of bytes that do not shrink: one random MiB, each time with another beginning.
fn payload(folder: &std::path::Path) -> Spooled {
    let mut writer = SpoolWriter::new(folder, GIBIBYTE).unwrap();
    let mut piece = crate::transfer_support::bytes(1 << 20);
    for number in 0..GIBIBYTE >> 20 {
        piece[..8].copy_from_slice(&number.to_le_bytes());
        writer.write(&piece).unwrap();
    }
    writer.finish()
}

async fn run<S: Site>(site: &S) {
    // A folder on a disk: the file system of /tmp may be memory, though not this process's.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = TransferConfig::default();
    let pair = Pair { client: transfer(site, config).await, worker: transfer(site, config).await, directory };
    let payload = Arc::new(payload(pair.directory.path()));
    let mut delivery = pair
        .client
        .grant(Grant {
            worker: pair.worker.network().id().clone(),
            future: future(),
            payload: Arc::clone(&payload),
            max_result: GIBIBYTE,
            spool_directory: pair.directory.path().to_owned(),
        })
        .unwrap();
    let mut invitation = pair.invitation(delivery.ticket);
    invitation.max_future = GIBIBYTE;
    let running = async {
        let (arrived, session) = pair.worker.fetch(invitation).await.unwrap();
        assert_eq!(arrived.digest(), payload.digest());
        session.deliver(&arrived, provenance()).await.unwrap();
    };
    let ((), events) = tokio::join!(running, all_events(&mut delivery));
    let Some(DeliveryEvent::Done { result, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(result.digest(), payload.digest());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    #[expect(clippy::print_stdout, reason = "what the test that started this reads")]
    {
        println!("peak {}", peak.trim().trim_end_matches(" kB"));
    }
}

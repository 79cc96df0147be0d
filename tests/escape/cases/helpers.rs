//! What scenarios of several cases need.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::world::{Place, Ran};

/// What came of a scenario; the error says what went wrong.
pub(super) type Told = Result<(), String>;

/// How often a condition is looked at before it is given up: for two minutes, and more on a slow machine.
const LOOKS: u32 = 6000;

/// Whether a task ended with this exit status of `p2p-worker`, and said these things.
pub(super) fn expect(ran: &Ran, status: i32, stdout: &[&str], stderr: &[&str]) -> Told {
    let says = |text: &str, words: &[&str]| words.iter().all(|word| text.contains(word));
    if ran.status == Some(status) && says(&ran.stdout, stdout) && says(&ran.stderr, stderr) {
        return Ok(());
    }
    let short = |text: &str| text.chars().take(600).collect::<String>();
    let Ran { status: was, stdout: out, stderr: err } = ran;
    Err(format!(
        "status {was:?} with {:?} and {:?}, and not {status} with {stdout:?} and {stderr:?}",
        short(out),
        short(err)
    ))
}

/// The place's profile with other limits, some of which a test can wait for: lines of the table `limits`. Scratch is small, as
/// it must fit into the limit on memory.
pub(super) fn limited(place: &Place<'_>, limits: &str) -> String {
    let scratch = ["/tmp", "/home/task", "/dev/shm"]
        .map(|path| format!("\"{path}\" = {{ size = \"64 MiB\", files = 1000, why = \"a test\" }}\n"));
    changed(place, &format!("[limits]\n{limits}\n[scratch]\n{}", scratch.concat()))
}

/// The place's profile with these tables, as a file that everybody may read.
pub(super) fn changed(place: &Place<'_>, tables: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("changed-{}.toml", NEXT.fetch_add(1, Ordering::Relaxed));
    let path = place.world.folder().join(name);
    public(&path, format!("inherits = \"{}\"\n{tables}", place.profile).as_bytes());
    path.display().to_string()
}

/// Writes a file that everybody may read.
pub(super) fn public(path: &Path, contents: &[u8]) {
    fs::write(path, contents).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

/// A folder on the host in which everybody may write.
pub(super) fn open_folder(place: &Place<'_>, name: &str) -> PathBuf {
    let path = place.world.folder().join(name);
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    path
}

/// A number that only this run, case and place have, to find processes by it: seconds to sleep, some years.
pub(super) fn marker(place: &Place<'_>, case: u8) -> String {
    let name = place.to_string();
    let place = name.bytes().fold(0u32, |sum, byte| (sum * 31 + u32::from(byte)) % 9973);
    format!("{case}{:07}{place:04}", std::process::id())
}

/// Processes of this machine that have this text as an argument.
pub(super) fn processes_with(argument: &str) -> Vec<u32> {
    let has = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        line.split(|byte| *byte == 0).any(|text| text == argument.as_bytes()).then_some(pid)
    };
    fs::read_dir("/proc").unwrap().filter_map(has).collect()
}

/// A task is over when `p2p-worker` says so, not some time later.
pub(super) fn no_process_with(marker: &str) -> Told {
    match processes_with(marker).as_slice() {
        [] => Ok(()),
        left => Err(format!("processes are left: {left:?}")),
    }
}

/// Waits until something holds.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Told {
    for _ in 0..LOOKS {
        if holds() {
            return Ok(());
        }
        a_moment();
    }
    Err(format!("in vain: {what}"))
}

#[expect(clippy::disallowed_methods, reason = "between two looks at a condition")]
pub(super) fn a_moment() {
    std::thread::sleep(Duration::from_millis(20));
}

/// The `p2p-worker` among this process and its descendants.
pub(super) fn worker_below(pid: u32) -> Option<u32> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if name.trim() == "p2p-worker" {
        return Some(pid);
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().filter_map(|child| child.parse().ok()).find_map(worker_below)
}

/// R code that needs no sandbox, run by whoever runs the tests.
pub(super) fn rscript(code: &str) -> Result<String, String> {
    let output = Command::new("Rscript").args(["--vanilla", "-e", code]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

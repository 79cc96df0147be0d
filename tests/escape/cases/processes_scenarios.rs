//! Scenarios of the cases 23 to 45.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::world::{Place, Ran, eventually, processes_with, quoted};

/// The numbers of a process's children (the file takes a kernel with `CONFIG_PROC_CHILDREN`, as all distributions' are).
fn children(of: u32) -> String {
    fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default()
}

/// 25: signals to all that it may send to. R itself is spared by kill(-1), as the sender always is.
pub(super) fn kill_everybody(place: &Place<'_>) -> Result<(), String> {
    let pid = place.world.bystander.pid;
    let code = format!(
        "for (pid in c(-1L, 1L, {pid}L)) for (signal in c(15L, 9L, 19L)) \
         tools::pskill(pid, signal); cat('alive\\n')"
    );
    let ran = place.evaluate(&code);
    if !ran.stdout.contains("alive") || ran.status != Some(0) {
        return Err(format!("the job does not go on: {ran:?}"));
    }
    if !place.world.bystander.is_well() {
        return Err("the bystander is not well".to_owned());
    }
    if !place.does_controls() {
        return Ok(());
    }
    // The control: the same user's process outside.
    let mut victim = place.bare().run_program(Path::new("/bin/sleep")).arg("600").spawn().unwrap();
    // `timeout` was started; a signal to its child ends both.
    let mut child = String::new();
    let started = eventually(|| {
        child = children(victim.id());
        !child.is_empty()
    });
    let ran = place.bare().evaluate(&format!("cat(tools::pskill({}L, 9L), {started}, '\\n')", child.trim()));
    let died = eventually(|| victim.try_wait().unwrap().is_some());
    let _ = (victim.kill(), victim.wait());
    if died { Ok(()) } else { Err(format!("the control survives: {ran:?}")) }
}

/// 28: p2p-worker is started in a folder that is gone.
pub(super) fn working_folder(place: &Place<'_>) -> Result<(), String> {
    let gone = place.world.sacrifice();
    let future = place.world.future("cat(getwd(), native('cwd'), '\\n')");
    let mut command = place.exec_command(&future, &[]);
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let program = command.get_program().to_owned();
    let home = place.home();
    // The shell enters, removes the folder under itself, and becomes p2p-worker there.
    let mut there = Command::new("sh");
    there
        .args(["-c", "cd \"$1\" && rm -r \"$1\" && shift && exec \"$@\"", "sh"])
        .arg(&gone)
        .arg(program)
        .args(arguments);
    there.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &home).stdin(Stdio::null());
    command.stdin(Stdio::null());
    let ran = Ran::of(&there.output().unwrap());
    let fine = ran.stdout.contains("/home/task /home/task");
    if fine { Ok(()) } else { Err(format!("it runs elsewhere: {ran:?}")) }
}

/// Runs a command on a terminal of its own (script(1)), and returns what the terminal got.
fn on_a_terminal(command: &Command) -> Vec<u8> {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let line = words.map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''"))).collect::<Vec<_>>();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]).env_clear();
    for (name, value) in command.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    script.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    let mut bytes = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    child.wait().unwrap();
    bytes
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// 29: started from a terminal, the task has none.
pub(super) fn terminal(place: &Place<'_>) -> Result<(), String> {
    let future = place.world.future("cat(native('tty'), '\\n')");
    let seen = on_a_terminal(&place.exec_command(&future, &[]));
    let mut control = place.run_program(&place.world.program("escape-probe"));
    control.arg("tty");
    let outside = on_a_terminal(&control);
    if has(&seen, "no terminal") && has(&outside, "a terminal") {
        return Ok(());
    }
    Err(format!("inside {:?}, outside {:?}", String::from_utf8_lossy(&seen), String::from_utf8_lossy(&outside)))
}

/// 31: a title, a colour, a clipboard write, a device status report, by R's output, conditions and past R.
pub(super) fn written_to_a_terminal(place: &Place<'_>) -> Result<(), String> {
    let evil = "\u{1b}]0;p2p-title\u{7}\u{1b}[31mp2p-red\u{1b}]52;c;cDJw\u{7}\u{1b}[6n\u{9b}31m\u{202e}\r";
    let text = quoted(evil);
    let code = format!(
        "cat({text}, 'out\\n'); message({text}, 'message'); warning({text}); system(paste('printf %s', shQuote({text}))); \
         cat({text}, file = stderr()); stop({text}, 'error')"
    );
    let future = place.world.future(&code);
    let mut command = place.exec_command(&future, &[]);
    // The colours of our own log are escapes too.
    command.env("NO_COLOR", "1");
    let seen = on_a_terminal(&command);
    let arrived = has(&seen, "out") && has(&seen, "message") && has(&seen, "error");
    let harmless = !seen.contains(&0x1b) && !seen.contains(&0x07) && !has(&seen, "\u{9b}") && !has(&seen, "\u{202e}");
    if !arrived || !harmless {
        return Err(format!("the terminal got {:?}", String::from_utf8_lossy(&seen)));
    }
    if !place.does_controls() {
        return Ok(());
    }
    // The control: into a pipe, the bytes go as they are.
    let ran = place.evaluate(&code);
    if ran.stdout.contains(evil) { Ok(()) } else { Err(format!("the control has no escapes: {ran:?}")) }
}

/// 44: every tie to its supervisor that a process can cut by itself is cut, then p2p-worker is killed.
pub(super) fn outlive(place: &Place<'_>) -> Result<(), String> {
    let seconds = format!("7{:05}", place.world.unique());
    // setsid and a double fork; the probe would clear PR_SET_PDEATHSIG, which is not inherited by fork anyway.
    let cut = format!(
        "native('call', 'prctl', '1', '0', '0', '0', '0'); \
         system('trap \"\" HUP TERM INT; (setsid nohup sleep {seconds} >/dev/null 2>&1 &) &'); Sys.sleep(600)"
    );
    let future = place.world.future(&cut);
    let mut command = place.exec_command(&future, &[]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = eventually(|| processes_with(&seconds) > 0);
    // `timeout` was started; p2p-worker is its child.
    let workers = children(child.id());
    for pid in workers.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    child.wait().unwrap();
    if !started || workers.is_empty() {
        return Err(format!("the control: nothing was started: {started} {workers:?}"));
    }
    if eventually(|| processes_with(&seconds) == 0) { Ok(()) } else { Err("it lives on".to_owned()) }
}

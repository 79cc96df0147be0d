//! What a worker says and does in each sequence of lines that peers of future.p2p can write: golden transcripts, played in
//! virtual time.
//!
//! A line of a transcript is a time in seconds, a mark, and a text. What goes in: `<` a line of the board, `!` what happens
//! in the worker (`joined`, `lost`, `drain`; with a future and its code `resolved`, `answered`; with a future `ended`). What
//! must come out, and nothing else: `>` a line that the worker posts, `=` what it does. `+10` stands for the time when a line
//! expires, ten seconds later. To write what comes out anew: `P2P_TEST_UPDATE=1`, and read the difference.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use p2p_worker::{
    clock::Timestamp,
    proto::{
        claim::{Action, Claims, Event, Key, Settings},
        message::{About, Received, Via},
    },
};

const START: Timestamp = Timestamp(1_795_361_280_000);
const WHEN: &str = "2026-11-22T15:28:00";

struct Stage {
    claims: Claims,
    /// Milliseconds since the start.
    now: u64,
    written: String,
    /// Client and code of each future that was accepted, by what the transcript calls it.
    jobs: Vec<(Key, Via)>,
}

impl Stage {
    fn new(slots: usize) -> Self {
        let me = "bob@box:7".parse().unwrap();
        let (node, about) = ("12D3KooWbob".parse().ok(), About::default());
        let settings = Settings { me, node, wormhole: true, slots, max_future: 1 << 30, about };
        Self { claims: Claims::new(settings), now: 0, written: String::new(), jobs: Vec::new() }
    }

    fn clock(&self) -> Timestamp {
        START + Duration::from_millis(self.now)
    }

    fn write(&mut self, mark: char, text: &str) {
        writeln!(self.written, "{:>7}.{:03} {mark} {text}", self.now / 1000, self.now % 1000).unwrap();
    }

    /// Lets time go by, with all that is due meanwhile.
    fn until(&mut self, then: u64) {
        while let Some(due) = self.claims.next_wakeup(self.clock()) {
            let due = u64::try_from((due - START).as_millis()).unwrap();
            if due > then {
                break;
            }
            assert!(due > self.now, "a wakeup that changes nothing:\n{}", self.written);
            self.now = due;
            self.handle(Event::Tick);
        }
        self.now = then;
    }

    fn input(&mut self, mark: &str, text: &str) {
        self.write(mark.chars().next().unwrap(), text);
        let event = match mark {
            "<" => Event::Line(self.line(text)),
            _ => self.happening(text),
        };
        self.handle(event);
    }

    /// A line with its times.
    fn line(&self, text: &str) -> Vec<u8> {
        let text = text.replace("when=-", &format!("when={WHEN}"));
        let Some((before, rest)) = text.split_once("expires=+") else { return text.into_bytes() };
        let (seconds, rest) = rest.split_once(',').unwrap();
        let expires = (self.clock() + Duration::from_secs(seconds.parse().unwrap())).unix_seconds();
        format!("{before}expires={expires},{rest}").into_bytes()
    }

    fn happening(&self, text: &str) -> Event {
        let words: Vec<&str> = text.split(' ').collect();
        let job = |future: &str, code: Option<&&str>| {
            let fits = |(key, via): &&(Key, Via)| {
                key.future.as_str() == future && code.is_none_or(|code| via.to_string() == format!("wormhole://{code}"))
            };
            self.jobs.iter().find(fits).unwrap_or_else(|| panic!("no job {text:?}:\n{}", self.written)).clone()
        };
        match words[0] {
            "joined" => Event::Joined,
            "lost" => Event::Lost,
            "drain" => Event::Drain,
            "ended" => Event::Ended(job(words[1], None).0),
            what => {
                let (key, via) = job(words[1], words.get(2));
                if what == "resolved" { Event::Resolved(key, via) } else { Event::Answered(key, via) }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        for action in self.claims.handle(event, self.clock()) {
            match action {
                Action::Say(message, expires) => {
                    let line = message.to_line(WHEN, expires);
                    let read = Received::read(line.as_bytes(), self.clock()).unwrap();
                    assert_eq!(read.message, message, "what it says can be read");
                    let left = expires.unix_seconds() - self.clock().unix_seconds();
                    let text = line.replace(WHEN, "-");
                    let text =
                        text.replace(&format!("expires={}", expires.unix_seconds()), &format!("expires=+{left}"));
                    self.write('>', &text);
                    // The board sends it back.
                    let back = self.claims.handle(Event::Line(line.into_bytes()), self.clock());
                    assert!(back.is_empty(), "{back:?}");
                }
                Action::Start(job) => {
                    self.write('=', &format!("start {} {} {}", job.key.client, job.key.future, job.via));
                    self.jobs.push((job.key, job.via));
                }
                Action::Moved(job) => self.write('=', &format!("moved {} {}", job.key.client, job.key.future)),
                Action::Stop(key) => self.write('=', &format!("stop {} {}", key.client, key.future)),
            }
        }
    }
}

/// Plays what goes in; what went in and came out.
fn play(transcript: &str) -> String {
    let comments: String =
        transcript.lines().take_while(|line| line.starts_with('#')).fold(String::new(), |all, line| all + line + "\n");
    let slots =
        transcript.lines().find_map(|line| line.strip_prefix("# slots: ")).map_or(1, |slots| slots.parse().unwrap());
    let mut stage = Stage::new(slots);
    for line in transcript.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut parts = line.trim_start().splitn(3, ' ');
        let (time, mark, text) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        if mark == ">" || mark == "=" {
            continue;
        }
        let (seconds, milliseconds) = time.split_once('.').unwrap();
        let at = seconds.parse::<u64>().unwrap() * 1000 + milliseconds.parse::<u64>().unwrap();
        stage.until(at);
        stage.input(mark, text);
    }
    let counted: String =
        stage.claims.counters().iter().map(|(why, times)| format!("# passed over: {why}, {times}\n")).collect();
    comments
        .lines()
        .filter(|line| !line.starts_with("# passed over: "))
        .fold(String::new(), |all, line| all + line + "\n")
        + &stage.written
        + &counted
}

#[test]
fn golden_transcripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/transcripts");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let transcript = fs::read_to_string(&path).unwrap();
        let played = play(&transcript);
        if std::env::var_os("P2P_TEST_UPDATE").is_some() {
            fs::write(&path, &played).unwrap();
        }
        assert_eq!(played, transcript, "{}", path.display());
        count += 1;
    }
    assert!(count >= 10, "{count} transcripts in {}", folder.display());
}

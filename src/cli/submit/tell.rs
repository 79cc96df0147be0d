//! Says what happens to futures: a bar on a terminal, plain lines where there is none, JSON for scripts.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::json::{self, Event, SCHEMA, Worker};
use crate::{
    cli::{
        Failure, Status,
        common::{print, print_reached},
    },
    client::{ClientError, ClientEvent},
    ids::{FutureId, PeerName},
    runner::Shown,
    sandbox::{Provenance, show_bytes},
    text,
};

/// How often the bar is drawn while nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// The most characters of a line about one future.
const MOST_TEXT: usize = 100;

/// What is known of a worker that came by wormhole.
const NO_WORD: &str = "a worker of future.p2p or one that came like these, by wormhole: unknown sandbox, if it has any";

/// A future as a person or a script knows it.
#[derive(Debug)]
pub(super) struct Traveller {
    pub(super) file: Option<String>,
    pub(super) future: Option<FutureId>,
}

impl Traveller {
    pub(super) fn of(file: Option<String>) -> Self {
        Self { file, future: None }
    }

    /// What the futures are told apart by: two may come from files of the same name.
    fn key(&self) -> String {
        self.future.as_ref().map_or_else(String::new, ToString::to_string)
    }

    fn name(&self) -> &str {
        self.file.as_deref().unwrap_or("the future")
    }
}

/// Where a future is, for the bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Waiting,
    OnItsWay,
    Running,
    Returning,
}

impl Place {
    fn in_a_word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::OnItsWay => "being sent",
            Self::Running => "running",
            Self::Returning => "coming back",
        }
    }
}

#[derive(Debug, Default)]
struct State {
    places: BTreeMap<String, Place>,
    done: usize,
    failed: usize,
    /// How many of those that failed were taken back by the user.
    withdrawn: usize,
    /// What was said about workers, so that it is said once.
    said: BTreeSet<String>,
}

/// Tells one command's story.
pub(super) struct Teller {
    json: bool,
    show_worker: bool,
    futures: usize,
    bar: ProgressBar,
    state: Mutex<State>,
}

impl Teller {
    pub(super) fn new(json: bool, show_worker: bool, futures: usize) -> Self {
        let on = !json && io::stderr().is_terminal();
        let target = if on { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let template = if futures > 1 { "{spinner} [{bar:30}] {pos}/{len} {msg}" } else { "{spinner} {msg}" };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.progress_chars("=> ").tick_chars("|/-\\ ");
        let bar = ProgressBar::with_draw_target(Some(futures as u64), target).with_style(style);
        if on {
            bar.enable_steady_tick(TICK);
        }
        let teller = Self { json, show_worker, futures, bar, state: Mutex::default() };
        teller.line(None, &Event::Start { schema: SCHEMA, futures });
        teller
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of JSON, if that is wanted.
    fn line(&self, traveller: Option<&Traveller>, event: &Event<'_>) {
        if self.json {
            let file = traveller.and_then(|traveller| traveller.file.as_deref());
            let future = traveller.and_then(|traveller| traveller.future.as_ref()).map(FutureId::as_str);
            // A script that has seen enough is no failure.
            let _ = writeln!(io::stdout(), "{}", json::line(file, future, event));
        }
    }

    /// A line for a person, above the bar where there is one.
    fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{}", text::for_terminal(text)));
    }

    /// An event that is nobody else's.
    pub(super) fn tell(&self, traveller: &Traveller, event: &Event<'_>) {
        self.line(Some(traveller), event);
        self.state().places.insert(traveller.key(), Place::Waiting);
        self.draw();
    }

    /// An event of the client's.
    pub(super) fn happened(&self, traveller: &Traveller, event: &ClientEvent, worker: Option<&PeerName>) {
        let (told, place) = match event {
            ClientEvent::Posted => (Event::Posted, Place::Waiting),
            ClientEvent::Accepted(worker) => (Event::Accepted { worker }, Place::OnItsWay),
            ClientEvent::Sending { bytes, total } => (Event::Sending { bytes: *bytes, total: *total }, Place::OnItsWay),
            ClientEvent::Running(provenance) => {
                (Event::Running { worker: Worker::new(worker, provenance) }, Place::Running)
            }
            ClientEvent::Progress(condition) => (Event::Progress { bytes: condition.len() }, Place::Running),
            ClientEvent::Printed(text) => (Event::Printed { text }, Place::Returning),
            ClientEvent::Receiving { bytes, total } => {
                (Event::Receiving { bytes: *bytes, total: *total }, Place::Returning)
            }
            ClientEvent::Doubted(worker) => (Event::Doubted { worker }, Place::Waiting),
            ClientEvent::Returned(worker) => (Event::Returned { worker }, Place::Running),
            ClientEvent::PostedAgain(reason) => (Event::PostedAgain { reason }, Place::Waiting),
            ClientEvent::Done(..) | ClientEvent::Failed(_) => return,
        };
        self.line(Some(traveller), &told);
        if let (ClientEvent::Printed(text), false) = (event, self.json) {
            let whose = if self.futures > 1 { format!("{} printed:\n", traveller.name()) } else { String::new() };
            self.note(&format!("{whose}{}", text.trim_end()));
        }
        self.state().places.insert(traveller.key(), place);
        if self.futures == 1 {
            self.bar.set_message(text::for_log(&in_words(event), MOST_TEXT));
        } else {
            self.draw();
        }
    }

    fn draw(&self) {
        if self.bar.is_hidden() || self.futures == 1 {
            return;
        }
        let state = self.state();
        let mut counts: BTreeMap<Place, usize> = BTreeMap::new();
        state.places.values().for_each(|place| *counts.entry(*place).or_default() += 1);
        let mut words: Vec<String> =
            counts.iter().rev().map(|(place, count)| format!("{count} {}", place.in_a_word())).collect();
        if state.failed > 0 {
            words.push(format!("{} failed", state.failed));
        }
        self.bar.set_position((state.done + state.failed) as u64);
        self.bar.set_message(words.join(", "));
    }

    /// The result is here; what is to be printed of it is printed, unless it went to a file.
    pub(super) fn done(
        &self,
        traveller: &Traveller,
        event: &Event<'_>,
        shown: &Shown,
        is_saved: bool,
        (worker, provenance): (Option<&PeerName>, &Provenance),
    ) -> Result<(), Failure> {
        self.line(Some(traveller), event);
        if self.json {
            return Ok(());
        }
        self.bar.suspend(|| {
            print_reached(provenance)?;
            if !is_saved {
                print(&shown.stdout, io::stdout())?;
            }
            if self.futures > 1 && !shown.stderr.is_empty() {
                print(format!("{}:\n", text::for_log(traveller.name(), MOST_TEXT)).as_bytes(), io::stderr())?;
            }
            // What the code said on stderr goes there in either case, and is made harmless for a terminal.
            print(&shown.stderr, io::stderr())
        })?;
        self.say_worker(traveller, worker, provenance);
        Ok(())
    }

    /// Under what a future was resolved, if that is wanted; what the sandbox went without in any case, once.
    fn say_worker(&self, traveller: &Traveller, worker: Option<&PeerName>, provenance: &Provenance) {
        let Provenance { driver, profile, layers } = provenance;
        let name = worker.map_or("a worker", PeerName::as_str);
        if provenance.is_unknown() {
            return self.say_unknown(traveller, name);
        }
        if self.show_worker {
            self.note(&format!("{}: resolved by {name} ({driver}, profile {profile})", traveller.name()));
            for (layer, enforcement) in layers {
                let (state, detail) = enforcement.in_words();
                self.note(&format!("  {layer} {state}: {detail}"));
            }
            return;
        }
        let shortfalls = provenance.shortfalls();
        let text = format!(
            "p2p-worker: the worker's sandbox ({driver}, profile {profile}) was not held in full:\n  {}",
            shortfalls.join("\n  ")
        );
        if !shortfalls.is_empty() && self.state().said.insert(text.clone()) {
            self.note(&text);
        }
    }

    /// That nobody knows under what a future was resolved.
    fn say_unknown(&self, traveller: &Traveller, worker: &str) {
        if self.show_worker {
            self.note(&format!("{}: resolved by {worker}, {NO_WORD}", traveller.name()));
        } else if self.state().said.insert(NO_WORD.to_owned()) {
            self.note(&format!("p2p-worker: resolved by {worker}, {NO_WORD}"));
        }
    }

    /// A future's journey is over.
    pub(super) fn ended(&self, traveller: &Traveller, end: &Result<(), Failure>) {
        {
            let mut state = self.state();
            state.places.remove(&traveller.key());
            let counter = if end.is_ok() { &mut state.done } else { &mut state.failed };
            *counter += 1;
            state.withdrawn += usize::from(is_withdrawn(end));
        }
        let failure = end.as_ref().err();
        let message = failure.and_then(Failure::message);
        if let (Some(failure), Some(message)) = (failure, &message) {
            let reason = message.trim_start_matches("p2p-worker: ").to_owned();
            self.line(Some(traveller), &Event::Failed { reason, exit: failure.status as u8 });
        }
        if self.futures > 1 && !self.json && !is_withdrawn(end) {
            let name = traveller.name();
            match (failure, message) {
                (None, _) => self.note(&format!("{name}: done")),
                (Some(failure), None) => self.note(&format!("{name}: {}", what_came(failure.status))),
                (Some(_), Some(message)) => {
                    self.note(&format!("{name}: {}", message.trim_start_matches("p2p-worker: ")))
                }
            }
        }
        self.draw();
    }

    /// The end of the command: what it exits with, which is the largest status of all futures.
    pub(super) fn finish(&self, ends: Vec<Result<(), Failure>>) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        let State { done, failed, withdrawn, .. } = *self.state();
        let worst = ends.into_iter().filter_map(Result::err).max_by_key(|failure| failure.status as u8);
        let exit = worst.as_ref().map_or(0, |failure| failure.status as u8);
        self.line(None, &Event::End { exit, done, failed });
        match worst {
            None => Ok(()),
            Some(failure) if self.futures == 1 && !self.json => Err(failure),
            Some(failure) if self.json => Err(Failure::silent(failure.status)),
            Some(failure) => {
                let interrupted = match withdrawn {
                    0 => String::new(),
                    withdrawn => format!("; {withdrawn} were withdrawn, and what ran of them is stopped"),
                };
                let all = self.futures;
                self.note(&format!("p2p-worker: {done} of {all} futures were resolved without an error{interrupted}"));
                Err(Failure::silent(failure.status))
            }
        }
    }
}

fn is_withdrawn(end: &Result<(), Failure>) -> bool {
    let error = end.as_ref().err().and_then(|failure| failure.error.as_deref());
    error.and_then(|error| error.downcast_ref()).is_some_and(|error| matches!(error, ClientError::Withdrawn))
}

/// What a result without a message of ours came to.
fn what_came(status: Status) -> &'static str {
    match status {
        Status::Code => "the R code failed",
        Status::Stopped => "the task was stopped",
        _ => "there is no result",
    }
}

fn in_words(event: &ClientEvent) -> String {
    match event {
        ClientEvent::Posted => "posted; waiting for a worker".to_owned(),
        ClientEvent::Accepted(worker) => format!("{worker} takes it"),
        ClientEvent::Sending { bytes, total } => format!("sending {} of {}", show_bytes(*bytes), show_bytes(*total)),
        ClientEvent::Running(provenance) if provenance.is_unknown() => {
            "waiting for the result; by wormhole, a worker says nothing before".to_owned()
        }
        ClientEvent::Running(provenance) => {
            format!("running under {}, profile {}", provenance.driver, provenance.profile)
        }
        ClientEvent::Progress(_) => "running; it signals progress".to_owned(),
        ClientEvent::Printed(_) => "it ended".to_owned(),
        ClientEvent::Receiving { bytes, total } => {
            format!("receiving {} of {}", show_bytes(*bytes), show_bytes(*total))
        }
        ClientEvent::Doubted(worker) => format!("{worker} is silent; posted again for whoever is faster"),
        ClientEvent::Returned(worker) => format!("{worker} is back"),
        ClientEvent::PostedAgain(why) => format!("{why}; posted again"),
        ClientEvent::Done(..) => "done".to_owned(),
        ClientEvent::Failed(error) => error.to_string(),
    }
}

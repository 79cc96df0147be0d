//! What `--json` prints: one object in a line. docs/submit-events.md describes it; a key that goes away or changes its
//! meaning makes a new number of [`SCHEMA`], one that comes does not.

use std::borrow::Cow;

use serde::Serialize;

use crate::{
    clock,
    ids::PeerName,
    runner::Verdict,
    sandbox::{Layer, Provenance},
};

/// The number of the schema.
pub(super) const SCHEMA: u32 = 1;

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    /// Milliseconds since 1970.
    time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    future: Option<&'a str>,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// What happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    Start {
        schema: u32,
        futures: usize,
    },
    Read {
        bytes: u64,
    },
    Posted,
    Accepted {
        worker: &'a PeerName,
    },
    Sending {
        bytes: u64,
        total: u64,
    },
    Running {
        worker: Worker<'a>,
    },
    Progress {
        bytes: usize,
    },
    Printed {
        text: &'a str,
    },
    Receiving {
        bytes: u64,
        total: u64,
    },
    Doubted {
        worker: &'a PeerName,
    },
    Returned {
        worker: &'a PeerName,
    },
    PostedAgain {
        reason: &'a str,
    },
    Done {
        status: Outcome,
        exit: u8,
        bytes: u64,
        saved: Option<String>,
        stdout: Cow<'a, str>,
        stderr: Cow<'a, str>,
        worker: Worker<'a>,
    },
    Failed {
        reason: String,
        exit: u8,
    },
    End {
        exit: u8,
        done: usize,
        failed: usize,
    },
}

/// What a result comes to.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Ok,
    Error,
    Stopped,
    NoResult,
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Fine => Self::Ok,
            Verdict::CodeFailed => Self::Error,
            Verdict::Stopped => Self::Stopped,
            Verdict::NoResult => Self::NoResult,
        }
    }
}

/// Who resolved a future, under what.
#[derive(Debug, Serialize)]
pub(super) struct Worker<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a PeerName>,
    driver: &'a str,
    profile: &'a str,
    layers: Vec<LayerState<'a>>,
}

#[derive(Debug, Serialize)]
struct LayerState<'a> {
    layer: Layer,
    state: &'static str,
    detail: &'a str,
}

impl<'a> Worker<'a> {
    pub(super) fn new(name: Option<&'a PeerName>, provenance: &'a Provenance) -> Self {
        let Provenance { driver, profile, layers } = provenance;
        let layers = layers.iter().map(|(layer, enforcement)| {
            let (state, detail) = enforcement.in_words();
            LayerState { layer: *layer, state, detail }
        });
        Self { name, driver, profile, layers: layers.collect() }
    }
}

/// The line, without its end.
pub(super) fn line(file: Option<&str>, future: Option<&str>, event: &Event<'_>) -> String {
    // Text, numbers and lists of them can always be written.
    serde_json::to_string(&Line { time_ms: clock::now().0, file, future, event }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Enforcement;

    #[test]
    fn lines_have_the_names_that_are_documented() {
        let provenance = Provenance {
            driver: "jail".into(),
            profile: "strict".into(),
            layers: vec![(Layer::Memory, Enforcement::Partly("half".into()))],
        };
        let worker = "w@h:1".parse().unwrap();
        let event = Event::Done {
            status: Outcome::NoResult,
            exit: 5,
            bytes: 3,
            saved: None,
            stdout: "a\u{1b}\n".into(),
            stderr: "".into(),
            worker: Worker::new(Some(&worker), &provenance),
        };
        let text = line(Some("a.rds"), Some("f-1"), &event);
        assert!(!text.contains(['\n', '\u{1b}']), "{text}");
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value["time_ms"].take().as_u64().unwrap() > 0);
        let expected = serde_json::json!({
            "time_ms": null, "file": "a.rds", "future": "f-1", "event": "done", "status": "no_result", "exit": 5,
            "bytes": 3, "saved": null, "stdout": "a\u{1b}\n", "stderr": "",
            "worker": { "name": "w@h:1", "driver": "jail", "profile": "strict",
                        "layers": [{ "layer": "memory", "state": "partly", "detail": "half" }] }
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn every_event_is_documented() {
        let page = include_str!("../../../docs/submit-events.md");
        for name in [
            "start",
            "read",
            "posted",
            "accepted",
            "sending",
            "running",
            "progress",
            "printed",
            "receiving",
            "doubted",
            "returned",
            "posted_again",
            "done",
            "failed",
            "end",
        ] {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }
}

//! A provenance on the wire: bounded and cleaned where it comes in. It has a form of its own because postcard cannot
//! read the tagged form that [`Enforcement`] has in JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{super::refusal::sanitise, MAX_LAYERS};
use crate::sandbox::{Enforcement, Layer, Provenance};

#[derive(Serialize, Deserialize)]
enum State {
    Enforced,
    Partly,
    Missing,
    Reduced,
    Untried,
}

type Layers = Vec<(Layer, State, String)>;

pub(super) fn serialize<S: Serializer>(provenance: &Provenance, to: S) -> Result<S::Ok, S::Error> {
    let layer = |(layer, enforcement): &(Layer, Enforcement)| match enforcement {
        Enforcement::Enforced(text) => (*layer, State::Enforced, sanitise(text)),
        Enforcement::Partly(text) => (*layer, State::Partly, sanitise(text)),
        Enforcement::Missing(text) => (*layer, State::Missing, sanitise(text)),
        Enforcement::Reduced(text) => (*layer, State::Reduced, sanitise(text)),
        Enforcement::Untried(text) => (*layer, State::Untried, sanitise(text)),
    };
    let layers: Layers = provenance.layers.iter().take(MAX_LAYERS).map(layer).collect();
    (sanitise(&provenance.driver), sanitise(&provenance.profile), layers).serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Provenance, D::Error> {
    let (driver, profile, layers) = <(String, String, Layers)>::deserialize(from)?;
    let layer = |(layer, state, text): (Layer, State, String)| match state {
        State::Enforced => (layer, Enforcement::Enforced(sanitise(&text))),
        State::Partly => (layer, Enforcement::Partly(sanitise(&text))),
        State::Missing => (layer, Enforcement::Missing(sanitise(&text))),
        State::Reduced => (layer, Enforcement::Reduced(sanitise(&text))),
        State::Untried => (layer, Enforcement::Untried(sanitise(&text))),
    };
    let layers = layers.into_iter().take(MAX_LAYERS).map(layer).collect();
    Ok(Provenance { driver: sanitise(&driver), profile: sanitise(&profile), layers })
}

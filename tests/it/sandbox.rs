//! The sandbox on the machine that the tests run on.
//!
//! Nothing is skipped: a machine that cannot enforce `strict` fails these tests, and says why.

use std::path::{Path, PathBuf};

use p2p_worker::sandbox::{Driver, Enforcement, Known, Machine, Profile, Surroundings, select};

fn known() -> Known {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    Known {
        jail: Some(PathBuf::from(env!("CARGO_BIN_EXE_p2p-jail"))),
        become_user: None,
        surroundings: Surroundings { home, state: None },
        search_path: std::env::var_os("PATH"),
    }
}

fn machine() -> Machine {
    Machine::discover(&known()).unwrap()
}

fn profile(name: &str) -> Profile {
    Profile::load(name, &known().surroundings).unwrap()
}

#[test]
fn both_drivers_enforce_every_layer_of_both_profiles() {
    for driver in [Driver::Jail, Driver::Bubblewrap] {
        for name in ["strict", "standard"] {
            let ready = select(driver, profile(name), machine(), &[]).unwrap_or_else(|error| panic!("{error}"));
            for (layer, state) in ready.layers() {
                assert!(matches!(state, Enforcement::Enforced(_)), "{driver} {name} {layer}: {state:?}");
            }
        }
    }
}

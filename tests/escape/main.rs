//! The catalogue of what a hostile task may try, tried: every case in every driver, under every profile, by every user.
//!
//! Each case is R code, or an act of a native probe that the future brings along, run by the real program. Beside what must
//! come of it inside stands what the same act comes to without a sandbox: a probe that cannot tell the two apart proves
//! nothing, and fails. What comes out is the matrix that SECURITY.md carries; it is printed, and compared with that.
//!
//! A driver that is not installed, or a case that did not run, is a failure. `P2P_ESCAPE_CASES=12,34` runs only these cases and
//! leaves SECURITY.md alone.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may")]

mod case;
mod cases;
mod matrix;
mod suite;
mod world;

use crate::{
    matrix::Matrix,
    suite::{chosen, controls, try_everywhere},
    world::World,
};

/// One test, as what it makes is one table, and as starting R is what it costs.
#[test]
fn every_attack_comes_to_what_the_catalogue_says() {
    let world = World::new();
    let (cases, all) = chosen(cases::all());
    let mut wrong = controls(&world, &cases);
    let outcome = try_everywhere(&world, &cases);
    wrong.extend(outcome.wrong);
    let matrix = Matrix::new(&world, &cases, &outcome.cells);
    matrix.print();
    assert!(wrong.is_empty(), "{} went wrong:\n{}", wrong.len(), wrong.join("\n"));
    if all {
        matrix.compare_with_document();
    }
}

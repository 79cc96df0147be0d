//! Cases 1 to 22: files.

use crate::{
    case::{Act, Case, Outcome::*},
    world::{Place, quoted},
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case { acts: secrets, ..Case::new(1, Nothing, "read keys and secrets of the owner's home", "filesystem") },
        Case {
            scenario: Some(erase),
            gets: "the owner's files unchanged",
            ..Case::new(2, Nothing, "erase the home, erase everything", "filesystem")
        },
    ]
}

const SECRETS: [&str; 5] = [".ssh/id_ed25519", ".aws/credentials", ".config/secret.toml", ".Renviron", "thesis.txt"];

fn secrets(place: &Place<'_>) -> Vec<Act> {
    let home = place.home();
    let mut acts = Vec::new();
    for path in SECRETS.map(|name| home.join(name)) {
        acts.push(Act::r(format!("readLines({}); TRUE", quoted(path.display())), "ENOENT").bare("ok"));
        acts.push(Act::native(format!("open\t{}", path.display()), "ENOENT").bare("ok"));
    }
    acts.push(Act::native(format!("stat\t{}", home.display()), "ENOENT").bare("ok"));
    acts
}

fn erase(place: &Place<'_>) -> Result<(), String> {
    let home = place.home();
    let before = tree(&home);
    let erase = |home: &str| {
        format!("unlink(c('~', {home}), recursive = TRUE, force = TRUE); cat('tried\\n')", home = quoted(home))
    };
    let ran = place.evaluate(&format!(
        "{}; invisible(suppressWarnings(system('rm -rf --no-preserve-root / 2>/dev/null')))",
        erase(&home.display().to_string())
    ));
    if !ran.stdout.contains("tried") {
        return Err(format!("it did not run: {ran:?}"));
    }
    if tree(&home) != before || before.is_empty() {
        return Err("the home has changed".to_owned());
    }
    // The control, on a folder made for it.
    let sacrifice = place.world.sacrifice();
    let ran = place.bare().evaluate(&erase(&sacrifice.join("inside").display().to_string()));
    if tree(&sacrifice).len() == 1 { Ok(()) } else { Err(format!("the control erased nothing: {ran:?}")) }
}

/// Every path below a folder with its contents.
fn tree(path: &std::path::Path) -> std::collections::BTreeMap<std::path::PathBuf, Option<Vec<u8>>> {
    let mut found = std::collections::BTreeMap::from([(path.to_owned(), std::fs::read(path).ok())]);
    for entry in std::fs::read_dir(path).into_iter().flatten() {
        found.extend(tree(&entry.unwrap().path()));
    }
    found
}

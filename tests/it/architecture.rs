//! The rules of ARCHITECTURE.md that can be read off the source.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Who may import whom: a module, and the modules of this crate that it may use.
const MAY_USE: [(&str, &str); 17] = [
    ("ids", ""),
    ("clock", ""),
    ("text", ""),
    ("spool", "ids"),
    ("rds", "ids spool"),
    ("proto", "ids clock text sandbox"),
    ("board", "ids clock text proto error_chain"),
    ("transfer", "ids clock text spool proto sandbox error_chain"),
    ("wormhole", "ids text spool error_chain"),
    ("sandbox", "ids text error_chain"),
    ("runner", "ids clock text spool rds sandbox error_chain"),
    ("supervisor", "ids clock text spool proto board transfer wormhole sandbox runner error_chain"),
    ("client", "ids clock text spool rds proto board transfer wormhole sandbox error_chain"),
    ("config", "ids sandbox text"),
    ("observe", "clock text"),
    ("failure", "text config board runner sandbox transfer error_chain"),
    ("demo", "ids clock text spool board transfer sandbox runner supervisor client config failure"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder, or the file itself, with its text.
fn sources(path: &Path) -> Vec<(PathBuf, String)> {
    if path.is_file() {
        return vec![(path.to_owned(), fs::read_to_string(path).unwrap())];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

fn module(name: &str) -> Vec<(PathBuf, String)> {
    let src = root().join("src");
    let mut files = sources(&src.join(name));
    let file = src.join(format!("{name}.rs"));
    if file.is_file() {
        files.extend(sources(&file));
    }
    assert!(!files.is_empty(), "no module {name}");
    files
}

/// The part of a file that is neither tests nor comments.
fn code(text: &str) -> String {
    let lines = text.split("#[cfg(test)]").next().unwrap().lines();
    lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The first path segments after `crate::` in a text, groups included.
fn imported(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            let mut first = true;
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => first = true,
                    c if depth == 0 && first && (c.is_alphanumeric() || c == '_') => word.push(c),
                    _ if !word.is_empty() => {
                        names.push(std::mem::take(&mut word));
                        first = false;
                    }
                    _ => {}
                }
            }
            names.extend((!word.is_empty()).then_some(word));
        } else {
            names.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

#[test]
fn modules_use_only_what_the_map_says() {
    for (name, allowed) in MAY_USE {
        for (path, text) in module(name) {
            for used in imported(&code(&text)) {
                let fine = used == name || allowed.split_whitespace().any(|module| module == used);
                assert!(fine, "{}: module {name} uses {used}", path.display());
            }
        }
    }
}

#[test]
fn proto_has_no_input_no_output_no_clock_no_chance() {
    for (path, text) in module("proto") {
        for word in ["std::fs", "std::io", "std::net", "tokio", "clock::now", "getrandom", "Instant", "SystemTime"] {
            assert!(!code(&text).contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn the_supervisor_does_not_look_into_results() {
    for (path, text) in module("supervisor").into_iter().chain(module("transfer")) {
        for word in ["scan", ".show(", "unserialize", "rds::"] {
            assert!(!code(&text).contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn unsafe_lives_in_one_file() {
    // The probe of the escape suite makes any system call that it is told to.
    for folder in ["src", "jail/src", "wormhole", "tests/escape"] {
        for (path, text) in sources(&root().join(folder)) {
            let has = text.contains("unsafe {") || text.contains("unsafe fn");
            let may = ["jail/src/sys.rs", "tests/escape/probe/raw.rs"].iter().any(|one| path.ends_with(one));
            assert!(!has || may, "{}", path.display());
        }
    }
}

#[test]
fn the_project_names_no_place_of_its_makers() {
    let folders = ["src", "jail", "wormhole", "tests", "scripts", "sandbox-profiles", "examples"];
    let needles = [concat!("/wo", "rk/"), concat!("../sha", "red"), concat!("/tmp", "/wt")];
    for folder in folders {
        for (path, text) in sources(&root().join(folder)) {
            for needle in needles {
                assert!(!text.contains(needle), "{}: {needle}", path.display());
            }
        }
    }
}

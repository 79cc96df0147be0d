//! The EUPL is this program's alone.

use std::{path::Path, process::Command};

fn tree(package: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cargo = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none", "--format", "{p} {l}"])
        .args(["--package", package])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    String::from_utf8(cargo.stdout).unwrap()
}

#[test]
fn nothing_links_what_is_under_the_eupl() {
    for package in ["p2p-worker", "p2p-jail", "p2p-wormhole-contract", "p2p-wormhole"] {
        let tree = tree(package);
        assert!(tree.lines().any(|line| line.starts_with("serde ")), "{tree}");
        for line in tree.lines().filter(|line| line.contains("EUPL")) {
            assert!(package == "p2p-wormhole" && line.starts_with("p2p-wormhole "), "{package}: {line}");
        }
    }
}

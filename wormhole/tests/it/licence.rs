//! The EUPL stays in this program.

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
fn nothing_else_links_what_is_under_the_eupl() {
    for package in ["p2p-worker", "p2p-jail", "p2p-wormhole-contract"] {
        let tree = tree(package);
        assert!(tree.lines().any(|line| line.starts_with("serde ")), "{tree}");
        for line in tree.lines() {
            assert!(!line.contains("EUPL") && !line.starts_with("magic-wormhole "), "{package}: {line}");
        }
    }
    let ours = tree("p2p-wormhole");
    let under: Vec<&str> =
        ours.lines().filter(|line| line.contains("EUPL")).filter_map(|line| line.split(' ').next()).collect();
    assert!(under.iter().all(|name| ["p2p-wormhole", "magic-wormhole"].contains(name)), "{under:?}");
    assert!(under.contains(&"magic-wormhole"));
}

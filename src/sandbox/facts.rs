//! What `p2p-jail check` found: lines of a key and a value, see that program. It may have been run by something that does not
//! confine it at all, so nothing is assumed to be there.

/// What `p2p-jail check` printed.
pub(super) struct Facts<'text>(pub(super) &'text str);

impl<'text> Facts<'text> {
    /// The value of a key; an empty one where there is no such line.
    pub(super) fn get(&self, key: &str) -> &'text str {
        let value = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.unwrap_or_default()
    }

    /// A number.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.get(key).parse().ok()
    }

    /// The soft and the hard limit of a resource.
    pub(super) fn rlimit(&self, name: &str) -> Option<(u64, u64)> {
        pair(self.get(&format!("rlimit {name}")))
    }

    /// Bytes and inodes of a file system.
    pub(super) fn space(&self, path: &str) -> Option<(u64, u64)> {
        pair(self.get(&format!("space {path}")))
    }
}

fn pair(value: &str) -> Option<(u64, u64)> {
    let (first, second) = value.split_once(' ')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_spaces() {
        let facts =
            Facts("uid 1000\nsocket inet EPERM\nsocket inet6 ENOSYS\nrlimit as 5 6\nspace /tmp 7 8\nfds 0,1,2,3\n");
        assert_eq!(facts.number("uid"), Some(1000));
        assert_eq!((facts.get("socket inet"), facts.get("socket inet6")), ("EPERM", "ENOSYS"));
        assert_eq!((facts.rlimit("as"), facts.space("/tmp")), (Some((5, 6)), Some((7, 8))));
        assert_eq!((facts.get("nothing"), facts.rlimit("cpu")), ("", None));
    }
}

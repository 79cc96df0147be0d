//! Codes as they are given.
//!
//! The peers of future.p2p draw nameplates from 0000 to 9999, and their codes stand on the board in clear, so how hard one is to
//! guess says nothing.

use p2p_wormhole_contract::message::MAX_CODE;

/// A code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Code {
    /// The digits before the first hyphen, by which the mailbox server brings two peers together.
    pub(crate) nameplate: String,
    /// All of it, which is the password of the exchange of keys.
    pub(crate) whole: String,
}

/// A code of a nameplate of digits, `-`, and a password of visible ASCII; `None` if the text is no such thing.
pub(crate) fn parse(text: &str) -> Option<Code> {
    let (nameplate, password) = text.split_once('-')?;
    let digits = !nameplate.is_empty() && nameplate.bytes().all(|byte| byte.is_ascii_digit());
    let visible = !password.is_empty() && password.bytes().all(|byte| byte.is_ascii_graphic());
    let is_code = digits && visible && text.len() <= MAX_CODE;
    is_code.then(|| Code { nameplate: nameplate.to_owned(), whole: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn nameplates_keep_their_zeros() {
        for (text, nameplate) in [("0000-32543fbc7bc7-f", "0000"), ("0007-a", "0007"), ("6230-32543fbc7bc7-f", "6230")]
        {
            let code = parse(text).unwrap();
            assert_eq!(code.whole, text);
            assert_eq!(code.nameplate, nameplate);
        }
        for text in ["", "-", "12", "12-", "-a", "1x-a", "1-a b", "1-ä", "１-a", &format!("1-{}", "a".repeat(127))] {
            assert!(parse(text).is_none(), "{text:?}");
        }
    }
}

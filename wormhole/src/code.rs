//! Codes as they are given.
//!
//! The crate lets nobody but itself make a code whose nameplate is 0 or whose password is weak. The peers of future.p2p draw
//! nameplates from 0000 to 9999, and their codes stand on the board in clear, so how hard one is to guess says nothing.

use magic_wormhole::{Code, Nameplate, Password};
use p2p_wormhole_contract::message::MAX_CODE;

/// A code of a nameplate of digits, `-`, and a password of visible ASCII; `None` if the text is no such thing.
pub(crate) fn parse(text: &str) -> Option<Code> {
    let (nameplate, password) = text.split_once('-')?;
    let digits = !nameplate.is_empty() && nameplate.bytes().all(|byte| byte.is_ascii_digit());
    let visible = !password.is_empty() && password.bytes().all(|byte| byte.is_ascii_graphic());
    if !digits || !visible || text.len() > MAX_CODE {
        return None;
    }
    // SAFETY: neither function has to do with memory. The crate marks them because they do not check that the nameplate is a
    // number above 0 and that the password is strong; the first is checked above but for 0, which mailbox servers take.
    let (nameplate, password) = unsafe { (Nameplate::new_unchecked(nameplate), Password::new_unchecked(password)) };
    Some(Code::from_components(nameplate, password))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn nameplates_keep_their_zeros() {
        for (text, nameplate) in [("0000-32543fbc7bc7-f", "0000"), ("0007-a", "0007"), ("6230-32543fbc7bc7-f", "6230")]
        {
            let code = parse(text).unwrap();
            assert_eq!(code.to_string(), text);
            assert_eq!(code.nameplate().to_string(), nameplate);
        }
        for text in ["", "-", "12", "12-", "-a", "1x-a", "1-a b", "1-ä", "１-a", &format!("1-{}", "a".repeat(127))] {
            assert!(parse(text).is_none(), "{text:?}");
        }
    }
}

//! Text of strangers on its way to a terminal or a log.

/// The text with every control character but the line end made visible (`␛` and its like), so that nothing can move the
/// cursor, colour what follows, or write into the title (ISO 6429, and the 8-bit C1 controls). Also neutralised are the
/// characters of Unicode that reorder a line.
#[must_use]
pub fn for_terminal(text: &str) -> String {
    text.chars().map(|c| if c == '\n' || c == '\t' { c } else { visible(c) }).collect()
}

/// As [`for_terminal`], on one line, cut after `most` characters.
#[must_use]
pub fn for_log(text: &str, most: usize) -> String {
    let mut line: String = text.chars().take(most).map(visible).collect();
    if text.chars().nth(most).is_some() {
        line.push('…');
    }
    line
}

fn visible(c: char) -> char {
    match c {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' => '\u{fffd}',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_shown_and_text_stays() {
        assert_eq!(for_terminal("ä\t1\n"), "ä\t1\n");
        assert_eq!(for_terminal("\u{1b}]0;x\u{7}\u{9b}31m"), "␛]0;x␇\u{fffd}31m");
        assert_eq!(for_log("a\nb", 9), "a␊b");
        assert_eq!(for_log("abcdef", 3), "abc…");
    }
}

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

/// A quotation mark is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a quotation mark is not closed")]
pub struct Unclosed;

/// The words of a text, as ssh_config(5) has them: blanks separate, quotation marks of both kinds hold together, a backslash takes the next
/// quotation mark, backslash or blank as it is, and a word that begins with `#` begins a comment.
///
/// # Errors
/// [`Unclosed`].
pub fn words(text: &str) -> Result<Vec<String>, Unclosed> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        match rest.peek() {
            None | Some('#') => return Ok(words),
            Some(_) => words.push(word(&mut rest)?),
        }
    }
}

fn word(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, Unclosed> {
    let mut word = String::new();
    let mut quote = None;
    while let Some(c) = rest.next_if(|c| quote.is_some() || !c.is_ascii_whitespace()) {
        let escaped = |next: &char| matches!(next, '\'' | '"' | '\\') || quote.is_none() && *next == ' ';
        match c {
            '\\' => word.push(rest.next_if(escaped).unwrap_or('\\')),
            '"' | '\'' if quote.is_none() => quote = Some(c),
            _ if quote == Some(c) => quote = None,
            _ => word.push(c),
        }
    }
    if quote.is_some() { Err(Unclosed) } else { Ok(word) }
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

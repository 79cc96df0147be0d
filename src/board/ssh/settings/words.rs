//! Lines of a configuration file as words.

use crate::text::{self, Unclosed};

/// The keyword of a line, in lower case, and its arguments; `None` for an empty line or a comment.
///
/// As ssh_config(5) has it: blanks or one `=` after the keyword, arguments in quotation marks where they have blanks, `#`
/// begins a comment.
pub(super) fn of_line(line: &str) -> Result<Option<(String, Vec<String>)>, Unclosed> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|c: char| c.is_ascii_whitespace() || c == '=').unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let keyword = keyword.trim_matches('"').to_ascii_lowercase();
    Ok(Some((keyword, text::words(rest)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_ssh_reads_them() {
        let line = |text| of_line(text).unwrap();
        let words = |keyword: &str, words: &[&str]| {
            Some((keyword.to_owned(), words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()))
        };
        assert_eq!(line("  HostName  a.example "), words("hostname", &["a.example"]));
        assert_eq!(line("Port=2222"), words("port", &["2222"]));
        assert_eq!(line("Port = 2222 # why"), words("port", &["2222"]));
        assert_eq!(line("IdentityFile \"~/my keys/id\" 'x y'"), words("identityfile", &["~/my keys/id", "x y"]));
        assert_eq!(line(r#"User a\"b\ c"#), words("user", &[r#"a"b c"#]));
        assert_eq!(line("Host a#b"), words("host", &["a#b"]));
        assert_eq!(line("\tHost"), words("host", &[]));
        assert_eq!(line("# x"), None);
        assert_eq!(line(""), None);
        assert_eq!(of_line("User \"x"), Err(Unclosed));
    }
}

//! Patterns of ssh_config(5) and of known hosts: `*` for any characters, `?` for one, `!` in front negates.

/// Whether a text is of a pattern, in time that is bounded by the product of their lengths.
pub(in crate::board::ssh) fn is_match(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let (mut at, mut of) = (0, 0);
    // Where the last star was, and how much of the text it covers so far.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(of) {
            Some(b'*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(&wanted) if wanted == b'?' || Some(&wanted) == text.get(at) => {
                at += 1;
                of += 1;
            }
            _ => match star {
                Some((star_of, star_at)) => {
                    star = Some((star_of, star_at + 1));
                    at = star_at + 1;
                    of = star_of + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(of).all(|&left| left == b'*')
}

/// Whether one of some patterns matches and none of the negated ones does.
pub(in crate::board::ssh) fn is_in_list<'a>(text: &str, patterns: impl IntoIterator<Item = &'a str>) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(negated) if is_match(text, negated) => return false,
            Some(_) => {}
            None => found |= is_match(text, pattern),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (text, pattern, expected) in [
            ("board.example", "board.example", true),
            ("board.example", "*.example", true),
            ("board.example", "b?ard.*", true),
            ("board.example", "*", true),
            ("board.example", "*.example.org", false),
            ("board.example", "board", false),
            ("board.example", "board.example?", false),
            ("aXbXc", "a*b*c", true),
            ("", "*", true),
            ("", "?", false),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "*a*a*a*a*a*a*a*a*a*c", false),
        ] {
            assert_eq!(is_match(text, pattern), expected, "{text} {pattern}");
        }
    }

    #[test]
    fn a_negated_pattern_wins_and_does_not_match_by_itself() {
        assert!(is_in_list("a.example", ["*.example", "!b.example"]));
        assert!(!is_in_list("b.example", ["!b.example", "*.example"]));
        assert!(!is_in_list("c.example", ["!b.example"]));
    }
}

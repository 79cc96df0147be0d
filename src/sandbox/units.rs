//! Sizes and times as people write them, in profiles and on the command line: read here and nowhere else.

use std::time::Duration;

/// Why a size or a time cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// There is no number in front.
    #[error("\"{text}\" does not begin with a whole number")]
    NoNumber {
        /// What was written.
        text: String,
    },
    /// The unit is missing or not one of those known.
    #[error("\"{text}\" needs a unit: {units}")]
    Unit {
        /// What was written.
        text: String,
        /// Those that are known.
        units: &'static str,
    },
    /// It does not fit 64 bits.
    #[error("\"{text}\" is too large")]
    TooLarge {
        /// What was written.
        text: String,
    },
}

/// The units of [`parse_bytes`]; the binary ones also print.
const BYTES: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// The units of [`parse_duration`], in milliseconds.
const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a size such as `2 GiB`, `512MiB` or `10 MB`, in bytes.
///
/// # Errors
/// [`UnitError`], which names the units.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    parse(text, &BYTES, "B, KiB, MiB, GiB, TiB (or kB, MB, GB, TB), as in \"2 GiB\"")
}

/// Reads a time such as `10 min`, `90s` or `500 ms`.
///
/// # Errors
/// [`UnitError`], which names the units.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, &TIMES, "ms, s, min, h, d, as in \"10 min\"").map(Duration::from_millis)
}

/// A size in the largest binary unit in which it is a whole number.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    show(bytes, BYTES.get(..5).unwrap_or_default())
}

/// A time in the largest unit in which it is a whole number.
#[must_use]
pub fn show_duration(time: Duration) -> String {
    show(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), &TIMES)
}

fn parse(text: &str, units: &[(&str, u64)], known: &'static str) -> Result<u64, UnitError> {
    let trimmed = text.trim_ascii();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at_checked(digits).unwrap_or_default();
    let text = || text.to_owned();
    if number.is_empty() {
        return Err(UnitError::NoNumber { text: text() });
    }
    let unit = unit.trim_ascii_start();
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::Unit { text: text(), units: known });
    };
    let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
    number.ok_or_else(|| UnitError::TooLarge { text: text() })
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let largest = units.iter().rfind(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    let (unit, factor) = largest.or(units.first()).copied().unwrap_or(("", 1));
    format!("{} {unit}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("2 GiB", 2 << 30), ("512MiB", 512 << 20), (" 10 MB ", 10_000_000), ("0 B", 0)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "2", "GiB", "-1 GiB", "1.5 GiB", "2 gib", "2 GiB more", "99999999999 TiB", "2 \u{2007}GiB"] {
            parse_bytes(text).expect_err(text);
        }
    }

    #[test]
    fn times() {
        for (text, seconds) in [("10 min", 600), ("90s", 90), ("2 h", 7200), ("1 d", 86400)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        parse_duration("10 m").expect_err("minutes or months?");
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for bytes in [0, 1, 1023, 1024, 1536, 1 << 20, 3 << 30, u64::MAX] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
        }
        for ms in [0, 1, 1000, 90_000, 5_400_000, 86_400_000] {
            let time = Duration::from_millis(ms);
            assert_eq!(parse_duration(&show_duration(time)), Ok(time));
        }
    }
}

//! Rates, ratios and spans of time as people write them on the command line.
//!
//! Owns the grammar of RATE and DURATION; showing numbers is `tui/numbers`. Called by `args`, through clap, which puts
//! the name of the flag before the error.

use std::time::Duration;

/// Powers of ten and of two, with the number they multiply by.
const PREFIXES: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("k", 1_000),
    ("K", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("", 1),
];

/// Digits after the point that are looked at; a byte of the largest unit has no more.
const FRACTION_DIGITS_MAX: usize = 30;

/// Why text is not what a flag asks for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    /// Not of the form of a rate.
    #[error(
        "expected a number with k, M, G, Ki, Mi or Gi, and optionally B or B/s, as in `10MiB/s`"
    )]
    Rate,
    /// Less than one byte per second, which would stop everything.
    #[error("expected at least one byte per second")]
    NoRate,
    /// More than any number of bytes we count.
    #[error("expected less than 16 EiB per second")]
    HugeRate,
    /// Not of the form of a span of time.
    #[error("expected a duration such as `90s` or `2h 30m`")]
    Duration,
    /// Not a positive number.
    #[error("expected a number above zero, such as `1.5`")]
    Ratio,
}

/// Bytes per second of a RATE: `500k`, `1.5MiB/s`, `2 GB`, `4096`. A part of a byte is dropped.
///
/// # Errors
/// [`UnitError::Rate`] for other text, [`UnitError::NoRate`] and [`UnitError::HugeRate`] for what is out of range.
pub(crate) fn rate(text: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    let text = text
        .strip_suffix("B/s")
        .or_else(|| text.strip_suffix('B'))
        .unwrap_or(text);
    let (number, unit) = PREFIXES
        .iter()
        .find_map(|(prefix, unit)| Some((text.strip_suffix(prefix)?, *unit)))
        .ok_or(UnitError::Rate)?;
    let rate = times(number.trim_end(), unit)?;
    match u64::try_from(rate) {
        Ok(0) => Err(UnitError::NoRate),
        Ok(rate) => Ok(rate),
        Err(_) => Err(UnitError::HugeRate),
    }
}

/// The decimal number in `text` times `unit`, exact but for what is less than one.
fn times(text: &str, unit: u64) -> Result<u128, UnitError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number =
        |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > FRACTION_DIGITS_MAX {
        return Err(UnitError::Rate);
    }
    let whole: u64 = whole.parse().map_err(|_| UnitError::HugeRate)?;
    // Digit by digit from the last one: `(digit x unit + what the digits behind it make) / 10`.
    let fraction = fraction.bytes().rev().fold(0, |behind: u128, digit| {
        (u128::from(digit - b'0') * u128::from(unit) * PRECISION + behind) / 10
    });
    Ok(u128::from(whole) * u128::from(unit) + fraction / PRECISION)
}

/// Steps of a byte that a fraction is computed in, so that rounding down happens once, at the end.
const PRECISION: u128 = 1 << 60;

/// A DURATION: `90s`, `2h 30m`, `1day`, or plain `0`.
///
/// # Errors
/// [`UnitError::Duration`] for other text.
pub(crate) fn duration(text: &str) -> Result<Duration, UnitError> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|_| UnitError::Duration)
}

/// A ratio above zero.
///
/// # Errors
/// [`UnitError::Ratio`] for other text.
pub(crate) fn ratio(text: &str) -> Result<f64, UnitError> {
    let ratio: f64 = text.trim().parse().map_err(|_| UnitError::Ratio)?;
    if ratio.is_finite() && ratio > 0.0 {
        Ok(ratio)
    } else {
        Err(UnitError::Ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_the_grammar_of_the_manual() {
        let cases = [
            ("1", 1),
            ("4096", 4_096),
            ("500k", 500_000),
            ("500K", 500_000),
            ("2M", 2_000_000),
            ("1G", 1_000_000_000),
            ("1Ki", 1_024),
            ("1Mi", 1_048_576),
            ("2Gi", 2_147_483_648),
            ("10B", 10),
            ("10B/s", 10),
            ("10kB", 10_000),
            ("10MB/s", 10_000_000),
            ("10MiB/s", 10_485_760),
            ("10 MiB/s", 10_485_760),
            (" 7k ", 7_000),
            ("1.5M", 1_500_000),
            ("0.5Ki", 512),
            ("1.5", 1),
            ("0.1k", 100),
            ("0.3M", 300_000),
            ("1.1G", 1_100_000_000),
            ("2.333k", 2_333),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, expected) in cases {
            assert_eq!(rate(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_rate_says_what_was_expected() {
        for text in [
            "", "k", "B", "B/s", "-1", "+1", "1e3", "1.", ".5", "1..5", "1.5.5", "1,5", "1m",
            "1ki", "1kb", "1 k i", "1T", "1kB/S", "1/s", "0x10", "١", "inf", "NaN", "1k1",
        ] {
            assert_eq!(rate(text), Err(UnitError::Rate), "{text:?}");
        }
        for text in ["0", "0k", "0.0MiB/s", "0.9", "0.0001k"] {
            assert_eq!(rate(text), Err(UnitError::NoRate), "{text:?}");
        }
        for text in ["18446744073709551616", "99999999999G", "17179869185Gi"] {
            assert_eq!(rate(text), Err(UnitError::HugeRate), "{text:?}");
        }
    }

    #[test]
    fn durations_take_several_units_and_a_plain_zero() {
        let cases = [
            ("90s", 90_000),
            ("2h 30m", 9_000_000),
            ("2h30m", 9_000_000),
            ("0", 0),
            ("0s", 0),
            ("150ms", 150),
            ("1day", 86_400_000),
        ];
        for (text, millis) in cases {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(millis)),
                "{text:?}"
            );
        }
        for text in ["", "5", "s", "-1s", "1 fortnight"] {
            assert_eq!(duration(text), Err(UnitError::Duration), "{text:?}");
        }
    }

    #[test]
    fn ratios_are_above_zero() {
        assert_eq!(ratio("1.5"), Ok(1.5));
        assert_eq!(ratio(" 2 "), Ok(2.0));
        for text in ["", "0", "-1", "inf", "NaN", "two"] {
            assert_eq!(ratio(text), Err(UnitError::Ratio), "{text:?}");
        }
    }
}

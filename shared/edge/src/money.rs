//! Money as text.

use domain::NanoUsd;
use std::str::FromStr;

const NANO_PER_USD: u64 = 1_000_000_000;
/// Digits behind the point that a nano-dollar can have.
const NANO_DIGITS: usize = 9;
/// Digits of a dollar that are always shown, as money is written.
const CENT_DIGITS: usize = 2;

/// Nano-dollars as an exact decimal of dollars: at least two digits after the point and no more than are needed.
pub fn decimal_usd(nano: u64) -> String {
    let fraction = format!("{:09}", nano % NANO_PER_USD);
    let needed = fraction.trim_end_matches('0').len().max(CENT_DIGITS);
    let digits: String = fraction.chars().take(needed).collect();
    format!("{}.{digits}", nano / NANO_PER_USD)
}

/// US dollars as somebody writes them into a configuration: digits, and up to nine more behind a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usd(pub NanoUsd);

impl FromStr for Usd {
    type Err = &'static str;

    /// Strict: no sign, no blank, no exponent, no separator, no currency; nothing is rounded.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const NOT_DOLLARS: &str = "not an amount of dollars such as 50 or 0.25";
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > NANO_DIGITS {
            return Err(NOT_DOLLARS);
        }
        let too_much = "more dollars than can be counted";
        let whole: u64 = whole.parse().map_err(|_| too_much)?;
        let nano: u64 = format!("{fraction:0<NANO_DIGITS$}").parse().map_err(|_| NOT_DOLLARS)?;
        let nano = whole.checked_mul(NANO_PER_USD).and_then(|dollars| dollars.checked_add(nano));
        nano.and_then(|nano| NanoUsd::new(nano).ok()).map(Self).ok_or(too_much)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly_or_not_at_all() {
        for (text, nano) in [
            ("0", 0),
            ("50", 50_000_000_000),
            ("0.25", 250_000_000),
            ("007.5", 7_500_000_000),
            ("0.000000001", 1),
            ("9223372036.854775807", NanoUsd::MAX.get()),
        ] {
            assert_eq!(text.parse(), Ok(Usd(NanoUsd::new(nano).unwrap())), "{text}");
        }
        for text in [
            "",
            ".",
            "5.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1_000",
            "1,000",
            " 1",
            "1 ",
            "$1",
            "1.0.0",
            "0x1",
            "NaN",
            "inf",
            "unlimited",
            "0.0000000001",
            "\u{661}",
            "9223372036.854775808",
            "99999999999999999999",
        ] {
            assert!(text.parse::<Usd>().is_err(), "{text:?} was taken for dollars");
        }
    }

    #[test]
    fn money_is_written_exactly() {
        for (nano, text) in [
            (0, "0.00"),
            (1, "0.000000001"),
            (2_000, "0.000002"),
            (10_000_000, "0.01"),
            (2_500_000_000, "2.50"),
            (20_000_000_000, "20.00"),
        ] {
            assert_eq!(decimal_usd(nano), text);
        }
    }
}

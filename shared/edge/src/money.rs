//! Money as text.

const NANO_PER_USD: u64 = 1_000_000_000;
/// Digits of a dollar that are always shown, as money is written.
const CENT_DIGITS: usize = 2;

/// Nano-dollars as an exact decimal of dollars: at least two digits after the point and no more than are needed.
pub fn decimal_usd(nano: u64) -> String {
    let fraction = format!("{:09}", nano % NANO_PER_USD);
    let needed = fraction.trim_end_matches('0').len().max(CENT_DIGITS);
    let digits: String = fraction.chars().take(needed).collect();
    format!("{}.{digits}", nano / NANO_PER_USD)
}

#[cfg(test)]
mod tests {
    use super::*;

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

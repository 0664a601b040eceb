//! Periods, and how a demand is fitted into what is left of one.

use crate::support::{cases, exactly, tokens};
use domain::{Demand, HoldSize, Period, Timestamp, Tokens};
use proptest::prelude::*;

const DAY_S: u64 = 86_400;
/// From 1971 to 2149: every kind of leap year, 2000 and 2100 among them.
const CALENDAR_S: std::ops::Range<u64> = 31_536_000..5_680_000_000;

/// Year, month and day of an instant: Howard Hinnant's `civil_from_days`, so that the calendar is not its own judge.
fn civil(at: Timestamp) -> (u64, u64, u64) {
    let days = at.s() / DAY_S + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn days_in(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[track_caller]
fn check_boundary(anchor: Timestamp, boundary: Timestamp) {
    assert_eq!(boundary.s() % DAY_S, anchor.s() % DAY_S, "another time of day");
    let (year, month, day) = civil(boundary);
    let (_, _, anchor_day) = civil(anchor);
    assert_eq!(day, anchor_day.min(days_in(year, month)), "neither the anchor's day nor the month's last");
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn i7_a_monthly_period_holds_its_instant_and_touches_its_neighbours(
        anchor in CALENDAR_S, now in CALENDAR_S, ms in 0_u64..1_000,
    ) {
        let (anchor, now) = (Timestamp::from_s(anchor).plus_ms(ms), Timestamp::from_s(now).plus_ms(ms));
        let period = Period::monthly(anchor, now).unwrap();
        prop_assert!(period.contains(now));
        prop_assert!(period.contains(period.start()) && !period.contains(period.end()));
        let length_s = period.end().s() - period.start().s();
        prop_assert!(length_s.is_multiple_of(DAY_S) && (28..=31).contains(&(length_s / DAY_S)));
        check_boundary(anchor, period.start());
        check_boundary(anchor, period.end());
        let next = Period::monthly(anchor, period.end()).unwrap();
        prop_assert_eq!(next.start(), period.end());
        let before = Period::monthly(anchor, Timestamp::from_ms(period.start().ms() - 1)).unwrap();
        prop_assert_eq!(before.end(), period.start());
        prop_assert_eq!(Period::monthly(anchor, anchor).unwrap().start(), anchor.floor_s());
    }

    #[test]
    fn f11_a_reports_time_always_lies_inside_its_period(
        start in CALENDAR_S, length_s in 1_u64..3_000_000, at in 0_u64..9_000_000_000_000,
    ) {
        let period = Period::new(Timestamp::from_s(start), Timestamp::from_s(start + length_s)).unwrap();
        let at = Timestamp::from_ms(at);
        let clamped = period.clamp_s(at);
        prop_assert!(period.contains(clamped));
        prop_assert_eq!(clamped, clamped.floor_s());
        if period.contains(at) {
            prop_assert_eq!(clamped, at.floor_s());
        }
    }

    #[test]
    fn i1_a_fitted_hold_never_exceeds_its_room_and_is_refused_only_below_the_least(
        demand in demand(), room in 0_u32..12_000,
    ) {
        let full = HoldSize { prompt: demand.prompt_most, output: demand.output_most };
        let fitted = demand.fit(tokens(room));
        prop_assert_eq!(fitted.is_some(), tokens(room) >= demand.least());
        prop_assert_eq!(fitted == Some(full), tokens(room) >= full.total());
        if let Some(size) = fitted {
            prop_assert!(size.total() <= tokens(room));
            prop_assert!(demand.output_least <= size.output && size.output <= demand.output_most);
            prop_assert!(size.prompt == demand.prompt_most || size.prompt == demand.prompt_least);
            // Nothing is left lying about: a clamped answer takes all there is, or all it wants.
            let clamped = size != full;
            prop_assert!(!clamped || size.total() == tokens(room) || size.output == demand.output_most);
        }
        let wider = demand.fit(tokens(room + 1));
        prop_assert!(wider.map(|size| size.output) >= fitted.map(|size| size.output));
    }
}

/// A demand as a handler makes it: the least is never more than the most, and the prompt's least a third of its most.
fn demand() -> impl Strategy<Value = Demand> {
    (0_u32..6_000, 1_u32..4_000).prop_flat_map(|(prompt, output)| {
        (1..=output).prop_map(move |least| Demand {
            prompt_most: tokens(prompt),
            prompt_least: tokens(prompt.div_ceil(3)),
            output_most: tokens(output),
            output_least: tokens(least),
        })
    })
}

#[test]
fn a_leap_day_is_the_end_of_february_in_its_years_only() {
    #[track_caller]
    fn check(anchor: u64, now: u64, start: (u64, u64, u64), end: (u64, u64, u64)) {
        let period = Period::monthly(Timestamp::from_s(anchor), Timestamp::from_s(now)).unwrap();
        assert_eq!((civil(period.start()), civil(period.end())), (start, end));
    }
    // From 2024-01-31: February of 2028, of 2100 (no leap year), and of 2096.
    let anchor = 1_706_659_200;
    check(anchor, 1_835_395_200, (2028, 2, 29), (2028, 3, 31));
    check(anchor, 4_107_456_000, (2100, 2, 28), (2100, 3, 31));
    check(anchor, 3_981_182_400, (2096, 1, 31), (2096, 2, 29));
    // From 2024-02-29: the day returns when the month has it.
    check(1_709_164_800, 1_740_700_800, (2025, 2, 28), (2025, 3, 29));
}

#[test]
fn a_demand_that_no_number_can_hold_fits_nowhere() {
    let huge = Demand { output_most: Tokens::MAX, output_least: Tokens::MAX, ..exactly(0) };
    assert_eq!(huge.fit(tokens(u32::MAX)), None);
    assert_eq!(huge.least(), Tokens::MAX);
}

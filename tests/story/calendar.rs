//! Dates, reckoned here and nowhere else: what the product reckons is to be held against something.

pub(crate) const HOUR_S: i64 = 3_600;
pub(crate) const DAY_S: i64 = 24 * HOUR_S;

/// Days from 1970-01-01 to a day of the Gregorian calendar. The algorithm is `days_from_civil` of Howard Hinnant's
/// "chrono-Compatible Low-Level Date Algorithms".
fn days(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month > 2 { year } else { year - 1 };
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days from 1970-01-01: `civil_from_days` of the same source.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted - era * 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let mp = (5 * of_year + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (year + era * 400 + i64::from(month <= 2), month, of_year - (153 * mp + 2) / 5 + 1)
}

/// Midnight UTC of a day, in Unix seconds.
pub(crate) fn midnight(year: i64, month: i64, day: i64) -> i64 {
    days(year, month, day) * DAY_S
}

/// The same time of the day so many months later; on the month's last day where it has no such day.
pub(crate) fn months_after(anchor_s: i64, months: i64) -> i64 {
    let (year, month, day) = civil(anchor_s.div_euclid(DAY_S));
    let index = year * 12 + month - 1 + months;
    let (year, month) = (index.div_euclid(12), index.rem_euclid(12) + 1);
    let length = days(year + i64::from(month == 12), month % 12 + 1, 1) - days(year, month, 1);
    midnight(year, month, day.min(length)) + anchor_s.rem_euclid(DAY_S)
}

/// `2028-02-29 13:05`.
pub(crate) fn shown(at_s: i64) -> String {
    let (year, month, day) = civil(at_s.div_euclid(DAY_S));
    let of_day = at_s.rem_euclid(DAY_S);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}", of_day / HOUR_S, of_day % HOUR_S / 60)
}

#[test]
fn months_are_those_of_the_calendar() {
    let shown_after = |day, months| shown(months_after(midnight(2027, 12, day) + 13 * HOUR_S + 300, months));
    assert_eq!(shown_after(31, 1), "2028-01-31 13:05");
    assert_eq!(shown_after(31, 2), "2028-02-29 13:05");
    assert_eq!(shown_after(31, 3), "2028-03-31 13:05");
    assert_eq!(shown_after(30, 14), "2029-02-28 13:05");
    assert_eq!(midnight(2028, 1, 1), 1_830_297_600);
}

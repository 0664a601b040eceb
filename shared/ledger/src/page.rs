//! Pages: so much of a listing as one read answers, and where the next one begins. What a cursor says is nobody's business but
//! the store's; as text it is safe in an address.

use crate::{item, store::MeterKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{HoldId, Receipt, Report, Timestamp, UserId};

/// The most entries of one page.
pub const PAGE_MAX: u16 = 100;

/// The most meters of one user that a listing of them answers: five years of months.
pub const METERS_MAX: u16 = 64;

/// Where the next page of dirty meters begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub(crate) MeterKey);

/// Dirty meters of one shard, at most [`PAGE_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The meters.
    pub keys: Vec<MeterKey>,
    /// Where the next page begins; none: this is the last.
    pub next: Option<Cursor>,
}

/// Where the next page of users begins: behind this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCursor(pub(crate) UserId);

impl UserCursor {
    /// Behind this user.
    pub fn after(user: &UserId) -> Self {
        Self(user.clone())
    }

    /// As text.
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.as_str())
    }

    /// From text; none from any that is not [`UserCursor::to_text`]'s.
    pub fn parse(text: &str) -> Option<Self> {
        UserId::parse(&decoded(text)?).ok().map(Self)
    }
}

/// Users with an account, of one shard, at most [`PAGE_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserPage {
    /// The users.
    pub users: Vec<UserId>,
    /// Where the next page begins; none: this is the last.
    pub next: Option<UserCursor>,
}

/// Where the next page of receipts begins: behind this one, which is newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptCursor {
    pub(crate) period_start: Timestamp,
    pub(crate) id: HoldId,
}

impl ReceiptCursor {
    /// Behind this receipt.
    pub fn after(receipt: &Receipt) -> Self {
        Self { period_start: receipt.period_start, id: receipt.id.clone() }
    }

    /// As text.
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(item::receipt_sk(self.period_start, &self.id))
    }

    /// From text; none from any that is not [`ReceiptCursor::to_text`]'s.
    pub fn parse(text: &str) -> Option<Self> {
        let (period_start, id) = item::read_receipt_sk(&decoded(text)?)?;
        Some(Self { period_start, id })
    }
}

/// Receipts of one user, the newest first: by period, then by id. At most [`PAGE_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiptPage {
    /// The receipts.
    pub receipts: Vec<Receipt>,
    /// Where the next page begins; none: this is the last.
    pub next: Option<ReceiptCursor>,
}

/// Where the next page of report items begins: behind this one, which is newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportCursor {
    pub(crate) period_start: Timestamp,
    pub(crate) seq: u64,
}

impl ReportCursor {
    /// Behind this item.
    pub fn after(report: &Report) -> Self {
        Self { period_start: report.period_start, seq: report.seq }
    }

    /// As text.
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(item::report_sk(self.period_start, self.seq))
    }

    /// From text; none from any that is not [`ReportCursor::to_text`]'s.
    pub fn parse(text: &str) -> Option<Self> {
        let (period_start, seq) = item::read_report_sk(&decoded(text)?)?;
        Some(Self { period_start, seq })
    }
}

/// Report items of one user, the newest first: by period, then by number. At most [`PAGE_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportPage {
    /// The items.
    pub reports: Vec<Report>,
    /// Where the next page begins; none: this is the last.
    pub next: Option<ReportCursor>,
}

/// The most entries that are read for a page: one more than it has, which says whether there is another page.
pub(crate) const PAGE_READ_MAX: u16 = PAGE_MAX + 1;

/// Cuts what was read to a page; answers whether there is more.
pub(crate) fn cut<T>(read: &mut Vec<T>) -> bool {
    let more = read.len() >= usize::from(PAGE_READ_MAX);
    read.truncate(usize::from(PAGE_MAX));
    more
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let period_start = Timestamp::from_s(1_795_518_000);
        let receipt = ReceiptCursor { period_start, id: HoldId::parse("h1").unwrap() };
        assert_eq!(ReceiptCursor::parse(&receipt.to_text()), Some(receipt.clone()));
        let report = ReportCursor { period_start, seq: 7 };
        assert_eq!(ReportCursor::parse(&report.to_text()), Some(report.clone()));
        let user = UserCursor(UserId::parse("user_1").unwrap());
        assert_eq!(UserCursor::parse(&user.to_text()), Some(user.clone()));
        assert_eq!(ReceiptCursor::parse(&report.to_text()), None, "a report item's");
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for bad in [
            String::new(),
            "R#001795518000#h1".to_owned(),
            format!("{}=", receipt.to_text()),
            format!(" {}", receipt.to_text()),
            encoded("R#1795518000#h1"),
            encoded("R#+01795518000#h1"),
            encoded("R#001795518000"),
            encoded("R#001795518000#h#1"),
            encoded("M#001795518000#h1"),
            encoded("R#001795518000#h1\n"),
        ] {
            assert_eq!(ReceiptCursor::parse(&bad), None, "{bad}");
        }
        for bad in ["P#001795518000#7", "P#001795518000#+0000007", "P#001795518000#0000000x"] {
            assert_eq!(ReportCursor::parse(&encoded(bad)), None, "{bad}");
        }
        assert_eq!(UserCursor::parse(&encoded("a b")), None);
    }
}

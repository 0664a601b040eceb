//! Denials: the latest refusal of each kind, kept so that its user can see later what was in the way.

use crate::{CapKind, Pool, Refusal, Timestamp, Tokens, UserId};
use std::fmt;

/// How long a denial is kept, in milliseconds: 90 days.
pub const DENIAL_KEPT_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// Which limit refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DenialCode {
    /// The plan's cap.
    Quota,
    /// The user's own cap.
    SpendCap,
    /// What requests under way held.
    QuotaHeld,
    /// The number of requests at the same time.
    Concurrency,
    /// The rate window.
    Rate,
    /// An unpaid invoice.
    PastDue,
    /// The day's budget of all who pay nothing.
    TrialBudget,
    /// The owner's budget of the day.
    OwnerCeiling,
}

impl DenialCode {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Quota,
        Self::SpendCap,
        Self::QuotaHeld,
        Self::Concurrency,
        Self::Rate,
        Self::PastDue,
        Self::TrialBudget,
        Self::OwnerCeiling,
    ];

    /// Its name in the table and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::SpendCap => "spend_cap",
            Self::QuotaHeld => "quota_held",
            Self::Concurrency => "concurrency",
            Self::Rate => "rate",
            Self::PastDue => "past_due",
            Self::TrialBudget => "trial_budget",
            Self::OwnerCeiling => "owner_ceiling",
        }
    }

    /// The code of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// The code of this refusal.
    pub const fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::PastDue { .. } => Self::PastDue,
            Refusal::Quota { kind: CapKind::Plan, .. } => Self::Quota,
            Refusal::Quota { kind: CapKind::SpendCap, .. } => Self::SpendCap,
            Refusal::QuotaHeld { .. } => Self::QuotaHeld,
            Refusal::Concurrency { .. } => Self::Concurrency,
            Refusal::Rate { .. } => Self::Rate,
        }
    }

    /// The code of a refusal because this budget was used up.
    pub const fn of_budget(pool: Pool) -> Self {
        match pool {
            Pool::Trial => Self::TrialBudget,
            Pool::Everyone => Self::OwnerCeiling,
        }
    }
}

impl fmt::Display for DenialCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Whose.
    pub user: UserId,
    /// The start of the period that it would have been charged to.
    pub period_start: Timestamp,
    /// Which limit.
    pub code: DenialCode,
    /// When.
    pub at: Timestamp,
    /// The least tokens that it asked for.
    pub asked: Tokens,
    /// What was left of the cap; none where no cap refused.
    pub left: Option<Tokens>,
    /// When it would have passed, or an upper bound of that; none: when a person has paid.
    pub until: Option<Timestamp>,
}

impl Denial {
    /// The denial that this refusal was, of a request that asked for `asked` tokens at least.
    pub fn of(
        refusal: &Refusal,
        (user, period_start): (UserId, Timestamp),
        asked: Tokens,
        at: Timestamp,
    ) -> Self {
        let (left, until) = match refusal {
            Refusal::PastDue { .. } => (None, None),
            Refusal::Quota { left, resets_at, .. } => (Some(*left), Some(*resets_at)),
            Refusal::QuotaHeld { left, until_most, .. } => (Some(*left), Some(*until_most)),
            Refusal::Concurrency { until_most, .. } => (None, Some(*until_most)),
            Refusal::Rate { retry_at, .. } => (None, Some(*retry_at)),
        };
        Self { user, period_start, code: DenialCode::of(refusal), at, asked, left, until }
    }

    /// The denial of a request that asked for `asked` tokens at least, because a budget of the owner's is used up until
    /// `resets_at`. How much money is left of it is not its user's to know.
    pub fn of_budget(
        (pool, resets_at): (Pool, Timestamp),
        (user, period_start): (UserId, Timestamp),
        asked: Tokens,
        at: Timestamp,
    ) -> Self {
        let code = DenialCode::of_budget(pool);
        Self { user, period_start, code, at, asked, left: None, until: Some(resets_at) }
    }

    /// From when on it may be forgotten.
    pub fn forget_at(&self) -> Timestamp {
        self.at.plus_ms(DENIAL_KEPT_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(s: u64) -> Timestamp {
        Timestamp::from_s(s)
    }

    #[test]
    fn every_refusal_has_a_code_of_its_own_that_is_read_as_it_is_written() {
        let t = Tokens::from_u32;
        let quota = |kind| Refusal::Quota { kind, cap: t(9), left: t(2), needed: t(5), resets_at: at(70) };
        let refusals = [
            (quota(CapKind::Plan), Some(t(2)), Some(at(70))),
            (quota(CapKind::SpendCap), Some(t(2)), Some(at(70))),
            (
                Refusal::QuotaHeld { cap: t(9), left: t(1), needed: t(5), until_most: at(60) },
                Some(t(1)),
                Some(at(60)),
            ),
            (Refusal::Concurrency { limit: 2, until_most: at(50) }, None, Some(at(50))),
            (Refusal::Rate { limit: 2, window_ms: 60_000, retry_at: at(40) }, None, Some(at(40))),
            (Refusal::PastDue { pay_by: at(30) }, None, None),
        ];
        let user = UserId::parse("user_1").unwrap();
        for ((refusal, left, until), code) in refusals.into_iter().zip(DenialCode::ALL) {
            let denial = Denial::of(&refusal, (user.clone(), at(1)), t(5), at(35));
            assert_eq!((denial.code, denial.left, denial.until), (code, left, until));
            assert_eq!((denial.asked, denial.at, denial.period_start), (t(5), at(35), at(1)));
            assert_eq!(DenialCode::parse(code.as_str()), Some(code));
        }
        for (pool, code) in [Pool::Trial, Pool::Everyone].into_iter().zip(&DenialCode::ALL[6..]) {
            let denial = Denial::of_budget((pool, at(70)), (user.clone(), at(1)), t(5), at(35));
            assert_eq!((denial.code, denial.asked, denial.until), (*code, t(5), Some(at(70))));
            assert_eq!((denial.at, denial.period_start, denial.left), (at(35), at(1), None));
            assert_eq!(DenialCode::parse(code.as_str()), Some(*code));
        }
        assert_eq!(DenialCode::parse("rates"), None);
    }
}

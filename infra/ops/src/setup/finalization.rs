//! How long Stripe waits before a period's invoice is final. The usage of the period's last minutes needs that time, and
//! `invoice.created` that is not answered holds it up only while the time is not a custom one
//! (docs.stripe.com/invoicing/scheduled-finalization).
//!
//! No API shows the setting. What shows is the newest draft: Stripe's default is an hour after it was made.

use std::fmt;
use stripe::setup::{Draft, ObjectId};

/// Stripe's default, in seconds.
const DEFAULT_S: u64 = 3_600;
/// How far from it a draft may be, in seconds.
const SLACK_S: u64 = 300;
/// The reason of an invoice of a period that has ended.
const CYCLE: &str = "subscription_cycle";

/// What the newest draft says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finalization {
    /// There is no draft to look at.
    Unseen,
    /// It is final an hour after it was made.
    Default(ObjectId),
    /// It is final sooner: what is reported late misses it.
    Sooner {
        /// The draft.
        draft: ObjectId,
        /// How long it waits, in seconds.
        seconds: u64,
    },
    /// It is final later: a longer grace, or Stripe waits for our answer to `invoice.created`.
    Later {
        /// The draft.
        draft: ObjectId,
        /// How long it waits, in seconds.
        seconds: u64,
    },
    /// It is never final by itself.
    Never(ObjectId),
}

impl Finalization {
    /// What the newest draft of a period that has ended says.
    pub fn of(drafts: &[Draft]) -> Self {
        let cycles = drafts.iter().filter(|draft| draft.reason.as_deref() == Some(CYCLE));
        let Some(newest) = cycles.max_by_key(|draft| draft.created) else { return Self::Unseen };
        let draft = newest.id.clone();
        let Some(at) = newest.finalizes_at else { return Self::Never(draft) };
        let seconds = at.s().saturating_sub(newest.created.s());
        if seconds.abs_diff(DEFAULT_S) <= SLACK_S {
            Self::Default(draft)
        } else if seconds < DEFAULT_S {
            Self::Sooner { draft, seconds }
        } else {
            Self::Later { draft, seconds }
        }
    }

    /// Whether invoices certainly become final too soon.
    pub fn is_wrong(&self) -> bool {
        matches!(self, Self::Sooner { .. })
    }
}

impl fmt::Display for Finalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unseen => {
                f.write_str("there is no draft of a period's invoice yet to see the setting by")?;
            }
            Self::Default(draft) => {
                return write!(f, "draft {draft} is final an hour after it was made: Stripe's default");
            }
            Self::Sooner { draft, seconds } => write!(
                f,
                "WRONG: draft {draft} is final {seconds} s after it was made, and not {DEFAULT_S} s: what is reported \
                 late misses its invoice"
            )?,
            Self::Later { draft, seconds } => write!(
                f,
                "draft {draft} is final {seconds} s after it was made: a longer grace, or Stripe waits for our answer"
            )?,
            Self::Never(draft) => write!(f, "draft {draft} has no time at which it becomes final by itself")?,
        }
        f.write_str(
            ". Look at it in the dashboard, Settings, Billing, Invoices: the invoice finalization grace period has to \
             be 1 hour, without a rule, and no invoice may have a scheduled finalization of its own",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;

    #[track_caller]
    fn check(waits_s: Option<u64>, reason: &str, wrong: bool, expected: &str) {
        let draft = |id: &str, created: u64, waits_s: Option<u64>| Draft {
            id: ObjectId::parse(id).unwrap(),
            reason: Some(reason.to_owned()),
            created: Timestamp::from_s(created),
            finalizes_at: waits_s.map(|waits_s| Timestamp::from_s(created + waits_s)),
        };
        let seen = Finalization::of(&[draft("in_old", 1_000, Some(60)), draft("in_new", 2_000, waits_s)]);
        assert!(seen.to_string().contains(expected), "{seen}");
        assert_eq!(seen.is_wrong(), wrong, "{seen}");
    }

    #[test]
    fn the_newest_draft_shows_how_long_an_invoice_waits() {
        check(Some(3_600), CYCLE, false, "in_new is final an hour");
        check(Some(3_550), CYCLE, false, "in_new is final an hour");
        check(Some(0), CYCLE, true, "in_new is final 0 s");
        check(Some(86_400), CYCLE, false, "a longer grace");
        check(None, CYCLE, false, "no time at which");
        check(Some(0), "manual", false, "no draft of a period's invoice");
    }
}

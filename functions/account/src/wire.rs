//! The answer's JSON. Names are the ledger's.

use domain::{NanoUsd, Tokens, cap_in_force};
use edge::money::decimal_usd;
use ledger::Standing;
use serde::Serialize;
use std::num::NonZeroU64;

/// `GET /v1/usage`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UsageWire {
    plan: String,
    period: PeriodWire,
    usage: TokensWire,
    /// When `usage` begins anew: the end of the period.
    resets_at: String,
    overage: OverageWire,
    /// Requests of the period that have ended.
    requests: u64,
    /// The user's own cap in tokens, if there is one.
    spend_cap: Option<u64>,
}

/// The period `[start, end)`, RFC 3339 in UTC.
#[derive(Debug, Serialize)]
struct PeriodWire {
    start: String,
    end: String,
}

/// Tokens of the period.
#[derive(Debug, Serialize)]
struct TokensWire {
    /// Charged.
    settled: u64,
    /// Reserved by requests under way.
    held: u64,
    /// What neither takes of the cap.
    left: u64,
    /// The cap in force: the lower of the plan's and the user's own.
    cap: u64,
    /// Tokens that the plan's price includes.
    included: u64,
}

/// Tokens above the included ones.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OverageWire {
    tokens: u64,
    /// US dollars a million tokens, exact; absent on a plan that allows none.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_million_usd: Option<String>,
    /// What `tokens` cost so far, in US dollars, exact; the invoice rounds to the cent, once.
    cost_usd: String,
}

impl From<&Standing> for UsageWire {
    fn from(standing: &Standing) -> Self {
        let Standing { account, plan, meter } = standing;
        let (cap, _) = cap_in_force(account, plan);
        let over = meter.settled.saturating_sub(plan.included);
        let (start, end) = (meter.period.start().to_string(), meter.period.end().to_string());
        Self {
            plan: plan.id.to_string(),
            resets_at: end.clone(),
            period: PeriodWire { start, end },
            usage: TokensWire {
                settled: meter.settled.get(),
                held: meter.held().get(),
                left: cap.saturating_sub(meter.committed).get(),
                cap: cap.get(),
                included: plan.included.get(),
            },
            overage: overage(over, plan.overage_per_million),
            requests: meter.totals.requests,
            spend_cap: account.spend_cap.map(Tokens::get),
        }
    }
}

fn overage(over: Tokens, per_million: Option<NonZeroU64>) -> OverageWire {
    let cost = per_million.map_or(NanoUsd::ZERO, |price| NanoUsd::of(over, price));
    OverageWire {
        tokens: over.get(),
        per_million_usd: per_million.map(|price| decimal_usd(price.get())),
        cost_usd: decimal_usd(cost.get()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Account, Opening, Timestamp, UserId};
    use edge::plans::PlanBook;
    use serde_json::json;

    fn standing(settled: u32, spend_cap: Option<u32>) -> Standing {
        let book = PlanBook::built_in().unwrap();
        let plan = book.plans().iter().find(|plan| plan.id.as_str() == "pro").unwrap().clone();
        let now = Timestamp::from_s(1_800_000_000);
        let user = UserId::parse("user_1").unwrap();
        let mut account = Account::first_seen(user, plan.id.clone(), now);
        account.spend_cap = spend_cap.map(Tokens::from_u32);
        let Opening { account, mut meter, .. } = Opening::first(account, now).unwrap();
        meter.settled = Tokens::from_u32(settled);
        meter.committed = Tokens::from_u32(settled + 1_000);
        meter.totals.requests = 3;
        Standing { account, plan, meter }
    }

    #[test]
    fn the_answer_names_everything_once_and_exactly() {
        let wire = serde_json::to_value(UsageWire::from(&standing(500_001, None))).unwrap();
        let expect = json!({
            "plan": "pro",
            "period": {"start": "2027-01-15T08:00:00.000Z", "end": "2027-02-15T08:00:00.000Z"},
            "usage": {"settled": 500_001, "held": 0, "left": 4_498_999, "cap": 5_000_000, "included": 500_000},
            "resetsAt": "2027-02-15T08:00:00.000Z",
            "overage": {"tokens": 1, "perMillionUsd": "2.00", "costUsd": "0.000002"},
            "requests": 3,
            "spendCap": null,
        });
        assert_eq!(wire, expect);
    }

    #[test]
    fn the_users_own_cap_counts_where_it_is_lower() {
        let wire = serde_json::to_value(UsageWire::from(&standing(400, Some(1_000)))).unwrap();
        assert_eq!(wire["usage"]["cap"], 1_000);
        assert_eq!(wire["usage"]["left"], 0);
        assert_eq!(wire["spendCap"], 1_000);
        assert_eq!(wire["overage"]["costUsd"], "0.00");
    }
}

//! `GET /v1/usage`: what was used and what it will cost. Names are the ledger's.

use crate::{
    handler::{AccountApi, unavailable},
    invoice::InvoiceWire,
};
use domain::{Billing, Meter, Plan, Timestamp, Tokens, UserId, cap_in_force, overage_between};
use edge::{money::decimal_usd, problem::Problem, respond};
use http::{Response, StatusCode};
use lambda_http::Body;
use ledger::{Standing, Store};
use serde::Serialize;

impl<S: Store> AccountApi<S> {
    /// The usage of the current period.
    pub(crate) async fn usage(&self, user: &UserId, now: Timestamp) -> Result<Response<Body>, Problem> {
        let standing = self.ledger.standing(user, now).await.map_err(|error| unavailable(user, &error))?;
        let invoice = self.next_invoice(user, &standing).await?;
        Ok(respond::json(StatusCode::OK, &UsageWire::of(&standing, invoice, now)))
    }
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UsageWire {
    plan: String,
    status: Status,
    /// From when on nothing passes, because an invoice is unpaid.
    pay_by: Option<String>,
    /// When the subscription ends, where somebody has canceled it.
    ends_at: Option<String>,
    period: PeriodWire,
    usage: TokensWire,
    /// When `usage` begins anew: the end of the period.
    resets_at: String,
    overage: OverageWire,
    /// The next invoice, if there is a subscription.
    invoice: Option<InvoiceWire>,
    /// Requests of the period that have ended.
    requests: u64,
    /// The user's own cap in tokens, if there is one.
    spend_cap: Option<u64>,
}

/// Where the subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// There is none.
    None,
    /// Everything is paid.
    Active,
    /// An invoice is unpaid; everything goes on until `payBy`.
    PastDue,
    /// An invoice is unpaid, and nothing passes until it is.
    Overdue,
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

impl UsageWire {
    fn of(standing: &Standing, invoice: Option<InvoiceWire>, now: Timestamp) -> Self {
        let Standing { account, plan, meter } = standing;
        let status = match (&account.subscription, account.pay_by) {
            (_, Some(_)) if account.is_overdue(now) => Status::Overdue,
            (_, Some(_)) => Status::PastDue,
            (Some(_), None) => Status::Active,
            (None, None) => Status::None,
        };
        let (cap, _) = cap_in_force(account, plan);
        let (start, end) = (meter.period.start().to_string(), meter.period.end().to_string());
        Self {
            plan: plan.id.to_string(),
            status,
            pay_by: account.pay_by.map(|pay_by| pay_by.to_string()),
            ends_at: account.ends_at.map(|at| at.to_string()),
            resets_at: end.clone(),
            period: PeriodWire { start, end },
            usage: TokensWire {
                settled: meter.settled.get(),
                held: meter.held().get(),
                left: cap.saturating_sub(meter.committed).get(),
                cap: cap.get(),
                included: plan.included.get(),
            },
            overage: OverageWire::of(plan, meter),
            invoice,
            requests: meter.totals.requests,
            spend_cap: account.spend_cap.map(Tokens::get),
        }
    }
}

impl OverageWire {
    fn of(plan: &Plan, meter: &Meter) -> Self {
        let settled = meter.priced();
        // Of a period that an item bills nothing is sealed before its end but what was imported, which is billed elsewhere.
        let imported = if meter.billing == Billing::Item { meter.sealed } else { Tokens::ZERO };
        Self {
            tokens: settled.saturating_sub(plan.included.max(imported)).get(),
            per_million_usd: plan.overage_per_million.map(|price| decimal_usd(price.get())),
            cost_usd: decimal_usd(overage_between(plan, imported, settled).get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Account, CustomerId, Opening, SubscriptionId, invoice_cents};
    use edge::plans::PlanBook;
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp::from_s(1_800_000_000);

    fn wire(settled: u32, change: impl FnOnce(&mut Account)) -> Value {
        wire_of(settled, change, |_| ())
    }

    fn wire_of(
        settled: u32,
        change: impl FnOnce(&mut Account),
        change_meter: impl FnOnce(&mut Meter),
    ) -> Value {
        let book = PlanBook::built_in().unwrap();
        let plan = book.plans().iter().find(|plan| plan.id.as_str() == "pro").unwrap().clone();
        let user = UserId::parse("user_1").unwrap();
        let mut account = Account::first_seen(user, plan.id.clone(), NOW);
        account.customer = CustomerId::parse("cus_1").ok();
        account.subscription = SubscriptionId::parse("sub_1").ok();
        change(&mut account);
        let Opening { account, mut meter, .. } = Opening::first(account, NOW).unwrap();
        meter.settled = Tokens::from_u32(settled);
        meter.committed = Tokens::from_u32(settled + 1_000);
        meter.totals.requests = 3;
        change_meter(&mut meter);
        let standing = Standing { account, plan, meter };
        let billed = standing.account.billed_to().is_some();
        let invoice = InvoiceWire::of(&standing, book.plans(), &[], 0).filter(|_| billed);
        serde_json::to_value(UsageWire::of(&standing, invoice, NOW)).unwrap()
    }

    #[test]
    fn the_answer_names_everything_once_and_exactly() {
        let expect = json!({
            "plan": "pro",
            "status": "active",
            "payBy": null,
            "endsAt": null,
            "period": {"start": "2027-01-15T08:00:00.000Z", "end": "2027-02-15T08:00:00.000Z"},
            "usage": {"settled": 500_001, "held": 0, "left": 4_498_999, "cap": 5_000_000, "included": 500_000},
            "resetsAt": "2027-02-15T08:00:00.000Z",
            "overage": {"tokens": 1, "perMillionUsd": "2.00", "costUsd": "0.000002"},
            "invoice": {
                "estimateUsd": "20.00", "baseUsd": "20.00", "overageUsd": "0.00", "planChangeUsd": "0.00",
                "lateUsd": "0.00", "at": "2027-02-15T08:00:00.000Z",
            },
            "requests": 3,
            "spendCap": null,
        });
        assert_eq!(wire(500_001, |_| ()), expect);
    }

    #[test]
    fn f21_the_projected_invoice_rounds_once_as_stripe_does() {
        // Half a cent is 2,500 tokens at 0.0002 cents.
        for (settled, overage, estimate) in [
            (502_499, "0.00", "20.00"),
            (502_500, "0.01", "20.01"),
            (507_499, "0.01", "20.01"),
            (507_500, "0.02", "20.02"),
            (5_000_000, "9.00", "29.00"),
        ] {
            let invoice = &wire(settled, |_| ())["invoice"];
            assert_eq!(
                (&invoice["overageUsd"], &invoice["estimateUsd"]),
                (&overage.into(), &estimate.into())
            );
            let book = PlanBook::built_in().unwrap();
            let pro = book.plans().iter().find(|plan| plan.id.as_str() == "pro").unwrap();
            let cents = invoice_cents(pro, Tokens::from_u32(settled)).unwrap();
            assert_eq!(format!("{}.{:02}", cents / 100, cents % 100), estimate);
        }
    }

    #[test]
    fn what_an_item_bills_is_above_what_is_included_and_imported_and_on_no_invoice_yet() {
        for (imported, settled, tokens, cost) in [
            (600_000, 700_000, 100_000, "0.20"),
            (100_000, 600_000, 100_000, "0.20"),
            (600_000, 600_000, 0, "0.00"),
        ] {
            let wire = wire_of(
                settled,
                |_| (),
                |meter| {
                    (meter.billing, meter.sealed) = (Billing::Item, Tokens::from_u32(imported));
                    meter.invoiced = meter.sealed;
                },
            );
            assert_eq!(
                (&wire["overage"]["tokens"], &wire["overage"]["costUsd"]),
                (&tokens.into(), &cost.into())
            );
            let invoice = &wire["invoice"];
            assert_eq!((&invoice["overageUsd"], &invoice["estimateUsd"]), (&"0.00".into(), &"20.00".into()));
        }
    }

    #[test]
    fn a_subscription_that_ends_is_billed_for_no_further_month() {
        let end = Timestamp::from_s(1_802_678_400);
        let ends = wire(502_500, |account| account.ends_at = Some(end));
        assert_eq!((&ends["endsAt"], &ends["status"]), (&ends["resetsAt"], &"active".into()));
        let invoice = &ends["invoice"];
        assert_eq!((&invoice["baseUsd"], &invoice["estimateUsd"]), (&"0.00".into(), &"0.01".into()));
        assert_eq!(invoice["at"], ends["resetsAt"]);
        let later = wire(502_500, |account| account.ends_at = Some(end.plus_ms(1_000)));
        assert_eq!(later["invoice"]["estimateUsd"], "20.01", "it has another month");
    }

    #[test]
    fn without_a_subscription_there_is_no_invoice() {
        let wire = wire(400, |account| account.subscription = None);
        assert_eq!((&wire["status"], &wire["invoice"]), (&"none".into(), &Value::Null));
    }

    #[test]
    fn an_unpaid_invoice_shows_until_when_and_since_when() {
        let later = wire(400, |account| account.pay_by = Some(NOW.plus_ms(1)));
        assert_eq!(
            (&later["status"], &later["payBy"]),
            (&"past_due".into(), &"2027-01-15T08:00:00.001Z".into())
        );
        let now = wire(400, |account| account.pay_by = Some(NOW));
        assert_eq!(now["status"], "overdue");
    }

    #[test]
    fn the_users_own_cap_counts_where_it_is_lower() {
        let wire = wire(400, |account| account.spend_cap = Some(Tokens::from_u32(1_000)));
        assert_eq!(wire["usage"]["cap"], 1_000);
        assert_eq!(wire["usage"]["left"], 0);
        assert_eq!(wire["spendCap"], 1_000);
        assert_eq!(wire["overage"]["costUsd"], "0.00");
    }
}

//! Which way a row goes: onto its period's invoice as a meter event, or, where that invoice is final, onto the next as an item.
//! Pure: it decides from what Stripe's invoices say, and asks nobody.
//!
//! Stripe puts on an invoice what its meter has counted by the moment at which the invoice becomes final. What arrives later is
//! counted and billed to nobody. So nothing is sent when that moment is near.

use domain::{Period, ReportRow, SubscriptionId, Timestamp};
use stripe::{Invoice, InvoiceStatus};

const MINUTE_MS: u64 = 60 * 1_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// How near the moment at which an invoice becomes final may be for an event to be sent: nearer than that, it may arrive after
/// it. On the other side, a draft that is this much past its moment is one that Stripe holds back, for its `invoice.created` is
/// not answered yet.
const FINAL_MARGIN_MS: u64 = 5 * MINUTE_MS;
/// How long after its period Stripe may take to draw up an invoice.
const DRAWN_UP_MS: u64 = 2 * HOUR_MS;
/// How much earlier than the period's end an invoice of it may be dated, where clocks differ.
const DATED_EARLY_MS: u64 = HOUR_MS;
/// How long after it was made a draft that waits for its `invoice.created` may still be sent to: half an hour less than the 72 hours
/// after which Stripe finalizes it all the same.
const HELD_MS_MAX: u64 = 71 * HOUR_MS + 30 * MINUTE_MS;
/// How far the end of what an invoice bills may lie from the period's own, in milliseconds.
const SAME_END_MS: u64 = MINUTE_MS;
/// The oldest time of an event that Stripe takes, less a margin: 35 days less an hour.
const EVENT_AGE_MS_MAX: u64 = (35 * 24 - 1) * HOUR_MS;

/// Which way a row goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As a meter event, onto the invoice of its period.
    Event,
    /// As an item, onto the next invoice; none of its events was sent after this instant.
    Item {
        /// Since when no event counts any more.
        since: Timestamp,
    },
    /// Neither yet: the invoice is about to become final.
    Wait,
    /// Neither: a person has to look.
    Refused(String),
}

/// Whether a row's invoices have to be asked for at all, and if so, from which date on.
pub(crate) fn invoices_from(period: Period, now: Timestamp) -> Option<Timestamp> {
    let early = Timestamp::from_ms(period.end().ms().saturating_sub(DATED_EARLY_MS));
    (period.end() <= now).then_some(early)
}

/// Decides the way of a row of a period that has ended, from the customer's invoices since about its end.
///
/// A row's invoice is one of a subscription that bills a period with this end, in which the row's time lies. Where one of those is of
/// the account's `own` subscription, no other counts: its customer may have bought another product besides.
pub(crate) fn way(
    period: Period,
    row: &ReportRow,
    invoices: &[Invoice],
    own: Option<&SubscriptionId>,
    now: Timestamp,
) -> Way {
    let mut of_row: Vec<&Invoice> = invoices.iter().filter(|invoice| bills(invoice, period, row)).collect();
    let is_own = |invoice: &&Invoice| own.is_some() && invoice.subscription.as_ref() == own;
    if of_row.iter().any(is_own) {
        of_row.retain(is_own);
    }
    let too_old = row.timestamp.plus_ms(EVENT_AGE_MS_MAX);
    if let Some(draft) = of_row.iter().find(|invoice| invoice.status == InvoiceStatus::Draft) {
        return match draft.finalizes_at {
            _ if too_old <= now => Way::Item { since: too_old },
            Some(at) if is_near(at, now) || now.ms_since(draft.created) >= HELD_MS_MAX => Way::Wait,
            Some(_) | None => Way::Event,
        };
    }
    if let Some(void) = of_row.iter().find(|invoice| invoice.status == InvoiceStatus::Void) {
        return Way::Refused(format!("the invoice of its period, {}, is void", void.id));
    }
    let final_at = |invoice: &&Invoice| invoice.finalized_at.unwrap_or(invoice.created);
    let since = of_row.iter().map(final_at).max();
    let drawn_up_by = period.end().plus_ms(DRAWN_UP_MS);
    match since {
        Some(since) => Way::Item { since },
        None if now < drawn_up_by && now < too_old => Way::Event,
        None => Way::Item { since: drawn_up_by.min(too_old) },
    }
}

/// The subscriptions whose invoices bill what ends with a period, each once.
pub(crate) fn subscriptions(period: Period, invoices: Vec<Invoice>) -> Vec<SubscriptionId> {
    let is_of = |billed: Period| is_same_end(billed.end(), period.end());
    let bills = |invoice: &Invoice| invoice.period.is_some_and(is_of);
    let mut found: Vec<_> =
        invoices.into_iter().filter(bills).filter_map(|invoice| invoice.subscription).collect();
    found.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    found.dedup();
    found
}

fn bills(invoice: &Invoice, period: Period, row: &ReportRow) -> bool {
    let is_of = |billed: Period| billed.contains(row.timestamp) && is_same_end(billed.end(), period.end());
    invoice.subscription.is_some() && invoice.period.is_some_and(is_of)
}

/// Whether two periods end together, as far as two clocks can say.
pub(crate) fn is_same_end(one: Timestamp, other: Timestamp) -> bool {
    one.ms_since(other).max(other.ms_since(one)) <= SAME_END_MS
}

fn is_near(at: Timestamp, now: Timestamp) -> bool {
    at.ms_since(now) <= FINAL_MARGIN_MS && now.ms_since(at) <= FINAL_MARGIN_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{CustomerId, InvoiceId, Tokens};

    const START: Timestamp = Timestamp::from_s(1_800_000_000);
    const DAY_MS: u64 = 24 * HOUR_MS;
    const END: Timestamp = START.plus_ms(31 * DAY_MS);

    fn row(timestamp: Timestamp) -> ReportRow {
        ReportRow {
            seq: 0,
            customer: CustomerId::parse("cus_1").unwrap(),
            identifier: "u-1-0".into(),
            tokens: Tokens::from_u32(5),
            timestamp,
            first_attempt_at: None,
            last_attempt_at: None,
            fence: 0,
        }
    }

    fn invoice(status: InvoiceStatus) -> Invoice {
        Invoice {
            id: InvoiceId::parse("in_1").unwrap(),
            customer: CustomerId::parse("cus_1").unwrap(),
            subscription: Some(SubscriptionId::parse("sub_1").unwrap()),
            status,
            reason: "subscription_cycle".into(),
            period: Period::new(START, END),
            created: END,
            finalizes_at: Some(END.plus_ms(HOUR_MS)),
            finalized_at: None,
            total_cents: 2_000,
            url: None,
        }
    }

    #[track_caller]
    fn check(invoices: &[Invoice], after_end_ms: u64, expected: &Way) {
        let period = Period::new(START, END).unwrap();
        let last = row(period.clamp_s(END));
        assert_eq!(way(period, &last, invoices, None, END.plus_ms(after_end_ms)), *expected);
    }

    #[test]
    fn only_a_period_that_has_ended_asks_for_invoices() {
        let period = Period::new(START, END).unwrap();
        assert_eq!(invoices_from(period, Timestamp::from_ms(END.ms() - 1)), None);
        assert_eq!(invoices_from(period, END), Some(Timestamp::from_ms(END.ms() - HOUR_MS)));
    }

    #[test]
    fn f11_an_event_is_sent_while_its_invoice_is_a_draft_that_is_not_about_to_be_final() {
        let draft = [invoice(InvoiceStatus::Draft)];
        check(&draft, 0, &Way::Event);
        check(&draft, 55 * MINUTE_MS - 1, &Way::Event);
        check(&draft, 55 * MINUTE_MS, &Way::Wait);
        check(&draft, 65 * MINUTE_MS, &Way::Wait);
        // Held back until its webhook is answered.
        check(&draft, 65 * MINUTE_MS + 1, &Way::Event);
        check(&draft, 71 * HOUR_MS, &Way::Event);
        // Stripe waits no longer than 72 hours; what comes then is an item once it is final.
        check(&draft, HELD_MS_MAX, &Way::Wait);
        let kept = [Invoice { finalizes_at: None, ..invoice(InvoiceStatus::Draft) }];
        check(&kept, 60 * MINUTE_MS, &Way::Event);
    }

    #[test]
    fn f11_once_its_invoice_is_final_a_row_goes_on_the_next_one() {
        let at = END.plus_ms(HOUR_MS);
        for status in [InvoiceStatus::Open, InvoiceStatus::Paid, InvoiceStatus::Uncollectible] {
            let last = [Invoice { finalized_at: Some(at), ..invoice(status) }];
            check(&last, HOUR_MS, &Way::Item { since: at });
        }
        let undated = [invoice(InvoiceStatus::Other("new".into()))];
        check(&undated, HOUR_MS, &Way::Item { since: END });
    }

    #[test]
    fn f11_an_invoice_that_is_not_drawn_up_yet_is_waited_for_and_not_for_ever() {
        check(&[], 2 * HOUR_MS - 1, &Way::Event);
        check(&[], 2 * HOUR_MS, &Way::Item { since: END.plus_ms(2 * HOUR_MS) });
    }

    #[test]
    fn invoices_of_other_periods_and_by_hand_say_nothing() {
        let by_hand = Invoice { subscription: None, ..invoice(InvoiceStatus::Paid) };
        let next = Invoice {
            period: Period::new(END, END.plus_ms(28 * 24 * HOUR_MS)),
            ..invoice(InvoiceStatus::Paid)
        };
        let first = Invoice { period: None, ..invoice(InvoiceStatus::Paid) };
        check(&[by_hand.clone(), next.clone(), first.clone()], HOUR_MS, &Way::Event);
        check(&[by_hand, invoice(InvoiceStatus::Draft), next, first], 30 * MINUTE_MS, &Way::Event);
        // A period that was cut is not billed by the invoice that bills beyond its end.
        let beyond =
            [Invoice { period: Period::new(START, END.plus_ms(DAY_MS)), ..invoice(InvoiceStatus::Draft) }];
        check(&beyond, 2 * HOUR_MS, &Way::Item { since: END.plus_ms(2 * HOUR_MS) });
    }

    #[test]
    fn f11_an_invoice_of_another_product_with_the_same_end_says_nothing_beside_ours() {
        let (ours, at) = (SubscriptionId::parse("sub_1").unwrap(), END.plus_ms(HOUR_MS));
        let final_one = Invoice { finalized_at: Some(at), ..invoice(InvoiceStatus::Paid) };
        let others =
            Invoice { subscription: SubscriptionId::parse("sub_2").ok(), ..invoice(InvoiceStatus::Draft) };
        let (period, both) = (Period::new(START, END).unwrap(), [others, final_one]);
        let of = |own| way(period, &row(START), &both, own, END.plus_ms(30 * MINUTE_MS));
        assert_eq!(of(Some(&ours)), Way::Item { since: at });
        let elsewhere = SubscriptionId::parse("sub_3").unwrap();
        assert_eq!((of(None), of(Some(&elsewhere))), (Way::Event, Way::Event));
    }

    #[test]
    fn what_nobody_is_to_pay_is_for_a_person() {
        let void = [invoice(InvoiceStatus::Void)];
        let period = Period::new(START, END).unwrap();
        let way = way(period, &row(START), &void, None, END.plus_ms(HOUR_MS));
        assert!(matches!(way, Way::Refused(reason) if reason.contains("in_1")));
    }

    #[test]
    fn f11_a_row_that_is_too_old_for_stripe_goes_on_the_next_invoice() {
        let period = Period::new(START, END).unwrap();
        let old = row(START);
        let since = START.plus_ms(EVENT_AGE_MS_MAX);
        let now = START.plus_ms(35 * 24 * HOUR_MS);
        let kept = [Invoice { finalizes_at: None, ..invoice(InvoiceStatus::Draft) }];
        assert_eq!(way(period, &old, &kept, None, now), Way::Item { since });
        assert_eq!(way(period, &old, &kept, None, Timestamp::from_ms(since.ms() - 1)), Way::Event);
    }
}

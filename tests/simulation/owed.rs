//! What a customer owes, once nothing is under way any more: every token that was used is on one invoice, once, as the meter's event
//! or as an item, and what the parts of a period cost adds up to what the whole does.

use crate::simulation::{
    billing::{self, Cut, Item, Segment},
    journal::Heard,
    stripe::Event,
    world::World,
};
use domain::{CustomerId, Meter, Report, RowFate, SubscriptionId, Timestamp};
use ledger::MeterKey;
use std::collections::BTreeMap;

/// How long after the account knows of a change of plan a call may still be under way that was begun before, in milliseconds.
const UNDER_WAY_MS: u64 = 3 * 60_000;
/// Rows of usage from elsewhere are called so.
const IMPORT: &str = "import-";

/// Everything that is held against each other.
struct Books {
    reports: Vec<(MeterKey, Report)>,
    meters: BTreeMap<MeterKey, Meter>,
    events: Vec<Event>,
    items: Vec<Item>,
}

impl Books {
    fn read(world: &World) -> Self {
        let (reports, meters) = {
            let kept = world.store.kept();
            let reports = kept.reports.iter().map(|((key, _), report)| (key.clone(), report.clone()));
            (reports.collect(), kept.meters.clone())
        };
        let (events, items) =
            world.with(|inner| (inner.stripe.counted.clone(), inner.stripe.items.all.clone()));
        Self { reports, meters, events, items }
    }
}

/// F11: what is accepted is billed by its event, what is invoiced by its item, and nothing by both.
pub(crate) fn all(world: &World) {
    let books = Books::read(world);
    for (key, report) in &books.reports {
        if report.identifier.starts_with(IMPORT) {
            continue;
        }
        let event = books.events.iter().find(|event| event.identifier == report.identifier);
        let item = books.items.iter().find(|item| item.report == report.identifier);
        match (report.fate, event, item) {
            (RowFate::Accepted, Some(event), None) => on_time(world, &books.meters[key], event),
            (RowFate::Invoiced, None, Some(item)) if item.customer == report.customer.as_str() => {
                world.saw("late usage: an item bills it");
            }
            (RowFate::Invoiced, None, None) if report.note.as_deref() == Some("0 cents") => {
                world.saw("late usage: it costs nothing");
            }
            (RowFate::Parked | RowFate::Forgiven | RowFate::Retried, None, None) => {}
            _ => {
                world.violated(format!("F11: not billed once: {report:?}, {event:?}, {item:?}"));
            }
        }
    }
    for item in &books.items {
        item_is_known(world, &books, item);
    }
    for meter in books.meters.values() {
        price(world, &books, meter);
    }
}

/// An item is a report's that says so. Of a meter whose period was cut, the row whose item's answer was lost stays for a person to
/// look at: it is billed, once.
fn item_is_known(world: &World, books: &Books, item: &Item) {
    let is_billed = |(_, report): &&(MeterKey, Report)| report.identifier == item.report;
    let report = books.reports.iter().find(is_billed).map(|(_, report)| report.fate);
    let is_pending = |meter: &&Meter| meter.pending.as_ref().is_some_and(|row| row.identifier == item.report);
    let waits = books.meters.values().find(is_pending);
    match (report, waits) {
        // What else there is of it was looked at with its report.
        (Some(_), None) => {}
        (None | Some(RowFate::Invoiced), Some(meter)) if meter.mixed => {
            world.saw("an item was made, and its row is unclear for good");
        }
        _ => world.violated(format!("F11: an item of what is {report:?}, {waits:?}: {item:?}")),
    }
}

/// An event that was accepted is on an invoice. What was counted before anybody here could know of what Stripe had done
/// meanwhile may be on none: that is seconds, and is counted here.
fn on_time(world: &World, meter: &Meter, event: &Event) {
    if billing::billed_by(world, event).is_some() {
        return;
    }
    let at = Timestamp::from_s(event.timestamp_s);
    let counted_at = world.scenario.base.plus_ms(event.counted_at_ms);
    let Some(segment) = billing::segment(world, &event.customer, at) else {
        world.saw("used after the end of a subscription, before it was heard of");
        return;
    };
    match known(world, meter, &segment) {
        Known::Never => world.saw("a change of a subscription was over before it was heard of"),
        Known::Since(known_at) if counted_at <= known_at.plus_ms(UNDER_WAY_MS) => {
            world.saw("counted between a change of a subscription and word of it");
        }
        // It came to the account when the next period's meter counted already, so that it cut none.
        Known::Since(known_at) if segment.to < meter.period.end() && meter.period.end() <= known_at => {
            world.saw("a change of plan was heard of after the end of its period");
        }
        Known::Since(_) if event.was_late => world.saw("a change of plan overtook an event on its way"),
        Known::Since(_) | Known::NoCut => {
            world.violated(format!(
                "F11: {event:?} was counted at {counted_at}, which no invoice has: {segment:?}, {meter:?}"
            ));
        }
    }
}

/// When the account came to know of what cut a part of a period.
enum Known {
    /// Nothing cut it.
    NoCut,
    /// It did not.
    Never,
    Since(Timestamp),
}

fn known(world: &World, meter: &Meter, segment: &Segment) -> Known {
    let Some(cut) = segment.cut else { return Known::NoCut };
    // A part that was over before anybody heard of it cut nothing: what followed it is all that the account knows of.
    if matches!(cut, Cut::ByPlan(_)) && !is_heard(world, meter, segment, segment.final_at) {
        return Known::Never;
    }
    let known_at = world.with(|inner| {
        let heard = inner.journal.heard.get(&meter.user).map_or(&[][..], Vec::as_slice);
        let is_of =
            |of: &Option<SubscriptionId>| of.as_ref().is_some_and(|id| id.as_str() == segment.subscription);
        let tells = |(at, plan, of): &&Heard| match cut {
            Cut::ByPlan(next) => segment.final_at <= *at && plan.as_str() == next && is_of(of),
            Cut::ByEnd => segment.to <= *at && !is_of(of),
        };
        heard.iter().find(tells).map(|(at, ..)| *at)
    });
    known_at.map_or(Known::Never, Known::Since)
}

/// Whether the account came to know of a part of a period while it was, and before some time.
fn is_heard(world: &World, meter: &Meter, segment: &Segment, before: Timestamp) -> bool {
    world.with(|inner| {
        let heard = inner.journal.heard.get(&meter.user).map_or(&[][..], Vec::as_slice);
        heard.iter().any(|(at, plan, of)| {
            let is_of = of.as_ref().is_some_and(|id| id.as_str() == segment.subscription);
            is_of
                && plan.as_str() == segment.plan
                && segment.since <= *at
                && *at < segment.final_at.min(before)
        })
    })
}

/// The parts of a meter cost what the whole does, where one meter is one part of a period.
fn price(world: &World, books: &Books, meter: &Meter) {
    let key = MeterKey::of(meter);
    let Some((segment, customer)) = is_one_part(world, books, meter) else { return };
    let of_meter =
        |identifier: &str| books.reports.iter().any(|(of, r)| *of == key && r.identifier == identifier);
    let (mut counted, mut late, mut cents) = (0, 0, 0);
    for event in &books.events {
        let is_here = event.customer == customer.as_str()
            && billing::billed_by(world, event).as_ref() == Some(&segment);
        if is_here != of_meter(&event.identifier) {
            return;
        }
        counted += if is_here { event.tokens } else { 0 };
    }
    for (of, report) in &books.reports {
        if *of == key && report.fate == RowFate::Invoiced {
            late += report.tokens.get();
            cents +=
                books.items.iter().find(|item| item.report == report.identifier).map_or(0, |item| item.cents);
        }
    }
    let overage = |tokens| world.scenario.overage_cents(segment.plan, tokens);
    let (parts, whole) = (overage(counted) + cents, overage(counted + late));
    world.saw("a period's price was held against its parts");
    if cents > 0 && overage(counted) > 0 {
        world.saw("a period's price has an event's part and an item's");
    }
    // By a plan that its user has had, and by no other price.
    let by_another = || {
        world.scenario.plans().any(|plan| {
            let of = |tokens| world.scenario.overage_cents(plan, tokens);
            of(counted) + cents == of(counted + late)
        })
    };
    let moved_on = billing::has_changed(world, &segment) || has_left(world, meter, &segment);
    if parts != whole && late > 0 && moved_on && by_another() {
        world.saw("late usage was priced by what its user had later");
        return;
    }
    if parts != whole || counted + late != meter.settled.get() {
        world.violated(format!(
            "F11: {counted} tokens on the meter and {late} late come to {parts} cents, and should to {whole}: {meter:?}"
        ));
    }
}

/// Whether the account has left the subscription of a part since.
fn has_left(world: &World, meter: &Meter, segment: &Segment) -> bool {
    let kept = world.store.kept();
    let own = kept.accounts.get(&meter.user).and_then(|account| account.subscription.as_ref());
    own.is_none_or(|own| own.as_str() != segment.subscription)
}

/// The part of its customer's period that a meter is, if it is one, and nothing of it was parked or came from elsewhere.
fn is_one_part<'a>(world: &World, books: &Books, meter: &'a Meter) -> Option<(Segment, &'a CustomerId)> {
    let key = MeterKey::of(meter);
    let customer = meter.customer.as_ref()?;
    let segment = billing::segment(world, customer.as_str(), meter.period.start())?;
    let is_plain = |(of, report): &&(MeterKey, Report)| {
        *of != key
            || matches!(report.fate, RowFate::Accepted | RowFate::Invoiced)
                && !report.identifier.starts_with(IMPORT)
                && report.customer == *customer
    };
    let within = is_heard(world, meter, &segment, segment.final_at)
        && segment.from <= meter.period.start()
        && meter.period.end() <= segment.to;
    let plain = meter.pending.is_none()
        && meter.settled == meter.sealed
        && books.reports.iter().all(|it| is_plain(&it));
    if within && plain && meter.plan.as_str() != segment.plan {
        if is_heard(world, meter, &segment, meter.period.start()) {
            world.violated(format!("F11: a meter of the plan {} in {segment:?}: {meter:?}", meter.plan));
        }
        return None;
    }
    (within && plain && !billing::is_hasty(world, &segment)).then_some((segment, customer))
}

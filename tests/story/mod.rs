//! Two months of a small business: 182 subscribers, every mishap that a calendar brings, and invoices that are right to the cent.

#[path = "../simulation/bus.rs"]
mod bus_stand_in;
mod calendar;
mod cast;
mod owner;
mod provider;
mod sketch;
mod sums;
mod town;

use cast::{PEOPLE, begin_s, plan};
use domain::RowFate;
use sketch::Defect;
use std::collections::BTreeMap;
use sums::Due;
use town::{Ended, Served, Town};

/// What is due to one subscriber: the invoices, and what Stripe made none for.
type DueTo = (Vec<Due>, Option<Due>);

/// The story, told once for all that is asserted of it.
async fn story() -> (Town, BTreeMap<usize, DueTo>, i64) {
    let mut town = Town::new(begin_s()).await;
    let plan = plan();
    let end_s = plan.last().unwrap().0;
    for (at_s, deed) in plan {
        town.live(at_s, deed).await;
    }
    town.see_who_was_cut_off().await;
    let due = |who: &usize| {
        let served: Vec<_> =
            town.served.iter().filter(|served| served.who == *who && served.bought).copied().collect();
        sums::due(&town.bought[who], &served, end_s)
    };
    let due = town.bought.keys().map(|who| (*who, due(who))).collect();
    (town, due, end_s)
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_i7_f11_f13_two_months_of_182_subscribers_are_invoiced_to_the_cent() {
    let begun = std::time::Instant::now();
    let (town, due, end_s) = story().await;
    println!(
        "told in {} s: {} served, refused {:?}",
        begun.elapsed().as_secs(),
        town.served.len(),
        town.refused
    );
    assert_eq!(town.bought.len(), PEOPLE);
    let mut wrong = Vec::new();
    for (who, (due, not_invoiced)) in &due {
        let invoices = town.stripe.invoices(&town.bought[who].customer);
        // A period that has begun before the end and ends after it is nobody's yet.
        let made: Vec<_> = invoices.into_iter().filter(|invoice| invoice.period_end_s <= end_s).collect();
        wrong.extend(sums::compare(due, &made).into_iter().map(|what| format!("user {who}: {what}")));
        let (owed, waits) = (not_invoiced.map_or(0, |due| due.overage_cents), town.pending_cents(*who).await);
        if owed != waits {
            wrong
                .push(format!("user {who}: {owed} cents that no invoice has, and {waits} that wait for one"));
        }
    }
    everything_happened(&town);
    let all: Vec<Due> = due.values().flat_map(|(due, _)| due).copied().collect();
    owner::tell(&town, &all);
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    f21_to_f24(&town);
}

/// A story without its mishaps would prove nothing.
fn everything_happened(town: &Town) {
    assert_eq!(town.deaths_s.len(), cast::DEATHS.len(), "reporters died after Stripe had counted");
    assert!(town.same_pages > PEOPLE / 2, "nobody came back to the page to pay on");
    let untold = |served: &&Served| !served.bought && town.bought[&served.who].joined_s <= served.at_s;
    let free = town.served.iter().filter(|served| !served.bought).count();
    let untold = town.served.iter().filter(untold).count();
    assert!(untold > 0, "nobody wrote before the purchase was heard of");
    assert!(free > untold, "nobody tried the free plan");
    assert!(town.refused["past_due"] > 0, "nobody was refused for a debt");
    let ended = |is: fn(&Ended) -> bool| {
        town.bought.values().filter(|bought| bought.ended.as_ref().is_some_and(is)).count()
    };
    assert!(ended(|ended| matches!(ended, Ended::ByStripe(_))) >= 2, "nobody was cut off");
    assert!(
        ended(|ended| matches!(ended, Ended::Now(_))) >= 10
            && ended(|ended| matches!(ended, Ended::AtEnd(_))) >= 10
    );
    let kept = town.store.kept();
    let of_fate = |fate| kept.reports.values().filter(|report| report.fate == fate).count();
    assert!(of_fate(RowFate::Invoiced) > 0, "no usage missed its invoice");
    assert_eq!(of_fate(RowFate::Parked), 0);
    assert!(kept.meters.values().all(|meter| meter.settled == meter.sealed || meter.customer.is_none()));
}

fn f21_to_f24(town: &Town) {
    use Defect::{ReportsNobody, RoundsUp, SendsAgain, Unscoped};
    let until_s = begin_s() + cast::DAYS * calendar::DAY_S;
    let wrong =
        |defects| sketch::run(defects, &town.bought, &town.served, (begin_s(), until_s), &town.deaths_s);
    let cases: [(&str, &[Defect]); 5] = [
        ("F21 rounds up", &[RoundsUp]),
        ("F22 unscoped", &[Unscoped]),
        ("F23 sends again", &[SendsAgain]),
        ("F24 reports nobody", &[ReportsNobody]),
        ("F21 to F23 together", &[RoundsUp, Unscoped, SendsAgain]),
    ];
    assert_eq!(wrong(&[]), sketch::Wrong::default(), "without its defects the sketch is right");
    for (name, defects) in cases {
        let wrong = wrong(defects);
        println!(
            "the sketch, {name}: {} cents too much, {} cents too little; here 0",
            wrong.over_cents, wrong.under_cents
        );
        assert_ne!(wrong, sketch::Wrong::default(), "{name} is no defect");
    }
}

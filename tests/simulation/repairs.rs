//! Who does what no request and no run does: people and webhooks who repair rows that have ended, whoever takes over usage from
//! elsewhere, and whoever has a lease. Mostly two at once, as people do who see no answer.

use crate::simulation::{
    store::SimStore,
    world::{Process, World},
};
use domain::{Billing, HoldId, Meter, Receipt, Report, ReportRow, RowFate, Tokens, UserId};
use ledger::{Attempt, Ledger, Loaded, MeterKey, Retried, StoreError};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// How often one person looks again.
const ROUNDS: u64 = 3;
/// How long one waits for the store, in milliseconds.
const PATIENCE_MS: u64 = 20_000;
/// How long a lease is taken for at most, in milliseconds: some are out of time before their owner is done.
const LEASE_MS_MAX: u64 = 8_000;
/// How long its owner then works under it at most, in milliseconds.
const WORK_MS_MAX: u64 = 12_000;
/// The numbers of holds that no request has begin here.
const FIRST_NUMBER: u64 = 1_000_000;

fn ledger(world: &Arc<World>, process: &Arc<Process>) -> Ledger<SimStore> {
    Ledger::new(SimStore::new(world, process), world.scenario.book.plans().clone())
}

/// Sees to what a user's rows came to, now and then.
pub(crate) async fn repair(world: Arc<World>, number: u64, user: UserId) {
    for round in 0..ROUNDS {
        let Some((key, item)) = some_item(&world, &user) else { return };
        let (choice, twice) = world.with(|inner| (inner.dice.below(10), inner.dice.in_thousand(600)));
        let once = |second: &'static str| {
            let (world, key, item) = (Arc::clone(&world), key.clone(), item.clone());
            async move {
                let process = world.short_process(format!("repair-{number}-{round}{second}"));
                let done = one_repair(&world, &process, &key, &item, choice);
                drop(timeout(Duration::from_millis(PATIENCE_MS), done).await);
                process.kill();
            }
        };
        if twice {
            tokio::join!(once(""), once("b"));
        } else {
            once("").await;
        }
        let pause_ms = world.with(|inner| inner.dice.below(40_000));
        sleep(Duration::from_millis(pause_ms)).await;
    }
}

/// A report item of some period of this user's, a parked one if there is any: it was told of.
fn some_item(world: &World, user: &UserId) -> Option<(MeterKey, Report)> {
    let items: Vec<(MeterKey, Report)> = {
        let kept = world.store.kept();
        let of_user = kept.reports.iter().filter(|((key, _), _)| key.user == *user);
        of_user.map(|((key, _), item)| (key.clone(), item.clone())).collect()
    };
    let parked: Vec<_> = items.iter().filter(|(_, item)| item.fate == RowFate::Parked).collect();
    let among = if parked.is_empty() { items.iter().collect() } else { parked };
    (!among.is_empty()).then(|| world.with(|inner| inner.dice.pick(&among)).clone())
}

async fn one_repair(
    world: &Arc<World>,
    process: &Arc<Process>,
    key: &MeterKey,
    item: &Report,
    choice: u64,
) -> Result<(), StoreError> {
    let ledger = ledger(world, process);
    let now = world.clock(process);
    match item.fate {
        RowFate::Parked if choice < 7 => match ledger.retry_parked(key, item.seq, now).await? {
            Retried::Yes(_) => world.saw("repair: a parked row was retried"),
            Retried::RowPending => world.saw("repair: a retry waits for another row"),
            Retried::NotParked => world.saw("repair: a row was not parked any more"),
        },
        RowFate::Parked => {
            let _: ledger::Changed = ledger.forgive_parked(key, item.seq, now, "nobody's fault").await?;
        }
        // Stripe tells of it afterwards, and may tell twice.
        RowFate::Accepted if choice < 4 => {
            let reason = "no such customer";
            let _: ledger::Changed = ledger.reject(key, item.seq, item.tokens, now, reason).await?;
        }
        RowFate::Accepted | RowFate::Invoiced | RowFate::Forgiven | RowFate::Retried => {}
    }
    Ok(())
}

/// Takes over usage that was counted elsewhere, into the meter that counts now, from somebody who pays.
pub(crate) async fn import(world: Arc<World>, number: u64, user: UserId) {
    let (tokens, invoiced, twice) = world
        .with(|inner| (inner.dice.between(1, 900), inner.dice.in_thousand(300), inner.dice.in_thousand(600)));
    let fate = if invoiced { RowFate::Invoiced } else { RowFate::Accepted };
    let once = |second: &'static str| {
        let (world, user) = (Arc::clone(&world), user.clone());
        async move {
            let process = world.short_process(format!("import-{number}{second}"));
            let done = one_import(&world, &process, &user, (number, Tokens::new(tokens).unwrap(), fate));
            drop(timeout(Duration::from_millis(PATIENCE_MS), done).await);
            process.kill();
        }
    };
    if twice {
        tokio::join!(once(""), once("b"));
    } else {
        once("").await;
    }
}

async fn one_import(
    world: &Arc<World>,
    process: &Arc<Process>,
    user: &UserId,
    (number, tokens, fate): (u64, Tokens, RowFate),
) -> Result<(), StoreError> {
    let ledger = ledger(world, process);
    let now = world.clock(process);
    for _ in 0..ROUNDS {
        let Some(Loaded { meter, .. }) = ledger.roll(user, now).await.map_err(|unavailable| unavailable.0)?
        else {
            return Ok(());
        };
        let Some(customer) = meter.customer.clone() else { return Ok(()) };
        let key = MeterKey::of(&meter);
        let id = HoldId::parse(&format!("{}x0", FIRST_NUMBER + number)).unwrap();
        let row = ReportRow {
            seq: meter.seq,
            customer,
            identifier: format!("import-{number}"),
            tokens,
            timestamp: meter.period.clamp_s(now),
            first_attempt_at: None,
            last_attempt_at: None,
            fence: 0,
        };
        let receipt = Receipt::imported(user.clone(), key.period_start, id, tokens, now);
        let report = Report::of((user.clone(), key.period_start), &row, fate, now, Some("from elsewhere"));
        if ledger.import(&key, &receipt, &report, Billing::Metered).await? == ledger::Changed::Yes {
            world.saw("usage was imported");
            return Ok(());
        }
    }
    Ok(())
}

/// Takes the lease of whoever pays for a user, attempts a row under it, and again once its time may be out.
pub(crate) async fn lease(world: Arc<World>, number: u64, user: UserId) {
    let once = |second: u64| {
        let (world, user) = (Arc::clone(&world), user.clone());
        async move {
            let late_ms = world.with(|inner| inner.dice.below(WORK_MS_MAX));
            sleep(Duration::from_millis(late_ms * second)).await;
            let process = world.short_process(format!("lessee-{number}-{second}"));
            let done = one_lease(&world, &process, &user, number * 2 + second);
            drop(timeout(Duration::from_millis(2 * PATIENCE_MS), done).await);
            process.kill();
        }
    };
    tokio::join!(once(0), once(1));
}

async fn one_lease(
    world: &Arc<World>,
    process: &Arc<Process>,
    user: &UserId,
    number: u64,
) -> Result<(), StoreError> {
    let ledger = ledger(world, process);
    let paid: Option<Meter> = {
        let kept = world.store.kept();
        kept.meters.values().rfind(|meter| meter.user == *user && meter.customer.is_some()).cloned()
    };
    let Some(meter) = paid else { return Ok(()) };
    let (Some(customer), key) = (meter.customer.clone(), MeterKey::of(&meter)) else { return Ok(()) };
    let owner = HoldId::parse(&format!("{}x1", FIRST_NUMBER + number)).unwrap();
    let (for_ms, work_ms) =
        world.with(|inner| (inner.dice.between(100, LEASE_MS_MAX), inner.dice.below(WORK_MS_MAX)));
    let now = world.clock(process);
    let Some(lease) = ledger.take_lease(&customer, &owner, now, now.plus_ms(for_ms)).await? else {
        world.saw("a lease was somebody else's");
        return Ok(());
    };
    if let Some((_, row)) = ledger.seal(&key, now).await?.filter(|(_, row)| row.customer == customer) {
        for pause_ms in [work_ms, 0] {
            if ledger.attempt(&key, &row, world.clock(process), lease.fence).await? == Attempt::Fenced {
                world.saw("an attempt was fenced");
            }
            sleep(Duration::from_millis(pause_ms)).await;
        }
    }
    if ledger.drop_lease(&lease).await? == ledger::Changed::No {
        world.saw("a lease was out of time, and somebody else's");
    }
    Ok(())
}

//! Holds the figures of a meter against each other: what its receipts come to, what it has settled and sealed, what became of its
//! rows, and what Stripe has counted. It names what does not agree, and repairs nothing.
//!
//! [`compare`] is pure. What is read for it is added up page by page, never kept.

use crate::{
    deps::Deps,
    meter::COUNTED_WITHIN_MS,
    rows::{self, MINUTE_MS, PAGES_MAX, PERIOD_MS_MAX, each_report},
    uninvoiced::Uninvoiced,
};
use domain::{CustomerId, Meter, Period, Report, RowFate, Timestamp, Tokens, UserId};
use futures_util::{StreamExt, stream::FuturesUnordered};
use ledger::{MeterKey, SHARDS, Store, StoreError, UserCursor};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};
use stripe::{CountError, Counted, Stripe};

const HOUR_MS: u64 = 60 * 60 * 1_000;
/// How far back meters are looked at, in milliseconds: 34 days, a day less than Stripe takes events for.
pub const WINDOW_MS: u64 = 34 * 24 * HOUR_MS;
/// How long after its period usage may be unsealed, in milliseconds: six hours, so that every run had its chance.
const SEALED_WITHIN_MS: u64 = 6 * HOUR_MS;
/// How often a meter is read that moves meanwhile.
const READS_MAX: u32 = 3;
/// How often a meter is looked at again that moved each time it was read, and after which pause.
const AGAIN_MAX: u32 = 2;
const AGAIN_PAUSE: Duration = Duration::from_secs(1);
/// Users that are looked at at a time.
const USERS_AT_ONCE_MAX: usize = 8;
/// Rows that are named of one equation.
const ROWS_NAMED_MAX: usize = 20;
/// Questions to Stripe in search of the rows that it lacks, for one meter.
const SEARCH_CALLS_MAX: u32 = 64;
/// Drifted meters that a run tells one by one, and meters that it names as moving or as not comparable.
pub const DRIFTS_TOLD_MAX: usize = 100;
/// Before the deadline, in calls that Stripe may take its time for, from when on no user is begun.
const RESERVED_CALLS: u32 = 6;

/// What must be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Equation {
    /// The receipts' sum is what is settled.
    ReceiptsSettled,
    /// What is settled is sealed, once it is the reporter's turn.
    SettledSealed,
    /// What is sealed is in report items or on its way.
    SealedReported,
    /// What the meter has as parked is in parked and forgiven items.
    ParkedItems,
    /// What the meter has as invoiced is in invoiced items.
    InvoicedItems,
    /// What was accepted is what Stripe has counted.
    AcceptedCounted,
}

/// A row, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowName {
    /// Its number in the meter.
    pub seq: u64,
    /// Its identifier at Stripe.
    pub identifier: String,
    /// Its tokens.
    pub tokens: u64,
    /// What became of it.
    pub fate: &'static str,
}

/// An equation that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Which.
    pub equation: Equation,
    /// Whose count, where it is Stripe's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// The left figure, in tokens: from and to, where it is not known to the token.
    pub left: (u64, u64),
    /// The right figure, in tokens: from and to.
    pub right: (u64, u64),
    /// The rows that it is about, as far as they can be named.
    pub rows: Vec<RowName>,
}

/// Tokens of a meter's report items by fate. The item of a row that is pending still is left out: the meter has not moved yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Items {
    /// Stripe has them.
    pub accepted: Tokens,
    /// An invoice item bills them.
    pub invoiced: Tokens,
    /// A person has to look.
    pub parked: Tokens,
    /// A person has looked.
    pub forgiven: Tokens,
}

/// What one customer must have at Stripe, and has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtStripe {
    /// Who.
    pub customer: CustomerId,
    /// Accepted so long ago that Stripe must have counted it.
    pub least: Tokens,
    /// Whatever Stripe can have counted: also what it took a moment ago, and what is on its way.
    pub most: Tokens,
    /// What it has counted.
    pub counted: Counted,
}

/// All figures of one meter, read while it did not move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The meter.
    pub meter: Meter,
    /// The sum of its receipts, but for those whose hold is open still.
    pub receipts: Tokens,
    /// Its report items.
    pub items: Items,
    /// Stripe's side, by customer. Empty where it says nothing: see [`Meter::mixed`].
    pub at_stripe: Vec<AtStripe>,
}

/// Holds the figures against each other. What is pending, or so young that Stripe may not have counted it, is no drift.
pub fn compare(figures: &Figures, now: Timestamp) -> Vec<Drift> {
    let Figures { meter, receipts, items, at_stripe } = figures;
    let pending = meter.pending.as_ref().map_or(Tokens::ZERO, |row| row.tokens);
    let reported: Tokens =
        [items.accepted, items.invoiced, items.parked, items.forgiven, pending].into_iter().sum();
    let stopped = [items.parked, items.forgiven].into_iter().sum();
    let exact = |equation, left: Tokens, right: Tokens| {
        let drift = Drift {
            equation,
            customer: None,
            left: (left.get(), left.get()),
            right: (right.get(), right.get()),
            rows: Vec::new(),
        };
        (left != right).then_some(drift)
    };
    let is_due = meter.customer.is_some() && (!meter.dirty || is_overdue(meter, now));
    let sealed = exact(Equation::SettledSealed, meter.settled, meter.sealed);
    let mut drifts: Vec<Drift> = [
        exact(Equation::ReceiptsSettled, *receipts, meter.settled),
        sealed.filter(|_| is_due || meter.sealed > meter.settled),
        exact(Equation::SealedReported, meter.sealed, reported),
        exact(Equation::ParkedItems, meter.parked, stopped),
        exact(Equation::InvoicedItems, meter.invoiced, items.invoiced),
    ]
    .into_iter()
    .flatten()
    .collect();
    for of in at_stripe {
        if of.counted.at_most < of.least || of.counted.at_least > of.most {
            drifts.push(Drift {
                equation: Equation::AcceptedCounted,
                customer: Some(of.customer.to_string()),
                left: (of.least.get(), of.most.get()),
                right: (of.counted.at_least.get(), of.counted.at_most.get()),
                rows: Vec::new(),
            });
        }
    }
    drifts
}

/// Whether every run since the period's end has left usage unsealed, and none is at it.
fn is_overdue(meter: &Meter, now: Timestamp) -> bool {
    meter.period.end().plus_ms(SEALED_WITHIN_MS) <= now && meter.pending.is_none()
}

/// What is known of one meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Everything agrees.
    Agrees,
    /// It moved each time it was read.
    Moving,
    /// Stripe's side could not be read, or not all of ours; the rest agrees.
    Unasked,
    /// What Stripe has counted says nothing about it, see [`Meter::mixed`]; the rest agrees.
    Incomparable,
    /// It does not agree.
    Drifted(Vec<Drift>),
}

/// One meter, looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkup {
    /// Which meter.
    pub key: MeterKey,
    /// What was found.
    pub finding: Finding,
    /// What it has that is on no invoice.
    pub uninvoiced: Option<Uninvoiced>,
}

/// What a run found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Users looked at.
    pub users: u64,
    /// Meters looked at.
    pub meters: u64,
    /// Meters whose figures do not agree.
    pub drifted: u64,
    /// Meters that moved each time they were read.
    pub moving: u64,
    /// Meters whose count at Stripe was not to be had.
    pub unasked: u64,
    /// Meters about which Stripe's count says nothing.
    pub incomparable: u64,
    /// Meters whose usage is on no invoice.
    pub uninvoiced: u64,
    /// Users whose meters could not be read.
    pub failed: u64,
    /// Shards whose users could not be listed to the end.
    pub shards_failed: u32,
    /// Calls to Stripe.
    pub calls: u64,
    /// The first meters whose figures do not agree, at most [`DRIFTS_TOLD_MAX`].
    #[serde(skip)]
    pub drifts: Vec<Checkup>,
    /// The first meters that moved, that are not comparable or whose usage is on no invoice, at most [`DRIFTS_TOLD_MAX`] of each.
    #[serde(skip)]
    pub others: Vec<Checkup>,
}

impl Checked {
    fn add(&mut self, checkup: Checkup) {
        let count = |number: &mut u64| {
            *number = number.saturating_add(1);
            usize::try_from(*number).is_ok_and(|number| number <= DRIFTS_TOLD_MAX)
        };
        let _: bool = count(&mut self.meters);
        let mut is_named = checkup.uninvoiced.is_some() && count(&mut self.uninvoiced);
        match &checkup.finding {
            Finding::Moving => is_named |= count(&mut self.moving),
            Finding::Incomparable => is_named |= count(&mut self.incomparable),
            Finding::Unasked => drop(count(&mut self.unasked)),
            Finding::Drifted(_) if count(&mut self.drifted) => return self.drifts.push(checkup),
            Finding::Agrees | Finding::Drifted(_) => {}
        }
        if is_named {
            self.others.push(checkup);
        }
    }

    /// Writes the run's one line.
    pub fn log(&self) {
        tracing::info!(
            users = self.users,
            meters = self.meters,
            drifted = self.drifted,
            moving = self.moving,
            unasked = self.unasked,
            incomparable = self.incomparable,
            uninvoiced = self.uninvoiced,
            failed = self.failed,
            shards_failed = self.shards_failed,
            calls = self.calls,
            "reconciled"
        );
    }
}

/// Where a run came to its end: the shard, and behind which user of it.
pub type Place = (u8, Option<UserCursor>);

/// The meters of one run.
pub struct Reconciling<'a, S> {
    deps: &'a Deps<S>,
    stripe: Stripe,
    calls: stripe::Pace,
    deadline: Timestamp,
    now: &'a (dyn Fn() -> Timestamp + Sync),
    window_ms: u64,
    pages_max: u32,
}

/// Accepted rows of one customer, added up.
#[derive(Clone, Copy, Default)]
struct Accepted {
    least: Tokens,
    most: Tokens,
}

impl<'a, S: Store> Reconciling<'a, S> {
    /// Reconciling that begins nothing when `deadline` is near.
    pub fn new(deps: &'a Deps<S>, deadline: Timestamp, now: &'a (dyn Fn() -> Timestamp + Sync)) -> Self {
        let calls = deps.pace.calls.counted_anew();
        let stripe = deps.stripe.clone().paced(calls.clone());
        Self { deps, stripe, calls, deadline, now, window_ms: WINDOW_MS, pages_max: PAGES_MAX }
    }

    /// The same, looking back so many milliseconds.
    #[must_use]
    pub fn within(self, window_ms: u64) -> Self {
        Self { window_ms, ..self }
    }

    /// The same, reading at most so many pages of one meter's receipts, and of its report items. A meter that has more is as one
    /// whose count at Stripe is not to be had.
    #[must_use]
    pub fn reading_at_most(self, pages_max: u32) -> Self {
        Self { pages_max, ..self }
    }

    pub(crate) fn deps(&self) -> &Deps<S> {
        self.deps
    }

    pub(crate) fn stripe(&self) -> &Stripe {
        &self.stripe
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.now)()
    }

    fn has_time(&self) -> bool {
        let one_ms = u64::try_from(self.stripe.call_timeout().as_millis()).unwrap_or(u64::MAX);
        self.deadline.ms_since((self.now)()) > one_ms.saturating_mul(u64::from(RESERVED_CALLS))
    }

    /// Every user's meters, from a place on; none: from the start. Answers also where time ran out; none: it did not.
    ///
    /// It cannot fail: whatever went wrong is logged where it happened, and counted.
    pub async fn all(&self, from: Option<Place>) -> (Checked, Option<Place>) {
        let (first, mut after) = from.unwrap_or((0, None));
        let mut checked = Checked::default();
        let mut stopped = None;
        for shard in first..SHARDS {
            match self.shard(shard, after.take(), &mut checked).await {
                Ok(None) => {}
                Ok(Some(place)) => {
                    stopped = Some(place);
                    break;
                }
                Err(error) => {
                    tracing::error!(error = edge::log::chain(&error), shard, "users could not be listed");
                    checked.shards_failed = checked.shards_failed.saturating_add(1);
                }
            }
        }
        checked.calls = self.calls.made();
        checked.log();
        (checked, stopped)
    }

    async fn shard(
        &self,
        shard: u8,
        mut after: Option<UserCursor>,
        checked: &mut Checked,
    ) -> Result<Option<Place>, StoreError> {
        // Bounded by the table: each page begins behind the last.
        loop {
            if !self.has_time() {
                return Ok(Some((shard, after)));
            }
            let page = self.deps.ledger.users(shard, after.as_ref()).await?;
            let mut working = FuturesUnordered::new();
            for user in &page.users {
                if !self.has_time() {
                    break;
                }
                after = Some(UserCursor::after(user));
                working.push(self.counted_user(user));
                if working.len() >= USERS_AT_ONCE_MAX
                    && let Some(found) = working.next().await
                {
                    checked.take(found);
                }
            }
            while let Some(found) = working.next().await {
                checked.take(found);
            }
            let is_looked_at = page.users.last().map(UserCursor::after) == after || page.users.is_empty();
            match page.next {
                None if is_looked_at => return Ok(None),
                Some(next) if is_looked_at => after = Some(next),
                None | Some(_) => return Ok(Some((shard, after))),
            }
        }
    }

    async fn counted_user(&self, user: &UserId) -> Option<Vec<Checkup>> {
        match self.user(user).await {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::error!(error = edge::log::chain(&error), %user, "a user could not be reconciled");
                None
            }
        }
    }

    /// The meters of one user whose period touches the time that is looked back at.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn user(&self, user: &UserId) -> Result<Vec<Checkup>, StoreError> {
        let since = Timestamp::from_ms((self.now)().ms().saturating_sub(self.window_ms));
        let from = Timestamp::from_ms(since.ms().saturating_sub(PERIOD_MS_MAX));
        let meters = self.deps.ledger.meters(user, from).await?;
        let mut found = Vec::new();
        for meter in meters.iter().filter(|meter| since < meter.period.end()) {
            let key = MeterKey::of(meter);
            let mut checkup = self.meter(&key).await?;
            for _ in 0..AGAIN_MAX {
                if checkup.finding != Finding::Moving || !self.has_time() {
                    break;
                }
                tokio::time::sleep(AGAIN_PAUSE).await;
                checkup = self.meter(&key).await?;
            }
            found.push(Checkup { uninvoiced: self.uninvoiced(meter).await, ..checkup });
        }
        Ok(found)
    }

    /// One meter; `Agrees` where there is none.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn meter(&self, key: &MeterKey) -> Result<Checkup, StoreError> {
        let mut finding = Finding::Moving;
        for _ in 0..READS_MAX {
            let Some(before) = self.deps.ledger.meter(key).await? else {
                finding = Finding::Agrees;
                break;
            };
            let is_mixed = before.mixed;
            let Some((figures, asked)) = self.figures(key, before).await? else {
                tracing::warn!(user = %key.user, period = %key.period_start, "a meter has more than can be read");
                finding = Finding::Unasked;
                break;
            };
            let mut drifts = compare(&figures, (self.now)());
            let after = self.deps.ledger.meter(key).await?;
            if after.as_ref() != Some(&figures.meter) {
                continue;
            }
            self.name_rows(key, &figures, &mut drifts).await?;
            finding = match (drifts.is_empty(), asked) {
                (false, _) => Finding::Drifted(drifts),
                (true, false) => Finding::Unasked,
                (true, true) if is_mixed => Finding::Incomparable,
                (true, true) => Finding::Agrees,
            };
            break;
        }
        if let Finding::Drifted(drifts) = &finding {
            tracing::error!(user = %key.user, period = %key.period_start, ?drifts, "the figures do not agree");
        }
        Ok(Checkup { key: key.clone(), finding, uninvoiced: None })
    }

    /// All figures, and whether Stripe said its own; none: there is more than can be read.
    async fn figures(&self, key: &MeterKey, meter: Meter) -> Result<Option<(Figures, bool)>, StoreError> {
        let Some(receipts) = self.receipts(key, &meter).await? else { return Ok(None) };
        let (mut items, mut accepted) = (Items::default(), BTreeMap::<CustomerId, Accepted>::new());
        if let Some(customer) = &meter.customer {
            accepted.entry(customer.clone()).or_default();
        }
        let young = Timestamp::from_ms((self.now)().ms().saturating_sub(COUNTED_WITHIN_MS));
        if let Some(row) = meter.pending.as_ref().filter(|row| row.first_attempt_at.is_some()) {
            let of = accepted.entry(row.customer.clone()).or_default();
            of.most = of.most.saturating_add(row.tokens);
        }
        let all = each_report(&self.deps.ledger, key, self.pages_max, |report| {
            if meter.pending.as_ref().is_some_and(|row| row.seq == report.seq) {
                return;
            }
            match report.fate {
                RowFate::Accepted => {
                    items.accepted = items.accepted.saturating_add(report.tokens);
                    let of = accepted.entry(report.customer.clone()).or_default();
                    of.most = of.most.saturating_add(report.tokens);
                    if report.at <= young {
                        of.least = of.least.saturating_add(report.tokens);
                    }
                }
                RowFate::Invoiced => items.invoiced = items.invoiced.saturating_add(report.tokens),
                RowFate::Parked => items.parked = items.parked.saturating_add(report.tokens),
                RowFate::Forgiven => items.forgiven = items.forgiven.saturating_add(report.tokens),
                RowFate::Retried => {}
            }
        })
        .await?;
        if !all {
            return Ok(None);
        }
        let (mut at_stripe, mut asked) = (Vec::new(), true);
        if !meter.mixed {
            // What an earlier meter has in this one's time is no drift of this one.
            for stranger in rows::strangers(&self.deps.ledger, &meter).await? {
                if let Some(of) = accepted.get_mut(&stranger.customer) {
                    of.most = of.most.saturating_add(stranger.tokens);
                    if stranger.accepted_at.is_some_and(|at| at <= young) {
                        of.least = of.least.saturating_add(stranger.tokens);
                    }
                }
            }
            for (customer, Accepted { least, most }) in accepted {
                match self.stripe.counted(&self.deps.meter.id, &customer, meter.period).await {
                    Ok(counted) => at_stripe.push(AtStripe { customer, least, most, counted }),
                    Err(error) => {
                        tracing::warn!(error = edge::log::chain(&error), user = %key.user, %customer,
                            "Stripe's count is not to be had");
                        asked = false;
                    }
                }
            }
        }
        Ok(Some((Figures { meter, receipts, items, at_stripe }, asked)))
    }

    /// The sum of a meter's receipts, but for those whose hold is open: what they say is not on the meter yet. None: there are more
    /// than can be read.
    async fn receipts(&self, key: &MeterKey, meter: &Meter) -> Result<Option<Tokens>, StoreError> {
        let (mut sum, mut before) = (Tokens::ZERO, None);
        for _ in 0..self.pages_max {
            let of = Some(key.period_start);
            let page = self.deps.ledger.receipts(&key.user, of, before.as_ref()).await?;
            let done = page.receipts.iter().filter(|receipt| !meter.holds.contains_key(&receipt.id));
            sum = sum.saturating_add(done.map(|receipt| receipt.charged).sum());
            before = page.next;
            if before.is_none() {
                return Ok(Some(sum));
            }
        }
        Ok(None)
    }

    /// Names the rows that each drift is about: where it is Stripe's count, those that Stripe lacks or has otherwise; where it is
    /// about items, the items.
    async fn name_rows(
        &self,
        key: &MeterKey,
        figures: &Figures,
        drifts: &mut [Drift],
    ) -> Result<(), StoreError> {
        for drift in drifts {
            drift.rows = match drift.equation {
                Equation::ReceiptsSettled | Equation::SettledSealed => Vec::new(),
                Equation::SealedReported => self.rows(key, |_| true).await?,
                Equation::ParkedItems => {
                    self.rows(key, |fate| matches!(fate, RowFate::Parked | RowFate::Forgiven)).await?
                }
                Equation::InvoicedItems => self.rows(key, |fate| fate == RowFate::Invoiced).await?,
                Equation::AcceptedCounted => {
                    let of = |at: &&AtStripe| drift.customer.as_deref() == Some(at.customer.as_str());
                    match figures.at_stripe.iter().find(of) {
                        Some(at) => {
                            let rows = self.otherwise_counted(key, &figures.meter, &at.customer).await?;
                            rows.into_iter().map(|(row, _)| row).collect()
                        }
                        None => Vec::new(),
                    }
                }
            };
        }
        Ok(())
    }

    /// The newest report items of some fates.
    async fn rows(&self, key: &MeterKey, of: impl Fn(RowFate) -> bool) -> Result<Vec<RowName>, StoreError> {
        let mut rows = Vec::new();
        each_report(&self.deps.ledger, key, self.pages_max, |report| {
            if of(report.fate) && rows.len() < ROWS_NAMED_MAX {
                rows.push(RowName::of(report));
            }
        })
        .await?;
        Ok(rows)
    }

    /// The accepted rows of minutes in which Stripe has counted otherwise, each with what it has counted in its minute; found by
    /// halving, for Stripe tells the sum of any minutes. Rows that are too young to be counted are left out.
    pub(crate) async fn otherwise_counted(
        &self,
        key: &MeterKey,
        meter: &Meter,
        customer: &CustomerId,
    ) -> Result<Vec<(RowName, Tokens)>, StoreError> {
        let minutes = self.minutes(key, meter, customer).await?;
        let mut found = Vec::new();
        let mut todo = vec![minutes.as_slice()];
        let mut calls = 0;
        while let Some(some) = todo.pop() {
            let (Some(from), Some(to)) = (some.first(), some.last()) else { continue };
            let Some(asked) = Period::new(from.start, to.start.plus_ms(MINUTE_MS)) else { continue };
            if calls >= SEARCH_CALLS_MAX || found.len() >= ROWS_NAMED_MAX {
                break;
            }
            calls += 1;
            let counted = match self.stripe.counted(&self.deps.meter.id, customer, asked).await {
                Ok(counted) => counted.at_least,
                Err(
                    error @ (CountError::Unavailable(_) | CountError::Refused(_) | CountError::NoTokens(_)),
                ) => {
                    tracing::warn!(%error, %customer, "the rows that Stripe lacks could not be searched for");
                    break;
                }
            };
            let least: Tokens = some.iter().map(|minute| minute.least).sum();
            let most: Tokens = some.iter().map(|minute| minute.most).sum();
            if least <= counted && counted <= most {
                continue;
            }
            if some.len() == 1 {
                found.extend(some.iter().flat_map(|minute| &minute.rows).map(|row| (row.clone(), counted)));
            } else {
                let (early, late) = some.split_at(some.len() / 2);
                todo.extend([late, early]);
            }
        }
        found.truncate(ROWS_NAMED_MAX);
        Ok(found)
    }

    /// The accepted rows of a customer by the minute of their events. In memory: a month of hourly rows is 750. Those of an earlier
    /// meter are counted with them, and not named: they are that meter's.
    async fn minutes(
        &self,
        key: &MeterKey,
        meter: &Meter,
        customer: &CustomerId,
    ) -> Result<Vec<Minute>, StoreError> {
        let young = Timestamp::from_ms((self.now)().ms().saturating_sub(COUNTED_WITHIN_MS));
        let mut minutes = BTreeMap::<u64, Minute>::new();
        each_report(&self.deps.ledger, key, self.pages_max, |report| {
            if report.fate == RowFate::Accepted && report.customer == *customer {
                let minute = Minute::of(&mut minutes, report.timestamp);
                if minute.count(report.tokens, report.at <= young) {
                    minute.rows.push(RowName::of(report));
                }
            }
        })
        .await?;
        for stranger in rows::strangers(&self.deps.ledger, meter).await? {
            if stranger.customer == *customer {
                let is_old = stranger.accepted_at.is_some_and(|at| at <= young);
                let _: bool = Minute::of(&mut minutes, stranger.timestamp).count(stranger.tokens, is_old);
            }
        }
        Ok(minutes.into_values().collect())
    }
}

/// The accepted rows of one minute.
struct Minute {
    start: Timestamp,
    least: Tokens,
    most: Tokens,
    rows: Vec<RowName>,
}

impl Minute {
    fn of(minutes: &mut BTreeMap<u64, Self>, at: Timestamp) -> &mut Self {
        let start_ms = at.ms() - at.ms() % MINUTE_MS;
        minutes.entry(start_ms).or_insert_with(|| Self {
            start: Timestamp::from_ms(start_ms),
            least: Tokens::ZERO,
            most: Tokens::ZERO,
            rows: Vec::new(),
        })
    }

    /// Counts a row; answers whether Stripe must have counted it.
    fn count(&mut self, tokens: Tokens, is_old: bool) -> bool {
        self.most = self.most.saturating_add(tokens);
        if is_old {
            self.least = self.least.saturating_add(tokens);
        }
        is_old
    }
}

impl Checked {
    fn take(&mut self, found: Option<Vec<Checkup>>) {
        self.users = self.users.saturating_add(1);
        match found {
            None => self.failed = self.failed.saturating_add(1),
            Some(found) => found.into_iter().for_each(|checkup| self.add(checkup)),
        }
    }
}

impl RowName {
    fn of(report: &Report) -> Self {
        Self {
            seq: report.seq,
            identifier: report.identifier.clone(),
            tokens: report.tokens.get(),
            fate: fate_name(report.fate),
        }
    }
}

/// A fate's name, for people.
pub const fn fate_name(fate: RowFate) -> &'static str {
    match fate {
        RowFate::Accepted => "accepted",
        RowFate::Invoiced => "invoiced",
        RowFate::Parked => "parked",
        RowFate::Forgiven => "forgiven",
        RowFate::Retried => "retried",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Account, Opening, PlanId, ReportRow};

    const START: Timestamp = Timestamp::from_s(1_800_000_000);

    fn t(tokens: u32) -> Tokens {
        Tokens::from_u32(tokens)
    }

    fn customer() -> CustomerId {
        CustomerId::parse("cus_1").unwrap()
    }

    /// 100 tokens settled: 60 accepted, 5 invoiced, 4 parked, 1 forgiven, 30 on their way.
    fn figures() -> Figures {
        let user = UserId::parse("user_1").unwrap();
        let account = Account::first_seen(user, PlanId::parse("pro").unwrap(), START);
        let mut meter = Opening::first(account, START).unwrap().meter;
        meter.customer = Some(customer());
        (meter.settled, meter.sealed, meter.parked, meter.invoiced) = (t(100), t(100), t(5), t(5));
        meter.dirty = true;
        meter.pending = Some(ReportRow {
            seq: 4,
            customer: customer(),
            identifier: "user_1-1-4".into(),
            tokens: t(30),
            timestamp: START,
            first_attempt_at: Some(START),
            last_attempt_at: Some(START),
            fence: 1,
        });
        let items = Items { accepted: t(60), invoiced: t(5), parked: t(4), forgiven: t(1) };
        let counted = Counted { at_least: t(60), at_most: t(60) };
        let at_stripe = vec![AtStripe { customer: customer(), least: t(60), most: t(90), counted }];
        Figures { meter, receipts: t(100), items, at_stripe }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Figures), expected: &[Equation]) {
        let mut figures = figures();
        change(&mut figures);
        let found: Vec<_> = compare(&figures, START).into_iter().map(|drift| drift.equation).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn i2_figures_that_agree_are_no_drift_whatever_is_on_its_way() {
        check(|_| {}, &[]);
        let counted = |least: u32, most: u32| Counted { at_least: t(least), at_most: t(most) };
        for (least, most) in [(60, 90), (90, 90), (0, 60), (90, 500), (75, 75)] {
            check(|figures| figures.at_stripe[0].counted = counted(least, most), &[]);
        }
        check(|figures| figures.at_stripe.clear(), &[]);
    }

    #[test]
    fn i2_each_equation_is_told_apart() {
        check(|figures| figures.receipts = t(99), &[Equation::ReceiptsSettled]);
        check(|figures| figures.items.accepted = t(59), &[Equation::SealedReported]);
        check(|figures| figures.meter.parked = t(4), &[Equation::ParkedItems]);
        check(|figures| figures.meter.invoiced = t(6), &[Equation::InvoicedItems]);
        let counted = |tokens: u32| Counted { at_least: t(tokens), at_most: t(tokens) };
        check(|figures| figures.at_stripe[0].counted = counted(59), &[Equation::AcceptedCounted]);
        check(|figures| figures.at_stripe[0].counted = counted(91), &[Equation::AcceptedCounted]);
        check(|figures| figures.meter.pending = None, &[Equation::SealedReported]);
    }

    #[test]
    fn i2_usage_that_is_not_sealed_is_drift_once_nobody_will_seal_it() {
        let unsealed = |figures: &mut Figures| {
            (figures.meter.settled, figures.receipts) = (t(110), t(110));
        };
        check(unsealed, &[]);
        let lost_mark = |figures: &mut Figures| {
            unsealed(figures);
            figures.meter.dirty = false;
        };
        check(lost_mark, &[Equation::SettledSealed]);
        let nobodys = |figures: &mut Figures| {
            lost_mark(figures);
            figures.meter.customer = None;
        };
        check(nobodys, &[]);
        let too_much = |figures: &mut Figures| {
            (figures.meter.settled, figures.receipts) = (t(90), t(90));
        };
        check(too_much, &[Equation::SettledSealed]);
        let mut old = figures();
        unsealed(&mut old);
        old.meter.pending = None;
        old.items.accepted = t(90);
        let six_hours_on = old.meter.period.end().plus_ms(SEALED_WITHIN_MS);
        let found = |now| compare(&old, now).into_iter().map(|drift| drift.equation).collect::<Vec<_>>();
        assert_eq!(found(Timestamp::from_ms(six_hours_on.ms() - 1)), []);
        assert_eq!(found(six_hours_on), [Equation::SettledSealed]);
    }

    #[test]
    fn a_drift_says_both_figures() {
        let mut figures = figures();
        figures.at_stripe[0].counted = Counted { at_least: t(10), at_most: t(20) };
        let drift = compare(&figures, START).pop().unwrap();
        assert_eq!((drift.left, drift.right), ((60, 90), (10, 20)));
        assert_eq!(drift.customer.as_deref(), Some("cus_1"));
    }
}

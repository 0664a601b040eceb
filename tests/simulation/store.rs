//! The store as a process reaches it: over a network that loses, delays and repeats.

use crate::simulation::{
    bugs::Bug,
    commit::{self, at_once},
    scenario::Mishap,
    world::{Process, Step, World},
};
use domain::{
    AccountChange, Admission, Attempt, Billing, Claim, ClaimState, CustomerId, Day, Denial, Digest, EventId,
    HoldId, Lease, Level, Meter, Opening, Pool, Receipt, Release, Report, ReportRow, RowFate, Seal,
    SliceAnswer, SliceAsk, Timestamp, Tokens, UserId,
};
use futures_util::FutureExt;
use ledger::{
    AdmitAnswer, AdmitFailure, Changed, Cursor, Fault, Loaded, MeterKey, Page, ReceiptCursor, ReceiptPage,
    ReportCursor, ReportPage, SHARDS, Store, StoreError, UserCursor, UserPage,
};
use std::{future::pending, sync::Arc, time::Duration};
use tokio::time::sleep;

/// After how long an answer that does not come is given up, in milliseconds.
const GIVEN_UP_MS: u64 = 1_200;
/// How much later than that a write may still land, in milliseconds: shortly, or much later.
const LATE_MS_MAX: [u64; 3] = [5_000, 20 * 60_000, 100 * 60_000];

/// After how long a look for a stop that failed is made again, in milliseconds.
const LOOK_EVERY_MS: u64 = 1_000;

#[derive(Clone)]
pub(crate) struct SimStore {
    world: Arc<World>,
    process: Arc<Process>,
}

/// A look for a stop, whose time counts even if nobody waits for its end.
struct Look<'a> {
    world: &'a World,
    id: &'a HoldId,
    begun_ms: u64,
    more_ms: u64,
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        let took_ms = self.world.ms() - self.begun_ms + self.more_ms;
        self.world.with(|inner| {
            if inner.journal.stops.contains_key(self.id) {
                *inner.journal.looks.entry(self.id.clone()).or_default() += took_ms;
            }
        });
    }
}

/// An error, and whether the write may have been made or may yet be.
struct Failed {
    error: StoreError,
    may_land: bool,
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// What the network makes of a call.
enum Way {
    Through,
    Refused(Fault),
    LostBefore,
    LostAfter,
    Late(u64),
}

impl SimStore {
    pub(crate) fn new(world: &Arc<World>, process: &Arc<Process>) -> Self {
        Self { world: Arc::clone(world), process: Arc::clone(process) }
    }

    fn way(&self, operation: &str, writes: bool) -> Way {
        let world = &self.world;
        // Some seeds are about a store that fails the reporter above all, or claims.
        let harder = if self.process.name.starts_with("reporter") {
            world.scenario.reporter_harder
        } else if operation.ends_with("claim") {
            world.scenario.claims_harder
        } else {
            1
        };
        if world.store_is_down() {
            world.saw("store: down");
            return Way::LostBefore;
        }
        if world.happens_more(Mishap::StoreLostBefore, harder) {
            Way::LostBefore
        } else if world.happens_more(Mishap::StoreLostAfter, harder) {
            Way::LostAfter
        } else if world.happens_more(Mishap::StoreThrottled, harder) {
            Way::Refused(Fault::Throttled)
        } else if writes && world.happens_more(Mishap::StoreConflict, harder) {
            Way::Refused(Fault::Conflict)
        } else if writes && world.happens_more(Mishap::StoreLate, harder) {
            Way::Late(world.with(|inner| {
                let most_ms = inner.dice.pick(&LATE_MS_MAX);
                inner.dice.below(most_ms)
            }))
        } else {
            Way::Through
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        writes: bool,
        effect: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let world = &self.world;
        let step = world.step(&self.process, operation).await;
        let failed = |fault, may_land| Failed { error: StoreError::new(operation, fault), may_land };
        let outcome = match self.way(operation, writes) {
            Way::Through => Ok(effect(world)),
            Way::Refused(fault) => Err(failed(fault, false)),
            Way::LostBefore => Err(failed(Fault::Unanswered, true)),
            Way::LostAfter => {
                drop(effect(world));
                Err(failed(Fault::Unanswered, true))
            }
            Way::Late(after_ms) => {
                let late = Arc::clone(world);
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a request on its way; it ends with the simulation"
                )]
                tokio::spawn(async move {
                    sleep(Duration::from_millis(GIVEN_UP_MS)).await;
                    let on_its_way = sleep(Duration::from_millis(after_ms));
                    if operation == "drop row" {
                        // At the worst moment, if there is one: when the next row is pending.
                        tokio::select! {
                            biased;
                            () = late.sealed.notified() => {}
                            () = on_its_way => {}
                        }
                    } else {
                        on_its_way.await;
                    }
                    late.trace(|| format!("late: {operation}"));
                    drop(effect(&late));
                });
                Err(failed(Fault::Unanswered, true))
            }
        };
        if let Err(Failed { error, .. }) = &outcome {
            self.process.note_failure();
            world.trace(|| format!("{}: {operation} fails: {error}", self.process.name));
        }
        if matches!(step, Step::DiesAfter) {
            pending::<()>().await;
        }
        match &outcome {
            Err(Failed { may_land: true, .. }) => sleep(Duration::from_millis(GIVEN_UP_MS)).await,
            Ok(_) | Err(_) => world.travel().await,
        }
        outcome
    }

    /// Whether the store takes no answer for this claim, however often it is tried.
    fn cannot_keep(&self, owner: &HoldId) -> bool {
        if let Some(unkept) = self.world.with(|inner| inner.journal.unkept.get(owner).copied()) {
            return unkept;
        }
        let unkept = self.world.happens(Mishap::AnswerUnkept);
        self.world.with(|inner| inner.journal.unkept.insert(owner.clone(), unkept));
        unkept
    }

    /// Notes that a hold's end may be lost for want of a store.
    fn note_failed_end<T>(&self, id: &HoldId, outcome: &Result<T, Failed>) {
        if outcome.is_err() && self.process.name.starts_with("generate") {
            self.world.with(|inner| *inner.journal.failed_ends.entry(id.clone()).or_default() += 1);
        }
    }
}

impl Store for SimStore {
    async fn load(&self, user: &UserId) -> Result<Option<Loaded>, StoreError> {
        // A `Query` is no snapshot: the account may have been read before a change, and the meter after it.
        let torn = self.world.happens(Mishap::StoreTornRead);
        let (account, meter) = {
            let kept = self.world.store.kept();
            let account = kept.accounts.get(user).filter(|_| torn).cloned();
            let key = account.as_ref().map(|account| key_of(user, account.current));
            (account, key.and_then(|key| kept.meters.get(&key)).cloned())
        };
        if torn && self.world.with(|inner| inner.dice.in_thousand(500)) {
            // The other way round: the meter before a change, and the account after it. Where that points to another meter,
            // the table's store reads it anew.
            let user = user.clone();
            let load = move |world: &World| {
                let kept = world.store.kept();
                let account = kept.accounts.get(&user)?.clone();
                let meter = match meter.filter(|meter| meter.period.start() == account.current) {
                    Some(meter) => meter,
                    None => kept.meters[&key_of(&user, account.current)].clone(),
                };
                Some(Loaded { account, meter })
            };
            return Ok(self.call("load", false, load).await?);
        }
        let user = user.clone();
        let load = move |world: &World| match account {
            Some(account) => {
                let key = key_of(&user, account.current);
                let meter = world.store.kept().meters[&key].clone();
                Some(Loaded { account, meter })
            }
            None => world.store.load(&user).now_or_never().unwrap().unwrap(),
        };
        Ok(self.call("load", false, load).await?)
    }

    async fn meter(&self, key: &MeterKey) -> Result<Option<Meter>, StoreError> {
        let key = key.clone();
        let meter = move |world: &World| world.store.meter(&key).now_or_never().unwrap().unwrap();
        Ok(self.call("read meter", false, meter).await?)
    }

    async fn open(&self, opening: &Opening) -> Result<Changed, StoreError> {
        let opening = opening.clone();
        Ok(self.call("open", true, move |world| commit::open(world, &opening)).await?)
    }

    async fn change_account(&self, change: &AccountChange) -> Result<Changed, StoreError> {
        let change = change.clone();
        Ok(self.call("change account", true, move |world| commit::change_account(world, &change)).await?)
    }

    async fn admit(&self, admission: &Admission) -> Result<AdmitAnswer, AdmitFailure> {
        loop {
            let sent = admission.clone();
            let failed = match self.call("admit", true, move |world| commit::admit(world, &sent)).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if !failed.may_land {
                return Err(AdmitFailure::NotWritten(failed.error));
            }
            match self.world.bug {
                Some(Bug::AdmissionRetried) => {}
                Some(Bug::AdmissionUnconfirmed) => {
                    let key = MeterKey { user: admission.user.clone(), period_start: admission.period_start };
                    let meter = self.world.store.kept().meters.get(&key).cloned();
                    let Some(mut meter) = meter else { return Err(AdmitFailure::Unknown(failed.error)) };
                    meter.apply_admission(admission);
                    return Ok(AdmitAnswer::Admitted(Box::new(meter)));
                }
                _ => return Err(AdmitFailure::Unknown(failed.error)),
            }
        }
    }

    async fn put_receipt(&self, receipt: &Receipt) -> Result<Receipt, StoreError> {
        let (id, receipt) = (receipt.id.clone(), receipt.clone());
        let outcome = self.call("put receipt", true, move |world| commit::put_receipt(world, &receipt)).await;
        self.note_failed_end(&id, &outcome);
        Ok(outcome?)
    }

    async fn receipt(&self, key: &MeterKey, id: &HoldId) -> Result<Option<Receipt>, StoreError> {
        let (key, id) = (key.clone(), id.clone());
        let read = move |world: &World| commit::receipt(world, &key, &id);
        Ok(self.call("read receipt", false, read).await?)
    }

    async fn release(&self, release: &Release) -> Result<Changed, StoreError> {
        let release = release.clone();
        Ok(self.call("release", true, move |world| commit::release(world, &release)).await?)
    }

    async fn seal(&self, key: &MeterKey, seal: &Seal) -> Result<Changed, StoreError> {
        let (key, seal) = (key.clone(), seal.clone());
        Ok(self.call("seal", true, move |world| commit::seal(world, &key, &seal)).await?)
    }

    async fn note_attempt(
        &self,
        key: &MeterKey,
        seq: u64,
        at: Timestamp,
        fence: u64,
    ) -> Result<Attempt, StoreError> {
        let key = key.clone();
        let note = move |world: &World| commit::note_attempt(world, &key, seq, at, fence);
        Ok(self.call("note attempt", true, note).await?)
    }

    async fn put_report(
        &self,
        key: &MeterKey,
        row: &ReportRow,
        fate: RowFate,
        at: Timestamp,
        note: Option<&str>,
    ) -> Result<RowFate, StoreError> {
        let (key, row, note) = (key.clone(), row.clone(), note.map(str::to_owned));
        let put = move |world: &World| commit::put_report(world, &key, &row, fate, at, note.as_deref());
        Ok(self.call("put report", true, put).await?)
    }

    async fn report(&self, key: &MeterKey, seq: u64) -> Result<Option<Report>, StoreError> {
        let key = key.clone();
        let read = move |world: &World| at_once(world.store.report(&key, seq));
        Ok(self.call("read report", false, read).await?)
    }

    async fn forgive(
        &self,
        key: &MeterKey,
        seq: u64,
        at: Timestamp,
        note: &str,
    ) -> Result<Changed, StoreError> {
        let (key, note) = (key.clone(), note.to_owned());
        let forgive = move |world: &World| commit::forgive(world, &key, seq, at, &note);
        Ok(self.call("forgive", true, forgive).await?)
    }

    async fn retry(
        &self,
        key: &MeterKey,
        seq: u64,
        row: &ReportRow,
        at: Timestamp,
    ) -> Result<Changed, StoreError> {
        let (key, row) = (key.clone(), row.clone());
        let retry = move |world: &World| commit::retry(world, &key, seq, &row, at);
        Ok(self.call("retry report", true, retry).await?)
    }

    async fn reject(
        &self,
        key: &MeterKey,
        seq: u64,
        tokens: Tokens,
        at: Timestamp,
        note: &str,
    ) -> Result<Changed, StoreError> {
        let (key, note) = (key.clone(), note.to_owned());
        let reject = move |world: &World| commit::reject(world, &key, seq, tokens, at, &note);
        Ok(self.call("reject report", true, reject).await?)
    }

    async fn import(
        &self,
        key: &MeterKey,
        receipt: &Receipt,
        report: &Report,
        billing: Billing,
    ) -> Result<Changed, StoreError> {
        let (key, receipt, report) = (key.clone(), receipt.clone(), report.clone());
        let import = move |world: &World| commit::import(world, &key, &receipt, &report, billing);
        Ok(self.call("import", true, import).await?)
    }

    async fn drop_row(&self, key: &MeterKey, row: &ReportRow, fate: RowFate) -> Result<Changed, StoreError> {
        let (key, row) = (key.clone(), row.clone());
        Ok(self.call("drop row", true, move |world| commit::drop_row(world, &key, &row, fate)).await?)
    }

    async fn clear(&self, key: &MeterKey) -> Result<Changed, StoreError> {
        let key = key.clone();
        Ok(self.call("clear", true, move |world| commit::clear(world, &key)).await?)
    }

    /// One page for all that an index that lags shows. The paging itself is the contract suite's.
    async fn dirty(&self, shard: u8, _from: Option<&Cursor>) -> Result<Page, StoreError> {
        let page = move |world: &World| {
            let ms = world.ms();
            let (mut keys, mut lags) = (Vec::new(), false);
            world.with(|inner| {
                for (key, mark) in &mut inner.journal.index {
                    let (shown, lagging) = mark.at(ms);
                    let here = shard == shard_of(key);
                    keys.extend((shown && here).then(|| key.clone()));
                    lags |= lagging && here;
                }
            });
            if lags {
                world.saw("the index of dirty meters lagged");
            }
            Page { keys, next: None }
        };
        Ok(self.call("list dirty", false, page).await?)
    }

    async fn users(&self, shard: u8, from: Option<&UserCursor>) -> Result<UserPage, StoreError> {
        let from = from.cloned();
        let list = move |world: &World| at_once(world.store.users(shard, from.as_ref()));
        Ok(self.call("list users", false, list).await?)
    }

    async fn meters(&self, user: &UserId, from: Timestamp) -> Result<Vec<Meter>, StoreError> {
        let user = user.clone();
        let list = move |world: &World| at_once(world.store.meters(&user, from));
        Ok(self.call("list meters", false, list).await?)
    }

    async fn receipts(
        &self,
        user: &UserId,
        of: Option<Timestamp>,
        before: Option<&ReceiptCursor>,
    ) -> Result<ReceiptPage, StoreError> {
        let (user, before) = (user.clone(), before.cloned());
        let list = move |world: &World| at_once(world.store.receipts(&user, of, before.as_ref()));
        Ok(self.call("list receipts", false, list).await?)
    }

    async fn reports(
        &self,
        user: &UserId,
        of: Option<Timestamp>,
        before: Option<&ReportCursor>,
    ) -> Result<ReportPage, StoreError> {
        let (user, before) = (user.clone(), before.cloned());
        let list = move |world: &World| at_once(world.store.reports(&user, of, before.as_ref()));
        Ok(self.call("list reports", false, list).await?)
    }

    async fn put_denial(&self, denial: &Denial) -> Result<Changed, StoreError> {
        let denial = denial.clone();
        let put = move |world: &World| at_once(world.store.put_denial(&denial));
        Ok(self.call("put denial", true, put).await?)
    }

    async fn denials(&self, user: &UserId, period_start: Timestamp) -> Result<Vec<Denial>, StoreError> {
        let user = user.clone();
        let list = move |world: &World| at_once(world.store.denials(&user, period_start));
        Ok(self.call("list denials", false, list).await?)
    }

    async fn put_event(
        &self,
        id: &EventId,
        kind: &str,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> Result<Changed, StoreError> {
        let (id, kind) = (id.clone(), kind.to_owned());
        let put = move |world: &World| at_once(world.store.put_event(&id, &kind, at, forget_at));
        Ok(self.call("put event", true, put).await?)
    }

    async fn event(&self, id: &EventId) -> Result<bool, StoreError> {
        let id = id.clone();
        let read = move |world: &World| at_once(world.store.event(&id));
        Ok(self.call("read event", false, read).await?)
    }

    async fn take_lease(
        &self,
        customer: &CustomerId,
        owner: &HoldId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        let (customer, owner) = (customer.clone(), owner.clone());
        let take = move |world: &World| commit::take_lease(world, &customer, &owner, now, until);
        Ok(self.call("take lease", true, take).await?)
    }

    async fn drop_lease(&self, lease: &Lease) -> Result<Changed, StoreError> {
        let lease = lease.clone();
        let give_back = move |world: &World| commit::drop_lease(world, &lease);
        Ok(self.call("drop lease", true, give_back).await?)
    }

    async fn lease_slice(&self, ask: &SliceAsk) -> Result<SliceAnswer, StoreError> {
        let ask = *ask;
        let lease = move |world: &World| at_once(world.store.lease_slice(&ask));
        Ok(self.call("lease slice", true, lease).await?)
    }

    async fn note_told(&self, day: Day, pool: Pool, level: Level) -> Result<Changed, StoreError> {
        let note = move |world: &World| at_once(world.store.note_told(day, pool, level));
        Ok(self.call("note level told", true, note).await?)
    }

    async fn put_claim(&self, claim: &Claim, now: Timestamp) -> Result<Option<Claim>, StoreError> {
        let claim = claim.clone();
        let put = move |world: &World| commit::put_claim(world, &claim, now);
        Ok(self.call("put claim", true, put).await?)
    }

    async fn change_claim(&self, claim: &Claim, owner: &HoldId) -> Result<Changed, StoreError> {
        if matches!(claim.state, ClaimState::Ended { .. }) && self.cannot_keep(owner) {
            self.process.note_failure();
            return Err(StoreError::new("change claim", Fault::Throttled));
        }
        let (claim, owner) = (claim.clone(), owner.clone());
        let change = move |world: &World| commit::change_claim(world, &claim, &owner);
        Ok(self.call("change claim", true, change).await?)
    }

    async fn drop_claim(&self, claim: &Claim) -> Result<Changed, StoreError> {
        let dropped = claim.clone();
        let drop = move |world: &World| commit::drop_claim(world, &dropped);
        let outcome = self.call("drop claim", true, drop).await;
        if matches!(outcome, Err(Failed { may_land: true, .. })) {
            self.world.with(|inner| inner.journal.late_drops.push(claim.clone()));
        }
        Ok(outcome?)
    }

    async fn claim(&self, user: &UserId, key: Digest) -> Result<Option<Claim>, StoreError> {
        let user = user.clone();
        let read = move |world: &World| at_once(world.store.claim(&user, key));
        Ok(self.call("read claim", false, read).await?)
    }

    async fn put_stop(&self, user: &UserId, id: &HoldId, forget_at: Timestamp) -> Result<(), StoreError> {
        let (user, id) = (user.clone(), id.clone());
        let put = move |world: &World| commit::put_stop(world, &user, &id, forget_at);
        Ok(self.call("put stop", true, put).await?)
    }

    async fn is_stopped(&self, user: &UserId, id: &HoldId) -> Result<bool, StoreError> {
        let (user, wanted) = (user.clone(), id.clone());
        let read = move |world: &World| commit::is_stopped(world, &user, &wanted);
        let mut look = Look { world: &self.world, id, begun_ms: self.world.ms(), more_ms: 0 };
        let answer = self.call("read stop", false, read).await;
        look.more_ms = if answer.is_err() { LOOK_EVERY_MS } else { 0 };
        drop(look);
        Ok(answer?)
    }
}

fn key_of(user: &UserId, period_start: Timestamp) -> MeterKey {
    MeterKey { user: user.clone(), period_start }
}

/// Which shard does not matter here, as long as it is always the same.
fn shard_of(key: &MeterKey) -> u8 {
    let sum = key.user.as_str().bytes().fold(0_u8, u8::wrapping_add);
    sum % SHARDS
}

//! The protocols: in which order the port's writes are made, what a refused condition leads to, and how often anything
//! is tried. A crash between any two writes leaves something that a later run finds and finishes.
//!
//! Source: docs/ARCHITECTURE.md, "One request", "One crash" and "One report"; the orders are those of a model whose every interleaving was
//! explored. Change the model first.

use crate::{
    cache::Cache,
    page::{Cursor, Page},
    store::{AdmitAnswer, AdmitFailure, Changed, Fault, Loaded, MeterKey, Store, StoreError},
};
use domain::{
    Account, AccountChange, Admission, AdmitRequest, Attempt, Demand, FailedCalls, Hold, HoldId, HoldRef,
    HoldSize, Meter, ModelPrice, NanoUsd, Opening, Period, Placement, Plan, Plans, Receipt, Refusal,
    ReportRow, RowFate, Timestamp, Tokens, Usage, UserId,
};
use std::{sync::Arc, time::Duration};

/// How often one request may be decided: stale facts, lost races and lost answers each cost one.
pub(crate) const DECISIONS_MAX: u32 = 12;
/// How many expired holds one admission sweeps before it decides again. The rest is the hourly run's.
const SWEPT_BY_ADMIT_MAX: usize = 8;
/// How many rate windows that are too old to matter one admission removes. There is seldom more than one, but every
/// instance that remembers a user may leave one behind, and an expression has 4 KB.
const FORGOTTEN_BY_ADMIT_MAX: usize = 16;
/// How often one settling write is tried, beyond the store's own retries: for minutes, which are longer than any function has.
/// What was served is not given up before its function's time runs out; the pump says when.
const SETTLE_TRIES_MAX: u32 = 200;
/// How often one write of a sweep, or of taking back an admission, is tried: somebody is waiting, or a later run does it.
pub(crate) const SWEEP_TRIES_MAX: u32 = 6;
/// How often a reporter's write is decided anew when somebody else changed what it read.
pub(crate) const REPORT_TRIES_MAX: u32 = 4;
/// The pause before the second try, in milliseconds; it doubles with each further one.
const PAUSE_MS: u64 = 25;

/// The ledger: the protocols over one store. Clones share its cache.
#[derive(Clone)]
pub struct Ledger<S> {
    pub(crate) store: S,
    plans: Arc<Plans>,
    pub(crate) cache: Cache,
}

/// The store cannot answer, so nobody may spend: a 503, never a 402 or 429.
#[derive(Debug, thiserror::Error)]
#[error("the ledger is unavailable")]
pub struct Unavailable(#[from] pub StoreError);

/// Why a request was not admitted. It consumed nothing.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// A limit refused it.
    #[error("a limit refused the request")]
    Refused {
        /// Which, and what helps.
        refusal: Refusal,
        /// The start of the period that it would have been charged to.
        period_start: Timestamp,
    },
    /// Nobody can say whether a limit would have.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why an account was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The plan is not one of those on offer.
    #[error("there is no plan {0}")]
    UnknownPlan(domain::PlanId),
    /// The store cannot answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why a user's own cap was not set.
#[derive(Debug, thiserror::Error)]
pub enum CapError {
    /// It lies below what is used and held, and nobody has said that this is meant.
    #[error("the cap lies below what is used and held")]
    BelowUsed {
        /// The cap, in tokens.
        cap: Tokens,
        /// Tokens of the period that are charged.
        settled: Tokens,
        /// Tokens that requests under way hold besides.
        held: Tokens,
    },
    /// The store cannot answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What a request used is known, and could not be stored. The hold's expiry sweeps it, uncharged: this is money lost,
/// so it is logged as an error with everything in it.
#[derive(Debug, thiserror::Error)]
#[error("the receipt {id} of {user} over {tokens} tokens could not be stored", id = receipt.id, user = receipt.user,
    tokens = receipt.charged)]
pub struct SettleError {
    /// The receipt as it should have been, or as it stands without its meter having moved.
    pub receipt: Box<Receipt>,
    /// Why.
    #[source]
    pub source: StoreError,
}

/// A hold that is open: tokens reserved for one request. It must be settled or voided; if neither happens its expiry
/// sweeps it, uncharged.
#[derive(Debug)]
#[must_use = "an open hold keeps its tokens from everybody until it is settled or voided"]
pub struct OpenHold {
    admission: Admission,
    clamped: bool,
    loaded: Loaded,
    failed_calls: FailedCalls,
}

impl OpenHold {
    /// Its id, which its receipt will have.
    pub fn id(&self) -> &HoldId {
        &self.admission.id
    }

    /// Whose tokens.
    pub fn user(&self) -> &UserId {
        &self.admission.user
    }

    /// What it reserves; `output` is the cap to call the provider with.
    pub fn size(&self) -> HoldSize {
        self.admission.size
    }

    /// Whether the answer's cap is lower than was asked for, because the user's cap is near.
    pub fn clamped(&self) -> bool {
        self.clamped
    }

    /// The hold as stored.
    pub fn hold(&self) -> &Hold {
        &self.admission.hold
    }

    /// The period that is charged.
    pub fn period(&self) -> Period {
        self.loaded.meter.period
    }

    /// Where it is, and where its receipt will be.
    pub fn reference(&self) -> HoldRef {
        HoldRef { period_start: self.admission.period_start, id: self.admission.id.clone() }
    }

    /// Notes a call to the provider that did not become an answer, and the most that it can have cost; none: it cost
    /// nothing. Its receipt will say so.
    pub fn note_failed_call(&mut self, cost_most: Option<NanoUsd>) {
        self.failed_calls.add(cost_most);
    }

    /// The account and meter as they were when it was admitted.
    pub fn standing(&self) -> (&Account, &Meter) {
        (&self.loaded.account, &self.loaded.meter)
    }
}

/// A user's standing: account, plan in force and current meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The account.
    pub account: Account,
    /// Its plan.
    pub plan: Plan,
    /// The meter of the current period; an empty one where nothing was admitted in it yet.
    pub meter: Meter,
}

/// What trying to send a parked row again came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// Its tokens are in this row now, which is pending.
    Yes(ReportRow),
    /// It is not parked, or there is none.
    NotParked,
    /// Another row is on its way: try again once that one has ended.
    RowPending,
}

/// What one round of deciding came to.
enum Round {
    Admitted(Box<OpenHold>),
    Refused(Refusal, Timestamp),
    /// Decide again, from these facts if there are any.
    Again(Option<Box<Facts>>),
}

/// An account and meter, and whether they are the truth of this moment or only remembered.
struct Facts {
    loaded: Loaded,
    fresh: bool,
}

impl Facts {
    fn fresh(loaded: Loaded) -> Box<Self> {
        Box::new(Self { loaded, fresh: true })
    }
}

/// What one request asks of the ledger, the same in every round.
struct Ask<'a> {
    user: &'a UserId,
    demand: &'a Demand,
    price: &'a ModelPrice,
    hold_ms: u64,
    now: Timestamp,
}

impl<S: Store> Ledger<S> {
    /// The ledger that `store` keeps, under these plans.
    pub fn new(store: S, plans: Plans) -> Self {
        Self { store, plans: Arc::new(plans), cache: Cache::new() }
    }

    /// The plans in force.
    pub fn plans(&self) -> &Plans {
        &self.plans
    }

    /// Admits one request or says which limit refuses it.
    ///
    /// One conditional write when the facts are remembered, a read before it when they are not. Each write is sent
    /// once, under an id of its own from `new_id`; one whose answer is lost is voided before the next is tried.
    /// `hold_ms` is how long the hold lives: longer than anything can still work on the request.
    ///
    /// # Errors
    /// The limit's refusal, or that the store cannot answer.
    pub async fn admit(
        &self,
        user: &UserId,
        demand: &Demand,
        price: &ModelPrice,
        hold_ms: u64,
        new_id: &(dyn Fn() -> HoldId + Send + Sync),
        now: Timestamp,
    ) -> Result<OpenHold, AdmitError> {
        let ask = Ask { user, demand, price, hold_ms, now };
        let mut facts = self.cache.get(user).map(|loaded| Box::new(Facts { loaded, fresh: false }));
        for tried in 0..DECISIONS_MAX {
            let round = match facts.take() {
                Some(facts) => self.decide(&ask, *facts, new_id()).await?,
                None => Round::Again(Some(Facts::fresh(self.load_or_create(user, now).await?))),
            };
            match round {
                Round::Admitted(hold) => return Ok(*hold),
                Round::Refused(refusal, period_start) => {
                    return Err(AdmitError::Refused { refusal, period_start });
                }
                Round::Again(next) => facts = next,
            }
            if tried > DECISIONS_MAX / 2 {
                pause(tried - DECISIONS_MAX / 2).await;
            }
        }
        Err(Unavailable(StoreError::new("admit", Fault::Contended)).into())
    }

    async fn decide(&self, ask: &Ask<'_>, facts: Facts, id: HoldId) -> Result<Round, Unavailable> {
        let Facts { loaded: Loaded { account, meter }, fresh } = facts;
        // A `Query` is no snapshot: account and meter may have been read before and after a change.
        if meter.closed || meter.rev != account.rev {
            return Ok(Round::Again(None));
        }
        match domain::place(&account, &meter, ask.now) {
            Placement::Current => {}
            Placement::OutOfCalendar => return Err(StoreError::new("place", Fault::Corrupt).into()),
            Placement::Open(_) if !fresh => return Ok(Round::Again(None)),
            Placement::Open(opening) => return self.roll_over(*opening).await,
        }
        let period_start = meter.period.start();
        let plan = self.plan_of(&account)?;
        let expires_at = ask.now.plus_ms(ask.hold_ms);
        let request = AdmitRequest { id, demand: *ask.demand, expires_at };
        let cost_most = |size: HoldSize| ask.price.cost_most(size.prompt, size.output);
        match domain::admit(&account, plan, &meter, &request, cost_most, ask.now) {
            // What is remembered may hold what was long given back: nothing is refused or reduced on its word.
            Err(_) if !fresh => Ok(Round::Again(None)),
            Ok(admission) if !fresh && is_reduced(&admission, ask.demand) => Ok(Round::Again(None)),
            // Nobody waits, or is given less, for tokens that nobody works on any more.
            Ok(admission)
                if is_reduced(&admission, ask.demand) && self.swept_some(&meter, ask.now).await? =>
            {
                Ok(Round::Again(None))
            }
            Ok(admission) => self.write(account, admission, ask).await,
            Err(refusal @ (Refusal::QuotaHeld { .. } | Refusal::Concurrency { .. })) => {
                let swept = self.swept_some(&meter, ask.now).await?;
                Ok(if swept { Round::Again(None) } else { Round::Refused(refusal, period_start) })
            }
            Err(refusal @ (Refusal::PastDue { .. } | Refusal::Quota { .. } | Refusal::Rate { .. })) => {
                Ok(Round::Refused(refusal, period_start))
            }
        }
    }

    /// Sweeps holds that expired; false: there is none.
    async fn swept_some(&self, meter: &Meter, now: Timestamp) -> Result<bool, StoreError> {
        let expired = meter.expired(now);
        let key = MeterKey::of(meter);
        let some = !expired.is_empty();
        for (id, hold) in expired.into_iter().take(SWEPT_BY_ADMIT_MAX) {
            // `No`: somebody else swept it. Either way it is gone.
            let _: Changed = self.sweep_one(&key, id, &hold, now).await?;
        }
        Ok(some)
    }

    async fn write(
        &self,
        account: Account,
        mut admission: Admission,
        ask: &Ask<'_>,
    ) -> Result<Round, Unavailable> {
        // What stays is removed by later ones: each adds one window at most.
        admission.forget.truncate(FORGOTTEN_BY_ADMIT_MAX);
        match self.store.admit(&admission).await {
            Ok(AdmitAnswer::Admitted(meter)) => {
                let loaded = Loaded { account, meter: *meter };
                self.cache.put(loaded.clone());
                let clamped = admission.size.output < ask.demand.output_most;
                Ok(Round::Admitted(Box::new(OpenHold {
                    admission,
                    clamped,
                    loaded,
                    failed_calls: FailedCalls::default(),
                })))
            }
            // The condition's answer is the meter of this moment; the account is too if both have one `rev`.
            Ok(AdmitAnswer::Stale(Some(meter))) if meter.rev == account.rev && !meter.closed => {
                Ok(Round::Again(Some(Facts::fresh(Loaded { account, meter: *meter }))))
            }
            Ok(AdmitAnswer::Stale(_)) => Ok(Round::Again(None)),
            Err(AdmitFailure::NotWritten(error)) => match error.fault {
                Fault::Throttled | Fault::Conflict => {
                    tracing::warn!(%error, user = %ask.user, "admission not written; trying again");
                    pause(1).await;
                    Ok(Round::Again(None))
                }
                Fault::Unanswered | Fault::Rejected | Fault::Corrupt | Fault::Contended => Err(error.into()),
            },
            Err(AdmitFailure::Unknown(error)) => {
                tracing::warn!(%error, user = %ask.user, id = %admission.id, "admission unanswered; voiding it");
                self.void_admission(&admission, ask.now).await?;
                Ok(Round::Again(None))
            }
        }
    }

    async fn roll_over(&self, opening: Opening) -> Result<Round, Unavailable> {
        Ok(match self.store.open(&opening).await {
            Ok(Changed::Yes) => {
                let Opening { account, meter, .. } = opening;
                Round::Again(Some(Facts::fresh(Loaded { account, meter })))
            }
            Ok(Changed::No) => Round::Again(None),
            Err(error) if error.fault == Fault::Conflict => Round::Again(None),
            Err(error) => return Err(error.into()),
        })
    }

    async fn load_or_create(&self, user: &UserId, now: Timestamp) -> Result<Loaded, Unavailable> {
        for tried in 0..DECISIONS_MAX {
            if let Some(loaded) = self.store.load(user).await? {
                return Ok(loaded);
            }
            let account = self.first_seen(user, now);
            let opening = first_opening(account, now)?;
            match self.store.open(&opening).await {
                Ok(Changed::Yes) => {
                    return Ok(Loaded { account: opening.account, meter: opening.meter });
                }
                // Somebody else saw the user first.
                Ok(Changed::No) => {}
                Err(error) if error.fault == Fault::Conflict => pause(tried).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Unavailable(StoreError::new("create account", Fault::Contended)))
    }

    pub(crate) fn plan_of(&self, account: &Account) -> Result<&Plan, Unavailable> {
        self.plans.get(&account.plan).ok_or_else(|| {
            let missing =
                format!("account {} is on plan {}, which is not configured", account.user, account.plan);
            Unavailable(StoreError::new("find plan", Fault::Corrupt).because(missing))
        })
    }

    /// Settles a request by what it used: puts its receipt, then moves its meter. Repeating either is harmless; a
    /// crash between them is finished by the sweeper.
    ///
    /// The answer is the receipt that stands, which is another than expected only where the hold had expired and was
    /// swept first.
    ///
    /// # Errors
    /// When the store did not take both within the bound; the hold's expiry then decides.
    pub async fn settle(
        &self,
        hold: OpenHold,
        usage: Usage,
        price: &ModelPrice,
        now: Timestamp,
    ) -> Result<Receipt, SettleError> {
        let OpenHold { admission: Admission { user, period_start, id, hold, .. }, failed_calls, .. } = hold;
        let receipt = Receipt::settled(user, period_start, (id, &hold), usage, price, now);
        self.put_and_release(receipt.after(failed_calls), &hold).await
    }

    /// Takes back a request that was never served: nothing is charged, its rate slot is given back. What the calls for it can
    /// have cost is the owner's.
    ///
    /// # Errors
    /// As [`Ledger::settle`].
    pub async fn void(&self, hold: OpenHold, now: Timestamp) -> Result<(), SettleError> {
        let OpenHold { admission: Admission { user, period_start, id, hold, .. }, failed_calls, .. } = hold;
        let receipt = Receipt::void(user, period_start, id, now);
        self.put_and_release(receipt.after(failed_calls), &hold).await.map(drop)
    }

    async fn put_and_release(&self, receipt: Receipt, hold: &Hold) -> Result<Receipt, SettleError> {
        let lost = |receipt: &Receipt, source| SettleError { receipt: Box::new(receipt.clone()), source };
        let standing = insistently(SETTLE_TRIES_MAX, || self.store.put_receipt(&receipt))
            .await
            .map_err(|e| lost(&receipt, e))?;
        if standing.outcome != receipt.outcome {
            tracing::warn!(user = %receipt.user, id = %receipt.id, tokens = receipt.charged.get(),
                "the hold had been released before: the receipt that was first stands");
        }
        let release = standing.release(hold);
        // `No` means that the hold is gone: whoever released it moved the meter by this same receipt.
        let _: Changed = insistently(SETTLE_TRIES_MAX, || self.store.release(&release))
            .await
            .map_err(|e| lost(&standing, e))?;
        Ok(standing)
    }

    /// Undoes an admission that may have been written or may yet be: with the void receipt in place, whoever finds
    /// its hold releases it uncharged, whenever that is.
    async fn void_admission(&self, admission: &Admission, now: Timestamp) -> Result<(), Unavailable> {
        let (user, id) = (admission.user.clone(), admission.id.clone());
        let receipt = Receipt::void(user, admission.period_start, id, now);
        let standing = insistently(SWEEP_TRIES_MAX, || self.store.put_receipt(&receipt)).await?;
        let release = standing.release(&admission.hold);
        let _: Changed = insistently(SWEEP_TRIES_MAX, || self.store.release(&release)).await?;
        Ok(())
    }

    /// A user's standing. Creates the account of a first-seen user, and nothing else: a period in which nothing was
    /// admitted yet shows as an empty meter.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn standing(&self, user: &UserId, now: Timestamp) -> Result<Standing, Unavailable> {
        let Loaded { account, meter } = self.load_or_create(user, now).await?;
        let plan = self.plan_of(&account)?.clone();
        Ok(match domain::place(&account, &meter, now) {
            Placement::Open(opening) => Standing { account: opening.account, plan, meter: opening.meter },
            Placement::Current => Standing { account, plan, meter },
            Placement::OutOfCalendar => return Err(StoreError::new("place", Fault::Corrupt).into()),
        })
    }

    /// A user's account, or what it would be if the user were seen for the first time now. Creates nothing.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn account(&self, user: &UserId, now: Timestamp) -> Result<Account, Unavailable> {
        let loaded = self.store.load(user).await?;
        Ok(loaded.map_or_else(|| self.first_seen(user, now), |loaded| loaded.account))
    }

    pub(crate) fn first_seen(&self, user: &UserId, now: Timestamp) -> Account {
        Account::first_seen(user.clone(), self.plans.first().id.clone(), now)
    }

    /// Changes a user's account, and the meter it points to with it; creates the account if there is none. `change`
    /// is asked again when somebody else changed the account first; none: there is nothing to change.
    ///
    /// # Errors
    /// When the new plan is unknown, or the store cannot answer.
    pub async fn change_account(
        &self,
        user: &UserId,
        now: Timestamp,
        change: impl Fn(&Account) -> Option<Account> + Send + Sync,
    ) -> Result<Account, ChangeError> {
        for tried in 0..DECISIONS_MAX {
            let loaded = self.store.load(user).await.map_err(Unavailable)?;
            let written = if let Some(Loaded { account, meter }) = loaded {
                // A `Query` is no snapshot: what of the meter follows must follow from the meter of this account.
                if meter.closed || meter.rev != account.rev {
                    pause(tried).await;
                    continue;
                }
                let Some(after) = change(&account) else { return Ok(account) };
                self.is_on_offer(&after)?;
                let change = AccountChange::new(account, after, &meter);
                self.store.change_account(&change).await.map(|changed| (changed, change.after))
            } else {
                // Created as it will be, so that the first period is the subscription's own.
                let new = self.first_seen(user, now);
                let account = change(&new).unwrap_or(new);
                self.is_on_offer(&account)?;
                let opening = first_opening(account, now)?;
                self.store.open(&opening).await.map(|changed| (changed, opening.account))
            };
            match written {
                Ok((Changed::Yes, account)) => return Ok(account),
                Ok((Changed::No, _)) => {}
                Err(error) if error.fault == Fault::Conflict => pause(tried).await,
                Err(error) => return Err(Unavailable(error).into()),
            }
        }
        Err(Unavailable(StoreError::new("change account", Fault::Contended)).into())
    }

    pub(crate) fn is_on_offer(&self, account: &Account) -> Result<(), ChangeError> {
        let plan = &account.plan;
        self.plans.get(plan).map(drop).ok_or_else(|| ChangeError::UnknownPlan(plan.clone()))
    }

    /// A page of the dirty meters of one shard.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn dirty(&self, shard: u8, from: Option<Cursor>) -> Result<Page, StoreError> {
        self.store.dirty(shard, from.as_ref()).await
    }

    /// Releases every hold of a meter that expired: by its receipt where it has one, else by one that charges nothing.
    /// Answers how many.
    ///
    /// # Errors
    /// When the store cannot answer; what was swept before stays swept.
    pub async fn sweep(&self, key: &MeterKey, now: Timestamp) -> Result<u32, StoreError> {
        let Some(meter) = self.store.meter(key).await? else { return Ok(0) };
        let mut swept = 0;
        for (id, hold) in meter.expired(now) {
            swept += u32::from(self.sweep_one(key, id, &hold, now).await? == Changed::Yes);
        }
        Ok(swept)
    }

    pub(crate) async fn sweep_one(
        &self,
        key: &MeterKey,
        id: HoldId,
        hold: &Hold,
        now: Timestamp,
    ) -> Result<Changed, StoreError> {
        let receipt = Receipt::swept(key.user.clone(), key.period_start, (id, hold), now);
        let standing = insistently(SWEEP_TRIES_MAX, || self.store.put_receipt(&receipt)).await?;
        let release = standing.release(hold);
        insistently(SWEEP_TRIES_MAX, || self.store.release(&release)).await
    }

    /// The row to report, and the meter as it was read with it: the pending one, or one just sealed from everything
    /// settled. None: there is nothing to report.
    ///
    /// # Errors
    /// When the store cannot answer, or somebody else went on sealing first.
    pub async fn seal(
        &self,
        key: &MeterKey,
        now: Timestamp,
    ) -> Result<Option<(Meter, ReportRow)>, StoreError> {
        for _ in 0..REPORT_TRIES_MAX {
            let Some(mut meter) = self.store.meter(key).await? else { return Ok(None) };
            if let Some(row) = meter.pending.clone() {
                return Ok(Some((meter, row)));
            }
            let Some(seal) = domain::seal(&meter, now) else { return Ok(None) };
            if self.store.seal(key, &seal).await? == Changed::Yes && meter.apply_seal(&seal) {
                return Ok(Some((meter, seal.row)));
            }
        }
        Err(StoreError::new("seal", Fault::Contended))
    }

    /// Notes that a row is about to be sent under the lease of this fence (0: under none). If it was noted before, by another run
    /// or by a write of our own whose answer was lost, it may be sent all the same: under its one identifier Stripe counts it
    /// once.
    ///
    /// # Errors
    /// When the store cannot answer; the row must then not be sent.
    pub async fn attempt(
        &self,
        key: &MeterKey,
        row: &ReportRow,
        now: Timestamp,
        fence: u64,
    ) -> Result<Attempt, StoreError> {
        self.store.note_attempt(key, row.seq, now, fence).await
    }

    /// Ends a row: its report item is put, then it is dropped from the meter.
    ///
    /// # Errors
    /// When the store cannot answer; a repeat finishes it.
    pub async fn finish(
        &self,
        key: &MeterKey,
        row: &ReportRow,
        fate: RowFate,
        now: Timestamp,
        note: Option<&str>,
    ) -> Result<(), StoreError> {
        let standing = self.store.put_report(key, row, fate, now, note).await?;
        let _: Changed = self.store.drop_row(key, row, standing).await?;
        Ok(())
    }

    /// Clears a meter's dirty mark, if there is nothing to do.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn clear(&self, key: &MeterKey) -> Result<bool, StoreError> {
        Ok(self.store.clear(key).await? == Changed::Yes)
    }
}

pub(crate) fn first_opening(account: Account, now: Timestamp) -> Result<Opening, Unavailable> {
    Opening::first(account, now).ok_or_else(|| Unavailable(StoreError::new("create account", Fault::Corrupt)))
}

/// Whether less than the full demand is reserved.
fn is_reduced(admission: &Admission, demand: &Demand) -> bool {
    let full = HoldSize { prompt: demand.prompt_most, output: demand.output_most };
    admission.size != full
}

/// Tries a write that is harmless to repeat until the store takes it, a bounded number of times: fewer where the store says
/// that it will not take it, none where what it keeps makes no sense.
pub(crate) async fn insistently<T, F>(tries_max: u32, write: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut tried = 0;
    loop {
        match write().await {
            Err(error) if tried + 1 < tries_max_of(error.fault, tries_max) => {
                tracing::warn!(%error, tried, "a settling write failed; trying again");
                pause(tried).await;
                tried += 1;
            }
            answer => return answer,
        }
    }
}

fn tries_max_of(fault: Fault, tries_max: u32) -> u32 {
    match fault {
        Fault::Unanswered | Fault::Throttled | Fault::Conflict | Fault::Contended => tries_max,
        Fault::Rejected => tries_max.min(SWEEP_TRIES_MAX),
        Fault::Corrupt => 0,
    }
}

pub(crate) async fn pause(tried: u32) {
    tokio::time::sleep(Duration::from_millis(PAUSE_MS << tried.min(6))).await;
}

//! One meter: sweep, seal, send or reconcile, accept or park, clear. Each step is in the ledger before the next begins, so
//! that a crash between any two leaves a row that the next run finds and finishes.
//!
//! Stripe is only ever asked about a customer under that customer's lease: it takes one call at a time for each. Whoever is too
//! slow for his lease is stopped by its fence, which each attempt at a row is noted under.

use crate::{
    counts::Report,
    deps::Deps,
    late::{self, Way},
    price::LatePrice,
};
use bus::{AboutRow, Announcement};
use domain::{
    Attempt, Billing, CustomerId, InvoiceItemId, Lease, Meter, NextStep, ReportRow, RowFate, Timestamp,
    Tokens, Verdict,
};
use ledger::{MeterKey, Store, StoreError};
use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};
use stripe::{InvoiceError, MeterEvent, NewInvoiceItem, SendError, Sent, Stripe};

/// What the item of a row says that the flat price of its period covers.
const FLAT_NOTE: &str = "covered by the flat price of the billing that was adopted";
/// How often a row is sent in one run, always under its own identifier.
const SENDS_MAX: u32 = 3;
/// How often one meter is sealed in one run: once, and once more for what was settled meanwhile.
const ROUNDS_MAX: u32 = 2;
/// How often a lease is asked for that somebody has: he may be about to give it back.
const LEASE_TRIES_MAX: u32 = 3;
/// How long a lease lasts, in milliseconds: longer than all calls for one row take in the usual case.
pub(crate) const LEASE_MS: u64 = 120_000;
/// Within how long Stripe's count has what Stripe took, in milliseconds: an hour.
pub(crate) const COUNTED_WITHIN_MS: u64 = 60 * 60 * 1_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// From when on the owner is told of a row that does not end, after its first attempt, in milliseconds: a day.
pub const STUCK_MS: u64 = DAY_MS;
/// Rows that one run tells to be stuck; the others are in the log.
const STUCK_TOLD_MAX: u32 = 100;
/// Calls that there must be time for before the deadline, and on a lease, for one to be made: the two that one question can
/// take, each of which may take as long as Stripe's client lets it.
const RESERVED_CALLS: u32 = 2;
/// The same for a meter to be begun: the ledger's writes come on top.
const RESERVED_CALLS_BEGIN: u32 = 3;

/// Whether a row is off its meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Accepted, invoiced or parked.
    Gone,
    /// It stays for a later run.
    Stays,
    /// It stays with whoever has its customer's lease.
    Leased,
}

/// Whether a row has its invoice item.
enum Looked {
    /// It has this one, of so many US cents.
    There(InvoiceItemId, u64),
    Missing,
    NotNow,
    /// Stripe refuses for good to say so.
    Refused(String),
}

/// What became of a late row.
enum Billed {
    /// So many US cents are on this item; none: they come to nothing.
    Now(u64, Option<InvoiceItemId>),
    NotNow,
    /// It cannot be billed so.
    Refused(String),
}

/// What the calls for one row came to.
enum Delivery {
    Delivered(Sent),
    Refused(String),
    Stays,
}

/// A row, the meter that it was read with, and the lease under which it is brought to its end.
pub(crate) struct Case<'a> {
    pub(crate) key: &'a MeterKey,
    pub(crate) meter: &'a Meter,
    pub(crate) row: &'a ReportRow,
    pub(crate) lease: &'a Lease,
}

/// The meters of one run.
pub struct Reporting<'a, S> {
    pub(crate) deps: &'a Deps<S>,
    pub(crate) stripe: Stripe,
    calls: stripe::Pace,
    deadline: Timestamp,
    pub(crate) now: &'a (dyn Fn() -> Timestamp + Sync),
    /// The only customer whose rows are sent; none: everybody's are.
    only: Option<CustomerId>,
    /// Stripe refuses every event: nothing more is sent in this run.
    refuses_all: AtomicBool,
    /// How this installation is set up was complained of: that is said once.
    complained: AtomicBool,
    /// Rows that were told to be stuck.
    stuck_told: AtomicU32,
}

impl<'a, S: Store> Reporting<'a, S> {
    /// Reporting that begins nothing when `deadline` is near.
    pub fn new(deps: &'a Deps<S>, deadline: Timestamp, now: &'a (dyn Fn() -> Timestamp + Sync)) -> Self {
        let calls = deps.pace.calls.counted_anew();
        let stripe = deps.stripe.clone().paced(calls.clone());
        Self {
            deps,
            stripe,
            calls,
            deadline,
            now,
            only: None,
            refuses_all: AtomicBool::new(false),
            complained: AtomicBool::new(false),
            stuck_told: AtomicU32::new(0),
        }
    }

    /// The same, but no other customer's rows are sent.
    #[must_use]
    pub fn only(self, customer: CustomerId) -> Self {
        Self { only: Some(customer), ..self }
    }

    /// The same, but no call to Stripe may take longer than this.
    #[must_use]
    pub fn calls_within(self, most: Duration) -> Self {
        let most = most.min(self.stripe.call_timeout());
        Self { stripe: self.stripe.clone().timeout(most), ..self }
    }

    /// Whether there is time to begin a meter.
    pub fn has_time(&self) -> bool {
        self.left_ms() > self.calls_ms(RESERVED_CALLS_BEGIN)
    }

    /// Calls to Stripe that were made, of whatever kind.
    pub fn calls(&self) -> u64 {
        self.calls.made()
    }

    fn left_ms(&self) -> u64 {
        self.deadline.ms_since((self.now)())
    }

    /// Whether there is time for a call, and for those that follow from it at once.
    pub(crate) fn may_call(&self, lease: &Lease) -> bool {
        self.left_ms().min(lease.until.ms_since((self.now)())) > self.calls_ms(RESERVED_CALLS)
    }

    fn calls_ms(&self, calls: u32) -> u64 {
        let one_ms = u64::try_from(self.stripe.call_timeout().as_millis()).unwrap_or(u64::MAX);
        one_ms.saturating_mul(u64::from(calls))
    }

    /// Brings one meter as far as it goes.
    pub async fn meter(&self, key: &MeterKey) -> Report {
        let mut report = Report { meters: 1, ..Report::default() };
        match self.rounds(key, &mut report).await {
            Ok(End::Gone | End::Leased) => {}
            Ok(End::Stays) => report.failed = 1,
            Err(error) => {
                report.failed = 1;
                tracing::error!(error = edge::log::chain(&error), user = %key.user, period = %key.period_start,
                    "a meter could not be reported");
            }
        }
        report
    }

    async fn rounds(&self, key: &MeterKey, report: &mut Report) -> Result<End, StoreError> {
        let ledger = &self.deps.ledger;
        for _ in 0..ROUNDS_MAX {
            report.swept += ledger.sweep(key, (self.now)()).await?;
            let Some((_, row)) = ledger.seal(key, (self.now)()).await? else { break };
            report.sealed += 1;
            if self.only.as_ref().is_some_and(|only| *only != row.customer) {
                return Ok(End::Stays);
            }
            match self.row(key, &row, report).await? {
                End::Gone => {}
                End::Leased => return Ok(End::Leased),
                End::Stays => {
                    self.tell_if_stuck(key, row.seq, report).await?;
                    return Ok(End::Stays);
                }
            }
        }
        report.cleared += u32::from(ledger.clear(key).await?);
        Ok(End::Gone)
    }

    /// Brings one row to its end, under its customer's lease.
    async fn row(&self, key: &MeterKey, row: &ReportRow, report: &mut Report) -> Result<End, StoreError> {
        if self.refuses_all.load(Ordering::Relaxed) {
            return Ok(End::Stays);
        }
        let Some(lease) = self.take_lease(&row.customer).await? else {
            tracing::info!(user = %key.user, customer = %row.customer, "somebody else is at this customer");
            report.leased += 1;
            return Ok(End::Leased);
        };
        let end = self.leased(key, row.seq, &lease, report).await;
        // What is not given back runs out.
        if let Err(error) = self.deps.ledger.drop_lease(&lease).await {
            tracing::warn!(error = edge::log::chain(&error), customer = %row.customer, "a lease was not given back");
        }
        end
    }

    /// Reads the row again, under the lease, before Stripe is asked anything: whoever had the lease before may have sent it a
    /// moment ago.
    async fn leased(
        &self,
        key: &MeterKey,
        seq: u64,
        lease: &Lease,
        report: &mut Report,
    ) -> Result<End, StoreError> {
        let meter = self.deps.ledger.meter(key).await?;
        let row = meter.as_ref().and_then(|meter| meter.pending.as_ref());
        let (Some(meter), Some(row)) = (&meter, row.filter(|row| row.seq == seq)) else {
            tracing::info!(user = %key.user, seq, "another run has ended this row");
            return Ok(End::Stays);
        };
        Box::pin(self.under_lease(&Case { key, meter, row, lease }, report)).await
    }

    /// Tells the owner of a row that no run has brought to its end for a day. Only a run tells, not everybody who asks for one
    /// customer's rows.
    async fn tell_if_stuck(&self, key: &MeterKey, seq: u64, report: &mut Report) -> Result<(), StoreError> {
        if self.only.is_some() {
            return Ok(());
        }
        let meter = self.deps.ledger.meter(key).await?;
        let row = meter.and_then(|meter| meter.pending).filter(|row| row.seq == seq);
        let is_stuck = |since: &Timestamp| (self.now)().ms_since(*since) > STUCK_MS;
        let since = row.as_ref().and_then(|row| row.first_attempt_at).filter(is_stuck);
        let Some((row, since)) = row.zip(since) else { return Ok(()) };
        report.stuck += 1;
        tracing::error!(user = %key.user, customer = %row.customer, identifier = row.identifier,
            tokens = row.tokens.get(), %since, "a report does not end; a person has to look");
        if self.stuck_told.fetch_add(1, Ordering::Relaxed) < STUCK_TOLD_MAX {
            let about = AboutRow { user: key.user.clone(), row };
            self.deps.bus.announce(&[Announcement::Stuck { about, since }]).await;
        }
        Ok(())
    }

    /// The lease of a customer; none: somebody else has it.
    async fn take_lease(&self, customer: &CustomerId) -> Result<Option<Lease>, StoreError> {
        let owner = (self.deps.new_id)();
        for tried in 1..=LEASE_TRIES_MAX {
            let now = (self.now)();
            let until = now.plus_ms(LEASE_MS);
            if let Some(lease) = self.deps.ledger.take_lease(customer, &owner, now, until).await? {
                return Ok(Some(lease));
            }
            if tried < LEASE_TRIES_MAX {
                self.pause(tried).await;
            }
        }
        Ok(None)
    }

    async fn under_lease(&self, of: &Case<'_>, report: &mut Report) -> Result<End, StoreError> {
        if self.has_ended(of).await? {
            return Ok(End::Gone);
        }
        let item = Way::Item { since: of.meter.period.end() };
        let way = match late::invoices_from(of.meter.period, (self.now)()) {
            _ if of.meter.billing == Billing::Flat => return self.forgo(of, report).await,
            _ if of.meter.billing == Billing::Item => item,
            None => Way::Event,
            Some(_) if of.meter.billing == Billing::Replaced => item,
            Some(from) => match self.way(of, from).await? {
                // An item is priced as what comes on top of all that was counted: nothing may slip in below it afterwards.
                Some(Way::Event) if of.meter.invoiced > Tokens::ZERO => item,
                Some(way) => way,
                None => return Ok(End::Stays),
            },
        };
        if way == Way::Wait {
            tracing::info!(user = %of.key.user, identifier = of.row.identifier, "its invoice is about to become final");
            return Ok(End::Stays);
        }
        if !self.may_call(of.lease) {
            return Ok(End::Stays);
        }
        let is_asked_first =
            way != Way::Event || domain::next_step(of.row, (self.now)()) == NextStep::Reconcile;
        // What sends nothing leaves the time of the last sending as it is: only that counts.
        let at = of.row.last_attempt_at.filter(|_| is_asked_first).unwrap_or((self.now)());
        let Some(may_be_there) = self.attempt(of, at).await? else { return Ok(End::Stays) };
        // No event was ever sent for a period that Stripe's meter does not bill.
        let may_be_there = may_be_there && of.meter.billing != Billing::Item;
        match way {
            Way::Event => self.event(of, may_be_there, report).await,
            Way::Item { since } => {
                report.late += 1;
                self.item(of, may_be_there, since, report).await
            }
            Way::Refused(reason) => self.park(of, may_be_there, reason, report).await,
            Way::Wait => Ok(End::Stays),
        }
    }

    /// Whether a run before has said what became of the row, and died, or failed, before it was off its meter. What is said stands: a
    /// row that was parked and is billed after all would be billed again by its retry.
    async fn has_ended(&self, of: &Case<'_>) -> Result<bool, StoreError> {
        let Case { key, row, .. } = of;
        if row.first_attempt_at.is_none() {
            return Ok(false);
        }
        let Some(said) = self.deps.ledger.report(key, row.seq).await? else { return Ok(false) };
        self.deps.ledger.finish(key, row, said.fate, (self.now)(), said.note.as_deref()).await?;
        Ok(true)
    }

    /// Notes an attempt before the first call: from then on the outcome may be unknown, and the time counts. Answers whether the
    /// row was attempted before; none: it must not be attempted.
    async fn attempt(&self, of: &Case<'_>, at: Timestamp) -> Result<Option<bool>, StoreError> {
        let attempt = self.deps.ledger.attempt(of.key, of.row, at, of.lease.fence).await?;
        Ok(match attempt {
            Attempt::First => Some(false),
            Attempt::Again => Some(true),
            Attempt::Gone | Attempt::Fenced => {
                tracing::info!(user = %of.key.user, identifier = of.row.identifier, ?attempt,
                    "another run is at this row, or has ended it");
                None
            }
        })
    }

    /// Ends a row that nobody pays for beyond the flat price of its period.
    async fn forgo(&self, of: &Case<'_>, report: &mut Report) -> Result<End, StoreError> {
        self.deps.ledger.finish(of.key, of.row, RowFate::Invoiced, (self.now)(), Some(FLAT_NOTE)).await?;
        report.invoiced += 1;
        Ok(End::Gone)
    }

    /// What the customer's invoices say of the row's way; none: they are not to be had.
    async fn way(&self, of: &Case<'_>, from: Timestamp) -> Result<Option<Way>, StoreError> {
        if !self.may_call(of.lease) {
            return Ok(None);
        }
        let account = self.deps.ledger.account(&of.key.user, (self.now)()).await.map_err(|error| error.0)?;
        let own = account.subscription.as_ref();
        Ok(match self.stripe.invoices_of(&of.row.customer, from).await {
            Ok(invoices) => Some(late::way(of.meter.period, of.row, &invoices, own, (self.now)())),
            Err(InvoiceError::Refused(reason)) => Some(Way::Refused(reason)),
            Err(error) => {
                self.not_now(of, error).await;
                None
            }
        })
    }

    /// Sends a row, or learns that it was sent.
    async fn event(&self, of: &Case<'_>, may_be_there: bool, report: &mut Report) -> Result<End, StoreError> {
        if may_be_there && domain::next_step(of.row, (self.now)()) == NextStep::Reconcile {
            match self.verdict(of, report).await {
                Some(Verdict::Missing) => {
                    if self.attempt(of, (self.now)()).await?.is_none() {
                        return Ok(End::Stays);
                    }
                }
                Some(Verdict::Delivered) => return self.accept(of, report).await,
                Some(Verdict::Unclear) | None => return Ok(End::Stays),
            }
        }
        match self.deliver(of, report).await {
            Delivery::Delivered(sent) => {
                let end = self.accept(of, report).await?;
                match sent {
                    Sent::Accepted => report.accepted += 1,
                    Sent::AlreadyExists => report.already_existed += 1,
                }
                Ok(end)
            }
            Delivery::Refused(reason) => self.park(of, may_be_there, reason, report).await,
            Delivery::Stays => Ok(End::Stays),
        }
    }

    /// Parks a row that nobody can bill, unless Stripe has it.
    async fn park(
        &self,
        of: &Case<'_>,
        may_be_there: bool,
        reason: String,
        report: &mut Report,
    ) -> Result<End, StoreError> {
        // An earlier attempt may have arrived before Stripe came to refuse the row.
        if may_be_there {
            match self.verdict(of, report).await {
                Some(Verdict::Missing) => {}
                Some(Verdict::Delivered) => return self.accept(of, report).await,
                Some(Verdict::Unclear) | None => return Ok(End::Stays),
            }
        }
        let Case { key, row, .. } = of;
        tracing::error!(user = %key.user, customer = %row.customer, identifier = row.identifier,
            tokens = row.tokens.get(), reason, "a report cannot be billed; it is parked");
        // Said before it is done: a crash in between says it twice, never not at all.
        let (about, note) = (of.about(), reason.clone());
        self.deps.bus.announce(&[Announcement::Parked { about, reason }]).await;
        self.deps.ledger.finish(key, row, RowFate::Parked, (self.now)(), Some(&note)).await?;
        report.parked += 1;
        Ok(End::Gone)
    }

    /// Bills a row on the next invoice, unless Stripe has it on its own. `since`: none of its events was sent later.
    async fn item(
        &self,
        of: &Case<'_>,
        may_be_there: bool,
        since: Timestamp,
        report: &mut Report,
    ) -> Result<End, StoreError> {
        let Case { key, row, .. } = of;
        if may_be_there {
            // Until Stripe has counted what it took, a row that it lacks may be one that it is about to have.
            if (self.now)().ms_since(since) < COUNTED_WITHIN_MS {
                tracing::info!(user = %key.user, identifier = row.identifier, "too late, and perhaps counted; waiting");
                return Ok(End::Stays);
            }
            match self.verdict(of, report).await {
                Some(Verdict::Missing) => {}
                Some(Verdict::Delivered) => return self.accept(of, report).await,
                Some(Verdict::Unclear) | None => return Ok(End::Stays),
            }
        }
        // An item that is there is asked for before its price: what said the price then may say another now, or nothing.
        let billed = match self.made_item(of).await {
            Looked::There(item, cents) => Billed::Now(cents, Some(item)),
            Looked::Missing => self.bill(of).await?,
            Looked::NotNow => Billed::NotNow,
            Looked::Refused(reason) => Billed::Refused(reason),
        };
        let (cents, item) = match billed {
            Billed::Now(cents, item) => (cents, item),
            Billed::NotNow => return Ok(End::Stays),
            // What may be there was looked for just before.
            Billed::Refused(reason) => return self.park(of, false, reason, report).await,
        };
        tracing::info!(user = %key.user, customer = %row.customer, identifier = row.identifier,
            tokens = row.tokens.get(), cents, item = item.as_ref().map(InvoiceItemId::as_str), "late usage is billed");
        let note = item.as_ref().map_or("0 cents", InvoiceItemId::as_str).to_owned();
        self.deps.bus.announce(&[Announcement::Invoiced { about: of.about(), cents, item }]).await;
        self.deps.ledger.finish(key, row, RowFate::Invoiced, (self.now)(), Some(&note)).await?;
        report.invoiced += 1;
        Ok(End::Gone)
    }

    /// The row's invoice item, if it was made already.
    async fn made_item(&self, of: &Case<'_>) -> Looked {
        if !self.may_call(of.lease) {
            return Looked::NotNow;
        }
        let bills = |item: &stripe::InvoiceItem| item.report.as_ref() == Some(&of.row.identifier);
        let items = self.stripe.invoice_items(&of.row.customer).await;
        match self.of_an_item(of, items.map(|items| items.into_iter().find(bills))).await {
            Ok(None) => Looked::NotNow,
            Ok(Some(None)) => Looked::Missing,
            Ok(Some(Some(item))) => Looked::There(item.id, item.cents.unsigned_abs()),
            Err(reason) => Looked::Refused(reason),
        }
    }

    /// Prices a row, and makes its invoice item, which was looked for just before.
    async fn bill(&self, of: &Case<'_>) -> Result<Billed, StoreError> {
        let cents = match self.late_price(of).await? {
            LatePrice::Cents(cents) => Ok(cents),
            LatePrice::NotNow => return Ok(Billed::NotNow),
            LatePrice::Unknown(reason) => Err(format!("the price of late usage cannot be told: {reason}")),
        };
        if let Ok(1..) = cents {
            // Noted as what may arrive late: the next run has to know, if it finds another price.
            if self.attempt(of, (self.now)()).await?.is_none() {
                return Ok(Billed::NotNow);
            }
        } else if of.row.last_attempt_at.is_some_and(|at| (self.now)().ms_since(at) < COUNTED_WITHIN_MS) {
            tracing::info!(user = %of.key.user, identifier = of.row.identifier, "an item may be on its way; waiting");
            return Ok(Billed::NotNow);
        }
        Ok(match cents {
            Ok(0) => Billed::Now(0, None),
            Ok(cents) => match self.make_item(of, cents).await {
                Ok(Some(item)) => Billed::Now(cents, Some(item)),
                Ok(None) => Billed::NotNow,
                Err(reason) => Billed::Refused(reason),
            },
            Err(reason) => Billed::Refused(reason),
        })
    }

    /// Makes the row's invoice item, which was looked for just before; none: not for certain, now.
    ///
    /// # Errors
    /// Stripe's words when it refuses the item for good.
    async fn make_item(&self, of: &Case<'_>, cents: u64) -> Result<Option<InvoiceItemId>, String> {
        let Case { meter, row, lease, .. } = of;
        // The key is one for each day since the first attempt, for Stripe forgets it after a day. A call that is under way while the
        // day changes would not be recognised by the next key.
        let since_first_ms = (self.now)().ms_since(row.first_attempt_at.unwrap_or((self.now)()));
        let (day, into_day_ms) = (since_first_ms / DAY_MS, since_first_ms % DAY_MS);
        if (day > 0 && into_day_ms < LEASE_MS) || !self.may_call(lease) {
            return Ok(None);
        }
        let description = format!(
            "{} tokens used from {} to {}, counted after that period's invoice",
            row.tokens,
            date(meter.period.start()),
            date(meter.period.end())
        );
        let item = NewInvoiceItem {
            customer: &row.customer,
            report: &row.identifier,
            cents,
            description: &description,
            period: meter.period,
            idempotency_key: &format!("late-{}-{day}", row.identifier),
        };
        let made = self.stripe.create_invoice_item(&item).await;
        Ok(self.of_an_item(of, made).await?.map(|item| item.id))
    }

    /// An answer about an invoice item; none: not now.
    async fn of_an_item<T>(
        &self,
        of: &Case<'_>,
        answer: Result<T, InvoiceError>,
    ) -> Result<Option<T>, String> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(InvoiceError::Refused(reason)) => Err(reason),
            Err(error) => {
                self.not_now(of, error).await;
                Ok(None)
            }
        }
    }

    /// Says why a row stays.
    async fn not_now(&self, of: &Case<'_>, error: InvoiceError) {
        match error {
            InvoiceError::Misconfigured(reason) => self.complain(reason).await,
            error => tracing::error!(%error, user = %of.key.user, customer = %of.row.customer,
                identifier = of.row.identifier, "whether a report is late, or its item, is not to be had from Stripe"),
        }
    }

    /// Ends a row that Stripe has.
    async fn accept(&self, of: &Case<'_>, report: &mut Report) -> Result<End, StoreError> {
        self.deps.ledger.finish(of.key, of.row, RowFate::Accepted, (self.now)(), None).await?;
        report.tokens += of.row.tokens.get();
        Ok(End::Gone)
    }

    /// Sends a row, again if need be, always under its own identifier.
    async fn deliver(&self, of: &Case<'_>, report: &mut Report) -> Delivery {
        let Case { row, lease, .. } = of;
        let customer = &row.customer;
        let event = MeterEvent {
            event_name: &self.deps.meter.event_name,
            customer,
            tokens: row.tokens,
            identifier: &row.identifier,
            timestamp: row.timestamp,
        };
        let mut may_have_arrived = false;
        for tried in 0..SENDS_MAX {
            if tried > 0 {
                self.pause(tried).await;
            }
            if !self.may_call(lease) {
                break;
            }
            report.sent += 1;
            match self.stripe.send(&event).await {
                Ok(sent) => return Delivery::Delivered(sent),
                // The next run asks Stripe first.
                Err(SendError::Refused { .. }) if may_have_arrived => break,
                Err(error @ SendError::Refused { .. }) => return Delivery::Refused(error.to_string()),
                Err(SendError::Misconfigured(reason)) => {
                    self.refuses_all.store(true, Ordering::Relaxed);
                    self.complain(reason).await;
                    return Delivery::Stays;
                }
                Err(error @ (SendError::Retry(_) | SendError::Unknown(_))) => {
                    may_have_arrived |= matches!(error, SendError::Unknown(_));
                    tracing::warn!(%error, %customer, identifier = row.identifier, tried, "a report was not taken");
                }
            }
        }
        tracing::error!(%customer, identifier = row.identifier, tokens = row.tokens.get(),
            "a report was not taken in this run; the next one sends it again");
        Delivery::Stays
    }

    async fn complain(&self, reason: String) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::error!(
                reason,
                "Stripe refuses calls for how this installation is set up; rows are kept"
            );
            self.deps.bus.announce(&[Announcement::Misconfigured { reason }]).await;
        }
    }

    async fn pause(&self, tried: u32) {
        let pace = &self.deps.pace;
        let most_ms = pace.pause_ms << tried.saturating_sub(1).min(SENDS_MAX);
        tokio::time::sleep(Duration::from_millis((pace.jitter)(most_ms))).await;
    }
}

/// The day of an instant, in UTC.
fn date(at: Timestamp) -> String {
    at.to_string().chars().take_while(|character| *character != 'T').collect()
}

impl Case<'_> {
    pub(crate) fn about(&self) -> AboutRow {
        AboutRow { user: self.key.user.clone(), row: self.row.clone() }
    }
}

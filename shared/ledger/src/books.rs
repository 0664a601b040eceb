//! What is asked of the ledger beside one request and one report: its listings, the repair of rows that ended badly, what a
//! person changes, and who may talk to Stripe about whom.

use crate::{
    page::{ReceiptCursor, ReceiptPage, ReportCursor, ReportPage, UserCursor, UserPage},
    protocol::{
        CapError, DECISIONS_MAX, Ledger, REPORT_TRIES_MAX, Retried, Unavailable, first_opening, pause,
    },
    store::{Changed, Fault, Loaded, MeterKey, Store, StoreError},
};
use domain::{
    Account, AccountChange, Billing, CustomerId, Denial, EventId, HoldId, Lease, Meter, Placement, Receipt,
    Report, Timestamp, Tokens, UserId,
};

impl<S: Store> Ledger<S> {
    /// One meter, as last written.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn meter(&self, key: &MeterKey) -> Result<Option<Meter>, StoreError> {
        self.store.meter(key).await
    }

    /// A user's meters whose period began at `from` or later, the newest first, at most
    /// [`METERS_MAX`](crate::METERS_MAX).
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn meters(&self, user: &UserId, from: Timestamp) -> Result<Vec<Meter>, StoreError> {
        self.store.meters(user, from).await
    }

    /// One receipt, as last written; none while its request is under way.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn receipt(&self, key: &MeterKey, id: &HoldId) -> Result<Option<Receipt>, StoreError> {
        self.store.receipt(key, id).await
    }

    /// A page of a user's receipts, the newest first: of the period that began at `of`, or of all.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn receipts(
        &self,
        user: &UserId,
        of: Option<Timestamp>,
        before: Option<&ReceiptCursor>,
    ) -> Result<ReceiptPage, StoreError> {
        self.store.receipts(user, of, before).await
    }

    /// One report item, as last written.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn report(&self, key: &MeterKey, seq: u64) -> Result<Option<Report>, StoreError> {
        self.store.report(key, seq).await
    }

    /// A page of a user's report items, the newest first: of the period that began at `of`, or of all.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn reports(
        &self,
        user: &UserId,
        of: Option<Timestamp>,
        before: Option<&ReportCursor>,
    ) -> Result<ReportPage, StoreError> {
        self.store.reports(user, of, before).await
    }

    /// A page of the users of one shard, `0..SHARDS`: everyone who has an account. It may lag behind the writes.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn users(&self, shard: u8, from: Option<&UserCursor>) -> Result<UserPage, StoreError> {
        self.store.users(shard, from).await
    }

    /// The latest denial of each kind in a period, the latest first.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn denials(&self, user: &UserId, period_start: Timestamp) -> Result<Vec<Denial>, StoreError> {
        self.store.denials(user, period_start).await
    }

    /// Keeps a denial for its user to see. Best effort: nobody waits for it, and nothing depends on it.
    pub async fn deny(&self, denial: &Denial) {
        if let Err(error) = self.store.put_denial(denial).await {
            tracing::warn!(%error, user = %denial.user, code = %denial.code, "a denial was not kept");
        }
    }

    /// Whether an event of Stripe's was dealt with.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn event(&self, id: &EventId) -> Result<bool, StoreError> {
        self.store.event(id).await
    }

    /// Notes that an event was dealt with, until `forget_at`. Only once it was: whatever fails before is done again.
    ///
    /// # Errors
    /// When the store cannot answer; the event is then dealt with once more.
    pub async fn put_event(
        &self,
        id: &EventId,
        kind: &str,
        now: Timestamp,
        forget_at: Timestamp,
    ) -> Result<Changed, StoreError> {
        self.store.put_event(id, kind, now, forget_at).await
    }

    /// Takes the lease of a customer until `until`; none: somebody has it. `owner` is an id of this one taking.
    ///
    /// # Errors
    /// When the store cannot answer; it may then be taken, and is free again at `until`.
    pub async fn take_lease(
        &self,
        customer: &CustomerId,
        owner: &HoldId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        self.store.take_lease(customer, owner, now, until).await
    }

    /// Gives a lease back; `No`: somebody took it since.
    ///
    /// # Errors
    /// When the store cannot answer; it is free again at its `until`.
    pub async fn drop_lease(&self, lease: &Lease) -> Result<Changed, StoreError> {
        self.store.drop_lease(lease).await
    }

    /// Opens the period of `now` if the current meter's has ended, so that the ended one admits nothing any more. Answers what
    /// counts now; none: nobody knows this user.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn roll(&self, user: &UserId, now: Timestamp) -> Result<Option<Loaded>, Unavailable> {
        for tried in 0..DECISIONS_MAX {
            let Some(Loaded { account, meter }) = self.store.load(user).await? else { return Ok(None) };
            // A `Query` is no snapshot: what follows must follow from the meter of this account.
            if meter.closed || meter.rev != account.rev {
                pause(tried).await;
                continue;
            }
            let opening = match domain::place(&account, &meter, now) {
                Placement::Current => return Ok(Some(Loaded { account, meter })),
                Placement::Open(opening) => opening,
                Placement::OutOfCalendar => return Err(StoreError::new("place", Fault::Corrupt).into()),
            };
            match self.store.open(&opening).await {
                Ok(Changed::Yes) => {
                    return Ok(Some(Loaded { account: opening.account, meter: opening.meter }));
                }
                Ok(Changed::No) => {}
                Err(error) if error.fault == Fault::Conflict => pause(tried).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Unavailable(StoreError::new("roll", Fault::Contended)))
    }

    /// Seals the tokens of a parked row again, into a new row under another identifier.
    ///
    /// # Errors
    /// When the store cannot answer; it may then have been done, or may yet be: once, and only while the row is parked.
    pub async fn retry_parked(
        &self,
        key: &MeterKey,
        seq: u64,
        now: Timestamp,
    ) -> Result<Retried, StoreError> {
        for _ in 0..REPORT_TRIES_MAX {
            let Some(report) = self.store.report(key, seq).await? else { return Ok(Retried::NotParked) };
            let Some(meter) = self.store.meter(key).await? else { return Ok(Retried::NotParked) };
            let Some(row) = domain::retry(&meter, &report, now) else {
                let pending = report.fate == domain::RowFate::Parked;
                return Ok(if pending { Retried::RowPending } else { Retried::NotParked });
            };
            if self.store.retry(key, seq, &row, now).await? == Changed::Yes {
                return Ok(Retried::Yes(row));
            }
        }
        Err(StoreError::new("retry report", Fault::Contended))
    }

    /// Has nobody pay for a parked row; `No`: it is not parked.
    ///
    /// # Errors
    /// When the store cannot answer; it may then have been done, or may yet be, while the row is parked.
    pub async fn forgive_parked(
        &self,
        key: &MeterKey,
        seq: u64,
        now: Timestamp,
        note: &str,
    ) -> Result<Changed, StoreError> {
        self.store.forgive(key, seq, now, note).await
    }

    /// Parks an accepted row, because Stripe has rejected afterwards what it took; `No`: it is not accepted, or not over so many
    /// tokens, or its meter has not dropped it yet.
    ///
    /// # Errors
    /// When the store cannot answer; it may then have been done, or may yet be: once.
    pub async fn reject(
        &self,
        key: &MeterKey,
        seq: u64,
        tokens: Tokens,
        now: Timestamp,
        note: &str,
    ) -> Result<Changed, StoreError> {
        self.store.reject(key, seq, tokens, now, note).await
    }

    /// Takes over usage that was counted and reported before this ledger began, and with it how the rest of the period is billed.
    /// `report.seq` is the meter's own; `No`: something
    /// was sealed since it was read, or this was imported before.
    ///
    /// # Errors
    /// When the store cannot answer; it may then have been done, or may yet be: once.
    pub async fn import(
        &self,
        key: &MeterKey,
        receipt: &Receipt,
        report: &Report,
        billing: Billing,
    ) -> Result<Changed, StoreError> {
        self.store.import(key, receipt, report, billing).await
    }

    /// Sets a user's own cap, or takes it away; creates the account if there is none. One below what is used and held at the
    /// instant of its write stops everything, so it is written only if that is `confirmed`.
    ///
    /// It is written even where it is so already: an earlier wish whose answer was lost may yet land, and is fenced by the new
    /// `rev`. A write of our own whose answer is lost is decided again from a new reading, for the same reason.
    ///
    /// # Errors
    /// When the cap lies below what is used and held, unconfirmed; or the store cannot answer.
    pub async fn set_spend_cap(
        &self,
        user: &UserId,
        cap: Option<Tokens>,
        confirmed: bool,
        now: Timestamp,
    ) -> Result<Loaded, CapError> {
        // The `rev` that a lost write was decided on.
        let mut lost = None;
        for tried in 0..DECISIONS_MAX {
            let loaded = self.store.load(user).await.map_err(Unavailable)?;
            let decided_on = loaded.as_ref().map(|loaded| loaded.account.rev);
            let written = if let Some(Loaded { account, meter }) = loaded {
                if meter.closed || meter.rev != account.rev {
                    pause(tried).await;
                    continue;
                }
                let landed = lost.is_some_and(|rev| Some(account.rev) > rev) && account.spend_cap == cap;
                if landed {
                    return Ok(Loaded { account, meter });
                }
                let bound = cap.filter(|_| !confirmed && counts_now(&account, &meter, now));
                if let Some(cap) = bound.filter(|cap| *cap < meter.committed) {
                    let held = meter.committed.saturating_sub(meter.settled);
                    return Err(CapError::BelowUsed { cap, settled: meter.settled, held });
                }
                self.cap(account, meter, cap, bound).await
            } else {
                let account = Account { spend_cap: cap, ..self.first_seen(user, now) };
                let opening = first_opening(account, now)?;
                let opened = self.store.open(&opening).await;
                opened.map(|changed| (changed, Loaded { account: opening.account, meter: opening.meter }))
            };
            match written {
                Ok((Changed::Yes, loaded)) => return Ok(loaded),
                Ok((Changed::No, _)) => {}
                Err(error) => match error.fault {
                    Fault::Unanswered | Fault::Conflict | Fault::Throttled => {
                        tracing::warn!(%error, %user, "a spend cap was not written for certain; trying again");
                        lost = Some(decided_on);
                        pause(tried).await;
                    }
                    Fault::Rejected | Fault::Corrupt | Fault::Contended => {
                        return Err(Unavailable(error).into());
                    }
                },
            }
        }
        Err(Unavailable(StoreError::new("set spend cap", Fault::Contended)).into())
    }

    async fn cap(
        &self,
        account: Account,
        mut meter: Meter,
        cap: Option<Tokens>,
        committed_most: Option<Tokens>,
    ) -> Result<(Changed, Loaded), StoreError> {
        let after = Account { spend_cap: cap, ..account.clone() };
        let change = AccountChange::new(account, after, &meter).within(committed_most);
        let changed = self.store.change_account(&change).await?;
        let _: bool = meter.apply_account(&change);
        Ok((changed, Loaded { account: change.after, meter }))
    }
}

/// Whether a request of `now` would be in this meter: what an ended period has used is no part of the next.
fn counts_now(account: &Account, meter: &Meter, now: Timestamp) -> bool {
    matches!(domain::place(account, meter, now), Placement::Current)
}

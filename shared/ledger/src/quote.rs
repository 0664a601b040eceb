//! A quote: the decision on a request, made and not written.

use crate::{
    protocol::{DECISIONS_MAX, Ledger, Standing, Unavailable, first_opening},
    store::{Fault, Loaded, MeterKey, Store, StoreError},
};
use domain::{
    AdmitRequest, Demand, HoldId, HoldSize, Meter, NanoUsd, Placement, Receipt, Refusal, Timestamp, UserId,
};

/// What would become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The user's standing, as the decision saw it.
    pub standing: Standing,
    /// What would be held, or the limit that would refuse.
    pub decision: Result<HoldSize, Refusal>,
}

impl<S: Store> Ledger<S> {
    /// Decides a request as [`Ledger::admit`] would at this moment, and writes nothing: not even the account of a user who
    /// was never seen, or the meter of a period that begins.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn quote(&self, user: &UserId, demand: &Demand, now: Timestamp) -> Result<Quote, Unavailable> {
        let Loaded { account, mut meter } = self.look(user, now).await?;
        self.release_expired(&mut meter, now).await?;
        let plan = self.plan_of(&account)?.clone();
        let id = HoldId::parse("quote")
            .map_err(|error| Unavailable(StoreError::new("quote", Fault::Corrupt).because(error)))?;
        let request = AdmitRequest { id, demand: *demand, expires_at: now };
        let decision = domain::admit(&account, &plan, &meter, &request, |_| NanoUsd::ZERO, now);
        let decision = decision.map(|admission| admission.size);
        Ok(Quote { standing: Standing { account, plan, meter }, decision })
    }

    /// Account and meter as an admission would find them, those that it would create first included.
    async fn look(&self, user: &UserId, now: Timestamp) -> Result<Loaded, Unavailable> {
        for _ in 0..DECISIONS_MAX {
            let Some(Loaded { account, meter }) = self.store.load(user).await? else {
                let opening = first_opening(self.first_seen(user, now), now)?;
                return Ok(Loaded { account: opening.account, meter: opening.meter });
            };
            // A `Query` is no snapshot: the two may have been read before and after a change.
            if meter.closed || meter.rev != account.rev {
                continue;
            }
            return match domain::place(&account, &meter, now) {
                Placement::Current => Ok(Loaded { account, meter }),
                Placement::Open(opening) => Ok(Loaded { account: opening.account, meter: opening.meter }),
                Placement::OutOfCalendar => Err(StoreError::new("place", Fault::Corrupt).into()),
            };
        }
        Err(StoreError::new("quote", Fault::Contended).into())
    }

    /// What an admission would sweep, taken off a copy. A meter has a bounded number of holds.
    async fn release_expired(&self, meter: &mut Meter, now: Timestamp) -> Result<(), StoreError> {
        let key = MeterKey::of(meter);
        for (id, hold) in meter.expired(now) {
            let standing = self.store.receipt(&key, &id).await?;
            let swept = || Receipt::swept(key.user.clone(), key.period_start, (id, &hold), now);
            meter.apply_release(&standing.unwrap_or_else(swept).release(&hold));
        }
        Ok(())
    }
}

//! The repairs that are safe, of one meter, when a person asks for them. What cannot be repaired is said, and left as it is.

use crate::reconcile::{Drift, Equation, Finding, Reconciling, RowName};
use domain::{CustomerId, ReportRow, Tokens};
use ledger::{Changed, MeterKey, Retried, Store, StoreError};

/// What a parked row's note says.
const NOTE: &str = "Stripe's count lacks it";

/// What was done about a meter, or was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// So many requests that nobody works on any more were ended: by their receipts, which the meter had not followed yet, or
    /// without a charge.
    Swept(u32),
    /// Stripe lacks a row: its tokens are in a new one, which the next run of the reporter sends.
    SentAgain {
        /// The row that Stripe lacks.
        row: RowName,
        /// The new one.
        again: Box<ReportRow>,
    },
    /// Stripe lacks a row, and another is on its way: it is parked, and can be retried once that one has ended.
    Parked(RowName),
    /// Nothing was wrong.
    Agrees,
    /// It moves too fast to be looked at.
    Moving,
    /// Stripe's count is not to be had, or there is more than can be read; the rest agrees.
    Unasked,
    /// Stripe's count says nothing about this meter, for its payer or its period has changed; the rest agrees.
    Incomparable,
    /// This cannot be repaired here.
    Beyond(Drift),
}

impl<S: Store> Reconciling<'_, S> {
    /// Repairs one meter as far as that is safe: a receipt whose meter did not move is finished, and a row that Stripe lacks for
    /// certain, because it has counted nothing at all in that row's minute, is sent again as another.
    ///
    /// # Errors
    /// When the store cannot answer. What was done before stays done, and a repeat goes on.
    pub async fn repair(&self, key: &MeterKey) -> Result<Vec<Repair>, StoreError> {
        let mut done = Vec::new();
        let swept = self.deps().ledger.sweep(key, self.now()).await?;
        done.extend((swept > 0).then_some(Repair::Swept(swept)));
        match self.meter(key).await?.finding {
            Finding::Agrees if done.is_empty() => done.push(Repair::Agrees),
            Finding::Moving => done.push(Repair::Moving),
            Finding::Unasked => done.push(Repair::Unasked),
            Finding::Incomparable if done.is_empty() => done.push(Repair::Incomparable),
            Finding::Agrees | Finding::Incomparable => {}
            Finding::Drifted(drifts) => {
                for drift in drifts {
                    done.extend(self.repair_drift(key, drift).await?);
                }
            }
        }
        Ok(done)
    }

    async fn repair_drift(&self, key: &MeterKey, drift: Drift) -> Result<Vec<Repair>, StoreError> {
        let lacks = drift.equation == Equation::AcceptedCounted && drift.right.1 < drift.left.0;
        let customer = drift.customer.as_deref().and_then(|customer| CustomerId::parse(customer).ok());
        let Some(customer) = customer.filter(|_| lacks) else { return Ok(vec![Repair::Beyond(drift)]) };
        let mut done = Vec::new();
        let Some(meter) = self.deps().ledger.meter(key).await? else { return Ok(Vec::new()) };
        for (row, counted) in self.otherwise_counted(key, &meter, &customer).await? {
            if counted == Tokens::ZERO {
                done.extend(self.send_again(key, row).await?);
            }
        }
        if done.is_empty() {
            done.push(Repair::Beyond(drift));
        }
        Ok(done)
    }

    /// Parks a row that Stripe lacks, then takes its tokens into a new one. A crash in between leaves it parked.
    async fn send_again(&self, key: &MeterKey, row: RowName) -> Result<Option<Repair>, StoreError> {
        let ledger = &self.deps().ledger;
        let Ok(tokens) = Tokens::new(row.tokens) else { return Ok(None) };
        if ledger.reject(key, row.seq, tokens, self.now(), NOTE).await? == Changed::No {
            // Somebody else is at it.
            return Ok(None);
        }
        Ok(match ledger.retry_parked(key, row.seq, self.now()).await? {
            Retried::Yes(again) => Some(Repair::SentAgain { row, again: Box::new(again) }),
            Retried::RowPending => Some(Repair::Parked(row)),
            Retried::NotParked => None,
        })
    }
}

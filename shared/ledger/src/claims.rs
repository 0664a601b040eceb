//! Claims on idempotency keys: which of several equal requests works, and what the others are told; and the wish to stop.
//!
//! A claim is put before anything else, its hold is noted in it before the provider is called, and its answer is kept before
//! the hold is settled, unless the store takes too long over it. So a claim whose owner is gone says enough: without a hold nothing was asked of the provider, with
//! one its receipt says whether the user paid. Only what nobody paid for is done again.

use crate::{
    protocol::{Ledger, OpenHold, SWEEP_TRIES_MAX, Unavailable, insistently},
    store::{Changed, Fault, MeterKey, Store, StoreError},
};
use std::fmt;

use domain::{
    ANSWER_BYTES_MAX, Claim, ClaimState, Digest, HoldId, HoldRef, Outcome, Receipt, Repeat, Timestamp, UserId,
};

/// How often a claim is decided: each lost race for one whose owner is gone costs one.
const CLAIM_TRIES_MAX: u32 = 4;
/// How long a wish to stop is kept, in milliseconds: longer than any request lasts.
const STOP_KEPT_MS: u64 = 60 * 60 * 1_000;

/// A claim that this invocation has. It must be ended or dropped; if neither happens, a repeat takes it over once its time
/// is out.
#[derive(Debug)]
#[must_use = "an open claim keeps its key from every repeat until it is ended or dropped"]
pub struct OpenClaim(Claim);

/// What a request with an idempotency key is.
#[derive(Debug)]
pub enum Claimed {
    /// The first, or the first that nobody paid for.
    Ours(OpenClaim),
    /// A repeat with another body.
    OtherBody,
    /// A repeat while the first is at work.
    Running,
    /// A repeat of one that was served.
    Ended(Box<Ended>),
}

/// What an idempotency key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfKey {
    /// Nobody has claimed it.
    Nothing,
    /// A request that has not been admitted, at least not that its claim says so.
    NotYetAdmitted,
    /// The request with this hold.
    Hold(HoldId),
}

/// A request that was served.
#[derive(Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its hold, whose id is its receipt's.
    pub hold: HoldRef,
    /// Its answer, as it was given to [`Ledger::end_claim`]; none where it was not kept.
    pub answer: Option<String>,
    /// Its receipt; none while it is still being settled.
    pub receipt: Option<Receipt>,
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer_bytes = self.answer.as_ref().map(String::len);
        f.debug_struct("Ended")
            .field("hold", &self.hold)
            .field("answer_bytes", &answer_bytes)
            .field("receipt", &self.receipt)
            .finish()
    }
}

impl<S: Store> Ledger<S> {
    /// Claims a key, or says what became of the request that has it.
    ///
    /// # Errors
    /// When the store cannot answer; nothing may then be generated.
    pub async fn claim(&self, wanted: Claim, now: Timestamp) -> Result<Claimed, Unavailable> {
        let claimed = self.claim_or_fail(&wanted, now).await;
        if claimed.is_err() {
            // It may have been put all the same. Ours alone is dropped, and if it cannot be it frees itself in time.
            drop(self.store.drop_claim(&wanted).await);
        }
        claimed
    }

    async fn claim_or_fail(&self, wanted: &Claim, now: Timestamp) -> Result<Claimed, Unavailable> {
        for _ in 0..CLAIM_TRIES_MAX {
            let Some(standing) = self.store.put_claim(wanted, now).await? else {
                return Ok(Claimed::Ours(OpenClaim(wanted.clone())));
            };
            // Our own, put by a try whose answer was lost.
            if standing.owner == wanted.owner {
                return Ok(Claimed::Ours(OpenClaim(standing)));
            }
            match standing.repeated(wanted.body, now) {
                Repeat::OtherBody => return Ok(Claimed::OtherBody),
                Repeat::Running => return Ok(Claimed::Running),
                Repeat::Ended => {}
                Repeat::Abandoned => match self.paid(&standing, now).await? {
                    Some(ended) => return Ok(Claimed::Ended(Box::new(ended))),
                    None if self.store.change_claim(wanted, &standing.owner).await? == Changed::Yes => {
                        return Ok(Claimed::Ours(OpenClaim(wanted.clone())));
                    }
                    None => continue,
                },
            }
            if let Some(ended) = self.ended_as(standing).await? {
                return Ok(Claimed::Ended(Box::new(ended)));
            }
        }
        Err(Unavailable(StoreError::new("claim", Fault::Contended)))
    }

    /// What an abandoned request was paid for, if it was. Sweeps its hold first, so that it cannot be any more.
    async fn paid(&self, abandoned: &Claim, now: Timestamp) -> Result<Option<Ended>, StoreError> {
        let ClaimState::Running { hold: Some(hold), .. } = &abandoned.state else { return Ok(None) };
        let key = MeterKey { user: abandoned.user.clone(), period_start: hold.period_start };
        let open = self.store.meter(&key).await?.and_then(|meter| meter.holds.get(&hold.id).cloned());
        if let Some(open) = open {
            let _: Changed = self.sweep_one(&key, hold.id.clone(), &open, now).await?;
        }
        let receipt = self.store.receipt(&key, &hold.id).await?;
        let paid = receipt.filter(|receipt| matches!(receipt.outcome, Outcome::Settled { .. }));
        Ok(paid.map(|receipt| Ended { hold: hold.clone(), answer: None, receipt: Some(receipt) }))
    }

    async fn ended_as(&self, claim: Claim) -> Result<Option<Ended>, StoreError> {
        let ClaimState::Ended { hold, answer } = claim.state else { return Ok(None) };
        let key = MeterKey { user: claim.user, period_start: hold.period_start };
        let receipt = self.store.receipt(&key, &hold.id).await?;
        Ok(Some(Ended { hold, answer, receipt }))
    }

    /// Notes the hold that a claimed request was admitted with. The provider must not be called before.
    ///
    /// # Errors
    /// When the store cannot answer, or the claim was taken over.
    pub async fn note_hold(&self, claim: &mut OpenClaim, hold: &OpenHold) -> Result<(), Unavailable> {
        let OpenClaim(standing) = claim;
        if let ClaimState::Running { hold: noted, .. } = &mut standing.state {
            *noted = Some(hold.reference());
        }
        match self.store.change_claim(standing, &standing.owner).await? {
            Changed::Yes => Ok(()),
            Changed::No => Err(Unavailable(StoreError::new("note hold", Fault::Contended))),
        }
    }

    /// Ends a claim whose request was served. An answer of more than [`ANSWER_BYTES_MAX`] is not kept.
    ///
    /// # Errors
    /// When the store cannot answer; a repeat is then told by the receipt that it was served, without its answer.
    pub async fn end_claim(
        &self,
        claim: &OpenClaim,
        hold: HoldRef,
        answer: Option<String>,
    ) -> Result<(), StoreError> {
        let OpenClaim(standing) = claim;
        let answer = answer.filter(|answer| answer.len() <= ANSWER_BYTES_MAX);
        let ended = Claim { state: ClaimState::Ended { hold, answer }, ..standing.clone() };
        // `No` means that an earlier try was made, and its answer lost.
        let _: Changed =
            insistently(SWEEP_TRIES_MAX, || self.store.change_claim(&ended, &standing.owner)).await?;
        Ok(())
    }

    /// Gives a key free, because its request was refused.
    ///
    /// # Errors
    /// When the store cannot answer; repeats then wait until the claim's time is out.
    pub async fn drop_claim(&self, claim: OpenClaim) -> Result<(), StoreError> {
        let OpenClaim(standing) = claim;
        let _: Changed = self.store.drop_claim(&standing).await?;
        Ok(())
    }

    /// What became of the request with this key, if it was served and is not forgotten.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn ended(
        &self,
        user: &UserId,
        key: Digest,
        now: Timestamp,
    ) -> Result<Option<Ended>, Unavailable> {
        let standing = self.store.claim(user, key).await?.filter(|claim| !claim.is_forgotten(now));
        Ok(match standing {
            Some(claim) => self.ended_as(claim).await?,
            None => None,
        })
    }

    /// What a key stands for.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn of_key(&self, user: &UserId, key: Digest) -> Result<OfKey, Unavailable> {
        let Some(claim) = self.store.claim(user, key).await? else { return Ok(OfKey::Nothing) };
        Ok(match claim.state {
            ClaimState::Running { hold: None, .. } => OfKey::NotYetAdmitted,
            ClaimState::Running { hold: Some(hold), .. } | ClaimState::Ended { hold, .. } => {
                OfKey::Hold(hold.id)
            }
        })
    }

    /// Notes that a user wants the request with this id to end. Whoever works on it looks now and then.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn stop(&self, user: &UserId, id: &HoldId, now: Timestamp) -> Result<(), Unavailable> {
        Ok(self.store.put_stop(user, id, now.plus_ms(STOP_KEPT_MS)).await?)
    }

    /// Whether its user wants a request to end.
    ///
    /// # Errors
    /// When the store cannot answer; the request goes on.
    pub async fn is_stopped(&self, user: &UserId, id: &HoldId) -> Result<bool, Unavailable> {
        Ok(self.store.is_stopped(user, id).await?)
    }
}

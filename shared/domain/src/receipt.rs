//! Receipts: what one request cost. The first receipt written for an id is the truth; the meter moves by what it says.

use crate::{Classes, Hold, HoldId, ModelId, ModelPrice, NanoUsd, Timestamp, Tokens, Usage, UserId};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its usage is known or estimated, and charged.
    Settled {
        /// What it used.
        usage: Usage,
        /// The model that answered.
        model: ModelId,
        /// The version of the price list that `cost` was reckoned with.
        price_version: u32,
    },
    /// Nobody saw its end: nothing is charged, the owner bears what it may have cost.
    Swept,
    /// It was never served: nothing is charged, and its rate slot is given back.
    Void,
    /// Usage that was counted and reported before this ledger began: charged, and with no request of its own.
    Imported,
}

/// One request's receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Whose.
    pub user: UserId,
    /// The start of the period that is charged.
    pub period_start: Timestamp,
    /// The hold's id.
    pub id: HoldId,
    /// When it was written.
    pub at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// Tokens that the user pays for: never more than the hold.
    pub charged: Tokens,
    /// Tokens that the owner bears.
    pub absorbed: Tokens,
    /// What the provider took: exact, estimated or, for a swept request, the most it can have been. The most that calls
    /// which failed can have cost is part of it.
    pub cost: NanoUsd,
    /// Calls to the provider that failed before the one that answered, or before it was given up.
    pub failed_calls: u32,
}

/// Calls to the provider that did not become an answer. Nobody is charged for them; what they may have cost is the owner's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailedCalls {
    /// How many.
    pub number: u32,
    /// The most that they can have cost.
    pub cost_most: NanoUsd,
}

impl FailedCalls {
    /// One more, which may have cost this much; none: it cost nothing.
    pub fn add(&mut self, cost_most: Option<NanoUsd>) {
        self.number = self.number.saturating_add(1);
        self.cost_most = self.cost_most.saturating_add(cost_most.unwrap_or(NanoUsd::ZERO));
    }
}

/// The move that a receipt makes on its meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Whose.
    pub user: UserId,
    /// The start of the meter's period.
    pub period_start: Timestamp,
    /// The hold that goes.
    pub id: HoldId,
    /// The hold as it was admitted.
    pub hold: Hold,
    /// Tokens that become settled.
    pub charged: Tokens,
    /// Tokens that the owner bears.
    pub absorbed: Tokens,
    /// What the provider took.
    pub cost: NanoUsd,
    /// Tokens by class.
    pub classes: Classes,
    /// Whether the request counts as never made: its rate slot is given back.
    pub returns_slot: bool,
}

impl Receipt {
    /// The receipt of a request whose usage is known or estimated: charged up to its hold, the rest absorbed.
    pub fn settled(
        user: UserId,
        period_start: Timestamp,
        (id, hold): (HoldId, &Hold),
        usage: Usage,
        price: &ModelPrice,
        now: Timestamp,
    ) -> Self {
        let consumed = usage.classes().total();
        let charged = consumed.min(hold.tokens);
        let cost = price.cost(usage.classes());
        let outcome = Outcome::Settled { usage, model: price.model.clone(), price_version: price.version };
        let absorbed = consumed.saturating_sub(charged);
        Self { user, period_start, id, at: now, outcome, charged, absorbed, cost, failed_calls: 0 }
    }

    /// The receipt of a request whose hold expired without one: nothing is charged for what nobody can show was served.
    pub fn swept(user: UserId, period_start: Timestamp, (id, hold): (HoldId, &Hold), now: Timestamp) -> Self {
        let (charged, absorbed, cost) = (Tokens::ZERO, hold.tokens, hold.cost_most);
        Self {
            user,
            period_start,
            id,
            at: now,
            outcome: Outcome::Swept,
            charged,
            absorbed,
            cost,
            failed_calls: 0,
        }
    }

    /// The receipt of a request that was never served.
    pub fn void(user: UserId, period_start: Timestamp, id: HoldId, now: Timestamp) -> Self {
        let (charged, absorbed, cost) = (Tokens::ZERO, Tokens::ZERO, NanoUsd::ZERO);
        Self {
            user,
            period_start,
            id,
            at: now,
            outcome: Outcome::Void,
            charged,
            absorbed,
            cost,
            failed_calls: 0,
        }
    }

    /// The receipt of usage that was counted and reported before this ledger began. Its cost is not known any more.
    pub fn imported(
        user: UserId,
        period_start: Timestamp,
        id: HoldId,
        tokens: Tokens,
        now: Timestamp,
    ) -> Self {
        let outcome = Outcome::Imported;
        Self { charged: tokens, outcome, ..Self::void(user, period_start, id, now) }
    }

    /// The same receipt, with the calls that failed before.
    #[must_use]
    pub fn after(self, failed: FailedCalls) -> Self {
        let cost = self.cost.saturating_add(failed.cost_most);
        Self { cost, failed_calls: failed.number, ..self }
    }

    /// The move that this receipt makes on the meter that has this hold.
    pub fn release(&self, hold: &Hold) -> Release {
        let (classes, returns_slot) = match &self.outcome {
            Outcome::Settled { usage, .. } => (*usage.classes(), false),
            Outcome::Swept | Outcome::Imported => (Classes::default(), false),
            Outcome::Void => (Classes::default(), true),
        };
        Release {
            user: self.user.clone(),
            period_start: self.period_start,
            id: self.id.clone(),
            hold: hold.clone(),
            charged: self.charged,
            absorbed: self.absorbed,
            cost: self.cost,
            classes,
            returns_slot,
        }
    }
}

//! Deliberate bugs, each a condition or a write that the ledger would have left out. They are planted where the store and
//! Stripe are reached, so that no production code knows of them; the simulation has to catch every one.

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bug {
    /// A receipt replaces the one that is there.
    ReceiptWithoutCondition,
    /// A release moves the meter although the hold is gone: settling is not idempotent.
    ReleaseWithoutCondition,
    /// The sweeper does not look whether there is a receipt.
    SweepIgnoresReceipt,
    /// The sweeper charges what nobody can show was served.
    SweepCharges,
    /// Holds of requests that were never served are left to nobody.
    AbortKeepsHold,
    /// A request that was never served keeps its rate slot.
    VoidKeepsSlot,
    /// An admission whose answer is lost is sent again under its id.
    AdmissionRetried,
    /// An admission whose answer is lost is taken as written.
    AdmissionUnconfirmed,
    /// An admission whose answer is lost is not voided before the next is tried.
    AdmissionNotVoided,
    /// A refused admission is counted by the rate window.
    RefusalConsumes,
    /// An admission is not conditional on what is committed: the cap is read, then added to.
    CapReadThenAdded,
    /// An admission is not conditional on the account's `rev`: what is remembered is believed.
    CacheBelieved,
    /// An admission is not conditional on the meter being open.
    ClosedMeterAdmits,
    /// An admission is not conditional on how many holds are open.
    ConcurrencyUnchecked,
    /// An admission is not conditional on the newest window.
    FinishedWindowAdmits,
    /// An admission does not mark its meter dirty.
    AdmissionNotDirty,
    /// A hold is half of what the request can take.
    HoldTooSmall,
    /// A hold expires while its request is still under way.
    HoldExpiresEarly,
    /// A new period begins with an empty rate window.
    FreshWindow,
    /// `sealed` is carried into the next period.
    SealedUnscoped,
    /// A request is settled in the period that it ends in.
    SettledByClock,
    /// An account is changed without its meter.
    AccountAlone,
    /// Sealing is not conditional on what is sealed.
    SealWithoutCondition,
    /// Sealing is not conditional on the account's `rev`.
    SealIgnoresAccount,
    /// A row is rounded up to thousands.
    RowRounded,
    /// A row's time is when it is sent.
    RowTimedBySend,
    /// Each attempt has an identifier of its own.
    NewIdentifier,
    /// The first attempt is not noted, so that a row is sent however old it is.
    AttemptNotNoted,
    /// Stripe's "already exists" is taken as a refusal.
    DuplicateIsRefusal,
    /// Taking a lease does not raise its fence.
    LeaseWithoutFence,
    /// An attempt is not conditional on the fence of the one before.
    FenceIgnored,
    /// A retry is not conditional on the row being parked.
    RetryWithoutCondition,
    /// A rejection is not conditional on the row being accepted.
    RejectWithoutCondition,
    /// An import is not conditional on there being none.
    ImportWithoutCondition,
    /// Dropping a row is not conditional on which one it is.
    AnyRowDropped,
    /// The dirty mark is cleared whatever there is to do.
    DirtyClearedEarly,
    /// A claim replaces the one that is there.
    ClaimWithoutCondition,
    /// An abandoned claim is taken over whatever the receipt of its hold says.
    TakenOverUnasked,
    /// A claim is changed by whoever wants to, its owner or not.
    TakenOverTwice,
    /// A claim is dropped by somebody who does not own it.
    ClaimDroppedByAnybody,
    /// The hold is not noted in the claim before the call.
    HoldNotNoted,
    /// A repeat's body is not compared with the first's.
    BodyNotCompared,
    /// A claim is forgotten within the day.
    ClaimForgottenEarly,
    /// A wish to stop is not seen.
    StopUnseen,
    /// An item is made for late usage without looking for one that is there, under a key of its own each time.
    ItemUnlooked,
    /// Late usage is sent as an event besides.
    ItemAndEvent,
    /// An item costs what its tokens would without those before them.
    ItemPricedAlone,
    /// An invoice that is final is taken for a draft.
    FinalUnseen,
    /// A change of plan cuts no meter: the one that counts goes on.
    OldMeterGoesOn,
    /// An account that is told of a debt goes on as before.
    DebtIgnored,
}

impl Bug {
    /// All of them.
    pub(crate) const ALL: [Self; 50] = [
        Self::ReceiptWithoutCondition,
        Self::ReleaseWithoutCondition,
        Self::SweepIgnoresReceipt,
        Self::SweepCharges,
        Self::AbortKeepsHold,
        Self::VoidKeepsSlot,
        Self::AdmissionRetried,
        Self::AdmissionUnconfirmed,
        Self::AdmissionNotVoided,
        Self::RefusalConsumes,
        Self::CapReadThenAdded,
        Self::CacheBelieved,
        Self::ClosedMeterAdmits,
        Self::ConcurrencyUnchecked,
        Self::FinishedWindowAdmits,
        Self::AdmissionNotDirty,
        Self::HoldTooSmall,
        Self::HoldExpiresEarly,
        Self::FreshWindow,
        Self::SealedUnscoped,
        Self::SettledByClock,
        Self::AccountAlone,
        Self::SealWithoutCondition,
        Self::SealIgnoresAccount,
        Self::RowRounded,
        Self::RowTimedBySend,
        Self::NewIdentifier,
        Self::AttemptNotNoted,
        Self::DuplicateIsRefusal,
        Self::LeaseWithoutFence,
        Self::FenceIgnored,
        Self::RetryWithoutCondition,
        Self::RejectWithoutCondition,
        Self::ImportWithoutCondition,
        Self::AnyRowDropped,
        Self::DirtyClearedEarly,
        Self::ClaimWithoutCondition,
        Self::TakenOverUnasked,
        Self::TakenOverTwice,
        Self::ClaimDroppedByAnybody,
        Self::HoldNotNoted,
        Self::BodyNotCompared,
        Self::ClaimForgottenEarly,
        Self::StopUnseen,
        Self::ItemUnlooked,
        Self::ItemAndEvent,
        Self::ItemPricedAlone,
        Self::FinalUnseen,
        Self::OldMeterGoesOn,
        Self::DebtIgnored,
    ];
}

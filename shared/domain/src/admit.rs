//! Admit: one request against every limit at once. Either a hold, with the facts that it was decided on, or a refusal
//! that says which limit, how much is left and when to come back.

use crate::{Account, Hold, HoldId, Meter, NanoUsd, Plan, Timestamp, Tokens, UserId, Window};

/// How many tokens a request can take, before anybody knows how many it will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// An upper bound of the prompt's tokens: its bytes, and what the protocol adds.
    pub prompt_most: Tokens,
    /// What is held for the prompt when `prompt_most` does not fit: a third of it. Tokens beyond it are absorbed.
    pub prompt_least: Tokens,
    /// The answer's cap.
    pub output_most: Tokens,
    /// The shortest cap that is worth answering under.
    pub output_least: Tokens,
}

/// What a hold reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldSize {
    /// For the prompt.
    pub prompt: Tokens,
    /// For the answer: the output cap that the provider is called with.
    pub output: Tokens,
}

impl HoldSize {
    /// Both together.
    pub fn total(&self) -> Tokens {
        self.prompt.saturating_add(self.output)
    }
}

impl Demand {
    /// The hold that fits into `room`: the full demand, else a third of the prompt and as much answer as is left, else
    /// none.
    pub fn fit(&self, room: Tokens) -> Option<HoldSize> {
        let full = HoldSize { prompt: self.prompt_most, output: self.output_most };
        if full.total() <= room {
            return Some(full);
        }
        let output = self.output_most.min(room.checked_sub(self.prompt_least)?);
        (output >= self.output_least).then_some(HoldSize { prompt: self.prompt_least, output })
    }

    /// The least room that any hold fits into.
    pub fn least(&self) -> Tokens {
        self.prompt_least.saturating_add(self.output_least)
    }
}

/// One attempt at admitting one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmitRequest {
    /// The attempt's own id; never used twice.
    pub id: HoldId,
    /// What it may take.
    pub demand: Demand,
    /// From when on the hold may be swept: later than any function can still work on it, by more than clocks differ.
    pub expires_at: Timestamp,
}

/// A decision to admit, and every fact that it was decided on: the write is conditional on all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whose.
    pub user: UserId,
    /// The start of the period that will be charged.
    pub period_start: Timestamp,
    /// The hold's id.
    pub id: HoldId,
    /// The hold.
    pub hold: Hold,
    /// What the hold reserves; its `output` is what the provider may write.
    pub size: HoldSize,
    /// The rate window that counts the request.
    pub window: Window,
    /// Windows too old to matter, to be removed by the same write.
    pub forget: Vec<Window>,
    /// What must still be true.
    pub facts: Facts,
}

/// What must still be true of the meter when an admission is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The meter's `rev`, exactly.
    pub rev: u64,
    /// The previous window's count, exactly: its weight went into `current_most`.
    pub previous: Option<u32>,
    /// The highest count of the current window that leaves room for one more.
    pub current_most: u32,
    /// The highest `committed` that leaves room for the hold.
    pub committed_most: Tokens,
    /// The most open holds that leave room for one more.
    pub holds_most: u16,
}

/// Which cap a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapKind {
    /// The plan's.
    Plan,
    /// The user's own.
    SpendCap,
}

/// Why a request is not admitted. It consumed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An invoice is unpaid, and the time to pay it is over. Only paying helps.
    PastDue {
        /// When it was over.
        pay_by: Timestamp,
    },
    /// What is settled leaves too little, whatever open requests turn out to take. Only the next period or a higher
    /// cap helps.
    Quota {
        /// Which cap.
        kind: CapKind,
        /// The cap, in tokens.
        cap: Tokens,
        /// What `settled` leaves of it.
        left: Tokens,
        /// The least that this request needs.
        needed: Tokens,
        /// When the next period begins.
        resets_at: Timestamp,
    },
    /// Open requests hold what this one needs.
    QuotaHeld {
        /// The cap, in tokens.
        cap: Tokens,
        /// What neither settled nor held tokens take of it.
        left: Tokens,
        /// The least that this request needs.
        needed: Tokens,
        /// An upper bound: when enough holds will have ended one way or the other.
        until_most: Timestamp,
    },
    /// As many requests are under way as the plan allows.
    Concurrency {
        /// How many.
        limit: u16,
        /// An upper bound: when the first of them will have ended.
        until_most: Timestamp,
    },
    /// The rate window is full.
    Rate {
        /// Requests in a window.
        limit: u32,
        /// The window's length in milliseconds.
        window_ms: u64,
        /// The first instant at which this same request passes, if no other comes before it.
        retry_at: Timestamp,
    },
}

/// The cap in force: the lower of the plan's and the user's own.
pub fn cap_in_force(account: &Account, plan: &Plan) -> (Tokens, CapKind) {
    match account.spend_cap {
        Some(own) if own < plan.cap => (own, CapKind::SpendCap),
        Some(_) | None => (plan.cap, CapKind::Plan),
    }
}

/// Decides one request against debt, cap, concurrency and rate.
///
/// Whoever owes is told so first, for no limit that has room again would help. Quota is next, because only a person can do something about it; then what open requests hold, because
/// nobody can know when they end; then the rate window, so that its instant is exact: nothing else is in the way.
///
/// # Errors
/// The limit that refused.
pub fn admit(
    account: &Account,
    plan: &Plan,
    meter: &Meter,
    request: &AdmitRequest,
    cost_most: impl FnOnce(HoldSize) -> NanoUsd,
    now: Timestamp,
) -> Result<Admission, Refusal> {
    if let Some(pay_by) = account.pay_by.filter(|_| account.is_overdue(now)) {
        return Err(Refusal::PastDue { pay_by });
    }
    let (cap, kind) = cap_in_force(account, plan);
    let size = fit_under(cap, kind, meter, request)?;
    let holds_most = concurrency(plan, meter)?;
    // A clock that lags behind the newest window decides in that one: the older one is finished.
    let now = now.max(meter.rate.newest.start(plan.rate));
    let window = plan.rate.window(now);
    let count = |window: Window| meter.rate.counts.get(&window).copied();
    let previous = count(window.previous());
    let current = count(window).unwrap_or(0);
    let weighing = previous.unwrap_or(0);
    let Some(current_most) = plan.rate.current_most(now, weighing, 1).filter(|most| current <= *most) else {
        let retry_at = plan.rate.earliest(now, weighing, current, 1).unwrap_or(Timestamp::MAX);
        let (limit, window_ms) = (plan.rate.requests.get(), plan.rate.window_ms.get());
        return Err(Refusal::Rate { limit, window_ms, retry_at });
    };
    let forget = meter.rate.counts.keys().copied().filter(|old| *old < window.previous()).collect();
    let tokens = size.total();
    Ok(Admission {
        user: meter.user.clone(),
        period_start: meter.period.start(),
        id: request.id.clone(),
        hold: Hold { tokens, cost_most: cost_most(size), window, expires_at: request.expires_at },
        size,
        window,
        forget,
        facts: Facts {
            rev: account.rev,
            previous,
            current_most,
            committed_most: cap.saturating_sub(tokens),
            holds_most,
        },
    })
}

fn fit_under(cap: Tokens, kind: CapKind, meter: &Meter, request: &AdmitRequest) -> Result<HoldSize, Refusal> {
    let demand = &request.demand;
    let room = cap.saturating_sub(meter.committed);
    if let Some(size) = demand.fit(room) {
        return Ok(size);
    }
    let needed = demand.least();
    let left = cap.saturating_sub(meter.settled);
    if demand.fit(left).is_none() {
        return Err(Refusal::Quota { kind, cap, left, needed, resets_at: meter.period.end() });
    }
    // Holds end at their expiry at the latest. Whether enough of what they hold comes back, only their end tells.
    // A cap that was lowered may lie below what is committed, so it is `committed` that comes down, not room that grows.
    let mut committed = meter.committed;
    let mut until_most = Timestamp::from_ms(0);
    for hold in by_expiry(meter) {
        committed = committed.saturating_sub(hold.tokens);
        until_most = hold.expires_at;
        if demand.fit(cap.saturating_sub(committed)).is_some() {
            break;
        }
    }
    Err(Refusal::QuotaHeld { cap, left: room, needed, until_most })
}

fn concurrency(plan: &Plan, meter: &Meter) -> Result<u16, Refusal> {
    let limit = plan.concurrency.get();
    let holds_most = limit.saturating_sub(1);
    let open = u16::try_from(meter.holds.len()).unwrap_or(u16::MAX);
    if open <= holds_most {
        return Ok(holds_most);
    }
    // So many holds must end; the last of the earliest of them frees the place.
    let over = usize::from(open.saturating_sub(holds_most));
    let until_most = by_expiry(meter).take(over).last().map_or(Timestamp::MAX, |hold| hold.expires_at);
    Err(Refusal::Concurrency { limit, until_most })
}

fn by_expiry(meter: &Meter) -> impl Iterator<Item = &Hold> {
    let mut holds: Vec<&Hold> = meter.holds.values().collect();
    holds.sort_by_key(|hold| hold.expires_at);
    holds.into_iter()
}

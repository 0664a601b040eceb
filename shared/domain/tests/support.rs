//! Small values to test with: one plan, one price, one demand. Nothing here decides anything.

use domain::{
    Account, Admission, AdmitRequest, Classes, Demand, HoldId, HoldSize, Meter, ModelId, ModelPrice, NanoUsd,
    Opening, Plan, PlanId, RateLimit, Refusal, Timestamp, Tokens, Usage, UserId,
};
use proptest::test_runner::{Config, FileFailurePersistence};
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};

/// How long a hold lives, in milliseconds.
pub(crate) const HOLD_MS: u64 = 90_000;
/// The rate window's length in milliseconds.
pub(crate) const WINDOW_MS: u64 = 10_000;

/// A configuration that runs `cases` cases and keeps every case that ever failed in a file that is committed, unless
/// `PROPTEST_DISABLE_FAILURE_PERSISTENCE` is set: what a deliberate defect fails on is nothing to keep.
pub(crate) fn cases(cases: u32) -> Config {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/domain.txt");
    let mut config = Config { cases, ..Config::default() };
    if config.failure_persistence.is_some() {
        config.failure_persistence = Some(Box::new(FileFailurePersistence::Direct(kept)));
    }
    config
}

pub(crate) fn tokens(value: u32) -> Tokens {
    Tokens::from_u32(value)
}

/// 2026-11-24T11:00:00Z.
pub(crate) fn start() -> Timestamp {
    Timestamp::from_s(1_795_518_000)
}

pub(crate) fn rate(requests: u32, window_ms: u64) -> RateLimit {
    RateLimit { requests: NonZeroU32::new(requests).unwrap(), window_ms: NonZeroU64::new(window_ms).unwrap() }
}

pub(crate) fn plan(id: &str, cap: u32, requests: u32, concurrency: u16) -> Plan {
    Plan {
        id: PlanId::parse(id).unwrap(),
        price_cents: 0,
        included: tokens(cap),
        cap: tokens(cap),
        overage_per_million: None,
        rate: rate(requests, WINDOW_MS),
        concurrency: NonZeroU16::new(concurrency).unwrap(),
    }
}

/// A demand that fits only as a whole: this many tokens.
pub(crate) fn exactly(size: u32) -> Demand {
    let (prompt, output) = (tokens(0), tokens(size));
    Demand { prompt_most: prompt, prompt_least: prompt, output_most: output, output_least: output }
}

pub(crate) fn id(number: u32) -> HoldId {
    HoldId::parse(&format!("h{number}")).unwrap()
}

pub(crate) fn user() -> UserId {
    UserId::parse("user_1").unwrap()
}

/// A user seen for the first time, on the plan "free".
pub(crate) fn first_seen(now: Timestamp) -> (Account, Meter) {
    let account = Account::first_seen(user(), PlanId::parse("free").unwrap(), now);
    let Opening { account, meter, .. } = Opening::first(account, now).unwrap();
    (account, meter)
}

/// One decision on these facts, for a hold that lives [`HOLD_MS`] from `now`.
pub(crate) fn decide(
    (account, meter): (&Account, &Meter),
    plan: &Plan,
    number: u32,
    demand: Demand,
    now: Timestamp,
) -> Result<Admission, Refusal> {
    let request = AdmitRequest { id: id(number), demand, expires_at: now.plus_ms(HOLD_MS) };
    domain::admit(account, plan, meter, &request, cost_most, now)
}

pub(crate) fn cost_most(size: HoldSize) -> NanoUsd {
    price().cost_most(size.prompt, size.output)
}

pub(crate) fn price() -> ModelPrice {
    let per_million = |nano| NonZeroU64::new(nano).unwrap();
    ModelPrice {
        model: ModelId::parse("gpt-6-luna").unwrap(),
        version: 1,
        input: per_million(100_000_000),
        cached_input: per_million(10_000_000),
        cache_write: per_million(125_000_000),
        output: per_million(500_000_000),
        output_max: tokens(4_096),
        reasoning_effort: None,
    }
}

/// A usage of so many prompt and answer tokens, as the provider counted them.
pub(crate) fn used(input: u32, output: u32) -> Usage {
    Usage::Exact(Classes { input: tokens(input), output: tokens(output), ..Classes::default() })
}

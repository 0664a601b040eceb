//! What a seed sets up: who uses what for how long, and what goes wrong how often. Each kind of mishap is left out of half
//! of the seeds, so that the others are also seen without it (Groce and others, "Swarm testing", 2012).

use crate::simulation::dice::Dice;
use domain::{Period, Timestamp};
use edge::plans::PlanBook;

const MINUTE_MS: u64 = 60_000;
pub(crate) const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Some first of a month, at midnight, in a leap year.
const ERA: Timestamp = Timestamp::from_s(1_830_297_600);

/// When in the life of a period's end most of a history's requests come, in milliseconds from the beginning.
const BUSY_MS: u64 = 14 * MINUTE_MS;
/// A reporter that is started so seldom may be watched for longer, in milliseconds.
const LATE_SELDOM_MS: u64 = 25 * MINUTE_MS;
/// How often a history is about what.
const KINDS: [Kind; 10] = [
    Kind::Rush,
    Kind::Rush,
    Kind::Rush,
    Kind::Rush,
    Kind::Rush,
    Kind::Rollover,
    Kind::Rollover,
    Kind::Outage,
    Kind::Late,
    Kind::Late,
];
/// What a million tokens cost: a token is 0.37 cents, one, or seven.
const NANO_USD_PER_MILLION: [u64; 3] = [3_700_000_000_000, 10_000_000_000_000, 70_000_000_000_000];
/// A cent is ten million nano-dollars; a price is of a million tokens.
const NANO_USD_E6_PER_CENT: u128 = 10_000_000 * 1_000_000;

/// What a plan costs above its flat price.
#[derive(Debug)]
struct Price {
    plan: &'static str,
    included: u64,
    nano_usd_per_million: u64,
}

/// What can go wrong, or differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mishap {
    StoreLostBefore,
    StoreLostAfter,
    StoreLate,
    StoreThrottled,
    StoreConflict,
    StoreSlow,
    StoreTornRead,
    AnswerUnkept,
    Crash,
    ProviderRefuses,
    ProviderHangs,
    ProviderCuts,
    ProviderErrs,
    ProviderHidesUsage,
    ProviderStalls,
    ProviderSlow,
    ClientLeaves,
    ClientStalls,
    StripeBusy,
    StripeErrsBefore,
    StripeErrsAfter,
    StripeLostBefore,
    StripeLostAfter,
    StripeLate,
    StripeRefuses,
    TwoReporters,
    EventTwice,
}

impl Mishap {
    pub(crate) const ALL: [Self; 27] = [
        Self::StoreLostBefore,
        Self::StoreLostAfter,
        Self::StoreLate,
        Self::StoreThrottled,
        Self::StoreConflict,
        Self::StoreSlow,
        Self::StoreTornRead,
        Self::AnswerUnkept,
        Self::Crash,
        Self::ProviderRefuses,
        Self::ProviderHangs,
        Self::ProviderCuts,
        Self::ProviderErrs,
        Self::ProviderHidesUsage,
        Self::ProviderStalls,
        Self::ProviderSlow,
        Self::ClientLeaves,
        Self::ClientStalls,
        Self::StripeBusy,
        Self::StripeErrsBefore,
        Self::StripeErrsAfter,
        Self::StripeLostBefore,
        Self::StripeLostAfter,
        Self::StripeLate,
        Self::StripeRefuses,
        Self::TwoReporters,
        Self::EventTwice,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::StoreLostBefore => "store: request lost",
            Self::StoreLostAfter => "store: answer lost after the commit",
            Self::StoreLate => "store: write lands after it was given up",
            Self::StoreThrottled => "store: throttled",
            Self::StoreConflict => "store: transaction conflict",
            Self::StoreSlow => "store: slow",
            Self::StoreTornRead => "store: account and meter read apart",
            Self::AnswerUnkept => "store: an answer cannot be kept",
            Self::Crash => "process crashes",
            Self::ProviderRefuses => "provider: refuses",
            Self::ProviderHangs => "provider: never answers",
            Self::ProviderCuts => "provider: cuts the stream",
            Self::ProviderErrs => "provider: error in the stream",
            Self::ProviderHidesUsage => "provider: no usage",
            Self::ProviderStalls => "provider: falls silent",
            Self::ProviderSlow => "provider: slow",
            Self::ClientLeaves => "client: leaves",
            Self::ClientStalls => "client: reads slowly",
            Self::StripeBusy => "stripe: 409 or 429",
            Self::StripeErrsBefore => "stripe: 500, not counted",
            Self::StripeErrsAfter => "stripe: 500, counted",
            Self::StripeLostBefore => "stripe: request lost",
            Self::StripeLostAfter => "stripe: answer lost after the commit",
            Self::StripeLate => "stripe: counts after it was given up",
            Self::StripeRefuses => "stripe: refuses for good",
            Self::TwoReporters => "two reporters at once",
            Self::EventTwice => "webhook delivered twice",
        }
    }

    /// How often in a thousand, where it is there at all.
    fn rates(self) -> [u64; 3] {
        match self {
            Self::StoreLostBefore | Self::StoreLostAfter | Self::StoreThrottled | Self::StoreConflict => {
                [5, 25, 100]
            }
            Self::StoreLate => [5, 20, 60],
            Self::StoreSlow => [5, 20, 50],
            // Of processes; where in its life one dies is drawn then.
            Self::Crash => [200, 500, 900],
            Self::StripeBusy
            | Self::StripeErrsBefore
            | Self::StripeErrsAfter
            | Self::StripeLostBefore
            | Self::StripeLostAfter
            | Self::StripeLate => [50, 150, 400],
            Self::StripeRefuses => [10, 20, 50],
            _ => [50, 150, 300],
        }
    }
}

/// What a seed's history is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Many requests in little time.
    Rush,
    /// The same, across the end of a period.
    Rollover,
    /// Days, with Stripe down for longer than it remembers an identifier.
    Outage,
    /// Hours across the end of a period, until its invoice is final and beyond, mostly with Stripe down at the end.
    Late,
}

#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) kind: Kind,
    /// What the periods of those who have subscribed before are counted from, to within a minute.
    pub(crate) anchor: Timestamp,
    /// When it begins.
    pub(crate) base: Timestamp,
    /// How long requests come, in milliseconds.
    pub(crate) active_ms: u64,
    /// How long after the beginning most of them come at the latest, in milliseconds.
    pub(crate) busy_ms: u64,
    /// How long after a period's end Stripe draws up its invoice, in milliseconds.
    pub(crate) drawn_up_ms: u64,
    /// Whether drafts wait for an answer to `invoice.created` that never comes.
    pub(crate) drafts_are_held: bool,
    pub(crate) users: u64,
    pub(crate) instances: u64,
    pub(crate) requests: u64,
    /// How many requests in a thousand have an idempotency key.
    pub(crate) keyed: u64,
    /// Whether answers are kept for repeats.
    pub(crate) keeps_answers: bool,
    /// How many in a thousand their user wants to end.
    pub(crate) stopped: u64,
    /// How many times as often the store fails claims as other things.
    pub(crate) claims_harder: u64,
    /// How often the reporter is started, in milliseconds.
    pub(crate) report_every_ms: u64,
    /// When Stripe does not answer, in milliseconds from the beginning.
    pub(crate) stripe_down: Option<(u64, u64)>,
    /// When the store does not answer, in milliseconds from the beginning.
    pub(crate) store_down: Option<(u64, u64)>,
    /// How many changes of accounts.
    pub(crate) changes: u64,
    /// How often somebody sees to rows that have ended.
    pub(crate) repairs: u64,
    /// How often usage from elsewhere is taken over.
    pub(crate) imports: u64,
    /// How often somebody takes a lease.
    pub(crate) leases: u64,
    /// How many times as often the store fails the reporter as others.
    pub(crate) reporter_harder: u64,
    /// How far the index of dirty meters may lag, in milliseconds.
    pub(crate) index_lag_ms: u64,
    /// How long after an event Stripe's summaries may not have it, in milliseconds.
    pub(crate) summary_lag_ms: u64,
    /// How far a process's clock may be off, in milliseconds.
    pub(crate) skew_ms: u64,
    pub(crate) book: PlanBook,
    prices: [Price; 2],
    rates: Vec<u64>,
}

impl Scenario {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let kind = dice.pick(&KINDS);
        let late_every_ms = dice.pick(&[3, 8, 25]) * MINUTE_MS;
        let active_ms = match kind {
            Kind::Rush => dice.between(2, 15) * MINUTE_MS,
            Kind::Rollover => dice.between(4, 12) * MINUTE_MS,
            Kind::Outage => dice.between(32, 90) * HOUR_MS,
            Kind::Late if late_every_ms < LATE_SELDOM_MS => 5 * HOUR_MS,
            Kind::Late => dice.pick(&[5, 8, 30]) * HOUR_MS,
        };
        let stripe_down = match kind {
            Kind::Outage => {
                let from = dice.between(0, 2 * HOUR_MS);
                Some((from, from + dice.pick(&[30 * HOUR_MS, 3 * DAY_MS])))
            }
            Kind::Late if dice.in_thousand(700) => {
                let from = dice.below(20 * MINUTE_MS);
                Some((from, dice.between(30 * MINUTE_MS, 4 * HOUR_MS)))
            }
            Kind::Rush | Kind::Rollover | Kind::Late => None,
        };
        let store_down = dice.in_thousand(150).then(|| {
            let from = dice.below(active_ms);
            (from, from + dice.between(1_000, 40_000))
        });
        let report_every_ms = match kind {
            Kind::Rush | Kind::Rollover => dice.pick(&[5_000, 20_000, 90_000, 3 * MINUTE_MS]),
            Kind::Outage => dice.between(1, 3) * HOUR_MS,
            Kind::Late => late_every_ms,
        };
        let rates = Mishap::ALL
            .iter()
            .map(|mishap| if dice.in_thousand(500) { dice.pick(&mishap.rates()) } else { 0 })
            .collect();
        let (anchor, base) = calendar(kind, active_ms, dice);
        let (book, prices) = book(dice);
        Self {
            kind,
            anchor,
            base,
            active_ms,
            busy_ms: if kind == Kind::Late { BUSY_MS.min(active_ms) } else { active_ms },
            drawn_up_ms: dice.pick(&[0, 0, 25 * MINUTE_MS]),
            drafts_are_held: dice.in_thousand(if kind == Kind::Late { 100 } else { 500 }),
            users: dice.between(1, 3),
            instances: dice.between(1, 3),
            requests: dice.between(4, 34),
            keyed: dice.pick(&[0, 250, 700]),
            keeps_answers: dice.in_thousand(900),
            stopped: dice.pick(&[0, 150, 400]),
            claims_harder: dice.pick(&[1, 1, 4, 10]),
            report_every_ms,
            stripe_down,
            store_down,
            changes: dice.between(0, 12),
            repairs: dice.pick(&[0, 2, 6]),
            imports: dice.pick(&[0, 0, 2]),
            leases: dice.pick(&[0, 0, 3]),
            reporter_harder: dice.pick(&[1, 4, 10]),
            index_lag_ms: dice.pick(&[0, 2_000, 5 * MINUTE_MS]),
            summary_lag_ms: dice.pick(&[0, MINUTE_MS, 10 * MINUTE_MS]),
            skew_ms: dice.pick(&[0, 500, 2_000]),
            book,
            prices,
            rates,
        }
    }

    /// Every plan that is sold.
    pub(crate) fn plans(&self) -> impl Iterator<Item = &'static str> {
        self.prices.iter().map(|price| price.plan)
    }

    /// What so many tokens of one part of a period cost above the flat price, in cents, half a cent rounded up.
    pub(crate) fn overage_cents(&self, plan: &str, tokens: u64) -> u64 {
        let price = self.prices.iter().find(|price| price.plan == plan).unwrap();
        let nano_usd_e6 =
            u128::from(tokens.saturating_sub(price.included)) * u128::from(price.nano_usd_per_million);
        u64::try_from((nano_usd_e6 + NANO_USD_E6_PER_CENT / 2) / NANO_USD_E6_PER_CENT).unwrap()
    }

    /// What a plan includes, and what a token above that costs, in cents.
    pub(crate) fn tiers(&self, plan: &str) -> (u64, String) {
        let price = self.prices.iter().find(|price| price.plan == plan).unwrap();
        let nano_usd = u128::from(price.nano_usd_per_million);
        let (whole, rest) = (nano_usd / NANO_USD_E6_PER_CENT, nano_usd % NANO_USD_E6_PER_CENT);
        (price.included, format!("{whole}.{rest:013}"))
    }

    /// How often in a thousand.
    pub(crate) fn rate(&self, mishap: Mishap) -> u64 {
        let index = Mishap::ALL.iter().position(|other| *other == mishap).unwrap();
        self.rates[index]
    }
}

/// What the first users' periods are counted from, and when the history begins: close to the end of a period where that is
/// what it is about.
fn calendar(kind: Kind, active_ms: u64, dice: &mut Dice) -> (Timestamp, Timestamp) {
    let anchor = ERA.plus_ms(dice.below(400 * DAY_MS)).floor_s();
    let period = Period::monthly(anchor, anchor).unwrap();
    let base = match kind {
        Kind::Rollover => period.end().ms() - dice.between(MINUTE_MS, active_ms - MINUTE_MS),
        Kind::Late => period.end().ms() - dice.between(2 * MINUTE_MS, 12 * MINUTE_MS),
        Kind::Rush | Kind::Outage => anchor.ms() + dice.below(20 * DAY_MS),
    };
    (anchor, Timestamp::from_ms(base))
}

/// Plans small enough that every limit is met, and so dear that a token is about a cent. What a request holds is about 1,000 tokens.
fn book(dice: &mut Dice) -> (PlanBook, [Price; 2]) {
    let window_s = dice.pick(&[2, 10, 60]);
    let free_cap = dice.between(1_500, 9_000);
    let pro_cap = dice.between(3_000, 30_000);
    let team_cap = dice.between(3_000, 30_000);
    let mut limits = || (dice.between(2, 12), dice.between(1, 6));
    let ((free_rate, free_wide), (pro_rate, pro_wide), (team_rate, team_wide)) =
        (limits(), limits(), limits());
    let mut price = |plan, cap: u64| Price {
        plan,
        included: cap / dice.pick(&[3, 20, 20]),
        nano_usd_per_million: dice.pick(&NANO_USD_PER_MILLION),
    };
    let prices = [price("pro", pro_cap), price("team", team_cap)];
    let [pro, team] = &prices;
    let book = PlanBook::parse(&format!(
        "version = 1\n\
         [[plan]]\nid = \"free\"\nprice_cents_per_month = 0\nincluded_tokens = {free_cap}\ncap_tokens = {free_cap}\n\
         requests_per_window = {free_rate}\nwindow_seconds = {window_s}\nconcurrent_requests = {free_wide}\n\
         [[plan]]\nid = \"pro\"\nprice_cents_per_month = 2000\nincluded_tokens = {}\ncap_tokens = {pro_cap}\n\
         overage_nano_usd_per_million_tokens = {}\n\
         requests_per_window = {pro_rate}\nwindow_seconds = {window_s}\nconcurrent_requests = {pro_wide}\n\
         base_lookup_key = \"pro_base\"\nmetered_lookup_key = \"pro_metered\"\n\
         [[plan]]\nid = \"team\"\nprice_cents_per_month = 9000\nincluded_tokens = {}\ncap_tokens = {team_cap}\n\
         overage_nano_usd_per_million_tokens = {}\n\
         requests_per_window = {team_rate}\nwindow_seconds = {window_s}\nconcurrent_requests = {team_wide}\n\
         base_lookup_key = \"team_base\"\nmetered_lookup_key = \"team_metered\"\n",
        pro.included, pro.nano_usd_per_million, team.included, team.nano_usd_per_million
    ));
    (book.unwrap(), prices)
}

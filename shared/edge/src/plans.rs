//! The plan book: `infra/plans.toml`, from which both the limits that are enforced and the prices at Stripe are made.

use domain::{InvalidPlans, Plan, PlanId, Plans, RateLimit, Tokens};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

/// The file as it is compiled in.
const BUILT_IN: &str = include_str!("../../../infra/plans.toml");
const MS_PER_S: u64 = 1_000;
const MS_PER_DAY: u64 = 24 * 60 * 60 * MS_PER_S;
/// How long a user whose invoice is unpaid goes on unless the book says otherwise, in days.
const GRACE_DAYS: u64 = 7;
/// The longest that a user whose invoice is unpaid may go on, in days.
const GRACE_DAYS_MAX: u64 = 60;
/// The longest name of a plan, in characters: it stands on an invoice.
const NAME_CHARS_MAX: usize = 100;

/// The lookup keys of a plan's two prices at Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupKeys {
    /// Of the flat price of a period.
    pub base: Box<str>,
    /// Of the metered, tiered price.
    pub metered: Box<str>,
}

/// The plans and how Stripe names their prices.
#[derive(Clone, Debug)]
pub struct PlanBook {
    version: u32,
    grace_ms: u64,
    plans: Plans,
    names: Vec<(PlanId, Box<str>)>,
    keys: Vec<(PlanId, LookupKeys)>,
}

/// Why a plan book cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPlanBook {
    /// The file cannot be read.
    #[error("{0} cannot be read")]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It is not the TOML that a plan book is. The message names line and field.
    #[error("not a plan book: {0}")]
    Malformed(String),
    /// A value is outside its type's range.
    #[error("plan {0}: {1}")]
    Value(String, String),
    /// The grace is out of range.
    #[error("past_due_grace_days is {0}: 0 to {GRACE_DAYS_MAX} days")]
    Grace(u64),
    /// The plans contradict each other.
    #[error(transparent)]
    Plans(#[from] InvalidPlans),
    /// A plan that costs something has no price at Stripe, or a lookup key stands alone.
    #[error(
        "plan {0}: base_lookup_key and metered_lookup_key go together, and a plan with a price needs both"
    )]
    Keys(PlanId),
    /// Two prices have one lookup key.
    #[error("lookup key {0} is used twice")]
    DuplicateKey(Box<str>),
}

impl PlanBook {
    /// The book that was compiled in.
    ///
    /// # Errors
    /// When the file that was compiled in is not one; a test holds that it is.
    pub fn built_in() -> Result<Self, InvalidPlanBook> {
        Self::parse(BUILT_IN)
    }

    /// The book in this file, or the one compiled in.
    ///
    /// # Errors
    /// When the file cannot be read or is not a plan book.
    pub fn load(file: Option<&Path>) -> Result<Self, InvalidPlanBook> {
        match file {
            None => Self::built_in(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| InvalidPlanBook::Unreadable(path.to_owned(), error))?;
                Self::parse(&text)
            }
        }
    }

    /// Reads a plan book.
    ///
    /// # Errors
    /// When a field is missing, unknown or out of range, or the plans contradict each other.
    pub fn parse(text: &str) -> Result<Self, InvalidPlanBook> {
        let file: BookToml =
            toml::from_str(text).map_err(|error| InvalidPlanBook::Malformed(error.to_string()))?;
        if file.past_due_grace_days > GRACE_DAYS_MAX {
            return Err(InvalidPlanBook::Grace(file.past_due_grace_days));
        }
        let grace_ms = file.past_due_grace_days.saturating_mul(MS_PER_DAY);
        let mut plans = Vec::with_capacity(file.plan.len());
        let mut names = Vec::new();
        let mut keys = Vec::new();
        let mut used = BTreeSet::new();
        for entry in file.plan {
            let name = entry.name()?;
            let (plan, lookup_keys) = entry.parse()?;
            if let Some(name) = name {
                names.push((plan.id.clone(), name));
            }
            if let Some(lookup_keys) = lookup_keys {
                for key in [&lookup_keys.base, &lookup_keys.metered] {
                    if !used.insert(key.clone()) {
                        return Err(InvalidPlanBook::DuplicateKey(key.clone()));
                    }
                }
                keys.push((plan.id.clone(), lookup_keys));
            }
            plans.push(plan);
        }
        Ok(Self { version: file.version, grace_ms, plans: Plans::new(plans)?, names, keys })
    }

    /// The book's version; raised by every change.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// How long a user whose invoice is unpaid goes on before nothing is admitted, in milliseconds.
    pub fn grace_ms(&self) -> u64 {
        self.grace_ms
    }

    /// What the customer reads on Stripe's pages: the plan's name, or its id where it has none.
    pub fn name<'a>(&'a self, plan: &'a PlanId) -> &'a str {
        self.names.iter().find(|(id, _)| id == plan).map_or(plan.as_str(), |(_, name)| name)
    }

    /// The plans that are sold, in the book's order, with the lookup keys of their prices.
    pub fn sold(&self) -> impl Iterator<Item = (&Plan, &LookupKeys)> {
        self.plans.iter().filter_map(|plan| Some((plan, self.lookup_keys(&plan.id)?)))
    }

    /// The plans.
    pub fn plans(&self) -> &Plans {
        &self.plans
    }

    /// The lookup keys of a plan's prices; none for a plan that is not sold.
    pub fn lookup_keys(&self, plan: &PlanId) -> Option<&LookupKeys> {
        self.keys.iter().find(|(id, _)| id == plan).map(|(_, keys)| keys)
    }

    /// The plan that a price of this lookup key, flat or metered, belongs to.
    pub fn plan_of_price(&self, lookup_key: &str) -> Option<&Plan> {
        let is_it = |keys: &LookupKeys| *keys.base == *lookup_key || *keys.metered == *lookup_key;
        let (id, _) = self.keys.iter().find(|(_, keys)| is_it(keys))?;
        self.plans.get(id)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BookToml {
    version: u32,
    #[serde(default = "default_grace_days")]
    past_due_grace_days: u64,
    plan: Vec<PlanToml>,
}

fn default_grace_days() -> u64 {
    GRACE_DAYS
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanToml {
    id: String,
    name: Option<Box<str>>,
    price_cents_per_month: u32,
    included_tokens: u64,
    cap_tokens: u64,
    overage_nano_usd_per_million_tokens: Option<NonZeroU64>,
    requests_per_window: NonZeroU32,
    window_seconds: NonZeroU32,
    concurrent_requests: NonZeroU16,
    base_lookup_key: Option<Box<str>>,
    metered_lookup_key: Option<Box<str>>,
}

impl PlanToml {
    fn name(&self) -> Result<Option<Box<str>>, InvalidPlanBook> {
        let is_one = |name: &str| {
            let length = name.chars().count();
            (1..=NAME_CHARS_MAX).contains(&length) && name.trim() == name && !name.contains(char::is_control)
        };
        match &self.name {
            Some(name) if !is_one(name) => {
                let what = format!("name must have 1 to {NAME_CHARS_MAX} characters on one line");
                Err(InvalidPlanBook::Value(self.id.clone(), what))
            }
            name => Ok(name.clone()),
        }
    }

    fn parse(self) -> Result<(Plan, Option<LookupKeys>), InvalidPlanBook> {
        let value = |what: String| InvalidPlanBook::Value(self.id.clone(), what);
        let tokens = |number: u64| Tokens::new(number).map_err(|error| value(error.to_string()));
        let window_ms = NonZeroU64::new(u64::from(self.window_seconds.get()).saturating_mul(MS_PER_S))
            .ok_or_else(|| value("window_seconds must be positive".to_owned()))?;
        let plan = Plan {
            id: PlanId::parse(&self.id).map_err(|error| value(error.to_string()))?,
            price_cents: self.price_cents_per_month,
            included: tokens(self.included_tokens)?,
            cap: tokens(self.cap_tokens)?,
            overage_per_million: self.overage_nano_usd_per_million_tokens,
            rate: RateLimit { requests: self.requests_per_window, window_ms },
            concurrency: self.concurrent_requests,
        };
        let priced = plan.price_cents > 0 || plan.overage_per_million.is_some();
        match (self.base_lookup_key, self.metered_lookup_key) {
            (Some(base), Some(metered)) => Ok((plan, Some(LookupKeys { base, metered }))),
            (None, None) if !priced => Ok((plan, None)),
            _ => Err(InvalidPlanBook::Keys(plan.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_that_is_compiled_in_is_one() {
        let book = PlanBook::built_in().unwrap();
        assert_eq!(book.plans().first().id.as_str(), "free");
        let pro = PlanId::parse("pro").unwrap();
        let plan = book.plans().get(&pro).unwrap();
        assert_eq!(plan.price_cents, 2_000);
        assert_eq!(plan.included, Tokens::from_u32(500_000));
        assert_eq!(plan.overage_per_million.map(NonZeroU64::get), Some(2_000_000_000));
        assert_eq!(plan.rate.window_ms.get(), 60_000);
        let keys = book.lookup_keys(&pro).unwrap();
        assert_eq!(book.plan_of_price(&keys.base).map(|plan| &plan.id), Some(&pro));
        assert_eq!(book.plan_of_price(&keys.metered).map(|plan| &plan.id), Some(&pro));
        assert!(book.plan_of_price("no such price").is_none());
        assert_eq!(book.grace_ms(), 7 * 24 * 3_600 * 1_000);
        assert_eq!(book.name(&pro), "Inkmeter Pro");
        let free = &book.plans().first().id;
        assert_eq!(book.name(free), "free");
        let sold: Vec<_> = book.sold().map(|(plan, keys)| (plan.id.as_str(), &*keys.base)).collect();
        assert_eq!(sold, [("pro", "inkmeter_pro_base_v1")]);
    }

    /// The built-in book with one line replaced.
    #[track_caller]
    fn check(line: &str, instead: &str, complaint: &str) {
        assert!(BUILT_IN.contains(line));
        let error = PlanBook::parse(&BUILT_IN.replacen(line, instead, 1)).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }

    #[test]
    fn a_malformed_book_is_refused_by_name() {
        check("version = 2", "version = 2\nvirsion = 2", "virsion");
        check("past_due_grace_days = 7", "past_due_grace_days = 61", "0 to 60 days");
        check("\"Inkmeter Pro\"", "\"\"", "plan pro: name");
        check("\"Inkmeter Pro\"", "\"Ink\\nmeter\"", "plan pro: name");
        check("requests_per_window = 10", "requests_per_window = 0", "requests_per_window");
        check("included_tokens = 20_000", "included_tokens = 2_000_000_000_000_000", "plan free");
        check("base_lookup_key = ", "metered_lookup_key = ", "metered_lookup_key");
        check("base_lookup_key = \"inkmeter_pro_base_v1\"", "", "go together");
        check("\"inkmeter_pro_base_v1\"", "\"inkmeter_pro_tokens_v1\"", "used twice");
        check("cap_tokens = 20_000", "cap_tokens = 10_000", "below the included");
    }
}

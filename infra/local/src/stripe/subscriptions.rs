//! Subscriptions: their creation, their lists and their end.
//!
//! Owns the parameters of these endpoints. Changes are in `subscription_update`, what time does in `billing`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::billing::{self, Base, Leaves};
use super::calendar::{Cycle, DAY_S};
use super::catalog::{Era, merge_metadata};
use super::error::ApiError;
use super::form::Params;
use super::invoices::{self, Bill};
use super::payments::Card;
use super::world::{
    BillingMode, CancelAt, Ending, Item, NoCard, Price, Reason, Status, Subscription, Trial, World,
};
use super::{proration, wire};

/// Most items of a subscription.
pub(super) const MAX_ITEMS: usize = 20;
/// Largest quantity of a licensed item.
const MAX_QUANTITY: u64 = 1_000_000;
/// Longest trial, in days.
const MAX_TRIAL_DAYS: i64 = 730;
/// Periods ahead that a cancellation can be set for.
const MAX_PERIODS_AHEAD: u32 = 1_200;

const EXPANDABLE: &[&str] = &["customer", "latest_invoice", "schedule"];
/// What a charge can hold as an object.
pub(super) const CUSTOMER_ONLY: &[&str] = &["customer"];

/// What neither the creation nor a change models.
pub(super) const NOT_MODELLED: &[&str] = &[
    "add_invoice_items",
    "application_fee_percent",
    "automatic_tax",
    "billing_cycle_anchor_config",
    "billing_schedules",
    "billing_thresholds",
    "cancellation_details",
    "customer_account",
    "days_until_due",
    "default_source",
    "default_tax_rates",
    "discounts",
    "invoice_settings",
    "on_behalf_of",
    "payment_settings",
    "pending_invoice_item_interval",
    "proration_date",
    "transfer_data",
    "trial_from_plan",
];

/// What happens to the time that is left when a subscription changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prorates {
    /// It goes on the next invoice.
    Later,
    /// It is invoiced at once.
    AtOnce,
    /// Nothing.
    Not,
}

/// What happens when a payment that a request wants at once fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PaymentBehavior {
    /// The subscription is there, and incomplete or past due.
    Allow,
    /// No payment is tried: the first invoice waits.
    Default,
    /// The request is refused.
    Error,
}

/// What a request wants of something that can be set and taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted<T> {
    Set(T),
    Unset,
}

impl Prorates {
    /// Stripe's word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Later => "create_prorations",
            Self::AtOnce => "always_invoice",
            Self::Not => "none",
        }
    }
}

impl<T> Wanted<T> {
    /// What it is then.
    pub(super) fn set(self) -> Option<T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Unset => None,
        }
    }
}

/// When a trial is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrialEnd {
    Now,
    At(i64),
}

pub(super) fn prorates(params: &mut Params) -> Result<Prorates, ApiError> {
    let choices = [
        ("create_prorations", Prorates::Later),
        ("always_invoice", Prorates::AtOnce),
        ("none", Prorates::Not),
    ];
    Ok(params.choice("proration_behavior", &choices)?.unwrap_or(Prorates::Later))
}

pub(super) fn payment_behavior(params: &mut Params) -> Result<PaymentBehavior, ApiError> {
    let choices = [
        ("allow_incomplete", Some(PaymentBehavior::Allow)),
        ("default_incomplete", Some(PaymentBehavior::Default)),
        ("error_if_incomplete", Some(PaymentBehavior::Error)),
        ("pending_if_incomplete", None),
    ];
    match params.choice("payment_behavior", &choices)? {
        None => Ok(PaymentBehavior::Allow),
        Some(None) => Err(ApiError::not_modelled("payment_behavior=pending_if_incomplete")),
        Some(Some(behavior)) => Ok(behavior),
    }
}

/// A recurring, active price that can be attached.
pub(super) fn price_of<'a>(world: &'a World, name: &str, id: &str, era: Era) -> Result<&'a Price, ApiError> {
    let price = world.prices.get(id).ok_or_else(|| ApiError::no_such_for(name, "price", id))?;
    if !price.active {
        let message = format!("The price specified is inactive. This field only accepts active prices: {id}");
        return Err(ApiError::invalid(name, message));
    }
    if price.recurring.is_none() {
        let message = "The price specified is set to `type=one_time` but this field only accepts prices with \
                       `type=recurring`.";
        return Err(ApiError::invalid(name, message));
    }
    if billing::is_legacy(price) && era == Era::Now {
        return Err(ApiError::legacy_price(name));
    }
    Ok(price)
}

/// The quantity of an item: none for a metered price; what is given, or `otherwise`, for a licensed one.
pub(super) fn quantity_of(
    price: &Price,
    name: &str,
    quantity: Option<u64>,
    otherwise: u64,
) -> Result<Option<u64>, ApiError> {
    if !billing::is_metered(price) {
        let quantity = quantity.unwrap_or(otherwise);
        let message = format!("The quantity must be at most {MAX_QUANTITY}.");
        return if quantity <= MAX_QUANTITY {
            Ok(Some(quantity))
        } else {
            Err(ApiError::invalid(name, message))
        };
    }
    if quantity.is_none() {
        return Ok(None);
    }
    let message =
        "Quantity should not be specified where usage_type is `metered`. Remove quantity from `items`.";
    Err(ApiError::invalid(name, message))
}

/// What an item cannot have here.
pub(super) const ITEM_NOT_MODELLED: &[&str] =
    &["billing_thresholds", "current_trial", "discounts", "plan", "price_data", "tax_rates"];

fn items(world: &mut World, params: &mut Params, era: Era, now_s: i64) -> Result<Vec<Item>, ApiError> {
    let hashes = params.hashes("items")?;
    if hashes.is_empty() {
        return Err(ApiError::missing("items"));
    }
    let mut items: Vec<Item> = Vec::new();
    for mut hash in hashes {
        hash.refuse_unmodelled(ITEM_NOT_MODELLED)?;
        let name = hash.name("price");
        let id = hash.required("price")?;
        let quantity_name = hash.name("quantity");
        let quantity = hash.natural("quantity")?;
        let quantity = quantity_of(price_of(world, &name, &id, era)?, &quantity_name, quantity, 1)?;
        let mut metadata = BTreeMap::new();
        merge_metadata(&mut metadata, hash.metadata()?);
        hash.finish()?;
        items.push(new_item(world, id, quantity, metadata, now_s));
    }
    Ok(items)
}

/// An item that begins now.
pub(super) fn new_item(
    world: &mut World,
    price: String,
    quantity: Option<u64>,
    metadata: BTreeMap<String, String>,
    now_s: i64,
) -> Item {
    Item {
        id: world.ids.next("si"),
        created_s: now_s,
        price,
        quantity,
        metadata,
        usage_from_s: now_s,
        debit: None,
    }
}

/// The currency and cycle that all items share.
pub(super) fn terms(world: &World, prices: &[&str]) -> Result<(String, Cycle), ApiError> {
    if prices.len() > MAX_ITEMS {
        return Err(ApiError::invalid("items", format!("A subscription can have up to {MAX_ITEMS} items.")));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = prices.iter().find(|price| !seen.insert(**price)) {
        let message = format!("Cannot add multiple subscription items with the same price: {twice}");
        return Err(ApiError::invalid("items", message));
    }
    let prices = prices.iter().filter_map(|price| world.prices.get(price));
    let mut terms =
        prices.filter_map(|price| Some((price.currency.clone(), price.recurring.as_ref()?.cycle)));
    let (currency, cycle) = terms.next().ok_or_else(|| ApiError::missing("items"))?;
    for (other_currency, other_cycle) in terms {
        if other_currency != currency {
            return Err(ApiError::invalid(
                "currency",
                "The prices of a subscription must all have its currency.",
            ));
        }
        if other_cycle != cycle {
            return Err(ApiError::not_modelled("items with different intervals"));
        }
    }
    Ok((currency, cycle))
}

/// When a trial is to end.
pub(super) fn trial_end(params: &mut Params, now_s: i64) -> Result<Option<TrialEnd>, ApiError> {
    let Some(text) = params.text("trial_end")? else { return Ok(None) };
    if text == "now" {
        return Ok(Some(TrialEnd::Now));
    }
    let end_s: i64 = text.parse().map_err(|_| ApiError::not_an_integer("trial_end", &text))?;
    if end_s <= now_s {
        return Err(ApiError::invalid("trial_end", "Timestamp must be in the future."));
    }
    if end_s > now_s + MAX_TRIAL_DAYS * DAY_S {
        return Err(ApiError::invalid("trial_end", "A trial can be at most 730 days long."));
    }
    Ok(Some(TrialEnd::At(end_s)))
}

/// What a trial that ends without a card comes to.
pub(super) fn no_card(params: &mut Params) -> Result<Option<NoCard>, ApiError> {
    let Some(mut settings) = params.hash("trial_settings")? else { return Ok(None) };
    let mut behavior = settings.required_hash("end_behavior")?;
    let choices =
        [("create_invoice", NoCard::CreateInvoice), ("cancel", NoCard::Cancel), ("pause", NoCard::Pause)];
    let choice = behavior.required_choice("missing_payment_method", &choices)?;
    behavior.finish()?;
    settings.finish()?;
    Ok(Some(choice))
}

fn trial(params: &mut Params, now_s: i64) -> Result<Option<Trial>, ApiError> {
    let no_card = no_card(params)?.unwrap_or(NoCard::CreateInvoice);
    let end = trial_end(params, now_s)?;
    let days = params.integer("trial_period_days")?;
    let end_s = match (end, days) {
        (Some(_), Some(_)) => {
            let message = "You may only specify one of these parameters: trial_end, trial_period_days.";
            return Err(ApiError::exclusive("trial_end", message));
        }
        (Some(TrialEnd::At(end_s)), None) => Some(end_s),
        (Some(TrialEnd::Now) | None, None) => None,
        (None, Some(days)) if (1..=MAX_TRIAL_DAYS).contains(&days) => Some(now_s + days * DAY_S),
        (None, Some(_)) => {
            let message = format!("trial_period_days must be between 1 and {MAX_TRIAL_DAYS}.");
            return Err(ApiError::invalid("trial_period_days", message));
        }
    };
    Ok(end_s.map(|end_s| Trial { start_s: now_s, end_s, warned: false, no_card }))
}

/// A wish for a subscription's end.
pub(super) fn ending(
    params: &mut Params,
    period_end_s: i64,
    now_s: i64,
) -> Result<Option<Wanted<CancelAt>>, ApiError> {
    let at_period_end = params.boolean("cancel_at_period_end")?;
    let at = params.text_or_unset("cancel_at")?;
    match (at_period_end, at.as_deref()) {
        (Some(true), Some(_)) => {
            let message = "You may only specify one of these parameters: cancel_at, cancel_at_period_end.";
            Err(ApiError::exclusive("cancel_at", message))
        }
        (Some(true), None) => Ok(Some(Wanted::Set(CancelAt::PeriodEnd))),
        (_, Some("")) | (Some(false), None) => Ok(Some(Wanted::Unset)),
        (_, Some("min_period_end" | "max_period_end")) => Ok(Some(Wanted::Set(CancelAt::Time(period_end_s)))),
        (_, Some(text)) => {
            let at_s: i64 = text.parse().map_err(|_| ApiError::not_an_integer("cancel_at", text))?;
            if at_s <= now_s {
                return Err(ApiError::invalid("cancel_at", "cancel_at must be in the future."));
            }
            Ok(Some(Wanted::Set(CancelAt::Time(at_s))))
        }
        (None, None) => Ok(None),
    }
}

/// A cancellation within a period prorates, which is not modelled: it has to be asked for without proration, or to fall on
/// the end of a period.
pub(super) fn ends_with_a_period(
    of: &Subscription,
    at: CancelAt,
    prorates: Prorates,
) -> Result<(), ApiError> {
    let CancelAt::Time(at_s) = at else { return Ok(()) };
    let mut ends = (of.end_index..of.end_index.saturating_add(MAX_PERIODS_AHEAD))
        .map_while(|index| of.cycle.boundary(of.anchor_s, index));
    if prorates == Prorates::Not || ends.find(|end_s| *end_s >= at_s) == Some(at_s) {
        Ok(())
    } else {
        Err(ApiError::not_modelled("cancel_at within a period, with proration"))
    }
}

/// The anchor of a new subscription, the boundary that ends its first period, and what that period costs; no base at all
/// for a first stretch that is not prorated.
fn first_period(
    cycle: Cycle,
    trial: Option<Trial>,
    anchor_s: Option<i64>,
    prorates: Prorates,
    now_s: i64,
) -> Result<(i64, u32, Option<Base>), ApiError> {
    let Some(anchor_s) = anchor_s else {
        return Ok(match trial {
            Some(trial) => (trial.end_s, 0, Some(Base::Free)),
            None => (now_s, 1, Some(Base::Whole)),
        });
    };
    if trial.is_some() {
        return Err(ApiError::not_modelled("billing_cycle_anchor with a trial"));
    }
    let natural_s = cycle.boundary(now_s, 1).ok_or_else(|| ApiError::server(500))?;
    if anchor_s <= now_s || anchor_s > natural_s {
        let message = "billing_cycle_anchor must be in the future and cannot be later than the next natural billing \
                       date.";
        return Err(ApiError::invalid("billing_cycle_anchor", message));
    }
    let before_s = cycle.before(anchor_s).ok_or_else(|| ApiError::server(500))?;
    let base = Base::Part { of_s: anchor_s - before_s };
    Ok((anchor_s, 0, (prorates != Prorates::Not).then_some(base)))
}

/// Refuses a creation that wants money at once from a card that is not there or, if so asked, does not work.
fn can_pay(
    world: &World,
    of: &Subscription,
    base: Option<Base>,
    behavior: PaymentBehavior,
) -> Result<(), ApiError> {
    let costs = |item: &Item| {
        item.quantity.and_then(|quantity| proration::full_cents(world, &item.price, quantity)).unwrap_or(0)
            > 0
    };
    let wants = !matches!(base, None | Some(Base::Free)) && of.items.iter().any(costs);
    let card = world.customers.get(&of.customer).map_or(Card::None, |customer| customer.card);
    match (behavior, card) {
        (PaymentBehavior::Allow | PaymentBehavior::Error, Card::None) if wants => {
            Err(ApiError::no_payment_method())
        }
        (PaymentBehavior::Error, Card::Fails) if wants => Err(ApiError::card_declined()),
        _ => Ok(()),
    }
}

/// `POST /v1/subscriptions`
pub(super) fn create(world: &mut World, mut params: Params, era: Era, now_s: i64) -> Result<Value, ApiError> {
    params.refuse_unmodelled(NOT_MODELLED)?;
    params.refuse_unmodelled(&["backdate_start_date", "pause_collection"])?;
    let customer = params.required("customer")?;
    params.choice("collection_method", &[("charge_automatically", ())])?;
    let wanted_currency = params.text("currency")?;
    let description = params.text_or_unset("description")?.filter(|text| !text.is_empty());
    let default_payment_method = params.text("default_payment_method")?;
    params.boolean("off_session")?;
    if let Some(mut mode) = params.hash("billing_mode")? {
        if !mode.required_choice("type", &[("flexible", true), ("classic", false)])? {
            return Err(ApiError::not_modelled("billing_mode[type]=classic"));
        }
        mode.finish()?;
    }
    let mut metadata = BTreeMap::new();
    merge_metadata(&mut metadata, params.metadata()?);
    let (prorates, behavior) = (prorates(&mut params)?, payment_behavior(&mut params)?);
    let (trial, anchor_s) = (trial(&mut params, now_s)?, params.integer("billing_cycle_anchor")?);
    let expand = params.expand(EXPANDABLE)?;
    let items = items(world, &mut params, era, now_s)?;
    let prices: Vec<&str> = items.iter().map(|item| item.price.as_str()).collect();
    let (currency, cycle) = terms(world, &prices)?;
    if wanted_currency.is_some_and(|wanted| wanted != currency) {
        let message = "The prices of a subscription must all have its currency.";
        return Err(ApiError::invalid("currency", message));
    }
    let (anchor_s, end_index, base) = first_period(cycle, trial, anchor_s, prorates, now_s)?;
    let period_end_s = cycle.boundary(anchor_s, end_index).ok_or_else(|| ApiError::server(500))?;
    let ending = ending(&mut params, period_end_s, now_s)?.and_then(Wanted::set);
    params.finish()?;
    if world.customers.get(&customer).is_none() {
        return Err(ApiError::no_such_for("customer", "customer", &customer));
    }
    let subscription = Subscription {
        id: world.ids.next("sub"),
        created_s: now_s,
        customer,
        currency,
        cycle,
        anchor_s,
        end_index,
        period_start_s: now_s,
        period_end_s,
        status: if trial.is_some() { Status::Trialing } else { Status::Active },
        mode: match era {
            Era::Now => BillingMode::Flexible { since_s: None },
            Era::BeforeMeters => BillingMode::Classic,
        },
        schedule: None,
        ending: ending.map(|at| Ending { at, asked_s: now_s }),
        canceled_s: ending.map(|_| now_s),
        ended_s: None,
        end_reason: None,
        trial,
        pause: None,
        items,
        metadata,
        description,
        default_payment_method,
        latest_invoice: None,
    };
    if let Some(at) = ending {
        ends_with_a_period(&subscription, at, prorates)?;
    }
    can_pay(world, &subscription, base, behavior)?;
    world.invoices.ensure_room(1)?;
    let id = subscription.id.clone();
    world.subscriptions.insert(subscription)?;
    world.next_due_s = None;
    start(world, &id, base, behavior, now_s);
    answer(world, &id, &expand)
}

/// Bills a new subscription and tells of it.
fn start(world: &mut World, id: &str, base: Option<Base>, behavior: PaymentBehavior, now_s: i64) {
    let plan = base.map_or_else(Vec::new, |base| billing::plan_base(world, id, base));
    let bill = Bill { plan, period: (now_s, now_s), reason: Reason::Create };
    let paid = if behavior == PaymentBehavior::Default {
        let invoice = invoices::draft(world, id, bill, now_s);
        invoice.map(|invoice| {
            invoices::finalize(world, &invoice, now_s);
            world.invoices.get(&invoice).is_some_and(|invoice| invoice.open_cents().is_none())
        })
    } else {
        invoices::bill_at_once(world, id, bill, now_s)
    };
    if let Some(subscription) = world.subscriptions.get_mut(id).filter(|_| paid == Some(false)) {
        subscription.status = Status::Incomplete;
        world.next_due_s = None;
    }
    billing::announce_subscription(world, id, "customer.subscription.created", None, now_s);
    billing::warn_of_trial_end(world, id, now_s);
}

/// A subscription, as an answer.
pub(super) fn answer(world: &World, id: &str, expand: &BTreeSet<String>) -> Result<Value, ApiError> {
    let subscription = world.subscriptions.get(id).ok_or_else(|| ApiError::no_such("subscription", id))?;
    Ok(wire::subscription(world, subscription, expand))
}

/// What a request about one subscription may want as objects.
pub(super) fn expand(params: &mut Params) -> Result<BTreeSet<String>, ApiError> {
    params.expand(EXPANDABLE)
}

/// `GET /v1/subscriptions/:id`
pub(super) fn retrieve(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    let expand = expand(&mut params)?;
    params.finish()?;
    answer(world, id, &expand)
}

/// Which subscriptions a list is to hold.
fn has_status(word: Option<&str>, of: &Subscription) -> bool {
    match word {
        None => of.status != Status::Canceled,
        Some("all") => true,
        Some("ended") => of.status.is_over(),
        Some(word) => of.status.as_str() == word,
    }
}

/// `GET /v1/subscriptions`
pub(super) fn list(world: &World, mut params: Params) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&[
        "automatic_tax",
        "collection_method",
        "created",
        "current_period_end",
        "current_period_start",
        "customer_account",
        "plan",
        "test_clock",
    ])?;
    let customer = params.text("customer")?;
    let price = params.text("price")?;
    let statuses = [
        "incomplete",
        "incomplete_expired",
        "trialing",
        "active",
        "past_due",
        "unpaid",
        "paused",
        "canceled",
        "ended",
        "all",
    ];
    let status = params.choice("status", &statuses.map(|word| (word, word)))?;
    let page = params.page()?;
    let expand: BTreeSet<String> = params
        .expand(&["data.customer", "data.latest_invoice", "data.schedule"])?
        .iter()
        .filter_map(|field| field.strip_prefix("data.").map(str::to_owned))
        .collect();
    params.finish()?;
    let (found, more) = world.subscriptions.page(&page, |subscription| {
        has_status(status, subscription)
            && customer.as_ref().is_none_or(|customer| subscription.customer == *customer)
            && price.as_ref().is_none_or(|price| subscription.items.iter().any(|item| item.price == *price))
    })?;
    let data: Vec<Value> = found.into_iter().map(|found| wire::subscription(world, found, &expand)).collect();
    Ok(wire::list("/v1/subscriptions", &data, more))
}

/// `DELETE /v1/subscriptions/:id`
///
/// Usage that no invoice holds yet is billed only with `invoice_now`: without it, it is lost, as in the real API.
pub(super) fn cancel(world: &mut World, id: &str, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&["cancellation_details"])?;
    let invoice_now = params.boolean("invoice_now")?.unwrap_or(false);
    let prorate = params.boolean("prorate")?.unwrap_or(false);
    let expand = expand(&mut params)?;
    params.finish()?;
    let of = world.subscriptions.get(id).filter(|found| !found.status.is_over()).cloned();
    let of = of.ok_or_else(|| ApiError::no_such("subscription", id))?;
    stop(world, &of, invoice_now, prorate, now_s)?;
    answer(world, id, &expand)
}

/// Ends a subscription at once, with an invoice for what it used, and with a credit for what it did not, as wanted.
pub(super) fn stop(
    world: &mut World,
    of: &Subscription,
    invoice_now: bool,
    prorate: bool,
    now_s: i64,
) -> Result<(), ApiError> {
    world.invoices.ensure_room(1)?;
    world.invoice_items.ensure_room(MAX_ITEMS)?;
    for item in of.items.iter().filter(|_| prorate && of.status != Status::Trialing) {
        proration::credit(world, of, item, now_s)?;
    }
    let leaves = match (invoice_now, prorate) {
        (true, _) => Leaves::Invoice,
        (false, true) => Leaves::Pending,
        (false, false) => Leaves::Nothing,
    };
    billing::cancel(world, &of.id, "cancellation_requested", leaves, now_s);
    Ok(())
}

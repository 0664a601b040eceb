//! What is planned, against a Stripe that is a value: every state, every prefix of the steps, every conflict.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; the helpers are part of it")]

use edge::plans::PlanBook;
use ops::setup::SetupArguments;
use ops::setup::environment::{sam_deploy, variables};
use ops::setup::plan::{Action, Conflict, Step, plan};
use ops::setup::present::Present;
use ops::setup::wanted::{SecretWish, Wanted, WantedCharge, events};
use std::collections::BTreeMap;
use stripe::setup::{
    API_VERSION, Channel, Charge, Endpoint, Interval, Meter, ObjectId, Portal, Price, Product,
};

const BOOK: &str = include_str!("../../plans.toml");
const AGENCY: &str = include_str!("../../../tests/agency.toml");
const URL: &str = "https://api.example.com/v1/webhooks/stripe";
const CHANNELS: [Channel; 2] = [Channel::Snapshot, Channel::Thin];

fn wanted_of(book: &str) -> Wanted {
    let arguments = SetupArguments {
        portal_return_url: Some("https://app.example.com/".to_owned()),
        ..SetupArguments::for_testing(URL)
    };
    Wanted::of(&PlanBook::parse(book).unwrap(), &arguments).unwrap()
}

fn wanted() -> Wanted {
    wanted_of(&format!("{BOOK}{AGENCY}"))
}

fn id(text: &str) -> ObjectId {
    ObjectId::parse(text).unwrap()
}

/// A Stripe that does as it is told.
#[derive(Clone, Default)]
struct Account {
    present: Present,
    made: u32,
}

impl Account {
    fn next(&mut self, kind: &str) -> ObjectId {
        self.made += 1;
        id(&format!("{kind}_{}", self.made))
    }

    fn product_of(&self, plan: &str) -> ObjectId {
        let marked = self.present.products.iter().find(|product| product.plan.as_deref() == Some(plan));
        marked.unwrap().id.clone()
    }

    fn endpoints(&mut self, channel: Channel) -> &mut Vec<Endpoint> {
        self.present.endpoints.entry(channel).or_default()
    }

    fn carry_out(&mut self, step: &Step) {
        match step.action.clone() {
            Action::CreateMeter { event_name } => {
                let (customer_key, value_key) = ("stripe_customer_id".into(), "value".into());
                let id = self.next("mtr");
                let formula = "sum".into();
                self.present.meters.push(Meter {
                    id,
                    event_name,
                    active: true,
                    formula,
                    customer_key,
                    value_key,
                });
            }
            Action::CreateProduct { plan, name } => {
                let id = self.next("prod");
                self.present.products.push(Product { id, name, active: true, plan: Some(plan.to_string()) });
            }
            Action::UpdateProduct { id, change } => {
                let product = self.present.products.iter_mut().find(|product| product.id == id).unwrap();
                product.name = change.name.unwrap_or(product.name.clone());
                product.plan = change.plan.or(product.plan.clone());
                product.active |= change.activate;
            }
            Action::CreatePrice { plan, price, replaces } => {
                let held = self
                    .present
                    .prices
                    .iter()
                    .position(|held| held.lookup_key.as_ref() == Some(&price.lookup_key));
                assert_eq!(
                    held.map(|at| self.present.prices.remove(at).id),
                    replaces,
                    "a lookup key is one price's"
                );
                let charge = match price.charge {
                    WantedCharge::Flat(cents) => Charge::Flat(cents),
                    WantedCharge::Metered(tiers) => Charge::Metered {
                        meter: self.present.meter("inkmeter_tokens").unwrap().id.clone(),
                        tiers,
                    },
                };
                let (id, product) = (self.next("price"), self.product_of(plan.as_str()));
                self.present.prices.push(Price {
                    id,
                    sold_by: Some(price.lookup_key.clone()),
                    active: true,
                    currency: "usd".into(),
                    product,
                    lookup_key: Some(price.lookup_key),
                    interval: Interval::Month,
                    charge: Some(charge),
                });
            }
            Action::MarkPrice { id, lookup_key } => {
                let price = self.present.prices.iter_mut().find(|price| price.id == id).unwrap();
                price.sold_by = Some(lookup_key);
            }
            Action::CreateEndpoint { channel, replaces } => {
                let id = self.next("we");
                let version = (channel == Channel::Snapshot).then(|| API_VERSION.to_owned());
                let events = events(channel);
                self.endpoints(channel).push(Endpoint {
                    id,
                    url: URL.into(),
                    events,
                    version,
                    enabled: true,
                    replaces,
                });
            }
            Action::UpdateEndpoint { channel, id, change } => {
                let endpoint = self.endpoints(channel).iter_mut().find(|endpoint| endpoint.id == id).unwrap();
                endpoint.enabled |= change.enable;
                endpoint.events = change.events.unwrap_or(endpoint.events.clone());
            }
            Action::DeleteEndpoint { channel, id } => {
                self.endpoints(channel).retain(|endpoint| endpoint.id != id);
            }
            Action::CreatePortal { settings } => {
                let id = self.next("bpc");
                self.present.portals.push(Portal { id, ours: true, active: true, settings, login_url: None });
            }
            Action::UpdatePortal { id, settings } => {
                let portal = self.present.portals.iter_mut().find(|portal| portal.id == id).unwrap();
                (portal.settings, portal.active) = (settings, true);
            }
        }
    }

    fn set_up(wanted: &Wanted) -> Self {
        let mut account = Self::default();
        for step in plan(wanted, &account.present).unwrap() {
            account.carry_out(&step);
        }
        account
    }
}

fn actions(wanted: &Wanted, account: &Account) -> Vec<String> {
    plan(wanted, &account.present).unwrap().iter().map(|step| step.action.to_string()).collect()
}

#[track_caller]
fn check_conflict(wanted: &Wanted, account: &Account, expected: &str) {
    let conflicts: Vec<String> =
        plan(wanted, &account.present).unwrap_err().iter().map(Conflict::to_string).collect();
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert!(conflicts.iter().all(|conflict| conflict.contains(expected)), "{conflicts:?}");
}

#[test]
fn an_empty_account_gets_everything_in_an_order_in_which_it_can_be_made() {
    let expected = [
        "create meter inkmeter_tokens",
        "create product \"Inkmeter Pro\" for plan pro",
        "create price inkmeter_pro_base_v1: 2000 cents a month",
        "create price inkmeter_pro_tokens_v1: 0 cents a token up to 500000, then 0.0002 cents a token from there on",
        "create endpoint for events",
        "create endpoint for thin events",
        "create portal configuration",
    ];
    assert_eq!(actions(&wanted_of(BOOK), &Account::default()), expected);
}

#[test]
fn a_second_run_has_nothing_to_do() {
    let wanted = wanted();
    assert_eq!(actions(&wanted, &Account::set_up(&wanted)), Vec::<String>::new());
}

#[test]
fn after_a_crash_behind_any_step_the_next_run_makes_the_rest_and_nothing_twice() {
    let wanted = wanted();
    let whole = Account::set_up(&wanted);
    let steps = plan(&wanted, &Present::default()).unwrap();
    assert!(steps.len() > 9);
    for crash in 0..=steps.len() {
        let mut account = Account::default();
        for step in &steps[..crash] {
            account.carry_out(step);
        }
        for step in plan(&wanted, &account.present).unwrap() {
            account.carry_out(&step);
        }
        assert_eq!(account.made, whole.made, "crash behind step {crash}");
        assert_eq!(account.present, whole.present, "crash behind step {crash}");
    }
}

#[test]
fn a_changed_amount_is_a_new_price_that_takes_the_lookup_key() {
    let account = Account::set_up(&wanted_of(BOOK));
    let dearer = wanted_of(&BOOK.replace("price_cents_per_month = 2_000", "price_cents_per_month = 2_500"));
    let steps = plan(&dearer, &account.present).unwrap();
    let [Step { action: Action::CreatePrice { replaces, price, .. }, why }] = steps.as_slice() else {
        panic!("{steps:?}");
    };
    assert_eq!((replaces, price.lookup_key.as_str()), (&Some(id("price_3")), "inkmeter_pro_base_v1"));
    assert!(why.contains("price_3 is 2000 cents a month, the plan book says 2500 cents a month"), "{why}");
    assert!(why.contains("stays for those who pay by it"), "{why}");
    let mut account = account;
    account.carry_out(&steps[0]);
    assert_eq!(actions(&dearer, &account), Vec::<String>::new());

    let finer = BOOK.replace("= 2_000_000_000", "= 1_999_999_990");
    let steps = plan(&wanted_of(&finer), &Account::set_up(&wanted_of(BOOK)).present).unwrap();
    assert!(steps[0].action.to_string().contains("0.000199999999 cents a token from there on"), "{steps:?}");
    assert_eq!(steps.len(), 1);
}

/// Whoever pays by it would be unknown to the webhook from then on.
#[test]
fn a_price_made_by_hand_is_marked_before_its_lookup_key_goes() {
    let dearer = wanted_of(&BOOK.replace("price_cents_per_month = 2_000", "price_cents_per_month = 2_500"));
    let whole = Account::set_up(&wanted_of(BOOK));
    for sold_by in [None, Some("another".to_owned())] {
        let mut account = whole.clone();
        let by_hand = account.present.prices.iter_mut().find(|price| price.id == id("price_3")).unwrap();
        by_hand.sold_by = sold_by;
        assert_eq!(actions(&wanted_of(BOOK), &account), Vec::<String>::new(), "nothing moves");
        let steps = plan(&dearer, &account.present).unwrap();
        let shown: Vec<_> = steps.iter().map(|step| step.action.to_string()).collect();
        let mark = "mark price price_3 as sold by inkmeter_pro_base_v1";
        assert_eq!(shown, [mark, "create price inkmeter_pro_base_v1: 2500 cents a month"]);
        // A crash between the two leaves the rest to do.
        account.carry_out(&steps[0]);
        let rest = plan(&dearer, &account.present).unwrap();
        assert_eq!(rest, steps[1..]);
        account.carry_out(&steps[1]);
        assert_eq!(actions(&dearer, &account), Vec::<String>::new());
    }
}

#[test]
fn a_changed_name_changes_the_product_and_no_price() {
    let mut account = Account::set_up(&wanted_of(BOOK));
    let renamed = wanted_of(&BOOK.replace("Inkmeter Pro", "Ink Pro"));
    assert_eq!(actions(&renamed, &account), ["update product prod_2"]);
    account.present.products[0].active = false;
    let steps = plan(&renamed, &account.present).unwrap();
    assert!(steps[0].why.contains("Ink Pro") && steps[0].why.contains("archived"), "{steps:?}");
    account.carry_out(&steps[0]);
    assert_eq!(actions(&renamed, &account), Vec::<String>::new());
}

#[test]
fn prices_made_by_hand_make_their_product_the_plans() {
    let wanted = wanted_of(BOOK);
    let mut account = Account::set_up(&wanted);
    account.present.products[0].plan = None;
    assert_eq!(actions(&wanted, &account), ["update product prod_2"]);
    account.present.products[0].plan = Some("agency".into());
    check_conflict(&wanted, &account, "another plan's");
}

#[test]
fn a_price_of_another_kind_is_never_taken_over() {
    let wanted = wanted_of(BOOK);
    let whole = Account::set_up(&wanted);
    let with = |change: fn(&mut Price)| {
        let mut account = whole.clone();
        change(&mut account.present.prices[0]);
        account
    };
    check_conflict(&wanted, &with(|price| price.currency = "eur".into()), "is in eur");
    check_conflict(
        &wanted,
        &with(|price| price.interval = Interval::Other("every 1 year".into())),
        "every 1 year",
    );
    check_conflict(&wanted, &with(|price| price.charge = None), "another way");
    check_conflict(&wanted, &with(|price| price.product = id("prod_other")), "prod_other");
    let archived = with(|price| price.active = false);
    assert_eq!(actions(&wanted, &archived), ["create price inkmeter_pro_base_v1: 2000 cents a month"]);
}

#[test]
fn a_price_of_another_meter_is_replaced() {
    let wanted = wanted_of(BOOK);
    let mut account = Account::set_up(&wanted);
    account.present.meters[0].event_name = "another".into();
    let steps = plan(&wanted, &account.present).unwrap();
    let actions: Vec<_> = steps.iter().map(|step| step.action.to_string()).collect();
    assert_eq!(actions.len(), 2, "{actions:?}");
    assert_eq!(actions[0], "create meter inkmeter_tokens");
    assert!(actions[1].starts_with("create price inkmeter_pro_tokens_v1"), "{actions:?}");
}

#[test]
fn a_meter_that_counts_otherwise_is_a_conflict() {
    let wanted = wanted_of(BOOK);
    let whole = Account::set_up(&wanted);
    let with = |change: fn(&mut Meter)| {
        let mut account = whole.clone();
        change(&mut account.present.meters[0]);
        account
    };
    check_conflict(&wanted, &with(|meter| meter.formula = "count".into()), "takes the count of `value`");
    check_conflict(&wanted, &with(|meter| meter.value_key = "tokens".into()), "of `tokens`");
    check_conflict(&wanted, &with(|meter| meter.customer_key = "user".into()), "for `user`");
}

#[test]
fn a_meter_that_was_switched_off_is_a_conflict_and_not_made_again() {
    let wanted = wanted_of(BOOK);
    let mut account = Account::default();
    let meter = Account::set_up(&wanted).present.meters[0].clone();
    account.present.meters.push(Meter { active: false, ..meter });
    check_conflict(&wanted, &account, "deactivated");
}

#[test]
fn two_endpoints_with_our_url_are_a_conflict() {
    let wanted = wanted_of(BOOK);
    for channel in CHANNELS {
        let mut account = Account::set_up(&wanted);
        let second = Endpoint { id: id("we_second"), ..account.endpoints(channel)[0].clone() };
        account.endpoints(channel).push(second);
        check_conflict(&wanted, &account, "we_second");
        account.endpoints(channel)[1].url = "https://elsewhere.example.com/".into();
        assert_eq!(actions(&wanted, &account), Vec::<String>::new());
    }
}

#[test]
fn an_endpoint_is_put_right_and_one_of_another_version_replaced_only_when_told() {
    let mut wanted = wanted_of(BOOK);
    let mut account = Account::set_up(&wanted);
    account.endpoints(Channel::Snapshot)[0].enabled = false;
    account.endpoints(Channel::Thin)[0].events.insert("v2.core.account.created".into());
    account.endpoints(Channel::Thin)[0].events.remove("v1.billing.meter.no_meter_found");
    let steps = plan(&wanted, &account.present).unwrap();
    assert_eq!(steps.len(), 2);
    assert!(steps[0].why.contains("disabled"), "{steps:?}");
    assert!(steps[1].why.contains("does not send v1.billing.meter.no_meter_found"), "{steps:?}");
    assert!(steps[1].why.contains("nobody reads: v2.core.account.created"), "{steps:?}");
    for step in steps {
        account.carry_out(&step);
    }
    assert_eq!(actions(&wanted, &account), Vec::<String>::new());

    account.endpoints(Channel::Snapshot)[0].version = Some("2020-08-27".into());
    check_conflict(&wanted, &account, "--roll-webhook-secret");
    wanted.secrets.insert(Channel::Snapshot, SecretWish::Lost);
    assert_eq!(actions(&wanted, &account), ["create endpoint for events"]);
}

#[test]
fn a_lost_secret_is_replaced_in_two_runs_so_that_no_event_is_missed() {
    for channel in CHANNELS {
        let mut wanted = wanted_of(BOOK);
        let mut account = Account::set_up(&wanted);
        let old = account.endpoints(channel)[0].id.clone();
        wanted.secrets.insert(channel, SecretWish::Lost);
        let steps = plan(&wanted, &account.present).unwrap();
        assert!(
            matches!(&steps[..], [Step { action: Action::CreateEndpoint { replaces: Some(id), .. }, .. }] if *id == old)
        );
        account.carry_out(&steps[0]);
        wanted.secrets.insert(channel, SecretWish::JustRolled);
        assert_eq!(actions(&wanted, &account), Vec::<String>::new());
        // Its answer was lost: another, and still the first is not touched.
        wanted.secrets.insert(channel, SecretWish::Lost);
        let again = plan(&wanted, &account.present).unwrap();
        assert_eq!(again.len(), 1);
        account.carry_out(&again[0]);
        wanted.secrets.insert(channel, SecretWish::Known);
        let cleanup = plan(&wanted, &account.present).unwrap();
        assert_eq!(cleanup.len(), 2);
        for step in cleanup {
            account.carry_out(&step);
        }
        assert_eq!(account.endpoints(channel).len(), 1);
        assert_eq!(actions(&wanted, &account), Vec::<String>::new());
    }
}

#[test]
fn the_portal_keeps_its_way_back_unless_another_is_said() {
    let mut wanted = wanted_of(BOOK);
    let mut account = Account::set_up(&wanted);
    wanted.portal.return_url = None;
    assert_eq!(actions(&wanted, &account), Vec::<String>::new());
    wanted.portal.return_url = Some("https://elsewhere.example.com/".into());
    assert_eq!(actions(&wanted, &account), ["update portal configuration bpc_7"]);
    wanted.portal.return_url = None;
    account.present.portals[0].settings.change_plan = true;
    assert_eq!(actions(&wanted, &account), ["update portal configuration bpc_7"]);
    let second = Portal { id: id("bpc_second"), ..account.present.portals[0].clone() };
    account.present.portals.push(second);
    check_conflict(&wanted, &account, "bpc_second");
}

#[test]
fn a_price_that_cannot_be_told_exactly_names_its_plan() {
    let book = PlanBook::parse(&BOOK.replace("= 2_000_000_000", "= 2_000_000_001")).unwrap();
    let error = Wanted::of(&book, &SetupArguments::for_testing(URL)).unwrap_err().to_string();
    assert!(error.contains("plan pro") && error.contains("multiple of 10"), "{error}");
}

#[test]
fn every_variable_is_a_parameter_of_the_stack_and_in_the_environment_of_a_function() {
    let template = include_str!("../../template.yaml");
    let account = Account::set_up(&wanted());
    let variables = variables(&wanted(), &account.present, &BTreeMap::new());
    assert_eq!(variables.len(), 6);
    for variable in &variables {
        let (name, parameter) = (variable.name, variable.parameter);
        assert!(template.contains(&format!("\n  {parameter}:\n")), "{parameter}");
        assert!(template.contains(&format!("{name}: !Ref {parameter}\n")), "{name}");
    }
    // What is not known now keeps the value that it was deployed with.
    let command = sam_deploy(&variables);
    assert!(command.contains(" StripeMeterId=mtr_1 ") && !command.contains("Secret"), "{command}");
}

//! A Stripe of a few endpoints: sessions that can be paid, subscriptions that come of it, and answers kept by idempotency key.

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use stripe::testing::{Memory, Reply, Request};
use stripe::{Secret, Settings, Stripe};

/// Where pauses come from: a linear congruential generator (Knuth, MMIX).
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What there is at Stripe.
#[derive(Debug)]
pub(super) struct World {
    dice: Dice,
    pub(super) customers: Vec<String>,
    pub(super) deleted: Vec<String>,
    pub(super) sessions: Vec<Value>,
    /// Customers, one for each subscription that was paid.
    pub(super) subscriptions: Vec<String>,
    /// What else every customer has.
    pub(super) others: Vec<Value>,
    kept: BTreeMap<String, (u16, Value)>,
    /// Method, path and form of everything that was asked.
    pub(super) asked: Vec<(String, String, BTreeMap<String, String>)>,
    /// How many of the next requests whose path begins so fail with this status, after they were carried out.
    pub(super) failing: Option<(&'static str, u16, u32)>,
    pub(super) silent: bool,
}

/// The fake; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Fake(Arc<Mutex<World>>);

impl Fake {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            dice: Dice::new(seed),
            customers: Vec::new(),
            deleted: Vec::new(),
            sessions: Vec::new(),
            subscriptions: Vec::new(),
            others: Vec::new(),
            kept: BTreeMap::new(),
            asked: Vec::new(),
            failing: None,
            silent: false,
        })))
    }

    pub(super) fn world<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub(super) fn stripe(&self) -> Stripe {
        let settings = Settings { base_url: None, secret_key: Secret::new("sk_test_x") };
        let fake = self.clone();
        Stripe::new(settings).unwrap().in_memory(Memory::new(move |request| {
            let fake = fake.clone();
            async move {
                for _ in 0..fake.world(|world| world.dice.below(4)) {
                    tokio::task::yield_now().await;
                }
                fake.world(|world| world.answer(&request))
            }
        }))
    }
}

impl World {
    /// Those that can be paid.
    pub(super) fn open(&self) -> Vec<&Value> {
        self.sessions.iter().filter(|session| session["status"] == "open").collect()
    }

    /// Somebody pays a session, if it can be paid.
    pub(super) fn pay(&mut self, index: usize) {
        let Some(session) = self.sessions.get_mut(index).filter(|session| session["status"] == "open") else {
            return;
        };
        session["status"] = "complete".into();
        session["url"] = Value::Null;
        self.subscriptions.push(session["customer"].as_str().unwrap().to_owned());
    }

    fn answer(&mut self, request: &Request) -> Reply {
        let (method, path) = (request.method.clone(), request.path.clone());
        self.asked.push((method.clone(), path.clone(), request.form.clone()));
        if self.silent {
            return Reply::Hang;
        }
        let key = request.headers.get("idempotency-key").filter(|_| method == "POST").cloned();
        let kept = key.as_ref().and_then(|key| self.kept.get(key).cloned());
        let (status, body) = kept.unwrap_or_else(|| {
            let (mut status, mut body) = self.carry_out(&method, &path, request);
            if let Some((prefix, with, left)) = self.failing.filter(|(prefix, ..)| path.starts_with(prefix)) {
                (status, body) = (with, error("api_error", "", ""));
                self.failing = Some((prefix, with, left - 1)).filter(|_| left > 1);
            }
            if let Some(key) = key {
                self.kept.insert(key, (status, body.clone()));
            }
            (status, body)
        });
        Reply::Answer(status, body.to_string())
    }

    fn carry_out(&mut self, method: &str, path: &str, request: &Request) -> (u16, Value) {
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", ["prices"]) => {
                let keys = request.query.iter().filter(|(name, _)| name.starts_with("lookup_keys"));
                let data: Vec<Value> = keys.map(|(_, key)| price(key)).collect();
                (200, json!({"object": "list", "data": data, "has_more": false}))
            }
            ("POST", ["customers"]) => {
                let id = format!("cus_{}", self.customers.len() + 1);
                self.customers.push(id.clone());
                (200, json!({"id": id, "object": "customer"}))
            }
            ("GET", ["customers", id]) if self.deleted.iter().any(|gone| gone == id) => {
                (200, json!({"id": id, "object": "customer", "deleted": true}))
            }
            ("GET", ["customers", id]) => (200, json!({"id": id, "object": "customer"})),
            ("GET", ["checkout", "sessions"]) => {
                let of = |session: &&Value| session["customer"] == request.query["customer"];
                let data: Vec<Value> = self.sessions.iter().rev().filter(of).cloned().collect();
                (200, json!({"object": "list", "data": data, "has_more": false}))
            }
            ("POST", ["checkout", "sessions"]) => self.create(&request.form),
            ("POST", ["checkout", "sessions", id, "expire"]) => {
                let session = self.sessions.iter_mut().find(|session| session["id"] == *id).unwrap();
                if session["status"] != "open" {
                    return (400, error("invalid_request_error", "", ""));
                }
                session["status"] = "expired".into();
                session["url"] = Value::Null;
                (200, session.clone())
            }
            ("GET", ["subscriptions"]) => {
                let of = self.subscriptions.iter().filter(|customer| **customer == request.query["customer"]);
                let ours = of.map(|_| subscription("active", &json!({"lookup_key": "inkmeter_pro_base_v1"})));
                let data: Vec<Value> = ours.chain(self.others.iter().cloned()).collect();
                (200, json!({"object": "list", "data": data, "has_more": false}))
            }
            ("POST", ["billing_portal", "sessions"]) => {
                (200, json!({"url": format!("https://stripe.example/p/{}", request.form["customer"])}))
            }
            _ => panic!("nobody should ask {method} {path}"),
        }
    }

    fn create(&mut self, form: &BTreeMap<String, String>) -> (u16, Value) {
        let customer = &form["customer"];
        if self.deleted.contains(customer) {
            return (400, error("invalid_request_error", "resource_missing", "customer"));
        }
        let id = format!("cs_{}", self.sessions.len() + 1);
        let session = json!({
            "id": id,
            "status": "open",
            "url": format!("https://stripe.example/c/{id}"),
            // All within one second, so that the id decides which is younger.
            "created": 1_800_000_000,
            "expires_at": form["expires_at"].parse::<u64>().unwrap(),
            "customer": customer,
            "metadata": {"inkmeter_asked": form["metadata[inkmeter_asked]"]},
            "price": form["line_items[0][price]"],
        });
        self.sessions.push(session.clone());
        (200, session)
    }
}

/// A subscription to one price.
pub(super) fn subscription(status: &str, price: &Value) -> Value {
    json!({"status": status, "items": {"object": "list", "data": [{"price": price}]}})
}

fn price(key: &str) -> Value {
    json!({
        "id": format!("price_{key}"), "active": true, "currency": "usd", "product": "prod_1", "lookup_key": key,
        "billing_scheme": "per_unit", "tiers_mode": null, "unit_amount_decimal": "2000", "transform_quantity": null,
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed", "meter": null}, "tiers": null,
    })
}

fn error(kind: &str, code: &str, param: &str) -> Value {
    let mut error = json!({"type": kind, "message": "words"});
    for (name, value) in [("code", code), ("param", param)] {
        if !value.is_empty() {
            error[name] = value.into();
        }
    }
    json!({ "error": error })
}

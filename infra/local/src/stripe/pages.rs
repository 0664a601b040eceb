//! The pages that customers see: payment, the portal, its login.
//!
//! Owns the HTML. Whatever a button does goes through `checkout`, `portal` and `subscriptions`, as if the API were asked.
//! The pages load nothing, run no script and show nothing that was not escaped.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY};
use axum::http::{HeaderValue, Response, StatusCode};
use chrono::DateTime;

use super::checkout::{self, CheckoutError};
use super::form::Params;
use super::payments::Card;
use super::portal::{self, Configuration, PortalSession, Wish};
use super::world::{Invoice, Price, Scheme, Subscription, World};
use super::{billing, invoices};

/// Most invoices that the portal lists.
const MAX_INVOICES: usize = 24;
/// Most subscriptions that the portal lists.
const MAX_SUBSCRIPTIONS: usize = 20;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--accent:#3b5bdb}\
*{box-sizing:border-box}\
body{margin:0;font:1rem/1.5 system-ui,sans-serif}\
main{max-width:34rem;margin:8vh auto;padding:0 1.25rem}\
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.1rem;margin-top:2rem}\
table{width:100%;border-collapse:collapse}\
caption{text-align:left;font-weight:600;padding:.5rem 0}\
th,td{text-align:left;padding:.6rem 0;border-bottom:1px solid var(--line);font-weight:400;vertical-align:top}\
.sum{text-align:right;white-space:nowrap}\
tfoot th,tfoot td{font-weight:600}\
small{display:block;opacity:.75}\
.row{display:flex;gap:.75rem;flex-wrap:wrap;margin-top:1.5rem;align-items:center}\
button,.link{font:inherit;padding:.65rem 1.2rem;border-radius:.4rem;border:1px solid var(--accent);cursor:pointer;\
background:var(--accent);color:#fff;text-decoration:none}\
button.plain,.link{background:transparent;color:inherit;border-color:var(--line)}\
button:focus-visible,a:focus-visible,input:focus-visible{outline:3px solid var(--accent);outline-offset:2px}\
input{font:inherit;padding:.6rem;width:100%;border:1px solid var(--line);border-radius:.4rem}\
[role=alert],[role=status]{border-left:4px solid var(--accent);padding:.5rem .9rem}\
.test{font-size:.85rem;opacity:.75}";

/// What a request for a page ends with.
enum Page {
    Html(StatusCode, String),
    Redirect(String),
}

/// Answers a request for a page; `None`: it is none.
pub(super) fn answer(
    world: &mut World,
    method: &str,
    path: &str,
    body: &str,
    now_s: i64,
) -> Option<Response<Body>> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let form = Params::parse(&[body]).unwrap_or_default();
    let page = match (method, segments.as_slice()) {
        ("GET" | "HEAD", ["c", "pay", id]) => payment(world, id, None),
        ("POST", ["c", "pay", id]) => pay(world, id, now_s),
        ("GET" | "HEAD", ["p", "session", id]) => session(world, id, None, now_s),
        ("POST", ["p", "session", id]) => act(world, id, &form, now_s),
        ("GET" | "HEAD", ["p", "login", id]) => login(world, id, None),
        ("POST", ["p", "login", id]) => log_in(world, id, &form, now_s),
        (_, ["c", "pay", _] | ["p", "session" | "login", _]) => {
            note(StatusCode::METHOD_NOT_ALLOWED, "Not possible", "This page can only be read and sent.")
        }
        _ => return None,
    };
    Some(respond(page))
}

fn respond(page: Page) -> Response<Body> {
    let (status, body, location) = match page {
        Page::Html(status, html) => (status, html, None),
        Page::Redirect(url) => (StatusCode::SEE_OTHER, String::new(), Some(url)),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    if let Some(location) = location.and_then(|url| HeaderValue::from_str(&url).ok()) {
        headers.insert(LOCATION, location);
    }
    response
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn document(title: &str, content: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><main><h1>{title}</h1>{content}\
         <p class=\"test\">Local stand-in for Stripe: no money moves.</p></main></body></html>"
    )
}

fn note(status: StatusCode, title: &str, text: &str) -> Page {
    Page::Html(status, document(title, &format!("<p role=\"status\">{}</p>", escape(text))))
}

fn alert(message: Option<&str>) -> String {
    message.map_or_else(String::new, |text| format!("<p role=\"alert\">{}</p>", escape(text)))
}

fn link(url: Option<&String>, text: &str) -> String {
    url.map_or_else(String::new, |url| format!("<a class=\"link\" href=\"{}\">{text}</a>", escape(url)))
}

/// `1999` of `usd` is `USD 19.99`.
fn money(cents: i64, currency: &str) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{} {}.{:02}", currency.to_uppercase(), cents / 100, cents % 100)
}

fn day(at_s: i64) -> String {
    DateTime::from_timestamp(at_s, 0)
        .map_or_else(|| "never".to_owned(), |at| at.format("%-d %B %Y, %H:%M UTC").to_string())
}

fn product_of<'a>(world: &'a World, price: &Price) -> &'a str {
    world.products.get(&price.product).map_or("", |product| product.name.as_str())
}

/// What a price costs, in words.
fn terms(price: &Price) -> String {
    let metered = billing::is_metered(price);
    let every = price.recurring.as_ref().map_or("", |found| found.cycle.interval.as_str());
    match &price.scheme {
        Scheme::PerUnit(unit) if metered => format!("{} cents for each unit used", unit.decimal()),
        Scheme::PerUnit(unit) => match unit.whole_cents() {
            Some(cents) => format!("{} per {every}", money(cents, &price.currency)),
            None => format!("{} cents per {every}", unit.decimal()),
        },
        Scheme::Graduated(tiers) => {
            let mut parts = Vec::new();
            for tier in tiers {
                let unit = tier
                    .unit
                    .map_or_else(|| "included".to_owned(), |unit| format!("{} cents each", unit.decimal()));
                let reach = tier.up_to.map_or_else(|| "above".to_owned(), |up_to| format!("up to {up_to}"));
                parts.push(format!("{reach}: {unit}"));
            }
            format!("by usage, {}", parts.join("; "))
        }
    }
}

/// The page of payment.
fn payment(world: &World, id: &str, problem: Option<&str>) -> Page {
    let Some(session) = world.checkout_sessions.get(id) else {
        return note(StatusCode::NOT_FOUND, "No such page", "There is no such checkout.");
    };
    match session.status {
        checkout::Status::Open => {}
        checkout::Status::Complete => {
            return note(
                StatusCode::OK,
                "Already paid",
                "This checkout is complete: there is nothing to pay.",
            );
        }
        checkout::Status::Expired => {
            let text = "This checkout has expired. Go back and start again.";
            return note(StatusCode::GONE, "Checkout expired", text);
        }
    }
    let mut rows = String::new();
    for line in &session.lines {
        let Some(price) = world.prices.get(&line.price) else { continue };
        let count =
            line.quantity.filter(|count| *count != 1).map_or_else(String::new, |count| format!(" × {count}"));
        let due = if line.quantity.is_some() {
            money(checkout::cents(world, line), &session.currency)
        } else {
            "billed later".to_owned()
        };
        // Writing to a text cannot fail.
        let _written = write!(
            rows,
            "<tr><th scope=\"row\">{}{count}<small>{}</small></th><td class=\"sum\">{due}</td></tr>",
            escape(product_of(world, price)),
            escape(&terms(price)),
        );
    }
    let total = money(checkout::total(world, session), &session.currency);
    let content = format!(
        "{}<table><caption>What you subscribe to</caption><tbody>{rows}</tbody><tfoot><tr><th scope=\"row\">Due \
         today</th><td class=\"sum\">{total}</td></tr></tfoot></table><form method=\"post\" class=\"row\"><button \
         type=\"submit\">Pay {total}</button>{}</form>",
        alert(problem),
        link(session.cancel_url.as_ref(), "Back"),
    );
    Page::Html(StatusCode::OK, document("Subscribe", &content))
}

fn pay(world: &mut World, id: &str, now_s: i64) -> Page {
    match checkout::complete(world, id, now_s) {
        Ok(()) => world
            .checkout_sessions
            .get(id)
            .map_or_else(|| payment(world, id, None), |session| Page::Redirect(session.landing())),
        Err(CheckoutError::Unknown | CheckoutError::NotOpen(_)) => payment(world, id, None),
        Err(CheckoutError::Refused(reason)) => payment(world, id, Some(&reason)),
    }
}

fn dead_session() -> Page {
    let text = "This link to the portal has expired. Go back and open the portal again.";
    note(StatusCode::GONE, "Portal link expired", text)
}

/// The portal of one customer.
fn session(world: &mut World, id: &str, problem: Option<&str>, now_s: i64) -> Page {
    let Some((session, configuration)) = portal::visit(world, id, now_s) else { return dead_session() };
    let mut content = alert(problem);
    content.push_str("<h2>Subscriptions</h2>");
    let own = world.subscriptions.iter().rev().filter(|found| found.customer == session.customer);
    let own: Vec<&Subscription> = own.take(MAX_SUBSCRIPTIONS).collect();
    if own.is_empty() {
        content.push_str("<p>You have no subscription.</p>");
    }
    for subscription in own {
        content.push_str(&subscription_part(world, subscription, &configuration));
    }
    if configuration.features.invoice_history {
        content.push_str(&invoices_part(world, &session));
    }
    if configuration.features.payment_method_update {
        content.push_str(&card_part(world, &session));
    }
    let _written =
        write!(content, "<div class=\"row\">{}</div>", link(session.return_url.as_ref(), "Return"));
    Page::Html(StatusCode::OK, document("Your subscription", &content))
}

fn subscription_part(world: &World, subscription: &Subscription, configuration: &Configuration) -> String {
    let prices = subscription.items.iter().filter_map(|item| world.prices.get(&item.price));
    let mut rows = String::new();
    for price in prices {
        let name = escape(product_of(world, price));
        let _written = write!(rows, "<li>{name}<small>{}</small></li>", escape(&terms(price)));
    }
    let (state, button) = match (subscription.ended_s, subscription.ends_s()) {
        (Some(ended_s), _) => (format!("Ended on {}.", day(ended_s)), None),
        (None, Some(ends_s)) => (format!("Ends on {}.", day(ends_s)), Some(("resume", "Keep subscription"))),
        (None, None) => (
            format!("Renews on {}.", day(subscription.period_end_s)),
            Some(("cancel", "Cancel subscription")),
        ),
    };
    // As in the real portal, what a schedule manages is not the customer's to change.
    let button = button.filter(|_| configuration.features.cancel.enabled && subscription.schedule.is_none());
    let button = button.map_or_else(String::new, |(action, text)| {
        format!(
            "<form method=\"post\" class=\"row\"><input type=\"hidden\" name=\"subscription\" value=\"{}\"><button \
             name=\"action\" value=\"{action}\" class=\"plain\">{text}</button></form>",
            escape(&subscription.id)
        )
    });
    format!("<ul>{rows}</ul><p>{state}</p>{button}")
}

fn invoices_part(world: &World, session: &PortalSession) -> String {
    let own = world.invoices.iter().rev().filter(|found| found.customer == session.customer);
    let mut rows = String::new();
    for invoice in own.take(MAX_INVOICES) {
        let total = money(invoices::total(&invoices::lines(world, invoice)), &invoice.currency);
        let _written = write!(
            rows,
            "<tr><th scope=\"row\">{}<small>{}</small></th><td class=\"sum\">{total}</td></tr>",
            escape(&number(invoice)),
            day(invoice.created_s),
        );
    }
    if rows.is_empty() {
        return "<h2>Invoices</h2><p>There is no invoice yet.</p>".to_owned();
    }
    format!("<table><caption>Invoices</caption><tbody>{rows}</tbody></table>")
}

fn number(invoice: &Invoice) -> String {
    invoice.final_part().map_or_else(|| "Draft".to_owned(), |fixed| fixed.number.clone())
}

/// Two buttons stand for a form that takes a card: no number is ever asked for.
fn card_part(world: &World, session: &PortalSession) -> String {
    let card = world.customers.get(&session.customer).map_or(Card::None, |customer| customer.card);
    let state = match card {
        Card::Works => "Your card works.",
        Card::Fails => "Your card is declined.",
        Card::None => "There is no card.",
    };
    format!(
        "<h2>Payment method</h2><p>{state}</p><form method=\"post\" class=\"row\"><button name=\"action\" \
         value=\"card_works\" class=\"plain\">Use a card that works</button><button name=\"action\" \
         value=\"card_fails\" class=\"plain\">Use a card that is declined</button></form>"
    )
}

fn act(world: &mut World, id: &str, form: &Params, now_s: i64) -> Page {
    let Some((session, configuration)) = portal::visit(world, id, now_s) else { return dead_session() };
    let subscription = form.leaf_at("subscription").unwrap_or_default();
    let features = &configuration.features;
    let done = match form.leaf_at("action") {
        Some("cancel") => portal::act(world, &session, features, subscription, Wish::Cancel, now_s),
        Some("resume") => portal::act(world, &session, features, subscription, Wish::Resume, now_s),
        Some("card_works") => portal::change_card(world, &session, features, Card::Works),
        Some("card_fails") => portal::change_card(world, &session, features, Card::Fails),
        _ => return self::session(world, id, Some("There is no such button."), now_s),
    };
    match done {
        // The page is read anew, so that a reload does not do it twice.
        Ok(()) => Page::Redirect(format!("/p/session/{id}")),
        Err(error) => self::session(world, id, Some(error.message()), now_s),
    }
}

/// The login page of a configuration: the real one sends a link, this one goes there at once.
fn login(world: &World, id: &str, problem: Option<&str>) -> Page {
    if !world.portal_configurations.get(id).is_some_and(|found| found.login_page) {
        return note(StatusCode::NOT_FOUND, "No such page", "There is no such login page.");
    }
    let content = format!(
        "{}<form method=\"post\"><p><label for=\"email\">Your e-mail address</label> <input id=\"email\" name=\"email\" \
         type=\"email\" autocomplete=\"email\" required></p><div class=\"row\"><button type=\"submit\">Open the \
         portal</button></div></form>",
        alert(problem)
    );
    Page::Html(StatusCode::OK, document("Manage your subscription", &content))
}

/// The newest customer with an address.
fn newest(world: &World, email: &str) -> Option<String> {
    let found = world.customers.iter().rfind(|customer| customer.email.as_deref() == Some(email))?;
    Some(found.id.clone())
}

fn log_in(world: &mut World, id: &str, form: &Params, now_s: i64) -> Page {
    let page = login(world, id, None);
    if !matches!(&page, Page::Html(StatusCode::OK, _)) {
        return page;
    }
    let email = form.leaf_at("email").unwrap_or_default();
    let Some(customer) = newest(world, email) else {
        return login(world, id, Some("Nobody here has this address."));
    };
    match portal::open(world, customer, Some(id), None, now_s) {
        Ok(session) => Page::Redirect(format!("/p/session/{session}")),
        Err(error) => login(world, id, Some(error.message())),
    }
}

//! Invoice items: a line that waits on a customer for the next invoice. How usage is billed that came too late for the invoice of
//! its own period.

use crate::client::Stripe;
use crate::invoice::{InvoiceError, List, id_in};
use crate::setup::ObjectId;
use domain::{CustomerId, InvoiceId, InvoiceItemId, Period, Timestamp};
use miniserde::json::Value;
use std::collections::BTreeMap;
use stripe_client_core::{IdempotencyKey, RequestBuilder, StripeMethod};

/// The metadata key that holds the identifier of the report that an item bills.
const REPORT_KEY: &str = "inkmeter_report";
/// The currency of every amount.
const CURRENCY: &str = "usd";
/// Items asked for in one page: Stripe's most.
const PAGE_MAX: u8 = 100;
/// Pages read of one answer: a thousand items of one customer.
const PAGES_MAX: u32 = 10;

/// An item on a customer, on an invoice already or not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceItem {
    /// Its id.
    pub id: InvoiceItemId,
    /// The identifier of the report that it bills; none: it is somebody else's.
    pub report: Option<String>,
    /// Its amount, in cents.
    pub cents: i64,
    /// The invoice that it is on; none: it waits for the next.
    pub invoice: Option<InvoiceId>,
    /// The price that it is reckoned by; none: an amount without one.
    pub price: Option<ObjectId>,
    /// The end of the time that it bills.
    pub period_end: Option<Timestamp>,
}

/// An item to make.
#[derive(Clone, Copy, Debug)]
pub struct NewInvoiceItem<'a> {
    /// Who pays.
    pub customer: &'a CustomerId,
    /// The identifier of the report that it bills.
    pub report: &'a str,
    /// Its amount, in US cents.
    pub cents: u64,
    /// What the customer reads.
    pub description: &'a str,
    /// When what it bills was used.
    pub period: Period,
    /// Made anew under this key within a day, it is made once: at most 255 characters.
    pub idempotency_key: &'a str,
}

impl Stripe {
    /// Every item of a customer, the newest first.
    ///
    /// # Errors
    /// When Stripe does not answer, refuses, answers with what is no list of items, or there are more than a thousand: then an
    /// item that is not found may be there all the same.
    pub async fn invoice_items(&self, customer: &CustomerId) -> Result<Vec<InvoiceItem>, InvoiceError> {
        let mut items: Vec<InvoiceItem> = Vec::new();
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let query = Query { customer: customer.as_str(), limit: PAGE_MAX, starting_after: after };
            let request = RequestBuilder::new(StripeMethod::Get, "/invoiceitems")
                .query(&query)
                .customize::<List<Wire>>();
            let page = self.call(StripeMethod::Get, request).await?;
            for wire in page.data {
                items.push(wire.read()?);
            }
            after = items.last().map(|last| last.id.to_string()).filter(|_| page.has_more);
            if after.is_none() {
                return Ok(items);
            }
        }
        Err(InvoiceError::Malformed("end of its list of invoice items"))
    }

    /// Makes an item that waits for the customer's next invoice. Once.
    ///
    /// # Errors
    /// See [`InvoiceError`]. After [`InvoiceError::Unknown`] it may be there: look for it before it is made again.
    pub async fn create_invoice_item(&self, item: &NewInvoiceItem<'_>) -> Result<InvoiceItem, InvoiceError> {
        let key = IdempotencyKey::new(item.idempotency_key)
            .map_err(|_| InvoiceError::Refused("a key that is no idempotency key".into()))?;
        let form = Form {
            customer: item.customer.as_str(),
            amount: item.cents,
            currency: CURRENCY,
            description: item.description,
            metadata: BTreeMap::from([(REPORT_KEY, item.report)]),
            period: FormPeriod { start: item.period.start().s(), end: item.period.end().s() },
        };
        let request =
            RequestBuilder::new(StripeMethod::Post, "/invoiceitems").form(&form).customize::<Wire>();
        self.call_under(key, request).await?.read()
    }
}

#[derive(serde::Serialize)]
struct Query<'a> {
    customer: &'a str,
    limit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    starting_after: Option<String>,
}

#[derive(serde::Serialize)]
struct Form<'a> {
    customer: &'a str,
    amount: u64,
    currency: &'static str,
    description: &'a str,
    metadata: BTreeMap<&'static str, &'a str>,
    period: FormPeriod,
}

#[derive(serde::Serialize)]
struct FormPeriod {
    start: u64,
    end: u64,
}

#[derive(miniserde::Deserialize)]
struct Wire {
    id: String,
    amount: i64,
    metadata: Option<BTreeMap<String, String>>,
    invoice: Option<Value>,
    pricing: Option<WirePricing>,
    period: Option<WirePeriod>,
}

#[derive(miniserde::Deserialize)]
struct WirePricing {
    price_details: Option<WirePriceDetails>,
}

#[derive(miniserde::Deserialize)]
struct WirePriceDetails {
    price: Option<Value>,
}

#[derive(miniserde::Deserialize)]
struct WirePeriod {
    end: u64,
}

impl Wire {
    fn read(self) -> Result<InvoiceItem, InvoiceError> {
        Ok(InvoiceItem {
            id: InvoiceItemId::parse(&self.id).map_err(|_| InvoiceError::Malformed("invoice item's id"))?,
            report: self.metadata.and_then(|mut metadata| metadata.remove(REPORT_KEY)),
            cents: self.amount,
            invoice: self.invoice.as_ref().and_then(id_in).and_then(|id| InvoiceId::parse(id).ok()),
            price: self
                .pricing
                .and_then(|pricing| pricing.price_details?.price)
                .and_then(|price| ObjectId::parse(id_in(&price)?)),
            period_end: self.period.map(|period| Timestamp::from_s(period.end)),
        })
    }
}

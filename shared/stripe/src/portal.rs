//! The customer portal: the page at Stripe on which a customer sees invoices, pays, and cancels.

use crate::client::Stripe;
use crate::customer::SaleError;
use crate::setup::ObjectId;
use domain::CustomerId;
use serde::Serialize;
use stripe_client_core::{RequestBuilder, StripeMethod};

#[derive(Serialize)]
struct Form<'a> {
    customer: &'a str,
    return_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<&'a str>,
}

#[derive(miniserde::Deserialize)]
struct Wire {
    url: String,
}

impl Stripe {
    /// The address of the portal for this customer, good for one visit that begins within minutes. Without a
    /// configuration it is the account's default one.
    ///
    /// # Errors
    /// See [`SaleError`].
    pub async fn open_portal(
        &self,
        customer: &CustomerId,
        return_url: &str,
        configuration: Option<&ObjectId>,
    ) -> Result<String, SaleError> {
        let configuration = configuration.map(ObjectId::as_str);
        let form = Form { customer: customer.as_str(), return_url, configuration };
        let request = RequestBuilder::new(StripeMethod::Post, "/billing_portal/sessions").form(&form);
        Ok(self.call(StripeMethod::Post, request.customize::<Wire>()).await?.url)
    }
}

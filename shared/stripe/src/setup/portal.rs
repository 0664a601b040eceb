//! The configuration of the customer portal, found by its metadata.
//!
//! Nobody changes a plan there: the portal changes no subscription that has a metered price.

use super::form::Form;
use super::{Listed, ObjectId, SetupError, object_id};
use crate::client::Stripe;
use miniserde::Deserialize;
use std::collections::BTreeMap;

/// The metadata key and value of our configuration.
const MARK: (&str, &str) = ("inkmeter", "portal");

/// What customers may do in the portal.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of Stripe's")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalSettings {
    /// Where the link back leads, unless a session says otherwise.
    pub return_url: Option<String>,
    /// Whether they can see their invoices.
    pub invoices: bool,
    /// Whether they can change how they pay.
    pub payment_methods: bool,
    /// Whether they can cancel, and then with the end of the period.
    pub cancel_at_period_end: bool,
    /// Whether they can change their plan.
    pub change_plan: bool,
    /// Whether it has a page of its own to sign in at.
    pub login_page: bool,
}

/// A configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Its id.
    pub id: ObjectId,
    /// Whether it is the one that we made.
    pub ours: bool,
    /// Whether it can be used.
    pub active: bool,
    /// What customers may do.
    pub settings: PortalSettings,
    /// The page to sign in at.
    pub login_url: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    id: String,
    active: bool,
    default_return_url: Option<String>,
    features: WireFeatures,
    login_page: WireLogin,
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct WireFeatures {
    invoice_history: WireSwitch,
    payment_method_update: WireSwitch,
    subscription_cancel: WireCancel,
    subscription_update: WireSwitch,
}

#[derive(Deserialize)]
struct WireSwitch {
    enabled: bool,
}

#[derive(Deserialize)]
struct WireCancel {
    enabled: bool,
    mode: String,
}

#[derive(Deserialize)]
struct WireLogin {
    enabled: bool,
    url: Option<String>,
}

impl Listed for Wire {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Wire {
    fn read(self) -> Result<Portal, SetupError> {
        let (key, value) = MARK;
        let cancel = &self.features.subscription_cancel;
        Ok(Portal {
            id: object_id(&self.id)?,
            ours: self.metadata.as_ref().and_then(|metadata| metadata.get(key)).is_some_and(|it| it == value),
            active: self.active,
            settings: PortalSettings {
                return_url: self.default_return_url,
                invoices: self.features.invoice_history.enabled,
                payment_methods: self.features.payment_method_update.enabled,
                cancel_at_period_end: cancel.enabled && cancel.mode == "at_period_end",
                change_plan: self.features.subscription_update.enabled,
                login_page: self.login_page.enabled,
            },
            login_url: self.login_page.url,
        })
    }
}

impl PortalSettings {
    fn form(&self) -> Form {
        let mut form = Form::default();
        let switches = [
            ("features[invoice_history][enabled]", self.invoices),
            ("features[payment_method_update][enabled]", self.payment_methods),
            ("features[subscription_cancel][enabled]", self.cancel_at_period_end),
            ("features[subscription_update][enabled]", self.change_plan),
            ("login_page[enabled]", self.login_page),
        ];
        for (name, on) in switches {
            form = form.set(name, on.to_string());
        }
        if self.cancel_at_period_end {
            form = form.set("features[subscription_cancel][mode]", "at_period_end");
        }
        match &self.return_url {
            None => form,
            Some(url) => form.set("default_return_url", url),
        }
    }
}

impl Stripe {
    /// Every configuration of the portal.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn portals(&self) -> Result<Vec<Portal>, SetupError> {
        let all = self.list::<Wire>("/billing_portal/configurations", &Form::default()).await?;
        all.into_iter().map(Wire::read).collect()
    }

    /// Creates our configuration.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn create_portal(&self, settings: &PortalSettings) -> Result<Portal, SetupError> {
        let (key, value) = MARK;
        let form = settings.form().set(format!("metadata[{key}]"), value);
        self.post::<Wire>("/billing_portal/configurations".into(), &form).await?.read()
    }

    /// Changes a configuration, and makes it usable.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn update_portal(
        &self,
        id: &ObjectId,
        settings: &PortalSettings,
    ) -> Result<Portal, SetupError> {
        let form = settings.form().set("active", "true");
        self.post::<Wire>(format!("/billing_portal/configurations/{id}"), &form).await?.read()
    }
}

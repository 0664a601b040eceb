//! Products: one for each plan that is sold, found by the plan's id in its metadata.

use super::form::Form;
use super::{Listed, ObjectId, PLAN_KEY, SetupError, object_id};
use crate::client::Stripe;
use miniserde::Deserialize;
use std::collections::BTreeMap;

/// A product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its id.
    pub id: ObjectId,
    /// What the customer reads.
    pub name: String,
    /// Whether it can be sold.
    pub active: bool,
    /// The plan that it is, by its metadata; none: not ours, or not marked yet.
    pub plan: Option<String>,
}

/// What becomes of a product.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProductChange {
    /// Its name from now on.
    pub name: Option<String>,
    /// The plan that it is from now on.
    pub plan: Option<String>,
    /// Whether it is made saleable again.
    pub activate: bool,
}

#[derive(Deserialize)]
struct Wire {
    id: String,
    name: String,
    active: bool,
    metadata: Option<BTreeMap<String, String>>,
}

impl Listed for Wire {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Wire {
    fn read(self) -> Result<Product, SetupError> {
        let plan = self.metadata.and_then(|mut metadata| metadata.remove(PLAN_KEY));
        Ok(Product {
            id: object_id(&self.id)?,
            name: self.name,
            active: self.active,
            plan: plan.filter(|plan| !plan.is_empty()),
        })
    }
}

impl Stripe {
    /// Every product, archived ones too.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn products(&self) -> Result<Vec<Product>, SetupError> {
        let all = self.list::<Wire>("/products", &Form::default()).await?;
        all.into_iter().map(Wire::read).collect()
    }

    /// Creates the product of a plan.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn create_product(&self, plan: &str, name: &str) -> Result<Product, SetupError> {
        let form = Form::default().set("name", name).set(format!("metadata[{PLAN_KEY}]"), plan);
        self.post::<Wire>("/products".into(), &form).await?.read()
    }

    /// Changes a product.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn update_product(&self, id: &ObjectId, change: &ProductChange) -> Result<Product, SetupError> {
        let mut form = Form::default();
        if let Some(name) = &change.name {
            form = form.set("name", name);
        }
        if let Some(plan) = &change.plan {
            form = form.set(format!("metadata[{PLAN_KEY}]"), plan);
        }
        if change.activate {
            form = form.set("active", "true");
        }
        self.post::<Wire>(format!("/products/{id}"), &form).await?.read()
    }
}

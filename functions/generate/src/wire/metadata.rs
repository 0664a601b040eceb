//! What a message says about itself, in the protocols that have a place for it.

use domain::{Classes, HoldId, ModelId, Tokens, Usage};
use serde::Serialize;

/// What an answer took and by whom it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Tokens used.
    pub usage: Usage,
    /// The receipt's id, which is the hold's, and the tokens charged; none if no receipt could be stored.
    pub receipt: Option<(HoldId, Tokens)>,
    /// Whether the answer's cap was lowered to what the quota had left.
    pub clamped: bool,
    /// Who wrote it.
    pub model: ModelId,
    /// Whether this is an answer of before, given again.
    pub replayed: bool,
}

/// The wire form of [`Metadata`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetadataWire<'a> {
    pub(super) usage: UsageWire,
    /// Absent if no receipt could be stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<&'a str>,
    /// Absent with the receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    charged: Option<u64>,
    clamped: bool,
    model: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
}

impl<'a> From<&'a Metadata> for MetadataWire<'a> {
    fn from(metadata: &'a Metadata) -> Self {
        Self {
            usage: (&metadata.usage).into(),
            receipt: metadata.receipt.as_ref().map(|(id, _)| id.as_str()),
            charged: metadata.receipt.as_ref().map(|(_, charged)| charged.get()),
            clamped: metadata.clamped,
            model: metadata.model.as_str(),
            replayed: metadata.replayed,
        }
    }
}

/// Tokens, as the AI SDK names them: the parts are parts of the wholes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageWire {
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    total_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    cached_prompt_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    reasoning_tokens: u64,
    /// Whether the provider named no figures, so that these are an estimate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    estimated: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<&Usage> for UsageWire {
    fn from(usage: &Usage) -> Self {
        let classes: &Classes = usage.classes();
        Self {
            prompt_tokens: classes.prompt().get(),
            completion_tokens: classes.completion().get(),
            total_tokens: classes.total().get(),
            cached_prompt_tokens: classes.cached_input.get(),
            reasoning_tokens: classes.reasoning.get(),
            estimated: matches!(usage, Usage::Estimated(_)),
        }
    }
}

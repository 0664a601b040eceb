//! The fields beside the text: each optional but `type`, each refused by its name.

use super::{given, invalid};
use crate::prompts::{Audience, Kind, Language, Length, Options, Platform, Tone, Variants};
use edge::problem::Problem;
use serde_json::{Map, Value};

/// What kind of text is asked for; the one field that must be there.
pub(super) fn kind(value: Option<&Value>) -> Result<Kind, Problem> {
    value.and_then(Value::as_str).and_then(Kind::parse).ok_or_else(|| {
        let allowed = listed(Kind::ALL, Kind::as_str);
        invalid("type", format!("`type` must be one of {allowed}."))
    })
}

/// The options of a text of this kind.
pub(super) fn parse(fields: &Map<String, Value>, kind: Kind) -> Result<Options, Problem> {
    let tone = one_of(fields, "tone", Tone::parse, || listed(Tone::ALL, Tone::as_str))?;
    let audience = audience(fields)?;
    let length = one_of(fields, "length", Length::parse, || listed(Length::ALL, Length::as_str))?;
    let language = language(fields)?;
    let platform = one_of(fields, "platform", Platform::parse, || listed(Platform::ALL, Platform::as_str))?;
    if platform.is_some() && kind != Kind::SocialPost {
        let only = Kind::SocialPost.as_str();
        return Err(invalid("platform", format!("`platform` is for the type `{only}` only. Leave it out.")));
    }
    let variants = variants(fields)?;
    Ok(Options { tone, audience, length, language, platform, variants })
}

fn one_of<T>(
    fields: &Map<String, Value>,
    name: &'static str,
    parse: impl Fn(&str) -> Option<T>,
    allowed: impl Fn() -> String,
) -> Result<Option<T>, Problem> {
    text_option(fields, name, parse, || format!("`{name}` must be one of {}, or absent.", allowed()))
}

fn audience(fields: &Map<String, Value>) -> Result<Option<Audience>, Problem> {
    text_option(fields, "audience", Audience::parse, || {
        let most = Audience::CHARACTERS_MAX;
        format!(
            "`audience` must be 1 to {most} characters on one line that say who will read the text, or absent."
        )
    })
}

fn language(fields: &Map<String, Value>) -> Result<Option<Language>, Problem> {
    text_option(fields, "language", Language::parse, || {
        let most = Language::CHARACTERS_MAX;
        format!(
            "`language` must be a language tag such as `de` or `pt-BR`, of at most {most} characters, or absent."
        )
    })
}

fn variants(fields: &Map<String, Value>) -> Result<Variants, Problem> {
    let Some(value) = given(fields, "variants") else { return Ok(Variants::ONE) };
    let number = value.as_u64().and_then(Variants::new);
    number.ok_or_else(|| {
        let most = Variants::MAX;
        invalid("variants", format!("`variants` must be a whole number from 1 to {most}, or absent."))
    })
}

/// An option that is a string of some form.
fn text_option<T>(
    fields: &Map<String, Value>,
    name: &'static str,
    parse: impl Fn(&str) -> Option<T>,
    detail: impl Fn() -> String,
) -> Result<Option<T>, Problem> {
    let Some(value) = given(fields, name) else { return Ok(None) };
    let parsed = value.as_str().and_then(parse);
    parsed.map(Some).ok_or_else(|| invalid(name, detail()))
}

/// Names as a sentence has them.
pub(super) fn listed<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> String {
    let names: Vec<_> = all.iter().map(|one| format!("`{}`", name(*one))).collect();
    names.join(", ")
}

//! How the stand-in answers: the defaults of a [`Behaviour`], and the directive by which a prompt steers one request.
//! It owns the directive's grammar. It must never take ordinary text for a directive: only a `[[...]]` whose first
//! word is one of its own counts.

use std::time::Duration;

use super::request::MODELS;

/// The longest text that can be asked for, in tokens.
const OUTPUT_TOKENS_MAX: u64 = 200_000;
/// The largest count of tokens that can be reported.
const REPORTED_TOKENS_MAX: u64 = 1_000_000_000;
/// The longest delay a directive can ask for, in milliseconds.
const DELAY_MS_MAX: u64 = 600_000;
/// The longest `Retry-After` a directive can ask for, in seconds.
const RETRY_AFTER_S_MAX: u64 = 86_400;
/// What a request weighs above its text in [`PromptCount::Quarter`], as OpenAI's cookbook counts it.
const TOKENS_PER_MESSAGE: u64 = 3;
const TOKENS_PER_ANSWER: u64 = 3;
/// The most calls that `fail_first` can fail.
const FAILED_CALLS_MAX: u64 = 1_000;
/// Above any bound by bytes and output cap.
const BEYOND_MARGIN: u64 = 1_024;

/// How many prompt tokens an answer reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptCount {
    /// A quarter of the text's bytes, rounded up, plus 3 tokens for each message and 3 for the answer: about what a
    /// real tokenizer finds in English.
    Quarter,
    /// This many tokens.
    Exact(u64),
    /// One token for each byte of the messages' text, plus this many.
    ExactBytesPlus(u64),
    /// More than any hold made of the request's bytes and its output limit could cover: twice the bytes of the whole
    /// body, plus the output limit, plus 1,024.
    BeyondAnyBound,
}

/// What [`PromptCount`] counts from.
pub(super) struct Size {
    /// Bytes of all messages' text.
    pub(super) text_bytes: u64,
    /// Messages.
    pub(super) messages: u64,
    /// Bytes of the request's whole body.
    pub(super) body_bytes: u64,
    /// The output limit in force, in tokens.
    pub(super) limit: u64,
}

impl PromptCount {
    pub(super) fn count(self, size: &Size) -> u64 {
        match self {
            Self::Quarter => size
                .text_bytes
                .div_ceil(4)
                .saturating_add(size.messages.saturating_mul(TOKENS_PER_MESSAGE))
                .saturating_add(TOKENS_PER_ANSWER),
            Self::Exact(tokens) => tokens,
            Self::ExactBytesPlus(tokens) => size.text_bytes.saturating_add(tokens),
            Self::BeyondAnyBound => {
                size.body_bytes.saturating_mul(2).saturating_add(size.limit).saturating_add(BEYOND_MARGIN)
            }
        }
    }
}

/// An answer that is an error with this status, before any output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusError {
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// Seconds in `retry-after` (and, in milliseconds, in `retry-after-ms`).
    pub retry_after_s: Option<u64>,
}

/// How requests are answered. Faults may be combined; the earliest wins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of a fault injector, each off by default"
)]
pub struct Behaviour {
    /// Tokens of the text before the request's own limit cuts it. The finish reason is `length` when that happens.
    pub output_tokens: u64,
    /// Prompt tokens that are reported.
    pub prompt_tokens: PromptCount,
    /// Of these, tokens read from the provider's cache (at most all of them).
    pub cached_tokens: u64,
    /// Of the rest, tokens written to the provider's cache (at most all of it).
    pub cache_write_tokens: u64,
    /// Completion tokens that are reported, instead of those produced. May exceed the request's limit.
    pub completion_tokens: Option<u64>,
    /// Wait before the status line.
    pub head_delay: Duration,
    /// Wait between the role chunk and the first token.
    pub first_token_delay: Duration,
    /// Wait before each further token.
    pub inter_token_delay: Duration,
    /// Drop the connection after this many tokens, with neither a finish reason nor usage.
    pub cut_after: Option<u64>,
    /// Put an error into the stream after this many tokens, and end it.
    pub in_band_error_after: Option<u64>,
    /// Stand still for ever after this many tokens: until the peer leaves.
    pub stall_after: Option<u64>,
    /// Answer with this error instead.
    pub status_error: Option<StatusError>,
    /// Drop the connection before the status line.
    pub drop_before_head: bool,
    /// Let the faults above happen to so many calls only: the first ones with the same last user message.
    pub fail_first: Option<u64>,
    /// Names of models that do not exist any more: a request for one is refused as OpenAI refuses it.
    pub gone: Vec<String>,
    /// Send a filter's findings, as a provider does that moderates while it streams: of the prompt in a chunk before
    /// the role, of each piece of text in its choice, and of the whole text in a chunk after the finish.
    pub moderation: bool,
    /// Leave the usage chunk out although it was asked for.
    pub no_usage_chunk: bool,
    /// End the stream without `[DONE]`.
    pub omit_done: bool,
    /// Write each token only when the test has released it.
    pub gate: bool,
    /// The first token, from 0, that waits for its release; those before it are written at once.
    pub gate_from: u64,
}

impl Default for Behaviour {
    /// 64 tokens at once, a quarter of the bytes as prompt tokens, no fault.
    fn default() -> Self {
        Self {
            output_tokens: 64,
            prompt_tokens: PromptCount::Quarter,
            cached_tokens: 0,
            cache_write_tokens: 0,
            completion_tokens: None,
            head_delay: Duration::ZERO,
            first_token_delay: Duration::ZERO,
            inter_token_delay: Duration::ZERO,
            cut_after: None,
            in_band_error_after: None,
            stall_after: None,
            status_error: None,
            drop_before_head: false,
            fail_first: None,
            gone: Vec::new(),
            moderation: false,
            no_usage_chunk: false,
            omit_done: false,
            gate: false,
            gate_from: 0,
        }
    }
}

const KEYS: &[&str] = &[
    "tokens",
    "delay_ms",
    "first_ms",
    "head_ms",
    "prompt",
    "overrun",
    "completion",
    "cached",
    "cache_write",
    "cut",
    "inband",
    "stall",
    "fail_first",
    "gone",
    "moderation",
    "error",
    "retry_after",
    "drop_head",
    "no_usage",
    "omit_done",
    "gate",
    "gate_from",
];

/// The inside of the first directive in `text`, and the text without it.
pub(super) fn find_directive(text: &str) -> Option<(&str, String)> {
    let mut from = 0;
    // Ends: each turn moves `from` behind an opening that was found.
    while let Some((before, rest)) = text.get(from..)?.split_once("[[") {
        let (inside, after) = rest.split_once("]]")?;
        let first = inside.split_whitespace().next().unwrap_or_default();
        let key = first.split_once('=').map_or(first, |(key, _)| key);
        if KEYS.contains(&key) {
            let head = text.get(..from)?;
            return Some((inside, format!("{head}{before}{after}")));
        }
        from += before.len() + 2;
    }
    None
}

impl Behaviour {
    /// This behaviour, changed by the inside of a directive.
    ///
    /// # Errors
    /// The item that is unknown or out of range, in words.
    pub(super) fn directed(mut self, inside: &str) -> Result<Self, String> {
        let mut retry_after_s = None;
        for item in inside.split_whitespace() {
            match item.split_once('=') {
                None => self.switch(item)?,
                Some(("retry_after", value)) => {
                    retry_after_s = Some(number(item, value, 0, RETRY_AFTER_S_MAX)?);
                }
                Some((key, value)) => self.set(item, key, value)?,
            }
        }
        if self.fail_first.is_some() && !self.has_fault() {
            self.status_error = Some(StatusError { status: 500, retry_after_s: None });
        }
        match (&mut self.status_error, retry_after_s) {
            (_, None) => {}
            (Some(error), seconds) => error.retry_after_s = seconds,
            (None, Some(_)) => return Err("'retry_after' needs 'error'".to_owned()),
        }
        Ok(self)
    }

    fn has_fault(&self) -> bool {
        self.drop_before_head
            || self.status_error.is_some()
            || [self.cut_after, self.in_band_error_after, self.stall_after].iter().any(Option::is_some)
    }

    /// The same behaviour, for a call that is none of the first ones.
    pub(super) fn without_faults(self) -> Self {
        Self {
            cut_after: None,
            in_band_error_after: None,
            stall_after: None,
            status_error: None,
            drop_before_head: false,
            ..self
        }
    }

    fn switch(&mut self, item: &str) -> Result<(), String> {
        match item {
            "drop_head" => self.drop_before_head = true,
            "moderation" => self.moderation = true,
            "no_usage" => self.no_usage_chunk = true,
            "omit_done" => self.omit_done = true,
            "gate" => self.gate = true,
            _ => return Err(format!("'{item}' is not a switch")),
        }
        Ok(())
    }

    fn set(&mut self, item: &str, key: &str, value: &str) -> Result<(), String> {
        match key {
            "tokens" => self.output_tokens = number(item, value, 0, OUTPUT_TOKENS_MAX)?,
            "delay_ms" => self.inter_token_delay = delay(item, value)?,
            "first_ms" => self.first_token_delay = delay(item, value)?,
            "head_ms" => self.head_delay = delay(item, value)?,
            "prompt" => self.prompt_tokens = prompt_count(item, value)?,
            "overrun" if value == "beyond" => self.prompt_tokens = PromptCount::BeyondAnyBound,
            "completion" => self.completion_tokens = Some(number(item, value, 0, REPORTED_TOKENS_MAX)?),
            "cached" => self.cached_tokens = number(item, value, 0, REPORTED_TOKENS_MAX)?,
            "cache_write" => self.cache_write_tokens = number(item, value, 0, REPORTED_TOKENS_MAX)?,
            "gate_from" => self.gate_from = number(item, value, 0, OUTPUT_TOKENS_MAX)?,
            "cut" => self.cut_after = Some(number(item, value, 0, OUTPUT_TOKENS_MAX)?),
            "inband" => self.in_band_error_after = Some(number(item, value, 0, OUTPUT_TOKENS_MAX)?),
            "stall" => self.stall_after = Some(number(item, value, 0, OUTPUT_TOKENS_MAX)?),
            "fail_first" => self.fail_first = Some(number(item, value, 0, FAILED_CALLS_MAX)?),
            "gone" => self.gone = gone(item, value)?,
            "error" => {
                let status = number(item, value, 400, 599)?;
                let status = u16::try_from(status).map_err(|_| format!("'{item}' is out of range"))?;
                self.status_error = Some(StatusError { status, retry_after_s: None });
            }
            _ => return Err(format!("'{item}' is not understood")),
        }
        Ok(())
    }
}

fn prompt_count(item: &str, value: &str) -> Result<PromptCount, String> {
    match value.split_once(':') {
        None if value == "quarter" => Ok(PromptCount::Quarter),
        None if value == "beyond" => Ok(PromptCount::BeyondAnyBound),
        Some(("exact", tokens)) => Ok(PromptCount::Exact(number(item, tokens, 0, REPORTED_TOKENS_MAX)?)),
        Some(("bytes", tokens)) => {
            Ok(PromptCount::ExactBytesPlus(number(item, tokens, 0, REPORTED_TOKENS_MAX)?))
        }
        _ => Err(format!("'{item}' is none of quarter, exact:N, bytes:N, beyond")),
    }
}

/// Names that are models here, with commas between them: one that is misspelt would be gone without being missed.
fn gone(item: &str, value: &str) -> Result<Vec<String>, String> {
    let known = |name: &str| MODELS.iter().any(|model| model.id == name);
    let names = value.split(',').map(|name| known(name).then(|| name.to_owned()));
    names.collect::<Option<_>>().ok_or_else(|| format!("'{item}' is not a list of models"))
}

fn delay(item: &str, value: &str) -> Result<Duration, String> {
    number(item, value, 0, DELAY_MS_MAX).map(Duration::from_millis)
}

fn number(item: &str, value: &str, min: u64, max: u64) -> Result<u64, String> {
    value
        .parse()
        .ok()
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("'{item}' is not a number from {min} to {max}"))
}

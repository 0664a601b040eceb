//! Refusals as `application/problem+json` (RFC 9457). Each says what happened, what to do and, where there is one, when to
//! come back: in the body, because the AI SDK's hooks show their caller the body and no header, and in the headers for
//! everybody else. What went wrong inside never reaches a body; it is logged where it is handled.

use crate::respond;
use ::http::{HeaderValue, Response, StatusCode, header};
use domain::{CapKind, Pool, Refusal, Timestamp, Tokens};
use serde::Serialize;

/// Seconds after which a store, a provider or Clerk, if it does not answer, is worth another try.
pub const UNAVAILABLE_RETRY_AFTER_S: u64 = 5;
const MS_PER_S: u64 = 1_000;
const RATE_LIMIT: header::HeaderName = header::HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: header::HeaderName = header::HeaderName::from_static("ratelimit-policy");

/// What kind of problem: stable text for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// 401: no session token, or one that does not hold.
    Unauthenticated,
    /// 402: what is settled leaves too little of the plan's cap.
    QuotaExceeded,
    /// 402: what is settled leaves too little of the user's own cap.
    SpendCapReached,
    /// 402: an invoice is unpaid, and the time to pay it is over.
    PastDue,
    /// 402: what all users without a subscription share for the day is used up.
    TrialBudgetUsedUp,
    /// 404: nothing is here.
    NotFound,
    /// 405: not by this method.
    MethodNotAllowed,
    /// 409: the request with this idempotency key is being answered.
    InProgress,
    /// 409: the request with this idempotency key was answered, and its answer is not kept.
    AlreadyAnswered,
    /// 409: whoever has a subscription cannot buy another.
    AlreadySubscribed,
    /// 409: whoever never bought anything has no customer at Stripe.
    NoCustomer,
    /// 409: the wanted spend cap is below what is used and held.
    SpendCapBelowUsed,
    /// 413: the body is too long.
    TooLarge,
    /// 413: the prompt is too long.
    PromptTooLong,
    /// 415: the body is not JSON by its content type.
    UnsupportedMediaType,
    /// 422: the body is not a JSON object.
    InvalidJson,
    /// 422: a field is missing or is not what it has to be.
    InvalidField,
    /// 422: the idempotency key was used for another body.
    IdempotencyKeyReused,
    /// 422: the model has no price, so it cannot be called.
    UnknownModel,
    /// 429: open requests hold what this one needs.
    QuotaHeld,
    /// 429: too many requests at the same time.
    Concurrency,
    /// 429: too many requests in the window.
    RateLimited,
    /// 500: a defect.
    Internal,
    /// 503: whose session token it is cannot be said, since Clerk's keys cannot be had; the token may well hold.
    IdentityUnavailable,
    /// 503: the ledger's store does not answer, so nobody may generate.
    StoreUnavailable,
    /// 503: the provider does not answer or turned the request away.
    ProviderUnavailable,
    /// 503: the owner's budget for the day is used up.
    OwnerCeilingReached,
    /// 503: Stripe does not answer or turned the request away.
    StripeUnavailable,
    /// 503: what a draft invoice bills is not all reported yet; only Stripe is told so.
    UsagePending,
}

impl Code {
    /// The code as it is in the body.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::QuotaExceeded => "quota_exceeded",
            Self::SpendCapReached => "spend_cap_reached",
            Self::PastDue => "past_due",
            Self::TrialBudgetUsedUp => "trial_budget_used_up",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::InProgress => "in_progress",
            Self::AlreadyAnswered => "already_answered",
            Self::AlreadySubscribed => "already_subscribed",
            Self::NoCustomer => "no_customer",
            Self::SpendCapBelowUsed => "spend_cap_below_used",
            Self::TooLarge => "too_large",
            Self::PromptTooLong => "prompt_too_long",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::InvalidJson => "invalid_json",
            Self::InvalidField => "invalid_field",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::UnknownModel => "unknown_model",
            Self::QuotaHeld => "quota_held",
            Self::Concurrency => "concurrency",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
            Self::IdentityUnavailable => "identity_unavailable",
            Self::StoreUnavailable => "store_unavailable",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::OwnerCeilingReached => "owner_ceiling_reached",
            Self::StripeUnavailable => "stripe_unavailable",
            Self::UsagePending => "usage_pending",
        }
    }

    /// Its HTTP status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::QuotaExceeded | Self::SpendCapReached | Self::PastDue | Self::TrialBudgetUsedUp => {
                StatusCode::PAYMENT_REQUIRED
            }
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::InProgress
            | Self::AlreadyAnswered
            | Self::AlreadySubscribed
            | Self::NoCustomer
            | Self::SpendCapBelowUsed => StatusCode::CONFLICT,
            Self::TooLarge | Self::PromptTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidJson | Self::InvalidField | Self::IdempotencyKeyReused | Self::UnknownModel => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::QuotaHeld | Self::Concurrency | Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::IdentityUnavailable
            | Self::StoreUnavailable
            | Self::ProviderUnavailable
            | Self::OwnerCeilingReached
            | Self::StripeUnavailable
            | Self::UsagePending => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The same sentence for every occurrence.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Unauthenticated => "Sign in first",
            Self::QuotaExceeded => "The plan's tokens for this period are used up",
            Self::SpendCapReached => "Your own spend cap is reached",
            Self::PastDue => "An invoice is unpaid",
            Self::TrialBudgetUsedUp => "Free use is over for today",
            Self::NotFound => "There is nothing here",
            Self::MethodNotAllowed => "Not by this method",
            Self::InProgress => "This request is being answered",
            Self::AlreadyAnswered => "This request was answered before",
            Self::AlreadySubscribed => "You have a subscription already",
            Self::NoCustomer => "There is nothing to manage yet",
            Self::SpendCapBelowUsed => "This spend cap is below what is used",
            Self::TooLarge => "The request is too large",
            Self::PromptTooLong => "The prompt is too long",
            Self::UnsupportedMediaType => "The request is not JSON",
            Self::InvalidJson => "The request cannot be read",
            Self::InvalidField => "A field is not what it has to be",
            Self::IdempotencyKeyReused => "This idempotency key is another request's",
            Self::UnknownModel => "This model is not on offer",
            Self::QuotaHeld => "Requests under way hold the remaining tokens",
            Self::Concurrency => "Too many requests at the same time",
            Self::RateLimited => "Too many requests",
            Self::Internal => "Something went wrong on our side",
            Self::IdentityUnavailable => "Your sign-in cannot be checked right now",
            Self::StoreUnavailable => "The ledger does not answer right now",
            Self::ProviderUnavailable => "The model does not answer right now",
            Self::OwnerCeilingReached => "The service has reached its limit for today",
            Self::StripeUnavailable => "Payments cannot be reached right now",
            Self::UsagePending => "The period's usage is not all reported yet",
        }
    }
}

/// A refusal to be answered with. As JSON it is its body.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Problem {
    body: Box<Body>,
    #[serde(skip)]
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

/// The wire form; members that do not apply are absent.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    code: Code,
    /// Seconds; the same as the header `retry-after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    needed: Option<u64>,
    /// Tokens that are charged.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    /// Tokens that open requests hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<String>,
    /// When an invoice should have been paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pay_by: Option<String>,
    /// Where it can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    portal_url: Option<String>,
    /// The receipt of an answer that was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
    /// That `retryAfter` and `retryAt` are upper bounds: it may pass sooner.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    upper_bound: bool,
}

impl Problem {
    /// A problem; `detail` tells a person what to do.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let body = Body {
            r#type: format!("urn:problem-type:inkmeter:{}", code.as_str()),
            title: code.title(),
            status: code.status().as_u16(),
            detail: detail.into(),
            code,
            retry_after: None,
            field: None,
            limit: None,
            left: None,
            needed: None,
            used: None,
            held: None,
            resets_at: None,
            retry_at: None,
            pay_by: None,
            portal_url: None,
            receipt: None,
            upper_bound: false,
        };
        Self { body: Box::new(body), headers: Vec::new() }
    }

    /// Nobody is signed in.
    pub fn token_missing() -> Self {
        let detail = "Sign in, and send the header `authorization: Bearer <session token>`.";
        let challenge = HeaderValue::from_static("Bearer realm=\"inkmeter\"");
        Self::new(Code::Unauthenticated, detail).header(header::WWW_AUTHENTICATE, challenge)
    }

    /// The session token does not hold; `reason` as its verifier names it.
    pub fn token_refused(reason: &'static str) -> Self {
        let detail = format!("The session token was refused ({reason}). Sign in again.");
        let challenge = HeaderValue::from_static("Bearer realm=\"inkmeter\", error=\"invalid_token\"");
        Self::new(Code::Unauthenticated, detail).header(header::WWW_AUTHENTICATE, challenge)
    }

    /// The path leads nowhere.
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "Check the address; the API is described in the project's README.")
    }

    /// The path is right and the method is not; `allowed` as in the header `allow`.
    pub fn method_not_allowed(allowed: &'static str) -> Self {
        Self::new(Code::MethodNotAllowed, format!("Use {allowed}."))
            .header(header::ALLOW, HeaderValue::from_static(allowed))
    }

    /// Clerk does not say which keys it signs with.
    pub fn identity_unavailable() -> Self {
        let detail = "Nothing was used or charged. Please try again in a few seconds.";
        Self::new(Code::IdentityUnavailable, detail).retry_after(UNAVAILABLE_RETRY_AFTER_S)
    }

    /// The ledger's store does not answer.
    pub fn store_unavailable() -> Self {
        let detail = "Nothing was used or charged. Please try again in a few seconds.";
        Self::new(Code::StoreUnavailable, detail).retry_after(UNAVAILABLE_RETRY_AFTER_S)
    }

    /// A budget of the owner's has too little left for the request.
    pub fn budget_used_up(pool: Pool, resets_at: Timestamp, now: Timestamp) -> Self {
        let (code, detail) = match pool {
            Pool::Trial => {
                let detail = format!(
                    "What everybody without a subscription shares is used up for today. Nothing was charged. Free use begins \
                     again at {resets_at}; with a subscription you can go on now."
                );
                (Code::TrialBudgetUsedUp, detail)
            }
            Pool::Everyone => {
                let detail = format!("Nothing was used or charged. The next day begins at {resets_at}.");
                (Code::OwnerCeilingReached, detail)
            }
        };
        let mut problem = Self::new(code, detail);
        problem.body.resets_at = Some(resets_at.to_string());
        problem.retry_after(resets_at.s_after(now).max(1))
    }

    /// Stripe does not do what was asked of it.
    pub fn stripe_unavailable() -> Self {
        let detail = "Nothing was bought or charged. Please try again in a few seconds.";
        Self::new(Code::StripeUnavailable, detail).retry_after(UNAVAILABLE_RETRY_AFTER_S)
    }

    /// Whoever asked has a subscription.
    pub fn already_subscribed() -> Self {
        let detail = "Manage the subscription that you have: `POST /v1/portal` says where.";
        Self::new(Code::AlreadySubscribed, detail)
    }

    /// Whoever asked never bought anything.
    pub fn no_customer() -> Self {
        Self::new(Code::NoCustomer, "Buy a plan first: `POST /v1/checkout` says where.")
    }

    /// A spend cap that would stop everything at once, without the word that it is meant so.
    pub fn spend_cap_below_used(cap: Tokens, used: Tokens, held: Tokens) -> Self {
        let detail = format!(
            "{used} tokens are used and requests under way hold {held}. A spend cap of {cap} lets nothing pass until that \
             fits, or the next period begins. If that is meant, send it again with `\"confirm\": true`."
        );
        let mut problem = Self::new(Code::SpendCapBelowUsed, detail).limit(cap.get());
        problem.body.used = Some(used.get());
        problem.body.held = Some(held.get());
        problem
    }

    /// A defect; what it was is in the log.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "Nothing was charged. If it happens again, please tell us when it did.")
    }

    /// A request that was not admitted, with the limit that refused it.
    pub fn refusal(refusal: &Refusal, now: Timestamp) -> Self {
        match refusal {
            Refusal::PastDue { pay_by } => {
                let detail = format!(
                    "An invoice should have been paid by {pay_by}. Pay it, or give another means of payment; then everything \
                     goes on."
                );
                let mut problem = Self::new(Code::PastDue, detail);
                problem.body.pay_by = Some(pay_by.to_string());
                problem
            }
            Refusal::Quota { kind, cap, left, needed, resets_at } => {
                let (code, instead) = match kind {
                    CapKind::Plan => (Code::QuotaExceeded, "move to a plan with more tokens"),
                    CapKind::SpendCap => (Code::SpendCapReached, "raise your spend cap"),
                };
                let detail = format!(
                    "This period's cap is {cap} tokens, of which {left} are left; this request needs at least {needed}. \
                     Wait until {resets_at}, or {instead}."
                );
                let mut problem = Self::new(code, detail).bound(cap.get(), left.get(), needed.get());
                problem.body.resets_at = Some(resets_at.to_string());
                problem.retry_after(resets_at.s_after(now))
            }
            Refusal::QuotaHeld { cap, left, needed, until_most } => {
                let detail = format!(
                    "This period's cap is {cap} tokens; with what requests under way hold, {left} are left, and this \
                     request needs at least {needed}. Try again when one of them has ended."
                );
                Self::new(Code::QuotaHeld, detail)
                    .bound(cap.get(), left.get(), needed.get())
                    .until_most(*until_most, now)
            }
            Refusal::Concurrency { limit, until_most } => {
                let detail = format!(
                    "Your plan allows {limit} requests at the same time. Try again when one of them has ended."
                );
                let mut problem = Self::new(Code::Concurrency, detail).until_most(*until_most, now);
                problem.body.limit = Some(u64::from(*limit));
                problem
            }
            Refusal::Rate { limit, window_ms, retry_at } => Self::rate(*limit, *window_ms, *retry_at, now),
        }
    }

    fn rate(limit: u32, window_ms: u64, retry_at: Timestamp, now: Timestamp) -> Self {
        let seconds = window_ms.div_ceil(MS_PER_S);
        let wait_s = retry_at.s_after(now).max(1);
        let detail = format!(
            "Your plan allows {limit} requests in {seconds} seconds. This one passes in {wait_s} s, if no other comes before it."
        );
        let mut problem = Self::new(Code::RateLimited, detail).retry_after(wait_s);
        problem.body.limit = Some(u64::from(limit));
        problem.body.retry_at = Some(retry_at.to_string());
        // Structured fields of draft-ietf-httpapi-ratelimit-headers-11.
        problem
            .header_text(RATE_LIMIT_POLICY, &format!("\"requests\";q={limit};w={seconds}"))
            .header_text(RATE_LIMIT, &format!("\"requests\";r=0;t={wait_s}"))
    }

    /// Names the field of the request's body that is at fault.
    #[must_use]
    pub fn field(mut self, field: &'static str) -> Self {
        self.body.field = Some(field);
        self
    }

    /// Names the limit that was exceeded, in the unit that `detail` gives.
    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.body.limit = Some(limit);
        self
    }

    /// Says after how many seconds another try is worth it, in body and header.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.body.retry_after = Some(seconds);
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Says where an unpaid invoice can be paid, if it is that.
    #[must_use]
    pub fn portal(mut self, url: &str) -> Self {
        if self.body.code == Code::PastDue {
            self.body.portal_url = Some(url.to_owned());
        }
        self
    }

    /// Names the receipt of an answer that was given.
    #[must_use]
    pub fn receipt(mut self, id: &str) -> Self {
        self.body.receipt = Some(id.to_owned());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn header_text(self, name: header::HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => self.header(name, value),
            Err(_) => self,
        }
    }

    fn bound(mut self, limit: u64, left: u64, needed: u64) -> Self {
        self.body.limit = Some(limit);
        self.body.left = Some(left);
        self.body.needed = Some(needed);
        self
    }

    fn until_most(mut self, until_most: Timestamp, now: Timestamp) -> Self {
        self.body.retry_at = Some(until_most.to_string());
        self.body.upper_bound = true;
        self.retry_after(until_most.s_after(now).max(1))
    }

    /// What kind of problem it is.
    pub fn code(&self) -> Code {
        self.body.code
    }

    /// The answer.
    pub fn into_response<B: From<String>>(self) -> Response<B> {
        let content_type = HeaderValue::from_static("application/problem+json");
        let text = respond::serialize(&self.body);
        let mut response = respond::with_text(self.body.code.status(), content_type, text);
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp::from_s(1_000);

    fn answer(problem: Problem) -> (Response<()>, Value) {
        let (parts, body) = problem.into_response::<String>().into_parts();
        (Response::from_parts(parts, ()), serde_json::from_str(&body).unwrap())
    }

    #[track_caller]
    fn check(refusal: &Refusal, status: u16, code: &str, members: &Value) -> Response<()> {
        check_problem(Problem::refusal(refusal, NOW), status, code, members)
    }

    #[track_caller]
    fn check_problem(problem: Problem, status: u16, code: &str, members: &Value) -> Response<()> {
        let (head, mut body) = answer(problem);
        let map = body.as_object_mut().unwrap();
        assert_eq!(head.status(), status);
        assert_eq!(map.remove("status"), Some(json!(status)));
        assert_eq!(map.remove("code"), Some(json!(code)));
        assert_eq!(map.remove("type"), Some(json!(format!("urn:problem-type:inkmeter:{code}"))));
        assert!(map.remove("title").is_some() && map.remove("detail").is_some());
        assert_eq!(body, *members);
        assert_eq!(head.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(head.headers()[header::CACHE_CONTROL], "no-store");
        let retry_after = members.get("retryAfter").map(ToString::to_string);
        let header = head.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header, retry_after);
        head
    }

    fn quota(kind: CapKind) -> Refusal {
        let (cap, left, needed) = (Tokens::from_u32(20_000), Tokens::from_u32(7), Tokens::from_u32(90));
        Refusal::Quota { kind, cap, left, needed, resets_at: Timestamp::from_s(2_000) }
    }

    #[test]
    fn i5_a_402_says_which_limit_how_much_is_left_and_when_it_resets() {
        let members = json!({
            "limit": 20_000, "left": 7, "needed": 90, "resetsAt": "1970-01-01T00:33:20.000Z",
            "retryAfter": 1_000,
        });
        check(&quota(CapKind::Plan), 402, "quota_exceeded", &members);
        check(&quota(CapKind::SpendCap), 402, "spend_cap_reached", &members);
    }

    #[test]
    fn a_402_for_a_debt_says_since_when_and_where_to_pay() {
        let refusal = Refusal::PastDue { pay_by: Timestamp::from_s(900) };
        check(&refusal, 402, "past_due", &json!({"payBy": "1970-01-01T00:15:00.000Z"}));
        let url = "https://pay.example.com/p/login/1";
        let (_, body) = answer(Problem::refusal(&refusal, NOW).portal(url));
        assert_eq!(body["portalUrl"], url);
        let (_, other) = answer(Problem::refusal(&quota(CapKind::Plan), NOW).portal(url));
        assert_eq!(other.get("portalUrl"), None, "nothing to pay there");
    }

    #[test]
    fn i5_what_open_requests_hold_is_answered_with_an_upper_bound_marked_as_one() {
        let (cap, left, needed) = (Tokens::from_u32(20_000), Tokens::from_u32(7), Tokens::from_u32(90));
        let until_most = Timestamp::from_ms(1_000_001);
        let refusal = Refusal::QuotaHeld { cap, left, needed, until_most };
        let members = json!({
            "limit": 20_000, "left": 7, "needed": 90, "retryAfter": 1, "retryAt": "1970-01-01T00:16:40.001Z",
            "upperBound": true,
        });
        check(&refusal, 429, "quota_held", &members);
        let refusal = Refusal::Concurrency { limit: 2, until_most: Timestamp::from_s(1_330) };
        let members =
            json!({"limit": 2, "retryAfter": 330, "retryAt": "1970-01-01T00:22:10.000Z", "upperBound": true});
        check(&refusal, 429, "concurrency", &members);
    }

    #[test]
    fn i5_a_full_rate_window_is_answered_with_the_exact_instant() {
        let retry_at = Timestamp::from_ms(1_011_001);
        let refusal = Refusal::Rate { limit: 60, window_ms: 60_000, retry_at };
        let members = json!({"limit": 60, "retryAfter": 12, "retryAt": "1970-01-01T00:16:51.001Z"});
        let head = check(&refusal, 429, "rate_limited", &members);
        assert_eq!(head.headers()[RATE_LIMIT_POLICY], "\"requests\";q=60;w=60");
        assert_eq!(head.headers()[RATE_LIMIT], "\"requests\";r=0;t=12");
    }

    #[test]
    fn f20_a_budget_that_is_used_up_says_when_the_next_day_begins() {
        let members = json!({"resetsAt": "1970-01-02T00:00:00.000Z", "retryAfter": 85_400});
        for (pool, status, code) in
            [(Pool::Trial, 402, "trial_budget_used_up"), (Pool::Everyone, 503, "owner_ceiling_reached")]
        {
            let problem = Problem::budget_used_up(pool, Timestamp::from_s(86_400), NOW);
            check_problem(problem, status, code, &members);
        }
    }

    #[test]
    fn the_code_in_the_body_is_the_code_by_name() {
        for code in [
            Code::TrialBudgetUsedUp,
            Code::OwnerCeilingReached,
            Code::QuotaExceeded,
            Code::InvalidJson,
            Code::ProviderUnavailable,
            Code::Internal,
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), json!(code.as_str()));
        }
    }

    #[test]
    fn a_401_says_how_to_sign_in() {
        let (head, body) = answer(Problem::token_missing());
        assert_eq!((head.status().as_u16(), &body["code"]), (401, &json!("unauthenticated")));
        assert_eq!(head.headers()[header::WWW_AUTHENTICATE], "Bearer realm=\"inkmeter\"");
        let (head, body) = answer(Problem::token_refused("token-expired"));
        assert!(body["detail"].as_str().unwrap().contains("token-expired"));
        assert!(
            head.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().ends_with("error=\"invalid_token\"")
        );
    }
}

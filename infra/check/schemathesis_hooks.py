"""What schemathesis cannot know of this API: which signature Stripe would have made, which key was answered before, how a
data stream is built, and which refusals of a well-formed request are right. infra/check/schemathesis.sh loads it.

INKMETER_PLAN says what the running cloud's plan is: `generous` refuses nobody, `strict` refuses nearly everybody, `nobody` is
the generous one without a session. INKMETER_API is where the API is, INKMETER_STRIPE where Stripe's stand-in is. INKMETER_SEEN names the file that gets how
often each operation answered with each status.
"""

import atexit
import collections
import hashlib
import hmac
import json
import os
import pathlib
import re
import time

import jsonschema_rs
import requests
import schemathesis
import yaml
from requests.auth import AuthBase
from schemathesis.core.parameters import ParameterLocation

PLAN = os.environ["INKMETER_PLAN"]
SPECIFICATION = yaml.safe_load((pathlib.Path(__file__).resolve().parents[1] / "openapi.yaml").read_text())
# What Stripe's stand-in signs with, and its key.
WEBHOOK_SECRET = b"whsec_local"
STRIPE_KEY = "sk_test_local"
# How long the stand-in may take, on a machine that has other things to do.
VENDOR_SECONDS_MAX = 60
# The events whose subscription is read again, so that it must be there.
ACTED_ON = {f"customer.subscription.{what}" for what in ("created", "updated", "deleted")}
# Read by the stand-in of the provider: an answer of few tokens, without the pauses that make a stream look like one.
DIRECTIVE = " [[tokens=3 delay_ms=0]]"
# Bytes; what a prompt may have less the directive, so that the boundary is met as it was generated.
PROMPT_BYTES_MAX = 32_768 - len(DIRECTIVE)
# Every so many requests with a key, one repeats the last answered one, and one its key alone.
REPEAT_EVERY = 6

# Refusals of requests that the specification calls valid, by problem code: what no schema can say (bytes, what a
# conversation ends with, what was sent before), and what the plan is there for.
RIGHT = {
    "prompt_too_long", "too_large", "idempotency_key_reused", "in_progress", "already_answered", "no_customer",
    "spend_cap_below_used",
} | {
    "generous": {"not_found"},
    "strict": {"not_found", "rate_limited", "quota_exceeded", "quota_held", "concurrency"},
    "nobody": {"unauthenticated"},
}[PLAN]

# The fields that say where a browser is sent back to. Which origins may be named is a matter of configuration.
ADDRESSES = ("successUrl", "cancelUrl", "returnUrl")
ADDRESS_BYTES_MAX = 1_024

seen = collections.Counter()
answered = {"key": None, "body": None, "count": 0}


class Signed(AuthBase):
    """Signs a request's body as Stripe does."""

    def __call__(self, request):
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        now = str(int(time.time()))
        signature = hmac.new(WEBHOOK_SECRET, now.encode() + b"." + body, hashlib.sha256).hexdigest()
        request.headers["stripe-signature"] = f"t={now},v1={signature}"
        return request


class Nobody(AuthBase):
    """Takes the session away from a request."""

    def __call__(self, request):
        request.headers.pop("authorization", None)
        return request


def subscribe():
    """A subscription at Stripe's stand-in, of a customer who is no user; its id."""
    def post(path, **form):
        url = f"{os.environ['INKMETER_STRIPE'].rstrip('/')}/v1/{path}"
        answer = requests.post(url, data=form, auth=(STRIPE_KEY, ""), timeout=VENDOR_SECONDS_MAX)
        answer.raise_for_status()
        return answer.json()["id"]

    product = post("products", name="schemathesis")
    price = post("prices", product=product, currency="usd", unit_amount=100, **{"recurring[interval]": "month"})
    return post("subscriptions", customer=post("customers"), **{"items[0][price]": price})


SUBSCRIPTION = subscribe()


def operation_id(case):
    """The operation's id; preflights, which have none, are one."""
    return case.operation.definition.raw.get("operationId", "preflight")


def is_valid(case, location):
    """Whether this part of a request is generated to be valid, or is not generated."""
    component = case.meta.components.get(location) if case.meta else None
    return component is None or component.mode.is_positive


def as_written(body):
    """The same body with the number of variants as JavaScript writes it: 5, not 5.0, which to a schema is an integer too."""
    variants = body.get("variants") if isinstance(body, dict) else None
    return body | {"variants": int(variants)} if isinstance(variants, float) and variants.is_integer() else body


def hasten(body):
    """The same body, for a provider that answers at once."""
    if not isinstance(body, dict):
        return body
    prompt = body.get("prompt")
    if isinstance(prompt, str) and prompt.strip() and len(prompt.encode(errors="replace")) <= PROMPT_BYTES_MAX:
        return body | {"prompt": prompt + DIRECTIVE}
    messages = body.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        last = messages[-1]
        parts, content = last.get("parts"), last.get("content")
        if isinstance(parts, list) and parts:
            if isinstance(parts[-1], dict) and isinstance(parts[-1].get("text"), str):
                text = parts[-1] | {"text": parts[-1]["text"] + DIRECTIVE}
                return body | {"messages": [*messages[:-1], last | {"parts": [*parts[:-1], text]}]}
        elif isinstance(content, str) and content.strip():
            return body | {"messages": [*messages[:-1], last | {"content": content + DIRECTIVE}]}
    return body


def on_this_origin(body):
    """The same body, with addresses of the one origin that may be named, which is the API's own."""
    if not isinstance(body, dict):
        return body
    here = os.environ["INKMETER_API"].rstrip("/") + "/?"
    at_home = lambda url: (here + url.partition("://")[2])[:ADDRESS_BYTES_MAX]
    return body | {name: at_home(body[name]) for name in ADDRESSES if isinstance(body.get(name), str)}


def without_a_cap():
    """Takes the user's own cap away, so that what comes next is not refused for it."""
    url = f"{os.environ['INKMETER_API'].rstrip('/')}/v1/spend-cap"
    headers = {"authorization": f"Bearer {os.environ['INKMETER_TOKEN']}"}
    requests.put(url, json={"tokens": None}, headers=headers, timeout=VENDOR_SECONDS_MAX).raise_for_status()


def with_subscription(body):
    """The same event, about a subscription that exists: about another it is to be delivered again, a 503."""
    try:
        if body["type"] in ACTED_ON and isinstance(body["data"]["object"]["id"], str):
            return body | {"data": {"object": body["data"]["object"] | {"id": SUBSCRIPTION}}}
    except (KeyError, TypeError):
        pass
    return body


@schemathesis.hook
def before_call(context, case, kwargs):
    """Signs webhooks; makes keys new, but for some that are repeated; asks for answers that are there."""
    name = operation_id(case)
    valid_headers = is_valid(case, ParameterLocation.HEADER)
    if PLAN == "nobody":
        kwargs["auth"] = Nobody()
    if name == "stripeWebhook" and valid_headers and "stripe-signature" in case.headers:
        kwargs["auth"] = Signed()
        case.body = with_subscription(case.body)
    if name in ("checkout", "portal") and is_valid(case, ParameterLocation.BODY):
        case.body = on_this_origin(case.body)
    if name == "receipts" and isinstance(case.query, dict) and isinstance(case.query.get("limit"), float):
        case.query["limit"] = int(case.query["limit"])
    if name in ("generate", "quote"):
        case.body = hasten(as_written(case.body))
    if name == "generate" and valid_headers and "idempotency-key" in case.headers:
        answered["count"] += 1
        turn = answered["count"] % REPEAT_EVERY
        if answered["key"] and turn in (0, REPEAT_EVERY // 2):
            case.headers["idempotency-key"] = answered["key"]
            if turn == 0 and is_valid(case, ParameterLocation.BODY):
                case.body = answered["body"]
        else:
            case.headers["idempotency-key"] = f"key-{answered['count']}"
    if name in ("replay", "stop") and answered["key"] and is_valid(case, ParameterLocation.PATH):
        answered["count"] += 1
        if answered["count"] % 2:
            case.path_parameters["id"] = answered["key"]


@schemathesis.hook
def after_call(context, case, response):
    """Notes what was reached."""
    name = operation_id(case)
    seen[f"{name} {response.status_code}"] += 1
    if name == "spendCap" and response.status_code == 200:
        without_a_cap()
    if response.headers.get("idempotency-replayed"):
        seen[f"{name} replayed"] += 1
    if name == "generate" and response.status_code == 200 and "idempotency-key" in (case.headers or {}):
        answered.update(key=case.headers["idempotency-key"], body=case.body)


def validator(name):
    """A validator of one of the specification's schemas."""
    return jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": SPECIFICATION["components"]}
    )


WISH = validator("Wish")
PROTOCOL = validator("Protocol")
KEY = validator("Key")


def without_nulls(value):
    """The same JSON without the fields that are null, which count as absent."""
    if isinstance(value, dict):
        return {key: without_nulls(field) for key, field in value.items() if field is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def is_right_after_all(case):
    """Whether a request that was generated to be wrong is one that the API takes, as the specification says in words: a field
    that is null is absent, and a protocol in the query wins over one in the header."""
    query, headers = case.query or {}, case.headers or {}
    if "protocol" in query and not PROTOCOL.is_valid(query["protocol"]):
        return False
    if "protocol" not in query and not PROTOCOL.is_valid(headers.get("x-inkmeter-protocol", "text")):
        return False
    if operation_id(case) == "replay":
        return True
    return KEY.is_valid(headers.get("idempotency-key", "none")) and WISH.is_valid(without_nulls(case.body))


def is_last_at_fault(case, problem):
    """Whether a conversation was refused for its last message, of which a schema cannot speak."""
    return problem.get("field") == "messages" and problem.get("detail", "").startswith("The last of")


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Keeps the failures that are failures: drops right refusals and right answers that the schema's language cannot tell."""
    kind = type(failure).__name__
    if kind == "AcceptedNegativeData" and operation_id(case) in ("generate", "quote", "replay"):
        return not is_right_after_all(case)
    if kind != "RejectedPositiveData":
        return True
    try:
        problem = response.json()
    except ValueError:
        return True
    # A cursor is an answer's own; none that was made up is taken.
    is_made_up = operation_id(case) == "receipts" and problem.get("field") == "cursor"
    return problem.get("code") not in RIGHT and not is_made_up and not is_last_at_fault(case, problem)


METADATA = validator("Metadata")
DATA_PART = re.compile(r'^(?:f:\{.*\}|0:".*"|8:\[.*\]|3:".*"|[ed]:\{.*\})$')


@schemathesis.check
def an_answer_is_whole(ctx, response, case):
    """A stream begins and ends as its protocol says; a data stream, which has no schema language, has the parts it may."""
    if response.status_code != 200 or operation_id(case) not in ("generate", "replay"):
        return
    text = response.content.decode()
    if "x-vercel-ai-ui-message-stream" in response.headers:
        assert text.startswith('data: {"type":"start"'), text[:200]
        assert text.endswith("data: [DONE]\n\n"), text[-200:]
        assert any(f'"type":"{end}"' in text for end in ("finish", "abort", "error")), text[-400:]
    elif "x-vercel-ai-data-stream" in response.headers:
        lines = text.removesuffix("\n").split("\n")
        assert lines[0].startswith("f:") and lines[-1][:2] in ("d:", "3:"), text
        for line in lines:
            assert DATA_PART.match(line), line
            value = json.loads(line[2:])
            if line.startswith("8:"):
                METADATA.validate(value[0])
    else:
        assert response.headers["content-type"][0].startswith("text/plain"), response.headers
        assert text, "an answer without text"


@atexit.register
def write_down():
    """What was reached, for the script to judge."""
    pathlib.Path(os.environ["INKMETER_SEEN"]).write_text(json.dumps(dict(sorted(seen.items())), indent=1))

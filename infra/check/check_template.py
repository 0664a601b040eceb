#!/usr/bin/env python3
"""Asserts of infra/template.yaml what no linter looks at.

The template is translated as SAM does it on deployment (PyPI: aws-sam-translator), without a network, and the
assertions are about the translation: what would be deployed, not what was meant. `--self-test` breaks the template in
one way after another and asserts that the check meant for that way, and it, fails.

    check_template.py [--self-test]

Never imported by anything, never deployed.
"""

import copy
import json
import logging
import os
import pathlib
import re
import sys
import tomllib

# The translator asks for a region before it does anything; every region gives the same answers here.
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
logging.disable(logging.WARNING)

from samtranslator.translator.transform import transform  # noqa: E402
from samtranslator.yaml_helper import yaml_parse  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Path and method -> function. Nothing else is reachable.
ROUTES = {
    ("/v1/generate", "post"): "Generate",
    ("/v1/generate", "options"): "Generate",
    ("/v1/generate/{id}/stream", "get"): "Generate",
    ("/v1/generate/{id}/stream", "options"): "Generate",
    ("/v1/generate/{id}/stop", "post"): "Generate",
    ("/v1/generate/{id}/stop", "options"): "Generate",
    ("/v1/quote", "post"): "Generate",
    ("/v1/quote", "options"): "Generate",
    ("/v1/usage", "get"): "Account",
    ("/v1/usage", "options"): "Account",
    ("/v1/receipts", "get"): "Account",
    ("/v1/receipts", "options"): "Account",
    ("/v1/checkout", "post"): "Account",
    ("/v1/checkout", "options"): "Account",
    ("/v1/portal", "post"): "Account",
    ("/v1/portal", "options"): "Account",
    ("/v1/spend-cap", "put"): "Account",
    ("/v1/spend-cap", "options"): "Account",
    ("/v1/webhooks/stripe", "post"): "Webhook",
}

# The functions that answer as a stream, on every route: a buffered route cannot read such an answer.
STREAMING = {"Generate"}

# Milliseconds. What the gateway waits for a function unless told otherwise, and at most for one that streams.
GATEWAY_TIMEOUT_MS_DEFAULT = 29_000
GATEWAY_TIMEOUT_MS_MAX = 900_000

EVERY_FUNCTION = {"RUST_LOG", "TABLE_NAME"}
CLERK = {"CLERK_ISSUER", "CLERK_JWT_KEY", "CLERK_JWT_KEY_ID", "CLERK_JWKS_URL", "CLERK_AUTHORIZED_PARTIES"}
OPENAI = {"OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"}

# What the provider may cost in a day.
BUDGETS = {"OWNER_DAILY_USD", "TRIAL_DAILY_USD"}

# The variables that come from parameters which may be left empty.
OPTIONAL = {
    "OPENAI_API_KEY": "OpenAiApiKey",
    "CLERK_JWT_KEY": "ClerkJwtKey",
    "CLERK_JWT_KEY_ID": "ClerkJwtKeyId",
    "CLERK_JWKS_URL": "ClerkJwksUrl",
    "STRIPE_CALLS_PER_S": "StripeCallsPerSecond",
    "STRIPE_THIN_WEBHOOK_SECRET": "StripeThinWebhookSecret",
    "PORTAL_URL": "PortalUrl",
    "PORTAL_CONFIGURATION_ID": "PortalConfigurationId",
}

# What each function is told, by name of the variable.
ENVIRONMENT = {
    "Generate": EVERY_FUNCTION | OPENAI | CLERK | BUDGETS | {"STORE_ANSWERS", "PORTAL_URL", "EVENT_BUS_NAME"},
    "Account": EVERY_FUNCTION | CLERK | {"STRIPE_SECRET_KEY", "PORTAL_CONFIGURATION_ID"},
    "Webhook": EVERY_FUNCTION
    | {"STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_THIN_WEBHOOK_SECRET"}
    | {"STRIPE_METER_EVENT_NAME", "STRIPE_METER_ID", "EVENT_BUS_NAME"},
    "Reporter": EVERY_FUNCTION
    | {"STRIPE_SECRET_KEY", "STRIPE_METER_EVENT_NAME", "STRIPE_METER_ID", "STRIPE_CALLS_PER_S", "EVENT_BUS_NAME"},
}

# The variables that are secrets, and the parameter each comes from.
SECRETS = {
    "OPENAI_API_KEY": "OpenAiApiKey",
    "STRIPE_SECRET_KEY": "StripeSecretKey",
    "STRIPE_WEBHOOK_SECRET": "StripeWebhookSecret",
    "STRIPE_THIN_WEBHOOK_SECRET": "StripeThinWebhookSecret",
}

TABLE = {"Fn::GetAtt": ["Table", "Arn"]}
INDEX = {"Fn::Sub": "${Table.Arn}/index/dirty"}
BUS = {"Fn::GetAtt": ["Bus", "Arn"]}
FAILURES = {"Fn::GetAtt": ["ReporterFailures", "Arn"]}
REPORTER = {"Fn::GetAtt": ["Reporter", "Arn"]}
ALERTS = {"Ref": "Alerts"}

# What the bus says that is for no person.
NOT_FOR_PEOPLE = ["Reporter Unfinished", "Drain Wanted", "Usage Invoiced"]

# What wakes the reporter over the bus: who says it, and what it is called.
WAKES = {
    "ReporterUnfinished": ("inkmeter.reporter", "Reporter Unfinished"),
    "ReporterDrain": ("inkmeter.webhook", "Drain Wanted"),
}
# How many refused deliveries within how many seconds reach the topic. One forged request must not.
REFUSALS = (5, 900)

# The schedules: what they are and what they hand on. An hourly one's retries are over before the next run.
SCHEDULES = {
    "ReporterHourly": ("rate(1 hour)", None),
    "ReporterNightly": ("cron(17 3 * * ? *)", {"mode": "reconcile"}),
}

LEDGER = {f"dynamodb:{name}" for name in ("GetItem", "PutItem", "Query", "UpdateItem")}

# Role -> what it may do: (action, resource). Nothing else.
GRANTS = {
    "GenerateRole": [(action, TABLE) for action in LEDGER | {"dynamodb:DeleteItem"}] + [("events:PutEvents", BUS)],
    "AccountRole": [(action, TABLE) for action in LEDGER],
    "WebhookRole": [(action, TABLE) for action in LEDGER] + [("events:PutEvents", BUS)],
    "ReporterRole": [(action, TABLE) for action in LEDGER]
    + [("dynamodb:Query", INDEX), ("events:PutEvents", BUS), ("sqs:SendMessage", FAILURES)],
    "ReporterHourlyRole": [("lambda:InvokeFunction", REPORTER), ("sqs:SendMessage", FAILURES)],
    "ReporterNightlyRole": [("lambda:InvokeFunction", REPORTER), ("sqs:SendMessage", FAILURES)],
}

# The one managed policy that SAM adds to a function: writing its own logs.
LOGS_POLICY = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"

# Parameter -> values that its pattern must take, values that it must refuse.
PEM = "-----BEGIN PUBLIC KEY-----\nMIIB+/aa==\n-----END PUBLIC KEY-----\n"
PATTERNS = {
    "OpenAiApiKey": (["sk-abc_1", ""], ["two words"]),
    "OpenAiBaseUrl": (["https://api.openai.com/v1"], ["https://api.openai.com/v1/", "http://api.openai.com/v1"]),
    "ClerkIssuer": (["https://clerk.example.com"], ["https://clerk.example.com/", "clerk.example.com"]),
    "ClerkJwtKey": (
        [PEM, PEM.strip(), PEM.replace("\n", "\\n"), ""],
        ["MIIB", PEM.replace("PUBLIC", "PRIVATE"), PEM + PEM.replace("PUBLIC", "PRIVATE")],
    ),
    "ClerkJwtKeyId": (["ins_1", ""], ["two words"]),
    "ClerkJwksUrl": (
        ["https://clerk.example.com/.well-known/jwks.json", ""],
        ["http://clerk.example.com/jwks.json", "clerk.example.com"],
    ),
    "ClerkAuthorizedParties": (
        ["https://app.example.com", "https://app.example.com,http://localhost:3000"],
        ["https://app.example.com/", "app.example.com", "https://a.example.com, https://b.example.com"],
    ),
    "StripeSecretKey": (["sk_live_1", "rk_test_1"], ["pk_live_1", "sk_live_"]),
    "StripeWebhookSecret": (["whsec_1", "whsec_1,whsec_2"], ["we_1", "", "whsec_1, whsec_2", "whsec_1,we_2"]),
    "StripeThinWebhookSecret": (["whsec_1", "whsec_1,whsec_2", ""], ["we_1", "whsec_1, whsec_2"]),
    "StripeMeterEventName": (["inkmeter_tokens"], ["", "two words", "x" * 101]),
    "StripeMeterId": (["mtr_test_1"], ["meter"]),
    "StripeCallsPerSecond": (["", "1", "20", "499", "500"], ["0", "501", "1000", "-1", "01"]),
    "AlertEmail": (["", "owner@example.com"], ["owner", "a b@example.com"]),
    "PortalConfigurationId": (["bpc_1a", ""], ["bps_1", "bpc_", "bpc_1/2"]),
    "PortalUrl": (["https://billing.stripe.com/p/login/1", ""], ["http://billing.stripe.com/p/login/1", "pay"]),
}

# Parameters that do not go together, and the rule that refuses them; whatever is not named has its default. The first
# two are refused by none.
TOGETHER = [
    ({"OpenAiApiKey": "sk-1", "ClerkJwtKey": PEM, "ClerkJwtKeyId": "ins_1"}, None),
    ({"OpenAiBaseUrl": "https://ollama.example.com/v1"}, None),
    ({}, "ProviderKey"),
    ({"OpenAiApiKey": "sk-1", "ClerkJwtKeyId": "ins_1"}, "KeyId"),
]

# The table as shared/ledger uses it.
TABLE_PROPERTIES = {
    "BillingMode": "PAY_PER_REQUEST",
    "DeletionProtectionEnabled": True,
    "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
    "TimeToLiveSpecification": {"AttributeName": "expires_at", "Enabled": True},
    "AttributeDefinitions": [
        {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", "dirty")
    ],
    "KeySchema": [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "dirty",
            "KeySchema": [
                {"AttributeName": "dirty", "KeyType": "HASH"},
                {"AttributeName": "pk", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
}


class Inputs:
    """The template as written, its translation, and the two files that must agree with it."""

    def __init__(self, template, samconfig, models):
        self.template = template
        self.samconfig = samconfig
        self.models = models
        translated = translate(template)
        self.resources = translated["Resources"]
        self.rules = translated.get("Rules", {})

    def of_type(self, kind):
        """The resources of one type, by logical id."""
        return {name: r for name, r in self.resources.items() if r["Type"] == kind}

    def property(self, name, key):
        """A property of a resource, None where either is missing."""
        return self.resources.get(name, {}).get("Properties", {}).get(key)

    def timeout_ms(self, function):
        """How long a function may run; 0 where there is no such function, which check_functions says."""
        return (self.property(function, "Timeout") or 0) * 1000


class LogsPolicyOnly:
    """Stands for the list of managed policies that SAM would fetch from IAM."""

    def load(self):
        return {"AWSLambdaBasicExecutionRole": LOGS_POLICY}


def translate(template):
    """What SAM would deploy for this template, its code already uploaded."""
    template = copy.deepcopy(template)
    template["Globals"]["Function"]["CodeUri"] = "s3://bucket/key"
    return transform(template, {}, LogsPolicyOnly())


def check_routes(inputs):
    """Every route reaches its function; one that streams does so as long as its function may run."""
    paths = inputs.resources["Api"]["Properties"]["Body"]["paths"]
    seen = {(path, method) for path, methods in paths.items() for method in methods}
    if seen != set(ROUTES):
        yield f"the routes are {sorted(seen)}, not {sorted(ROUTES)}"
    for path, method in sorted(seen & set(ROUTES)):
        function = ROUTES[path, method]
        integration = paths[path][method].get("x-amazon-apigateway-integration", {})
        timeout_ms = inputs.timeout_ms(function)
        found = (
            integration.get("type"),
            integration.get("uri", {}).get("Fn::Sub", "").partition(":lambda:path/")[2],
            integration.get("responseTransferMode"),
            integration.get("timeoutInMillis"),
        )
        if function in STREAMING:
            uri = f"2021-11-15/functions/${{{function}.Arn}}/response-streaming-invocations"
            expected = ("aws_proxy", uri, "STREAM", timeout_ms)
        else:
            expected = ("aws_proxy", f"2015-03-31/functions/${{{function}.Arn}}/invocations", None, None)
        if found != expected:
            yield f"{method} {path}: the integration is {found}, not {expected}"


def check_timeouts(inputs):
    """No function runs longer than its caller waits."""
    for function in ENVIRONMENT:
        timeout_ms = inputs.timeout_ms(function)
        called_by_gateway = function in ROUTES.values()
        limit_ms = GATEWAY_TIMEOUT_MS_MAX
        if called_by_gateway and function not in STREAMING:
            limit_ms = GATEWAY_TIMEOUT_MS_DEFAULT - 1
        if timeout_ms > limit_ms:
            yield f"{function}: a timeout of {timeout_ms} ms is above {limit_ms} ms"


def check_gateway(inputs):
    """Regional, one stage, and what the gateway says by itself is a problem that a browser may read."""
    if inputs.property("Api", "EndpointConfiguration") != {"Types": ["REGIONAL"]}:
        yield "the API is not regional: an edge-optimised one cuts idle streams after 30 s"
    stages = [r["Properties"]["StageName"] for r in inputs.of_type("AWS::ApiGateway::Stage").values()]
    if stages != ["prod"]:
        yield f"the stages are {stages}, not one called prod"
    if any("StageName" in r["Properties"] for r in inputs.of_type("AWS::ApiGateway::Deployment").values()):
        yield "the deployment makes a stage of its own, next to prod"
    responses = inputs.resources["Api"]["Properties"]["Body"].get("x-amazon-apigateway-gateway-responses", {})
    for kind in ("DEFAULT_4XX", "DEFAULT_5XX"):
        response = responses.get(kind, {})
        headers = response.get("responseParameters", {})
        if headers.get("gatewayresponse.header.Content-Type") != "'application/problem+json'":
            yield f"{kind}: not answered as application/problem+json"
        if headers.get("gatewayresponse.header.Access-Control-Allow-Origin") != "'*'":
            yield f"{kind}: a browser could not read it"
        body = response.get("responseTemplates", {}).get("application/json", "")
        # The gateway puts messageString in with its quotes, and every other variable without.
        body = body.replace("$context.error.messageString", '"text"')
        try:
            problem = json.loads(re.sub(r"\$context\.[A-Za-z.]+", "text", body))
        except ValueError:
            problem = {}
        if not {"type", "title", "detail", "code"} <= set(problem):
            yield f"{kind}: the body is no problem document: {body!r}"


def check_functions(inputs):
    """Every function is built from its own binary, logs for a bounded time, and is told only what it uses."""
    if set(inputs.of_type("AWS::Lambda::Function")) != set(ENVIRONMENT):
        yield f"the functions are {sorted(inputs.of_type('AWS::Lambda::Function'))}"
    for function, expected in ENVIRONMENT.items():
        metadata = inputs.resources.get(function, {}).get("Metadata", {})
        if metadata.get("BuildMethod") != "rust-cargolambda":
            yield f"{function}: not built by cargo-lambda"
        if metadata.get("BuildProperties", {}).get("Binary") != function.lower():
            yield f"{function}: not built from the binary {function.lower()}"
        if inputs.property(function, "Runtime") != "provided.al2023":
            yield f"{function}: not on provided.al2023"
        if inputs.property(function, "Architectures") != [{"Ref": "Architecture"}]:
            yield f"{function}: its architecture is not the parameter"
        group = (inputs.property(function, "LoggingConfig") or {}).get("LogGroup", {}).get("Ref")
        if not inputs.property(group, "RetentionInDays"):
            yield f"{function}: its logs are kept for ever"
        names = set((inputs.property(function, "Environment") or {}).get("Variables", {}))
        if names != expected:
            yield f"{function}: environment lacks {sorted(expected - names)}, has {sorted(names - expected)} too much"
    if inputs.template["Parameters"]["Architecture"]["Default"] != "arm64":
        yield "the architecture is not arm64 unless chosen"


def check_secrets(inputs):
    """A secret is a NoEcho parameter without a default but nothing, and reaches a function by reference."""
    for parameter in SECRETS.values():
        definition = inputs.template["Parameters"].get(parameter, {})
        if definition.get("NoEcho") is not True:
            yield f"{parameter}: not NoEcho"
        if definition.get("Default", "") != "" or ("Default" in definition and parameter not in OPTIONAL.values()):
            yield f"{parameter}: a secret has no default"
    for function in ENVIRONMENT:
        variables = (inputs.property(function, "Environment") or {}).get("Variables", {})
        for variable, parameter in SECRETS.items():
            if variables.get(variable, {"Ref": parameter}) != {"Ref": parameter}:
                yield f"{function}: {variable} does not come from {parameter}"


def check_patterns(inputs):
    """A parameter pasted wrongly is refused by CloudFormation, not by every request."""
    for parameter, (right, wrong) in PATTERNS.items():
        pattern = inputs.template["Parameters"][parameter].get("AllowedPattern", "")
        for value in right:
            if not re.fullmatch(pattern, value):
                yield f"{parameter}: refuses {value!r}"
        for value in wrong:
            if re.fullmatch(pattern, value):
                yield f"{parameter}: takes {value!r}"


def check_optional(inputs):
    """What may be left out is empty unless given, and what must go with it is asserted before anything is made."""
    parameters = inputs.template["Parameters"]
    for variable, parameter in OPTIONAL.items():
        if parameters.get(parameter, {}).get("Default") != "":
            yield f"{parameter}: not empty unless given"
        for function in sorted(f for f, names in ENVIRONMENT.items() if variable in names):
            found = ((inputs.property(function, "Environment") or {}).get("Variables", {})).get(variable)
            if found != {"Ref": parameter}:
                yield f"{function}: {variable} is {found}, not the parameter {parameter}"
    # YAML reads a bare on as true, which CloudFormation would pass on as "true".
    store = parameters.get("StoreAnswers", {})
    if (store.get("AllowedValues"), store.get("Default")) != (["on", "off"], "on"):
        yield f"StoreAnswers: {store.get('AllowedValues')}, {store.get('Default')} unless chosen"
    defaults = {name: definition.get("Default") for name, definition in parameters.items()}
    for given, expected in TOGETHER:
        refused = [name for name, rule in inputs.rules.items() if not holds(rule, defaults | given)]
        if refused != ([expected] if expected else []):
            yield f"{sorted(given)}: refused by {refused}, not by {expected}"


def holds(rule, parameters):
    """Whether a rule of the template's Rules takes these parameters."""
    if not evaluate(rule.get("RuleCondition", {"Fn::Equals": ["", ""]}), parameters):
        return True
    return all(evaluate(assertion["Assert"], parameters) for assertion in rule["Assertions"])


def evaluate(expression, parameters):
    """A condition of Ref, Fn::Equals and Fn::Not, as CloudFormation evaluates it."""
    if not isinstance(expression, dict):
        return expression
    ((function, argument),) = expression.items()
    match function:
        case "Ref":
            return parameters[argument]
        case "Fn::Equals":
            left, right = (evaluate(side, parameters) for side in argument)
            return left == right
        case "Fn::Not":
            return not evaluate(argument[0], parameters)
    raise ValueError(f"{function} is not expected in a rule")


def check_permissions(inputs):
    """Every role may do what GRANTS says, and nothing else."""
    roles = inputs.of_type("AWS::IAM::Role")
    if set(roles) != set(GRANTS):
        yield f"the roles are {sorted(roles)}, not {sorted(GRANTS)}"
    for role in sorted(set(roles) & set(GRANTS)):
        properties = roles[role]["Properties"]
        if not set(properties.get("ManagedPolicyArns", [])) <= {LOGS_POLICY}:
            yield f"{role}: has a managed policy other than the one for logs"
        found = set()
        for policy in properties.get("Policies", []):
            for statement in as_list(policy["PolicyDocument"]["Statement"]):
                if statement["Effect"] != "Allow" or not {"Action", "Resource"} <= set(statement):
                    yield f"{role}: a statement that is not a plain grant: {statement}"
                    continue
                for action in as_list(statement["Action"]):
                    for resource in as_list(statement["Resource"]):
                        found.add((action, json.dumps(resource, sort_keys=True)))
        expected = {(action, json.dumps(resource, sort_keys=True)) for action, resource in GRANTS[role]}
        for action, resource in sorted(found - expected):
            yield f"{role}: may {action} on {resource}, which it has no use for"
        for action, resource in sorted(expected - found):
            yield f"{role}: may not {action} on {resource}"
        if any("*" in action or resource == '"*"' for action, resource in found):
            yield f"{role}: a wildcard"


def check_schedule(inputs):
    """The reporter runs every hour and reconciles every night, and a run that fails leaves a trace."""
    schedules = inputs.of_type("AWS::Scheduler::Schedule")
    if set(schedules) != set(SCHEDULES):
        yield f"the schedules are {sorted(schedules)}, not {sorted(SCHEDULES)}"
    for name, schedule in schedules.items():
        properties = schedule["Properties"]
        target = properties["Target"]
        given = target.get("Input")
        found = (properties["ScheduleExpression"], json.loads(given) if given else None)
        if found != SCHEDULES.get(name):
            yield f"{name}: {found}, not {SCHEDULES.get(name)}"
        if properties.get("State", "ENABLED") != "ENABLED":
            yield f"{name}: not enabled"
        if target["Arn"] != REPORTER:
            yield f"{name}: does not invoke the reporter"
        if target.get("DeadLetterConfig") != {"Arn": FAILURES}:
            yield f"{name}: invocations that fail leave no trace"
        if not 0 < target.get("RetryPolicy", {}).get("MaximumEventAgeInSeconds", 0) < 3600:
            yield f"{name}: retries are not over before the next run"
    if inputs.timeout_ms("Reporter") >= 3_600_000:
        yield "Reporter: a run may last until the next"
    destination = inputs.property("ReporterEventInvokeConfig", "DestinationConfig")
    if destination != {"OnFailure": {"Destination": FAILURES}}:
        yield "Reporter: runs that fail leave no trace"


def check_continuation(inputs):
    """A run whose time ran out wakes the next one, a draft that waits wakes one, over the bus, and nothing else there does."""
    rules = inputs.of_type("AWS::Events::Rule")
    waking = {n: r["Properties"] for n, r in rules.items() if any(t["Arn"] == REPORTER for t in r["Properties"]["Targets"])}
    if set(waking) != set(WAKES):
        yield f"the reporter is woken by {sorted(waking)}"
    for name, rule in waking.items():
        source, kind = WAKES.get(name, (None, None))
        pattern = {"source": [source], "detail-type": [kind]}
        if rule.get("EventPattern") != pattern or rule.get("EventBusName") != {"Ref": "Bus"}:
            yield f"{name}: {rule.get('EventPattern')} on {rule.get('EventBusName')}"
        if rule.get("State", "ENABLED") != "ENABLED":
            yield f"{name}: not enabled"
        source = {"Fn::GetAtt": [name, "Arn"]}
        may = [
            p["Properties"]
            for p in inputs.of_type("AWS::Lambda::Permission").values()
            if p["Properties"].get("SourceArn") == source
        ]
        expected = ("lambda:InvokeFunction", "events.amazonaws.com", {"Ref": "Reporter"})
        if [(p.get("Action"), p.get("Principal"), p.get("FunctionName")) for p in may] != [expected]:
            yield f"{name}: the bus may not invoke the reporter, or somebody else may"


def alarmed(inputs):
    """What the alarms that reach the topic look at: (namespace, metric, dimension's value)."""
    found = set()
    for alarm in inputs.of_type("AWS::CloudWatch::Alarm").values():
        p = alarm["Properties"]
        fires = (p.get("Threshold"), p.get("ComparisonOperator"), p.get("EvaluationPeriods"), p.get("TreatMissingData"))
        once = (1, "GreaterThanOrEqualToThreshold", 1, "notBreaching")
        if p.get("AlarmActions") == [ALERTS] and fires == once and p.get("ActionsEnabled", True) is True:
            values = [json.dumps(d["Value"], sort_keys=True) for d in p.get("Dimensions", [])]
            found.add((json.dumps(p.get("Namespace")), p.get("MetricName"), *values))
    return found


def check_alarms(inputs):
    """An error line, a throttled function, a failed run, and what the bus says for people: each reaches the topic."""
    found = alarmed(inputs)
    namespace = {"Ref": "AWS::StackName"}
    for function in ENVIRONMENT:
        group = (inputs.property(function, "LoggingConfig") or {}).get("LogGroup")
        metrics = {
            t["MetricName"]
            for f in inputs.of_type("AWS::Logs::MetricFilter").values()
            for t in f["Properties"]["MetricTransformations"]
            if f["Properties"]["LogGroupName"] == group
            and f["Properties"]["FilterPattern"] == '{ $.level = "ERROR" }'
            and (t["MetricNamespace"], t["MetricValue"]) == (namespace, "1")
        }
        if not any((json.dumps(namespace), metric) in found for metric in metrics):
            yield f"{function}: an error in its log reaches nobody"
        if ('"AWS/Lambda"', "Throttles", json.dumps({"Ref": function})) not in found:
            yield f"{function}: being throttled reaches nobody"
        # What Lambda itself writes of a process that died is no line of ours.
        if ('"AWS/Lambda"', "Errors", json.dumps({"Ref": function})) not in found:
            yield f"{function}: a crash reaches nobody"
    yield from refusals(inputs)
    queue = json.dumps({"Fn::GetAtt": ["ReporterFailures", "QueueName"]})
    if ('"AWS/SQS"', "ApproximateNumberOfMessagesVisible", queue) not in found:
        yield "a failed run of the reporter reaches nobody"
    rule = inputs.resources.get("BusAlerts", {}).get("Properties", {})
    pattern = {
        "source": ["inkmeter.generate", "inkmeter.reporter", "inkmeter.webhook"],
        "detail-type": [{"anything-but": NOT_FOR_PEOPLE}],
    }
    if (rule.get("EventPattern"), rule.get("EventBusName")) != (pattern, {"Ref": "Bus"}):
        yield f"what the bus says does not reach the topic: {rule.get('EventPattern')}"
    if [t["Arn"] for t in rule.get("Targets", [])] != [ALERTS] or rule.get("State", "ENABLED") != "ENABLED":
        yield "what the bus says does not reach the topic"
    statements = (inputs.property("AlertsPolicy", "PolicyDocument") or {}).get("Statement", [])
    services = {s.get("Principal", {}).get("Service") for s in statements if s.get("Condition")}
    if services != {"events.amazonaws.com", "cloudwatch.amazonaws.com"} or len(statements) != 2:
        yield f"the topic may be published to by {sorted(map(str, services))}"
    mail = inputs.resources.get("AlertsByEmail", {})
    if mail.get("Condition") != "HasAlertEmail" or mail["Properties"].get("TopicArn") != ALERTS:
        yield "the mail is sent without an address, or not of this topic"


def refusals(inputs):
    """Webhooks that are refused reach the topic where there are several, as a wrong signing secret makes them."""
    group = (inputs.property("Webhook", "LoggingConfig") or {}).get("LogGroup")
    filtered = inputs.resources.get("WebhookRefusals", {}).get("Properties", {})
    words = re.search(r'"(.*)"', filtered.get("FilterPattern", ""))
    handler = (ROOT / "functions/webhook/src/handler.rs").read_text()
    if filtered.get("LogGroupName") != group or not words or f'"{words[1]}"' not in handler:
        yield "refused webhooks are counted by words that the function does not write"
    p = inputs.resources.get("WebhookRefusalsAlarm", {}).get("Properties", {})
    fires = (p.get("Threshold"), p.get("Period"))
    metric = [(t["MetricNamespace"], t["MetricName"]) for t in filtered.get("MetricTransformations", [])]
    once = (p.get("ComparisonOperator"), p.get("EvaluationPeriods"), p.get("TreatMissingData"), p.get("Statistic"))
    if once != ("GreaterThanOrEqualToThreshold", 1, "notBreaching", "Sum") or fires != REFUSALS:
        yield f"refused webhooks reach the topic at {fires}"
    if p.get("AlarmActions") != [ALERTS] or metric != [(p.get("Namespace"), p.get("MetricName"))]:
        yield "refused webhooks reach nobody"


def check_table(inputs):
    """The table is the one the ledger uses, and no deployment can lose it."""
    table = inputs.resources["Table"]
    for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
        if table.get(policy) != "Retain":
            yield f"Table: {policy} is not Retain"
    for key, expected in TABLE_PROPERTIES.items():
        if table["Properties"].get(key) != expected:
            yield f"Table: {key} is {table['Properties'].get(key)}, not {expected}"


def check_models(inputs):
    """The models that can be chosen are the ones with a price, the first of them unless chosen."""
    names = [model["name"] for model in inputs.models["model"]]
    parameter = inputs.template["Parameters"]["OpenAiModel"]
    if parameter.get("AllowedValues") != names or parameter.get("Default") != names[0]:
        yield f"OpenAiModel allows {parameter.get('AllowedValues')}, infra/models.toml has {names}"


def check_samconfig(inputs):
    """Only commands that want the template as written are pointed at it; `deploy` takes the one that was built."""
    found = {
        f"{environment}.{command}"
        for environment, commands in inputs.samconfig.items()
        if isinstance(commands, dict)
        for command, section in commands.items()
        if "template_file" in section.get("parameters", {}) or "template" in section.get("parameters", {})
    }
    if found != {"default.build", "default.validate"}:
        yield f"template_file is set for {sorted(found)}"


CHECKS = [
    check_routes,
    check_timeouts,
    check_gateway,
    check_functions,
    check_secrets,
    check_patterns,
    check_optional,
    check_permissions,
    check_schedule,
    check_continuation,
    check_alarms,
    check_table,
    check_models,
    check_samconfig,
]


def as_list(value):
    """IAM writes a list of one as that one."""
    return value if isinstance(value, list) else [value]


def failures(inputs):
    """Name of the check -> what it found, for the checks that found something."""
    found = {check.__name__: list(check(inputs)) for check in CHECKS}
    return {name: messages for name, messages in found.items() if messages}


def at(root, path):
    """The parent of what a path such as `template/Resources/Table` names, and its last key; `~` stands for a slash."""
    *parents, last = [int(key) if key.isdigit() else key.replace("~", "/") for key in path.split("/")]
    for key in parents:
        root = root[key]
    return root, last


def put(path, value):
    """A mutation: sets what the path names."""

    def mutate(root):
        parent, last = at(root, path)
        parent[last] = value

    return mutate


def drop(path):
    """A mutation: removes what the path names, which must be there."""

    def mutate(root):
        parent, last = at(root, path)
        del parent[last]

    return mutate


GENERATE = "template/Resources/Generate/Properties"
ACCOUNT = "template/Resources/Account/Properties"
REPORTER_PROPERTIES = "template/Resources/Reporter/Properties"
API = "template/Resources/Api/Properties"
LEDGER_STATEMENT = f"{GENERATE}/Policies/0/Statement/0"
GLOBALS = "template/Globals"
PARAMETERS = "template/Parameters"
TABLE_PATH = "template/Resources/Table"

# The check that must fail -> the ways of breaking the project that it must notice.
MUTATIONS = {
    "check_routes": [
        put(f"{GENERATE}/Events/Post/Properties/ResponseTransferMode", "STREAM"),
        drop(f"{GENERATE}/Events/Post/Properties/ResponseTransferMode"),
        drop(f"{GENERATE}/Events/Preflight/Properties/ResponseTransferMode"),
        drop(f"{GENERATE}/Events/Post/Properties/TimeoutInMillis"),
        put(f"{GENERATE}/Events/Post/Properties/TimeoutInMillis", 29_000),
        put(f"{GENERATE}/Timeout", 299),
        put(f"{ACCOUNT}/Events/Usage/Properties/ResponseTransferMode", "RESPONSE_STREAM"),
        put(f"{ACCOUNT}/Events/Usage/Properties/Path", "/v1/use"),
        drop(f"{GENERATE}/Events/Preflight"),
        drop(f"{ACCOUNT}/Events/CheckoutPreflight"),
        put(f"{ACCOUNT}/Events/SpendCap/Properties/Method", "POST"),
        drop(f"{GENERATE}/Events/Replay/Properties/ResponseTransferMode"),
        drop(f"{GENERATE}/Events/Stop/Properties/TimeoutInMillis"),
        put(f"{GENERATE}/Events/Quote/Properties/TimeoutInMillis", 29_000),
        put(f"{GENERATE}/Events/Stop/Properties/Method", "GET"),
        put(f"{GENERATE}/Events/Replay/Properties/Path", "/v1/generate/{id}"),
        drop(f"{GENERATE}/Events/QuotePreflight"),
        put(f"{API}/Cors", "'https://app.example.com'"),
    ],
    "check_timeouts": [
        put(f"{ACCOUNT}/Timeout", 29),
        put(f"{REPORTER_PROPERTIES}/Timeout", 901),
    ],
    "check_gateway": [
        put(f"{API}/EndpointConfiguration/Type", "EDGE"),
        drop(f"{GLOBALS}/Api/OpenApiVersion"),
        drop(f"{API}/GatewayResponses/DEFAULT_5XX"),
        drop(f"{API}/GatewayResponses/DEFAULT_4XX/ResponseParameters/Headers/Content-Type"),
        drop(f"{API}/GatewayResponses/DEFAULT_4XX/ResponseParameters/Headers/Access-Control-Allow-Origin"),
        put(f"{API}/GatewayResponses/DEFAULT_4XX/ResponseTemplates/application~json", '{"message":"no"}'),
        put(f"{API}/GatewayResponses/DEFAULT_4XX/ResponseTemplates/application~json", '{"type":'),
    ],
    "check_functions": [
        drop("template/Resources/Account/Metadata/BuildMethod"),
        put("template/Resources/Account/Metadata/BuildProperties/Binary", "generate"),
        put(f"{GLOBALS}/Function/Runtime", "provided.al2"),
        put(f"{GLOBALS}/Function/Architectures", ["arm64"]),
        put(f"{PARAMETERS}/Architecture/Default", "x86_64"),
        drop(f"{ACCOUNT}/LoggingConfig"),
        drop("template/Resources/AccountLogs/Properties/RetentionInDays"),
        put(f"{ACCOUNT}/Environment/Variables/OPENAI_API_KEY", {"Ref": "OpenAiApiKey"}),
        drop(f"{REPORTER_PROPERTIES}/Environment/Variables/STRIPE_METER_ID"),
        drop("template/Resources/Webhook"),
    ],
    "check_secrets": [
        put(f"{PARAMETERS}/StripeSecretKey/NoEcho", False),
        drop(f"{PARAMETERS}/OpenAiApiKey/NoEcho"),
        put(f"{PARAMETERS}/StripeWebhookSecret/Default", "whsec_0"),
        put(f"{PARAMETERS}/StripeWebhookSecret/Default", ""),
        put(f"{PARAMETERS}/OpenAiApiKey/Default", "sk-default"),
        put(f"{GENERATE}/Environment/Variables/OPENAI_API_KEY", "sk-literal"),
    ],
    "check_patterns": [
        put(f"{PARAMETERS}/ClerkAuthorizedParties/AllowedPattern", ".*"),
        drop(f"{PARAMETERS}/StripeSecretKey/AllowedPattern"),
    ],
    "check_optional": [
        drop(f"{PARAMETERS}/ClerkJwtKey/Default"),
        put(f"{ACCOUNT}/Environment/Variables/CLERK_JWKS_URL", {"Ref": "ClerkIssuer"}),
        put(f"{GENERATE}/Environment/Variables/CLERK_JWT_KEY_ID", {"Ref": "ClerkJwtKey"}),
        put(f"{PARAMETERS}/StoreAnswers/AllowedValues", [True, False]),
        put(f"{PARAMETERS}/StoreAnswers/Default", "off"),
        drop("template/Rules/ProviderKey"),
        drop("template/Rules/ProviderKey/RuleCondition"),
        drop("template/Rules/KeyId"),
    ],
    "check_permissions": [
        put(f"{LEDGER_STATEMENT}/Action", "dynamodb:*"),
        drop(f"{LEDGER_STATEMENT}/Action/1"),
        put(f"{ACCOUNT}/Policies/0/Statement/0/Action/0", "dynamodb:DeleteItem"),
        put(f"{LEDGER_STATEMENT}/Resource", "*"),
        put(f"{LEDGER_STATEMENT}/Resource", {"Fn::Sub": "${Table.Arn}*"}),
        put(f"{LEDGER_STATEMENT}/Action", ["dynamodb:GetItem", "dynamodb:Scan"]),
        put(LEDGER_STATEMENT, {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}),
        put(f"{GENERATE}/Policies", ["AWSLambdaBasicExecutionRole", "arn:aws:iam::aws:policy/AmazonDynamoDBFullAccess"]),
        put(f"{REPORTER_PROPERTIES}/Policies/0/Statement/1/Resource", {"Fn::Sub": "${Table.Arn}/index/*"}),
        drop(f"{REPORTER_PROPERTIES}/Policies/0/Statement/2"),
    ],
    "check_schedule": [
        put(f"{REPORTER_PROPERTIES}/Events/Hourly/Properties/ScheduleExpression", "rate(1 day)"),
        put(f"{REPORTER_PROPERTIES}/Events/Hourly/Properties/State", "DISABLED"),
        drop(f"{REPORTER_PROPERTIES}/Events/Hourly/Properties/DeadLetterConfig"),
        drop(f"{REPORTER_PROPERTIES}/Events/Hourly/Properties/RetryPolicy"),
        drop(f"{REPORTER_PROPERTIES}/Events/Hourly"),
        drop(f"{REPORTER_PROPERTIES}/EventInvokeConfig"),
        put(f"{REPORTER_PROPERTIES}/Timeout", 3600),
        drop(f"{REPORTER_PROPERTIES}/Events/Nightly"),
        drop(f"{REPORTER_PROPERTIES}/Events/Nightly/Properties/Input"),
        put(f"{REPORTER_PROPERTIES}/Events/Nightly/Properties/Input", '{"mode":"report"}'),
        put(f"{REPORTER_PROPERTIES}/Events/Nightly/Properties/ScheduleExpression", "rate(1 hour)"),
    ],
    "check_continuation": [
        drop(f"{REPORTER_PROPERTIES}/Events/Unfinished"),
        drop(f"{REPORTER_PROPERTIES}/Events/Unfinished/Properties/EventBusName"),
        put(f"{REPORTER_PROPERTIES}/Events/Unfinished/Properties/Pattern/source", ["inkmeter.webhook"]),
        drop(f"{REPORTER_PROPERTIES}/Events/Unfinished/Properties/Pattern/detail-type"),
        drop(f"{REPORTER_PROPERTIES}/Events/Drain"),
        put(f"{REPORTER_PROPERTIES}/Events/Drain/Properties/Pattern/source", ["inkmeter.reporter"]),
        drop(f"{REPORTER_PROPERTIES}/Events/Drain/Properties/EventBusName"),
        put("template/Resources/BusAlerts/Properties/Targets/0/Arn", REPORTER),
    ],
    "check_alarms": [
        drop("template/Resources/GenerateErrorsAlarm"),
        drop("template/Resources/AccountErrors"),
        put("template/Resources/WebhookErrors/Properties/FilterPattern", "ERROR"),
        put("template/Resources/WebhookErrors/Properties/LogGroupName", {"Ref": "GenerateLogs"}),
        put("template/Resources/ReporterErrorsAlarm/Properties/AlarmActions", []),
        drop("template/Resources/WebhookRefusalsAlarm"),
        put("template/Resources/WebhookRefusalsAlarm/Properties/Threshold", 1),
        put("template/Resources/WebhookRefusalsAlarm/Properties/AlarmActions", []),
        put("template/Resources/WebhookRefusals/Properties/FilterPattern", '{ $.message = "refused" }'),
        drop("template/Resources/WebhookRefusals"),
        put("template/Resources/ReporterErrorsAlarm/Properties/Threshold", 10),
        put("template/Resources/ReporterErrorsAlarm/Properties/TreatMissingData", "missing"),
        drop("template/Resources/GenerateThrottlesAlarm"),
        drop("template/Resources/WebhookCrashesAlarm"),
        put("template/Resources/GenerateThrottlesAlarm/Properties/Dimensions/0/Value", {"Ref": "Account"}),
        drop("template/Resources/ReporterFailuresAlarm"),
        drop("template/Resources/BusAlerts"),
        put("template/Resources/BusAlerts/Properties/State", "DISABLED"),
        put("template/Resources/BusAlerts/Properties/EventPattern/detail-type", ["Report Parked"]),
        drop("template/Resources/AlertsPolicy/Properties/PolicyDocument/Statement/0"),
        drop("template/Resources/AlertsPolicy/Properties/PolicyDocument/Statement/1/Condition"),
        drop("template/Resources/AlertsByEmail/Condition"),
    ],
    "check_table": [
        drop(f"{TABLE_PATH}/DeletionPolicy"),
        drop(f"{TABLE_PATH}/UpdateReplacePolicy"),
        put(f"{TABLE_PATH}/Properties/BillingMode", "PROVISIONED"),
        put(f"{TABLE_PATH}/Properties/DeletionProtectionEnabled", False),
        drop(f"{TABLE_PATH}/Properties/PointInTimeRecoverySpecification"),
        put(f"{TABLE_PATH}/Properties/TimeToLiveSpecification/AttributeName", "expires"),
        put(f"{TABLE_PATH}/Properties/KeySchema/1/AttributeName", "dirty"),
        put(f"{TABLE_PATH}/Properties/GlobalSecondaryIndexes/0/Projection/ProjectionType", "ALL"),
    ],
    "check_models": [
        put(f"{PARAMETERS}/OpenAiModel/Default", "gpt-4o-mini"),
        put("models/model/0/name", "another"),
    ],
    "check_samconfig": [
        put("samconfig/default/deploy/parameters/template_file", "infra/template.yaml"),
        drop("samconfig/default/build/parameters/template_file"),
    ],
}


def read():
    """The files as they are."""
    return {
        "template": yaml_parse((ROOT / "infra/template.yaml").read_text()),
        "samconfig": tomllib.loads((ROOT / "samconfig.toml").read_text()),
        "models": tomllib.loads((ROOT / "infra/models.toml").read_text()),
    }


def self_test():
    """Breaks the files in every way of MUTATIONS; returns how many went unnoticed."""
    if set(MUTATIONS) != {check.__name__ for check in CHECKS}:
        print("self-test: a check without a mutation, or the reverse")
        return 1
    unnoticed = 0
    count = 0
    for expected, mutations in MUTATIONS.items():
        for number, mutate in enumerate(mutations):
            files = read()
            mutate(files)
            count += 1
            found = failures(Inputs(**files))
            if expected not in found:
                unnoticed += 1
                print(f"self-test: {expected}: mutation {number} went unnoticed; noticed: {found}")
    print(f"self-test: {count} mutations, {unnoticed} unnoticed")
    return unnoticed


def main():
    """Exit code 0 if everything holds."""
    if sys.argv[1:] == ["--self-test"]:
        return 1 if self_test() else 0
    if sys.argv[1:]:
        print(__doc__)
        return 2
    found = failures(Inputs(**read()))
    for name, messages in found.items():
        for message in messages:
            print(f"{name}: {message}")
    print(f"template: {len(CHECKS)} checks, {len(found)} failed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

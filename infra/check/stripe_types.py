#!/usr/bin/env python3
"""Reads the type files of Stripe's own npm package `stripe` (MIT), which are generated from Stripe's OpenAPI description.

    stripe_types.py table PACKAGE               prints the parameters of every endpoint that the stand-in has
    stripe_types.py events PACKAGE              prints the types of events; those of `v1.` and `v2.` are thin
    stripe_types.py check PACKAGE TABLE EVENTS  fails if the committed lists are not those of the package
    stripe_types.py record PACKAGE FILE         fails if a recorded answer is not of the type that the package gives it

The package's version must be the one whose API version the stand-in speaks. No registry carries the description itself.
"""

import json
import re
import sys
from pathlib import Path

# Endpoints that the stand-in has, or refuses with 501, in the order of the table.
RESOURCES = [
    "Customers", "Products", "Prices", "Subscriptions", "SubscriptionItems", "SubscriptionSchedules", "Invoices",
    "InvoiceLineItems", "InvoiceItems", "Events", "Charges", "Disputes", "PaymentMethods", "PaymentIntents",
    "WebhookEndpoints", "Checkout/Sessions",
    "BillingPortal/Configurations", "BillingPortal/Sessions", "Billing/Meters", "Billing/MeterEvents",
    "Billing/MeterEventAdjustments", "V2/Core/Events", "V2/Core/EventDestinations",
]
ENDPOINTS = """
POST /v1/customers|GET /v1/customers|GET /v1/customers/:id|POST /v1/customers/:id|DELETE /v1/customers/:id
GET /v1/customers/search
POST /v1/products|GET /v1/products|GET /v1/products/:id|POST /v1/products/:id|DELETE /v1/products/:id
POST /v1/prices|GET /v1/prices|GET /v1/prices/:id|POST /v1/prices/:id
POST /v1/subscriptions|GET /v1/subscriptions|GET /v1/subscriptions/:id|POST /v1/subscriptions/:id
DELETE /v1/subscriptions/:id|POST /v1/subscriptions/:id/resume|POST /v1/subscriptions/:id/migrate
GET /v1/subscription_items|GET /v1/subscription_items/:id|POST /v1/subscription_items/:id
POST /v1/subscription_items|DELETE /v1/subscription_items/:id
POST /v1/subscription_schedules|GET /v1/subscription_schedules|GET /v1/subscription_schedules/:id
POST /v1/subscription_schedules/:id|POST /v1/subscription_schedules/:id/release|POST /v1/subscription_schedules/:id/cancel
GET /v1/invoices|GET /v1/invoices/:id|POST /v1/invoices|POST /v1/invoices/:id|POST /v1/invoices/:id/finalize
POST /v1/invoices/:id/pay|POST /v1/invoices/:id/void|POST /v1/invoices/:id/mark_uncollectible|POST /v1/invoices/:id/send
DELETE /v1/invoices/:id|GET /v1/invoices/:id/lines|POST /v1/invoices/create_preview|GET /v1/invoices/search
POST /v1/invoiceitems|GET /v1/invoiceitems|GET /v1/invoiceitems/:id|POST /v1/invoiceitems/:id|DELETE /v1/invoiceitems/:id
GET /v1/events|GET /v1/events/:id|GET /v1/charges|GET /v1/charges/:id|GET /v1/disputes|GET /v1/disputes/:id
GET /v1/payment_methods|GET /v1/payment_methods/:id|POST /v1/payment_methods/:id/attach|GET /v1/payment_intents/:id
POST /v1/webhook_endpoints|GET /v1/webhook_endpoints|GET /v1/webhook_endpoints/:id|POST /v1/webhook_endpoints/:id
DELETE /v1/webhook_endpoints/:id
POST /v1/checkout/sessions|GET /v1/checkout/sessions|GET /v1/checkout/sessions/:id|POST /v1/checkout/sessions/:id
POST /v1/checkout/sessions/:id/expire|GET /v1/checkout/sessions/:id/line_items
POST /v1/billing_portal/configurations|GET /v1/billing_portal/configurations|GET /v1/billing_portal/configurations/:id
POST /v1/billing_portal/configurations/:id|POST /v1/billing_portal/sessions
POST /v1/billing/meters|GET /v1/billing/meters|GET /v1/billing/meters/:id|POST /v1/billing/meters/:id
POST /v1/billing/meters/:id/deactivate|POST /v1/billing/meters/:id/reactivate|GET /v1/billing/meters/:id/event_summaries
POST /v1/billing/meter_events|POST /v1/billing/meter_event_adjustments
GET /v2/core/events|GET /v2/core/events/:id
POST /v2/core/event_destinations|GET /v2/core/event_destinations|GET /v2/core/event_destinations/:id
POST /v2/core/event_destinations/:id|DELETE /v2/core/event_destinations/:id
POST /v2/core/event_destinations/:id/disable|POST /v2/core/event_destinations/:id/enable
POST /v2/core/event_destinations/:id/ping
"""
WANTED = [one for line in ENDPOINTS.split("\n") for one in line.split("|") if one]

TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|[A-Za-z_$][\w$]*|[-]?\d+|[{}\[\]()<>:;,|&?=.*]|\S")


class Reader:
    """Reads one declaration file: interfaces and aliases by their full name, and what it imports."""

    def __init__(self, path):
        text = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.S)
        self.path, self.types, self.imports = path, {}, {}
        # Whole namespaces are not followed: what comes from them is not held against anything.
        self.spaces = set(re.findall(r"import \* as (\w+) from", text))
        for names, source in re.findall(r"import \{([^}]*)\} from '([^']*)'", text):
            for name in names.split(","):
                self.imports[name.split(" as ")[-1].strip()] = (name.split(" as ")[0].strip(), source)
        text = re.sub(r"import [^;]*;|export (?=\{)[^;]*;", "", text)
        self.tokens, self.at = TOKEN.findall(text), 0
        self.block(())

    def peek(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, wanted=None):
        token = self.tokens[self.at]
        if wanted and token != wanted:
            raise SyntaxError(f"{self.path}: {wanted} wanted, {token} found")
        self.at += 1
        return token

    def skip_braces(self):
        while self.take() != "{":
            pass
        depth = 1
        while depth:
            token = self.take()
            depth += (token == "{") - (token == "}")

    def skip_method(self):
        while self.take() != ";":
            pass

    def block(self, scope):
        while self.peek() not in (None, "}"):
            token = self.take()
            if token == "namespace":
                name = self.take()
                while self.peek() == ".":
                    self.take()
                    name += "." + self.take()
                self.take("{")
                self.block(scope + tuple(name.split(".")))
                self.take("}")
            elif token == "interface":
                name, bases = self.take(), []
                if self.peek() == "extends":
                    self.take()
                    while self.peek() != "{":
                        if self.peek() == ",":
                            self.take()
                        else:
                            bases.append(self.one(scope))
                self.types[".".join(scope + (name,))] = ("interface", bases, self.fields(scope), scope)
            elif token == "type":
                name = self.take()
                if self.peek() == "<":
                    while self.take() != ">":
                        pass
                self.take("=")
                self.types[".".join(scope + (name,))] = ("alias", self.union(scope), scope)
                if self.peek() == ";":
                    self.take()
            elif token == "class":
                self.skip_braces()

    def fields(self, scope):
        fields = {}
        self.take("{")
        while self.peek() != "}":
            if self.peek() == "[":
                while self.take() != "]":
                    pass
                self.take(":")
                fields["*"] = (False, self.union(scope))
            else:
                name = self.take().strip("'")
                optional = self.peek() == "?"
                if optional:
                    self.take()
                if self.peek() == "(":
                    self.skip_method()
                    continue
                self.take(":")
                fields[name] = (optional, self.union(scope))
            if self.peek() == ";":
                self.take()
        self.take("}")
        return fields

    def union(self, scope):
        parts = []
        if self.peek() == "|":
            self.take()
        while True:
            parts.append(self.one(scope))
            while self.peek() == "&":
                self.take()
                self.one(scope)
            if self.peek() != "|":
                return parts
            self.take()

    def one(self, scope):
        token = self.peek()
        if token == "{":
            return ("object", self.fields(scope), scope)
        if token == "(":
            while self.peek() != ";":
                self.take()
            return ("name", "any", [], scope)
        token = self.take()
        if token.startswith("'") or re.fullmatch(r"-?\d+", token):
            return ("literal", token.strip("'"))
        name = token
        while self.peek() == ".":
            self.take()
            name += "." + self.take()
        inner = []
        if self.peek() == "<":
            self.take()
            while self.peek() != ">":
                inner.append(self.union(scope))
                if self.peek() == ",":
                    self.take()
            self.take(">")
        return ("name", name, inner, scope)


class Package:
    def __init__(self, root):
        self.root, self.readers = Path(root) / "cjs", {}

    def reader(self, path):
        path = path.resolve()
        if path not in self.readers:
            self.readers[path] = Reader(path)
        return self.readers[path]

    def resource(self, name):
        return self.reader(self.root / "resources" / f"{name}.d.ts")

    def find(self, reader, name, scope):
        """The definition of a name, looked for from the innermost scope outwards, then in what the file imports."""
        for depth in range(len(scope), -1, -1):
            full = ".".join(scope[:depth] + (name,))
            if full in reader.types:
                return reader, reader.types[full]
        head, _, rest = name.partition(".")
        if head in reader.imports:
            original, source = reader.imports[head]
            other = self.reader((reader.path.parent / source).with_suffix(".d.ts"))
            return self.find(other, original + ("." + rest if rest else ""), ())
        return None

    def flatten(self, reader, parts):
        """A union's members, with aliases opened: `(kind, reader, value)`."""
        for part in parts:
            if part[0] == "literal":
                yield ("literal", reader, part[1])
            elif part[0] == "object":
                yield ("object", reader, part)
            else:
                _, name, inner, scope = part
                if name in ("string", "number", "boolean", "null", "void", "OtherString", "Decimal", "any", "unknown"):
                    yield (name, reader, None)
                elif name in ("true", "false"):
                    yield ("literal", reader, name)
                elif name == "Emptyable":
                    yield ("literal", reader, "")
                    yield from self.flatten(reader, inner[0])
                elif name in ("Array", "ApiList"):
                    yield (name, reader, inner[0])
                else:
                    found = self.find(reader, name, scope)
                    if found is None and name.partition(".")[0] in reader.spaces:
                        yield ("any", reader, None)
                        continue
                    if found is None:
                        raise LookupError(f"{reader.path}: {name}")
                    other, definition = found
                    if definition[0] == "alias":
                        yield from self.flatten(other, definition[1])
                    else:
                        yield ("interface", other, definition)

    def all_fields(self, reader, value):
        """The fields of an object or interface with those of its bases: name to `(reader, optional, type)`."""
        fields = {}
        if value[0] == "interface":
            for base in value[1]:
                for kind, other, inner in self.flatten(reader, [base]):
                    fields.update(self.all_fields(other, inner))
            own = value[2]
        else:
            own = value[1]
        fields.update({name: (reader, optional, parts) for name, (optional, parts) in own.items()})
        return fields


def shape(package, reader, parts):
    """What may follow a parameter's name: nothing (a text), `[]`, `{}`, `(...)`; `~` if a text will do as well."""
    plain, shapes = False, set()
    for kind, other, value in package.flatten(reader, parts):
        if kind in ("object", "interface"):
            fields = package.all_fields(other, value)
            shapes.add("{}" if set(fields) == {"*"} else f"({tree(package, fields)})")
        elif kind == "Array":
            inner = shape(package, other, value)
            shapes.add("[]" + inner.lstrip("~"))
        elif kind != "null":
            plain = True
    shapes = sorted(shapes, key=len)
    return ("~" if plain and shapes else "") + (shapes[-1] if shapes else "")


def tree(package, fields):
    names = sorted(name for name in fields if name != "*")
    return " ".join(
        name + ("" if fields[name][1] else "!") + shape(package, fields[name][0], fields[name][2]) for name in names
    )


def endpoints(package):
    """Every method of every resource class: `METHOD /path` to the parameters' type."""
    found = {}
    for resource in RESOURCES:
        path = package.root / "resources" / f"{resource}.d.ts"
        if not path.exists():
            continue
        types = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        code = path.with_suffix("").with_suffix(".js").read_text()
        for name, body in re.findall(r"\n    (\w+)\([^)]*\) \{(.*?)\n    \}", code, flags=re.S):
            call = re.search(r"_makeRequest\('(\w+)', [`']([^`']*)[`']", body)
            if not call:
                continue
            method, url = call.group(1), re.sub(r"\$\{[^}]*\}", ":id", call.group(2))
            signature = re.search(rf"\n    {name}\(([^;]*?)\): [^;]*;", types, flags=re.S)
            param = re.search(r"params\??: ([\w.]+)", signature.group(1)) if signature else None
            found.setdefault(f"{method} {url}", (resource, param.group(1) if param else None))
    return found


def table(package):
    known, lines = endpoints(package), []
    for endpoint in WANTED:
        if endpoint not in known:
            raise LookupError(endpoint)
        resource, name = known[endpoint]
        text = ""
        if name:
            reader = package.resource(resource)
            _, definition = package.find(reader, name, ())
            text = tree(package, package.all_fields(reader, definition))
        lines.append(f"{endpoint} {text}".rstrip())
    return "\n".join(lines) + "\n"


def events(package):
    reader = package.resource("WebhookEndpoints")
    _, definition = package.find(reader, "WebhookEndpointCreateParams.EnabledEvent", ())
    kinds = {value for kind, _, value in package.flatten(reader, definition[1]) if kind == "literal"}
    thin = (package.root / "resources/V2/Core/Events.d.ts").read_text()
    kinds |= set(re.findall(r"type: '(v[12]\.[a-z0-9_.]+)'", thin))
    return "\n".join(sorted(kinds)) + "\n"


def objects(package):
    """Interfaces by the value of their `object` field."""
    found = {}
    for path in sorted((package.root / "resources").rglob("*.d.ts")):
        if path.name == "index.d.ts":
            continue
        reader = package.reader(path)
        for name, definition in reader.types.items():
            if definition[0] == "interface" and "object" in definition[2] and "Params" not in name:
                literals = [part[1] for part in definition[2]["object"][1] if part[0] == "literal"]
                if "." not in name and not name.startswith("Deleted"):
                    for literal in literals:
                        found.setdefault(literal, []).append((reader, definition))
                elif name.startswith("Deleted"):
                    for literal in literals:
                        found.setdefault("deleted " + literal, []).append((reader, definition))
    return found


class Recorded:
    """Holds recorded answers against the types."""

    def __init__(self, package):
        self.package, self.known, self.wrong = package, objects(package), set()

    def say(self, where, what):
        self.wrong.add(f"{where}: {what}")

    def answer(self, where, value):
        kind = value.get("object")
        if kind == "list" or (kind is None and isinstance(value.get("data"), list)):
            for one in value["data"]:
                self.answer(where, one)
            return
        if where.startswith("DELETE /v2/"):
            # What is gone says no more than what it was.
            if set(value) != {"id", "object"}:
                self.say(where, "more or less than an id and a type")
            return
        if kind == "v2.core.event":
            self.thin_event(kind, value)
            return
        key = ("deleted " if value.get("deleted") else "") + str(kind)
        if key not in self.known:
            self.say(where, f"an object `{kind}` that the package does not have")
            return
        self.fields(kind, value, *self.known[key][0])

    def fields(self, where, value, reader, definition):
        fields = self.package.all_fields(reader, definition)
        for name, one in value.items():
            if name in fields:
                other, _, parts = fields[name]
                self.value(f"{where}.{name}", one, other, parts)
            elif "*" in fields:
                other, _, parts = fields["*"]
                self.value(f"{where}.*", one, other, parts)
            else:
                self.say(where, f"a field `{name}` that the package does not have")
        for name, (_, optional, _) in fields.items():
            if not optional and name != "*" and name not in value:
                self.say(where, f"the field `{name}` is missing")

    def thin_event(self, where, value):
        """An event of API v2: each type has its own interface. What it may leave out may be null as well."""
        reader = self.package.resource("V2/Core/Events")
        for name, definition in reader.types.items():
            if name.endswith("Event") and definition[0] == "interface" and "type" in definition[2]:
                if [part[1] for part in definition[2]["type"][1] if part[0] == "literal"] == [value.get("type")]:
                    present = {name: one for name, one in value.items() if one is not None}
                    self.fields(where, present, reader, definition)
                    return
        self.say(where, f"a type `{value.get('type')}` that the package does not have")

    def value(self, where, value, reader, parts):
        if where.endswith("event.data.object"):
            self.answer(where, value)
            return
        if where.endswith("event.data.previous_attributes"):
            return
        members = list(self.package.flatten(reader, parts))
        kinds = {kind for kind, _, _ in members}
        if kinds & {"any", "unknown"}:
            return
        if value is None:
            if "null" not in kinds:
                self.say(where, "null")
        elif isinstance(value, bool):
            if "boolean" not in kinds and str(value).lower() not in {inner for kind, _, inner in members if kind == "literal"}:
                self.say(where, "a boolean")
        elif isinstance(value, (int, float)):
            if "number" not in kinds:
                self.say(where, "a number")
        elif isinstance(value, str):
            literals = {inner for kind, _, inner in members if kind == "literal"}
            if not kinds & {"string", "Decimal"} and value not in literals:
                self.say(where, f"the text `{value}`")
            elif "OtherString" in kinds and "string" not in kinds and value not in literals:
                self.say(where, f"the text `{value}`")
        elif isinstance(value, list):
            lists = [(other, inner) for kind, other, inner in members if kind == "Array"]
            if not lists:
                self.say(where, "a list")
            for one in value if lists else []:
                self.value(where + "[]", one, *lists[0])
        elif "ApiList" in kinds and value.get("object") == "list":
            other, inner = next((other, inner) for kind, other, inner in members if kind == "ApiList")
            for one in value["data"]:
                self.value(where + ".data", one, other, inner)
        else:
            self.objects(where, value, members)

    def objects(self, where, value, members):
        choices = [(other, inner) for kind, other, inner in members if kind in ("object", "interface")]
        if not choices:
            self.say(where, "an object")
            return
        trials = []
        for other, inner in choices:
            trial = Recorded.__new__(Recorded)
            trial.package, trial.known, trial.wrong = self.package, self.known, set()
            trial.fields(where, value, other, inner)
            trials.append(trial.wrong)
        self.wrong |= min(trials, key=len)


def record(package, path):
    """Whether every recorded answer fits."""
    recorded, count = Recorded(package), 0
    for line in Path(path).read_text().splitlines():
        pair = json.loads(line)
        if pair["status"] == 200:
            count += 1
            recorded.answer(pair["endpoint"], pair["answer"])
    for wrong in sorted(recorded.wrong):
        print(wrong)
    print(f"{count} answers held against the types of the package, {len(recorded.wrong)} faults")
    return not recorded.wrong and count > 0


def main():
    command, package = sys.argv[1], Package(sys.argv[2])
    if command == "table":
        print(table(package), end="")
    elif command == "events":
        print(events(package), end="")
    elif command == "check":
        same = True
        for path, fresh in ((sys.argv[3], table(package)), (sys.argv[4], events(package))):
            if Path(path).read_text() != fresh:
                print(f"{path} is not what the package says; make it anew")
                same = False
        sys.exit(0 if same else 1)
    elif command == "record":
        sys.exit(0 if record(package, sys.argv[3]) else 1)


if __name__ == "__main__":
    main()

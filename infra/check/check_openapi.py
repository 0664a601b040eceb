#!/usr/bin/env python3
"""Holds infra/openapi.yaml against what it describes: the template's routes, the price list, the problem codes and titles of
shared/edge; and its examples against its own schemas. What the running system answers is schemathesis.sh's matter.

    check_openapi.py [--self-test]

Never imported by anything, never deployed.
"""

import copy
import pathlib
import re
import sys
import tomllib

import jsonschema_rs
import yaml
from openapi_spec_validator import OpenAPIV32SpecValidator

ROOT = pathlib.Path(__file__).resolve().parents[2]
METHODS = {"get", "post", "options", "put", "patch", "delete", "head", "trace"}
# No API of ours: what a function answers to whoever calls it past the gateway.
NOT_DESCRIBED = {"method_not_allowed"}
# The gateway's own, in the template.
OF_THE_GATEWAY = {"gateway_refused", "gateway_failed"}


class Tagged(yaml.SafeLoader):
    """Reads the template, whose tags (!Ref, !Sub) are of no interest here."""


Tagged.add_multi_constructor("!", lambda loader, suffix, node: None)


def read():
    """The files as they are."""
    template = yaml.load((ROOT / "infra/template.yaml").read_text(), Tagged)
    problem = (ROOT / "shared/edge/src/problem.rs").read_text()
    head = problem.partition("#[cfg(test)]")[0]
    return {
        "api": yaml.safe_load((ROOT / "infra/openapi.yaml").read_text()),
        "template": template,
        "models": tomllib.loads((ROOT / "infra/models.toml").read_text()),
        "codes": set(re.findall(r'Self::\w+ => "([a-z_]+)"', head)),
        "titles": set(re.findall(r'Self::\w+ => "([A-Z][^"]+)"', head)),
    }


def check_form(files):
    """It is OpenAPI."""
    for error in OpenAPIV32SpecValidator(copy.deepcopy(files["api"])).iter_errors():
        yield f"{'/'.join(str(part) for part in error.absolute_path)}: {error.message[:200]}"


def check_routes(files):
    """It describes the template's routes, and no other."""
    described = {(path, method) for path, item in files["api"]["paths"].items() for method in set(item) & METHODS}
    routed = {
        (event["Properties"]["Path"], event["Properties"]["Method"].lower())
        for resource in files["template"]["Resources"].values()
        for event in resource.get("Properties", {}).get("Events", {}).values()
        if event["Type"] == "Api"
    }
    for path, method in sorted(described ^ routed):
        yield f"{method} {path}: {'not routed' if (path, method) in described else 'not described'}"


def check_models(files):
    """The models that can be asked for are the price list's, in its order."""
    described = files["api"]["components"]["schemas"]["Wish"]["properties"]["model"]["enum"]
    listed = [model["name"] for model in files["models"]["model"]]
    if described != listed:
        yield f"the models are {described}, not {listed}"


def problem_schemas(files):
    """Code -> the schema of the problem with this code."""
    schemas = files["api"]["components"]["schemas"].values()
    codes = ((schema.get("properties", {}).get("code", {}).get("const"), schema) for schema in schemas)
    return {code: schema for code, schema in codes if code}


def check_codes(files):
    """Every problem code has a schema, and no schema a code that there is not."""
    described = set(problem_schemas(files)) - OF_THE_GATEWAY
    expected = files["codes"] - NOT_DESCRIBED
    if len(expected) < 10:
        yield f"only {sorted(expected)} were found in problem.rs"
    for code in sorted(described ^ expected):
        yield f"{code}: {'there is no such code' if code in described else 'not described'}"


def examples(node, path="#"):
    """(where, example, schema) of every media type and parameter below this node that has both."""
    if isinstance(node, dict):
        if isinstance(node.get("schema"), dict):
            for name, example in node.get("examples", {}).items():
                yield f"{path}/examples/{name}", example["value"], node["schema"]
            if "example" in node:
                yield f"{path}/example", node["example"], node["schema"]
        for key, value in node.items():
            yield from examples(value, f"{path}/{key}")


def check_examples(files):
    """Every example is what its schema says, and an example of a problem has a title that is one."""
    components = files["api"]["components"]
    count = 0
    for where, example, schema in examples(files["api"]):
        count += 1
        validator = jsonschema_rs.Draft202012Validator({"allOf": [schema], "components": components})
        for error in validator.iter_errors(example):
            yield f"{where}: {error.message[:200]}"
        problem = example.get("refusal", example) if isinstance(example, dict) else {}
        if "code" in problem and problem.get("title") not in files["titles"]:
            yield f"{where}: no problem has the title {problem.get('title')!r}"
    if count < 15:
        yield f"only {count} examples were found"


CHECKS = [check_form, check_routes, check_models, check_codes, check_examples]


def failures(files):
    """Name of the check -> what it found, for the checks that found something."""
    found = {check.__name__: list(check(files)) for check in CHECKS}
    return {name: messages for name, messages in found.items() if messages}


def change(*path, to):
    """A mutation: sets what the path names; to nothing removes it."""

    def mutate(files):
        *parents, last = path
        for key in parents:
            files = files[key]
        if to is None:
            del files[last]
        else:
            files[last] = to

    return mutate


SCHEMAS = ("api", "components", "schemas")
# The check that must fail -> the ways of breaking the project that it must notice.
MUTATIONS = {
    "check_form": [change("api", "info", "title", to=None), change("api", "info", "titel", to="x")],
    "check_routes": [
        change("api", "paths", "/v1/quote", "options", to=None),
        change("api", "paths", "/v1/quote", "put", to={"responses": {"200": {"description": "x"}}}),
        change("template", "Resources", "Generate", "Properties", "Events", "Stop", to=None),
    ],
    "check_models": [change("models", "model", 0, "name", to="another")],
    "check_codes": [
        change(*SCHEMAS, "Concurrency", "properties", "code", "const", to="too_many"),
        change(*SCHEMAS, "InProgress", to={}),
        change("codes", to={"unauthenticated"}),
    ],
    "check_examples": [
        change(*SCHEMAS, "Wish", "properties", "tone", "enum", to=["dull"]),
        change("api", "components", "responses", "TooMany", "content", "application/problem+json", "example", "left", to=1),
        change("titles", to=set()),
    ],
}


def self_test():
    """Breaks the files in every way of MUTATIONS; returns how many went unnoticed."""
    unnoticed = 0 if set(MUTATIONS) == {check.__name__ for check in CHECKS} else 1
    for expected, mutations in MUTATIONS.items():
        for number, mutate in enumerate(mutations):
            files = read()
            mutate(files)
            if expected not in failures(files):
                unnoticed += 1
                print(f"self-test: {expected}: mutation {number} went unnoticed")
    print(f"self-test: {sum(map(len, MUTATIONS.values()))} mutations, {unnoticed} unnoticed")
    return unnoticed


def main():
    """Exit code 0 if everything holds."""
    if sys.argv[1:] == ["--self-test"]:
        return 1 if self_test() else 0
    if sys.argv[1:]:
        print(__doc__)
        return 2
    found = failures(read())
    for name, messages in found.items():
        for message in messages:
            print(f"{name}: {message}")
    print(f"openapi: {len(CHECKS)} checks, {len(found)} failed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env bash
# Holds the local Stripe against Stripe's own types: its list of parameters and of events, and every answer of its tests.
# Usage: infra/check/stripe_types.sh SCRATCH_DIRECTORY [TEST_EXECUTABLE]
#
# No registry carries Stripe's OpenAPI description. The npm package `stripe` (MIT) is generated from it: its type files have
# every parameter of every endpoint and every field of every object. It is fetched into the scratch directory, for this
# check only. Without a test executable (the library tests of `local`) it builds one. Exit status 77: the package cannot be
# had here, and nothing was checked, which the last line says.
set -euo pipefail

readonly skipped=77
# The release whose types are those of the API version that the stand-in speaks.
readonly release=23.0.1
readonly api_version=2026-09-30.endive
# Seconds that the download and the tests may take, each.
readonly download_seconds=120
readonly test_seconds=600

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
standin=$PWD/infra/local/src/stripe
checker=$PWD/infra/check/stripe_types.py
[ $# -ge 1 ] || { sed -n 3p "$0"; exit 2; }
mkdir -p "$1"
scratch=$(cd "$1" && pwd)
tests=${2:-}

skip() {
    echo "skipped: $1; the local Stripe was NOT held against Stripe's types"
    exit "$skipped"
}

command -v npm >/dev/null || skip "there is no npm"
(cd "$scratch" && timeout "$download_seconds" npm pack --silent "stripe@$release" >/dev/null 2>&1) ||
    skip "the package stripe@$release cannot be had"
tar -xzf "$scratch/stripe-$release.tgz" -C "$scratch"
grep -q "'$api_version'" "$scratch/package/cjs/apiVersion.js" || {
    echo "stripe@$release does not speak $api_version" >&2
    exit 1
}

python3 "$checker" check "$scratch/package" "$standin/parameters.txt" "$standin/events.txt"
record=$scratch/record.jsonl
rm -f "$record"
if [ -n "$tests" ]; then
    STRIPE_RECORD=$record timeout "$test_seconds" "$tests" --quiet stripe::
else
    STRIPE_RECORD=$record cargo test --quiet --package local --lib stripe::
fi
python3 "$checker" record "$scratch/package" "$record"

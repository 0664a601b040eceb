#!/usr/bin/env bash
# Fuzzes the parsers of a provider's stream (shared/openai/src/fuzz.rs) for longer than `cargo test` does.
#
#   infra/check/fuzz.sh [CASES]    so many of each of the three properties; 200,000 when not told
#
# A case that fails is made smaller, printed and kept in shared/openai/proptest-regressions, from where every later
# `cargo test` runs it first: commit it with the fix. Cases are new ones every time; PROPTEST_RNG_SEED=n repeats a run.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cases="${1:-200000}"
if ! [[ "$cases" =~ ^[1-9][0-9]{0,8}$ ]]; then
    echo "fuzz.sh: not a number of cases: $cases" >&2
    exit 2
fi
export PROPTEST_CASES="$cases"
# Fast to run, and still with the checks of a test build: an overflow is a finding.
exec cargo test -p openai --profile simulation --lib fuzz::

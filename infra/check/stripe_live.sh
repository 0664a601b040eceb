#!/usr/bin/env bash
# The contract tests of the local Stripe against the real one, in test mode: what they say of the stand-in must be true there.
# Usage: STRIPE_TEST_SECRET_KEY=sk_test_... infra/check/stripe_live.sh
#
# They make their own objects and clean up after themselves; prices and products can only be archived. Exit status 77: there
# is no key, and nothing was checked, which the last line says.
set -euo pipefail

readonly skipped=77

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
case "${STRIPE_TEST_SECRET_KEY:-}" in
    "")
        echo "skipped: STRIPE_TEST_SECRET_KEY is not set; the contract was NOT held against the real Stripe"
        exit "$skipped"
        ;;
    sk_test_*) ;;
    *)
        echo "STRIPE_TEST_SECRET_KEY must begin with sk_test_: this makes objects, and never in live mode" >&2
        exit 2
        ;;
esac
# One at a time: a sandbox takes 25 requests in a second.
STRIPE_CONTRACT_KEY=$STRIPE_TEST_SECRET_KEY cargo test --package local --test stripe_contract -- --test-threads 1

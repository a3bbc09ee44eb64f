#!/usr/bin/env bash
# Lint, then the test tiers named (`make test`): every one runs, each one's time is printed, any failure fails the whole.
# The SLURM tier mostly waits for a scheduler: it runs next to the end-to-end tier, and its output comes when both are done.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
export SMOKE=$scratch/smoke  # one finished smoke experiment for all tiers

clean_up() {
  local group
  for group in $(jobs -p); do kill -INT -- "-$group" 2>/dev/null; done  # as Ctrl-C ends a tier in the foreground
  wait
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT

tier() {  # NAME COMMAND...
  local name=$1 start=$SECONDS outcome=passed
  shift
  printf '\n==== %s: %s\n' "$name" "$*"
  "$@" || outcome=FAILED
  printf '%-6s %s in %d s\n' "$name" "$outcome" $((SECONDS - start)) >"$scratch/$name.ended"
}

tests() {  # NAME PYTEST'S OPTIONS...
  tier "$1" python -m pytest "tests/$1" --durations=5 "${@:2}"
}

in_background() {  # NAME: in a process group of its own, which Ctrl-C does not reach
  set -m
  tests "$1" >"$scratch/$1.log" 2>&1 &
  set +m
}

tier lint make lint
for name in "$@"; do
  case $name in
    unit | dag) tests "$name" --numprocesses 2 --dist worksteal ;;
    slurm) [[ " $* " == *" e2e "* ]] || tests slurm ;;  # else next to it
    e2e)
      [[ " $* " != *" slurm "* ]] || in_background slurm
      tests e2e
      wait
      [[ ! -e $scratch/slurm.log ]] || cat "$scratch/slurm.log"
      ;;
    *) tests "$name" ;;
  esac
done

printf '\n==== tiers\n'
status=0
for name in lint "$@"; do
  cat "$scratch/$name.ended" 2>/dev/null || printf '%-6s FAILED\n' "$name" | tee "$scratch/$name.ended"
  grep -q ' passed in ' "$scratch/$name.ended" || status=1
done
exit "$status"

#!/usr/bin/env bash
# Installs packages, builds preset cpu and runs every test that this machine can run; ends with ctest's summary.
# Usage: tests/run.sh [CTEST ARGUMENTS], for example tests/run.sh -L fast
set -euo pipefail
case "${1:-}" in --help | -h) sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" && exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

echo "== packages"
launch/install_deps.sh
echo "== build (preset cpu, in build/cpu)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! cmake --preset cpu >"$log" 2>&1; then
  cat "$log"
  exit 1
fi
cmake --build --preset cpu -j "$(nproc)"
echo "== tests"
ctest --preset cpu -j "$(nproc)" "$@"

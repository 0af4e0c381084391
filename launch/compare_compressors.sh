#!/usr/bin/env bash
# Bits per byte of the held-out text: of the model (the last validation of the run) and of general compressors.
# Usage: launch/compare_compressors.sh DATA RUN   (DATA: folder with train.h5 and val.h5; RUN: run folder)
set -euo pipefail
case "${1:-}" in --help | -h) sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" && exit 0 ;; esac
if [[ $# != 2 ]]; then
  sed -n '3s/^# Usage: /error: usage: /p' "${BASH_SOURCE[0]}" >&2
  exit 64
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
moebius=${MOEBIUS:-$here/build/cpu/launch/moebius}
data=$1 run=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$moebius" data text "$data/val.h5" >"$work/val"
"$moebius" data text "$data/train.h5" >"$work/train"
cat "$work/train" "$work/val" >"$work/both"
bytes=$(stat -c %s "$work/val")
bits() { awk -v c="$1" -v n="$bytes" 'BEGIN { printf "%.3f", 8 * c / n }'; }

xz=$(xz -9e -c "$work/val" | wc -c)
bz=$(bzip2 -9 -c "$work/val" | wc -c)
primed=$(($(xz -9e -c "$work/both" | wc -c) - $(xz -9e -c "$work/train" | wc -c)))
model=$(grep -o '"val/bpb":[0-9.]*' "$run/metrics.jsonl" | tail -n 1 | cut -d: -f2)
printf '  %-32s %s\n' "held-out text" "$bytes bytes" "xz -9e" "$(bits "$xz")" "bzip2 -9" "$(bits "$bz")" \
  "xz -9e primed with training text" "$(bits "$primed")" "this model" "$(awk -v m="$model" 'BEGIN { printf "%.3f", m }')"

#!/usr/bin/env bash
# From nothing to a trained model: installs packages, builds, fetches real English text from Debian packages, trains the
# quickstart recipe and shows what came out. Idempotent: run it again and it goes on where it was.
# Usage: launch/quickstart.sh [--out DIR]   (DIR: where data and run go; default runs/quickstart)
set -euo pipefail
started_in=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=runs/quickstart
case "${1:-}" in
  "") ;;
  --help | -h) sed -n '2,4s/^# //p' launch/quickstart.sh; exit 0 ;;
  --out)
    [[ -n "${2:-}" ]] || { echo "error: --out has no folder; the script cannot guess one; write --out DIR" >&2; exit 64; }
    out=$2
    [[ $out == /* ]] || out=$started_in/$out ;;
  *) echo "error: unknown argument '$1'; the script takes --out DIR or nothing; leave it out" >&2; exit 64 ;;
esac
corpora="austen bible devil jargon fortunes"
data=$out/data
moebius=build/cpu/launch/moebius
start=$EPOCHREALTIME
seconds() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.0f", b - a }'; }

echo "== 1. packages"
launch/install_deps.sh
echo "== 2. build (preset cpu, in build/cpu)"
cmake --preset cpu >/dev/null
cmake --build --preset cpu -j "$(nproc)" --target moebius
echo "== 3. text: $corpora"
# shellcheck disable=SC2086  # a list
launch/fetch_corpora.sh $corpora
$moebius data build recipes/quickstart.data.textproto --out "$data"
echo "set-up and build took $(seconds "$start") s"

echo "== 4. training"
train_start=$EPOCHREALTIME
$moebius train recipes/quickstart.textproto --out "$out" \
  --set "data.train=$data/train.h5" --set "data.validation=$data/val.h5"
echo "training took $(seconds "$train_start") s"

echo "== 5. how good is it? bits per byte of the held-out novel, lower is better"
launch/compare_compressors.sh "$data" "$out"

echo "== 6. where to look"
$moebius report "$out"
echo "sample:   $moebius generate $out --prompt 'It was' --max-new 60"

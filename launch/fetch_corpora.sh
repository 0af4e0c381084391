#!/bin/bash
# Downloads the named text corpora (Debian packages) and unpacks them where `moebius data build` looks. Installs
# nothing and needs no root; what is already there stays. One folder a package: INTO/PACKAGE/usr/...
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/fetch_corpora.sh NAME... [--into DIR]
       launch/fetch_corpora.sh --list

  NAME        a corpus: austen bible devil foldoc fortunes gcide git-doc jargon linux-doc perl-doc python-doc wordnet
  --into DIR  folder to unpack in [default: ${XDG_CACHE_HOME:-~/.cache}/moebius/corpora]
  --list      corpora and their packages

examples: launch/fetch_corpora.sh austen bible devil jargon fortunes
          launch/fetch_corpora.sh wordnet --into /tmp/corpora
END
}

fail() {  # EXIT-CODE TEXT
  echo "error: $2" >&2
  exit "$1"
}

readonly corpora='austen r-cran-janeaustenr
bible bible-kjv-text
devil dict-devil
foldoc dict-foldoc
fortunes fortunes
gcide dict-gcide
git-doc git-doc
jargon dict-jargon
linux-doc linux-doc-6.1
perl-doc perl-doc
python-doc python3.11-doc
wordnet wordnet-base'

package_of() { awk -v name="$1" '$1 == name { print $2 }' <<<"$corpora"; }

# Packs of the same version are byte-equal, so a folder that names its version is complete: it is renamed last.
fetch() {  # NAME PACKAGE
  local name=$1 package=$2 target=$into/$2 work deb
  if [[ -f $target/moebius-package.txt ]]; then
    echo "$name: have $(<"$target/moebius-package.txt") ($(du -sh "$target" | cut -f1)) in $target"
    return
  fi
  work=$(mktemp -d "$into/.fetch-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  # The sandbox user _apt cannot write into a private folder.
  if ! (cd "$work" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package") >"$work/log" 2>&1; then
    cat "$work/log" >&2
    fail 66 "cannot download the Debian package $package (corpus $name); apt said the above; run 'sudo apt-get update', check the network and the sources of apt, then run this again"
  fi
  deb=$(echo "$work"/*.deb)
  mkdir "$work/unpacked"
  dpkg-deb -x "$deb" "$work/unpacked" || fail 65 "cannot unpack $package; the download is damaged or the disk is full; run this again"
  echo "$package $(dpkg-deb -f "$deb" Version)" >"$work/unpacked/moebius-package.txt"
  rm -rf "$target"
  chmod 755 "$work/unpacked"
  mv "$work/unpacked" "$target"
  echo "$name: got $(<"$target/moebius-package.txt"), $(du -h "$deb" | cut -f1) to download, $(du -sh "$target" | cut -f1) in $target"
  rm -rf "$work"
  trap - EXIT
}

into=${XDG_CACHE_HOME:-${HOME:-}/.cache}/moebius/corpora
names=()
while (($# > 0)); do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --list) echo "$corpora"; exit 0 ;;
    --into) (($# > 1)) || fail 64 "--into needs a folder; see --help"; into=$2; shift ;;
    --into=*) into=${1#--into=} ;;
    -*) fail 64 "unknown flag '$1'; see --help" ;;
    *) [[ -n $(package_of "$1") ]] || fail 64 "unknown corpus '$1'; it is one of: $(cut -d' ' -f1 <<<"$corpora" | xargs); correct the name"
       names+=("$1") ;;
  esac
  shift
done
((${#names[@]} > 0)) || { usage >&2; exit 64; }
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
  fail 69 "apt-get and dpkg-deb are not here; corpora come as Debian packages; run on Debian or Ubuntu, or give your own text"
mkdir -p "$into" 2>/dev/null || fail 73 "cannot make the folder $into; give another with --into"
into=$(cd "$into" && pwd)
for name in "${names[@]}"; do fetch "$name" "$(package_of "$name")"; done

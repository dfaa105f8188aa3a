#!/usr/bin/env bash
# A board, emulated: an arm64 Debian in which the agent is installed from our wheel, and measures.
#
# Debian's arm64 packages and aarch64 wheels are unpacked into a folder and run under qemu-user; the
# agent there joins a coordinator on this machine, which has it measure a small campaign. What it
# shows is that the agent installs and works on aarch64. Its times are those of an emulator.
#
# It needs no binfmt_misc. Nothing outside the cache folder is changed.
#
#   ARM64_CACHE    where everything is kept; what is there is not made again   (.cache/arm64)
#   DEBIAN_MIRROR  where Debian's packages come from          (http://deb.debian.org/debian)
#   QEMU           a static qemu-aarch64, version 8 or newer        (qemu-aarch64-static)
set -euo pipefail
cd "$(dirname "$0")/../.."

here=tests/arm64
python=${PYTHON:-.venv/bin/python}
cache=$(realpath -m "${ARM64_CACHE:-.cache/arm64}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=bookworm
python_version=3.11

step() { echo "[$((++steps))/5] $*"; }
fail() { echo "error: $*" >&2; exit 2; }
need() { command -v "$1" >/dev/null || fail "$1 is missing: apt-get install $2"; }
inside() { sh "$here/inside.sh" "$cache" "$@"; }
steps=0

# --- what this machine must have
PATH=$PATH:/usr/sbin:/sbin
[[ -x $python ]] || fail "$python is missing: make install"
qemu_package="qemu-user-static (on Debian 12 that of bookworm-backports)"
qemu=$(command -v "${QEMU:-qemu-aarch64-static}") ||
  fail "${QEMU:-qemu-aarch64-static} is missing: apt-get install $qemu_package"
qemu_version=$("$qemu" --version | sed -nE '1s/.*version ([0-9]+\.[0-9.]*).*/\1/p')
((${qemu_version%%.*} >= 8)) ||
  fail "$qemu is version $qemu_version, too old for current runtimes: apt-get install $qemu_package"
need debootstrap debootstrap
as_root=() # debootstrap wants to be root, or to think so
if ((EUID)); then
  need fakeroot fakeroot
  as_root=(fakeroot)
fi
need dpkg-deb dpkg
need gcc "gcc libc6-dev"
need unshare util-linux

mkdir -p "$cache/dist" "$cache/wheels"

step "Debian $suite for arm64, with Python, in $cache/userland"
if [[ -e $cache/userland/.complete ]]; then
  echo "  is there"
else
  rm -rf "$cache/userland"
  # The second stage would configure packages for a system that boots. Unpacked, they run.
  "${as_root[@]}" debootstrap --foreign --variant=minbase --arch=arm64 --include=python3,python3-venv \
    "$suite" "$cache/userland" "$mirror" >"$cache/debootstrap.log" 2>&1 ||
    { tail -n 5 "$cache/debootstrap.log" >&2; fail "debootstrap failed: $cache/debootstrap.log"; }
  for package in "$cache"/userland/var/cache/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$cache/userland"
  done
  rm -rf "$cache"/userland/{var/cache/apt/archives,debootstrap,proc}
  mkdir -p "$cache"/userland/{proc,sys,dev,wheels,dist,usr/local/bin}
  touch "$cache/userland/.complete"
fi
cp -L "$qemu" "$cache/userland/usr/local/bin/qemu-aarch64-static"
gcc -static -O2 -Wall -o "$cache/userland/usr/local/bin/python3" "$here/python.c" ||
  fail "no static program can be built: apt-get install gcc libc6-dev"
echo "  under qemu $qemu_version: $(inside /usr/local/bin/python3 -c \
  'import platform as p; print("Python", p.python_version(), "on", p.machine())')"

step "our wheel, and the aarch64 wheels of what it needs"
rm -f "$cache"/dist/*.whl
"$python" -m build --wheel --no-isolation --outdir "$cache/dist" . >"$cache/build.log" 2>&1 ||
  { tail -n 5 "$cache/build.log" >&2; fail "the wheel was not built: $cache/build.log"; }
ours=$(basename "$cache"/dist/latlas-*.whl)
made_from=$(cat pyproject.toml constraints/base.txt | sha256sum)
if [[ $(cat "$cache/wheels/.made-from" 2>/dev/null) == "$made_from" ]]; then
  echo "  are there"
else
  rm -rf "$cache/wheels" "$cache/userland/opt/latlas"
  platforms=()
  for tag in 2_28 2_27 2_17; do platforms+=(--platform "manylinux_${tag}_aarch64"); done
  "$python" -m pip download --quiet --dest "$cache/wheels" "${platforms[@]}" \
    --platform manylinux2014_aarch64 --python-version "$python_version" --implementation cp \
    --only-binary=:all: -c constraints/base.txt "$cache/dist/$ours[onnx,litert]" pip
  rm -f "$cache"/wheels/latlas-*.whl
  echo "$made_from" >"$cache/wheels/.made-from"
fi

step "the agent, installed by pip inside: a minute, emulated"
pip=$(basename "$cache"/wheels/pip-*.whl)
install=(/opt/latlas/bin/python "/wheels/$pip/pip" install --quiet --no-index)
if [[ ! -e $cache/userland/opt/latlas/.complete ]]; then
  inside /usr/local/bin/python3 -m venv --clear --without-pip /opt/latlas
  inside "${install[@]}" --find-links /wheels "/dist/$ours[onnx,litert]"
  touch "$cache/userland/opt/latlas/.complete"
else
  inside "${install[@]}" --no-deps --force-reinstall "/dist/$ours"
fi
echo "  $(inside /opt/latlas/bin/latlas-agent --version)"

step "a coordinator on this machine, the agent inside, a small campaign on each runtime"
"$python" "$here/campaign.py" "$cache"

step "done: the agent installs, joins and measures on aarch64; every time above is an emulator's"

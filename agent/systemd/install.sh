#!/bin/sh
# Installs the agent on this board as a service, or brings it up to date:
#
#   sudo sh install.sh COORDINATOR:PORT [EXTRA [PYTHON]]
#
# The wheel (latlas-*.whl) and latlas-agent.service lie beside this script. EXTRA is the runtime,
# onnx unless given: onnx, litert, torch, or several as onnx,litert. With `none` pip adds no runtime,
# and with PYTHON=python3 what that Python has already installed is used, as on a Jetson.
set -eu
umask 022 # the service runs as a user of its own, who must be able to read what is installed

fail() { echo "error: $*" >&2; exit 1; }

coordinator=${1:-}
extra=${2:-onnx}
python=${3:-python3}
case $coordinator in
  *[!A-Za-z0-9.:_-]*) fail "not an address: $coordinator" ;;
  *:*) ;;
  *) fail "usage: sudo sh install.sh COORDINATOR:PORT [EXTRA [PYTHON]]" ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
root=${DESTDIR:-} # for tests
set -- "$here"/latlas-*.whl
[ $# = 1 ] && [ -e "$1" ] || fail "exactly one latlas-*.whl must lie in $here: $*"
wheel=$1
[ -e "$here/latlas-agent.service" ] || fail "latlas-agent.service must lie in $here"
[ "$(id -u)" = 0 ] || [ -n "$root" ] || fail "it needs root: sudo sh install.sh ..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  fail "the agent needs Python 3.10 or newer; $python is $("$python" --version 2>&1)"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "venv is missing: apt-get install python3-venv"

id latlas >/dev/null 2>&1 ||
  useradd --system --no-create-home --shell /usr/sbin/nologin latlas
system_site=
if [ "$extra" = none ]; then
  system_site=--system-site-packages
  what=$wheel
else
  what="${wheel}[$extra]"
fi
# shellcheck disable=SC2086
"$python" -m venv $system_site "$root/opt/latlas"
"$root/opt/latlas/bin/python" -m pip install --quiet --upgrade --force-reinstall --no-deps "$wheel"
"$root/opt/latlas/bin/python" -m pip install --quiet "$what"

mkdir -p "$root/etc/default" "$root/etc/systemd/system"
if [ ! -e "$root/etc/default/latlas-agent" ]; then
  printf 'COORDINATOR=%s\nOPTIONS=\n' "$coordinator" >"$root/etc/default/latlas-agent"
elif ! grep -q '^COORDINATOR=' "$root/etc/default/latlas-agent"; then
  printf 'COORDINATOR=%s\n' "$coordinator" >>"$root/etc/default/latlas-agent"
else # the options are the user's
  sed -i "s|^COORDINATOR=.*|COORDINATOR=$coordinator|" "$root/etc/default/latlas-agent"
fi
cp "$here/latlas-agent.service" "$root/etc/systemd/system/"
systemctl daemon-reload
systemctl enable latlas-agent
systemctl restart latlas-agent
echo "The agent was started; see: journalctl -u latlas-agent -f"

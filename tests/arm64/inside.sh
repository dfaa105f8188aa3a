#!/bin/sh
# inside.sh CACHE COMMAND...: becomes a command in the emulated userland of run.sh.
#
# The command sees the host's /proc, /sys, /dev and network, none of its environment, and the wheels
# in /wheels and /dist. The mounts are its own, and end with it.
set -eu
as_root=
[ "$(id -u)" = 0 ] || as_root=--map-root-user
# shellcheck disable=SC2016,SC2086
exec unshare --mount $as_root sh -euc '
  cache=$1
  shift
  for folder in proc sys dev; do mount --rbind "/$folder" "$cache/userland/$folder"; done
  for folder in wheels dist; do mount --bind "$cache/$folder" "$cache/userland/$folder"; done
  exec env -i HOME=/root LANG=C.UTF-8 PATH=/opt/latlas/bin:/usr/local/bin:/usr/bin:/usr/sbin \
    chroot "$cache/userland" "$@"
' inside "$@"

#!/bin/sh
# Puts the device into a QEMU source tree as hw/sst: add-to-tree.sh QEMU_SOURCE. QEMU then builds it in.
set -eu
from=$(cd "$(dirname "$0")" && pwd)
abi=${SHMGEMM_ABI:-$from/../src/cpp/abi}
to=$1/hw/sst
[ -f "$1/hw/Kconfig" ] || { echo "add-to-tree.sh: $1 is no QEMU source tree" >&2; exit 1; }
mkdir -p "$to"
cp "$from"/*.c "$from"/*.h "$from"/Kconfig "$from"/meson.build "$from"/trace-events "$to"
cp "$abi"/shmgemm_abi.h "$abi"/shmgemm_link.h "$abi"/virtio_sst.h "$to"
add() { # add LINE FILE BEFORE: once
  grep -qxF "$1" "$2" || sed -i "/^$3/i\\$1" "$2"
}
add "source sst/Kconfig" "$1/hw/Kconfig" "source ssi\/Kconfig"
add "subdir('sst')" "$1/hw/meson.build" "subdir('ssi')"
add "    'hw/sst'," "$1/meson.build" "    'hw\/ssi',"

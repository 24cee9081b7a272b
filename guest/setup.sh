#!/bin/sh
# Sets a stock RISC-V Linux up as a guest: copies server and sstctl, loads the module, and starts the
# server with the system where systemd runs. Usage, as root, in a folder with shmgemm-server, sstctl and
# virtio-sst.ko (built for this kernel):   setup.sh [FOLDER]
set -eu
from=${1:-.}
fail() { echo "setup.sh: $1" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "run it as root"
for file in shmgemm-server sstctl virtio-sst.ko; do
  [ -f "$from/$file" ] || fail "no $from/$file"
done

install -m 755 "$from/shmgemm-server" "$from/sstctl" /usr/local/bin/
modules=/lib/modules/$(uname -r)/extra
mkdir -p "$modules"
install -m 644 "$from/virtio-sst.ko" "$modules/"
depmod -a
modprobe virtio-sst || fail "the module does not load: see dmesg"
[ -d /etc/modules-load.d ] && echo virtio-sst >/etc/modules-load.d/virtio-sst.conf
[ -e /dev/sst0 ] || echo "setup.sh: no /dev/sst0 yet: does QEMU have a virtio-sst device?" >&2

if [ -d /run/systemd/system ]; then
  cat >/etc/systemd/system/shmgemm-server.service <<'UNIT'
[Unit]
Description=shmgemm device server
After=network-online.target
Wants=network-online.target

[Service]
# The address of QEMU's user network, to which it forwards ports.
ExecStart=/usr/local/bin/shmgemm-server --device /dev/sst0 --bind 10.0.2.15
Restart=on-failure

[Install]
WantedBy=multi-user.target
UNIT
  systemctl daemon-reload
  systemctl enable --now shmgemm-server
  systemctl --no-pager status shmgemm-server
else
  echo "no systemd here; start the server with:"
  echo "  shmgemm-server --device /dev/sst0 --bind 10.0.2.15"
fi

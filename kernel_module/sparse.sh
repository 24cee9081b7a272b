#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# sparse, as the kernel's build calls it, without the RISC-V extensions that sparse 0.6.4 (Debian 12)
# refuses in -march.
for argument; do
	shift
	set -- "$@" "$(echo "$argument" | sed 's/^\(-march=rv[0-9a-z]*\)_zicsr_zifencei.*/\1/')"
done
exec sparse "$@"

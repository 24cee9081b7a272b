/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What QEMU's tracetool makes of trace-events. */
#include "trace/trace-hw_sst.h"

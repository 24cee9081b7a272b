/* SPDX-License-Identifier: GPL-2.0 */
/* What QEMU's tracetool makes of trace-events. */
#include "trace/trace-hw_sst.h"

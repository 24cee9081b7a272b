// SPDX-License-Identifier: GPL-2.0
/*
 * The validator that all sides share, compiled into the module.
 */
#include "shmgemm_validate.c"

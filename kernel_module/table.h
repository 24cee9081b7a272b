/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which records are in flight on one device, and under what number. The number that a record bears
 * beyond the driver (its wire id) names a slot in its low byte and a serial above it, so that the
 * low 32 bits, by which `after` names a command, are unique among all that is in flight. No locks:
 * the caller has one.
 */
#ifndef VIRTIO_SST_TABLE_H
#define VIRTIO_SST_TABLE_H

#include <linux/bitmap.h>
#include <linux/types.h>

#include "virtio_sst.h"

#define VSST_SLOTS VIRTIO_SST_QUEUE_SIZE

struct vsst_slot {
	u64 wire_id;
	u64 id;		   /* the client's; 0 for an older request, which no command can name */
	const void *owner; /* the client; NULL once it is gone */
	void *record;
};

struct vsst_table {
	struct vsst_slot slots[VSST_SLOTS];
	DECLARE_BITMAP(used, VSST_SLOTS);
	u32 in_flight;
	u32 capacity; /* at most VSST_SLOTS */
	u64 serial;   /* of the last record */
};

void vsst_table_init(struct vsst_table *table, u32 capacity);

/* The wire id, never 0; 0 where the table is full. */
u64 vsst_table_add(struct vsst_table *table, const void *owner, u64 id, void *record);

/* Frees the slot of `wire_id` and returns its record; NULL where nothing in flight bears it. */
void *vsst_table_take(struct vsst_table *table, u64 wire_id);

/* Takes any record; NULL where none is left. */
void *vsst_table_take_any(struct vsst_table *table);

/* The wire id under which the owner's command `id` is in flight, 0 where it is not. */
u64 vsst_table_find(const struct vsst_table *table, const void *owner, u64 id);

/* The same by the low half of `id`; of several that which was added last. */
u64 vsst_table_find_low(const struct vsst_table *table, const void *owner, u32 id_low);

/* Parts the owner from one record of its own, which is returned; NULL where none is left. */
void *vsst_table_disown(struct vsst_table *table, const void *owner);

#endif

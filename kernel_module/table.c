// SPDX-License-Identifier: GPL-2.0
/*
 * The table of what is in flight on a device: 256 slots, looked through by their bitmap.
 */
#include <linux/minmax.h>
#include <linux/string.h>

#include "table.h"

#define VSST_SLOT_BITS 8
static_assert(VSST_SLOTS == 1 << VSST_SLOT_BITS);

void vsst_table_init(struct vsst_table *table, u32 capacity)
{
	memset(table, 0, sizeof(*table));
	table->capacity = min_t(u32, capacity, VSST_SLOTS);
}

/* A serial whose low half of the wire id is 0 in slot 0 would name no command in `after`. */
static u64 vsst_table_next_wire_id(struct vsst_table *table, u32 slot)
{
	do {
		table->serial++;
	} while ((u32)(table->serial << VSST_SLOT_BITS) == 0);
	return table->serial << VSST_SLOT_BITS | slot;
}

u64 vsst_table_add(struct vsst_table *table, const void *owner, u64 id, void *record)
{
	struct vsst_slot *slot;
	u32 index;

	if (table->in_flight >= table->capacity)
		return 0;
	index = find_first_zero_bit(table->used, VSST_SLOTS);
	__set_bit(index, table->used);
	table->in_flight++;
	slot = &table->slots[index];
	slot->wire_id = vsst_table_next_wire_id(table, index);
	slot->id = id;
	slot->owner = owner;
	slot->record = record;
	return slot->wire_id;
}

static void *vsst_table_free(struct vsst_table *table, u32 index)
{
	void *record = table->slots[index].record;

	__clear_bit(index, table->used);
	table->in_flight--;
	memset(&table->slots[index], 0, sizeof(table->slots[index]));
	return record;
}

void *vsst_table_take(struct vsst_table *table, u64 wire_id)
{
	u32 index = wire_id & (VSST_SLOTS - 1);

	if (!test_bit(index, table->used) || table->slots[index].wire_id != wire_id)
		return NULL;
	return vsst_table_free(table, index);
}

void *vsst_table_take_any(struct vsst_table *table)
{
	u32 index = find_first_bit(table->used, VSST_SLOTS);

	return index < VSST_SLOTS ? vsst_table_free(table, index) : NULL;
}

u64 vsst_table_find(const struct vsst_table *table, const void *owner, u64 id)
{
	unsigned long index;

	for_each_set_bit (index, table->used, VSST_SLOTS) {
		const struct vsst_slot *slot = &table->slots[index];

		if (slot->owner == owner && slot->id == id && id != 0)
			return slot->wire_id;
	}
	return 0;
}

u64 vsst_table_find_low(const struct vsst_table *table, const void *owner, u32 id_low)
{
	unsigned long index;
	u64 last = 0;

	for_each_set_bit (index, table->used, VSST_SLOTS) {
		const struct vsst_slot *slot = &table->slots[index];

		if (slot->owner == owner && slot->id != 0 && (u32)slot->id == id_low)
			last = max(last, slot->wire_id);
	}
	return last;
}

void *vsst_table_disown(struct vsst_table *table, const void *owner)
{
	unsigned long index;

	for_each_set_bit (index, table->used, VSST_SLOTS) {
		struct vsst_slot *slot = &table->slots[index];

		if (slot->owner == owner) {
			slot->owner = NULL;
			return slot->record;
		}
	}
	return NULL;
}

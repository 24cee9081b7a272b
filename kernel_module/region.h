/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The shared region as the guest sees it: BAR 2 of an ivshmem PCI function.
 */
#ifndef VIRTIO_SST_REGION_H
#define VIRTIO_SST_REGION_H

#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/rwsem.h>

#include "virtio_sst.h"

/* What makes a region the one that an engine spoke of, and where its heap lies. */
struct vsst_region_identity {
	u64 id[2];
	u64 bytes;
	u64 heap_begin;
	u64 heap_end;
};

struct vsst_region {
	struct kref references;
	struct list_head link;
	struct rw_semaphore pages; /* read: a page is being mapped; write: they go away */
	bool present;
	phys_addr_t begin;
	u64 bytes;
	const struct shmgemm_header *header;
};

/* The region of this id and size, with a reference, and the rest of `identity`; NULL: none. */
struct vsst_region *vsst_region_find(struct vsst_region_identity *identity);
void vsst_region_get(struct vsst_region *region);
void vsst_region_put(struct vsst_region *region);

/* Gives `vma` the region's pages, page protection left alone. */
int vsst_region_map(struct vsst_region *region, struct vm_area_struct *vma);

int vsst_region_register(void);
void vsst_region_unregister(void);

#endif

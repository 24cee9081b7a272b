// SPDX-License-Identifier: GPL-2.0
/*
 * ivshmem-plain (PCI 1af4:1110): BAR 2 is the region. It is ordinary memory, so the driver and the
 * file map it cached. The driver reads the header alone, and copies it before it believes it.
 *
 * Pages enter a mapping of the file by faults, so that none can appear after the function is gone.
 */
#include <linux/io.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/version.h>

#include "device.h"
#include "region.h"

#define VSST_IVSHMEM_DEVICE_ID 0x1110
#define VSST_IVSHMEM_BAR       2
#define VSST_PAGES_AROUND      16 /* mapped by one fault; a power of two */

static LIST_HEAD(regions);
static DEFINE_MUTEX(regions_mutex);

static void vsst_region_release(struct kref *references)
{
	kfree(container_of(references, struct vsst_region, references));
}

void vsst_region_get(struct vsst_region *region)
{
	kref_get(&region->references);
}

void vsst_region_put(struct vsst_region *region)
{
	if (region)
		kref_put(&region->references, vsst_region_release);
}

/* Does the header, copied to `header`, say that this is the region of `identity`? */
static bool vsst_region_is(const struct vsst_region *region, struct shmgemm_header *header,
			   struct vsst_region_identity *identity)
{
	memcpy(header, region->header, sizeof(*header));
	if (region->bytes != identity->bytes ||
	    memcmp(header->region_id, identity->id, sizeof(identity->id)) != 0 ||
	    shmgemm_validate_header(header, region->bytes) != SHMGEMM_STATUS_OK)
		return false;
	identity->heap_begin = header->heap_offset;
	identity->heap_end = header->heap_offset + header->heap_bytes;
	return true;
}

struct vsst_region *vsst_region_find(struct vsst_region_identity *identity)
{
	struct shmgemm_header *header = kmalloc(sizeof(*header), GFP_KERNEL);
	struct vsst_region *region, *found = NULL;

	if (!header)
		return NULL;
	mutex_lock(&regions_mutex);
	list_for_each_entry (region, &regions, link) {
		if (vsst_region_is(region, header, identity)) {
			found = region;
			vsst_region_get(found);
			break;
		}
	}
	mutex_unlock(&regions_mutex);
	kfree(header);
	return found;
}

/* --- mappings -------------------------------------------------------------------------------- */

static void vsst_region_vma_open(struct vm_area_struct *vma)
{
	vsst_region_get(vma->vm_private_data);
}

static void vsst_region_vma_close(struct vm_area_struct *vma)
{
	vsst_region_put(vma->vm_private_data);
}

/* The pages of the aligned group around the fault that `vma` has; that of the fault must succeed.
 */
static vm_fault_t vsst_region_insert(const struct vsst_region *region, const struct vm_fault *fault)
{
	struct vm_area_struct *vma = fault->vma;
	unsigned long begin = fault->address & ~(VSST_PAGES_AROUND * PAGE_SIZE - 1);
	unsigned long end = min(begin + VSST_PAGES_AROUND * PAGE_SIZE, vma->vm_end);
	unsigned long address;
	vm_fault_t result = VM_FAULT_SIGBUS;

	for (address = max(begin, vma->vm_start); address < end; address += PAGE_SIZE) {
		u64 offset = ((u64)vma->vm_pgoff << PAGE_SHIFT) + (address - vma->vm_start);
		vm_fault_t inserted;

		if (offset >= region->bytes)
			break;
		inserted = vmf_insert_pfn(vma, address, PHYS_PFN(region->begin + offset));
		if (address == (fault->address & PAGE_MASK))
			result = inserted;
	}
	return result;
}

static vm_fault_t vsst_region_fault(struct vm_fault *fault)
{
	struct vsst_region *region = fault->vma->vm_private_data;
	vm_fault_t result = VM_FAULT_SIGBUS;

	down_read(&region->pages);
	if (region->present)
		result = vsst_region_insert(region, fault);
	up_read(&region->pages);
	return result;
}

static const struct vm_operations_struct vsst_region_vm_ops = {
	.open = vsst_region_vma_open,
	.close = vsst_region_vma_close,
	.fault = vsst_region_fault,
};

int vsst_region_map(struct vsst_region *region, struct vm_area_struct *vma)
{
	u64 begin = (u64)vma->vm_pgoff << PAGE_SHIFT;
	u64 bytes = vma->vm_end - vma->vm_start;

	if (begin > region->bytes || bytes > region->bytes - begin)
		return -EINVAL;
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_set(vma, VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
#else
	vma->vm_flags |= VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP;
#endif
	vsst_region_get(region);
	vma->vm_private_data = region;
	vma->vm_ops = &vsst_region_vm_ops;
	return 0;
}

/* --- the PCI function ------------------------------------------------------------------------ */

static struct vsst_region *vsst_region_new(struct pci_dev *pci)
{
	struct vsst_region *region = kzalloc(sizeof(*region), GFP_KERNEL);

	if (!region)
		return NULL;
	region->begin = pci_resource_start(pci, VSST_IVSHMEM_BAR);
	region->bytes = pci_resource_len(pci, VSST_IVSHMEM_BAR);
	region->header = memremap(region->begin, PAGE_ALIGN(sizeof(*region->header)), MEMREMAP_WB);
	if (!region->header) {
		kfree(region);
		return NULL;
	}
	kref_init(&region->references);
	init_rwsem(&region->pages);
	region->present = true;
	return region;
}

static int vsst_region_probe(struct pci_dev *pci, const struct pci_device_id *id)
{
	struct vsst_region *region;
	int error = pcim_enable_device(pci);

	if (error)
		return dev_err_probe(&pci->dev, error, "cannot enable the ivshmem function\n");
	if (pci_resource_len(pci, VSST_IVSHMEM_BAR) < SHMGEMM_MIN_REGION_BYTES)
		return dev_err_probe(&pci->dev, -ENODEV,
				     "BAR %d has %llu bytes, a region has at least %llu\n",
				     VSST_IVSHMEM_BAR, (u64)pci_resource_len(pci, VSST_IVSHMEM_BAR),
				     SHMGEMM_MIN_REGION_BYTES);
	error = pci_request_region(pci, VSST_IVSHMEM_BAR, "virtio-sst");
	if (error)
		return dev_err_probe(&pci->dev, error, "BAR %d is in use\n", VSST_IVSHMEM_BAR);
	region = vsst_region_new(pci);
	if (!region) {
		pci_release_region(pci, VSST_IVSHMEM_BAR);
		return -ENOMEM;
	}
	pci_set_drvdata(pci, region);
	mutex_lock(&regions_mutex);
	list_add_tail(&region->link, &regions);
	mutex_unlock(&regions_mutex);
	dev_info(&pci->dev, "region of %llu MiB\n", region->bytes >> 20);
	vsst_devices_region_added();
	return 0;
}

static void vsst_region_remove(struct pci_dev *pci)
{
	struct vsst_region *region = pci_get_drvdata(pci);

	mutex_lock(&regions_mutex);
	list_del(&region->link);
	mutex_unlock(&regions_mutex);
	down_write(&region->pages);
	region->present = false;
	up_write(&region->pages);
	vsst_devices_region_removed(region);
	memunmap((void *)region->header);
	pci_release_region(pci, VSST_IVSHMEM_BAR);
	vsst_region_put(region);
}

static const struct pci_device_id vsst_region_ids[] = {
	{PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, VSST_IVSHMEM_DEVICE_ID)},
	{0},
};
MODULE_DEVICE_TABLE(pci, vsst_region_ids);

static struct pci_driver vsst_region_driver = {
	.name = "virtio-sst-region",
	.id_table = vsst_region_ids,
	.probe = vsst_region_probe,
	.remove = vsst_region_remove,
};

int vsst_region_register(void)
{
	return pci_register_driver(&vsst_region_driver);
}

void vsst_region_unregister(void)
{
	pci_unregister_driver(&vsst_region_driver);
}

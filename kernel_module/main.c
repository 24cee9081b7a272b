// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-sst: a simulated matrix accelerator behind a virtqueue, whose operands lie in a region
 * that the host, the guest and the simulator all map. This file loads and unloads the two drivers
 * of the module: of the virtio device (device.c) and of the region's PCI function (region.c).
 */
#include <linux/module.h>

#include "device.h"
#include "region.h"

static int __init vsst_init(void)
{
	int error = vsst_request_caches_create();

	if (error)
		return error;
	error = vsst_region_register();
	if (error)
		goto caches;
	error = vsst_device_register();
	if (error)
		goto region;
	return 0;
region:
	vsst_region_unregister();
caches:
	vsst_request_caches_destroy();
	return error;
}

/* No file is open, or the module would be in use; nothing is in flight once the devices are gone.
 */
static void __exit vsst_exit(void)
{
	vsst_device_unregister();
	vsst_region_unregister();
	vsst_request_caches_destroy();
}

module_init(vsst_init);
module_exit(vsst_exit);

MODULE_DESCRIPTION("virtio-sst: a simulated matrix accelerator");
MODULE_AUTHOR("The shmgemm authors");
MODULE_LICENSE("GPL");

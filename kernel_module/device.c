// SPDX-License-Identifier: GPL-2.0
/*
 * The virtio driver: a device comes, says which engine it has and changes its mind, and goes,
 * whatever is open or in flight. /dev/sst<index> is made for each.
 */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>

#include "device.h"

#ifdef __BIG_ENDIAN
#error "the records are little endian, and so must be the machine"
#endif

static LIST_HEAD(devices);
static DEFINE_MUTEX(devices_mutex);
static dev_t first_number;

static struct class vsst_class = {
	.name = "virtio-sst",
};

/* --- the configuration ----------------------------------------------------------------------- */

static void vsst_device_report(struct vsst_device *device, const struct virtio_sst_config *was)
{
	const struct virtio_sst_config *now = &device->config;

	if (now->connected == was->connected && now->generation == was->generation)
		return;
	if (!now->connected)
		dev_info_ratelimited(&device->dev, "no engine: commands end with NO_DEVICE\n");
	else if (!device->region)
		dev_warn_ratelimited(&device->dev,
				     "generation %u, devices %u, but no ivshmem function has its "
				     "region (%llu bytes, id %016llx%016llx)\n",
				     now->generation, now->devices, now->region_bytes,
				     now->region_id[1], now->region_id[0]);
	else
		dev_info_ratelimited(&device->dev,
				     "engine of generation %u, devices %u, region of %llu MiB\n",
				     now->generation, now->devices, now->region_bytes >> 20);
}

/* What is read while no engine is there keeps the region and the limits of the last one. */
static void vsst_device_adopt(struct vsst_device *device, const struct virtio_sst_config *config)
{
	struct vsst_region_identity identity = {
		.id = {config->region_id[0], config->region_id[1]},
		.bytes = config->region_bytes,
	};
	struct vsst_region *region = vsst_region_find(&identity);
	struct virtio_sst_config was;
	unsigned long flags;

	spin_lock_irqsave(&device->lock, flags);
	was = device->config;
	device->config = *config;
	swap(device->region, region);
	device->limits.heap_begin = identity.heap_begin;
	device->limits.heap_end = identity.heap_end;
	device->limits.generation = config->generation;
	device->limits.devices = config->devices;
	spin_unlock_irqrestore(&device->lock, flags);
	vsst_region_put(region);
	vsst_device_report(device, &was);
}

static void vsst_device_disconnected(struct vsst_device *device)
{
	struct virtio_sst_config was;
	unsigned long flags;

	spin_lock_irqsave(&device->lock, flags);
	was = device->config;
	device->config.connected = 0;
	spin_unlock_irqrestore(&device->lock, flags);
	vsst_device_report(device, &was);
}

/* All of it but the counters, at one time; the device writes it little endian, as this machine. */
static void vsst_device_config(struct virtio_device *vdev, struct virtio_sst_config *config)
{
	memset(config, 0, sizeof(*config));
	__virtio_cread_many(vdev, 0, config,
			    offsetof(struct virtio_sst_config, counters) / sizeof(u32),
			    sizeof(u32));
}

static void vsst_device_read(struct vsst_device *device)
{
	struct virtio_sst_config config;

	vsst_device_config(device->vdev, &config);
	if (config.connected)
		vsst_device_adopt(device, &config);
	else
		vsst_device_disconnected(device);
}

int vsst_device_look(struct vsst_device *device)
{
	int error = 0;

	mutex_lock(&device->mutex);
	if (device->vdev)
		vsst_device_read(device);
	else
		error = -ENODEV;
	mutex_unlock(&device->mutex);
	return error;
}

/* Nothing of the virtqueue is used after this; the mutex is held. */
static void vsst_device_stop(struct vsst_device *device)
{
	unsigned long flags;
	bool was_gone;

	spin_lock_irqsave(&device->lock, flags);
	was_gone = device->gone;
	device->gone = true;
	spin_unlock_irqrestore(&device->lock, flags);
	if (was_gone)
		return;
	virtio_reset_device(device->vdev);
	vsst_queue_stop(device);
}

static bool vsst_device_has_failed(struct vsst_device *device)
{
	return virtqueue_is_broken(device->queue) ||
	       device->vdev->config->get_status(device->vdev) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static void vsst_device_look_work(struct work_struct *work)
{
	struct vsst_device *device = container_of(work, struct vsst_device, look);

	mutex_lock(&device->mutex);
	if (device->vdev && !device->gone) {
		if (vsst_device_has_failed(device)) {
			dev_err(&device->dev, "the device has failed; unbind and bind it\n");
			vsst_device_stop(device);
		} else {
			vsst_device_read(device);
		}
	}
	mutex_unlock(&device->mutex);
}

static void vsst_device_config_changed(struct virtio_device *vdev)
{
	struct vsst_device *device = vdev->priv;

	schedule_work(&device->look);
}

void vsst_devices_region_added(void)
{
	struct vsst_device *device;

	mutex_lock(&devices_mutex);
	list_for_each_entry (device, &devices, link)
		schedule_work(&device->look);
	mutex_unlock(&devices_mutex);
}

/* Also of devices that are gone: their open files may have mapped it. */
void vsst_devices_region_removed(struct vsst_region *region)
{
	struct vsst_device *device;
	struct vsst_file *file;
	unsigned long index, flags;

	mutex_lock(&devices_mutex);
	list_for_each_entry (device, &devices, link) {
		mutex_lock(&device->mutex);
		spin_lock_irqsave(&device->lock, flags);
		if (device->region == region) {
			device->region = NULL;
			device->limits.heap_begin = 0;
			device->limits.heap_end = 0;
			vsst_region_put(region);
		}
		spin_unlock_irqrestore(&device->lock, flags);
		xa_for_each (&device->files, index, file)
			unmap_mapping_range(file->file->f_mapping, 0, 0, 1);
		mutex_unlock(&device->mutex);
	}
	mutex_unlock(&devices_mutex);
}

int vsst_device_counters(struct vsst_device *device, struct virtio_sst_counters *counters)
{
	struct virtio_sst_device_counters theirs = {};
	unsigned long flags;
	int error = 0;

	mutex_lock(&device->mutex);
	if (device->vdev)
		__virtio_cread_many(device->vdev, offsetof(struct virtio_sst_config, counters),
				    &theirs, sizeof(theirs) / sizeof(u64), sizeof(u64));
	else
		error = -ENODEV;
	mutex_unlock(&device->mutex);
	spin_lock_irqsave(&device->lock, flags);
	*counters = device->counters;
	spin_unlock_irqrestore(&device->lock, flags);
	counters->device = theirs;
	return error;
}

void vsst_device_info(struct vsst_device *device, struct virtio_sst_info *info)
{
	const struct virtio_sst_config *config = &device->config;
	unsigned long flags;

	memset(info, 0, sizeof(*info));
	info->abi_major = SHMGEMM_ABI_MAJOR;
	info->abi_minor = SHMGEMM_ABI_MINOR;
	info->index = device->index;
	spin_lock_irqsave(&device->lock, flags);
	info->connected = config->connected;
	info->devices = config->devices;
	info->generation = config->generation;
	info->interrupts = device->interrupts_lost ? VIRTIO_SST_POLLED : device->interrupts;
	info->clock_hz = config->clock_hz;
	if (device->region) {
		info->region_bytes = device->region->bytes;
		memcpy(info->region_id, config->region_id, sizeof(info->region_id));
	}
	spin_unlock_irqrestore(&device->lock, flags);
}

/* --- coming and going ------------------------------------------------------------------------ */

static void vsst_device_release(struct device *dev)
{
	struct vsst_device *device = container_of(dev, struct vsst_device, dev);

	mutex_lock(&devices_mutex);
	list_del(&device->link);
	mutex_unlock(&devices_mutex);
	cancel_work_sync(&device->look);
	vsst_region_put(device->region);
	xa_destroy(&device->files);
	kfree(device);
}

static struct vsst_device *vsst_device_new(struct virtio_device *vdev, u32 index)
{
	struct vsst_device *device = kzalloc(sizeof(*device), GFP_KERNEL);

	if (!device)
		return NULL;
	device->vdev = vdev;
	device->index = index;
	mutex_init(&device->mutex);
	spin_lock_init(&device->lock);
	xa_init_flags(&device->files, XA_FLAGS_ALLOC1);
	INIT_WORK(&device->look, vsst_device_look_work);
	init_waitqueue_head(&device->room);
	mutex_lock(&devices_mutex);
	list_add_tail(&device->link, &devices);
	mutex_unlock(&devices_mutex);

	device_initialize(&device->dev);
	device->dev.class = &vsst_class;
	device->dev.parent = &vdev->dev;
	device->dev.devt = MKDEV(MAJOR(first_number), index);
	device->dev.release = vsst_device_release;
	cdev_init(&device->cdev, &vsst_file_operations);
	device->cdev.owner = THIS_MODULE;
	return device;
}

static int vsst_device_check(struct virtio_device *vdev, u32 *index)
{
	struct virtio_sst_config config;

	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1))
		return dev_err_probe(&vdev->dev, -ENODEV, "not a virtio 1 device\n");
	vsst_device_config(vdev, &config);
	if (config.abi_major != SHMGEMM_ABI_MAJOR)
		return dev_err_probe(
			&vdev->dev, -EPROTO,
			"module version mismatch: the device speaks ABI %u, this module %u\n",
			config.abi_major, SHMGEMM_ABI_MAJOR);
	*index = config.index;
	if (*index >= VSST_MAX_DEVICES)
		return dev_err_probe(&vdev->dev, -EINVAL, "index %u, expected below %u\n", *index,
				     VSST_MAX_DEVICES);
	return 0;
}

static int vsst_device_start(struct vsst_device *device)
{
	struct virtio_device *vdev = device->vdev;
	struct device *parent = vdev->dev.parent;

	device->queue = virtio_find_single_vq(vdev, vsst_queue_interrupt, "records");
	if (IS_ERR(device->queue))
		return dev_err_probe(&vdev->dev, PTR_ERR(device->queue), "no virtqueue\n");
	device->interrupts = parent && dev_is_pci(parent) && to_pci_dev(parent)->msix_enabled
				     ? VIRTIO_SST_MSIX
				     : VIRTIO_SST_LINE;
	vsst_queue_init(device);
	virtio_device_ready(vdev);
	return 0;
}

/* Undoes vsst_device_start(), and whatever files are open sees it. */
static void vsst_device_end(struct vsst_device *device)
{
	struct virtio_device *vdev = device->vdev;

	mutex_lock(&device->mutex);
	vsst_device_stop(device);
	device->vdev = NULL;
	mutex_unlock(&device->mutex);
	cancel_work_sync(&device->look);
	vdev->config->del_vqs(vdev);
}

static int vsst_device_probe(struct virtio_device *vdev)
{
	struct vsst_device *device;
	u32 index;
	int error = vsst_device_check(vdev, &index);

	if (error)
		return error;
	device = vsst_device_new(vdev, index);
	if (!device)
		return -ENOMEM;
	vdev->priv = device;
	error = dev_set_name(&device->dev, "sst%u", index);
	if (error)
		goto put;
	error = vsst_device_start(device);
	if (error)
		goto put;
	vsst_device_look(device);
	error = cdev_device_add(&device->cdev, &device->dev);
	if (error) {
		dev_err_probe(&vdev->dev, error, "cannot make /dev/sst%u\n", index);
		goto end;
	}
	dev_info(&vdev->dev, "/dev/sst%u, ABI %u.%u\n", index, SHMGEMM_ABI_MAJOR,
		 SHMGEMM_ABI_MINOR);
	return 0;
end:
	vsst_device_end(device);
put:
	put_device(&device->dev);
	return error;
}

static void vsst_device_remove(struct virtio_device *vdev)
{
	struct vsst_device *device = vdev->priv;

	cdev_device_del(&device->cdev, &device->dev);
	vsst_device_end(device);
	put_device(&device->dev);
}

static const struct virtio_device_id vsst_device_ids[] = {
	{VIRTIO_SST_DEVICE_ID, VIRTIO_DEV_ANY_ID},
	{0},
};
MODULE_DEVICE_TABLE(virtio, vsst_device_ids);

static struct virtio_driver vsst_device_driver = {
	.driver.name = "virtio-sst",
	.driver.owner = THIS_MODULE,
	.id_table = vsst_device_ids,
	.probe = vsst_device_probe,
	.remove = vsst_device_remove,
	.config_changed = vsst_device_config_changed,
};

int vsst_device_register(void)
{
	int error = class_register(&vsst_class);

	if (error)
		return error;
	error = alloc_chrdev_region(&first_number, 0, VSST_MAX_DEVICES, "virtio-sst");
	if (error)
		goto class;
	error = register_virtio_driver(&vsst_device_driver);
	if (error)
		goto numbers;
	return 0;
numbers:
	unregister_chrdev_region(first_number, VSST_MAX_DEVICES);
class:
	class_unregister(&vsst_class);
	return error;
}

void vsst_device_unregister(void)
{
	unregister_virtio_driver(&vsst_device_driver);
	unregister_chrdev_region(first_number, VSST_MAX_DEVICES);
	class_unregister(&vsst_class);
}

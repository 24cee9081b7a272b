/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One virtio-sst device and its open files. The object outlives the virtio device as long as a file
 * is open: `gone` then says that no virtqueue is behind it any more.
 *
 * Order of locks: devices_mutex, mutex, regions_mutex; `lock` is innermost, and taken by
 * interrupts.
 */
#ifndef VIRTIO_SST_DEVICE_H
#define VIRTIO_SST_DEVICE_H

#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/hrtimer.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "record.h"
#include "region.h"
#include "table.h"

#define VSST_MAX_DEVICES 64  /* /dev/sst0 to /dev/sst63 */
#define VSST_MAX_UNREAD	 256 /* of one file: in flight or answered and not read yet */

struct vsst_device {
	struct device dev;
	struct cdev cdev;
	struct list_head link; /* of all devices, until the last reference is gone */
	u32 index;

	struct mutex mutex;	    /* the virtio device's presence in `vdev`, its configuration */
	struct virtio_device *vdev; /* NULL once it is gone */
	struct xarray files;	    /* open ones, by client number */
	u32 last_client;
	struct work_struct look; /* at the configuration, and whether the device has failed */

	spinlock_t lock; /* all that follows */
	bool gone;	 /* nothing goes to the device any more */
	bool ended;	 /* and everything that had has come back */
	struct virtqueue *queue;
	struct vsst_table table;
	u32 open_files;
	bool queue_full; /* it had no descriptor left, and nothing was answered since */
	struct virtio_sst_config config; /* as read last; `counters` is not kept */
	struct shmgemm_limits limits;
	struct vsst_region *region;
	struct virtio_sst_counters counters;

	struct hrtimer timer; /* looks for answers whose interrupt did not come */
	bool timer_runs;
	bool interrupts_lost;
	u64 last_change_ns; /* of what is in flight */

	u32 interrupts;		/* enum virtio_sst_interrupts, where none is lost */
	wait_queue_head_t room; /* for who would submit */
};

struct vsst_file {
	struct vsst_device *device;
	struct file *file;
	u32 client;
	wait_queue_head_t answered;
	/* under the device's lock */
	struct list_head completions; /* answered and not read yet */
	struct list_head responses;
	u32 in_flight;
	u32 unread;
};

/* device.c */
int vsst_device_register(void);
void vsst_device_unregister(void);
void vsst_devices_region_added(void);
void vsst_devices_region_removed(struct vsst_region *region);
int vsst_device_look(struct vsst_device *device); /* reads the configuration; -ENODEV: gone */
int vsst_device_counters(struct vsst_device *device, struct virtio_sst_counters *counters);
void vsst_device_info(struct vsst_device *device, struct virtio_sst_info *info);

/* queue.c */
struct vsst_request *vsst_request_new(bool older);
void vsst_request_free(struct vsst_request *request);
int vsst_request_caches_create(void);
void vsst_request_caches_destroy(void);
void vsst_queue_init(struct vsst_device *device);
void vsst_queue_interrupt(struct virtqueue *queue);
bool vsst_queue_has_room(struct vsst_file *file);
int vsst_queue_submit(struct vsst_file *file, struct vsst_request *request);
void vsst_queue_kick(struct vsst_device *device);
u32 vsst_queue_take(struct vsst_file *file, bool older, u32 most, struct list_head *taken);
void vsst_queue_give_back(struct vsst_file *file, struct list_head *taken, u32 count);
void vsst_queue_forget(struct vsst_file *file);
void vsst_queue_stop(struct vsst_device *device);

/* file.c */
extern const struct file_operations vsst_file_operations;

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/sst<index>: write() submits, read() takes answers, poll() says which of them would not wait,
 * mmap() gives the region, and ioctl() what is behind it. Each open file is a client of its own.
 *
 *	fd = open("/dev/sst0", O_RDWR);
 *	region = mmap(NULL, info.region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
 *	write(fd, commands, n * sizeof(struct shmgemm_command));
 *	read(fd, completions, n * sizeof(struct shmgemm_completion));
 */
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "device.h"

static int vsst_file_enter(struct vsst_device *device, struct vsst_file *file)
{
	unsigned long flags;
	int error;

	mutex_lock(&device->mutex);
	if (!device->vdev) {
		error = -ENODEV;
	} else {
		error = xa_alloc_cyclic(&device->files, &file->client, file, XA_LIMIT(1, U16_MAX),
					&device->last_client, GFP_KERNEL);
		error = min(error, 0); /* 1: the numbers wrapped */
	}
	if (!error) {
		spin_lock_irqsave(&device->lock, flags);
		device->open_files++;
		spin_unlock_irqrestore(&device->lock, flags);
	}
	mutex_unlock(&device->mutex);
	return error;
}

static int vsst_file_open(struct inode *inode, struct file *filp)
{
	struct vsst_device *device = container_of(inode->i_cdev, struct vsst_device, cdev);
	struct vsst_file *file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	int error;

	if (!file)
		return -ENOMEM;
	file->device = device;
	file->file = filp;
	init_waitqueue_head(&file->answered);
	INIT_LIST_HEAD(&file->completions);
	INIT_LIST_HEAD(&file->responses);
	error = vsst_file_enter(device, file);
	if (error) {
		kfree(file);
		return error;
	}
	filp->private_data = file;
	return stream_open(inode, filp);
}

static int vsst_file_release(struct inode *inode, struct file *filp)
{
	struct vsst_file *file = filp->private_data;
	struct vsst_device *device = file->device;

	mutex_lock(&device->mutex);
	xa_erase(&device->files, file->client);
	mutex_unlock(&device->mutex);
	vsst_queue_forget(file);
	kfree(file);
	return 0;
}

static bool vsst_file_is_dead(struct vsst_file *file)
{
	return READ_ONCE(file->device->ended);
}

/* --- write ----------------------------------------------------------------------------------- */

static u32 vsst_file_judge(struct vsst_file *file, const struct vsst_request *request)
{
	struct vsst_device *device = file->device;
	struct shmgemm_limits limits;
	unsigned long flags;
	bool connected;

	spin_lock_irqsave(&device->lock, flags);
	limits = device->limits;
	connected = device->config.connected;
	spin_unlock_irqrestore(&device->lock, flags);
	return connected ? vsst_record_check(request, &limits) : SHMGEMM_STATUS_NO_DEVICE;
}

/* An engine may have come whose interrupt has not: what depends on it is judged twice. */
static struct vsst_request *vsst_file_request(struct vsst_file *file, bool older,
					      const char __user *record)
{
	struct vsst_request *request = vsst_request_new(older);
	bool copied;

	if (!request)
		return ERR_PTR(-ENOMEM);
	if (older)
		copied = !copy_from_user(&vsst_older(request)->request, record,
					 sizeof(struct virtio_sst_request));
	else
		copied = !copy_from_user(&vsst_command(request)->command, record,
					 sizeof(struct shmgemm_command));
	if (!copied) {
		vsst_request_free(request);
		return ERR_PTR(-EFAULT);
	}
	vsst_record_remember(request);
	request->status = vsst_file_judge(file, request);
	if (request->status == SHMGEMM_STATUS_NO_DEVICE ||
	    request->status == SHMGEMM_STATUS_BAD_GENERATION ||
	    request->status == SHMGEMM_STATUS_BAD_DEVICE) {
		vsst_device_look(file->device);
		request->status = vsst_file_judge(file, request);
	}
	return request;
}

/* Only the first record of a write() waits for room: the others make it a short one. */
static int vsst_file_submit(struct vsst_file *file, struct vsst_request *request, bool wait)
{
	int error;

	for (;;) {
		error = vsst_queue_submit(file, request);
		if (error != -EAGAIN || !wait)
			return error;
		error = wait_event_interruptible(file->device->room, vsst_queue_has_room(file));
		if (error)
			return error;
	}
}

static ssize_t vsst_file_write(struct file *filp, const char __user *records, size_t bytes,
			       loff_t *position)
{
	struct vsst_file *file = filp->private_data;
	bool older = bytes == sizeof(struct virtio_sst_request);
	size_t size = older ? bytes : sizeof(struct shmgemm_command);
	size_t done;
	int error = 0;

	if (bytes == 0 || bytes % size != 0)
		return -EINVAL;
	for (done = 0; done < bytes; done += size) {
		bool wait = done == 0 && !(filp->f_flags & O_NONBLOCK);
		struct vsst_request *request = vsst_file_request(file, older, records + done);

		if (IS_ERR(request)) {
			error = PTR_ERR(request);
			break;
		}
		error = vsst_file_submit(file, request, wait);
		if (error) {
			vsst_request_free(request);
			break;
		}
	}
	if (done)
		vsst_queue_kick(file->device);
	return done ? done : error;
}

/* --- read ------------------------------------------------------------------------------------ */

static bool vsst_file_has_answer(struct vsst_file *file, bool older)
{
	return !list_empty_careful(older ? &file->responses : &file->completions);
}

static bool vsst_file_copy_out(struct vsst_request *request, char __user *to)
{
	struct vsst_older_request *older;

	if (!request->older)
		return !copy_to_user(to, &vsst_command(request)->answer,
				     sizeof(struct shmgemm_completion));
	older = vsst_older(request);
	return !copy_to_user(to, &older->answer, sizeof(older->answer)) &&
	       !copy_to_user(to + sizeof(older->answer), older->response.payload,
			     sizeof(older->response.payload));
}

/* Answers that the buffer could not take stay the next ones. */
static ssize_t vsst_file_deliver(struct vsst_file *file, struct list_head *taken, u32 count,
				 char __user *buffer, size_t size)
{
	struct vsst_request *request, *next;
	u32 copied = 0;

	list_for_each_entry_safe (request, next, taken, link) {
		if (!vsst_file_copy_out(request, buffer + copied * size))
			break;
		list_del(&request->link);
		vsst_request_free(request);
		copied++;
	}
	if (copied < count)
		vsst_queue_give_back(file, taken, count - copied);
	return copied ? (ssize_t)(copied * size) : -EFAULT;
}

static int vsst_file_wait(struct file *filp, bool older)
{
	struct vsst_file *file = filp->private_data;

	if (vsst_file_is_dead(file) && !vsst_file_has_answer(file, older))
		return -ENODEV;
	if (filp->f_flags & O_NONBLOCK)
		return -EAGAIN;
	return wait_event_interruptible(file->answered, vsst_file_has_answer(file, older) ||
								vsst_file_is_dead(file));
}

static ssize_t vsst_file_read(struct file *filp, char __user *buffer, size_t bytes,
			      loff_t *position)
{
	struct vsst_file *file = filp->private_data;
	bool older = bytes == sizeof(struct virtio_sst_response);
	size_t size = older ? bytes : sizeof(struct shmgemm_completion);
	LIST_HEAD(taken);

	if (bytes == 0 || bytes % size != 0)
		return -EINVAL;
	for (;;) {
		u32 count = vsst_queue_take(file, older, min(bytes / size, (size_t)VSST_MAX_UNREAD),
					    &taken);
		int error;

		if (count)
			return vsst_file_deliver(file, &taken, count, buffer, size);
		error = vsst_file_wait(filp, older);
		if (error)
			return error;
	}
}

/* --- the rest -------------------------------------------------------------------------------- */

static __poll_t vsst_file_poll(struct file *filp, poll_table *table)
{
	struct vsst_file *file = filp->private_data;
	__poll_t events = 0;

	poll_wait(filp, &file->answered, table);
	poll_wait(filp, &file->device->room, table);
	if (vsst_file_has_answer(file, false) || vsst_file_has_answer(file, true))
		events |= EPOLLIN | EPOLLRDNORM;
	if (vsst_file_is_dead(file))
		events |= EPOLLERR | EPOLLHUP;
	else if (vsst_queue_has_room(file))
		events |= EPOLLOUT | EPOLLWRNORM;
	return events;
}

static int vsst_file_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct vsst_file *file = filp->private_data;
	struct vsst_device *device = file->device;
	struct vsst_region *region;
	unsigned long flags;
	int error;

	spin_lock_irqsave(&device->lock, flags);
	region = device->gone ? NULL : device->region;
	if (region)
		vsst_region_get(region);
	spin_unlock_irqrestore(&device->lock, flags);
	if (!region)
		return vsst_file_is_dead(file) ? -ENODEV : -ENXIO;
	error = vsst_region_map(region, vma);
	vsst_region_put(region);
	return error;
}

static long vsst_file_counters(struct vsst_device *device, void __user *to)
{
	struct virtio_sst_counters counters;
	int error = vsst_device_counters(device, &counters);

	if (error)
		return error;
	return copy_to_user(to, &counters, sizeof(counters)) ? -EFAULT : 0;
}

static long vsst_file_info(struct vsst_device *device, void __user *to)
{
	struct virtio_sst_info info;
	int error = vsst_device_look(device);

	if (error)
		return error;
	vsst_device_info(device, &info);
	return copy_to_user(to, &info, sizeof(info)) ? -EFAULT : 0;
}

static long vsst_file_ioctl(struct file *filp, unsigned int command, unsigned long argument)
{
	struct vsst_file *file = filp->private_data;

	switch (command) {
	case VIRTIO_SST_IOC_INFO:
		return vsst_file_info(file->device, (void __user *)argument);
	case VIRTIO_SST_IOC_COUNTERS:
		return vsst_file_counters(file->device, (void __user *)argument);
	default:
		return -ENOTTY;
	}
}

const struct file_operations vsst_file_operations = {
	.owner = THIS_MODULE,
	.open = vsst_file_open,
	.release = vsst_file_release,
	.read = vsst_file_read,
	.write = vsst_file_write,
	.poll = vsst_file_poll,
	.mmap = vsst_file_mmap,
	.unlocked_ioctl = vsst_file_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

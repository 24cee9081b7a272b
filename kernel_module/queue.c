// SPDX-License-Identifier: GPL-2.0
/*
 * The virtqueue: requests go in by the table and come out of it. The device may answer in any
 * order, late or never; a request belongs to it until it has, and nobody waits for that but whoever
 * reads the file. What comes back is checked, counted, and put in its file's list of answers.
 *
 * Answers are announced by an interrupt. A timer looks too while anything is in flight: seldom
 * while interrupts come, often where one was missed.
 */
#include <linux/ktime.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "device.h"

#define VSST_WATCH_NS	 (20 * NSEC_PER_MSEC) /* where interrupts come */
#define VSST_POLL_MIN_NS (100 * NSEC_PER_USEC)
#define VSST_POLL_MAX_NS (10 * NSEC_PER_MSEC)

/* Mistakes for the control of the stress (Kbuild, BROKEN=): each must turn it red. */
#define VSST_BREAK_leak		  1
#define VSST_BREAK_use_after_free 2
#define VSST_BREAK_sleep	  3
#ifndef VSST_BREAK
#define VSST_BREAK 0
#endif

static struct kmem_cache *command_cache;
static struct kmem_cache *older_cache;

/* User space is copied to and from what lies between the head and what the device writes. */
int vsst_request_caches_create(void)
{
	const size_t command = offsetof(struct vsst_command_request, command);
	const size_t older = offsetof(struct vsst_older_request, request);

	command_cache = kmem_cache_create_usercopy(
		"virtio_sst_command", sizeof(struct vsst_command_request), SMP_CACHE_BYTES,
		SLAB_ACCOUNT, command, offsetof(struct vsst_command_request, completion) - command,
		NULL);
	if (!command_cache)
		return -ENOMEM;
	older_cache = kmem_cache_create_usercopy(
		"virtio_sst_request", sizeof(struct vsst_older_request), SMP_CACHE_BYTES,
		SLAB_ACCOUNT, older, sizeof(struct vsst_older_request) - older, NULL);
	if (!older_cache) {
		kmem_cache_destroy(command_cache);
		return -ENOMEM;
	}
	return 0;
}

void vsst_request_caches_destroy(void)
{
	kmem_cache_destroy(older_cache);
	kmem_cache_destroy(command_cache);
}

struct vsst_request *vsst_request_new(bool older)
{
	struct vsst_request *request =
		kmem_cache_zalloc(older ? older_cache : command_cache, GFP_KERNEL);

	if (request) {
		INIT_LIST_HEAD(&request->link);
		request->older = older;
	}
	return request;
}

void vsst_request_free(struct vsst_request *request)
{
	if (VSST_BREAK == VSST_BREAK_leak && !request->file)
		return;
	kmem_cache_free(request->older ? older_cache : command_cache, request);
	if (VSST_BREAK == VSST_BREAK_use_after_free)
		READ_ONCE(request->older);
}

/* --- answers --------------------------------------------------------------------------------- */

/* Puts what was answered in its file's list, or drops it where that was closed. */
static void vsst_queue_hand_over(struct vsst_device *device, struct vsst_request *request)
{
	struct vsst_file *file = request->file;

	if (!file) {
		device->counters.dropped++;
		vsst_request_free(request);
		return;
	}
	list_add_tail(&request->link, request->older ? &file->responses : &file->completions);
	file->unread++;
	wake_up_interruptible(&file->answered);
}

static void vsst_queue_returned(struct vsst_device *device, struct vsst_request *request)
{
	vsst_table_take(&device->table, request->wire_id);
	if (request->file)
		request->file->in_flight--;
	device->counters.sojourn_ns += ktime_get_ns() - request->submitted_ns;
	device->queue_full = false;
}

/* Everything the device has answered; true if that was anything. */
static bool vsst_queue_drain(struct vsst_device *device)
{
	struct vsst_request *request;
	unsigned int bytes;
	bool any = false;

	while ((request = virtqueue_get_buf(device->queue, &bytes))) {
		any = true;
		vsst_queue_returned(device, request);
		if (!vsst_record_take_answer(request, bytes, &device->limits)) {
			device->counters.nonsense++;
			dev_warn_ratelimited(
				&device->dev,
				"an answer of %u bytes that makes no sense was dropped\n", bytes);
		}
		vsst_queue_hand_over(device, request);
	}
	if (any) {
		device->last_change_ns = ktime_get_ns();
		wake_up_interruptible(&device->room);
	}
	return any;
}

void vsst_queue_interrupt(struct virtqueue *queue)
{
	struct vsst_device *device = queue->vdev->priv;
	unsigned long flags;

	spin_lock_irqsave(&device->lock, flags);
	if (!device->gone) {
		device->interrupts_lost = false;
		do {
			virtqueue_disable_cb(queue);
			vsst_queue_drain(device);
		} while (!virtqueue_enable_cb(queue));
	}
	spin_unlock_irqrestore(&device->lock, flags);
}

/* --- the timer ------------------------------------------------------------------------------- */

/* The longer nothing changes, the more seldom it looks. */
static u64 vsst_queue_interval_ns(const struct vsst_device *device)
{
	u64 quiet_ns = ktime_get_ns() - device->last_change_ns;

	if (!device->interrupts_lost)
		return VSST_WATCH_NS;
	return clamp_t(u64, quiet_ns / 4, VSST_POLL_MIN_NS, VSST_POLL_MAX_NS);
}

static void vsst_queue_arm(struct vsst_device *device)
{
	device->timer_runs = true;
	hrtimer_start(&device->timer, ns_to_ktime(vsst_queue_interval_ns(device)),
		      HRTIMER_MODE_REL_SOFT);
}

static void vsst_queue_look(struct vsst_device *device)
{
	if (vsst_queue_drain(device)) {
		device->counters.polls++;
		device->interrupts_lost = true;
	}
	device->timer_runs = false;
	if (virtqueue_is_broken(device->queue))
		schedule_work(&device->look);
	else if (device->table.in_flight)
		vsst_queue_arm(device);
}

/* A submission may have armed it again before it had the lock: so it does not restart itself. */
static enum hrtimer_restart vsst_queue_timer(struct hrtimer *timer)
{
	struct vsst_device *device = container_of(timer, struct vsst_device, timer);
	unsigned long flags;

	spin_lock_irqsave(&device->lock, flags);
	if (!device->gone)
		vsst_queue_look(device);
	spin_unlock_irqrestore(&device->lock, flags);
	return HRTIMER_NORESTART;
}

void vsst_queue_init(struct vsst_device *device)
{
	u32 slots = virtqueue_get_vring_size(device->queue);

	/* A chain takes two descriptors, or one that points to a table of them. */
	if (!virtio_has_feature(device->vdev, VIRTIO_RING_F_INDIRECT_DESC))
		slots /= 2;
	vsst_table_init(&device->table, slots);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(&device->timer, vsst_queue_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_SOFT);
#else
	hrtimer_init(&device->timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_SOFT);
	device->timer.function = vsst_queue_timer;
#endif
}

/* --- submission ------------------------------------------------------------------------------ */

/* A file may have its share of the table in flight, and so much that it has not read. */
static bool vsst_queue_room(const struct vsst_file *file)
{
	const struct vsst_device *device = file->device;
	u32 share = max(device->table.capacity / max(device->open_files, 1u), 1u);

	return !device->queue_full && device->table.in_flight < device->table.capacity &&
	       file->in_flight < share && file->in_flight + file->unread < VSST_MAX_UNREAD;
}

/* Also true once the device is gone: nobody should wait for room then. */
bool vsst_queue_has_room(struct vsst_file *file)
{
	struct vsst_device *device = file->device;
	unsigned long flags;
	bool room;

	spin_lock_irqsave(&device->lock, flags);
	room = device->gone || vsst_queue_room(file);
	spin_unlock_irqrestore(&device->lock, flags);
	return room;
}

static int vsst_queue_add(struct vsst_device *device, struct vsst_request *request)
{
	struct scatterlist out, in, *both[] = {&out, &in};

	if (request->older) {
		struct vsst_older_request *older = vsst_older(request);

		sg_init_one(&out, &older->request, sizeof(older->request));
		sg_init_one(&in, &older->response, sizeof(older->response));
	} else {
		struct vsst_command_request *command = vsst_command(request);

		sg_init_one(&out, &command->command, sizeof(command->command));
		sg_init_one(&in, &command->completion, sizeof(command->completion));
	}
	return virtqueue_add_sgs(device->queue, both, 1, 1, request, GFP_ATOMIC);
}

static int vsst_queue_send(struct vsst_file *file, struct vsst_request *request)
{
	struct vsst_device *device = file->device;
	u64 after = 0;
	int error;

	if (request->after != 0)
		after = vsst_table_find_low(&device->table, file, request->after);
	request->wire_id =
		vsst_table_add(&device->table, file, request->older ? 0 : request->id, request);
	vsst_record_to_wire(request, file->client, after);
	request->submitted_ns = ktime_get_ns();
	error = vsst_queue_add(device, request);
	if (error) {
		vsst_table_take(&device->table, request->wire_id);
		if (error == -EIO)
			schedule_work(&device->look);
		device->queue_full = error == -ENOSPC && device->table.in_flight != 0;
		return device->queue_full ? -EAGAIN : error;
	}
	file->in_flight++;
	device->last_change_ns = request->submitted_ns;
	if (!device->timer_runs || device->interrupts_lost)
		vsst_queue_arm(device);
	return 0;
}

static int vsst_queue_submit_locked(struct vsst_file *file, struct vsst_request *request)
{
	struct vsst_device *device = file->device;
	int error = 0;

	if (device->gone)
		return -ENODEV;
	if (!vsst_queue_room(file))
		return -EAGAIN;
	request->file = file;
	if (request->status == SHMGEMM_STATUS_OK && !request->older &&
	    vsst_table_find(&device->table, file, request->id))
		request->status = SHMGEMM_STATUS_DUPLICATE_ID;
	if (request->status == SHMGEMM_STATUS_OK) {
		error = vsst_queue_send(file, request);
	} else {
		device->counters.rejected++;
		vsst_record_answer_here(request, request->status);
		vsst_queue_hand_over(device, request);
	}
	return error;
}

/*
 * Takes over the request, answers it here where its status says so; -EAGAIN: there is no room now,
 * -ENODEV: the device is gone; the request then remains the caller's.
 */
int vsst_queue_submit(struct vsst_file *file, struct vsst_request *request)
{
	struct vsst_device *device = file->device;
	bool older = request->older;
	unsigned long flags;
	int error;

	spin_lock_irqsave(&device->lock, flags);
	if (VSST_BREAK == VSST_BREAK_sleep)
		might_sleep();
	error = vsst_queue_submit_locked(file, request);
	if (!error && older) {
		device->counters.requests++;
		device->counters.bytes_written += sizeof(struct virtio_sst_request);
	} else if (!error) {
		device->counters.commands++;
		device->counters.bytes_written += sizeof(struct shmgemm_command);
	}
	spin_unlock_irqrestore(&device->lock, flags);
	return error;
}

/* Tells the device of what was submitted. */
void vsst_queue_kick(struct vsst_device *device)
{
	unsigned long flags;

	spin_lock_irqsave(&device->lock, flags);
	if (!device->gone)
		virtqueue_kick(device->queue);
	spin_unlock_irqrestore(&device->lock, flags);
}

/* --- what a file does with its answers ------------------------------------------------------- */

/* Moves at most `most` answers of one kind to `taken`, and says how many. */
u32 vsst_queue_take(struct vsst_file *file, bool older, u32 most, struct list_head *taken)
{
	struct vsst_device *device = file->device;
	struct list_head *answers = older ? &file->responses : &file->completions;
	unsigned long flags;
	u32 count = 0;

	spin_lock_irqsave(&device->lock, flags);
	while (count < most && !list_empty(answers)) {
		list_move_tail(answers->next, taken);
		count++;
	}
	file->unread -= count;
	if (older) {
		device->counters.responses += count;
		device->counters.bytes_read += count * sizeof(struct virtio_sst_response);
	} else {
		device->counters.completions += count;
		device->counters.bytes_read += count * sizeof(struct shmgemm_completion);
	}
	spin_unlock_irqrestore(&device->lock, flags);
	if (count)
		wake_up_interruptible(&device->room);
	return count;
}

/* The other way, for `count` answers of one kind that could not be copied out. */
void vsst_queue_give_back(struct vsst_file *file, struct list_head *taken, u32 count)
{
	struct vsst_device *device = file->device;
	bool older = list_first_entry(taken, struct vsst_request, link)->older;
	unsigned long flags;

	spin_lock_irqsave(&device->lock, flags);
	file->unread += count;
	if (older) {
		list_splice_init(taken, &file->responses);
		device->counters.responses -= count;
		device->counters.bytes_read -= count * sizeof(struct virtio_sst_response);
	} else {
		list_splice_init(taken, &file->completions);
		device->counters.completions -= count;
		device->counters.bytes_read -= count * sizeof(struct shmgemm_completion);
	}
	spin_unlock_irqrestore(&device->lock, flags);
	wake_up_interruptible(&file->answered);
}

/* The file closes: what the device still has of it is parted from it, what it has not read goes. */
void vsst_queue_forget(struct vsst_file *file)
{
	struct vsst_device *device = file->device;
	struct vsst_request *request, *next;
	unsigned long flags;
	LIST_HEAD(unread);

	spin_lock_irqsave(&device->lock, flags);
	while ((request = vsst_table_disown(&device->table, file)))
		request->file = NULL;
	list_splice_init(&file->completions, &unread);
	list_splice_init(&file->responses, &unread);
	device->counters.dropped += file->unread;
	device->open_files--;
	spin_unlock_irqrestore(&device->lock, flags);
	wake_up_interruptible(&device->room);
	list_for_each_entry_safe (request, next, &unread, link)
		vsst_request_free(request);
}

/*
 * The device was reset and touches nothing any more: everything in flight ends with NO_DEVICE, and
 * whoever waits sees that it is gone. In process context.
 */
void vsst_queue_stop(struct vsst_device *device)
{
	struct vsst_request *request;
	struct vsst_file *file;
	unsigned long index, flags;

	hrtimer_cancel(&device->timer);
	spin_lock_irqsave(&device->lock, flags);
	while (virtqueue_detach_unused_buf(device->queue))
		;
	while ((request = vsst_table_take_any(&device->table))) {
		if (request->file)
			request->file->in_flight--;
		vsst_record_answer_here(request, SHMGEMM_STATUS_NO_DEVICE);
		vsst_queue_hand_over(device, request);
	}
	device->ended = true;
	spin_unlock_irqrestore(&device->lock, flags);
	xa_for_each (&device->files, index, file)
		wake_up_interruptible_all(&file->answered);
	wake_up_interruptible_all(&device->room);
}

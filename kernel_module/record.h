/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Records on their way through the driver: a request object for each, what a client's names (id,
 * stream, after) become beyond the driver, and what an answer must be to be believed.
 */
#ifndef VIRTIO_SST_RECORD_H
#define VIRTIO_SST_RECORD_H

#include <linux/cache.h>
#include <linux/list.h>
#include <linux/types.h>

#include "shmgemm_validate.h"
#include "virtio_sst.h"

struct vsst_file;

/* A response without its payload. */
struct vsst_response_head {
	u32 status;
	u32 reserved;
	u64 id;
	u64 user;
	u64 result;
};

static_assert(sizeof(struct vsst_response_head) == offsetof(struct virtio_sst_response, payload));

/* The head of both kinds. `link` is in its file's list of answers; in flight it is unused. */
struct vsst_request {
	struct list_head link;
	struct vsst_file *file; /* NULL: closed, the answer is dropped */
	bool older;
	u32 status; /* of a record that is answered here; OK: it goes to the device */
	u64 wire_id;
	u64 submitted_ns;
	/* as the client gave them */
	u64 id;
	u64 user;
	u32 stream;
	u32 after;
	u32 generation;
};

/* The device reads `command` and writes `completion`; `answer` is the copy that was checked. */
struct vsst_command_request {
	struct vsst_request base;
	struct shmgemm_command command;
	struct shmgemm_completion answer;
	struct shmgemm_completion completion ____cacheline_aligned;
};

/* The payload of the response has no meaning here: it goes to the client from where it lies. */
struct vsst_older_request {
	struct vsst_request base;
	struct virtio_sst_request request;
	struct vsst_response_head answer;
	struct virtio_sst_response response ____cacheline_aligned;
};

static inline struct vsst_command_request *vsst_command(struct vsst_request *request)
{
	return container_of(request, struct vsst_command_request, base);
}

static inline struct vsst_older_request *vsst_older(struct vsst_request *request)
{
	return container_of(request, struct vsst_older_request, base);
}

/* Keeps what the client chose, from the record that was copied from it. */
void vsst_record_remember(struct vsst_request *request);

/* What the driver itself finds wrong with the client's record; SHMGEMM_STATUS_OK: nothing. */
u32 vsst_record_check(const struct vsst_request *request, const struct shmgemm_limits *limits);

/* Puts the names used beyond the driver in the record; `after` is 0 where that has ended. */
void vsst_record_to_wire(struct vsst_request *request, u32 client, u64 after);

/* Fills the answer to a record that no device answered. */
void vsst_record_answer_here(struct vsst_request *request, u32 status);

/* Takes the device's answer of `bytes` bytes; false where it is nonsense, and answers ERROR. */
bool vsst_record_take_answer(struct vsst_request *request, u32 bytes,
			     const struct shmgemm_limits *limits);

#endif

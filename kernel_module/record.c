// SPDX-License-Identifier: GPL-2.0
/*
 * What a record becomes on its way to the device and back. Everything here works on private
 * copies; what the device wrote is copied once, then judged.
 */
#include <linux/string.h>

#include "record.h"

void vsst_record_remember(struct vsst_request *request)
{
	if (request->older) {
		const struct virtio_sst_request *record = &vsst_older(request)->request;

		request->id = record->id;
		request->user = record->user;
	} else {
		const struct shmgemm_command *command = &vsst_command(request)->command;

		request->id = command->id;
		request->stream = command->stream;
		request->after = command->after;
		request->generation = command->generation;
	}
}

u32 vsst_record_check(const struct vsst_request *request, const struct shmgemm_limits *limits)
{
	const struct vsst_command_request *command;

	if (request->older) {
		const struct vsst_older_request *older =
			container_of(request, struct vsst_older_request, base);

		return older->request.type > SHMGEMM_OP_CONFIGURE ? SHMGEMM_STATUS_INVALID
								  : SHMGEMM_STATUS_OK;
	}
	if (request->stream > VIRTIO_SST_MAX_STREAM)
		return SHMGEMM_STATUS_BAD_ARGUMENT;
	command = container_of(request, struct vsst_command_request, base);
	return shmgemm_validate_command(&command->command, limits);
}

/*
 * A FLUSH that names a command flushes up to that one, and one that names none flushes all. Where
 * the named one has ended it names itself, which no engine has in flight: ended as well.
 */
void vsst_record_to_wire(struct vsst_request *request, u32 client, u64 after)
{
	struct shmgemm_command *command;

	if (request->older) {
		vsst_older(request)->request.id = request->wire_id;
		return;
	}
	command = &vsst_command(request)->command;
	if (request->after != 0 && after == 0 && command->op == SHMGEMM_OP_FLUSH)
		after = request->wire_id;
	command->id = request->wire_id;
	command->stream = client << 16 | request->stream;
	command->after = (u32)after;
	command->seq = 0;
}

static void vsst_record_answer_command_here(struct vsst_request *request, u32 status)
{
	struct vsst_command_request *command = vsst_command(request);

	memset(&command->answer, 0, sizeof(command->answer));
	command->answer.id = request->id;
	command->answer.generation = request->generation;
	command->answer.status = status;
	command->answer.device = command->command.device;
}

static void vsst_record_answer_older_here(struct vsst_request *request, u32 status)
{
	struct vsst_older_request *older = vsst_older(request);

	memset(&older->answer, 0, sizeof(older->answer));
	memset(&older->response, 0, sizeof(older->response));
	older->answer.id = request->id;
	older->answer.user = request->user;
	older->answer.status = status;
}

void vsst_record_answer_here(struct vsst_request *request, u32 status)
{
	if (request->older)
		vsst_record_answer_older_here(request, status);
	else
		vsst_record_answer_command_here(request, status);
}

/* An engine that was started meanwhile answers in its own generation. */
static bool vsst_record_take_completion(struct vsst_request *request,
					const struct shmgemm_limits *limits)
{
	struct vsst_command_request *command = vsst_command(request);
	struct shmgemm_completion *answer = &command->answer;
	struct shmgemm_limits judged = *limits;

	memcpy(answer, &command->completion, sizeof(*answer));
	if (answer->generation == request->generation)
		judged.generation = request->generation;
	if (answer->id != request->wire_id ||
	    shmgemm_validate_completion(answer, &judged) != SHMGEMM_STATUS_OK)
		return false;
	answer->id = request->id;
	answer->seq = 0;
	return true;
}

static bool vsst_record_take_response(struct vsst_request *request)
{
	struct vsst_older_request *older = vsst_older(request);
	struct vsst_response_head *answer = &older->answer;

	memcpy(answer, &older->response, sizeof(*answer));
	if (answer->id != request->wire_id || answer->user != request->user ||
	    answer->status > SHMGEMM_STATUS_NO_DEVICE)
		return false;
	answer->id = request->id;
	answer->reserved = 0;
	return true;
}

bool vsst_record_take_answer(struct vsst_request *request, u32 bytes,
			     const struct shmgemm_limits *limits)
{
	bool good;

	if (request->older)
		good = bytes == sizeof(struct virtio_sst_response) &&
		       vsst_record_take_response(request);
	else
		good = bytes == sizeof(struct shmgemm_completion) &&
		       vsst_record_take_completion(request, limits);
	if (!good)
		vsst_record_answer_here(request, SHMGEMM_STATUS_ERROR);
	return good;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Unit tests of what needs no device: the table of what is in flight, the records' way there and
 * back, the validator as the kernel compiles it. Compiled into a module of their own.
 */
#include <kunit/test.h>
#include <linux/module.h>

#include "record.c"
#include "table.c"
#include "shmgemm_validate.c"

#define HEAP_BEGIN (2ull << 20)
#define HEAP_END   (4ull << 20)

static const struct shmgemm_limits limits = {
	.heap_begin = HEAP_BEGIN,
	.heap_end = HEAP_END,
	.generation = 7,
	.devices = 2,
};

/* --- the table ------------------------------------------------------------------------------- */

static struct vsst_table *new_table(struct kunit *test, u32 capacity)
{
	struct vsst_table *table = kunit_kzalloc(test, sizeof(*table), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, table);
	vsst_table_init(table, capacity);
	return table;
}

static void table_fills_and_empties(struct kunit *test)
{
	struct vsst_table *table = new_table(test, 1000);
	u64 *wire_ids = kunit_kcalloc(test, VSST_SLOTS, sizeof(*wire_ids), GFP_KERNEL);
	int owner, i;

	KUNIT_ASSERT_NOT_NULL(test, wire_ids);
	KUNIT_EXPECT_EQ(test, table->capacity, VSST_SLOTS);
	for (i = 0; i < VSST_SLOTS; i++) {
		wire_ids[i] = vsst_table_add(table, &owner, i + 1, &wire_ids[i]);
		KUNIT_ASSERT_NE(test, wire_ids[i], 0);
	}
	KUNIT_EXPECT_EQ(test, vsst_table_add(table, &owner, 999, table), 0);
	for (i = VSST_SLOTS - 1; i >= 0; i--)
		KUNIT_EXPECT_PTR_EQ(test, vsst_table_take(table, wire_ids[i]),
				    (void *)&wire_ids[i]);
	KUNIT_EXPECT_EQ(test, table->in_flight, 0);
	KUNIT_EXPECT_NULL(test, vsst_table_take_any(table));
}

static void table_gives_each_wire_id_once(struct kunit *test)
{
	struct vsst_table *table = new_table(test, 4);
	int owner;
	u64 first = vsst_table_add(table, &owner, 1, table);
	u64 second;

	KUNIT_EXPECT_PTR_EQ(test, vsst_table_take(table, first), (void *)table);
	KUNIT_EXPECT_NULL(test, vsst_table_take(table, first));
	second = vsst_table_add(table, &owner, 1, table);
	KUNIT_EXPECT_NE(test, first, second);
	KUNIT_EXPECT_EQ(test, first & 0xff, second & 0xff); /* the same slot */
	KUNIT_EXPECT_NULL(test, vsst_table_take(table, first));
	KUNIT_EXPECT_NULL(test, vsst_table_take(table, 0));
	KUNIT_EXPECT_NULL(test, vsst_table_take(table, ~0ull));
}

/* `after` names a command by the low half of its wire id, and 0 names none. */
static void table_low_half_is_never_zero(struct kunit *test)
{
	struct vsst_table *table = new_table(test, 4);
	int owner, i;

	table->serial = (1ull << 24) - 3;
	for (i = 0; i < 8; i++) {
		u64 wire_id = vsst_table_add(table, &owner, 1, table);

		KUNIT_EXPECT_NE(test, (u32)wire_id, 0);
		KUNIT_EXPECT_PTR_EQ(test, vsst_table_take(table, wire_id), (void *)table);
	}
}

static void table_finds_by_owner(struct kunit *test)
{
	struct vsst_table *table = new_table(test, 8);
	int mine, theirs;
	u64 a = vsst_table_add(table, &mine, 0x100000005ull, table);
	u64 b = vsst_table_add(table, &mine, 0x200000005ull, table);
	u64 c = vsst_table_add(table, &theirs, 0x100000005ull, table);
	u64 older = vsst_table_add(table, &mine, 0, table);

	KUNIT_EXPECT_EQ(test, vsst_table_find(table, &mine, 0x100000005ull), a);
	KUNIT_EXPECT_EQ(test, vsst_table_find(table, &theirs, 0x100000005ull), c);
	KUNIT_EXPECT_EQ(test, vsst_table_find(table, &theirs, 0x200000005ull), 0);
	KUNIT_EXPECT_EQ(test, vsst_table_find(table, &mine, 0), 0);
	KUNIT_EXPECT_EQ(test, vsst_table_find_low(table, &mine, 5), b); /* the later one */
	KUNIT_EXPECT_EQ(test, vsst_table_find_low(table, &mine, 0), 0);
	vsst_table_take(table, b);
	KUNIT_EXPECT_EQ(test, vsst_table_find_low(table, &mine, 5), a);
	KUNIT_EXPECT_NE(test, older, 0);
}

static void table_disowns(struct kunit *test)
{
	struct vsst_table *table = new_table(test, 8);
	int mine, theirs, records[3];
	u64 wire_id = vsst_table_add(table, &mine, 1, &records[0]);

	vsst_table_add(table, &mine, 2, &records[1]);
	vsst_table_add(table, &theirs, 3, &records[2]);
	KUNIT_EXPECT_NOT_NULL(test, vsst_table_disown(table, &mine));
	KUNIT_EXPECT_NOT_NULL(test, vsst_table_disown(table, &mine));
	KUNIT_EXPECT_NULL(test, vsst_table_disown(table, &mine));
	KUNIT_EXPECT_EQ(test, table->in_flight, 3); /* the device still has them */
	KUNIT_EXPECT_PTR_EQ(test, vsst_table_take(table, wire_id), (void *)&records[0]);
	KUNIT_EXPECT_PTR_EQ(test, vsst_table_disown(table, &theirs), (void *)&records[2]);
}

/* --- records --------------------------------------------------------------------------------- */

static struct vsst_request *new_command(struct kunit *test, u8 op)
{
	struct vsst_command_request *request = kunit_kzalloc(test, sizeof(*request), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, request);
	request->command.id = 42;
	request->command.generation = 7;
	request->command.op = op;
	request->command.stream = 3;
	request->command.after = 41;
	request->command.seq = 1234;
	vsst_record_remember(&request->base);
	request->base.wire_id = 0x1234500ull;
	return &request->base;
}

static void record_is_renamed(struct kunit *test)
{
	struct vsst_request *request = new_command(test, SHMGEMM_OP_NOOP);
	const struct shmgemm_command *command = &vsst_command(request)->command;

	vsst_record_to_wire(request, 9, 0xabcdef01ull);
	KUNIT_EXPECT_EQ(test, command->id, 0x1234500ull);
	KUNIT_EXPECT_EQ(test, command->stream, 9u << 16 | 3);
	KUNIT_EXPECT_EQ(test, command->after, 0xabcdef01u);
	KUNIT_EXPECT_EQ(test, command->seq, 0);
	vsst_record_to_wire(request, 9, 0); /* again, and what it depends on has ended */
	KUNIT_EXPECT_EQ(test, command->stream, 9u << 16 | 3);
	KUNIT_EXPECT_EQ(test, command->after, 0);
}

/* A FLUSH after what has ended is not a FLUSH of everything. */
static void record_flush_names_itself(struct kunit *test)
{
	struct vsst_request *request = new_command(test, SHMGEMM_OP_FLUSH);

	vsst_record_to_wire(request, 1, 0);
	KUNIT_EXPECT_EQ(test, vsst_command(request)->command.after, 0x1234500u);
	request->after = 0;
	vsst_record_to_wire(request, 1, 0);
	KUNIT_EXPECT_EQ(test, vsst_command(request)->command.after, 0);
}

static void record_streams_are_bounded(struct kunit *test)
{
	struct vsst_request *request = new_command(test, SHMGEMM_OP_NOOP);

	KUNIT_EXPECT_EQ(test, vsst_record_check(request, &limits), SHMGEMM_STATUS_OK);
	request->stream = VIRTIO_SST_MAX_STREAM;
	KUNIT_EXPECT_EQ(test, vsst_record_check(request, &limits), SHMGEMM_STATUS_OK);
	request->stream++;
	KUNIT_EXPECT_EQ(test, vsst_record_check(request, &limits), SHMGEMM_STATUS_BAD_ARGUMENT);
}

static bool answer_is_taken(struct vsst_request *request, struct shmgemm_completion answer)
{
	vsst_command(request)->completion = answer;
	return vsst_record_take_answer(request, sizeof(answer), &limits);
}

static void record_answers_are_judged(struct kunit *test)
{
	struct vsst_request *request = new_command(test, SHMGEMM_OP_NOOP);
	const struct shmgemm_completion good = {
		.id = request->wire_id,
		.generation = 7,
		.start_cycles = 1,
		.end_cycles = 2,
		.seq = 5,
	};
	struct shmgemm_completion bad = good;

	KUNIT_EXPECT_TRUE(test, answer_is_taken(request, good));
	KUNIT_EXPECT_EQ(test, vsst_command(request)->answer.id, 42);
	KUNIT_EXPECT_EQ(test, vsst_command(request)->answer.seq, 0);
	KUNIT_EXPECT_FALSE(test, vsst_record_take_answer(request, 63, &limits));
	KUNIT_EXPECT_FALSE(test, vsst_record_take_answer(request, 0, &limits));
	bad.id++;
	KUNIT_EXPECT_FALSE(test, answer_is_taken(request, bad));
	bad = good;
	bad.status = 999;
	KUNIT_EXPECT_FALSE(test, answer_is_taken(request, bad));
	bad = good;
	bad.generation = 6;
	KUNIT_EXPECT_FALSE(test, answer_is_taken(request, bad));
	bad = good;
	bad.start_cycles = 3;
	KUNIT_EXPECT_FALSE(test, answer_is_taken(request, bad));
	KUNIT_EXPECT_EQ(test, vsst_command(request)->answer.id, 42);
	KUNIT_EXPECT_EQ(test, vsst_command(request)->answer.status, SHMGEMM_STATUS_ERROR);
}

static void record_older_answers_are_judged(struct kunit *test)
{
	struct vsst_older_request *older = kunit_kzalloc(test, sizeof(*older), GFP_KERNEL);
	const u32 bytes = sizeof(older->response);

	KUNIT_ASSERT_NOT_NULL(test, older);
	older->base.older = true;
	older->request.type = SHMGEMM_OP_ECHO;
	older->request.id = 5;
	older->request.user = 6;
	vsst_record_remember(&older->base);
	KUNIT_EXPECT_EQ(test, vsst_record_check(&older->base, &limits), SHMGEMM_STATUS_OK);
	older->base.wire_id = 77;
	vsst_record_to_wire(&older->base, 1, 0);
	KUNIT_EXPECT_EQ(test, older->request.id, 77);
	older->response.id = 77;
	older->response.user = 6;
	KUNIT_EXPECT_TRUE(test, vsst_record_take_answer(&older->base, bytes, &limits));
	KUNIT_EXPECT_EQ(test, older->answer.id, 5);
	KUNIT_EXPECT_FALSE(test, vsst_record_take_answer(&older->base, bytes - 1, &limits));
	older->response.status = 6;
	KUNIT_EXPECT_FALSE(test, vsst_record_take_answer(&older->base, bytes, &limits));
	KUNIT_EXPECT_EQ(test, older->answer.status, SHMGEMM_STATUS_ERROR);
	older->request.type = SHMGEMM_OP_CONFIGURE + 1;
	KUNIT_EXPECT_EQ(test, vsst_record_check(&older->base, &limits), SHMGEMM_STATUS_INVALID);
}

/* --- the validator --------------------------------------------------------------------------- */

static struct shmgemm_command gemm(void)
{
	return (struct shmgemm_command){
		.id = 1,
		.generation = 7,
		.op = SHMGEMM_OP_GEMM,
		.dtype_in = SHMGEMM_DTYPE_FLOAT32,
		.dtype_out = SHMGEMM_DTYPE_FLOAT32,
		.m = 16,
		.n = 16,
		.k = 16,
		.batch = 1,
		.lda = 16,
		.ldb = 16,
		.ldc = 16,
		.a = HEAP_BEGIN,
		.b = HEAP_BEGIN + 4096,
		.c = HEAP_BEGIN + 8192,
	};
}

#define EXPECT_STATUS(wanted, change)                                                              \
	do {                                                                                       \
		struct shmgemm_command command = gemm();                                           \
		change;                                                                            \
		KUNIT_EXPECT_EQ(test, shmgemm_validate_command(&command, &limits),                 \
				SHMGEMM_STATUS_##wanted);                                          \
	} while (0)

static void validator_judges_a_gemm(struct kunit *test)
{
	EXPECT_STATUS(OK, (void)0);
	EXPECT_STATUS(BAD_ID, command.id = 0);
	EXPECT_STATUS(BAD_GENERATION, command.generation = 8);
	EXPECT_STATUS(BAD_OP, command.op = SHMGEMM_OP_COUNT);
	EXPECT_STATUS(BAD_DTYPE, command.dtype_out = SHMGEMM_DTYPE_INT32);
	EXPECT_STATUS(BAD_FLAGS, command.flags = SHMGEMM_FLAG_ALL + 1);
	EXPECT_STATUS(BAD_DEVICE, command.device = 2);
	EXPECT_STATUS(BAD_SHAPE, command.n = 0);
	EXPECT_STATUS(BAD_LEADING_DIMENSION, command.ldc = 15);
	EXPECT_STATUS(BAD_ALIGNMENT, command.b += 2);
	EXPECT_STATUS(OUT_OF_BOUNDS, command.a = HEAP_BEGIN - 4);
	EXPECT_STATUS(OUT_OF_BOUNDS, command.c = HEAP_END - 1020);
	EXPECT_STATUS(OUT_OF_BOUNDS, command.a = ~3ull);
	EXPECT_STATUS(OVERLAP, command.c = command.b + 1020);
}

static void validator_judges_a_header(struct kunit *test)
{
	struct shmgemm_header *header = kunit_kzalloc(test, sizeof(*header), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, header);
	header->magic = SHMGEMM_MAGIC;
	header->abi_major = SHMGEMM_ABI_MAJOR;
	header->header_bytes = sizeof(*header);
	header->region_bytes = HEAP_END;
	header->queue_pair_count = 1;
	header->queue_pair_offset = SHMGEMM_PAGE_BYTES;
	header->heap_offset = HEAP_BEGIN;
	header->heap_bytes = HEAP_END - HEAP_BEGIN;
	KUNIT_EXPECT_EQ(test, shmgemm_validate_header(header, HEAP_END), SHMGEMM_STATUS_OK);
	KUNIT_EXPECT_EQ(test, shmgemm_validate_header(header, HEAP_END * 2),
			SHMGEMM_STATUS_BAD_SHAPE);
	header->heap_bytes += 64;
	KUNIT_EXPECT_EQ(test, shmgemm_validate_header(header, HEAP_END),
			SHMGEMM_STATUS_OUT_OF_BOUNDS);
	header->magic++;
	KUNIT_EXPECT_EQ(test, shmgemm_validate_header(header, HEAP_END), SHMGEMM_STATUS_INVALID);
}

static struct kunit_case cases[] = {KUNIT_CASE(table_fills_and_empties),
				    KUNIT_CASE(table_gives_each_wire_id_once),
				    KUNIT_CASE(table_low_half_is_never_zero),
				    KUNIT_CASE(table_finds_by_owner),
				    KUNIT_CASE(table_disowns),
				    KUNIT_CASE(record_is_renamed),
				    KUNIT_CASE(record_flush_names_itself),
				    KUNIT_CASE(record_streams_are_bounded),
				    KUNIT_CASE(record_answers_are_judged),
				    KUNIT_CASE(record_older_answers_are_judged),
				    KUNIT_CASE(validator_judges_a_gemm),
				    KUNIT_CASE(validator_judges_a_header),
				    {}};

static struct kunit_suite suite = {.name = "virtio-sst", .test_cases = cases};
kunit_test_suite(suite);

MODULE_DESCRIPTION("virtio-sst: unit tests");
MODULE_LICENSE("GPL");

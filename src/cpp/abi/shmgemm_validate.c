/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Stateless checks of commands, completions and headers. Plain C that also compiles inside the
 * Linux kernel: no libc, no floats, no allocation, no division. Every sum and product of foreign
 * numbers is overflow-checked; a range is rejected before anything is derived from it.
 */
#include "shmgemm_validate.h"

/* Later times could wrap when the duration of an op is added to them. */
#define SHMGEMM_MAX_RELEASE_CYCLES ((1ull << 63) - 1)
#define SHMGEMM_MAX_DIMENSION 0x7fffffffu /* kernels and BLAS index with signed 32 bits */

/* Bytes [begin, end) of the region. */
struct shmgemm_range {
  uint64_t begin;
  uint64_t end;
};

uint32_t shmgemm_dtype_bytes(uint32_t dtype) {
  switch (dtype) {
    case SHMGEMM_DTYPE_FLOAT32:
    case SHMGEMM_DTYPE_INT32:
      return 4;
    case SHMGEMM_DTYPE_FLOAT16:
    case SHMGEMM_DTYPE_BFLOAT16:
      return 2;
    case SHMGEMM_DTYPE_INT8:
      return 1;
    default:
      return 0;
  }
}

static const char* shmgemm_status_text_or_null(uint32_t status) {
  switch (status) {
    case SHMGEMM_STATUS_OK:
      return "ok";
    case SHMGEMM_STATUS_ERROR:
      return "the device reported an error";
    case SHMGEMM_STATUS_BUSY:
      return "the device is busy";
    case SHMGEMM_STATUS_INVALID:
      return "not a valid record";
    case SHMGEMM_STATUS_TIMEOUT:
      return "the device did not answer in time";
    case SHMGEMM_STATUS_NO_DEVICE:
      return "no device behind this connection";
    case SHMGEMM_STATUS_UNSUPPORTED:
      return "a legal command or version that this engine does not serve";
    case SHMGEMM_STATUS_BAD_GENERATION:
      return "the record belongs to another engine generation";
    case SHMGEMM_STATUS_BAD_OP:
      return "unknown op";
    case SHMGEMM_STATUS_BAD_DTYPE:
      return "unknown dtype, or a pair of dtypes that cannot be combined";
    case SHMGEMM_STATUS_BAD_FLAGS:
      return "a flag is unknown or has no meaning for this op";
    case SHMGEMM_STATUS_BAD_DEVICE:
      return "no such device";
    case SHMGEMM_STATUS_BAD_SHAPE:
      return "a dimension is 0 or above 2147483647, or the work is above 2^64 multiplications";
    case SHMGEMM_STATUS_BAD_LEADING_DIMENSION:
      return "a leading dimension is shorter than a row or above 2147483647";
    case SHMGEMM_STATUS_BAD_ALIGNMENT:
      return "an offset is not a multiple of what it must be aligned to";
    case SHMGEMM_STATUS_OUT_OF_BOUNDS:
      return "an operand leaves the heap";
    case SHMGEMM_STATUS_OVERLAP:
      return "the result overlaps an operand, the report or itself";
    case SHMGEMM_STATUS_BAD_REPORT:
      return "the report block is missing, unexpected, or in a wrong place";
    case SHMGEMM_STATUS_DUPLICATE_ID:
      return "the id is already outstanding";
    case SHMGEMM_STATUS_BAD_ARGUMENT:
      return "an argument is out of range, or a field this op does not use is not 0";
    case SHMGEMM_STATUS_BAD_ID:
      return "id 0 is reserved";
    default:
      return NULL;
  }
}

const char* shmgemm_status_text(uint32_t status) {
  const char* text = shmgemm_status_text_or_null(status);
  return text ? text : "unknown status";
}

static int shmgemm_ranges_overlap(struct shmgemm_range x, struct shmgemm_range y) {
  return x.begin < y.end && y.begin < x.end;
}

static int shmgemm_is_power_of_two(uint64_t value) {
  return value != 0 && (value & (value - 1)) == 0;
}

/* Sets `range` to `bytes` bytes from `begin`; 0 where it is empty or leaves [low, high). */
static int shmgemm_range_within(uint64_t begin, uint64_t bytes, uint64_t low, uint64_t high,
                                struct shmgemm_range* range) {
  range->begin = begin;
  return bytes != 0 && begin >= low && !__builtin_add_overflow(begin, bytes, &range->end) &&
         range->end <= high;
}

/* One operand: `batch` row-major matrices. */
struct shmgemm_matrix {
  uint64_t offset;
  uint64_t stride;
  uint32_t rows;
  uint32_t columns;
  uint32_t leading;
  uint32_t batch;
  uint32_t element_bytes;
};

/* Elements from the first to the last of one batch entry; cannot overflow: all are below 2^31. */
static uint64_t shmgemm_entry_elements(const struct shmgemm_matrix* matrix) {
  return (uint64_t)(matrix->rows - 1) * matrix->leading + matrix->columns;
}

static enum shmgemm_status shmgemm_matrix_range(const struct shmgemm_matrix* matrix,
                                                const struct shmgemm_limits* limits,
                                                struct shmgemm_range* range) {
  uint64_t elements, bytes;
  if ((matrix->offset & (matrix->element_bytes - 1)) != 0) return SHMGEMM_STATUS_BAD_ALIGNMENT;
  if (matrix->offset == 0) return SHMGEMM_STATUS_OUT_OF_BOUNDS;
  if (__builtin_mul_overflow((uint64_t)(matrix->batch - 1), matrix->stride, &elements) ||
      __builtin_add_overflow(elements, shmgemm_entry_elements(matrix), &elements) ||
      __builtin_mul_overflow(elements, (uint64_t)matrix->element_bytes, &bytes) ||
      !shmgemm_range_within(matrix->offset, bytes, limits->heap_begin, limits->heap_end, range))
    return SHMGEMM_STATUS_OUT_OF_BOUNDS;
  return SHMGEMM_STATUS_OK;
}

static int shmgemm_leading_is_good(const struct shmgemm_matrix* matrix) {
  return matrix->leading >= matrix->columns && matrix->leading <= SHMGEMM_MAX_DIMENSION;
}

static int shmgemm_dimension_is_good(uint32_t dimension) {
  return dimension >= 1 && dimension <= SHMGEMM_MAX_DIMENSION;
}

static enum shmgemm_status shmgemm_check_shape(const struct shmgemm_command* command) {
  uint64_t macs;
  if (!shmgemm_dimension_is_good(command->m) || !shmgemm_dimension_is_good(command->n) ||
      !shmgemm_dimension_is_good(command->k) || !shmgemm_dimension_is_good(command->batch))
    return SHMGEMM_STATUS_BAD_SHAPE;
  if (__builtin_mul_overflow((uint64_t)command->m * command->n, (uint64_t)command->k, &macs) ||
      __builtin_mul_overflow(macs, (uint64_t)command->batch, &macs))
    return SHMGEMM_STATUS_BAD_SHAPE;
  return SHMGEMM_STATUS_OK;
}

static int shmgemm_is_float(uint32_t dtype) {
  return dtype == SHMGEMM_DTYPE_FLOAT32 || dtype == SHMGEMM_DTYPE_FLOAT16 ||
         dtype == SHMGEMM_DTYPE_BFLOAT16;
}

static int shmgemm_dtypes_are_good(const struct shmgemm_command* command) {
  if (command->op != SHMGEMM_OP_GEMM)
    return command->dtype_in == SHMGEMM_DTYPE_NONE && command->dtype_out == SHMGEMM_DTYPE_NONE;
  if (command->dtype_in == SHMGEMM_DTYPE_INT8) return command->dtype_out == SHMGEMM_DTYPE_INT32;
  return shmgemm_is_float(command->dtype_in) && shmgemm_is_float(command->dtype_out);
}

static enum shmgemm_status shmgemm_report_range(uint32_t report,
                                                const struct shmgemm_limits* limits,
                                                struct shmgemm_range* range) {
  if (report == 0 ||
      !shmgemm_range_within((uint64_t)report * SHMGEMM_BLOCK_ALIGN, SHMGEMM_REPORT_BYTES,
                            limits->heap_begin, limits->heap_end, range))
    return SHMGEMM_STATUS_BAD_REPORT;
  return SHMGEMM_STATUS_OK;
}

/* What a GEMM reads and writes. Ranges of what is absent are empty and overlap nothing. */
struct shmgemm_operands {
  struct shmgemm_range a, b, c, bias, report;
};

static enum shmgemm_status shmgemm_check_overlap(const struct shmgemm_operands* operands) {
  if (shmgemm_ranges_overlap(operands->c, operands->a) ||
      shmgemm_ranges_overlap(operands->c, operands->b) ||
      shmgemm_ranges_overlap(operands->c, operands->bias) ||
      shmgemm_ranges_overlap(operands->c, operands->report))
    return SHMGEMM_STATUS_OVERLAP;
  if (shmgemm_ranges_overlap(operands->report, operands->a) ||
      shmgemm_ranges_overlap(operands->report, operands->b) ||
      shmgemm_ranges_overlap(operands->report, operands->bias))
    return SHMGEMM_STATUS_BAD_REPORT;
  return SHMGEMM_STATUS_OK;
}

/* Bias is one row of n elements of 4 bytes: float32, or int32 for int8 products. */
static enum shmgemm_status shmgemm_check_bias_and_report(const struct shmgemm_command* command,
                                                         const struct shmgemm_limits* limits,
                                                         struct shmgemm_operands* operands) {
  if (command->flags & SHMGEMM_FLAG_BIAS) {
    const struct shmgemm_matrix bias = {command->bias, 0, 1, command->n, command->n, 1, 4};
    enum shmgemm_status status = shmgemm_matrix_range(&bias, limits, &operands->bias);
    if (status != SHMGEMM_STATUS_OK) return status;
  } else if (command->bias != 0) {
    return SHMGEMM_STATUS_BAD_ARGUMENT;
  }
  if (command->report != 0) return shmgemm_report_range(command->report, limits, &operands->report);
  return SHMGEMM_STATUS_OK;
}

static enum shmgemm_status shmgemm_check_gemm(const struct shmgemm_command* command,
                                              const struct shmgemm_limits* limits) {
  const int transpose_a = (command->flags & SHMGEMM_FLAG_TRANSPOSE_A) != 0;
  const int transpose_b = (command->flags & SHMGEMM_FLAG_TRANSPOSE_B) != 0;
  const uint32_t in_bytes = shmgemm_dtype_bytes(command->dtype_in);
  const uint32_t out_bytes = shmgemm_dtype_bytes(command->dtype_out);
  const struct shmgemm_matrix a = {command->a,
                                   command->stride_a,
                                   transpose_a ? command->k : command->m,
                                   transpose_a ? command->m : command->k,
                                   command->lda,
                                   command->batch,
                                   in_bytes};
  const struct shmgemm_matrix b = {command->b,
                                   command->stride_b,
                                   transpose_b ? command->n : command->k,
                                   transpose_b ? command->k : command->n,
                                   command->ldb,
                                   command->batch,
                                   in_bytes};
  const struct shmgemm_matrix c = {command->c,   command->stride_c, command->m, command->n,
                                   command->ldc, command->batch,    out_bytes};
  struct shmgemm_operands operands = {{0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 0}};
  enum shmgemm_status status = shmgemm_check_shape(command);
  if (status != SHMGEMM_STATUS_OK) return status;
  if (!shmgemm_leading_is_good(&a) || !shmgemm_leading_is_good(&b) || !shmgemm_leading_is_good(&c))
    return SHMGEMM_STATUS_BAD_LEADING_DIMENSION;
  status = shmgemm_matrix_range(&a, limits, &operands.a);
  if (status != SHMGEMM_STATUS_OK) return status;
  status = shmgemm_matrix_range(&b, limits, &operands.b);
  if (status != SHMGEMM_STATUS_OK) return status;
  status = shmgemm_matrix_range(&c, limits, &operands.c);
  if (status != SHMGEMM_STATUS_OK) return status;
  if (command->batch > 1 && command->stride_c < shmgemm_entry_elements(&c))
    return SHMGEMM_STATUS_OVERLAP;
  status = shmgemm_check_bias_and_report(command, limits, &operands);
  if (status != SHMGEMM_STATUS_OK) return status;
  return shmgemm_check_overlap(&operands);
}

/* Everything that only a GEMM has, except the arguments and the report. */
static int shmgemm_gemm_fields_are_zero(const struct shmgemm_command* command) {
  return (command->m | command->n | command->k | command->batch | command->lda | command->ldb |
          command->ldc) == 0 &&
         (command->stride_a | command->stride_b | command->stride_c) == 0;
}

/* Device memory [address, address + bytes) against heap [offset, offset + bytes). */
static enum shmgemm_status shmgemm_check_transfer(const struct shmgemm_command* command,
                                                  const struct shmgemm_limits* limits) {
  struct shmgemm_range range;
  uint64_t last;
  if (command->arg[1] == 0) return SHMGEMM_STATUS_BAD_SHAPE;
  if (__builtin_add_overflow(command->arg[0], command->arg[1], &last) ||
      !shmgemm_range_within(command->arg[2], command->arg[1], limits->heap_begin, limits->heap_end,
                            &range))
    return SHMGEMM_STATUS_OUT_OF_BOUNDS;
  return command->arg[3] == 0 ? SHMGEMM_STATUS_OK : SHMGEMM_STATUS_BAD_ARGUMENT;
}

static enum shmgemm_status shmgemm_check_other(const struct shmgemm_command* command,
                                               const struct shmgemm_limits* limits) {
  const uint64_t* arg = command->arg;
  struct shmgemm_range range;
  int good;
  if (!shmgemm_gemm_fields_are_zero(command)) return SHMGEMM_STATUS_BAD_ARGUMENT;
  if (command->op != SHMGEMM_OP_GET_INFO && command->report != 0)
    return SHMGEMM_STATUS_BAD_ARGUMENT;
  switch (command->op) {
    case SHMGEMM_OP_ECHO: /* any three numbers */
      good = arg[3] == 0;
      break;
    case SHMGEMM_OP_COMPUTE: /* units, latency_model (32 bits) */
      good = arg[1] <= 0xffffffffu && (arg[2] | arg[3]) == 0;
      break;
    case SHMGEMM_OP_CONFIGURE: /* parameter (32 bits), value */
      good = arg[0] <= 0xffffffffu && (arg[2] | arg[3]) == 0;
      break;
    case SHMGEMM_OP_READ:
    case SHMGEMM_OP_WRITE:
      return shmgemm_check_transfer(command, limits);
    default:
      good = (arg[0] | arg[1] | arg[2] | arg[3]) == 0;
      break;
  }
  if (!good) return SHMGEMM_STATUS_BAD_ARGUMENT;
  if (command->op == SHMGEMM_OP_GET_INFO)
    return shmgemm_report_range(command->report, limits, &range);
  return SHMGEMM_STATUS_OK;
}

enum shmgemm_status shmgemm_validate_command(const struct shmgemm_command* command,
                                             const struct shmgemm_limits* limits) {
  const uint32_t flags =
      command->op == SHMGEMM_OP_GEMM ? SHMGEMM_FLAG_ALL : (uint32_t)SHMGEMM_FLAG_FLUSH;
  if (command->generation != limits->generation) return SHMGEMM_STATUS_BAD_GENERATION;
  if (command->id == 0) return SHMGEMM_STATUS_BAD_ID;
  if (command->op >= SHMGEMM_OP_COUNT) return SHMGEMM_STATUS_BAD_OP;
  if (!shmgemm_dtypes_are_good(command)) return SHMGEMM_STATUS_BAD_DTYPE;
  if ((command->flags & ~flags) != 0) return SHMGEMM_STATUS_BAD_FLAGS;
  if (command->device >= limits->devices) return SHMGEMM_STATUS_BAD_DEVICE;
  if (command->release_cycles > SHMGEMM_MAX_RELEASE_CYCLES) return SHMGEMM_STATUS_BAD_ARGUMENT;
  if (command->op == SHMGEMM_OP_GEMM) return shmgemm_check_gemm(command, limits);
  return shmgemm_check_other(command, limits);
}

/* How the cycles are divided is not judged here: an ECHO returns its arguments in those fields. */
enum shmgemm_status shmgemm_validate_completion(const struct shmgemm_completion* completion,
                                                const struct shmgemm_limits* limits) {
  if (completion->generation != limits->generation) return SHMGEMM_STATUS_BAD_GENERATION;
  if (completion->id == 0) return SHMGEMM_STATUS_BAD_ID;
  if (!shmgemm_status_text_or_null(completion->status)) return SHMGEMM_STATUS_INVALID;
  /* A rejected command is answered with the device it named, whatever that was. */
  if (completion->status == SHMGEMM_STATUS_OK && completion->device >= limits->devices)
    return SHMGEMM_STATUS_BAD_DEVICE;
  if (completion->start_cycles > completion->end_cycles) return SHMGEMM_STATUS_BAD_ARGUMENT;
  if (completion->report_bytes > SHMGEMM_REPORT_BYTES) return SHMGEMM_STATUS_BAD_REPORT;
  return SHMGEMM_STATUS_OK;
}

/* May `entry` follow `before` (NULL: comes first)? */
static int shmgemm_entry_is_in_order(const struct shmgemm_timeline_entry* before,
                                     const struct shmgemm_timeline_entry* entry) {
  if (!before || before->core < entry->core) return 1;
  if (before->core != entry->core || before->kind > entry->kind) return 0;
  return before->kind < entry->kind || before->end_cycles <= entry->start_cycles;
}

/* An amount of cycles is no more than the entry lasts; of bytes there may be any. */
enum shmgemm_status shmgemm_validate_timeline(const struct shmgemm_timeline_entry* entries,
                                              uint32_t count,
                                              const struct shmgemm_completion* completion) {
  uint32_t i;
  for (i = 0; i < count; ++i) {
    const struct shmgemm_timeline_entry* entry = &entries[i];
    const int counts_cycles =
        entry->kind == SHMGEMM_ACTIVITY_COMPUTE || entry->kind == SHMGEMM_ACTIVITY_STALL;
    if (entry->kind >= SHMGEMM_ACTIVITIES || entry->start_cycles >= entry->end_cycles ||
        entry->start_cycles < completion->start_cycles ||
        entry->end_cycles > completion->end_cycles ||
        !shmgemm_entry_is_in_order(i ? entry - 1 : NULL, entry) ||
        (counts_cycles && entry->amount > entry->end_cycles - entry->start_cycles))
      return SHMGEMM_STATUS_BAD_REPORT;
  }
  return SHMGEMM_STATUS_OK;
}

static enum shmgemm_status shmgemm_check_arenas(const struct shmgemm_header* header) {
  struct shmgemm_range ranges[SHMGEMM_MAX_ARENAS];
  const uint64_t heap_end = header->heap_offset + header->heap_bytes;
  uint32_t i, j;
  if (header->arena_count > SHMGEMM_MAX_ARENAS) return SHMGEMM_STATUS_BAD_SHAPE;
  for (i = 0; i < header->arena_count; ++i) {
    const struct shmgemm_arena* arena = &header->arenas[i];
    if (((arena->offset | arena->bytes) & (SHMGEMM_BLOCK_ALIGN - 1)) != 0)
      return SHMGEMM_STATUS_BAD_ALIGNMENT;
    if (!shmgemm_range_within(arena->offset, arena->bytes, header->heap_offset, heap_end,
                              &ranges[i]))
      return SHMGEMM_STATUS_OUT_OF_BOUNDS;
    if (arena->state > SHMGEMM_ARENA_GUEST || arena->owner > header->queue_pair_count)
      return SHMGEMM_STATUS_BAD_ARGUMENT;
    for (j = 0; j < i; ++j)
      if (shmgemm_ranges_overlap(ranges[i], ranges[j])) return SHMGEMM_STATUS_OVERLAP;
  }
  return SHMGEMM_STATUS_OK;
}

/*
 * INVALID: no region of ours. UNSUPPORTED: another ABI major. BAD_SHAPE: a size or count. A minor
 * that is not ours is welcome: it only gives a meaning to what was reserved.
 */
enum shmgemm_status shmgemm_validate_header(const struct shmgemm_header* header,
                                            uint64_t file_bytes) {
  uint64_t queue_pairs_end;
  struct shmgemm_range heap;
  if (header->magic != SHMGEMM_MAGIC) return SHMGEMM_STATUS_INVALID;
  if (header->abi_major != SHMGEMM_ABI_MAJOR) return SHMGEMM_STATUS_UNSUPPORTED;
  if (header->region_bytes != file_bytes || file_bytes < SHMGEMM_MIN_REGION_BYTES ||
      !shmgemm_is_power_of_two(file_bytes) || header->header_bytes < sizeof(*header) ||
      header->queue_pair_count == 0 || header->queue_pair_count > SHMGEMM_MAX_QUEUE_PAIRS)
    return SHMGEMM_STATUS_BAD_SHAPE;
  if ((header->queue_pair_offset & (SHMGEMM_PAGE_BYTES - 1)) != 0 ||
      (header->heap_offset & (SHMGEMM_HEAP_ALIGN - 1)) != 0 ||
      (header->heap_bytes & (SHMGEMM_BLOCK_ALIGN - 1)) != 0)
    return SHMGEMM_STATUS_BAD_ALIGNMENT;
  if (header->queue_pair_offset < header->header_bytes ||
      __builtin_add_overflow(header->queue_pair_offset,
                             (uint64_t)header->queue_pair_count * SHMGEMM_QUEUE_PAIR_BYTES,
                             &queue_pairs_end) ||
      queue_pairs_end > header->heap_offset ||
      !shmgemm_range_within(header->heap_offset, header->heap_bytes, 0, file_bytes, &heap))
    return SHMGEMM_STATUS_OUT_OF_BOUNDS;
  return shmgemm_check_arenas(header);
}

// The validator, status by status: one record that is right in every field, then each way of
// breaking one field, and the values on both sides of each bound.
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "abi/shmgemm_validate.h"

namespace {

constexpr std::uint64_t kHeapBegin = SHMGEMM_HEAP_ALIGN;
constexpr std::uint64_t kHeapEnd = SHMGEMM_HEAP_ALIGN + (2u << 20);
constexpr std::uint32_t kMaxDimension = 0x7fffffff;

shmgemm_limits limits() { return {kHeapBegin, kHeapEnd, 7, 2}; }

// Two batch entries of 4 x 8 @ 8 x 16, operands apart from each other, report at the end of the
// heap.
shmgemm_command good_gemm() {
  shmgemm_command command{};
  command.id = 1;
  command.generation = 7;
  command.op = SHMGEMM_OP_GEMM;
  command.dtype_in = command.dtype_out = SHMGEMM_DTYPE_FLOAT32;
  command.device = 1;
  command.flags = SHMGEMM_FLAG_BIAS | SHMGEMM_FLAG_FLUSH;
  command.m = 4;
  command.k = command.lda = 8;
  command.n = command.ldb = command.ldc = 16;
  command.batch = 2;
  command.stride_a = 32;
  command.stride_b = 128;
  command.stride_c = 64;
  command.a = kHeapBegin;
  command.b = kHeapBegin + 4096;
  command.c = kHeapBegin + 8192;
  command.bias = kHeapBegin + 16384;
  command.report = (kHeapEnd - SHMGEMM_REPORT_BYTES) / SHMGEMM_BLOCK_ALIGN;
  return command;
}

shmgemm_command good(shmgemm_op op) {
  shmgemm_command command{};
  command.id = 1;
  command.generation = 7;
  command.op = static_cast<std::uint8_t>(op);
  return command;
}

shmgemm_status check(const shmgemm_command& command) {
  const shmgemm_limits given = limits();
  return shmgemm_validate_command(&command, &given);
}

// The status of good_gemm() after `change`.
template <class Change>
shmgemm_status gemm(Change change) {
  shmgemm_command command = good_gemm();
  change(command);
  return check(command);
}

TEST(ValidateCommand, AcceptsAGoodGemm) { EXPECT_EQ(check(good_gemm()), SHMGEMM_STATUS_OK); }

TEST(ValidateCommand, Generation) {
  EXPECT_EQ(gemm([](auto& c) { c.generation = 6; }), SHMGEMM_STATUS_BAD_GENERATION);
  EXPECT_EQ(gemm([](auto& c) { c.generation = 8; }), SHMGEMM_STATUS_BAD_GENERATION);
}

TEST(ValidateCommand, Id) {
  EXPECT_EQ(gemm([](auto& c) { c.id = 0; }), SHMGEMM_STATUS_BAD_ID);
  EXPECT_EQ(gemm([](auto& c) { c.id = UINT64_MAX; }), SHMGEMM_STATUS_OK);
}

TEST(ValidateCommand, Op) {
  for (int op = SHMGEMM_OP_COUNT; op < 256; ++op) {
    EXPECT_EQ(check(good(static_cast<shmgemm_op>(op))), SHMGEMM_STATUS_BAD_OP) << op;
  }
}

TEST(ValidateCommand, DtypePairs) {
  const std::set<int> floats = {SHMGEMM_DTYPE_FLOAT32, SHMGEMM_DTYPE_FLOAT16,
                                SHMGEMM_DTYPE_BFLOAT16};
  for (int in = 0; in < 8; ++in) {
    for (int out = 0; out < 8; ++out) {
      const bool legal = (floats.count(in) && floats.count(out)) ||
                         (in == SHMGEMM_DTYPE_INT8 && out == SHMGEMM_DTYPE_INT32);
      const shmgemm_status status = gemm([&](auto& c) {
        c.dtype_in = static_cast<std::uint8_t>(in);
        c.dtype_out = static_cast<std::uint8_t>(out);
      });
      EXPECT_EQ(status, legal ? SHMGEMM_STATUS_OK : SHMGEMM_STATUS_BAD_DTYPE) << in << " " << out;
    }
  }
  shmgemm_command noop = good(SHMGEMM_OP_NOOP);
  noop.dtype_in = SHMGEMM_DTYPE_FLOAT32;
  EXPECT_EQ(check(noop), SHMGEMM_STATUS_BAD_DTYPE);
}

TEST(ValidateCommand, Flags) {
  EXPECT_EQ(gemm([](auto& c) { c.flags |= SHMGEMM_FLAG_BIT_ACCURATE | SHMGEMM_FLAG_ACCUMULATE; }),
            SHMGEMM_STATUS_OK);
  for (unsigned bit = 6; bit < 32; ++bit) {
    EXPECT_EQ(gemm([&](auto& c) { c.flags |= 1u << bit; }), SHMGEMM_STATUS_BAD_FLAGS) << bit;
  }
  shmgemm_command noop = good(SHMGEMM_OP_NOOP);
  noop.flags = SHMGEMM_FLAG_FLUSH;
  EXPECT_EQ(check(noop), SHMGEMM_STATUS_OK);
  noop.flags = SHMGEMM_FLAG_BIAS;
  EXPECT_EQ(check(noop), SHMGEMM_STATUS_BAD_FLAGS);
}

TEST(ValidateCommand, Device) {
  EXPECT_EQ(gemm([](auto& c) { c.device = 2; }), SHMGEMM_STATUS_BAD_DEVICE);
  EXPECT_EQ(gemm([](auto& c) { c.device = 255; }), SHMGEMM_STATUS_BAD_DEVICE);
}

TEST(ValidateCommand, Shape) {
  for (auto field :
       {&shmgemm_command::m, &shmgemm_command::n, &shmgemm_command::k, &shmgemm_command::batch}) {
    for (std::uint32_t value : {0u, kMaxDimension + 1, UINT32_MAX}) {
      EXPECT_EQ(gemm([&](auto& c) { c.*field = value; }), SHMGEMM_STATUS_BAD_SHAPE) << value;
    }
  }
}

TEST(ValidateCommand, WorkMayNotWrap) {
  const auto status =
      gemm([](auto& c) { c.m = c.n = c.k = c.lda = c.ldb = c.ldc = kMaxDimension; });
  EXPECT_EQ(status, SHMGEMM_STATUS_BAD_SHAPE);
}

TEST(ValidateCommand, LeadingDimension) {
  for (auto field : {&shmgemm_command::lda, &shmgemm_command::ldb, &shmgemm_command::ldc}) {
    EXPECT_EQ(gemm([&](auto& c) { c.*field -= 1; }), SHMGEMM_STATUS_BAD_LEADING_DIMENSION);
    EXPECT_EQ(gemm([&](auto& c) { c.*field = kMaxDimension + 1; }),
              SHMGEMM_STATUS_BAD_LEADING_DIMENSION);
    EXPECT_EQ(gemm([&](auto& c) { c.*field = kMaxDimension; }), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  }
}

TEST(ValidateCommand, TransposedOperandsAreMeasuredAsTheyLie) {
  // A as 8 x 4 needs lda >= 4, B as 16 x 8 needs ldb >= 8.
  const auto transposed = [](shmgemm_command& c) {
    c.flags |= SHMGEMM_FLAG_TRANSPOSE_A | SHMGEMM_FLAG_TRANSPOSE_B;
    c.lda = 4;
    c.ldb = 8;
  };
  EXPECT_EQ(gemm(transposed), SHMGEMM_STATUS_OK);
  EXPECT_EQ(gemm([&](auto& c) { transposed(c), c.lda = 3; }), SHMGEMM_STATUS_BAD_LEADING_DIMENSION);
  EXPECT_EQ(gemm([&](auto& c) { transposed(c), c.ldb = 7; }), SHMGEMM_STATUS_BAD_LEADING_DIMENSION);
  const auto a_ends_at_c = [&](std::uint64_t a_bytes) {
    return gemm([&](auto& c) { transposed(c), c.batch = 1, c.a = c.c - a_bytes; });
  };
  EXPECT_EQ(a_ends_at_c(32 * 4), SHMGEMM_STATUS_OK);
  EXPECT_EQ(a_ends_at_c(32 * 4 - 4), SHMGEMM_STATUS_OVERLAP);
}

TEST(ValidateCommand, Alignment) {
  for (auto field :
       {&shmgemm_command::a, &shmgemm_command::b, &shmgemm_command::c, &shmgemm_command::bias}) {
    for (std::uint64_t shift : {1, 2, 3}) {
      EXPECT_EQ(gemm([&](auto& c) { c.*field += shift; }), SHMGEMM_STATUS_BAD_ALIGNMENT);
    }
    EXPECT_EQ(gemm([&](auto& c) { c.*field += 4; }), SHMGEMM_STATUS_OK);
  }
  const auto half = [](shmgemm_command& c) {
    c.dtype_in = c.dtype_out = SHMGEMM_DTYPE_FLOAT16;
    c.a += 2;
    c.c += 2;
  };
  EXPECT_EQ(gemm(half), SHMGEMM_STATUS_OK);
  EXPECT_EQ(gemm([&](auto& c) { half(c), c.bias += 2; }), SHMGEMM_STATUS_BAD_ALIGNMENT);
}

TEST(ValidateCommand, OperandsMayTouchBothEndsOfTheHeapAndNoMore) {
  const std::uint64_t c_bytes = (64 + 3 * 16 + 16) * 4;
  const auto without_report = [](shmgemm_command& c) { c.report = 0; };
  EXPECT_EQ(gemm([](auto& c) { c.a = kHeapBegin - 4; }), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(gemm([](auto& c) { c.a = 0; }), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(gemm([&](auto& c) { without_report(c), c.c = kHeapEnd - c_bytes; }), SHMGEMM_STATUS_OK);
  EXPECT_EQ(gemm([&](auto& c) { without_report(c), c.c = kHeapEnd - c_bytes + 4; }),
            SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(gemm([&](auto& c) { without_report(c), c.bias = kHeapEnd - 64; }), SHMGEMM_STATUS_OK);
  EXPECT_EQ(gemm([&](auto& c) { without_report(c), c.bias = kHeapEnd - 60; }),
            SHMGEMM_STATUS_OUT_OF_BOUNDS);
}

TEST(ValidateCommand, OffsetsAndStridesDoNotWrap) {
  for (auto field :
       {&shmgemm_command::a, &shmgemm_command::b, &shmgemm_command::c, &shmgemm_command::bias}) {
    for (std::uint64_t value : {UINT64_MAX - 3, UINT64_MAX - 127, std::uint64_t{1} << 63}) {
      EXPECT_EQ(gemm([&](auto& c) { c.*field = value; }), SHMGEMM_STATUS_OUT_OF_BOUNDS) << value;
    }
  }
  for (auto field :
       {&shmgemm_command::stride_a, &shmgemm_command::stride_b, &shmgemm_command::stride_c}) {
    for (unsigned bit = 20; bit < 64; ++bit) {  // 2^62 elements of 4 bytes are 0 bytes, modulo 2^64
      EXPECT_EQ(gemm([&](auto& c) { c.*field = std::uint64_t{1} << bit; }),
                SHMGEMM_STATUS_OUT_OF_BOUNDS)
          << bit;
    }
    EXPECT_EQ(gemm([&](auto& c) { c.*field = UINT64_MAX; }), SHMGEMM_STATUS_OUT_OF_BOUNDS);
    EXPECT_EQ(gemm([&](auto& c) { c.*field = std::uint64_t{1} << 63, c.batch = 3; }),
              SHMGEMM_STATUS_OUT_OF_BOUNDS)
        << "2 * 2^63 elements";
  }
}

TEST(ValidateCommand, OneMatrixForAllOfABatch) {
  EXPECT_EQ(gemm([](auto& c) { c.stride_a = c.stride_b = 0; }), SHMGEMM_STATUS_OK);
  EXPECT_EQ(gemm([](auto& c) { c.stride_c = 0; }), SHMGEMM_STATUS_OVERLAP);
  EXPECT_EQ(gemm([](auto& c) { c.stride_c = 63; }), SHMGEMM_STATUS_OVERLAP);
  EXPECT_EQ(gemm([](auto& c) { c.stride_c = 0, c.batch = 1; }), SHMGEMM_STATUS_OK);
}

TEST(ValidateCommand, ResultOverlapsNothing) {
  constexpr std::uint64_t c_bytes = 128 * 4;
  struct Operand {
    std::uint64_t shmgemm_command::* field;
    std::uint64_t bytes;
  };
  for (const Operand& operand :
       {Operand{&shmgemm_command::a, 64 * 4}, Operand{&shmgemm_command::b, 256 * 4},
        Operand{&shmgemm_command::bias, 64}}) {
    const auto at = [&](std::uint64_t offset) {
      return gemm([&](auto& c) { c.c = kHeapBegin + 65536, c.*operand.field = offset; });
    };
    const std::uint64_t c = kHeapBegin + 65536;
    EXPECT_EQ(at(c), SHMGEMM_STATUS_OVERLAP);
    EXPECT_EQ(at(c + c_bytes - 4), SHMGEMM_STATUS_OVERLAP);
    EXPECT_EQ(at(c + c_bytes), SHMGEMM_STATUS_OK);
    EXPECT_EQ(at(c - operand.bytes + 4), SHMGEMM_STATUS_OVERLAP);
    EXPECT_EQ(at(c - operand.bytes), SHMGEMM_STATUS_OK);
  }
  EXPECT_EQ(gemm([](auto& c) { c.a = c.b; }), SHMGEMM_STATUS_OK) << "inputs may share memory";
}

TEST(ValidateCommand, GapsOfAResultCountAsTheResult) {
  // C in columns 0..15 of 32, A in the columns beside it: bounding extents overlap.
  const auto status = gemm([](auto& c) {
    c.ldc = 32, c.stride_c = 128, c.batch = 1;
    c.a = c.c + 64, c.lda = 32;
  });
  EXPECT_EQ(status, SHMGEMM_STATUS_OVERLAP);
}

TEST(ValidateCommand, Report) {
  EXPECT_EQ(gemm([](auto& c) { c.report = 0; }), SHMGEMM_STATUS_OK);
  EXPECT_EQ(gemm([](auto& c) { c.report += 1; }), SHMGEMM_STATUS_BAD_REPORT);
  EXPECT_EQ(gemm([](auto& c) { c.report = kHeapBegin / 64 - 1; }), SHMGEMM_STATUS_BAD_REPORT);
  EXPECT_EQ(gemm([](auto& c) { c.report = UINT32_MAX; }), SHMGEMM_STATUS_BAD_REPORT);
  EXPECT_EQ(gemm([](auto& c) { c.report += 1u << 26; }), SHMGEMM_STATUS_BAD_REPORT) << "2^32 bytes";
  EXPECT_EQ(gemm([](auto& c) { c.report = static_cast<std::uint32_t>(c.c / 64); }),
            SHMGEMM_STATUS_OVERLAP);
  EXPECT_EQ(gemm([](auto& c) { c.report = static_cast<std::uint32_t>(c.bias / 64); }),
            SHMGEMM_STATUS_BAD_REPORT);
}

TEST(ValidateCommand, BiasIsThereExactlyWithItsFlag) {
  EXPECT_EQ(gemm([](auto& c) { c.flags &= ~SHMGEMM_FLAG_BIAS; }), SHMGEMM_STATUS_BAD_ARGUMENT);
  EXPECT_EQ(gemm([](auto& c) { c.bias = 0; }), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(gemm([](auto& c) { c.bias = 0, c.flags &= ~SHMGEMM_FLAG_BIAS; }), SHMGEMM_STATUS_OK);
}

TEST(ValidateCommand, SimulatedTimeCannotWrap) {
  EXPECT_EQ(gemm([](auto& c) { c.release_cycles = INT64_MAX; }), SHMGEMM_STATUS_OK);
  EXPECT_EQ(gemm([](auto& c) { c.release_cycles = std::uint64_t{1} << 63; }),
            SHMGEMM_STATUS_BAD_ARGUMENT);
}

TEST(ValidateCommand, UnusedFieldsAreZero) {
  const shmgemm_op ops[] = {SHMGEMM_OP_NOOP, SHMGEMM_OP_FLUSH,   SHMGEMM_OP_RESET,
                            SHMGEMM_OP_ECHO, SHMGEMM_OP_COMPUTE, SHMGEMM_OP_CONFIGURE};
  for (shmgemm_op op : ops) {
    ASSERT_EQ(check(good(op)), SHMGEMM_STATUS_OK) << op;
    for (auto field : {&shmgemm_command::m, &shmgemm_command::n, &shmgemm_command::k,
                       &shmgemm_command::batch, &shmgemm_command::lda, &shmgemm_command::ldb,
                       &shmgemm_command::ldc, &shmgemm_command::report}) {
      shmgemm_command command = good(op);
      command.*field = 1;
      EXPECT_EQ(check(command), SHMGEMM_STATUS_BAD_ARGUMENT) << op;
    }
    for (auto field :
         {&shmgemm_command::stride_a, &shmgemm_command::stride_b, &shmgemm_command::stride_c}) {
      shmgemm_command command = good(op);
      command.*field = 1;
      EXPECT_EQ(check(command), SHMGEMM_STATUS_BAD_ARGUMENT) << op;
    }
  }
}

TEST(ValidateCommand, Arguments) {
  struct Used {
    shmgemm_op op;
    unsigned count;
  };
  for (const Used& used :
       {Used{SHMGEMM_OP_NOOP, 0}, Used{SHMGEMM_OP_FLUSH, 0}, Used{SHMGEMM_OP_RESET, 0},
        Used{SHMGEMM_OP_COMPUTE, 2}, Used{SHMGEMM_OP_CONFIGURE, 2}, Used{SHMGEMM_OP_ECHO, 3}}) {
    for (unsigned i = 0; i < 4; ++i) {
      shmgemm_command command = good(used.op);
      command.arg[i] = 1;
      EXPECT_EQ(check(command), i < used.count ? SHMGEMM_STATUS_OK : SHMGEMM_STATUS_BAD_ARGUMENT)
          << used.op << " " << i;
    }
  }
  shmgemm_command compute = good(SHMGEMM_OP_COMPUTE);
  compute.arg[0] = UINT64_MAX;
  EXPECT_EQ(check(compute), SHMGEMM_STATUS_OK);
  compute.arg[1] = std::uint64_t{1} << 32;
  EXPECT_EQ(check(compute), SHMGEMM_STATUS_BAD_ARGUMENT);
  shmgemm_command configure = good(SHMGEMM_OP_CONFIGURE);
  configure.arg[0] = std::uint64_t{1} << 32;
  EXPECT_EQ(check(configure), SHMGEMM_STATUS_BAD_ARGUMENT);
}

TEST(ValidateCommand, GetInfoNeedsAReport) {
  shmgemm_command info = good(SHMGEMM_OP_GET_INFO);
  EXPECT_EQ(check(info), SHMGEMM_STATUS_BAD_REPORT);
  info.report = kHeapBegin / 64;
  EXPECT_EQ(check(info), SHMGEMM_STATUS_OK);
  info.report = (kHeapEnd - SHMGEMM_REPORT_BYTES) / 64;
  EXPECT_EQ(check(info), SHMGEMM_STATUS_OK);
  info.report += 1;
  EXPECT_EQ(check(info), SHMGEMM_STATUS_BAD_REPORT);
  info.report = kHeapBegin / 64;
  info.arg[0] = 1;
  EXPECT_EQ(check(info), SHMGEMM_STATUS_BAD_ARGUMENT);
}

TEST(ValidateCommand, Transfers) {
  for (shmgemm_op op : {SHMGEMM_OP_READ, SHMGEMM_OP_WRITE}) {
    const auto transfer = [&](std::uint64_t address, std::uint64_t bytes, std::uint64_t offset) {
      shmgemm_command command = good(op);
      command.arg[0] = address;
      command.arg[1] = bytes;
      command.arg[2] = offset;
      return check(command);
    };
    EXPECT_EQ(transfer(0, 1, kHeapBegin), SHMGEMM_STATUS_OK);
    EXPECT_EQ(transfer(0, kHeapEnd - kHeapBegin, kHeapBegin), SHMGEMM_STATUS_OK);
    EXPECT_EQ(transfer(0, kHeapEnd - kHeapBegin + 1, kHeapBegin), SHMGEMM_STATUS_OUT_OF_BOUNDS);
    EXPECT_EQ(transfer(0, 1, kHeapBegin - 1), SHMGEMM_STATUS_OUT_OF_BOUNDS);
    EXPECT_EQ(transfer(0, 1, kHeapEnd), SHMGEMM_STATUS_OUT_OF_BOUNDS);
    EXPECT_EQ(transfer(0, UINT64_MAX, kHeapBegin), SHMGEMM_STATUS_OUT_OF_BOUNDS);
    EXPECT_EQ(transfer(UINT64_MAX, 1, kHeapBegin), SHMGEMM_STATUS_OUT_OF_BOUNDS);
    EXPECT_EQ(transfer(0, 0, kHeapBegin), SHMGEMM_STATUS_BAD_SHAPE);
  }
}

shmgemm_completion good_completion() {
  shmgemm_completion completion{};
  completion.id = 9;
  completion.generation = 7;
  completion.device = 1;
  completion.start_cycles = 10;
  completion.end_cycles = 20;
  completion.report_bytes = SHMGEMM_REPORT_BYTES;
  return completion;
}

template <class Change>
shmgemm_status completion(Change change) {
  shmgemm_completion record = good_completion();
  const shmgemm_limits given = limits();
  change(record);
  return shmgemm_validate_completion(&record, &given);
}

TEST(ValidateCompletion, EachField) {
  EXPECT_EQ(completion([](auto&) {}), SHMGEMM_STATUS_OK);
  EXPECT_EQ(completion([](auto& c) { c.generation = 6; }), SHMGEMM_STATUS_BAD_GENERATION);
  EXPECT_EQ(completion([](auto& c) { c.id = 0; }), SHMGEMM_STATUS_BAD_ID);
  EXPECT_EQ(completion([](auto& c) { c.device = 2; }), SHMGEMM_STATUS_BAD_DEVICE);
  EXPECT_EQ(completion([](auto& c) { c.end_cycles = 9; }), SHMGEMM_STATUS_BAD_ARGUMENT);
  EXPECT_EQ(completion([](auto& c) { c.end_cycles = 10; }), SHMGEMM_STATUS_OK);
  EXPECT_EQ(completion([](auto& c) { c.report_bytes += 1; }), SHMGEMM_STATUS_BAD_REPORT);
}

TEST(ValidateCompletion, OnlyKnownStatuses) {
  for (int status = 0; status < 65536; ++status) {
    const bool known = status <= SHMGEMM_STATUS_UNSUPPORTED ||
                       (status >= SHMGEMM_STATUS_BAD_GENERATION && status <= SHMGEMM_STATUS_BAD_ID);
    ASSERT_EQ(completion([&](auto& c) { c.status = static_cast<std::uint16_t>(status); }),
              known ? SHMGEMM_STATUS_OK : SHMGEMM_STATUS_INVALID)
        << status;
  }
}

TEST(ValidateCompletion, ARejectionNamesWhateverDeviceWasAskedFor) {
  const auto status =
      completion([](auto& c) { c.device = 255, c.status = SHMGEMM_STATUS_BAD_DEVICE; });
  EXPECT_EQ(status, SHMGEMM_STATUS_OK);
}

constexpr std::uint64_t kFileBytes = 16u << 20;

shmgemm_header good_header() {
  shmgemm_header header{};
  header.magic = SHMGEMM_MAGIC;
  header.abi_major = SHMGEMM_ABI_MAJOR;
  header.abi_minor = SHMGEMM_ABI_MINOR;
  header.header_bytes = sizeof header;
  header.region_bytes = kFileBytes;
  header.queue_pair_count = 2;
  header.queue_pair_offset = SHMGEMM_PAGE_BYTES;
  header.heap_offset = SHMGEMM_HEAP_ALIGN;
  header.heap_bytes = kFileBytes - SHMGEMM_HEAP_ALIGN;
  header.arena_count = 2;
  header.arenas[0] = {SHMGEMM_HEAP_ALIGN, 1 << 20, 1, 1};
  header.arenas[1] = {SHMGEMM_HEAP_ALIGN + (1 << 20), 1 << 20, 2, 0};
  return header;
}

template <class Change>
shmgemm_status header(Change change, std::uint64_t file_bytes = kFileBytes) {
  shmgemm_header record = good_header();
  change(record);
  return shmgemm_validate_header(&record, file_bytes);
}

TEST(ValidateHeader, Identity) {
  EXPECT_EQ(header([](auto&) {}), SHMGEMM_STATUS_OK);
  EXPECT_EQ(header([](auto& h) { h.magic ^= 1; }), SHMGEMM_STATUS_INVALID);
  EXPECT_EQ(header([](auto& h) { h.abi_major += 1; }), SHMGEMM_STATUS_UNSUPPORTED);
  EXPECT_EQ(header([](auto& h) { h.abi_major = 0; }), SHMGEMM_STATUS_UNSUPPORTED);
  EXPECT_EQ(header([](auto& h) { h.abi_minor += 1; }), SHMGEMM_STATUS_OK);
  const std::uint64_t magic = SHMGEMM_MAGIC;
  EXPECT_EQ(std::memcmp(&magic, "SHMGEMM1", 8), 0);
}

TEST(ValidateHeader, Sizes) {
  EXPECT_EQ(header([](auto&) {}, kFileBytes * 2), SHMGEMM_STATUS_BAD_SHAPE);
  EXPECT_EQ(header([](auto&) {}, kFileBytes - 1), SHMGEMM_STATUS_BAD_SHAPE);
  const auto sized = [](std::uint64_t bytes) {
    return header([&](auto& h) { h.region_bytes = bytes; }, bytes);
  };
  EXPECT_EQ(sized(SHMGEMM_MIN_REGION_BYTES / 2), SHMGEMM_STATUS_BAD_SHAPE);
  EXPECT_EQ(sized(kFileBytes + SHMGEMM_PAGE_BYTES), SHMGEMM_STATUS_BAD_SHAPE);
  EXPECT_EQ(sized(kFileBytes * 2), SHMGEMM_STATUS_OK);
  EXPECT_EQ(sized(kFileBytes / 2), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(header([](auto& h) { h.header_bytes -= 1; }), SHMGEMM_STATUS_BAD_SHAPE);
  EXPECT_EQ(header([](auto& h) { h.header_bytes = SHMGEMM_PAGE_BYTES; }), SHMGEMM_STATUS_OK);
  EXPECT_EQ(header([](auto& h) { h.header_bytes = SHMGEMM_PAGE_BYTES + 1; }),
            SHMGEMM_STATUS_OUT_OF_BOUNDS);
}

TEST(ValidateHeader, QueuePairs) {
  const auto count = [](std::uint32_t value) {
    return header([&](auto& h) { h.queue_pair_count = value; });
  };
  EXPECT_EQ(count(0), SHMGEMM_STATUS_BAD_SHAPE);
  EXPECT_EQ(count(SHMGEMM_MAX_QUEUE_PAIRS), SHMGEMM_STATUS_OK);
  EXPECT_EQ(count(SHMGEMM_MAX_QUEUE_PAIRS + 1), SHMGEMM_STATUS_BAD_SHAPE);
  EXPECT_EQ(count(UINT32_MAX), SHMGEMM_STATUS_BAD_SHAPE);
  const auto at = [](std::uint64_t offset) {
    return header([&](auto& h) { h.queue_pair_offset = offset; });
  };
  EXPECT_EQ(at(0), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(at(SHMGEMM_PAGE_BYTES + 64), SHMGEMM_STATUS_BAD_ALIGNMENT);
  EXPECT_EQ(at(SHMGEMM_HEAP_ALIGN - 2 * SHMGEMM_QUEUE_PAIR_BYTES), SHMGEMM_STATUS_OK);
  EXPECT_EQ(at(SHMGEMM_HEAP_ALIGN - 2 * SHMGEMM_QUEUE_PAIR_BYTES + SHMGEMM_PAGE_BYTES),
            SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(at(std::uint64_t{0} - SHMGEMM_PAGE_BYTES), SHMGEMM_STATUS_OUT_OF_BOUNDS);
}

TEST(ValidateHeader, Heap) {
  EXPECT_EQ(header([](auto& h) { h.heap_offset += SHMGEMM_PAGE_BYTES; }),
            SHMGEMM_STATUS_BAD_ALIGNMENT);
  EXPECT_EQ(header([](auto& h) { h.heap_bytes -= 1; }), SHMGEMM_STATUS_BAD_ALIGNMENT);
  EXPECT_EQ(header([](auto& h) { h.heap_bytes += 64; }), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(header([](auto& h) { h.heap_bytes = 0; }), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(header([](auto& h) { h.heap_offset = 0; }), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(header([](auto& h) { h.heap_offset = std::uint64_t{0} - SHMGEMM_HEAP_ALIGN; }),
            SHMGEMM_STATUS_OUT_OF_BOUNDS);
}

TEST(ValidateHeader, Arenas) {
  EXPECT_EQ(header([](auto& h) { h.arena_count = SHMGEMM_MAX_ARENAS + 1; }),
            SHMGEMM_STATUS_BAD_SHAPE);
  EXPECT_EQ(header([](auto& h) { h.arena_count = UINT32_MAX; }), SHMGEMM_STATUS_BAD_SHAPE);
  EXPECT_EQ(header([](auto& h) { h.arena_count = 3; }), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  const auto second = [](auto change) { return header([&](auto& h) { change(h.arenas[1]); }); };
  EXPECT_EQ(second([](auto& a) { a.offset -= 64; }), SHMGEMM_STATUS_OVERLAP);
  EXPECT_EQ(second([](auto& a) { a.offset -= 1; }), SHMGEMM_STATUS_BAD_ALIGNMENT);
  EXPECT_EQ(second([](auto& a) { a.bytes = 0; }), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(second([](auto& a) { a.bytes = kFileBytes - a.offset; }), SHMGEMM_STATUS_OK);
  EXPECT_EQ(second([](auto& a) { a.bytes = kFileBytes - a.offset + 64; }),
            SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(second([](auto& a) { a.bytes = UINT64_MAX - 63; }), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(second([](auto& a) { a.offset = SHMGEMM_PAGE_BYTES; }), SHMGEMM_STATUS_OUT_OF_BOUNDS);
  EXPECT_EQ(second([](auto& a) { a.state = 3; }), SHMGEMM_STATUS_BAD_ARGUMENT);
  EXPECT_EQ(second([](auto& a) { a.owner = 3; }), SHMGEMM_STATUS_BAD_ARGUMENT);
}

TEST(DtypeBytes, Each) {
  EXPECT_EQ(shmgemm_dtype_bytes(SHMGEMM_DTYPE_FLOAT32), 4u);
  EXPECT_EQ(shmgemm_dtype_bytes(SHMGEMM_DTYPE_FLOAT16), 2u);
  EXPECT_EQ(shmgemm_dtype_bytes(SHMGEMM_DTYPE_BFLOAT16), 2u);
  EXPECT_EQ(shmgemm_dtype_bytes(SHMGEMM_DTYPE_INT8), 1u);
  EXPECT_EQ(shmgemm_dtype_bytes(SHMGEMM_DTYPE_INT32), 4u);
  EXPECT_EQ(shmgemm_dtype_bytes(SHMGEMM_DTYPE_NONE), 0u);
  EXPECT_EQ(shmgemm_dtype_bytes(SHMGEMM_DTYPE_COUNT), 0u);
  EXPECT_EQ(shmgemm_dtype_bytes(UINT32_MAX), 0u);
}

// Two cores within an op of cycles 100 to 200.
std::vector<shmgemm_timeline_entry> good_timeline() {
  return {{0, SHMGEMM_ACTIVITY_LOAD, 100, 110, UINT64_MAX},
          {0, SHMGEMM_ACTIVITY_LOAD, 110, 120, 0},
          {0, SHMGEMM_ACTIVITY_COMPUTE, 105, 150, 45},
          {0, SHMGEMM_ACTIVITY_STALL, 100, 105, 5},
          {7, SHMGEMM_ACTIVITY_STORE, 199, 200, 64}};
}

template <class Change>
shmgemm_status timeline(Change change) {
  shmgemm_completion op{};
  op.start_cycles = 100;
  op.end_cycles = 200;
  std::vector<shmgemm_timeline_entry> entries = good_timeline();
  change(entries);
  return shmgemm_validate_timeline(entries.data(), static_cast<std::uint32_t>(entries.size()), &op);
}

TEST(ValidateTimeline, EachField) {
  const auto bad = SHMGEMM_STATUS_BAD_REPORT;
  EXPECT_EQ(timeline([](auto&) {}), SHMGEMM_STATUS_OK);
  EXPECT_EQ(timeline([](auto& t) { t.clear(); }), SHMGEMM_STATUS_OK);
  EXPECT_EQ(timeline([](auto& t) { t[4].kind = SHMGEMM_ACTIVITIES; }), bad);
  EXPECT_EQ(timeline([](auto& t) { t[0].start_cycles = 99; }), bad);
  EXPECT_EQ(timeline([](auto& t) { t[4].end_cycles = 201; }), bad);
  EXPECT_EQ(timeline([](auto& t) { t[0].end_cycles = 100; }), bad) << "it lasts no time";
  EXPECT_EQ(timeline([](auto& t) { t[0].end_cycles = UINT64_MAX; }), bad);
  EXPECT_EQ(timeline([](auto& t) { t[2].amount = 46; }), bad) << "more busy than it lasts";
  EXPECT_EQ(timeline([](auto& t) { t[3].amount = 6; }), bad);
}

TEST(ValidateTimeline, Order) {
  const auto bad = SHMGEMM_STATUS_BAD_REPORT;
  EXPECT_EQ(timeline([](auto& t) { t[1].start_cycles = 109; }), bad) << "overlap";
  EXPECT_EQ(timeline([](auto& t) { std::swap(t[0], t[1]); }), bad);
  EXPECT_EQ(timeline([](auto& t) { std::swap(t[2], t[3]); }), bad) << "kinds";
  EXPECT_EQ(timeline([](auto& t) { std::swap(t[3], t[4]); }), bad) << "cores";
  EXPECT_EQ(timeline([](auto& t) { t[2].core = 1; }), bad) << "back to core 0 after it";
}

}  // namespace

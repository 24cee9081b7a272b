// libFuzzer: whatever the validator accepts is safe to use. An accepted command's operands are
// touched inside a heap of exactly the limits, so that AddressSanitizer sees a byte too far;
// accepted headers and completions are held against what their readers assume.
#include <sanitizer/asan_interface.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "abi/shmgemm_validate.h"

namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "property violated: %s\n", what);
  std::abort();
}

// What the fuzzer gave, taken from the front; zeros once it is used up.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  template <class T>
  T take() {
    T value{};
    const std::size_t bytes = std::min(sizeof value, size_);
    if (bytes != 0) std::memcpy(static_cast<void*>(&value), data_, bytes);
    data_ += bytes;
    size_ -= bytes;
    return value;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

// A heap whose every byte outside [begin, end) is poisoned.
class Heap {
 public:
  Heap(std::uint64_t begin, std::uint64_t end)
      : begin_(begin), bytes_(end - begin), memory_(new std::uint8_t[bytes_]) {}

  void touch(std::uint64_t offset, std::uint64_t bytes, const char* what) {
    void* first = memory_.get() + (offset - begin_);
    require(bytes != 0 && offset >= begin_ && offset - begin_ < bytes_, what);
    require(__asan_region_is_poisoned(first, bytes) == nullptr, what);
    static_cast<volatile std::uint8_t*>(first)[bytes - 1] = 1;
  }

 private:
  std::uint64_t begin_;
  std::uint64_t bytes_;
  std::unique_ptr<std::uint8_t[]> memory_;
};

struct Extent {
  std::uint64_t begin = UINT64_MAX;
  std::uint64_t end = 0;
};

bool disjoint(const Extent& x, const Extent& y) {
  return x.begin >= x.end || y.begin >= y.end || x.end <= y.begin || y.end <= x.begin;
}

struct Operand {
  std::uint64_t offset, stride;
  std::uint32_t rows, columns, leading, batch, element_bytes;
  const char* name;
};

// Touches every row, or, where there are very many, those at the ends; returns the bounding extent.
Extent touch_rows(const Operand& operand, Heap& heap) {
  constexpr std::uint32_t kMany = 64;
  Extent extent;
  for (std::uint32_t entry = 0; entry < operand.batch; ++entry) {
    if (entry >= kMany && entry + kMany < operand.batch) entry = operand.batch - kMany;
    for (std::uint32_t row = 0; row < operand.rows; ++row) {
      if (row >= kMany && row + kMany < operand.rows) row = operand.rows - kMany;
      const std::uint64_t element = entry * operand.stride + std::uint64_t{row} * operand.leading;
      const std::uint64_t begin = operand.offset + element * operand.element_bytes;
      const std::uint64_t bytes = std::uint64_t{operand.columns} * operand.element_bytes;
      require(begin % operand.element_bytes == 0, "aligned");
      heap.touch(begin, bytes, operand.name);
      extent.begin = std::min(extent.begin, begin);
      extent.end = std::max(extent.end, begin + bytes);
    }
  }
  return extent;
}

Extent touch_report(const shmgemm_command& command, Heap& heap) {
  if (command.report == 0) return {};
  const std::uint64_t offset = std::uint64_t{command.report} * SHMGEMM_BLOCK_ALIGN;
  heap.touch(offset, SHMGEMM_REPORT_BYTES, "report");
  return {offset, offset + SHMGEMM_REPORT_BYTES};
}

void use_gemm(const shmgemm_command& command, Heap& heap) {
  const bool ta = command.flags & SHMGEMM_FLAG_TRANSPOSE_A;
  const bool tb = command.flags & SHMGEMM_FLAG_TRANSPOSE_B;
  const std::uint32_t in = shmgemm_dtype_bytes(command.dtype_in);
  const std::uint32_t out = shmgemm_dtype_bytes(command.dtype_out);
  const std::uint32_t m = command.m, n = command.n, k = command.k, batch = command.batch;
  require(in != 0 && out != 0, "known dtypes");
  const Extent a = touch_rows(
      {command.a, command.stride_a, ta ? k : m, ta ? m : k, command.lda, batch, in, "A"}, heap);
  const Extent b = touch_rows(
      {command.b, command.stride_b, tb ? n : k, tb ? k : n, command.ldb, batch, in, "B"}, heap);
  const Extent c =
      touch_rows({command.c, command.stride_c, m, n, command.ldc, batch, out, "C"}, heap);
  Extent bias;
  if (command.flags & SHMGEMM_FLAG_BIAS) {
    bias = touch_rows({command.bias, 0, 1, n, n, 1, 4, "bias"}, heap);
  }
  const Extent report = touch_report(command, heap);
  require(disjoint(c, a) && disjoint(c, b) && disjoint(c, bias) && disjoint(c, report),
          "C overlaps nothing");
  require(disjoint(report, a) && disjoint(report, b) && disjoint(report, bias),
          "the report overlaps no operand");
  const Extent entry =
      touch_rows({command.c, command.stride_c, m, n, command.ldc, 1, out, "C[0]"}, heap);
  require(batch == 1 || command.stride_c * out >= entry.end - entry.begin, "C[i] are disjoint");
}

// Bends a random record towards one that could be legal: small sizes, offsets inside the heap or
// just outside.
void tame(shmgemm_command& command, const shmgemm_limits& limits) {
  const auto inside = [&](std::uint64_t& offset) {
    offset = limits.heap_begin - 4 + offset % (limits.heap_end - limits.heap_begin + 8);
    offset &= ~std::uint64_t{3};
  };
  command.id |= 1;
  command.generation = limits.generation;
  command.op %= SHMGEMM_OP_COUNT;
  command.device = static_cast<std::uint8_t>(command.device % limits.devices);
  command.release_cycles >>= 1;
  if (command.op != SHMGEMM_OP_GEMM) {
    command.flags &= SHMGEMM_FLAG_FLUSH;
    command.dtype_in = command.dtype_out = SHMGEMM_DTYPE_NONE;
    return;
  }
  command.flags &= SHMGEMM_FLAG_ALL;
  command.dtype_in = static_cast<std::uint8_t>(1 + command.dtype_in % 4);
  command.dtype_out = command.dtype_in == SHMGEMM_DTYPE_INT8
                          ? static_cast<std::uint8_t>(SHMGEMM_DTYPE_INT32)
                          : static_cast<std::uint8_t>(1 + command.dtype_out % 3);
  for (std::uint32_t* size : {&command.m, &command.n, &command.k, &command.batch}) {
    *size = 1 + *size % 32;
  }
  command.lda =
      (command.flags & SHMGEMM_FLAG_TRANSPOSE_A ? command.m : command.k) + command.lda % 9;
  command.ldb =
      (command.flags & SHMGEMM_FLAG_TRANSPOSE_B ? command.k : command.n) + command.ldb % 9;
  command.ldc = command.n + command.ldc % 9;
  command.stride_a %= 2048;
  command.stride_b %= 2048;
  const std::uint64_t entry = std::uint64_t{command.m - 1} * command.ldc + command.n;
  command.stride_c = entry - 1 + command.stride_c % 5;
  for (std::uint64_t* offset : {&command.a, &command.b, &command.c, &command.bias}) inside(*offset);
  if (!(command.flags & SHMGEMM_FLAG_BIAS)) command.bias = 0;
  const std::uint64_t end = limits.heap_end / SHMGEMM_BLOCK_ALIGN;
  const std::uint32_t wraps = command.report & 0x0c000000;  // times 64: 2^32 and more
  command.report = static_cast<std::uint32_t>(command.report % (end + 2)) | wraps;
}

void use(const shmgemm_command& command, const shmgemm_limits& limits) {
  Heap heap(limits.heap_begin, limits.heap_end);
  require(command.id != 0 && command.generation == limits.generation, "id and generation");
  require(command.device < limits.devices, "device exists");
  require(command.op < SHMGEMM_OP_COUNT, "op exists");
  require(static_cast<std::int64_t>(command.release_cycles) >= 0, "release time");
  if (command.op == SHMGEMM_OP_GEMM) return use_gemm(command, heap);
  require(command.dtype_in == 0 && command.dtype_out == 0, "no dtype");
  if (command.op == SHMGEMM_OP_GET_INFO) {
    require(command.report != 0, "GET_INFO has a report");
    touch_report(command, heap);
  } else if (command.op == SHMGEMM_OP_READ || command.op == SHMGEMM_OP_WRITE) {
    heap.touch(command.arg[2], command.arg[1], "data of a transfer");
    require(command.arg[0] + command.arg[1] > command.arg[0], "device addresses do not wrap");
  }
}

void fuzz_command(Input& input, bool tamed) {
  const auto bytes = input.take<std::uint16_t>();
  const std::uint64_t begin = (std::uint64_t{input.take<std::uint8_t>()} + 1) * 64;
  const shmgemm_limits limits = {begin, begin + 64 + bytes, 1, 1u + input.take<std::uint8_t>() % 4};
  auto command = input.take<shmgemm_command>();
  if (tamed) tame(command, limits);
  const shmgemm_status status = shmgemm_validate_command(&command, &limits);
  require(std::strcmp(shmgemm_status_text(status), "unknown status") != 0, "status has a text");
  if (status != SHMGEMM_STATUS_OK) return;
  use(command, limits);
  shmgemm_command stale = command;
  stale.generation += 1;
  require(shmgemm_validate_command(&stale, &limits) == SHMGEMM_STATUS_BAD_GENERATION, "stale");
  command.seq = ~command.seq;
  require(shmgemm_validate_command(&command, &limits) == SHMGEMM_STATUS_OK, "seq does not matter");
}

void fuzz_completion(Input& input) {
  const shmgemm_limits limits = {0, 0, input.take<std::uint8_t>(), 4};
  auto completion = input.take<shmgemm_completion>();
  completion.generation &= 0xff;
  if (shmgemm_validate_completion(&completion, &limits) != SHMGEMM_STATUS_OK) return;
  require(completion.id != 0 && completion.generation == limits.generation, "id and generation");
  require(completion.start_cycles <= completion.end_cycles, "time runs forward");
  require(completion.report_bytes <= SHMGEMM_REPORT_BYTES, "the report fits its block");
  require(completion.status != SHMGEMM_STATUS_OK || completion.device < limits.devices, "device");
  require(std::strcmp(shmgemm_status_text(completion.status), "unknown status") != 0, "status");
}

// Entries near an op of 256 cycles; of those accepted, lanes come in order and never overlap.
void fuzz_timeline(Input& input) {
  shmgemm_completion op{};
  op.start_cycles = input.take<std::uint8_t>();
  op.end_cycles = op.start_cycles + input.take<std::uint8_t>();
  shmgemm_timeline_entry entries[6];
  const std::uint32_t count = input.take<std::uint8_t>() % 7;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t lane = input.take<std::uint8_t>();
    const std::uint64_t start = op.start_cycles + input.take<std::uint8_t>();
    entries[i] = {lane / 5, lane % 5, start, start + input.take<std::uint8_t>(),
                  input.take<std::uint8_t>()};
    if (lane == 255) entries[i] = input.take<shmgemm_timeline_entry>();
  }
  if (shmgemm_validate_timeline(entries, count, &op) != SHMGEMM_STATUS_OK) return;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint64_t> ends;
  for (std::uint32_t i = 0; i < count; ++i) {
    const shmgemm_timeline_entry& entry = entries[i];
    const auto lane = std::make_pair(entry.core, entry.kind);
    require(entry.kind < SHMGEMM_ACTIVITIES, "kind");
    require(ends.empty() || ends.rbegin()->first <= lane, "lanes are in order");
    require(entry.start_cycles >= std::max(ends[lane], op.start_cycles), "no overlap");
    require(entry.end_cycles > entry.start_cycles && entry.end_cycles <= op.end_cycles, "time");
    ends[lane] = entry.end_cycles;
  }
}

void tame(shmgemm_header& header, std::uint64_t file_bytes) {
  header.magic = SHMGEMM_MAGIC;
  header.abi_major = SHMGEMM_ABI_MAJOR;
  header.region_bytes = file_bytes;
  header.header_bytes = sizeof header + header.header_bytes % 4096;
  header.queue_pair_count = 1 + header.queue_pair_count % SHMGEMM_MAX_QUEUE_PAIRS;
  header.queue_pair_offset = header.queue_pair_offset % 1024 * SHMGEMM_PAGE_BYTES;
  header.heap_offset = header.heap_offset % 4 * SHMGEMM_HEAP_ALIGN;
  header.heap_bytes &= (file_bytes - 1) & ~std::uint64_t{63};
  header.arena_count %= SHMGEMM_MAX_ARENAS + 2;
  for (shmgemm_arena& arena : header.arenas) {
    arena.offset &= (file_bytes - 1) & ~std::uint64_t{63};
    arena.bytes &= ((file_bytes - 1) >> 3) & ~std::uint64_t{63};
    arena.state &= 1;
    arena.owner &= 1;
  }
}

void use(const shmgemm_header& header, std::uint64_t file_bytes) {
  static Heap small(0, SHMGEMM_MIN_REGION_BYTES), large(0, 2 * SHMGEMM_MIN_REGION_BYTES);
  Heap& file = file_bytes == SHMGEMM_MIN_REGION_BYTES ? small : large;
  const std::uint64_t queue_pairs_end =
      header.queue_pair_offset + header.queue_pair_count * std::uint64_t{SHMGEMM_QUEUE_PAIR_BYTES};
  require(header.queue_pair_offset >= sizeof header, "queue pairs behind the header");
  file.touch(header.queue_pair_offset, queue_pairs_end - header.queue_pair_offset, "queue pairs");
  require(queue_pairs_end <= header.heap_offset, "heap behind the queue pairs");
  file.touch(header.heap_offset, header.heap_bytes, "heap");
  Heap heap(header.heap_offset, header.heap_offset + header.heap_bytes);
  for (std::uint32_t i = 0; i < header.arena_count; ++i) {
    const shmgemm_arena& arena = header.arenas[i];
    heap.touch(arena.offset, arena.bytes, "arena");
    for (std::uint32_t j = 0; j < i; ++j) {
      const shmgemm_arena& other = header.arenas[j];
      require(disjoint({arena.offset, arena.offset + arena.bytes},
                       {other.offset, other.offset + other.bytes}),
              "arenas are disjoint");
    }
  }
}

void fuzz_header(Input& input) {
  const auto mode = input.take<std::uint8_t>();
  const std::uint64_t file_bytes = SHMGEMM_MIN_REGION_BYTES << (mode & 1);
  auto header = input.take<shmgemm_header>();
  if (mode & 2) tame(header, file_bytes);
  if (shmgemm_validate_header(&header, file_bytes) == SHMGEMM_STATUS_OK) use(header, file_bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  switch (input.take<std::uint8_t>() % 5) {
    case 0:
      fuzz_command(input, false);
      break;
    case 1:
      fuzz_command(input, true);
      break;
    case 2:
      fuzz_completion(input);
      break;
    case 3:
      fuzz_timeline(input);
      break;
    default:
      fuzz_header(input);
      break;
  }
  return 0;
}

// `sstctl gemm M N K`: a product by the 128-byte path. Operands of small whole numbers are put into
// the part of the guest's arena that is for tools; the values are compared with a triple loop,
// exactly.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <vector>

#include "abi/shmgemm_validate.h"
#include "actions.h"
#include "server/arena.h"

namespace shmgemm::sstctl {
namespace {

std::uint64_t aligned(std::uint64_t bytes) {
  return (bytes + SHMGEMM_BLOCK_ALIGN - 1) / SHMGEMM_BLOCK_ALIGN * SHMGEMM_BLOCK_ALIGN;
}

shmgemm_arena arena_in(const std::byte* region, std::uint64_t bytes) {
  shmgemm_header header;
  std::memcpy(&header, region, sizeof header);
  const shmgemm_status valid = shmgemm_validate_header(&header, bytes);
  if (valid != SHMGEMM_STATUS_OK) {
    throw Failure(std::string("the region's header: ") + shmgemm_status_text(valid));
  }
  const shmgemm_arena arena = guest::guest_arena(header);
  if (arena.bytes == 0) throw Failure("the region has no arena for a guest");
  return arena;
}

std::vector<float> small_numbers(std::size_t count, unsigned seed) {
  std::vector<float> values(count);
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int>(seed >> 24) % 17 - 8);
  }
  return values;
}

// K * 64 stays below 2^24, so float32 sums are exact in any order.
void check(const std::vector<float>& a, const std::vector<float>& b, const std::vector<float>& c,
           std::uint32_t m, std::uint32_t n, std::uint32_t k) {
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::size_t p = 0; p < k; ++p) sum += double{a[i * k + p]} * double{b[p * n + j]};
      if (c[i * n + j] == sum) continue;
      char text[160];
      std::snprintf(text, sizeof text, "C[%zu][%zu] is %g, %g expected (is share=on missing?)", i,
                    j, double{c[i * n + j]}, sum);
      throw Failure(text);
    }
  }
}

void print(const shmgemm_completion& done, std::uint64_t clock_hz) {
  const std::uint64_t cycles = done.end_cycles - done.start_cycles;
  const std::uint64_t known = done.busy_cycles + done.fill_drain_cycles + done.memory_stall_cycles;
  std::printf("values           right, as a triple loop has them\n");
  std::printf("cycles           %" PRIu64 " (%" PRIu64 " to %" PRIu64 ")", cycles,
              done.start_cycles, done.end_cycles);
  if (clock_hz > 0) {
    std::printf(", %.3f us at %" PRIu64 " Hz",
                static_cast<double>(cycles) * 1e6 / static_cast<double>(clock_hz), clock_hz);
  }
  std::printf("\nbusy %" PRIu64 ", fill and drain %" PRIu64 ", memory stall %" PRIu64
              ", dispatch %" PRIu64 "\n",
              done.busy_cycles, done.fill_drain_cycles, done.memory_stall_cycles, cycles - known);
}

}  // namespace

void gemm(DeviceFile& device, std::uint32_t m, std::uint32_t n, std::uint32_t k) {
  const virtio_sst_info info = device.info();
  std::byte* region = device.map_region(info.region_bytes);
  const shmgemm_arena arena = arena_in(region, info.region_bytes);
  device.lock();
  const std::uint64_t begin = guest::tools_begin(arena);
  const std::uint64_t room = arena.offset + arena.bytes - begin;
  const std::uint64_t a_bytes = 4ull * m * k, b_bytes = 4ull * k * n, c_bytes = 4ull * m * n;
  const std::uint64_t needed = aligned(a_bytes) + aligned(b_bytes) + aligned(c_bytes);
  if (needed > room) {
    throw Failure("operands of " + std::to_string(needed) + " bytes given, at most " +
                  std::to_string(room) + " expected");
  }
  shmgemm_command command{};
  command.id = 1;
  command.generation = info.generation;
  command.op = SHMGEMM_OP_GEMM;
  command.dtype_in = command.dtype_out = SHMGEMM_DTYPE_FLOAT32;
  command.flags = SHMGEMM_FLAG_FLUSH;
  command.m = m;
  command.n = command.ldb = command.ldc = n;
  command.k = command.lda = k;
  command.batch = 1;
  command.a = begin;
  command.b = command.a + aligned(a_bytes);
  command.c = command.b + aligned(b_bytes);
  const std::vector<float> a = small_numbers(std::size_t{m} * k, 1);
  const std::vector<float> b = small_numbers(std::size_t{k} * n, 2);
  std::vector<float> c(std::size_t{m} * n, -1.0f);
  std::memcpy(region + command.a, a.data(), a_bytes);
  std::memcpy(region + command.b, b.data(), b_bytes);
  std::memcpy(region + command.c, c.data(), c_bytes);
  const shmgemm_completion done = device.command(command);
  std::memcpy(c.data(), region + command.c, c_bytes);
  check(a, b, c, m, n, k);
  print(done, info.clock_hz);
}

}  // namespace shmgemm::sstctl

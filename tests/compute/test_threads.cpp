// The same bits with 1, 2, 3, 4 and 7 threads; a pool that runs every piece once, serves many
// callers and leaves its CPUs alone when idle.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "compute/pool.h"
#include "compute/split.h"
#include "product.h"

namespace shmgemm::compute {
namespace {

TEST(Threads, BitsDoNotDependOnTheirNumber) {
  const std::uint32_t shapes[][3] = {
      {1, 1, 900},    {1, 1536, 384},  {1536, 1, 384},  {8, 1536, 384},  {32, 384, 1536},
      {33, 385, 383}, {512, 384, 384}, {1000, 17, 200}, {130, 999, 257}, {512, 512, 512}};
  Engine one(1);
  Engine others[] = {Engine(2), Engine(3), Engine(4), Engine(7)};
  for (const auto& shape : shapes) {
    for (unsigned bits = 0; bits < 8; ++bits) {
      Case which;
      which.m = shape[0];
      which.n = shape[1];
      which.k = shape[2];
      which.transpose_a = (bits & 1) != 0;
      which.transpose_b = (bits & 2) != 0;
      which.bias = which.accumulate = (bits & 4) != 0;
      which.input = bits == 5 ? Dtype::kFloat16 : bits == 6 ? Dtype::kBfloat16 : Dtype::kFloat32;
      Product product(which);
      product.run(one);
      const std::vector<std::uint8_t> alone = product.c_bytes();
      for (Engine& engine : others) {
        product.run(engine);
        EXPECT_TRUE(product.c_bytes() == alone) << text(which) << " on " << engine.threads();
      }
    }
  }
}

TEST(Threads, BatchesDoNotDependOnTheirNumberEither) {
  Case which;
  which.m = 32;
  which.n = 32;
  which.k = 64;
  which.batch = 96;
  which.transpose_b = true;
  Product product(which);
  Engine one(1);
  Engine three(3);
  product.run(one);
  const std::vector<std::uint8_t> alone = product.c_bytes();
  product.run(three);
  EXPECT_TRUE(product.c_bytes() == alone);
}

TEST(Split, PiecesCoverCOnceAndAreCutByShapeAlone) {
  const std::uint32_t shapes[][4] = {
      {1, 1, 1, 1},          {1024, 1024, 1024, 1}, {1000, 1000, 1000, 1},
      {4096, 17, 512, 1},    {3, 5000, 700, 2},     {2048, 2048, 2048, 1},
      {5000, 100, 20000, 1}, {32, 32, 64, 97},      {200, 97, 2000, 3}};
  for (const auto& shape : shapes) {
    Gemm gemm;
    gemm.m = shape[0];
    gemm.n = shape[1];
    gemm.k = shape[2];
    gemm.batch = shape[3];
    const Split split = split_of(gemm);
    std::uint64_t covered = 0;
    for (std::uint64_t piece = 0; piece < split.pieces(); ++piece) {
      const Part part = part_of(gemm, split, piece);
      EXPECT_LT(part.row, part.row_end);
      EXPECT_LT(part.column, part.column_end);
      EXPECT_LT(part.entry, part.entry_end);
      EXPECT_LE(part.row_end, gemm.m);
      EXPECT_LE(part.column_end, gemm.n);
      EXPECT_LE(part.entry_end, gemm.batch);
      covered += (part.row_end - part.row) * (part.column_end - part.column) *
                 (part.entry_end - part.entry);
      for (std::uint64_t other = 0; other < piece; ++other) {
        const Part before = part_of(gemm, split, other);
        const bool apart = before.row_end <= part.row || part.row_end <= before.row ||
                           before.column_end <= part.column || part.column_end <= before.column ||
                           before.entry_end <= part.entry || part.entry_end <= before.entry;
        EXPECT_TRUE(apart) << piece << " and " << other;
      }
    }
    EXPECT_EQ(covered, std::uint64_t{gemm.m} * gemm.n * gemm.batch);
  }
}

TEST(Split, SmallProductsAreOnePiece) {
  Gemm gemm;
  gemm.m = 32;
  gemm.n = 256;
  gemm.k = 128;
  EXPECT_EQ(split_of(gemm).pieces(), 1u);
}

struct Count {
  std::vector<std::atomic<int>> runs;
  std::atomic<unsigned> highest_worker{0};
};

void count_piece(void* job, std::uint64_t piece, unsigned worker) {
  Count& count = *static_cast<Count*>(job);
  ++count.runs[piece];
  unsigned seen = count.highest_worker;
  while (worker > seen && !count.highest_worker.compare_exchange_weak(seen, worker)) {
  }
}

TEST(Pool, RunsEveryPieceOnceFromManyCallers) {
  Pool pool(3);
  EXPECT_EQ(pool.threads(), 3u);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&pool] {
      for (std::uint64_t pieces = 0; pieces < 300; ++pieces) {
        Count count{std::vector<std::atomic<int>>(pieces % 9), {}};
        pool.run(pieces % 9, count_piece, &count);
        for (const std::atomic<int>& runs : count.runs) EXPECT_EQ(runs, 1);
        EXPECT_LT(count.highest_worker, 3u);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

// Every thread of this process but the caller's waits in the kernel.
bool others_sleep() {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    if (task.path().filename() == std::to_string(gettid())) continue;
    std::ifstream file(task.path() / "stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    const std::size_t name_end = text.rfind(')');
    if (name_end != std::string::npos && text.at(name_end + 2) != 'S') return false;
  }
  return true;
}

TEST(Pool, IdleThreadsSleepInTheKernel) {
  Engine engine(4);
  Case which;
  which.m = which.n = which.k = 300;
  Product product(which);
  product.run(engine);
  // However loaded the machine is, they come to rest at last, and stay there.
  int rest = 0;
  for (int i = 0; i < 10000 && rest < 50; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    rest = others_sleep() ? rest + 1 : 0;
  }
  EXPECT_EQ(rest, 50);
}

}  // namespace
}  // namespace shmgemm::compute

// Copies of every alignment and size class against a loop over bytes, by one thread, by two, by
// several at a time and in a forked child.
#include "client/copy.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "client/copy_helper.h"

namespace {

using shmgemm::client::copy_elements;
using shmgemm::client::copy_lines;
using shmgemm::client::Elements;
using shmgemm::client::Lines;
using Bytes = std::vector<std::byte>;

std::byte pattern(std::uint64_t index) { return static_cast<std::byte>(index * 2654435761u >> 13); }

Bytes numbered(std::uint64_t count) {
  Bytes bytes(count);
  for (std::uint64_t i = 0; i < count; ++i) bytes[i] = pattern(i);
  return bytes;
}

constexpr std::byte kUntouched{0xa5};

// Copies into a fresh buffer with `margin` bytes on either side, and compares every byte of it.
bool copies_right(Lines lines, std::uint64_t to_bytes, const Bytes& from, std::uint64_t margin) {
  Bytes to(to_bytes + 2 * margin, kUntouched), expected = to;
  lines.to = to.data() + margin;
  copy_lines(lines);
  const std::int64_t start = lines.from - from.data();
  for (std::uint64_t plane = 0; plane < lines.planes; ++plane) {
    for (std::uint64_t line = 0; line < lines.lines; ++line) {
      const auto p = static_cast<std::int64_t>(plane), l = static_cast<std::int64_t>(line);
      const auto at = static_cast<std::int64_t>(margin) + p * lines.to_plane + l * lines.to_step;
      const std::int64_t source = start + p * lines.from_plane + l * lines.from_step;
      for (std::int64_t i = 0; i < static_cast<std::int64_t>(lines.line_bytes); ++i) {
        expected[static_cast<std::size_t>(at + i)] =
            pattern(static_cast<std::uint64_t>(source + i));
      }
    }
  }
  return to == expected;
}

TEST(Copy, EveryAlignmentOfSmallOnes) {
  const Bytes from = numbered(4096);
  for (std::uint64_t bytes : {1u, 3u, 31u, 32u, 33u, 127u, 128u, 129u, 1000u}) {
    for (std::uint64_t to = 0; to < 64; to += 3) {
      for (std::uint64_t at = 0; at < 64; at += 7) {
        ASSERT_TRUE(copies_right({nullptr, from.data() + at, bytes}, bytes, from, to));
      }
    }
  }
}

// On either side of the second thread and of the copies past the caches.
TEST(Copy, EverySizeClassAndCrookedEnds) {
  const Bytes from = numbered((41u << 20) + 100);
  for (const std::uint64_t mib : {1u, 8u, 9u, 32u, 41u}) {
    for (const std::uint64_t more : {0u, 1u, 77u}) {
      const std::uint64_t bytes = (mib << 20) - more;
      EXPECT_TRUE(copies_right({nullptr, from.data() + more, bytes}, bytes, from, 13)) << bytes;
    }
  }
}

TEST(Copy, LinesWithGapsOnEitherSide) {
  const Bytes from = numbered(80u << 20);
  const Lines wide{nullptr, from.data() + 5, 4093, 9000, 4100, 8192, 1, 0, 0};
  EXPECT_TRUE(copies_right(wide, 9000 * 4100, from, 3));
  const Lines narrow{nullptr, from.data(), 60, 200000, 60, 100, 1, 0, 0};
  EXPECT_TRUE(copies_right(narrow, 200000 * 60, from, 0));
  const Lines few{nullptr, from.data(), 5000003, 3, 5000003, 5000010, 1, 0, 0};
  EXPECT_TRUE(copies_right(few, 3 * 5000003, from, 1));
}

TEST(Copy, PlanesBackwardsAndInterleaved) {
  const Bytes from = numbered(1u << 20);
  const Lines backwards{nullptr, from.data() + (1u << 19), 24, 10, 24, -96, 5, 240, -2000};
  EXPECT_TRUE(copies_right(backwards, 5 * 240, from, 7));
  const Lines heads{nullptr, from.data(), 256, 128, 256, 1024, 4, 128 * 256, 256};
  EXPECT_TRUE(copies_right(heads, 4 * 128 * 256, from, 0));
}

TEST(Copy, ManyElementsByTwoThreads) {
  constexpr std::uint64_t kRows = 700, kColumns = 900;
  const Bytes from = numbered(kRows * kColumns * 8);
  Bytes to(kRows * kColumns);
  copy_elements({to.data(), from.data(), 1, kRows, kColumns, 2, std::int64_t{kRows} * 8});
  for (std::uint64_t i = 0; i < to.size(); ++i) {
    ASSERT_EQ(to[i], pattern(i / kColumns * 2 + i % kColumns * kRows * 8));
  }
}

template <class Element>
void expect_gathered(std::int64_t row_step, std::int64_t column_step) {
  constexpr std::uint64_t kRows = 37, kColumns = 53;
  std::vector<Element> from(200000), to(kRows * kColumns + 1);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<Element>(i * 40503u >> 3);
  const auto size = static_cast<std::int64_t>(sizeof(Element));
  const Element* const first = from.data() + 100000;
  copy_elements({reinterpret_cast<std::byte*>(to.data()), reinterpret_cast<const std::byte*>(first),
                 sizeof(Element), kRows, kColumns, row_step * size, column_step * size});
  for (std::int64_t row = 0; row < static_cast<std::int64_t>(kRows); ++row) {
    for (std::int64_t column = 0; column < static_cast<std::int64_t>(kColumns); ++column) {
      ASSERT_EQ(to[static_cast<std::size_t>(row) * kColumns + static_cast<std::size_t>(column)],
                first[row * row_step + column * column_step]);
    }
  }
  EXPECT_EQ(to.back(), Element{0});
}

TEST(Copy, ElementsOfEveryType) {
  for (const auto& [row, column] : {std::pair{2, 150}, {300, 2}, {-7, 400}, {0, 3}, {1, -1000}}) {
    expect_gathered<std::uint8_t>(row, column);
    expect_gathered<std::uint16_t>(row, column);
    expect_gathered<std::uint32_t>(row, column);
  }
}

TEST(CopyHelper, EveryPieceRunsOnce) {
  for (int round = 0; round < 300; ++round) {
    std::vector<std::atomic<int>> ran(static_cast<std::size_t>(round) % 9);
    shmgemm::client::share_pieces(
        ran.size(),
        [](void* context, std::uint64_t index) {
          ++(*static_cast<std::vector<std::atomic<int>>*>(context))[index];
        },
        &ran);
    for (const auto& count : ran) ASSERT_EQ(count, 1);
  }
}

bool copies_ten_mebibytes() {
  static const Bytes from = numbered(10u << 20);
  for (int i = 0; i < 3; ++i) {
    Bytes to(from.size());
    copy_lines({to.data(), from.data(), from.size()});
    if (to != from) return false;
  }
  return true;
}

TEST(CopyHelper, SeveralThreadsCopyAtATime) {
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { right += copies_ten_mebibytes(); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 4);
}

// ThreadSanitizer allows no thread in a child that was forked off several.
#if !defined(__SANITIZE_THREAD__)
// Forked while other threads copy: the helper is busy, and its lock held, in the parent alone.
TEST(CopyHelper, AForkedChildCopiesToo) {
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) copies_ten_mebibytes();
  });
  ASSERT_TRUE(copies_ten_mebibytes());
  for (int i = 0; i < 5; ++i) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      alarm(30);
      static Bytes from = numbered(9u << 20), to(9u << 20);
      copy_lines({to.data(), from.data(), from.size()});
      _exit(to == from ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  stop = true;
  busy.join();
}
#endif

}  // namespace

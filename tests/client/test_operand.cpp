// Placing operands: what is used in place, what is described as transposed, what is copied, and
// that the copy holds the same numbers.
#include "client/operand.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>
#include <vector>

namespace {

using shmgemm::MatrixView;
using shmgemm::client::Heap;
using shmgemm::client::Operand;
using shmgemm::client::place_input;
using shmgemm::client::place_output;

class OperandTest : public testing::Test {
 protected:
  OperandTest() : heap(std::make_shared<Heap>(4 << 20)) {}

  // The element the operand's command would name, by the definition of leading dimension and
  // stride.
  float at(const Operand& operand, std::uint64_t batch, std::uint64_t row, std::uint64_t column) {
    const auto* base = reinterpret_cast<const float*>(heap->region().base() + operand.offset);
    const std::uint64_t line = operand.transposed ? column : row;
    const std::uint64_t within = operand.transposed ? row : column;
    return base[batch * operand.batch_stride + line * operand.leading_dimension + within];
  }

  void expect_same(const Operand& operand, const MatrixView& view, std::uint32_t batch,
                   std::uint32_t rows, std::uint32_t columns) {
    const auto* data = static_cast<const float*>(view.data);
    for (std::int64_t i = 0; i < batch; ++i) {
      for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t column = 0; column < columns; ++column) {
          ASSERT_EQ(
              at(operand, i, row, column),
              data[i * view.batch_stride + row * view.row_stride + column * view.column_stride]);
        }
      }
    }
  }

  std::shared_ptr<Heap> heap;
};

std::vector<float> numbers(std::size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

TEST_F(OperandTest, UsesTheRegionInPlace) {
  const auto block = heap->allocate(4 * 64);
  const Operand operand = place_input(*heap, {block->data(), 0, 8, 1}, 1, 8, 8, 4);
  EXPECT_EQ(operand.offset, block->offset());
  EXPECT_EQ(operand.bytes_copied, 0u);
  EXPECT_EQ(operand.leading_dimension, 8u);
  EXPECT_FALSE(operand.transposed);
}

TEST_F(OperandTest, DescribesATransposeInPlace) {
  const auto block = heap->allocate(4 * 64);
  const Operand operand = place_input(*heap, {block->data(), 0, 1, 10}, 1, 4, 5, 4);
  EXPECT_TRUE(operand.transposed);
  EXPECT_EQ(operand.leading_dimension, 10u);
  EXPECT_EQ(operand.bytes_copied, 0u);
}

TEST_F(OperandTest, CopiesWhatLiesElsewhereOnce) {
  const auto values = numbers(6 * 7);
  const MatrixView view{values.data(), 0, 7, 1};
  const Operand operand = place_input(*heap, view, 1, 6, 7, 4);
  EXPECT_EQ(operand.bytes_copied, 6u * 7 * 4);
  expect_same(operand, view, 1, 6, 7);
}

TEST_F(OperandTest, CopiesABroadcastBatchOnce) {
  const auto values = numbers(12);
  const Operand operand = place_input(*heap, {values.data(), 0, 4, 1}, 5, 3, 4, 4);
  EXPECT_EQ(operand.bytes_copied, 12u * 4);
  EXPECT_EQ(operand.batch_stride, 0u);
  expect_same(operand, {values.data(), 0, 4, 1}, 5, 3, 4);
}

TEST_F(OperandTest, RandomViewsKeepTheirNumbers) {
  std::mt19937 random(3);
  const auto outside = numbers(20000);
  const auto block = heap->allocate(20000 * 4);
  std::memcpy(block->data(), outside.data(), 20000 * 4);
  for (int i = 0; i < 3000; ++i) {
    const std::uint32_t batch = 1 + random() % 3, rows = 1 + random() % 6,
                        columns = 1 + random() % 6;
    const auto stride = [&] { return static_cast<std::int64_t>(random() % 9); };
    MatrixView view{nullptr, stride() * 7, stride(), stride()};
    if (random() % 2 == 0) view.column_stride = 1;
    if (random() % 4 == 0) view.row_stride = 1;
    view.data = random() % 2 == 0 ? static_cast<const void*>(outside.data()) : block->data();
    const Operand operand = place_input(*heap, view, batch, rows, columns, 4);
    expect_same(operand, view, batch, rows, columns);
    EXPECT_LE(operand.bytes_copied, std::uint64_t{batch} * rows * columns * 5);  // gaps: a quarter
    EXPECT_GE(operand.leading_dimension, operand.transposed ? rows : columns);
  }
}

TEST_F(OperandTest, SmallGapsAreCopiedAlongAndLargeOnesAreNot) {
  const auto values = numbers(4000);
  const MatrixView small{values.data(), 0, 12, 1}, large{values.data(), 0, 40, 1};
  const Operand with_gaps = place_input(*heap, small, 1, 20, 10, 4);
  EXPECT_EQ(with_gaps.bytes_copied, (19u * 12 + 10) * 4);
  EXPECT_EQ(with_gaps.leading_dimension, 12u);
  expect_same(with_gaps, small, 1, 20, 10);
  const Operand packed = place_input(*heap, large, 1, 20, 10, 4);
  EXPECT_EQ(packed.bytes_copied, 20u * 10 * 4);
  expect_same(packed, large, 1, 20, 10);
}

// [rows, heads, width] seen as [heads, rows, width]: every head at once, as it lies.
TEST_F(OperandTest, InterleavedBatchesAreDescribedAndCopiedAsOnePiece) {
  const auto values = numbers(6 * 4 * 5);
  const MatrixView heads{values.data(), 5, 20, 1};
  const Operand copy = place_input(*heap, heads, 4, 6, 5, 4);
  EXPECT_EQ(copy.bytes_copied, values.size() * 4);
  EXPECT_EQ(copy.batch_stride, 5u);
  expect_same(copy, heads, 4, 6, 5);
  const auto block = heap->allocate(values.size() * 4);
  std::memcpy(block->data(), values.data(), values.size() * 4);
  const Operand there = place_input(*heap, {block->data(), 5, 20, 1}, 4, 6, 5, 4);
  EXPECT_EQ(there.bytes_copied, 0u);
  expect_same(there, heads, 4, 6, 5);
}

TEST_F(OperandTest, WindowsThatShareElementsAreCopiedOnce) {
  const auto values = numbers(100);
  const MatrixView windows{values.data(), 4, 4, 1};
  const Operand operand = place_input(*heap, windows, 20, 2, 4, 4);
  EXPECT_EQ(operand.bytes_copied, 21u * 4 * 4);
  expect_same(operand, windows, 20, 2, 4);
}

TEST_F(OperandTest, RowsThatOverlapAreStaged) {
  const auto block = heap->allocate(4 * 64);
  auto* const values = static_cast<float*>(block->data());
  std::iota(values, values + 64, 1.0f);
  for (const std::int64_t step : {0, 3}) {
    const MatrixView view{values, 0, step, 1};
    const Operand operand = place_input(*heap, view, 1, 6, 8, 4);
    EXPECT_EQ(operand.bytes_copied, 6u * 8 * 4);
    expect_same(operand, view, 1, 6, 8);
  }
}

TEST_F(OperandTest, ElementsApartAreCopiedAlongTheirMemory) {
  const auto values = numbers(40 * 60);
  const MatrixView view{values.data(), 0, 2, 60};
  const Operand operand = place_input(*heap, view, 1, 20, 30, 4);
  EXPECT_TRUE(operand.transposed);
  EXPECT_EQ(operand.bytes_copied, 20u * 30 * 4);
  expect_same(operand, view, 1, 20, 30);
}

TEST_F(OperandTest, NegativeStridesAreCopied) {
  const auto values = numbers(12);
  const MatrixView view{values.data() + 11, 0, -4, -1};
  const Operand operand = place_input(*heap, view, 1, 3, 4, 4);
  expect_same(operand, view, 1, 3, 4);
}

TEST_F(OperandTest, AnOutputElsewhereIsFetchedBack) {
  std::vector<float> c(4 * 10, -1.0f);
  const MatrixView view{c.data(), 0, 10, 1};
  const Operand output = place_output(*heap, view, 1, 4, 3, 4, false);
  ASSERT_NE(output.staged, nullptr);
  const auto values = numbers(12);
  std::memcpy(output.staged->data(), values.data(), 48);
  EXPECT_EQ(fetch_output(output, view, 1, 4, 3, 4), 48u);
  for (int row = 0; row < 4; ++row) {
    for (int column = 0; column < 10; ++column) {
      EXPECT_EQ(c[row * 10 + column], column < 3 ? values[row * 3 + column] : -1.0f);
    }
  }
}

TEST_F(OperandTest, AnOutputToAddToIsLoaded) {
  auto c = numbers(12);
  const Operand output = place_output(*heap, {c.data(), 0, 4, 1}, 1, 3, 4, 4, true);
  expect_same(output, {c.data(), 0, 4, 1}, 1, 3, 4);
}

TEST_F(OperandTest, AFullRegionSaysHowFull) {
  const auto most = heap->allocate((2 << 20) - 4096);
  ASSERT_NE(most, nullptr);
  const auto values = numbers(4096);
  try {
    place_input(*heap, {values.data(), 0, 64, 1}, 1, 64, 64, 4);
    FAIL();
  } catch (const shmgemm::RegionFull& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("16384 bytes"), std::string::npos) << text;
    EXPECT_NE(text.find("4096"), std::string::npos) << text;
    EXPECT_NE(text.find("region="), std::string::npos) << text;
  }
}

}  // namespace

#include "model/pe_grid.h"

#include <stdexcept>
#include <string>

namespace shmgemm::model {

float Float32Arithmetic::multiply_add(float sum, float a, float b) {
  const float product = a * b;  // built with -ffp-contract=off
  return sum + product;
}

std::int32_t Int8Arithmetic::multiply_add(std::int32_t sum, std::int8_t a, std::int8_t b) {
  const std::int32_t product = static_cast<std::int32_t>(a) * b;
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(sum) +
                                   static_cast<std::uint32_t>(product));
}

// --- weights stay

template <typename Arithmetic>
WeightGrid<Arithmetic>::WeightGrid(std::uint64_t rows, std::uint64_t columns)
    : rows_(rows), columns_(columns), pes_(rows * columns), next_(rows * columns) {}

template <typename Arithmetic>
const typename WeightGrid<Arithmetic>::Pe& WeightGrid<Arithmetic>::pe(std::uint64_t row,
                                                                      std::uint64_t column) const {
  return pes_[row * columns_ + column];
}

template <typename Arithmetic>
ColumnOutput<typename Arithmetic::Sum> WeightGrid<Arithmetic>::output(std::uint64_t column) const {
  const Pe& bottom = pe(rows_ - 1, column);
  return {bottom.sum, bottom.sum_valid};
}

template <typename Arithmetic>
void WeightGrid<Arithmetic>::clock(const Ports& ports) {
  for (std::uint64_t i = 0; i < rows_; ++i) {
    for (std::uint64_t j = 0; j < columns_; ++j) {
      const Pe& now = pe(i, j);
      const Pe* const above = i == 0 ? nullptr : &pe(i - 1, j);
      const Moving& a = j == 0 ? ports.rows[i] : pe(i, j - 1).a;
      const Load& load = ports.columns[j];
      Pe& next = next_[i * columns_ + j];

      const Input used = a.first ? now.shadow : now.weight;
      const Sum sum_above = above == nullptr ? Sum{0} : above->sum;
      next.a = a;
      next.weight = a.valid ? used : now.weight;
      next.sum = a.valid ? Arithmetic::multiply_add(sum_above, a.value, used) : sum_above;
      next.sum_valid = above == nullptr ? a.valid : above->sum_valid;

      const bool reached = above == nullptr || (!load.first && above->filled);
      next.filled = load.enable ? reached : now.filled;
      next.shadow = now.shadow;
      if (load.enable && reached) next.shadow = above == nullptr ? load.weight : above->shadow;
    }
  }
  pes_.swap(next_);
}

// --- sums stay

template <typename Arithmetic>
OutputGrid<Arithmetic>::OutputGrid(std::uint64_t rows, std::uint64_t columns)
    : rows_(rows), columns_(columns), pes_(rows * columns), next_(rows * columns) {}

template <typename Arithmetic>
const typename OutputGrid<Arithmetic>::Pe& OutputGrid<Arithmetic>::pe(std::uint64_t row,
                                                                      std::uint64_t column) const {
  return pes_[row * columns_ + column];
}

template <typename Arithmetic>
bool OutputGrid<Arithmetic>::moves(std::uint64_t row, std::uint64_t column,
                                   const Ports& ports) const {
  const Result& result = pe(row, column).result;
  return result.present && (result.moving || ports.release[column]);
}

template <typename Arithmetic>
ColumnOutput<typename Arithmetic::Sum> OutputGrid<Arithmetic>::output(std::uint64_t column,
                                                                      const Ports& ports) const {
  return {pe(rows_ - 1, column).result.value, moves(rows_ - 1, column, ports)};
}

template <typename Arithmetic>
typename OutputGrid<Arithmetic>::Result OutputGrid<Arithmetic>::next_result(
    std::uint64_t row, std::uint64_t column, const Ports& ports, bool made, Sum sum) const {
  const Result& now = pe(row, column).result;
  const bool leaves = moves(row, column, ports);
  const bool arrives = row > 0 && moves(row - 1, column, ports);
  if (made + arrives + (now.present && !leaves) > 1) {
    throw std::logic_error("two results meet in PE " + std::to_string(row) + "," +
                           std::to_string(column));
  }
  if (made) return {sum, true, false};
  if (arrives) return {pe(row - 1, column).result.value, true, true};
  return leaves ? Result{} : now;
}

template <typename Arithmetic>
void OutputGrid<Arithmetic>::clock(const Ports& ports) {
  for (std::uint64_t i = 0; i < rows_; ++i) {
    for (std::uint64_t j = 0; j < columns_; ++j) {
      const Pe& now = pe(i, j);
      const Moving& a = j == 0 ? ports.rows[i] : pe(i, j - 1).a;
      const Falling& b = i == 0 ? ports.columns[j] : pe(i - 1, j).b;
      Pe& next = next_[i * columns_ + j];
      next.a = a;
      next.b = b;
      next.sum = now.sum;
      const bool works = a.valid && b.valid;
      if (works) {
        next.sum = Arithmetic::multiply_add(a.first ? Sum{0} : now.sum, a.value, b.value);
      }
      next.result = next_result(i, j, ports, works && a.last, next.sum);
    }
  }
  pes_.swap(next_);
}

template class WeightGrid<Float32Arithmetic>;
template class WeightGrid<Int8Arithmetic>;
template class OutputGrid<Float32Arithmetic>;
template class OutputGrid<Int8Arithmetic>;

}  // namespace shmgemm::model

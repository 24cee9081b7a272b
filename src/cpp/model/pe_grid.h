// The registers of a systolic array and what one clock edge does to them: a grid whose weights stay
// (WeightGrid) and one whose sums stay (OutputGrid). Ports, registers and edge are those of
// tests/rtl/*.sv, so that the two can be compared cycle by cycle. Who feeds the ports is
// pe_array.h's matter.
#pragma once

#include <cstdint>
#include <vector>

namespace shmgemm::model {

// float32, or float16 and bfloat16 widened (exact): the product is rounded to float32, then the sum
// is; never fused.
struct Float32Arithmetic {
  using Input = float;
  using Sum = float;
  static Sum multiply_add(Sum sum, Input a, Input b);
};

// int8 into int32, modulo 2^32.
struct Int8Arithmetic {
  using Input = std::int8_t;
  using Sum = std::int32_t;
  static Sum multiply_add(Sum sum, Input a, Input b);
};

// Stands at the output of a column during one cycle.
template <typename Sum>
struct ColumnOutput {
  Sum sum = 0;
  bool valid = false;
};

// PE(i, j) in each cycle, with `a` from the left and `sum` from above (0 at the top):
//   used     = a.first ? shadow : weight
//   sum'     = a.valid ? sum + a * used : sum          a' = a, to the right
//   weight'  = used, where a is valid
//   shadow'  = the shadow above (the port at the top), where the column loads and row i - 1 has
//              been given a value by this load: rows that the load has not reached keep theirs.
template <typename Arithmetic>
class WeightGrid {
 public:
  using Input = typename Arithmetic::Input;
  using Sum = typename Arithmetic::Sum;

  struct Moving {
    Input value = 0;
    bool valid = false;
    bool first = false;  // the tile's first: this PE takes over its shadow weight
  };
  struct Load {
    Input weight = 0;
    bool enable = false;
    bool first = false;  // the first row of this load
  };
  struct Pe {
    Input shadow = 0;
    Input weight = 0;
    Moving a;
    Sum sum = 0;
    bool sum_valid = false;
    bool filled = false;  // by the present load
  };
  struct Ports {
    std::vector<Moving> rows;   // R, from the left
    std::vector<Load> columns;  // C, from the top
  };

  WeightGrid(std::uint64_t rows, std::uint64_t columns);

  // What leaves the bottom during this cycle: registers as they stand before the edge.
  ColumnOutput<Sum> output(std::uint64_t column) const;
  void clock(const Ports& ports);
  const Pe& pe(std::uint64_t row, std::uint64_t column) const;

 private:
  std::uint64_t rows_, columns_;
  std::vector<Pe> pes_, next_;
};

// PE(i, j) in each cycle, with `a` from the left and `b` from above:
//   sum'   = (a.first ? 0 : sum) + a * b, where both are valid; where a.last too, result = sum'
//   a' = a, to the right; b' = b, down
//   A result rests where it was made until its column is released, and then moves down one row a
//   cycle. Results must not meet: std::logic_error.
template <typename Arithmetic>
class OutputGrid {
 public:
  using Input = typename Arithmetic::Input;
  using Sum = typename Arithmetic::Sum;

  struct Moving {
    Input value = 0;
    bool valid = false;
    bool first = false;  // of the tile's stream
    bool last = false;
  };
  struct Falling {
    Input value = 0;
    bool valid = false;
  };
  struct Result {
    Sum value = 0;
    bool present = false;
    bool moving = false;
  };
  struct Pe {
    Moving a;
    Falling b;
    Sum sum = 0;
    Result result;
  };
  struct Ports {
    std::vector<Moving> rows;      // R, from the left
    std::vector<Falling> columns;  // C, from the top
    std::vector<bool> release;     // C: what rests in this column begins to move
  };

  OutputGrid(std::uint64_t rows, std::uint64_t columns);

  ColumnOutput<Sum> output(std::uint64_t column, const Ports& ports) const;
  void clock(const Ports& ports);
  const Pe& pe(std::uint64_t row, std::uint64_t column) const;

 private:
  bool moves(std::uint64_t row, std::uint64_t column, const Ports& ports) const;
  Result next_result(std::uint64_t row, std::uint64_t column, const Ports& ports, bool made,
                     Sum sum) const;

  std::uint64_t rows_, columns_;
  std::vector<Pe> pes_, next_;
};

extern template class WeightGrid<Float32Arithmetic>;
extern template class WeightGrid<Int8Arithmetic>;
extern template class OutputGrid<Float32Arithmetic>;
extern template class OutputGrid<Int8Arithmetic>;

}  // namespace shmgemm::model

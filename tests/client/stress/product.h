// One random product of the stress test: operands in the region or outside it, of small integers,
// so that every type holds each sum exactly and a triple loop says to the bit what C must be.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "client/session.h"

namespace stress {

using Random = std::mt19937_64;

inline std::uint64_t below(Random& random, std::uint64_t end) { return random() % end; }
inline bool one_in(Random& random, std::uint64_t n) { return below(random, n) == 0; }

constexpr std::uint32_t kDevices = 2;

// Memory of a matrix, its elements set; gone with it.
struct Matrix {
  std::shared_ptr<shmgemm::Block> block;  // null: it lies in `own`
  std::vector<std::uint32_t> own;
  shmgemm::MatrixView view;
};

class Product {
 public:
  Product(shmgemm::Session& session, Random& random);
  // A is the C of `input`, whose next_may_read().
  Product(shmgemm::Session& session, Random& random, std::shared_ptr<Product> input);
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  const shmgemm::GemmCall& call() const { return call_; }
  shmgemm::GemmCall& call() { return call_; }
  const std::shared_ptr<Product>& input() const { return input_; }
  bool next_may_read() const;  // float32 that lies in the region, and no long chain
  std::string wrong() const;   // where C is not what a triple loop over A and B says; else empty

  const std::shared_ptr<shmgemm::Future>& future() const { return future_; }
  // Before another thread sees it.
  void set_future(std::shared_ptr<shmgemm::Future> future) { future_ = std::move(future); }

  bool lost = false;  // of its own thread alone

 private:
  void draw_shape(Random& random);
  void place_operands(shmgemm::Session& session, Random& random);
  Matrix place(shmgemm::Session& session, Random& random, std::uint32_t rows, std::uint32_t columns,
               std::uint8_t dtype, bool may_turn);
  double expected(std::uint32_t entry, std::uint32_t row, std::uint32_t column) const;

  shmgemm::GemmCall call_;
  Matrix a_, b_, c_;
  std::vector<std::int32_t> int_bias_;
  std::vector<float> float_bias_;
  std::vector<double> before_;  // C's elements where it accumulates
  std::shared_ptr<Product> input_;
  std::shared_ptr<shmgemm::Future> future_;  // the last, so that it goes before its operands do
};

}  // namespace stress

// Memory that inline matrices may take, over all connections. A frame reserves what its operands
// and its product need before any of them arrives, and gives it back when the product has been
// sent, so that clients who are slow or lie cannot exhaust the machine.
#pragma once

#include <cstdint>
#include <utility>

namespace shmgemm::server {

class Budget {
 public:
  explicit Budget(std::uint64_t bytes) : left_(bytes) {}

  class Reservation {
   public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
    Reservation& operator=(Reservation&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Reservation() {
      if (budget_ == nullptr) return;
      budget_->left_ += bytes_;
      budget_->released_ = true;
    }
    explicit operator bool() const { return budget_ != nullptr; }

   private:
    friend class Budget;
    Budget* budget_ = nullptr;
    std::uint64_t bytes_ = 0;
  };

  // False in the result where there is not so much left.
  Reservation reserve(std::uint64_t bytes) {
    Reservation reservation;
    if (bytes > left_) return reservation;
    left_ -= bytes;
    reservation.budget_ = this;
    reservation.bytes_ = bytes;
    return reservation;
  }

  // Has anything been given back since this was last asked?
  bool take_released() { return std::exchange(released_, false); }

 private:
  std::uint64_t left_;
  bool released_ = false;
};

}  // namespace shmgemm::server

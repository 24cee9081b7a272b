#include "region/allocator.h"

#include <iterator>

#include "abi/shmgemm_abi.h"

namespace shmgemm::region {
namespace {

std::uint64_t round_up(std::uint64_t value, std::uint64_t to) { return (value + to - 1) / to * to; }

}  // namespace

Allocator::Allocator(std::uint64_t begin, std::uint64_t end)
    : begin_(begin), end_(end), recent_(kRecentBytes / SHMGEMM_BLOCK_ALIGN + 1) {
  add_free(begin, end - begin);
}

std::uint64_t Allocator::allocate(std::uint64_t bytes) {
  if (bytes > end_ - begin_) return 0;
  const bool large = bytes >= SHMGEMM_LARGE_BLOCK_BYTES;
  const std::uint64_t align = large ? SHMGEMM_PAGE_BYTES : SHMGEMM_BLOCK_ALIGN;
  bytes = round_up(bytes == 0 ? 1 : bytes, align);
  const std::lock_guard<std::mutex> lock(mutex_);
  std::uint64_t offset = take_recent(bytes);
  if (offset == 0) offset = take_best_fit(bytes, align);
  if (offset == 0) {
    drop_recent();
    offset = take_best_fit(bytes, align);
  }
  if (offset == 0) return 0;
  live_.emplace(offset, Live{bytes, 1});
  used_ += bytes;
  return offset;
}

void Allocator::release(std::uint64_t offset) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto block = live_.find(offset);
  if (block == live_.end() || --block->second.holders > 0) return;
  const std::uint64_t bytes = block->second.bytes;
  used_ -= bytes;
  live_.erase(block);
  if (bytes <= kRecentBytes && recent_[bytes / SHMGEMM_BLOCK_ALIGN].size() < kRecentPerSize) {
    recent_[bytes / SHMGEMM_BLOCK_ALIGN].push_back(offset);
  } else {
    give_back(offset, bytes);
  }
}

bool Allocator::retain_containing(std::uint64_t offset, std::uint64_t* first_byte) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto block = live_.upper_bound(offset);
  if (block == live_.begin()) return false;
  --block;
  if (offset - block->first >= block->second.bytes) return false;
  ++block->second.holders;
  *first_byte = block->first;
  return true;
}

std::uint64_t Allocator::used_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return used_;
}

std::uint64_t Allocator::largest_free_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return free_by_size_.empty() ? 0 : free_by_size_.rbegin()->first;
}

std::uint64_t Allocator::take_recent(std::uint64_t bytes) {
  if (bytes > kRecentBytes) return 0;
  auto& blocks = recent_[bytes / SHMGEMM_BLOCK_ALIGN];
  if (blocks.empty()) return 0;
  const std::uint64_t offset = blocks.back();
  blocks.pop_back();
  return offset;
}

std::uint64_t Allocator::take_best_fit(std::uint64_t bytes, std::uint64_t align) {
  for (auto fit = free_by_size_.lower_bound({bytes, 0}); fit != free_by_size_.end(); ++fit) {
    const auto [extent_bytes, extent] = *fit;
    const std::uint64_t offset = round_up(extent, align);
    const std::uint64_t before = offset - extent;
    if (before + bytes > extent_bytes) continue;
    remove_free(free_.find(extent));
    if (before > 0) add_free(extent, before);
    if (before + bytes < extent_bytes) add_free(offset + bytes, extent_bytes - before - bytes);
    return offset;
  }
  return 0;
}

void Allocator::give_back(std::uint64_t offset, std::uint64_t bytes) {
  auto next = free_.lower_bound(offset);
  if (next != free_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      offset = previous->first;
      bytes += previous->second;
      remove_free(previous);
    }
  }
  if (next != free_.end() && offset + bytes == next->first) {
    bytes += next->second;
    remove_free(next);
  }
  add_free(offset, bytes);
}

void Allocator::drop_recent() {
  for (std::size_t units = 0; units < recent_.size(); ++units) {
    for (const std::uint64_t offset : recent_[units])
      give_back(offset, units * SHMGEMM_BLOCK_ALIGN);
    recent_[units].clear();
  }
}

void Allocator::add_free(std::uint64_t offset, std::uint64_t bytes) {
  free_.emplace(offset, bytes);
  free_by_size_.emplace(bytes, offset);
}

void Allocator::remove_free(Extents::iterator extent) {
  free_by_size_.erase({extent->second, extent->first});
  free_.erase(extent);
}

}  // namespace shmgemm::region

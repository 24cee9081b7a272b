#include "client/heap.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "client/process.h"

namespace shmgemm::client {
namespace {

class HeapBlock final : public Block {
 public:
  HeapBlock(std::shared_ptr<Heap> heap, std::uint64_t offset, std::uint64_t bytes)
      : heap_(std::move(heap)), offset_(offset), bytes_(bytes) {}
  ~HeapBlock() override {
    if (heap_->ours()) heap_->release(offset_);
  }
  void* data() const override { return heap_->region().base() + offset_; }
  std::uint64_t bytes() const override { return bytes_; }
  std::uint64_t offset() const override { return offset_; }

 private:
  std::shared_ptr<Heap> heap_;
  std::uint64_t offset_;
  std::uint64_t bytes_;
};

}  // namespace

Heap::Heap(std::uint64_t region_bytes, std::uint64_t guest_arena_bytes, std::uint32_t engines,
           std::uint32_t clients)
    : region_(region::Region::create(region_bytes, 1, guest_arena_bytes, engines, clients)),
      begin_(region_->arena(SHMGEMM_ARENA_LEASED).offset),
      end_(begin_ + region_->arena(SHMGEMM_ARENA_LEASED).bytes),
      allocator_(begin_, end_),
      epoch_(process_epoch()) {}

Heap::Heap(std::shared_ptr<region::Region> region, region::ArenaLease lease)
    : region_(std::move(region)),
      leased_(true),
      lease_(std::move(lease)),
      begin_(lease_->begin()),
      end_(lease_->end()),
      allocator_(begin_, end_),
      epoch_(process_epoch()) {}

std::shared_ptr<Heap> Heap::lease(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) throw Unsupported("region '" + path + "': " + std::strerror(errno));
  auto region = region::Region::attach(fd);
  region::ArenaLease lease = region->lease_arena();
  return std::shared_ptr<Heap>(new Heap(std::move(region), std::move(lease)));
}

std::shared_ptr<Heap> Heap::join(std::shared_ptr<region::Region> region, std::uint32_t queue_pair) {
  region::ArenaLease lease(region->fd(), region->client_arena(queue_pair));
  if (!lease.held()) {
    throw RegionFull("the arena of queue pair " + std::to_string(queue_pair) +
                     " is leased by another process");
  }
  return std::shared_ptr<Heap>(new Heap(std::move(region), std::move(lease)));
}

bool Heap::ours() const { return epoch_ == process_epoch(); }

std::shared_ptr<Block> Heap::allocate(std::uint64_t bytes) {
  std::unique_lock<std::mutex> lock(lease_mutex_, std::defer_lock);
  if (leased_) lock.lock();
  if (retired_) throw DeviceLost("this session is over, and its arena let go; attach again");
  const std::uint64_t offset = allocator_.allocate(bytes);
  if (offset == 0) return nullptr;
  return std::make_shared<HeapBlock>(shared_from_this(), offset, bytes);
}

void Heap::release(std::uint64_t offset) {
  allocator_.release(offset);
  if (!leased_) return;
  const std::lock_guard<std::mutex> lock(lease_mutex_);
  if (retired_ && allocator_.used_bytes() == 0) lease_.reset();
}

void Heap::retire() {
  if (!leased_) return;
  const std::lock_guard<std::mutex> lock(lease_mutex_);
  retired_ = true;
  if (allocator_.used_bytes() == 0) lease_.reset();
}

bool Heap::contains(const void* data, std::uint64_t bytes) const {
  const auto begin = reinterpret_cast<std::uintptr_t>(region_->base()) + begin_;
  const auto end = reinterpret_cast<std::uintptr_t>(region_->base()) + end_;
  const auto at = reinterpret_cast<std::uintptr_t>(data);
  return at >= begin && at <= end && bytes <= end - at;
}

std::uint64_t Heap::offset_of(const void* data) const {
  return static_cast<std::uint64_t>(static_cast<const std::byte*>(data) - region_->base());
}

}  // namespace shmgemm::client

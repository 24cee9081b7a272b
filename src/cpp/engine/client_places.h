// The queue pairs that a region keeps for clients which come and go (shmgemm_link.h). One is handed
// out empty, and again only once the engine has dropped every op of the client before and nobody
// holds its arena any more: a tensor in it may outlive the client's session.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/queue_pair.h"
#include "region/region.h"

namespace shmgemm::engine {

// As long as someone refers to it, its queue pair is nobody else's.
class ClientQueuePair final : public QueuePair {
 public:
  ClientQueuePair(region::Region& region, std::uint32_t index, std::function<void()> given_back);
  ~ClientQueuePair() override;

  bool gone() const override { return gone_.load(); }
  void hang_up() { gone_.store(true); }
  std::uint32_t index() const { return index_; }

 private:
  const std::uint32_t index_;
  const std::function<void()> given_back_;
  std::atomic<bool> gone_{false};
};

class ClientPlaces : public std::enable_shared_from_this<ClientPlaces> {
 public:
  // `freed` is called from any thread.
  ClientPlaces(std::shared_ptr<region::Region> region, std::function<void()> freed);

  std::uint32_t count() const { return static_cast<std::uint32_t>(places_.size()); }
  const region::Region& region() const { return *region_; }

  // --- the control thread ------------------------------------------------------------------------
  std::shared_ptr<ClientQueuePair> take();  // null where none is free
  bool any_free() const;
  bool all_in_use() const;  // by clients that are there

 private:
  struct Place {
    std::uint32_t queue_pair;
    shmgemm_arena arena;
    std::atomic<bool> taken{false};
    std::weak_ptr<ClientQueuePair> holder;
  };

  bool is_free(const Place& place) const;

  const std::shared_ptr<region::Region> region_;
  const std::function<void()> freed_;
  std::vector<std::unique_ptr<Place>> places_;
};

}  // namespace shmgemm::engine

#include "engine/client_places.h"

#include <algorithm>
#include <utility>

namespace shmgemm::engine {

ClientQueuePair::ClientQueuePair(region::Region& region, std::uint32_t index,
                                 std::function<void()> given_back)
    : QueuePair(region, index), index_(index), given_back_(std::move(given_back)) {}

ClientQueuePair::~ClientQueuePair() { given_back_(); }

ClientPlaces::ClientPlaces(std::shared_ptr<region::Region> region, std::function<void()> freed)
    : region_(std::move(region)), freed_(std::move(freed)) {
  for (std::uint32_t i = 0; i < region_->queue_pairs(); ++i) {
    const shmgemm_arena arena = region_->client_arena(i);
    if (arena.bytes == 0) continue;
    places_.push_back(std::make_unique<Place>());
    places_.back()->queue_pair = i;
    places_.back()->arena = arena;
  }
}

bool ClientPlaces::is_free(const Place& place) const {
  return !place.taken.load() && !region::ArenaLease::is_held(region_->fd(), place.arena);
}

bool ClientPlaces::any_free() const {
  return std::any_of(places_.begin(), places_.end(),
                     [this](const auto& place) { return is_free(*place); });
}

bool ClientPlaces::all_in_use() const {
  return std::all_of(places_.begin(), places_.end(), [](const auto& place) {
    const auto holder = place->holder.lock();
    return holder && !holder->gone();
  });
}

std::shared_ptr<ClientQueuePair> ClientPlaces::take() {
  for (const auto& place : places_) {
    if (!is_free(*place)) continue;
    place->taken.store(true);
    region_->clear_queue_pair(place->queue_pair);
    const auto give_back = [self = shared_from_this(), &taken = place->taken] {
      taken.store(false);
      self->freed_();
    };
    const auto pair = std::make_shared<ClientQueuePair>(*region_, place->queue_pair, give_back);
    place->holder = pair;
    return pair;
  }
  return nullptr;
}

}  // namespace shmgemm::engine

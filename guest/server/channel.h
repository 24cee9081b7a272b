// One client's way to an engine, as records: ids and streams on it are its own. Two kinds: an open
// /dev/sst0 (device_channel.cpp) and a link to an engine on this host (link_channel.cpp).
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "abi/shmgemm_abi.h"
#include "region_view.h"

namespace shmgemm::server {

// There is no engine (any more) on a channel; says why.
struct ChannelLost : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Who is at the other end.
struct Peer {
  std::uint32_t devices = 0;
  std::uint32_t generation = 0;
  std::uint64_t region_bytes = 0;
  std::uint64_t region_id[2] = {0, 0};
  std::uint64_t clock_hz = 0;
};

class Channel {
 public:
  virtual ~Channel() = default;
  virtual int fd() const = 0;
  virtual std::uint32_t wanted_events() const = 0;  // after each send and receive
  // Both throw ChannelLost. `send` says how many of the commands it took; for the rest, wait for an
  // event.
  virtual std::size_t send(std::span<const shmgemm_command> commands) = 0;
  virtual void receive(std::uint32_t events, std::vector<shmgemm_completion>& completions) = 0;
  // nullptr while it has not said who it is.
  virtual const Peer* peer() const = 0;
  // Throws ChannelLost where another engine, or none, has taken the peer's place without a word.
  virtual void check() const {}
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;  // "/dev/sst0"
  // Both throw ChannelLost.
  virtual std::unique_ptr<Channel> open() = 0;
  virtual std::unique_ptr<RegionView> map_region(const Channel& channel) = 0;
  // Whoever else counts along the way: members of STATUS.
  virtual nlohmann::json counters() = 0;
};

std::unique_ptr<Backend> device_backend(const std::string& path);
std::unique_ptr<Backend> link_backend(const std::string& link, const std::string& region);

}  // namespace shmgemm::server

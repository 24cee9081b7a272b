// A host without processes: it owns a region, writes commands and reads completions, and drives a
// HostPort in the same thread. Products take m·n·k - 1 cycles: the os closed form on one PE.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/host_port.h"
#include "model/event_queue.h"
#include "model/supervision.h"
#include "region/ring.h"

namespace shmgemm::test {

class Host {
 public:
  explicit Host(std::uint32_t devices = 1, std::uint32_t queue_pairs = 1,
                const model::ParameterMap& parameters = {{"model", "scalesim_os"},
                                                         {"clock", "1GHz"},
                                                         {"rows", "1"},
                                                         {"cols", "1"}},
                model::EventLimits limits = {}, std::uint32_t clients = 0)
      : region(region::Region::create(4 << 20, queue_pairs, 0, 1, clients)) {
    region->begin_generation();
    engine::HostPortOptions options;
    options.compute = [this](const compute::Gemm* gemms, std::size_t count) {
      products.insert(products.end(), gemms, gemms + count);
    };
    options.log = [this](const std::string& text) { log.push_back(text); };
    options.limits = limits;
    const model::Hardware hardware(parameters);
    port = std::make_unique<engine::HostPort>(
        region, std::vector<engine::DeviceSetup>(devices, {hardware}), events, options);
    for (std::uint32_t i = 0; i < queue_pairs; ++i) {
      commands.emplace_back(region->queue_pair(i)->commands, SHMGEMM_RING_SLOTS);
      completions.emplace_back(region->queue_pair(i)->completions, SHMGEMM_RING_SLOTS);
    }
  }

  shmgemm_command command(shmgemm_op op, std::uint64_t id) const {
    shmgemm_command result{};
    result.op = op;
    result.id = id;
    result.generation = region->generation();
    return result;
  }

  // A product that takes `cycles` cycles.
  shmgemm_command product(std::uint64_t id, std::uint32_t cycles) const {
    shmgemm_command result = command(SHMGEMM_OP_GEMM, id);
    result.dtype_in = result.dtype_out = SHMGEMM_DTYPE_FLOAT32;
    result.m = result.n = result.batch = 1;
    result.k = cycles + 1;
    result.lda = result.k;
    result.ldb = result.ldc = 1;
    result.a = region->heap_begin();
    result.b = region->heap_begin() + (1 << 20);
    result.c = region->heap_begin() + (1 << 20) + (1 << 19);
    return result;
  }

  void send(const shmgemm_command& record, std::uint32_t queue_pair = 0) {
    commands[queue_pair].publish(record);
  }

  // Serves until the engine has nothing to do; then takes what it has published.
  void serve() {
    while (port->poll()) {
      while (port->flushing()) port->run_next();
    }
    collect();
  }

  void collect() {
    for (std::size_t i = 0; i < completions.size(); ++i) {
      shmgemm_completion completion;
      while (completions[i].poll(completion)) {
        order.push_back(completion.id);
        by_id[completion.id] = completion;
      }
    }
  }

  bool has(std::uint64_t id) const { return by_id.count(id) == 1; }
  std::uint64_t start(std::uint64_t id) const { return by_id.at(id).start_cycles; }
  std::uint64_t end(std::uint64_t id) const { return by_id.at(id).end_cycles; }
  unsigned status(std::uint64_t id) const { return by_id.at(id).status; }

  std::shared_ptr<region::Region> region;
  model::EventQueue events;
  std::unique_ptr<engine::HostPort> port;
  std::vector<region::RingProducer<shmgemm_command>> commands;
  std::vector<region::RingConsumer<shmgemm_completion>> completions;
  std::vector<compute::Gemm> products;
  std::vector<std::string> log;
  std::map<std::uint64_t, shmgemm_completion> by_id;
  std::vector<std::uint64_t> order;
};

}  // namespace shmgemm::test

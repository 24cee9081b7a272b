#include "gemm_device.h"

#include <sst/core/output.h>

#include <sstream>

#include "host_port.h"
#include "model/event_queue.h"
#include "model/plugin.h"
#include "model/supervision.h"

namespace shmgemm::sst_element {
namespace {

constexpr unsigned kMostDevices = 255;

}  // namespace

GemmDevice::GemmDevice(SST::ComponentId_t id, SST::Params& params) : SST::Component(id) {
  try {
    describe(params);
  } catch (...) {
    fail(getName() + " (shmgemm.GemmDevice)", model::current_exception_text());
  }
  register_statistics();
  House& house = House::ours();
  const std::lock_guard<std::mutex> lock(house.mutex);
  const auto [entry, is_new] = house.devices.emplace(index_, this);
  if (!is_new) {
    fail(getName(), "device = " + std::to_string(index_) + " is the number of " +
                        entry->second->getName() + " as well");
  }
}

GemmDevice::~GemmDevice() {
  House& house = House::ours();
  const std::lock_guard<std::mutex> lock(house.mutex);
  house.devices.erase(index_);
}

void GemmDevice::describe(SST::Params& params) {
  model::ParameterMap hardware;
  for (const std::string& key : params.getKeys()) hardware[key] = params.find<std::string>(key);
  std::stringstream plugins(hardware["plugins"]);
  for (std::string file; std::getline(plugins, file, ':');) {
    if (!file.empty()) model::load_plugin(file);
  }
  const model::Parameters own(
      {{"device", model::Unit::kCount, "0", "", 0, kMostDevices - 1, {}}},
      {{"device", hardware.count("device") == 1 ? hardware["device"] : "0"}});
  index_ = static_cast<unsigned>(own.count("device"));
  hardware.erase("device");
  hardware.erase("plugins");
  hardware_ = std::make_unique<model::Hardware>(hardware);
  model::EventQueue unused;
  peak_macs_per_cycle_ = hardware_->create_model(unused, nullptr)->peak_macs_per_cycle();
}

void GemmDevice::register_statistics() {
  const auto counter = [this](const std::string& name) {
    return registerStatistic<std::uint64_t>(name);
  };
  ops_ = counter("ops");
  gemms_ = counter("gemms");
  macs_ = counter("macs");
  rejects_counter_ = counter("rejects");
  busy_ = counter("busy_cycles");
  fill_drain_ = counter("fill_drain_cycles");
  memory_stall_ = counter("memory_stall_cycles");
  dispatch_ = counter("dispatch_cycles");
  idle_ = counter("idle_cycles");
  gemm_cycles_ = counter("gemm_cycles");
  queue_depth_ = counter("queue_depth");
  utilization_ = counter("utilization_permille");
  read_bytes_[model::kMemory] = {counter("memory_read_bytes_a"), counter("memory_read_bytes_b"),
                                 counter("memory_read_bytes_c"), counter("memory_read_bytes_bias")};
  write_bytes_[model::kMemory][model::kC] = counter("memory_write_bytes_c");
  read_bytes_[model::kScratchpad] = {counter("scratchpad_read_bytes_a"),
                                     counter("scratchpad_read_bytes_b"),
                                     counter("scratchpad_read_bytes_c"), nullptr};
  write_bytes_[model::kScratchpad][model::kC] = counter("scratchpad_write_bytes_c");
}

void GemmDevice::setup() {
  if (House::ours().host != nullptr) return;
  fail(getName(), "no shmgemm.HostPort is on this rank and thread to serve it");
}

void GemmDevice::finish() {
  if (const HostPort* host = House::ours().host) idle_->addData(host->now() - spent_);
}

void GemmDevice::printStatus(SST::Output& out) {
  out.output("%s: device %u, model %s, %llu commands ended, %llu rejected, %llu cycles in GEMMs\n",
             getName().c_str(), index_, hardware_->model().name.c_str(),
             static_cast<unsigned long long>(commands_), static_cast<unsigned long long>(rejects_),
             static_cast<unsigned long long>(spent_));
}

void GemmDevice::queued(std::size_t depth) { queue_depth_->addData(depth); }

void GemmDevice::rejected() {
  ++rejects_;
  rejects_counter_->addData(1);
}

void GemmDevice::ended(const engine::Op& op, shmgemm_status status,
                       const model::GemmTiming& timing) {
  if (status != SHMGEMM_STATUS_OK) return rejected();
  ++commands_;
  ops_->addData(1);
  if (op.command.op != SHMGEMM_OP_GEMM) return;
  const model::Cycle cycles = timing.total();
  spent_ += cycles;
  gemms_->addData(1);
  macs_->addData(timing.macs);
  busy_->addData(timing.busy);
  fill_drain_->addData(timing.fill_drain);
  memory_stall_->addData(timing.memory_stall);
  dispatch_->addData(timing.dispatch);
  gemm_cycles_->addData(cycles);
  if (cycles > 0) {
    const double peak = static_cast<double>(peak_macs_per_cycle_) * static_cast<double>(cycles);
    utilization_->addData(
        static_cast<std::uint64_t>(1000.0 * static_cast<double>(timing.macs) / peak + 0.5));
  }
  count_traffic(timing);
}

void GemmDevice::count_traffic(const model::GemmTiming& timing) {
  for (unsigned level = 0; level < model::kLevels; ++level) {
    for (unsigned operand = 0; operand < model::kOperands; ++operand) {
      Counter* const read = read_bytes_[level][operand];
      Counter* const write = write_bytes_[level][operand];
      if (read != nullptr) read->addData(timing.read_bytes[level][operand]);
      if (write != nullptr) write->addData(timing.write_bytes[level][operand]);
    }
  }
}

}  // namespace shmgemm::sst_element

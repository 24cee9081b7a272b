#include "gemm_device.h"

#include <sst/core/output.h>

#include <sstream>

#include "cycle_time.h"
#include "events.h"
#include "host_port.h"
#include "model/event_queue.h"
#include "model/plugin.h"
#include "model/supervision.h"
#include "registers.h"
#include "slot.h"
#include "sst_version.h"

namespace shmgemm::sst_element {
namespace {

constexpr unsigned kMostDevices = 255;

// A clock, cores and a bandwidth say no more than "a GPU of that size": the preset gpu_128's model.
bool is_generic_gpu(const model::ParameterMap& given) {
  return given.size() == 3 && given.count("clock") == 1 && given.count("cores") == 1 &&
         given.count("memory_bw") == 1;
}

// What every device has, whatever its model.
model::ParameterMap clock_of(const model::ParameterMap& given) {
  const auto clock = given.find("clock");
  return clock == given.end() ? model::ParameterMap{} : model::ParameterMap{*clock};
}

}  // namespace

GemmDevice::GemmDevice(SST::ComponentId_t id, SST::Params& params)
    : SST::Component(id),
      link_port_([this](const shmgemm_completion& completion) {
        commands_link_->send(new CompletionEvent(completion));
      }),
      window_port_(
          [this](const shmgemm_completion& completion) { window_->completed(completion); }) {
  load_timing_model();
  try {
    describe(params);
  } catch (...) {
    fail(getName() + " (shmgemm.GemmDevice)", model::current_exception_text());
  }
  register_statistics();
  load_memory();
  load_window();
  commands_link_ = configureLink("commands", CycleTime::kTimeBase,
                                 new EventHandler<GemmDevice, &GemmDevice::take>(this));
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
  hardware.erase("plugins");
  model::ParameterMap given;
  for (const char* name : {"device", "requests", "mmio_base"}) {
    if (auto entry = hardware.extract(name)) given.insert(std::move(entry));
  }
  const model::Parameters own({{"device", model::Unit::kCount, "0", "", 0, kMostDevices - 1, {}},
                               {"requests", model::Unit::kCount, "128", "", 1, 65536, {}},
                               {"mmio_base", model::Unit::kCount, "0", "", 0, kLastMmioBase, {}}},
                              given);
  index_ = static_cast<unsigned>(own.count("device"));
  requests_ = own.count("requests");
  mmio_base_ = own.count("mmio_base");
  if (mmio_base_ % SHMGEMM_MMIO_BYTES != 0) {
    throw model::ParameterError("mmio_base = \"" + std::to_string(mmio_base_) +
                                "\": expected a multiple of 256, the bytes of the registers");
  }
  hardware_ = std::make_unique<model::Hardware>(hardware_of(std::move(hardware)));
  model::EventQueue unused;
  peak_macs_per_cycle_ = hardware_->create_model(unused, nullptr)->peak_macs_per_cycle();
}

model::Hardware GemmDevice::hardware_of(model::ParameterMap parameters) {
  if (timing_model_ == nullptr) {
    if (is_generic_gpu(parameters)) parameters["model"] = "simt";
    return model::Hardware(parameters);
  }
  if (parameters.count("model") != 0) {
    throw model::ParameterError(
        "model = \"" + parameters["model"] +
        "\", but its slot \"timing_model\" is filled: leave one of them out");
  }
  const auto clock_hz = model::Hardware(clock_of(parameters)).clock_hz();
  const auto create = [slot = timing_model_, clock_hz](const model::ModelContext& context) {
    return slot->create({context.scheduler, context.memory, clock_hz});
  };
  return model::Hardware::of_unregistered(
      {timing_model_->getType(), "in the slot timing_model", {}, create}, parameters);
}

void GemmDevice::load_timing_model() {
  if (!slot_is_filled(*this, "timing_model",
                      isUserSubComponentLoadableUsingAPI<TimingModelSlot>("timing_model"),
                      "shmgemm::sst_element::TimingModelSlot"))
    return;
  timing_model_ = loadUserSubComponent<TimingModelSlot>("timing_model");
  if (timing_model_->interface_version() != model::kInterfaceVersion) {
    fail(getName(), "the SubComponent in its slot \"timing_model\" was built for version " +
                        std::to_string(timing_model_->interface_version()) +
                        " of the model interface, expected " +
                        std::to_string(model::kInterfaceVersion) + ": compile it again");
  }
  slots_.push_back(timing_model_);
}

// Whatever is in the slot gets the requests; a model without a memory leaves it idle.
void GemmDevice::load_memory() {
  using Handler = MemoryHandler<GemmDevice, &GemmDevice::answered>;
  if (!slot_is_filled(*this, "memory", isUserSubComponentLoadableUsingAPI<Port>("memory"),
                      "SST::Interfaces::StandardMem"))
    return;
  memory_ = std::make_unique<StandardMemory>(requests_, [this](std::function<void()> callback) {
    House::ours().host->post(std::move(callback), index_ + 1);
  });
  auto* const port =
      loadUserSubComponent<Port>("memory", SST::ComponentInfo::SHARE_NONE,
                                 getTimeConverter(CycleTime::kTimeBase), new Handler(this));
  memory_->connect(port);
  slots_.push_back(port);
}

void GemmDevice::load_window() {
  using Handler = MemoryHandler<GemmDevice, &GemmDevice::accessed>;
  if (!slot_is_filled(*this, "mmio", isUserSubComponentLoadableUsingAPI<Port>("mmio"),
                      "SST::Interfaces::StandardMem"))
    return;
  window_ = std::make_unique<CommandWindow>(
      mmio_base_, [this](const shmgemm_command& command) { window_port_.begin(command, index_); },
      [this] { mmio_errors_->addData(1); });
  auto* const port =
      loadUserSubComponent<Port>("mmio", SST::ComponentInfo::SHARE_NONE,
                                 getTimeConverter(CycleTime::kTimeBase), new Handler(this));
  port->setMemoryMappedAddressRegion(mmio_base_, SHMGEMM_MMIO_BYTES);
  window_->connect(port);
  slots_.push_back(port);
}

void GemmDevice::init(unsigned phase) {
  for (SST::SubComponent* slot : slots_) slot->init(phase);
}

void GemmDevice::complete(unsigned phase) {
  for (SST::SubComponent* slot : slots_) slot->complete(phase);
}

void GemmDevice::take(SST::Event* event) {
  const std::unique_ptr<SST::Event> owned(event);
  const auto* const sent = dynamic_cast<CommandEvent*>(event);
  if (sent == nullptr) fail(getName(), "an event on port \"commands\" is no shmgemm.CommandEvent");
  link_port_.begin(sent->command, index_);
}

void GemmDevice::returned(engine::Op* op, shmgemm_status status, const model::GemmTiming& timing) {
  (link_port_.owns(op) ? link_port_ : window_port_).returned(op, status, timing);
}

void GemmDevice::register_statistics() {
  const auto counter = [this](const std::string& name) {
    return registerStatistic<std::uint64_t>(name);
  };
  ops_ = counter("ops");
  gemms_ = counter("gemms");
  macs_ = counter("macs");
  rejects_counter_ = counter("rejects");
  mmio_errors_ = counter("mmio_errors");
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
  for (SST::SubComponent* slot : slots_) slot->setup();
  if (House::ours().host != nullptr) return;
  fail(getName(), "no shmgemm.HostPort is on this rank and thread to serve it");
}

void GemmDevice::finish() {
  for (SST::SubComponent* slot : slots_) slot->finish();
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

void GemmDevice::retired() {
  if (memory_) memory_->forget();
}

void GemmDevice::ended(const engine::Op& op, shmgemm_status status,
                       const model::GemmTiming& timing) {
  if (status != SHMGEMM_STATUS_OK) return rejected();
  ++commands_;
  ops_->addData(1);
  const model::Cycle cycles = timing.total();
  const bool is_gemm = op.command.op == SHMGEMM_OP_GEMM;
  if (!is_gemm && cycles == 0) return;
  spent_ += cycles;
  busy_->addData(timing.busy);
  fill_drain_->addData(timing.fill_drain);
  memory_stall_->addData(timing.memory_stall);
  dispatch_->addData(timing.dispatch);
  if (!is_gemm) return;
  gemms_->addData(1);
  macs_->addData(timing.macs);
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

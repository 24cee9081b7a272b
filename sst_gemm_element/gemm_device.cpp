#include "gemm_device.h"

#include <sst/core/output.h>

#include <sstream>

#include "abi/shmgemm_validate.h"
#include "cycle_time.h"
#include "events.h"
#include "host_port.h"
#include "model/event_queue.h"
#include "model/plugin.h"
#include "model/supervision.h"

namespace shmgemm::sst_element {
namespace {

constexpr unsigned kMostDevices = 255;

// A clock, cores and a bandwidth say no more than "a GPU of that size": the preset gpu_128's model.
bool is_generic_gpu(const model::ParameterMap& given) {
  return given.size() == 3 && given.count("clock") == 1 && given.count("cores") == 1 &&
         given.count("memory_bw") == 1;
}

}  // namespace

GemmDevice::GemmDevice(SST::ComponentId_t id, SST::Params& params) : SST::Component(id) {
  try {
    describe(params);
  } catch (...) {
    fail(getName() + " (shmgemm.GemmDevice)", model::current_exception_text());
  }
  register_statistics();
  fill_slot();
  commands_link_ = configureLink("commands", CycleTime::kTimeBase,
                                 new SST::Event::Handler<GemmDevice, &GemmDevice::take>(this));
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
  for (const char* name : {"device", "requests"}) {
    if (auto entry = hardware.extract(name)) given.insert(std::move(entry));
  }
  const model::Parameters own({{"device", model::Unit::kCount, "0", "", 0, kMostDevices - 1, {}},
                               {"requests", model::Unit::kCount, "128", "", 1, 65536, {}}},
                              given);
  index_ = static_cast<unsigned>(own.count("device"));
  requests_ = own.count("requests");
  if (is_generic_gpu(hardware)) hardware["model"] = "simt";
  hardware_ = std::make_unique<model::Hardware>(hardware);
  model::EventQueue unused;
  peak_macs_per_cycle_ = hardware_->create_model(unused, nullptr)->peak_macs_per_cycle();
}

// Whatever is in the slot gets the requests; a model without a memory leaves it idle.
void GemmDevice::fill_slot() {
  using Port = SST::Interfaces::StandardMem;
  using Handler = Port::Handler<GemmDevice, &GemmDevice::answered>;
  if (!isUserSubComponentLoadableUsingAPI<Port>("memory")) {
    if (getSubComponentSlotInfo("memory") != nullptr) {
      fail(getName(), "what is in its slot \"memory\" is no SST::Interfaces::StandardMem");
    }
    return;
  }
  memory_ = std::make_unique<StandardMemory>(requests_, [this](std::function<void()> callback) {
    House::ours().host->post(std::move(callback), index_ + 1);
  });
  slot_ = loadUserSubComponent<Port>("memory", SST::ComponentInfo::SHARE_NONE,
                                     getTimeConverter(CycleTime::kTimeBase), new Handler(this));
  memory_->connect(slot_);
}

void GemmDevice::init(unsigned phase) {
  if (slot_ != nullptr) slot_->init(phase);
}

void GemmDevice::complete(unsigned phase) {
  if (slot_ != nullptr) slot_->complete(phase);
}

void GemmDevice::take(SST::Event* event) {
  const std::unique_ptr<SST::Event> owned(event);
  if (const auto* sent = dynamic_cast<CommandEvent*>(event)) return begin(sent->command);
  fail(getName(), "an event on port \"commands\" is no shmgemm.CommandEvent");
}

void GemmDevice::begin(const shmgemm_command& given) {
  shmgemm_command command = given;
  command.op = SHMGEMM_OP_GEMM;
  command.device = static_cast<std::uint8_t>(index_);
  command.after = command.report = 0;
  const bool timeable = command.m != 0 && command.n != 0 && command.k != 0 && command.batch != 0 &&
                        shmgemm_dtype_bytes(command.dtype_in) != 0 &&
                        shmgemm_dtype_bytes(command.dtype_out) != 0;
  if (!timeable) {
    fail(getName(), "a command on port \"commands\" has a dimension of 0 or no known dtype");
  }
  if (link_ops_.full()) return link_backlog_.push_back(command);
  engine::Op* op = link_ops_.add(command, nullptr);
  House::ours().host->post([op] { House::ours().host->enqueue(op); }, 0);
}

void GemmDevice::returned(engine::Op* op, shmgemm_status status, const model::GemmTiming& timing) {
  shmgemm_completion completion{};
  completion.id = op->command.id;
  completion.status = static_cast<std::uint16_t>(status);
  completion.device = op->command.device;
  completion.start_cycles = op->start;
  completion.end_cycles = House::ours().host->now();
  completion.busy_cycles = timing.busy;
  completion.fill_drain_cycles = timing.fill_drain;
  completion.memory_stall_cycles = timing.memory_stall;
  link_ops_.remove(op);
  commands_link_->send(new CompletionEvent(completion));
  if (link_backlog_.empty()) return;
  const shmgemm_command next = link_backlog_.front();
  link_backlog_.pop_front();
  begin(next);
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
  if (slot_ != nullptr) slot_->setup();
  if (House::ours().host != nullptr) return;
  fail(getName(), "no shmgemm.HostPort is on this rank and thread to serve it");
}

void GemmDevice::finish() {
  if (slot_ != nullptr) slot_->finish();
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

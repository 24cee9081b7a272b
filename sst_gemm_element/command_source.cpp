#include "command_source.h"

#include <sst/core/output.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <memory>
#include <stdexcept>

#include "abi/shmgemm_validate.h"
#include "command_window.h"
#include "cycle_time.h"
#include "events.h"
#include "house.h"
#include "model/registry.h"
#include "model/supervision.h"
#include "slot.h"
#include "sst_version.h"

namespace shmgemm::sst_element {
namespace {

using Dimensions = std::array<std::uint32_t, 3>;  // M, N, K

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

std::vector<std::string> fields_of(const std::string& line) {
  std::vector<std::string> fields;
  for (std::size_t begin = 0; begin <= line.size();) {
    const std::size_t end = std::min(line.find(',', begin), line.size());
    fields.push_back(trimmed(line.substr(begin, end - begin)));
    begin = end + 1;
  }
  if (fields.size() == 5 && fields.back().empty()) fields.pop_back();  // SCALE-Sim's last comma
  return fields;
}

std::uint32_t dimension(const std::string& place, const char* name, const std::string& text) {
  const model::Parameter parameter{name, model::Unit::kCount, "", "", 1, INT32_MAX, {}};
  try {
    return static_cast<std::uint32_t>(model::parse_quantity(parameter, text));
  } catch (const model::ParameterError& error) {
    throw std::invalid_argument(place + ": " + error.what());
  }
}

std::vector<Dimensions> read_csv(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::invalid_argument("file = \"" + path + "\" cannot be read");
  std::vector<Dimensions> result;
  std::string line;
  std::getline(file, line);  // the header
  for (int number = 2; std::getline(file, line); ++number) {
    if (trimmed(line).empty()) continue;
    const std::string place = path + ":" + std::to_string(number);
    const auto fields = fields_of(line);
    if (fields.size() != 4) {
      throw std::invalid_argument(place + ": \"" + trimmed(line) + "\": expected name, M, N, K");
    }
    result.push_back({dimension(place, "M", fields[1]), dimension(place, "N", fields[2]),
                      dimension(place, "K", fields[3])});
  }
  if (result.empty()) throw std::invalid_argument(path + ": no GEMM after the header line");
  return result;
}

std::uint8_t dtype_of(const std::string& name) {
  if (name == "float16") return SHMGEMM_DTYPE_FLOAT16;
  if (name == "bfloat16") return SHMGEMM_DTYPE_BFLOAT16;
  if (name == "int8") return SHMGEMM_DTYPE_INT8;
  return SHMGEMM_DTYPE_FLOAT32;
}

// A, B and C lie one behind the other, each at a multiple of 4 KiB; address 0 means none.
shmgemm_command command_of(const Dimensions& dimensions, std::uint8_t dtype) {
  const auto page_after = [](std::uint64_t bytes) { return (bytes + 4095) / 4096 * 4096; };
  shmgemm_command command{};
  command.op = SHMGEMM_OP_GEMM;
  command.dtype_in = dtype;
  command.dtype_out = dtype;
  if (dtype == SHMGEMM_DTYPE_INT8) command.dtype_out = SHMGEMM_DTYPE_INT32;
  command.m = dimensions[0];
  command.n = command.ldb = command.ldc = dimensions[1];
  command.k = command.lda = dimensions[2];
  command.batch = 1;
  const std::uint64_t element = shmgemm_dtype_bytes(dtype);
  command.a = 4096;
  command.b = command.a + page_after(std::uint64_t{command.m} * command.k * element);
  command.c = command.b + page_after(std::uint64_t{command.k} * command.n * element);
  return command;
}

}  // namespace

CommandSource::CommandSource(SST::ComponentId_t id, SST::Params& params) : SST::Component(id) {
  try {
    read(params);
  } catch (...) {
    fail(getName() + " (shmgemm.CommandSource)", model::current_exception_text());
  }
  connect();
  cycles_ = registerStatistic<std::uint64_t>("cycles");
  failures_ = registerStatistic<std::uint64_t>("failures");
  registerAsPrimaryComponent();
  primaryComponentDoNotEndSim();
}

void CommandSource::connect() {
  using Handler = MemoryHandler<CommandSource, &CommandSource::answered>;
  device_ = configureLink("device", CycleTime::kTimeBase,
                          new EventHandler<CommandSource, &CommandSource::take>(this));
  if (slot_is_filled(*this, "interface",
                     isUserSubComponentLoadableUsingAPI<SST::Interfaces::StandardMem>("interface"),
                     "SST::Interfaces::StandardMem")) {
    interface_ = loadUserSubComponent<SST::Interfaces::StandardMem>(
        "interface", SST::ComponentInfo::SHARE_NONE, getTimeConverter(CycleTime::kTimeBase),
        new Handler(this));
    driver_ = std::make_unique<WindowDriver>(
        mmio_base_, [this](const shmgemm_completion& completion) { count(completion); });
    driver_->connect(interface_);
  }
  if ((device_ == nullptr) == (interface_ == nullptr)) {
    fail(getName(),
         "expected either its port \"device\" connected or its slot \"interface\" filled");
  }
}

void CommandSource::read(SST::Params& params) {
  model::ParameterMap given;
  for (const std::string& key : params.getKeys()) given[key] = params.find<std::string>(key);
  const std::string file = given["file"];
  given.erase("file");
  const model::Parameters checked(
      {{"dtype",
        model::Unit::kChoice,
        "float32",
        "",
        0,
        0,
        {"float32", "float16", "bfloat16", "int8"}},
       {"in_flight", model::Unit::kCount, "1", "", 1, SHMGEMM_RING_SLOTS, {}},
       {"repeat", model::Unit::kCount, "1", "", 1, 1000000, {}},
       {"mmio_base", model::Unit::kCount, "0", "", 0, kLastMmioBase, {}}},
      given);
  const std::uint8_t dtype = dtype_of(checked.choice("dtype"));
  for (const Dimensions& dimensions : read_csv(file)) {
    commands_.push_back(command_of(dimensions, dtype));
  }
  to_send_ = commands_.size() * checked.count("repeat");
  most_in_flight_ = checked.count("in_flight");
  mmio_base_ = checked.count("mmio_base");
}

void CommandSource::init(unsigned phase) {
  if (interface_ != nullptr) interface_->init(phase);
}

void CommandSource::setup() {
  if (interface_ != nullptr) interface_->setup();
  send_more();
}

void CommandSource::complete(unsigned phase) {
  if (interface_ != nullptr) interface_->complete(phase);
}

void CommandSource::finish() {
  if (interface_ != nullptr) interface_->finish();
}

void CommandSource::send_more() {
  while (sent_ < to_send_ && sent_ - ended_ < most_in_flight_) {
    shmgemm_command command = commands_[sent_ % commands_.size()];
    command.id = ++sent_;
    if (driver_) {
      driver_->send(command);
    } else {
      device_->send(new CommandEvent(command));
    }
  }
}

void CommandSource::take(SST::Event* event) {
  const std::unique_ptr<SST::Event> owned(event);
  const auto* answer = dynamic_cast<CompletionEvent*>(event);
  if (answer == nullptr) fail(getName(), "an event on port \"device\" is no answer of a device");
  count(answer->completion);
}

void CommandSource::answered(SST::Interfaces::StandardMem::Request* response) {
  try {
    driver_->answered(response);
  } catch (...) {
    fail(getName(), model::current_exception_text());
  }
}

void CommandSource::count(const shmgemm_completion& completion) {
  ++ended_;
  cycles_->addData(completion.end_cycles - completion.start_cycles);
  if (completion.status != SHMGEMM_STATUS_OK) failures_->addData(1);
  if (ended_ == to_send_) return primaryComponentOKToEndSim();
  send_more();
}

void CommandSource::printStatus(SST::Output& out) {
  out.output("%s: %llu of %llu GEMMs sent, %llu ended\n", getName().c_str(),
             static_cast<unsigned long long>(sent_), static_cast<unsigned long long>(to_send_),
             static_cast<unsigned long long>(ended_));
}

}  // namespace shmgemm::sst_element

#include "host_port.h"

#include <fcntl.h>
#include <signal.h>
#include <sst/core/output.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>

#include "compute/gemm.h"
#include "events.h"
#include "gemm_device.h"
#include "house.h"
#include "model/supervision.h"
#include "sst_version.h"

namespace shmgemm::sst_element {
namespace {

constexpr std::chrono::milliseconds kWaitLimit{50};  // SST looks at signals in between
constexpr std::chrono::milliseconds kStopLimit{400};

void set_state(shmgemm_peer* peer, std::uint32_t state) {
  __atomic_store_n(&peer->state, state, __ATOMIC_SEQ_CST);
}

// Two engines on one queue pair would each take a part of the commands.
void refuse_second_engine(const shmgemm_peer& engine) {
  const auto state = __atomic_load_n(&engine.state, __ATOMIC_SEQ_CST);
  const auto pid = static_cast<pid_t>(engine.pid);
  if (state != SHMGEMM_PEER_READY || pid <= 0 || pid == getpid() || kill(pid, 0) != 0) return;
  throw std::invalid_argument("the region is served by process " + std::to_string(pid) +
                              " already");
}

}  // namespace

HostPort::HostPort(SST::ComponentId_t id, SST::Params& params) : SST::Component(id) {
  enter_house(params);
  try {
    settings_ = settings(params);
  } catch (...) {
    fail(getName() + " (shmgemm.HostPort)", model::current_exception_text());
  }
  self_ = configureSelfLink("tick", CycleTime::kTimeBase,
                            new EventHandler<HostPort, &HostPort::drive>(this));
  time_base_ = time_converter(getTimeConverter(CycleTime::kTimeBase));
  if (!settings_.has_host) return;  // whoever sends commands says when it is over
  registerAsPrimaryComponent();
  primaryComponentDoNotEndSim();
}

void HostPort::enter_house(SST::Params& params) {
  House& house = House::ours();
  const std::lock_guard<std::mutex> lock(house.mutex);
  if (house.host != nullptr) {
    fail(getName(),
         "a simulation has one shmgemm.HostPort, and " + house.host->getName() + " is it");
  }
  house.host = this;
  // Whatever else is wrong, the session shall hear of it.
  if (params.find<std::string>("host", "session") == "session") {
    house.control_fd = params.find<int>("control_fd", 4);
  }
}

HostPort::~HostPort() {
  control_.reset();
  House& house = House::ours();
  const std::lock_guard<std::mutex> lock(house.mutex);
  house.host = nullptr;
}

HostPort::Settings HostPort::settings(SST::Params& params) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 30;
  std::vector<model::Parameter> table;
  model::ParameterMap given;
  for (const std::string& key : params.getKeys()) given[key] = params.find<std::string>(key);
  for (const SST::ElementInfoParam& documented : ELI_getParams()) {
    const std::string name = documented.name;
    if (name == "region" || name == "link") {
      given.erase(name);  // any text
    } else if (name == "host") {
      table.push_back({name,
                       model::Unit::kChoice,
                       documented.defaultValue,
                       "",
                       0,
                       0,
                       {"session", "file", "none"}});
    } else {
      table.push_back({name,
                       model::Unit::kCount,
                       documented.defaultValue,
                       "",
                       0,
                       name == "region_bytes" ? kMost << 10 : kMost,
                       {}});
    }
  }
  const model::Parameters checked(table, given);
  const auto number = [&checked](const char* name) {
    return static_cast<int>(checked.count(name));
  };
  const std::string host = checked.choice("host");
  const auto region = params.find<std::string>("region"), link = params.find<std::string>("link");
  if (host == "file" && (region.empty() || link.empty())) {
    throw std::invalid_argument("host = file needs the parameters region and link");
  }
  return {host != "none",
          host == "session",
          region,
          link,
          checked.count("region_bytes"),
          number("region_fd"),
          number("control_fd"),
          number("parent"),
          static_cast<std::uint32_t>(number("threads")),
          static_cast<std::uint32_t>(number("devices")),
          static_cast<std::uint32_t>(number("header"))};
}

void HostPort::setup() {
  try {
    serve();
    if (settings_.has_host) start_control();
  } catch (...) {
    fail(getName(), model::current_exception_text());
  }
  schedule_tick();
}

// Those of this process; they must be all, in order, and on this thread.
std::vector<engine::DeviceSetup> HostPort::devices() const {
  std::vector<engine::DeviceSetup> setups;
  for (const auto& [index, device] : House::ours().devices) {
    if (index != setups.size()) {
      throw std::invalid_argument("there is a device " + std::to_string(index) +
                                  " on this rank, but no device " + std::to_string(setups.size()));
    }
    if (device->place().thread != getRank().thread) {
      throw std::invalid_argument(device->getName() + " is on thread " +
                                  std::to_string(device->place().thread) +
                                  ", this HostPort on thread " + std::to_string(getRank().thread) +
                                  ": keep both on one with setRank()");
    }
    setups.push_back(device->served());
  }
  if (setups.empty() || (settings_.devices != 0 && settings_.devices != setups.size())) {
    throw std::invalid_argument(
        std::to_string(setups.size()) + " shmgemm.GemmDevice on this rank, expected " +
        (settings_.devices == 0 ? "at least 1" : std::to_string(settings_.devices)) +
        (getNumRanks().rank > 1 ? ": keep all on the rank of the HostPort with setRank()" : ""));
  }
  return setups;
}

void HostPort::serve() {
  const std::vector<engine::DeviceSetup> setups = devices();
  if (settings_.has_host) {
    if (settings_.by_session) {
      region_ = region::Region::attach(settings_.region_fd, settings_.header);
      refuse_second_engine(*region_->engine());
    } else {
      region_ = region::Region::serve_file(settings_.region, settings_.region_bytes);
    }
    region_->engine()->pid = static_cast<std::uint32_t>(getpid());
    numbers_ = std::make_unique<compute::Engine>(settings_.threads);
  }
  time_ = std::make_unique<CycleTime>(setups[0].hardware.clock_hz());
  engine::HostPortOptions options;
  options.engine_name = "sst";
  options.threads = numbers_ ? numbers_->threads() : 0;
  options.compute = [this](const compute::Gemm* gemms, std::size_t count) {
    numbers_->run(gemms, count);
  };
  options.log = log();
  options.last_cycle = last_cycle();
  options.returned = [](engine::Op* op, shmgemm_status status, const model::GemmTiming& timing) {
    House::ours().devices.at(op->command.device)->returned(op, status, timing);
  };
  port_ = std::make_unique<engine::HostPort>(region_, setups, events_, std::move(options));
}

std::function<void(const std::string&)> HostPort::log() const {
  return [name = getName()](const std::string& text) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), text.c_str());
  };
}

void HostPort::start_control() {
  if (settings_.by_session && fcntl(settings_.control_fd, F_GETFD) < 0) {
    throw std::invalid_argument("control_fd = " + std::to_string(settings_.control_fd) +
                                ": expected an open descriptor, as the session passes it");
  }
  shmgemm_peer* const self = region_->engine();
  engine::ControlOptions options{settings_.by_session ? settings_.control_fd : -1,
                                 settings_.parent_pid, -1, nullptr};
  if (!settings_.link.empty()) {
    options.links = std::make_unique<engine::Links>(settings_.link, *port_, log());
  }
  control_ = std::make_unique<engine::Control>(std::move(options), self, [this] {
    port_->stop();
    // Nobody is left to want the product that is being computed.
    if (left_.get_future().wait_for(kStopLimit) != std::future_status::ready) _exit(1);
  });
  set_state(self, SHMGEMM_PEER_READY);
  if (settings_.by_session) {
    engine::Control::send(settings_.control_fd, SHMGEMM_CONTROL_READY, "");
  }
}

void HostPort::drive(SST::Event* event) {
  const std::uint64_t number = static_cast<Tick*>(event)->number;
  delete event;
  if (number != tick_number_) return;  // another was sent for an earlier time
  tick_under_way_ = false;
  driving_ = true;
  try {
    if (port_->flushing() || !settings_.has_host) advance(time_->reached(sst_time()));
    if (settings_.has_host && !port_->flushing() && !port_->poll()) port_->wait(kWaitLimit);
  } catch (...) {
    fail(getName(), model::current_exception_text());
  }
  driving_ = false;
  if (!port_->stopped()) return schedule_tick();
  leave();
  primaryComponentOKToEndSim();
}

// What is due at a cycle.
void HostPort::advance(model::Cycle cycle) {
  const auto due = [&] { return events_.empty() ? forgotten() : events_.next_time() <= cycle; };
  while ((port_->flushing() || !settings_.has_host) && !port_->stopped() && due()) {
    port_->run_next();
  }
}

// A device is at work, no event of it is due, and no memory of the simulation will answer it.
bool HostPort::forgotten() const {
  if (!events_.empty() || !port_->busy()) return false;
  const auto& devices = House::ours().devices;
  return std::none_of(devices.begin(), devices.end(),
                      [](const auto& entry) { return entry.second->waits_for_memory(); });
}

void HostPort::schedule_tick() {
  if (driving_) return;  // drive() does at its end
  const std::uint64_t now = sst_time();
  std::uint64_t at = now;
  if (port_->flushing() || !settings_.has_host) {
    if (!events_.empty()) {
      at = std::max(now, time_->picoseconds(events_.next_time()));
    } else if (!forgotten()) {
      return;  // who is waited for posts
    }
  }
  if (tick_under_way_ && tick_at_ <= at) return;
  tick_under_way_ = true;
  tick_at_ = at;
  self_->send(at - now, new Tick(++tick_number_));
}

void HostPort::post(std::function<void()> callback, std::uint32_t owner) {
  events_.at(std::max(events_.now(), time_->cycle(sst_time())), std::move(callback), owner);
  schedule_tick();
}

// The host sees at once that nobody serves it any more.
void HostPort::leave() {
  if (has_left_ || !port_ || !settings_.has_host) return;
  has_left_ = true;
  left_.set_value();
  control_.reset();  // and its socket
  set_state(region_->engine(), SHMGEMM_PEER_DEAD);
  port_->wake_clients();
}

void HostPort::printStatus(SST::Output& out) {
  out.output("%s: cycle %llu, %s\n", getName().c_str(),
             static_cast<unsigned long long>(events_.now()),
             !settings_.has_host          ? "has no host"
             : port_ && port_->flushing() ? "runs towards the end of what its host waits for"
                                          : "waits for its host");
}

}  // namespace shmgemm::sst_element

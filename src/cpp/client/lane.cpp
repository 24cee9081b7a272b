#include "client/lane.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "abi/shmgemm_validate.h"
#include "client/deadline.h"
#include "client/ring_port.h"
#include "region/waiter.h"

namespace shmgemm::client {
namespace {

constexpr double kDeviceLimitS = 5;              // for a device to find a new engine
constexpr std::chrono::seconds kAnswerGrace{1};  // for its last answer, which says why not

// What its engine is told: its own devices, and its share of the CPUs.
SessionOptions options_of(const SessionOptions& session, std::uint32_t number) {
  SessionOptions options = session;
  const std::uint32_t lanes = session.processes;
  if (lanes == 1) return options;
  options.devices = (session.devices - number + lanes - 1) / lanes;
  if (options.threads == 0) options.threads = std::max(1u, region::allowed_cpus() / lanes);
  return options;
}

std::string name_of(const SessionOptions& session, std::uint32_t number) {
  if (session.processes == 1) return "the engine";
  std::string devices;
  for (std::uint32_t device = number; device < session.devices; device += session.processes) {
    devices += (devices.empty() ? "" : ", ") + std::to_string(device);
  }
  const bool several = number + session.processes < session.devices;
  return std::string("the engine of device") + (several ? "s " : " ") + devices;
}

}  // namespace

Lane::Lane(const SessionOptions& options, std::shared_ptr<Heap> heap, Ledger& ledger,
           std::uint32_t number, Attachment* attachment)
    : options_(options_of(options, number)),
      lanes_(options.processes),
      name_(name_of(options, number)),
      heap_(std::move(heap)),
      attachment_(attachment),
      region_(heap_->region().of_engine(number)),
      ledger_(ledger),
      channel_(heap_) {}

std::uint8_t Lane::device_here(std::uint8_t device) const {
  return static_cast<std::uint8_t>(device / lanes_);
}

int Lane::engine_pid() const {
  const std::lock_guard<std::mutex> lock(lifecycle_);
  return engine_ && !channel_.failed() ? engine_->pid() : 0;
}

void Lane::launch() {
  const std::lock_guard<std::mutex> lock(lifecycle_);
  launch_locked();
}

void Lane::launch_locked() {
  monitor_.reset();
  engine_.reset();
  if (options_.server.empty() && attachment_ == nullptr) {
    region_.begin_generation();
    engine_ = std::make_unique<EngineProcess>(options_, region_);
  }
  launched_ = true;
}

void Lane::start() {
  const std::lock_guard<std::mutex> lock(lifecycle_);
  start_locked();
}

// A guest that is going down has closed its connection before it has ended: then it is tried again.
void Lane::start_locked() {
  const Channel::Deadline deadline = deadline_after(kDeviceLimitS);
  for (;;) {
    try {
      if (!launched_) launch_locked();
      launched_ = false;
      return connect();
    } catch (const DeviceLost&) {
      if (!options_.guest || region::Clock::now() >= deadline) throw;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

void Lane::revive(const std::atomic<bool>& closed) {
  const std::lock_guard<std::mutex> lock(lifecycle_);
  if (!closed.load() && channel_.failed()) start_locked();
}

void Lane::ask_to_end() {
  const std::lock_guard<std::mutex> lock(lifecycle_);
  if (monitor_) monitor_->stop();
}

void Lane::end() {
  const std::lock_guard<std::mutex> lock(lifecycle_);
  monitor_.reset();
  engine_.reset();
}

void Lane::connect() {
  if (attachment_ != nullptr) return connect_attached();
  if (engine_) {
    engine_->await_ready();
    ledger_.count_start();
  }
  Watched watched;
  watched.engine = engine_.get();
  watched.name = name_;
  std::unique_ptr<Port> port;
  if (options_.server.empty() && !options_.guest) {
    port = std::make_unique<RingPort>(region_, 0);
  } else {
    auto to_server = connect_server();
    watched.connection = &to_server->connection();
    port = std::move(to_server);
  }
  channel_.set_on_nonsense([watched] {
    if (watched.engine != nullptr) watched.engine->kill();
    if (watched.connection != nullptr) watched.connection->hang_up();
  });
  channel_.begin(std::move(port), region_.generation());
  monitor_ = std::make_unique<Monitor>(watched, channel_, region_, options_.timeout_s);
  if (watched.connection != nullptr) await_device(deadline_after(kDeviceLimitS));
}

// Once: what the engine took with it when it went is its owner's to bring back.
void Lane::connect_attached() {
  if (attached_) {
    throw DeviceLost("the session at " + attachment_->path() +
                     " is gone, and with it this process's part; attach again");
  }
  attached_ = true;
  Watched watched;
  watched.attachment = attachment_;
  channel_.set_on_nonsense([this] { attachment_->hang_up(); });
  channel_.begin(std::make_unique<RingPort>(region_, attachment_->queue_pair()),
                 region_.generation());
  monitor_ = std::make_unique<Monitor>(watched, channel_, region_, options_.timeout_s);
}

std::unique_ptr<ServerPort> Lane::connect_server() {
  const std::string address = options_.guest ? options_.guest(region_.fd()) : options_.server;
  return std::make_unique<ServerPort>(parse_address(address), deadline_after(options_.timeout_s));
}

// The device in the guest connects to a new engine by itself, in a moment.
void Lane::await_device(Channel::Deadline deadline) {
  const Channel::Deadline answered = deadline + kAnswerGrace;
  for (;;) {
    shmgemm_command command{};
    command.op = SHMGEMM_OP_NOOP;
    command.flags = SHMGEMM_FLAG_FLUSH;
    const shmgemm_completion completion =
        channel_.wait(channel_.submit(command, false, answered), answered, region::Expect::kShort);
    if (completion.status == SHMGEMM_STATUS_OK) return;
    if (region::Clock::now() >= deadline) {
      throw DeviceLost(std::string("the device server has no device: ") +
                       shmgemm_status_text(completion.status));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

void Lane::await_verdict() const {
  for (int i = 0; i < 100 && !channel_.failed(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace shmgemm::client

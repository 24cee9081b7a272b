#include "server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>

#include "log.h"

namespace shmgemm::server {
namespace {

using Json = nlohmann::json;

constexpr int kTickMs = 250;
constexpr std::size_t kMaxConnections = 512;
constexpr unsigned kMaxThreads = 4;

std::unique_ptr<Backend> make_backend(const Options& options) {
  if (!options.device.empty()) return device_backend(options.device);
  if (!options.link.empty()) return link_backend(options.link, options.region);
  return nullptr;
}

std::string text_of(const sockaddr_in& address) {
  char text[INET_ADDRSTRLEN] = "?";
  inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
  return std::string("client ") + text + ":" + std::to_string(ntohs(address.sin_port));
}

Json info_json(const shmgemm_info& info) {
  return {{"engine", info.engine},
          {"model", info.model},
          {"version", info.version},
          {"devices", info.devices},
          {"threads", info.threads},
          {"clock_hz", info.clock_hz},
          {"peak_macs_per_cycle", info.peak_macs_per_cycle},
          {"now_cycles", info.now_cycles},
          {"ops", info.ops},
          {"rejects", info.rejects},
          {"busy_cycles", info.busy_cycles},
          {"dtypes", info.dtypes},
          {"link_commands", info.link_commands},
          {"link_sojourn_ns", info.link_sojourn_ns},
          {"link_bytes_in", info.link_bytes_in},
          {"link_bytes_out", info.link_bytes_out},
          {"memory_bytes", info.memory_bytes},
          {"max_compute_units", info.max_compute_units}};
}

Json counters_json(const Counters& counters) {
  return {{"connections", counters.connections},
          {"errors", counters.errors},
          {"frames",
           {{"gemm", counters.gemm_frames},
            {"linear", counters.linear_frames},
            {"commands", counters.command_frames},
            {"status", counters.status_frames}}},
          {"bytes_in", counters.bytes_in},
          {"bytes_out", counters.bytes_out},
          {"matrix_bytes", counters.matrix_bytes},
          {"inline_device", counters.inline_device},
          {"inline_cpu", counters.inline_cpu},
          {"commands", counters.commands},
          {"completions", counters.completions},
          {"no_device", counters.no_device},
          {"sojourn_ns", counters.sojourn_ns},
          {"device_ns", counters.device_ns}};
}

}  // namespace

// What ends the loop: SIGTERM, SIGINT, and busybox's words for halt and poweroff. Blocked before
// any thread starts, so that all of them are.
class Server::Signals : public Handler {
 public:
  explicit Signals(Loop& loop) : loop_(loop) {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGUSR2}) sigaddset(&set, signal);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd_ < 0) throw std::runtime_error(std::string("signalfd: ") + strerror(errno));
    loop_.add(fd_, EPOLLIN, this);
  }
  ~Signals() override {
    loop_.remove(fd_, this);
    close(fd_);
  }
  void on_events(std::uint32_t) override { loop_.stop(); }

 private:
  Loop& loop_;
  int fd_;
};

Server::Server(const Options& options)
    : options_(options),
      budget_(4 * options.max_matrix_bytes),
      backend_(make_backend(options)),
      signals_(std::make_unique<Signals>(loop_)),
      worker_(loop_, std::clamp(std::thread::hardware_concurrency(), 1u, kMaxThreads)),
      accelerator_(loop_, backend_.get(), worker_, counters_),
      services_{loop_,
                backend_.get(),
                accelerator_,
                budget_,
                counters_,
                options.max_matrix_bytes,
                [this](std::function<void(std::string)> told) { status_json(std::move(told)); }} {
  listen_on(options.bind, options.port);
}

Server::~Server() {
  connections_.clear();
  loop_.remove(listener_, this);
  close(listener_);
}

void Server::listen_on(const std::string& address, std::uint16_t port) {
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(port);
  inet_pton(AF_INET, address.c_str(), &where.sin_addr);
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  socklen_t bytes = sizeof where;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&where), sizeof where) != 0 ||
      listen(listener_, 128) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&where), &bytes) != 0) {
    const std::string why =
        errno == EADDRINUSE ? "the port is in use; pass another --port" : strerror(errno);
    close(listener_);
    throw std::runtime_error("cannot listen on TCP port " + std::to_string(port) + " of " +
                             address + ": " + why);
  }
  port_ = ntohs(where.sin_port);
}

void Server::run(int limit_ms, const std::function<void()>& on_tick) {
  on_tick_ = on_tick;
  announce_by_ns_ = now_ns() + std::int64_t{limit_ms} * 1'000'000;
  after_round();
  loop_.run(kTickMs, [this] { after_round(); });
}

// Clients are let in only now, so that the first of them meets the device where there is one.
void Server::announce() {
  announced_ = true;
  if (accelerator_.up()) {
    std::printf("Connected to the device (%s)\n", backend_->name().c_str());
  } else {
    std::printf("No device (%s): the CPU computes\n", accelerator_.reason().c_str());
  }
  std::printf("Listening on TCP port %u\nREADY\n", port_);
  std::fflush(stdout);
  loop_.add(listener_, EPOLLIN, this);
}

void Server::on_events(std::uint32_t) {
  sockaddr_in address{};
  socklen_t bytes = sizeof address;
  const int fd = accept4(listener_, reinterpret_cast<sockaddr*>(&address), &bytes,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  if (connections_.size() >= kMaxConnections) {
    Log::note(text_of(address) + ": turned away, " + std::to_string(kMaxConnections) +
              " are connected");
    close(fd);
    return;
  }
  connections_.push_back(std::make_shared<Connection>(services_, fd, text_of(address)));
  Log::debug(text_of(address) + ": connected");
}

void Server::after_round() {
  if (budget_.take_released()) {
    for (const auto& connection : connections_) connection->on_room();
  }
  const std::int64_t now = now_ns();
  if (now >= next_tick_ns_) {
    next_tick_ns_ = now + std::int64_t{kTickMs} * 1'000'000;
    accelerator_.tick();
    for (const auto& connection : connections_) {
      if (!connection->closed()) connection->on_tick(now);
    }
    if (on_tick_) on_tick_();
  }
  connections_.remove_if([](const auto& connection) { return connection->closed(); });
  const bool known = backend_ == nullptr || accelerator_.up() || now >= announce_by_ns_;
  if (!announced_ && known) announce();
}

void Server::status_json(std::function<void(std::string)> told) {
  accelerator_.ask_info(
      [this, told = std::move(told)](const shmgemm_info* info) { told(status_text(info)); });
}

std::string Server::status_text(const shmgemm_info* info) {
  Json status = {{"server", SHMGEMM_VERSION},
                 {"abi", {SHMGEMM_ABI_MAJOR, SHMGEMM_ABI_MINOR}},
                 {"state", accelerator_.up() ? "device" : "cpu"},
                 {"reason", accelerator_.reason()},
                 {"device", backend_ ? Json(backend_->name()) : Json()},
                 {"max_matrix_bytes", options_.max_matrix_bytes},
                 {"open_connections", connections_.size()},
                 {"counters", counters_json(counters_)},
                 {"info", info ? info_json(*info) : Json()},
                 {"region", Json()}};
  const Peer* peer = accelerator_.peer();
  if (const RegionView* region = accelerator_.region(); region && peer) {
    status["region"] = {{"id", region_id_text(region->id())},
                        {"bytes", region->bytes()},
                        {"generation", peer->generation},
                        {"devices", peer->devices},
                        {"arena", {region->arena_begin(), region->arena_end()}}};
  }
  if (backend_) status.update(backend_->counters());
  return status.dump(-1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace shmgemm::server

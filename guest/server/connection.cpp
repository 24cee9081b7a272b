#include "connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "log.h"

namespace shmgemm::server {
namespace {

constexpr std::size_t kReadBytes = 64u << 10;
constexpr std::uint64_t kMaxOutputBytes = 4u << 20;  // waiting for the client; then it is not read
constexpr std::size_t kMaxSlots = 16;                // inline ops and STATUS under way
constexpr std::size_t kMaxOutstanding = 1024;        // commands
constexpr std::int64_t kStallNs = 60'000'000'000;  // a frame or an answer stands still for so long

Bytes bytes_of(const void* from, std::size_t count) {
  const auto* first = static_cast<const std::byte*>(from);
  return Bytes(first, first + count);
}

void set_option(int fd, int level, int option) {
  const int on = 1;
  setsockopt(fd, level, option, &on, sizeof on);
}

}  // namespace

Connection::Connection(Services& services, int fd, std::string client)
    : services_(services),
      fd_(fd),
      client_(std::move(client)),
      reader_(services.budget, services.max_matrix_bytes),
      port_(services.loop, services.backend,
            {[this](const std::vector<Answer>& answers) { answered(answers); },
             {},
             [this](const std::string& why) { Log::debug(client_ + ": no device: " + why); }}),
      watched_events_(EPOLLIN),
      progress_ns_(now_ns()) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE);
  services_.loop.add(fd_, watched_events_, this);
  ++services_.counters.connections;
}

Connection::~Connection() {
  if (fd_ >= 0) ::close(fd_);
}

// --- reading
// ----------------------------------------------------------------------------------------

bool Connection::may_read() const {
  return !ended_ && !reader_.waits_for_room() && output_.bytes() <= kMaxOutputBytes &&
         slots_.size() < kMaxSlots && port_.outstanding() < kMaxOutstanding;
}

void Connection::on_events(std::uint32_t events) {
  const auto self = shared_from_this();
  if (closed()) return;
  if ((events & (EPOLLHUP | EPOLLERR)) != 0 && (events & EPOLLIN) == 0) {
    Log::debug(client_ + ": gone");
    return close();
  }
  if ((events & (EPOLLIN | EPOLLRDHUP)) != 0 && may_read()) read_some();
  if (!closed()) go_on();
}

void Connection::read_some() {
  std::byte buffer[kReadBytes];
  const ssize_t count = recv(fd_, buffer, sizeof buffer, 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  progress_ns_ = now_ns();
  if (count < 0) {
    Log::debug(client_ + ": " + strerror(errno));
    return close();
  }
  if (count == 0) ended_ = true;
  services_.counters.bytes_in += static_cast<std::uint64_t>(count);
  input_.insert(input_.end(), buffer, buffer + count);
  use_input();
}

// Not re-entered: a frame may be answered, and the connection go on, while it is handled.
void Connection::use_input() {
  if (using_input_ || closed()) return;
  using_input_ = true;
  std::size_t used = 0;
  try {
    do {
      used += reader_.feed(std::span(input_).subspan(used));
      if (reader_.complete()) handle(reader_.take());
    } while (!closed() && used < input_.size() && slots_.size() < kMaxSlots &&
             port_.outstanding() < kMaxOutstanding && output_.bytes() <= kMaxOutputBytes &&
             !reader_.waits_for_room());
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(used));
    if (ended_ && input_.empty() && reader_.in_frame() && !reader_.waits_for_room()) {
      fail("the connection ended within a frame: " + reader_.missing() + " came");
    }
  } catch (const ProtocolError& error) {
    fail(error.what());
  }
  using_input_ = false;
}

void Connection::on_room() {
  if (!reader_.waits_for_room()) return;
  const auto self = shared_from_this();
  progress_ns_ = now_ns();
  use_input();
  if (!closed()) go_on();
}

// --- requests
// ---------------------------------------------------------------------------------------

void Connection::handle(Frame frame) {
  if (Log::debugging()) log_frame(frame);
  switch (frame.op) {
    case Op::kGemm:
      ++services_.counters.gemm_frames;
      return handle_inline(std::move(frame));
    case Op::kLinear:
      ++services_.counters.linear_frames;
      return handle_inline(std::move(frame));
    case Op::kCommands:
      ++services_.counters.command_frames;
      return handle_commands(frame);
    case Op::kStatus:
      ++services_.counters.status_frames;
      return handle_status();
  }
}

void Connection::log_frame(const Frame& frame) const {
  std::string line = client_ + ": " + op_name(frame.op);
  if (frame.op == Op::kGemm || frame.op == Op::kLinear) {
    line += ", " + frame.request.text() + ": JSON " + std::to_string(frame.payload.size()) +
            ", A " + std::to_string(frame.matrices[0].size()) + ", B " +
            std::to_string(frame.matrices[1].size()) + ", bias " +
            std::to_string(frame.matrices[2].size()) + ", C " +
            std::to_string(frame.request.c_bytes()) + " bytes";
  } else if (frame.op == Op::kCommands) {
    line += ", " + std::to_string(frame.payload.size() / sizeof(shmgemm_command)) + " commands";
  }
  Log::note(line + " (" + std::to_string(frame.bytes) + " bytes)");
}

void Connection::handle_inline(Frame frame) {
  const InlineRequest& request = frame.request;
  services_.counters.matrix_bytes += request.total_bytes();
  const auto slot = std::make_shared<Slot>();
  slots_.push_back(slot);
  const auto job = std::make_shared<InlineJob>();
  slot->reservation = std::move(frame.reservation);
  job->frame = std::move(frame);
  job->done = [weak = weak_from_this(), slot, raw = job.get()] {
    const auto self = weak.lock();
    if (self && !self->closed()) self->fill_slot(slot, std::move(raw->c));
  };
  services_.accelerator.run(job);
}

void Connection::handle_commands(const Frame& frame) {
  std::vector<shmgemm_command> commands(frame.payload.size() / sizeof(shmgemm_command));
  std::memcpy(commands.data(), frame.payload.data(), frame.payload.size());
  services_.counters.commands += commands.size();
  port_.submit(commands.data(), commands.size(), now_ns());
}

void Connection::handle_status() {
  const auto slot = std::make_shared<Slot>();
  slots_.push_back(slot);
  services_.status_json([weak = weak_from_this(), slot](const std::string& json) {
    const auto self = weak.lock();
    if (self && !self->closed()) self->fill_slot(slot, bytes_of(json.data(), json.size()));
  });
}

// --- answers
// ----------------------------------------------------------------------------------------

void Connection::fill_slot(const std::shared_ptr<Slot>& slot, Bytes bytes) {
  slot->ready = true;
  slot->bytes = std::move(bytes);
  while (!slots_.empty() && slots_.front()->ready) {
    output_.add_size(slots_.front()->bytes.size());
    output_.add(std::move(slots_.front()->bytes), std::move(slots_.front()->reservation));
    slots_.pop_front();
  }
  go_on();
}

void Connection::answered(const std::vector<Answer>& answers) {
  if (closed()) return;
  Counters& counters = services_.counters;
  std::vector<shmgemm_completion> block;
  block.reserve(answers.size());
  const std::int64_t now = now_ns();
  for (const Answer& answer : answers) {
    block.push_back(answer.completion);
    counters.sojourn_ns += static_cast<std::uint64_t>(now - answer.received_ns);
    counters.device_ns += static_cast<std::uint64_t>(answer.device_ns);
    counters.no_device += answer.device_ns == 0 ? 1 : 0;
  }
  counters.completions += answers.size();
  output_.add_sized(block.data(), block.size() * sizeof block[0]);
  go_on();
}

void Connection::go_on() {
  const std::uint64_t before = output_.bytes();
  const bool there = output_.send(fd_);
  services_.counters.bytes_out += before - output_.bytes();
  if (output_.bytes() != before || output_.empty()) progress_ns_ = now_ns();
  if (!there) {
    Log::debug(client_ + ": went away with " + std::to_string(output_.bytes()) + " bytes to come");
    return close();
  }
  if (!input_.empty() || ended_) use_input();
  if (closed()) return;
  if (ended_ && input_.empty() && slots_.empty() && port_.outstanding() == 0 && output_.empty()) {
    return close();
  }
  const std::uint32_t events = (may_read() ? EPOLLIN : 0u) | (output_.empty() ? 0u : EPOLLOUT);
  if (events == watched_events_) return;
  watched_events_ = events;
  services_.loop.change(fd_, events, this);
}

// --- ends
// -------------------------------------------------------------------------------------------

void Connection::on_tick(std::int64_t now) {
  const bool stands = !output_.empty() || (reader_.in_frame() && may_read());
  if (!stands || now - progress_ns_ < kStallNs) return;
  fail(output_.empty()
           ? "a frame stood still for 60 s: " + reader_.missing() + " came"
           : "no answer was taken for 60 s, " + std::to_string(output_.bytes()) + " bytes wait");
}

void Connection::fail(const std::string& why) {
  ++services_.counters.errors;
  Log::note(client_ + ": connection closed: " + why);
  output_.send(fd_);
  close();
}

void Connection::close() {
  services_.loop.remove(fd_, this);
  ::close(fd_);
  fd_ = -1;
}

}  // namespace shmgemm::server

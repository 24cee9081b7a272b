#include "engine_port.h"

#include <algorithm>
#include <utility>

namespace shmgemm::server {
namespace {

constexpr std::size_t kBatch = 64;

Answer no_device(std::uint64_t id, std::uint32_t generation, std::uint8_t device,
                 std::int64_t received_ns) {
  Answer answer{};
  answer.completion.id = id;
  answer.completion.generation = generation;
  answer.completion.device = device;
  answer.completion.status = SHMGEMM_STATUS_NO_DEVICE;
  answer.received_ns = received_ns;
  return answer;
}

}  // namespace

EnginePort::EnginePort(Loop& loop, Backend* backend, Callbacks callbacks)
    : loop_(loop), backend_(backend), callbacks_(std::move(callbacks)) {}

EnginePort::~EnginePort() {
  if (channel_) loop_.remove(channel_->fd(), this);
}

void EnginePort::open() {
  if (channel_) return;
  try {
    if (backend_ == nullptr) throw ChannelLost("the server was started without a device");
    channel_ = backend_->open();
    watched_events_ = channel_->wanted_events();
    announced_ = false;
    loop_.add(channel_->fd(), watched_events_, this);
    announce();
  } catch (const std::runtime_error& error) {
    close(error.what());
  }
}

// Whatever was under way is answered with NO_DEVICE.
void EnginePort::close(const std::string& why) {
  if (channel_) {
    loop_.remove(channel_->fd(), this);
    channel_.reset();
  }
  std::vector<Answer> answers;
  for (const auto& [id, sent] : in_flight_) {
    answers.push_back(no_device(id, sent.generation, sent.device, sent.received_ns));
  }
  for (const Queued& each : queue_) {
    const shmgemm_command& command = each.command;
    answers.push_back(no_device(command.id, command.generation, command.device, each.received_ns));
  }
  in_flight_.clear();
  queue_.clear();
  if (callbacks_.lost) callbacks_.lost(why);
  if (!answers.empty()) callbacks_.answered(answers);
}

void EnginePort::submit(const shmgemm_command* commands, std::size_t count,
                        std::int64_t received_ns) {
  for (std::size_t i = 0; i < count; ++i) queue_.push_back({commands[i], received_ns});
  open();
  if (!channel_) return;
  try {
    send_queued();
    watch();
  } catch (const ChannelLost& error) {
    close(error.what());
  }
}

void EnginePort::send_queued() {
  shmgemm_command batch[kBatch];
  while (!queue_.empty()) {
    const std::size_t count = std::min(kBatch, queue_.size());
    for (std::size_t i = 0; i < count; ++i) batch[i] = queue_[i].command;
    const std::int64_t sent_ns = now_ns();
    const std::size_t taken = channel_->send({batch, count});
    for (std::size_t i = 0; i < taken; ++i) {
      const InFlight sent{batch[i].generation, batch[i].device, queue_.front().received_ns,
                          sent_ns};
      in_flight_.emplace(batch[i].id, sent);
      queue_.pop_front();
    }
    if (taken < count) return;
  }
}

void EnginePort::on_events(std::uint32_t events) {
  try {
    receive(events);
    if (!channel_) return;
    announce();
    if (!channel_) return;
    send_queued();
    watch();
  } catch (const ChannelLost& error) {
    close(error.what());
  }
}

// Answers that came before the channel went are still good.
void EnginePort::receive(std::uint32_t events) {
  std::vector<shmgemm_completion> completions;
  std::string lost;
  try {
    channel_->receive(events, completions);
  } catch (const ChannelLost& error) {
    lost = error.what();
  }
  std::vector<Answer> answers;
  const std::int64_t now = now_ns();
  for (const shmgemm_completion& completion : completions) {
    const auto command = in_flight_.find(completion.id);
    if (command == in_flight_.end()) {
      lost = "an answer to command " + std::to_string(completion.id) + ", which is not in flight";
      break;
    }
    answers.push_back({completion, command->second.received_ns, now - command->second.sent_ns});
    in_flight_.erase(command);
  }
  if (!answers.empty()) callbacks_.answered(answers);
  if (!lost.empty()) close(lost);
}

void EnginePort::announce() {
  if (announced_ || channel_->peer() == nullptr) return;
  announced_ = true;
  if (callbacks_.opened) callbacks_.opened();
}

void EnginePort::watch() {
  const std::uint32_t events = channel_->wanted_events();
  if (events == watched_events_) return;
  watched_events_ = events;
  loop_.change(channel_->fd(), events, this);
}

}  // namespace shmgemm::server

#include "client/channel.h"

#include <algorithm>
#include <utility>

#include "client/interrupt.h"

namespace shmgemm::client {
namespace {

std::array<std::uint64_t, 5> offsets_named(const shmgemm_command& command) {
  const std::uint64_t report = std::uint64_t{command.report} * SHMGEMM_BLOCK_ALIGN;
  if (command.op != SHMGEMM_OP_GEMM) return {0, 0, 0, 0, report};
  return {command.a, command.b, command.c, command.bias, report};
}

[[noreturn]] void throw_not_in_flight(std::uint64_t id) {
  throw Unsupported("command " + std::to_string(id) + " is not in flight on this queue pair");
}

}  // namespace

Channel::Channel(std::shared_ptr<Heap> heap)
    : heap_(std::move(heap)),
      limits_{heap_->region().heap_begin(), heap_->region().heap_end(), 0, 0} {
  for (std::uint32_t i = kSlots; i > 0; --i) free_slots_.push_back(i - 1);
}

std::uint64_t Channel::submit(shmgemm_command command, bool pin, Deadline deadline) {
  Lock lock(mutex_);
  await_credits(lock, 1, deadline);
  const std::uint64_t id = publish(command, pin, false);
  port_->ring();
  return id;
}

void Channel::submit(shmgemm_command* commands, std::size_t count, Deadline deadline) {
  Lock lock(mutex_);
  await_credits(lock, count, deadline);
  for (std::size_t i = 0; i < count; ++i) commands[i].id = publish(commands[i], false, false);
  port_->ring();
}

// One slot stays back for the FLUSH that gets a full queue moving.
void Channel::await_credits(Lock& lock, std::size_t count, Deadline deadline) {
  while (free_slots_.size() <= count && !failed()) {
    if (set_results_aside()) continue;
    if (!has_in_flight()) {
      throw Unsupported(std::to_string(kSlots - free_slots_.size()) +
                        " results wait to be collected: wait() for some before submitting more");
    }
    if (unflushed_ > 0) flush_locked(0);
    ++waiting_;
    try {
      if (!wait_once(lock, deadline, region::Expect::kShort)) {
        throw DeviceTimeout("the deadline passed before there was room for the command");
      }
    } catch (...) {
      --waiting_;
      throw;
    }
    --waiting_;
  }
  if (failed()) throw_failure();
}

// False where no slot came free.
bool Channel::set_results_aside() {
  bool any = false;
  for (Slot& slot : slots_) {
    if (slot.keeps_slot || (slot.state != State::kDone && slot.state != State::kFailed)) continue;
    set_aside_[slot.id] = {slot.completion, slot.state == State::kFailed};
    free_slot(slot);
    any = true;
  }
  return any;
}

std::uint64_t Channel::publish(shmgemm_command command, bool pin_blocks, bool abandoned) {
  const std::uint32_t index = free_slots_.back();
  free_slots_.pop_back();
  // The low half of an id must not be 0, which means "none" in `after`.
  if ((++tickets_ * kSlots + index) << 32 == 0) ++tickets_;
  Slot& slot = slots_[index];
  slot.id = tickets_ * kSlots + index;
  slot.state = State::kInFlight;
  slot.abandoned = abandoned;
  slot.keeps_slot = pin_blocks;
  slot.flushed = command.op == SHMGEMM_OP_FLUSH || (command.flags & SHMGEMM_FLAG_FLUSH) != 0;
  if (!slot.flushed && ++unflushed_ >= SHMGEMM_FLUSH_EVERY) {
    command.flags |= SHMGEMM_FLAG_FLUSH;
    slot.flushed = true;
  }
  if (slot.flushed) unflushed_ = 0;
  slot.named = offsets_named(command);
  if (pin_blocks) pin(slot);
  command.id = slot.id;
  command.generation = limits_.generation;
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  submitted_.fetch_add(1, std::memory_order_relaxed);
  port_->publish(command);
  return slot.id;
}

// Makes simulated time run to the end of an op that was submitted without a flush; 0: of all.
void Channel::flush_locked(std::uint64_t id) {
  if (free_slots_.empty()) return;  // then others flush, and this is tried again
  shmgemm_command command{};
  command.op = SHMGEMM_OP_FLUSH;
  command.after = static_cast<std::uint32_t>(id);
  if (id != 0) slot_of(id).flushed = true;
  publish(command, false, true);
  port_->ring();
}

shmgemm_completion Channel::wait(std::uint64_t id, Deadline deadline, region::Expect expect) {
  Lock lock(mutex_);
  bool in_time = false;
  if (slot_of(id).id == id && slot_of(id).abandoned) throw_not_in_flight(id);
  try {
    in_time = await_locked(lock, id, deadline, expect);
  } catch (...) {
    abandon_locked(id, nullptr);
    throw;
  }
  if (in_time) return take_locked(id);
  abandon_locked(id, nullptr);
  throw DeviceTimeout("the deadline passed before the device answered");
}

bool Channel::in_flight(std::uint64_t id) {
  const Slot& slot = slot_of(id);
  return slot.id == id && slot.state == State::kInFlight;
}

bool Channel::await(std::uint64_t id, Deadline deadline, region::Expect expect) {
  Lock lock(mutex_);
  return await_locked(lock, id, deadline, expect);
}

bool Channel::await_locked(Lock& lock, std::uint64_t id, Deadline deadline, region::Expect expect) {
  ++waiting_;
  struct Leave {
    std::uint32_t& waiting;
    ~Leave() { --waiting; }
  } leave{waiting_};
  while (in_flight(id)) {
    if (!slot_of(id).flushed) flush_locked(id);
    if (!wait_once(lock, deadline, expect) && in_flight(id)) return false;
  }
  return true;
}

bool Channel::settled(std::uint64_t id) {
  Lock lock(mutex_);
  if (!in_flight(id)) return true;
  if (!slot_of(id).flushed) flush_locked(id);
  if (reaping_ || failed()) return false;
  reap();
  return !in_flight(id);
}

Channel::End Channel::end_of(std::uint64_t id) {
  const Lock lock(mutex_);
  const Slot& slot = slot_of(id);
  if (slot.id == id && slot.state == State::kFailed) return {0, true};
  if (slot.id == id && slot.state == State::kDone) return {slot.completion.end_cycles, false};
  const auto aside = set_aside_.find(id);
  if (aside == set_aside_.end()) return {};
  return {aside->second.failed ? 0 : aside->second.completion.end_cycles, aside->second.failed};
}

shmgemm_completion Channel::take(std::uint64_t id) {
  const Lock lock(mutex_);
  return take_locked(id);
}

shmgemm_completion Channel::take_locked(std::uint64_t id) {
  Slot& slot = slot_of(id);
  Result result;
  const auto aside = set_aside_.empty() ? set_aside_.end() : set_aside_.find(id);
  if (aside != set_aside_.end()) {
    result = aside->second;
    set_aside_.erase(aside);
  } else if (slot.id != id || slot.abandoned ||
             (slot.state != State::kDone && slot.state != State::kFailed)) {
    throw_not_in_flight(id);
  } else {
    result = {slot.completion, slot.state == State::kFailed};
    free_slot(slot);
  }
  if (result.failed) throw_failure();
  return result.completion;
}

void Channel::abandon(std::uint64_t id, std::shared_ptr<Orphan> heir) {
  const Lock lock(mutex_);
  abandon_locked(id, std::move(heir));
}

// Waits until something happened, at the ring or behind the thread that is there; false where the
// deadline has passed first. Throws with the lock held.
bool Channel::wait_once(Lock& lock, Deadline deadline, region::Expect expect) {
  region::Nanoseconds limit = kSlice;
  if (deadline != kNoDeadline) {
    limit = std::clamp(region::Nanoseconds(deadline - region::Clock::now()), region::Nanoseconds(0),
                       kSlice);
  }
  bool happened = false;
  if (reaping_ || failed()) {  // fail() needs the lock, and the ring with nobody at it
    happened = changed_.wait_for(lock, limit) == std::cv_status::no_timeout;
  } else {
    reaping_ = true;
    lock.unlock();
    happened = port_->wait(failure_flag_, limit, expect);
    lock.lock();
    reap();
    reaping_ = false;
    if (waiting_ > 1 || failed()) changed_.notify_all();
  }
  return happened || !is_late(lock, deadline);
}

// Interrupted where the program wants to stop.
bool Channel::is_late(Lock& lock, Deadline deadline) {
  lock.unlock();
  const bool stop = interrupted();
  const bool late = deadline != kNoDeadline && region::Clock::now() >= deadline;
  lock.lock();
  if (stop) throw Interrupted("interrupted while waiting for the device");
  return late;
}

void Channel::reap() {
  shmgemm_completion completion;
  try {
    while (nonsense_text_.empty() && port_->poll(completion)) accept(completion);
  } catch (const ProtocolError& error) {
    nonsense(error.what());
  }
}

void Channel::accept(const shmgemm_completion& completion) {
  const shmgemm_status status = shmgemm_validate_completion(&completion, &limits_);
  if (status != SHMGEMM_STATUS_OK) {
    return nonsense(std::string("a completion that is not valid: ") + shmgemm_status_text(status));
  }
  Slot& slot = slot_of(completion.id);
  if (slot.id != completion.id || slot.state != State::kInFlight) {
    return nonsense("a completion for id " + std::to_string(completion.id) +
                    ", which is not in flight");
  }
  slot.state = State::kDone;
  slot.completion = completion;
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  unpin(slot);
  if (!slot.abandoned) return;
  if (slot.heir) slot.heir->ended(completion);
  free_slot(slot);
}

// What a broken engine says is not to be believed any further: it is killed, and fail() follows.
void Channel::nonsense(const std::string& what) {
  nonsense_text_ = "the engine sent " + what;
  if (kill_engine_) kill_engine_();
}

void Channel::abandon_locked(std::uint64_t id, std::shared_ptr<Orphan> heir) {
  if (const auto aside = set_aside_.find(id); aside != set_aside_.end()) {
    if (heir && !aside->second.failed) heir->ended(aside->second.completion);
    set_aside_.erase(aside);
    return;
  }
  Slot& slot = slot_of(id);
  if (slot.id != id || slot.state == State::kFree || slot.abandoned) return;
  if (slot.state == State::kDone && heir) heir->ended(slot.completion);
  if (slot.state != State::kInFlight) return free_slot(slot);
  slot.abandoned = true;
  slot.heir = std::move(heir);
  if (slot.pins.empty()) pin(slot);
}

void Channel::pin(Slot& slot) {
  for (const std::uint64_t offset : slot.named) {
    std::uint64_t first_byte = 0;
    if (offset != 0 && heap_->allocator().retain_containing(offset, &first_byte)) {
      slot.pins.push_back(first_byte);
    }
  }
}

void Channel::unpin(Slot& slot) {
  for (const std::uint64_t first_byte : slot.pins) heap_->allocator().release(first_byte);
  slot.pins.clear();
}

void Channel::free_slot(Slot& slot) {
  slot.state = State::kFree;
  slot.heir.reset();
  free_slots_.push_back(static_cast<std::uint32_t>(&slot - slots_.data()));
}

void Channel::fail(Failure kind, const std::string& message) {
  failure_flag_.store(true, std::memory_order_seq_cst);
  Lock lock(mutex_);
  if (port_) port_->wake();
  changed_.wait(lock, [this] { return !reaping_; });
  if (port_) reap();  // what was published before the end counts
  failure_ = nonsense_text_.empty() ? kind : Failure::kProtocol;
  failure_text_ = nonsense_text_.empty() ? message : nonsense_text_ + "; it was killed";
  for (Slot& slot : slots_) {
    if (slot.state != State::kInFlight) continue;
    unpin(slot);
    slot.state = State::kFailed;
    if (slot.abandoned) free_slot(slot);
  }
  in_flight_.store(0, std::memory_order_relaxed);
  changed_.notify_all();
}

void Channel::begin(std::unique_ptr<Port> port, std::uint32_t generation) {
  Lock lock(mutex_);
  changed_.wait(lock, [this] { return !reaping_; });
  port_ = std::move(port);
  limits_.generation = generation;
  limits_.devices = 255;
  unflushed_ = 0;
  nonsense_text_.clear();
  failure_flag_.store(false, std::memory_order_seq_cst);
}

void Channel::reap_abandoned() {
  Lock lock(mutex_);
  if (!reaping_ && !failed()) reap();
}

bool Channel::wait_until_unused(region::Nanoseconds limit) {
  const auto end = region::Clock::now() + limit;
  Lock lock(mutex_);
  while (waiting_ > 0 && region::Clock::now() < end) {
    changed_.wait_for(lock, region::Nanoseconds(1'000'000));
  }
  return waiting_ == 0;
}

void Channel::throw_failure() const {
  switch (failure_) {
    case Failure::kTimeout:
      throw DeviceTimeout(failure_text_);
    case Failure::kProtocol:
      throw ProtocolError(failure_text_);
    case Failure::kClosed:
      throw Closed(failure_text_);
    default:
      throw DeviceLost(failure_text_);
  }
}

}  // namespace shmgemm::client

#include "client/session.h"

#include <memory>
#include <utility>

#include "client/channel.h"
#include "client/current.h"
#include "client/session_impl.h"

namespace shmgemm {

Session::Session(std::unique_ptr<SessionImpl> impl) : impl_(std::move(impl)) {}

Session::~Session() {
  // In a forked child the threads and locks behind it are not ours to end.
  if (!impl_->ours()) {
    (void)impl_.release();
  } else if (!impl_->closed()) {
    close();
  }
}

std::shared_ptr<Session> Session::open(const SessionOptions& options) {
  return std::shared_ptr<Session>(new Session(std::make_unique<SessionImpl>(options)));
}

std::shared_ptr<Block> Session::allocate(std::uint64_t bytes) {
  if (impl_->closed()) throw_closed();
  return client::allocate_or_throw(impl_->heap(), bytes);
}

bool Session::contains(const void* data, std::uint64_t bytes) const {
  return impl_->heap().contains(data, bytes);
}

shmgemm_completion Session::gemm(const GemmCall& call) { return impl_->gemm(call); }

std::shared_ptr<Future> Session::gemm_async(const GemmCall& call) {
  return impl_->gemm_async(call, shared_from_this());
}

std::vector<shmgemm_completion> Session::gemm_batch(const std::vector<GemmCall>& calls) {
  return impl_->gemm_batch(calls);
}

StreamMark Session::mark(std::uint32_t stream) const { return impl_->streams().last(stream); }

void Session::wait_for(std::uint32_t stream, const StreamMark& mark) {
  if (impl_->closed()) throw_closed();
  impl_->streams().wait(stream, mark);
}

bool Session::reached(const StreamMark& mark) {
  if (impl_->closed()) throw_closed();
  return mark.channel == nullptr || mark.channel->settled(mark.id);
}

bool Session::await(const StreamMark& mark, double timeout_s) {
  if (impl_->closed()) throw_closed();
  if (mark.channel == nullptr) return true;
  return mark.channel->await(mark.id, client::limit_after(timeout_s), region::Expect::kShort);
}

shmgemm_completion Session::noop(std::uint8_t device) {
  shmgemm_command command{};
  command.op = SHMGEMM_OP_NOOP;
  command.flags = SHMGEMM_FLAG_FLUSH;
  command.device = device;
  return impl_->call(command, "NOOP");
}

shmgemm_completion Session::echo(std::uint64_t x, std::uint64_t y, std::uint64_t z) {
  shmgemm_command command{};
  command.op = SHMGEMM_OP_ECHO;
  command.flags = SHMGEMM_FLAG_FLUSH;
  command.arg[0] = x;
  command.arg[1] = y;
  command.arg[2] = z;
  return impl_->call(command, "ECHO");
}

shmgemm_completion Session::flush() { return impl_->flush(); }

void Session::reset(std::uint8_t device) {
  shmgemm_command command{};
  command.op = SHMGEMM_OP_RESET;
  command.flags = SHMGEMM_FLAG_FLUSH;
  command.device = device;
  impl_->call(command, "RESET");
}

shmgemm_info Session::info(std::uint8_t device) { return impl_->info(device); }

std::uint64_t Session::submit(shmgemm_command command) { return impl_->submit_raw(command); }

shmgemm_completion Session::wait(std::uint64_t id, double timeout_s) {
  if (impl_->closed()) throw_closed();
  return impl_->wait_raw(id, timeout_s);
}

Stats Session::stats() const { return impl_->stats(); }
void Session::set_profiling(bool on) { impl_->ledger().set_profiling(on); }
std::vector<OpRecord> Session::take_records() { return impl_->ledger().take_records(); }
void Session::close() {
  impl_->close();
  client::forget_use();
}
bool Session::closed() const { return impl_->closed(); }
int Session::engine_pid() const { return impl_->engine_pids().front(); }
std::vector<int> Session::engine_pids() const { return impl_->engine_pids(); }
int Session::region_fd() const { return impl_->heap().region().fd(); }
std::uint32_t Session::devices() const { return impl_->options().devices; }
const std::map<std::string, std::string>& Session::parameters() const {
  return impl_->options().parameters;
}
std::uint32_t Session::generation() const { return impl_->heap().region().generation(); }

}  // namespace shmgemm

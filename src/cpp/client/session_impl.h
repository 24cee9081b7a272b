// What is behind a session: its engines, each by its lane, and what its calls share, which is
// simulated time, the order of streams, and the ledger.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "client/attach.h"
#include "client/connection_pool.h"
#include "client/heap.h"
#include "client/in_flight.h"
#include "client/lane.h"
#include "client/ledger.h"
#include "client/session.h"
#include "client/streams.h"

namespace shmgemm {

// A product that keeps the engine busy for longer than anyone should spin.
constexpr std::uint64_t kLongMacs = 4'000'000;

class SessionImpl {
 public:
  explicit SessionImpl(const SessionOptions& options);
  ~SessionImpl() { close(); }

  // Before each op: the engine of its device runs, or runs again.
  void ready(std::uint8_t device);
  void close();

  shmgemm_completion gemm(const GemmCall& call);
  std::shared_ptr<Future> gemm_async(const GemmCall& call, std::shared_ptr<Session> session);
  std::vector<shmgemm_completion> gemm_batch(const std::vector<GemmCall>& calls);
  shmgemm_completion call(const shmgemm_command& command, const char* name);
  shmgemm_completion flush();
  std::uint64_t submit_raw(const shmgemm_command& command);
  shmgemm_completion wait_raw(std::uint64_t id, double timeout_s);
  shmgemm_info info(std::uint8_t device);
  Stats stats() const;

  // C holds what a completed product says, or its refusal is thrown. The completion is made the
  // session's: it comes as the engine has it.
  void settle(client::InFlight& product, shmgemm_completion& completion);

  bool ours() const { return heap_->ours(); }  // not a forked child's copy
  bool closed() const { return closed_->load() || !ours(); }
  client::Heap& heap() { return *heap_; }
  client::Streams& streams() { return streams_; }
  client::Ledger& ledger() { return ledger_; }
  const SessionOptions& options() const { return options_; }
  std::vector<int> engine_pids() const;

 private:
  // That serves a device; the engine of one that is not there refuses it.
  client::Lane& lane_of(std::uint8_t device) const { return *lanes_[device % lanes_.size()]; }
  void start_pool();

  // The release time that a command must carry, whatever lane it goes to. Simulated time belongs to
  // an engine, and a new one begins at 0; but for the program it is one, and what it has waited for
  // is past.
  std::uint64_t release_cycles(std::uint64_t wanted) const;
  void waited_for(const shmgemm_completion& completion);
  shmgemm_command for_engine(shmgemm_command command) const;
  void keep_order(shmgemm_command& command, const StreamMark& after);
  std::uint32_t generation_of(const client::Channel* channel) const;

  shmgemm_command command_of(const client::InFlight& product);
  shmgemm_completion run(const shmgemm_command& command, region::Expect expect);
  shmgemm_completion gemm_inline(const GemmCall& call);
  std::vector<shmgemm_completion> send_together(
      const std::vector<std::unique_ptr<client::InFlight>>& products);

  void check_product(const GemmCall& call) const;
  void ready_for_commands(std::uint8_t device, const char* what);
  [[noreturn]] void refuse_device(std::uint8_t device, const std::string& what) const;
  [[noreturn]] void refuse_inline(const std::string& what) const;
  [[noreturn]] void refuse(const shmgemm_completion& completion, const std::string& what);

  SessionOptions options_;
  const std::unique_ptr<client::Attachment> attachment_;  // to a session of another process
  std::shared_ptr<client::Heap> heap_;
  std::unique_ptr<client::ConnectionPool> pool_;  // where matrices travel
  const std::shared_ptr<std::atomic<bool>> closed_ = std::make_shared<std::atomic<bool>>(false);
  std::mutex closing_;
  client::Ledger ledger_;
  client::Streams streams_;
  std::atomic<std::uint64_t> now_{0};  // the largest end that was waited for
  std::vector<std::unique_ptr<client::Lane>> lanes_;
};

[[noreturn]] void throw_closed();
[[noreturn]] void throw_parents();  // in a forked child

}  // namespace shmgemm

// A session: one region, one engine process or several that serve it, and the calls a program makes
// of them.
// Every method may be called from any thread. No method blocks for ever: it ends in a result or in
// one of the errors of error.h.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "abi/shmgemm_abi.h"
#include "region/error.h"

namespace shmgemm {

// A matrix somewhere in this process's memory; strides in elements.
struct MatrixView {
  const void* data = nullptr;
  std::int64_t batch_stride = 0;
  std::int64_t row_stride = 0;
  std::int64_t column_stride = 1;
};

namespace client {
class Channel;
}

// A product that was sent, or a place in a stream: the last one before it. Ids are unique in a
// channel for as long as it lives, whatever engines come and go.
struct StreamMark {
  client::Channel* channel = nullptr;  // null: nothing to wait for
  std::uint64_t id = 0;
  std::uint32_t generation = 0;  // of the engine that it was sent to, or of one before
};

// C (m x n) = A (m x k) B (k x n) (+ bias), `batch` times. No dimension is 0. Operands that lie in
// the session's region are used in place; others are staged with one copy. C has column_stride 1.
struct GemmCall {
  const char* name = "gemm";  // a literal or interned(): what the profile calls this op
  std::uint32_t m = 0, n = 0, k = 0, batch = 1;
  std::uint8_t dtype_in = SHMGEMM_DTYPE_FLOAT32;
  std::uint8_t dtype_out = SHMGEMM_DTYPE_FLOAT32;
  MatrixView a, b, c;
  const void* bias = nullptr;  // n elements: float32 for float types, int32 for int8
  bool accumulate = false;
  std::uint8_t device = 0;
  std::uint32_t stream = 0;        // 0: the device's own
  StreamMark after;                // of this session: it starts when that has ended
  std::uint64_t bytes_copied = 0;  // of its operands by the caller: counted with what is staged
};

// Numbers below are the devices' own streams.
constexpr std::uint32_t kFirstStream = 256;

struct OpRecord {
  const char* name = "";
  std::string scope;  // module path, set by set_scope()
  std::uint32_t m = 0, n = 0, k = 0, batch = 0;
  std::uint8_t dtype_in = 0, dtype_out = 0, device = 0;
  std::uint32_t stream = 0;
  std::uint32_t generation = 0;  // of the engine that served it: a new one where that was lost
  std::uint64_t start_cycles = 0, end_cycles = 0;
  std::uint64_t busy_cycles = 0, fill_drain_cycles = 0, memory_stall_cycles = 0;
  std::uint64_t host_start_ns = 0, host_ns = 0;  // steady clock
  std::uint64_t bytes_copied = 0;
  std::uint64_t macs = 0, peak_macs_per_cycle = 0, folds = 0;
  double mapping_efficiency = 0, compute_utilization = 0;
  std::uint64_t read_bytes[SHMGEMM_LEVELS][SHMGEMM_OPERANDS] = {};
  std::uint64_t write_bytes[SHMGEMM_LEVELS][SHMGEMM_OPERANDS] = {};
  std::vector<shmgemm_timeline_entry> timeline;  // what each core did when, where the model says
};

struct Stats {
  std::uint64_t ops = 0;  // GEMMs that completed
  std::uint64_t commands = 0;
  std::uint64_t macs = 0;
  std::uint64_t cycles = 0;  // sum of end - start over GEMMs
  std::uint64_t busy_cycles = 0, fill_drain_cycles = 0, memory_stall_cycles = 0;
  std::uint64_t now_cycles = 0;  // latest end seen
  std::uint64_t bytes_copied = 0;
  std::uint64_t engine_starts = 0;
  std::uint64_t rejects = 0;
  std::uint64_t region_bytes = 0, heap_bytes = 0, heap_used_bytes = 0;
  std::uint64_t clock_hz = 0;
};

struct SessionOptions {
  std::string engine_path;                        // shmgemm-engine, or sst
  std::vector<std::string> engine_words;          // before the words it gets from here; with some,
                                                  // it has a process group of its own
  std::map<std::string, std::string> parameters;  // the hardware, as model/hardware.h reads it
  std::vector<std::string> plugins;               // files with timing models
  std::uint64_t region_bytes = 256ull << 20;
  std::uint64_t guest_arena_bytes = 0;  // of them, kept for a device server in a guest
  std::string link_path;                // where the engine takes links; empty: nowhere
  std::uint32_t clients = 0;            // other processes that may attach there
  std::uint32_t devices = 1;
  // Engines that serve them, each by itself: device d is served by number d % processes.
  std::uint32_t processes = 1;
  std::uint32_t threads = 0;  // of each engine; 0: as many as CPUs, shared among the engines
  double timeout_s = 5.0;     // without a heartbeat
  // Boots a guest with this region, or finds it booted; returns its device server's HOST:PORT.
  // Null: commands go to the engine directly.
  std::function<std::string(int region_fd)> guest;
  // HOST:PORT of a device server that runs already; the session has no engine of its own then. With
  // the region that the server's engine serves commands name matrices in it; without, matrices
  // travel, over at most `connections`, and the server says no cycles.
  std::string server, region_path;
  std::uint32_t connections = 4;
  std::string attach_path;  // the link_path of another process's session, to be joined; the engine
                            // says `devices` and `parameters` then
  bool bit_accurate = false;  // sum in the order of the modelled array
  bool debug = false;         // log each command to stderr
};

class SessionImpl;

// Memory in a region. Lives as long as someone holds it, also after its session was closed.
class Block {
 public:
  virtual ~Block() = default;
  virtual void* data() const = 0;
  virtual std::uint64_t bytes() const = 0;
  virtual std::uint64_t offset() const = 0;  // from byte 0 of the region
};

// The result of a product that was sent without waiting for it. Its operands must not change, and C
// must not be used, before it is there; blocks that they lie in must not go before the future does,
// which keeps them where it is dropped or cancelled: the product goes on, and is counted.
class Future {
 public:
  virtual ~Future() = default;
  virtual bool done() = 0;                  // never blocks; the first asks the engine to go on
  virtual bool wait(double timeout_s) = 0;  // until done; below 0: no limit; false where it passed
  // Waits; C holds the result, or what went wrong is thrown.
  virtual shmgemm_completion result() = 0;
  virtual StreamMark mark() const = 0;
  virtual bool cancel() = 0;  // nobody wants it any more; false where it is done
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  static std::shared_ptr<Session> open(const SessionOptions& options);
  ~Session();

  // RegionFull where it does not fit. Never zeroed.
  std::shared_ptr<Block> allocate(std::uint64_t bytes);
  bool contains(const void* data, std::uint64_t bytes) const;  // lies wholly in the heap

  shmgemm_completion gemm(const GemmCall& call);  // blocks; returns when C holds the result
  std::shared_ptr<Future> gemm_async(const GemmCall& call);
  // All at once: one wake-up, one flush, and it returns when all are there. What the engine refused
  // is thrown when the others are.
  std::vector<shmgemm_completion> gemm_batch(const std::vector<GemmCall>& calls);

  StreamMark mark(std::uint32_t stream) const;  // behind what was sent without waiting
  void wait_for(std::uint32_t stream, const StreamMark& mark);  // what is sent in it from now on
  bool reached(const StreamMark& mark);                         // does not block
  bool await(const StreamMark& mark, double timeout_s);         // as Future::wait()

  shmgemm_completion noop(std::uint8_t device = 0);
  shmgemm_completion echo(std::uint64_t x, std::uint64_t y, std::uint64_t z);
  shmgemm_completion flush();
  void reset(std::uint8_t device = 0);
  shmgemm_info info(std::uint8_t device = 0);

  // The raw path: ids, generation and seq are filled in, device and release time made the engine's;
  // the command is validated by the engine alone. `after` names a command of the same engine.
  std::uint64_t submit(shmgemm_command command);  // returns its id, blocks only for credits
  shmgemm_completion wait(std::uint64_t id,
                          double timeout_s = 0);  // 0: no deadline but the heartbeat

  Stats stats() const;
  void set_profiling(bool on);
  std::vector<OpRecord> take_records();

  void close();  // idempotent; ends the engine; blocks stay valid
  bool closed() const;
  int engine_pid() const;                // of the first; 0 where none runs
  std::vector<int> engine_pids() const;  // of each
  int region_fd() const;
  std::uint32_t generation() const;  // of the first engine
  std::uint32_t devices() const;
  const std::map<std::string, std::string>& parameters() const;  // of the hardware

 private:
  explicit Session(std::unique_ptr<SessionImpl> impl);
  std::unique_ptr<SessionImpl> impl_;
};

// The session that ops without one use. `opener` is called where there is none (or it was closed,
// or it belongs to the parent process).
void set_current_session(std::shared_ptr<Session> session);
std::shared_ptr<Session>
current_session();  // opens one with the opener; Closed where there is none
std::shared_ptr<Session> current_session_or_null();
void set_session_opener(std::function<std::shared_ptr<Session>()> opener);

// The program is about to end: from now on a thread that is not its main one and asks for a device
// stops for good (see python/gil.h).
void set_program_ending();
bool program_ending();

// Called from a blocked call at least every 20 ms; true: give up with Interrupted.
void set_interrupt_check(bool (*check)());

// The module path that records of this thread carry.
void set_scope(const std::string& scope);
const std::string& scope();

// The stream of this thread's products; 0: each device's own.
void set_current_stream(std::uint32_t stream);
std::uint32_t current_stream();

// The same characters at an address that stays valid: records keep the pointer to an op's name.
const char* interned(std::string_view name);

}  // namespace shmgemm

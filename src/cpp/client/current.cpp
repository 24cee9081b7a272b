// What a program has one of: the current session, the interrupt check, and each thread's scope.
#include <pthread.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <set>
#include <utility>

#include "client/current.h"
#include "client/interrupt.h"
#include "client/session.h"

namespace shmgemm {
namespace {

struct Current {
  std::mutex mutex;
  std::shared_ptr<Session> session;
  std::function<std::shared_ptr<Session>()> opener;
  std::mutex opening;  // held while the opener runs, so that two threads open one session
};

// Never destroyed: threads may ask for it while the program exits.
Current& current() {
  static Current* const instance = [] {
    auto* fresh = new Current;
    // A fork while another thread holds a lock must not leave it locked in the child for ever.
    pthread_atfork([] { current().mutex.lock(); }, [] { current().mutex.unlock(); },
                   [] {
                     new (&current().mutex) std::mutex;
                     new (&current().opening) std::mutex;
                     client::forget_use();  // the parent's session is not this child's
                   });
    return fresh;
  }();
  return *instance;
}

std::atomic<bool (*)()> interrupt_check{nullptr};
std::atomic<bool> ending{false};
thread_local std::string thread_scope;
thread_local std::uint32_t thread_stream = 0;
thread_local client::ClosedFlag thread_session_closed;

}  // namespace

void set_current_session(std::shared_ptr<Session> session) {
  std::shared_ptr<Session> former;  // destroyed without the lock
  const std::lock_guard<std::mutex> lock(current().mutex);
  former = std::exchange(current().session, std::move(session));
  client::forget_use();
}

std::shared_ptr<Session> current_session_or_null() {
  const std::lock_guard<std::mutex> lock(current().mutex);
  const auto& session = current().session;
  return session != nullptr && !session->closed() ? session : nullptr;
}

std::shared_ptr<Session> current_session() {
  if (auto session = current_session_or_null()) return session;
  if (thread_session_closed != nullptr && thread_session_closed->load()) {
    client::forget_use();
    throw Closed(
        "the session this thread used was closed by another thread; open one here (without, the"
        " next op opens a default session)");
  }
  const std::lock_guard<std::mutex> opening(current().opening);
  if (auto session = current_session_or_null()) return session;
  std::function<std::shared_ptr<Session>()> opener;
  {
    const std::lock_guard<std::mutex> lock(current().mutex);
    opener = current().opener;
  }
  if (!opener) throw Closed("no session is open");
  auto session = opener();
  set_current_session(session);
  return session;
}

void set_session_opener(std::function<std::shared_ptr<Session>()> opener) {
  const std::lock_guard<std::mutex> lock(current().mutex);
  current().opener = std::move(opener);
}

void set_interrupt_check(bool (*check)()) { interrupt_check.store(check); }
bool client::interrupted() {
  bool (*const check)() = interrupt_check.load();
  return check != nullptr && check();
}

void set_program_ending() { ending.store(true); }
bool program_ending() { return ending.load(std::memory_order_relaxed); }

void client::note_use(const ClosedFlag& closed) {
  if (thread_session_closed != closed) thread_session_closed = closed;
}
void client::forget_use() { thread_session_closed.reset(); }

void set_scope(const std::string& scope) { thread_scope = scope; }
const std::string& scope() { return thread_scope; }

void set_current_stream(std::uint32_t stream) { thread_stream = stream; }
std::uint32_t current_stream() { return thread_stream; }

const char* interned(std::string_view name) {
  static auto* const mutex = new std::mutex;
  static auto* const names = new std::set<std::string, std::less<>>;
  const std::lock_guard<std::mutex> lock(*mutex);
  auto found = names->find(name);
  if (found == names->end()) found = names->emplace(name).first;
  return found->c_str();
}

}  // namespace shmgemm

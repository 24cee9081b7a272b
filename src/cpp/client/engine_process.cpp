#include "client/engine_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "client/interrupt.h"

extern char** environ;

namespace shmgemm::client {
namespace {

constexpr int kTheirRegion = 3;
constexpr int kTheirSocket = 4;
constexpr std::chrono::milliseconds kStartLimit{15000};
constexpr std::chrono::milliseconds kSlice{20};  // how often a start looks up

// Descriptors as the child must have them: numbers above those it gets, so that dup2 clobbers
// neither.
int above_standard(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, kTheirSocket + 1); }

std::vector<std::string> arguments_for(const SessionOptions& options, std::uint32_t header) {
  std::vector<std::string> words = {options.engine_path};
  words.insert(words.end(), options.engine_words.begin(), options.engine_words.end());
  words.insert(words.end(),
               {"--region-fd", std::to_string(kTheirRegion), "--control-fd",
                std::to_string(kTheirSocket), "--parent", std::to_string(getpid()), "--devices",
                std::to_string(options.devices), "--threads", std::to_string(options.threads)});
  if (header != 0) words.insert(words.end(), {"--header", std::to_string(header)});
  if (!options.link_path.empty()) {
    words.push_back("--link");
    words.push_back(options.link_path);
  }
  for (const std::string& plugin : options.plugins) {
    words.push_back("--plugin");
    words.push_back(plugin);
  }
  for (const auto& [key, value] : options.parameters) words.push_back(key + "=" + value);
  return words;
}

// Ours, but for OpenBLAS, which must not start threads of its own in the engine.
std::vector<std::string> environment() {
  std::vector<std::string> variables = {"OPENBLAS_NUM_THREADS=1"};
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (std::strncmp(*variable, "OPENBLAS_NUM_THREADS=", 21) != 0) variables.push_back(*variable);
  }
  return variables;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

EngineProcess::EngineProcess(const SessionOptions& options, const region::Region& region)
    : path_(options.engine_path) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) {
    throw Unsupported(std::string("control socket: ") + std::strerror(errno));
  }
  socket_ = sockets[0];
  try {
    spawn(options, region, sockets[1]);
  } catch (...) {
    ::close(sockets[1]);
    close_descriptors();
    throw;
  }
  ::close(sockets[1]);
}

EngineProcess::~EngineProcess() {
  if (!dead_) {
    kill();
    wait_dead(std::chrono::seconds(5));
  }
  close_descriptors();
}

void EngineProcess::close_descriptors() {
  if (socket_ >= 0) ::close(socket_);
  if (pidfd_ >= 0) ::close(pidfd_);
  socket_ = pidfd_ = -1;
}

void EngineProcess::spawn(const SessionOptions& options, const region::Region& region,
                          int their_socket) {
  const int region_fd = above_standard(region.fd());
  const int socket_fd = above_standard(their_socket);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, region_fd, kTheirRegion);
  posix_spawn_file_actions_adddup2(&actions, socket_fd, kTheirSocket);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  short flags = POSIX_SPAWN_SETSIGMASK;
  if (!options.engine_words.empty()) {
    // A program that is not ours ends on the terminal's Ctrl-C, which is meant for the session, and
    // what it prints is no output of this one.
    flags |= POSIX_SPAWN_SETPGROUP;
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  }
  posix_spawnattr_setflags(&attributes, flags);
  auto words = arguments_for(options, region.engine_number());
  auto variables = environment();
  const int error = posix_spawn(&pid_, path_.c_str(), &actions, &attributes, pointers(words).data(),
                                pointers(variables).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (region_fd >= 0) ::close(region_fd);
  if (socket_fd >= 0) ::close(socket_fd);
  if (error != 0) {
    throw Unsupported(
        "engine '" + path_ + "' cannot be started: " + std::strerror(error) +
        "; install shmgemm again, or name another with engine_path / SHMGEMM_ENGINE_PATH");
  }
  pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  if (pidfd_ < 0) {
    const std::string why = std::strerror(errno);
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    throw Unsupported("pidfd_open: " + why + " (Linux 5.3 or newer is needed)");
  }
}

void EngineProcess::await_ready() {
  try {
    receive_ready();
  } catch (...) {
    kill();
    wait_dead(std::chrono::seconds(5));
    throw;
  }
}

void EngineProcess::receive_ready() {
  const auto end = std::chrono::steady_clock::now() + kStartLimit;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      throw DeviceTimeout("engine '" + path_ + "' did not become ready within " +
                          std::to_string(kStartLimit.count() / 1000) + " s");
    }
    pollfd watched[2] = {{socket_, POLLIN, 0}, {pidfd_, POLLIN, 0}};
    if (poll(watched, 2, static_cast<int>(std::min(left, kSlice).count())) <= 0) {
      if (interrupted()) throw Interrupted("interrupted while the engine was starting");
      continue;
    }
    shmgemm_control record{};
    const ssize_t bytes = recv(socket_, &record, sizeof record, MSG_DONTWAIT);
    if (bytes > 0) return check_ready(record, bytes);
    if (bytes == 0 || (watched[1].revents & POLLIN) != 0) {
      wait_dead(std::chrono::seconds(1));
      throw DeviceLost("engine '" + path_ + "' ended before it was ready" +
                       (cause_.empty() ? "" : ": " + cause_));
    }
  }
}

void EngineProcess::check_ready(const shmgemm_control& record, long bytes) {
  if (bytes != sizeof record || record.text_bytes > sizeof record.text) {
    throw ProtocolError("engine '" + path_ + "' sent a control record of " + std::to_string(bytes) +
                        " bytes, " + std::to_string(sizeof record) + " expected");
  }
  if (record.abi_major != SHMGEMM_ABI_MAJOR) {
    throw ProtocolError("engine '" + path_ + "' speaks ABI version " +
                        std::to_string(record.abi_major) + ", this build speaks " +
                        std::to_string(SHMGEMM_ABI_MAJOR));
  }
  if (record.kind == SHMGEMM_CONTROL_FAILED) {
    throw Unsupported("engine: " + std::string(record.text, record.text_bytes));
  }
  if (record.kind != SHMGEMM_CONTROL_READY) {
    throw ProtocolError("engine '" + path_ + "' sent control record " +
                        std::to_string(record.kind) + " where READY was expected");
  }
}

void EngineProcess::ask_to_stop() {
  shmgemm_control record{};
  record.kind = SHMGEMM_CONTROL_SHUTDOWN;
  record.abi_major = SHMGEMM_ABI_MAJOR;
  record.abi_minor = SHMGEMM_ABI_MINOR;
  record.pid = static_cast<std::uint32_t>(getpid());
  (void)!send(socket_, &record, sizeof record, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// By pidfd: the number may not name another process by now.
void EngineProcess::kill() {
  if (pidfd_ >= 0) syscall(SYS_pidfd_send_signal, pidfd_, SIGKILL, nullptr, 0);
}

bool EngineProcess::wait_dead(std::chrono::milliseconds limit) {
  if (dead_) return true;
  pollfd watched{pidfd_, POLLIN, 0};
  if (poll(&watched, 1, static_cast<int>(limit.count())) <= 0) return false;
  siginfo_t info{};
  if (waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd_), &info, WEXITED) == 0) {
    cause_ = info.si_code == CLD_EXITED ? "exit status " + std::to_string(info.si_status)
                                        : "killed by signal " + std::to_string(info.si_status) +
                                              " (" + strsignal(info.si_status) + ")";
  } else {
    cause_ = "reaped by another part of this program";
  }
  dead_ = true;
  return true;
}

std::string EngineProcess::cause_of_death() const { return cause_; }

}  // namespace shmgemm::client

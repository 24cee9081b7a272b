// shmgemm-server: the device server, in a guest (also as its /init) or on a host.
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "abi/shmgemm_abi.h"
#include "init.h"
#include "log.h"
#include "options.h"
#include "server.h"

namespace {

using namespace shmgemm::server;

constexpr int kFirstWordMs = 3000;

void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

void end_with_parent(int pid) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != pid) std::raise(SIGTERM);  // it has ended already
}

// A first process must not end: the kernel would panic.
[[noreturn]] void run_as_init() {
  init_begin();
  try {
    Server server(init_options());
    server.run(kFirstWordMs, init_tick);
  } catch (const std::exception& error) {
    Log::note(error.what());
  }
  init_end();
}

}  // namespace

int main(int argc, char** argv) {
  if (getpid() == 1) run_as_init();
  Options options;
  try {
    options = parse_options(argc, argv);
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "shmgemm-server: %s\n%s", error.what(), kUsage);
    return 2;
  }
  if (options.help) return std::fputs(kUsage, stdout) < 0;
  if (options.version) {
    std::printf("shmgemm-server %s (ABI %d.%d)\n", SHMGEMM_VERSION, SHMGEMM_ABI_MAJOR,
                SHMGEMM_ABI_MINOR);
    return 0;
  }
  Log::set_debug(options.debug);
  raise_descriptor_limit();
  if (options.parent_pid != 0) end_with_parent(options.parent_pid);
  try {
    Server server(options);
    server.run(kFirstWordMs, nullptr);
    return 0;
  } catch (const std::exception& error) {
    Log::note(error.what());
    return 1;
  }
}

// shmgemm-engine: the embedded engine. Started by a session, it serves the session's region until
// that ends; started by hand, a region file until it is stopped.
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <future>
#include <stdexcept>
#include <string>
#include <vector>

#include "compute/gemm.h"
#include "engine/control.h"
#include "engine/host_port.h"
#include "model/event_queue.h"
#include "model/plugin.h"

namespace {

using namespace shmgemm;

constexpr char kUsage[] =
    "usage: shmgemm-engine --region FILE [--region-bytes N] --link PATH [OPTION ...]\n"
    "Serves a simulated device at the Unix socket PATH, with its operands in FILE, which is made\n"
    "where there is none, until it is told to stop by SIGTERM or Ctrl-C.\n"
    "  --devices N   --threads N   --plugin FILE   key=value (see `shmgemm info`)\n"
    "A session starts it with --region-fd FD --control-fd FD [--header N] [--parent PID]\n"
    "[--link PATH] instead.\n";

constexpr std::chrono::milliseconds kStopLimit{400};

struct Arguments {
  std::string region;  // by hand: a file; else by a session:
  std::uint64_t region_bytes = 0;
  int region_fd = -1;
  std::uint32_t header = 0;  // of those in the region, where it has several engines
  int control_fd = -1;
  int parent_pid = 0;
  std::uint32_t devices = 1;
  std::uint32_t threads = 0;
  std::string link;  // empty: no links
  std::vector<std::string> plugins;
  model::ParameterMap hardware;
};

std::uint64_t number(const std::string& option, const std::string& text, std::uint64_t most) {
  char* end = nullptr;
  errno = 0;
  const unsigned long long value = std::strtoull(text.c_str(), &end, 10);
  if (text.empty() || text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 ||
      value > most) {
    throw std::invalid_argument(option + ": a number up to " + std::to_string(most) +
                                " expected, \"" + text + "\" given");
  }
  return value;
}

void set(Arguments& arguments, const std::string& option, const std::string& value) {
  constexpr std::uint64_t kMost = 1 << 30;
  if (option == "--plugin")
    arguments.plugins.push_back(value);
  else if (option == "--link")
    arguments.link = value;
  else if (option == "--region")
    arguments.region = value;
  else if (option == "--region-bytes")
    arguments.region_bytes = number(option, value, std::uint64_t{1} << 40);
  else if (option == "--region-fd")
    arguments.region_fd = static_cast<int>(number(option, value, kMost));
  else if (option == "--header")
    arguments.header = static_cast<std::uint32_t>(number(option, value, SHMGEMM_MAX_ENGINES - 1));
  else if (option == "--control-fd")
    arguments.control_fd = static_cast<int>(number(option, value, kMost));
  else if (option == "--parent")
    arguments.parent_pid = static_cast<int>(number(option, value, kMost));
  else if (option == "--devices")
    arguments.devices = static_cast<std::uint32_t>(number(option, value, kMost));
  else if (option == "--threads")
    arguments.threads = static_cast<std::uint32_t>(number(option, value, kMost));
  else
    throw std::invalid_argument("unknown option " + option);
}

void check(const Arguments& arguments) {
  const bool by_session = arguments.region_fd >= 0 && arguments.control_fd >= 0;
  const bool by_hand = !arguments.region.empty() && !arguments.link.empty();
  const bool mixed = !arguments.region.empty() && arguments.region_fd >= 0;
  if (mixed || (!by_session && !by_hand)) {
    throw std::invalid_argument(
        "--region and --link are needed, or --region-fd and --control-fd of a session");
  }
  if (arguments.devices < 1 || arguments.devices > 255) {
    throw std::invalid_argument("--devices: 1 to 255 expected, " +
                                std::to_string(arguments.devices) + " given");
  }
}

void parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::size_t equals = word.find('=');
    if (word.rfind("--", 0) != 0 && equals != std::string::npos) {
      arguments.hardware[word.substr(0, equals)] = word.substr(equals + 1);
    } else if (i + 1 == argc) {
      throw std::invalid_argument(word + ": an option and its value expected, nothing follows");
    } else {
      set(arguments, word, argv[++i]);
    }
  }
  check(arguments);
}

void set_state(shmgemm_peer* peer, std::uint32_t state) {
  __atomic_store_n(&peer->state, state, __ATOMIC_SEQ_CST);
}

int stop_requests = -1;  // an eventfd

void on_stop_signal(int) {
  const std::uint64_t one = 1;
  (void)!write(stop_requests, &one, sizeof one);
}

// A descriptor that tells of SIGTERM and Ctrl-C, which do nothing else from now on. A handler, as
// OpenBLAS has threads by now that block no signal.
int take_signals() {
  stop_requests = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct sigaction action{};
  action.sa_handler = on_stop_signal;
  action.sa_flags = SA_RESTART;
  for (const int number : {SIGINT, SIGTERM}) sigaction(number, &action, nullptr);
  return stop_requests;
}

void serve(const Arguments& arguments) {
  const bool by_hand = !arguments.region.empty();
  const int signals = by_hand ? take_signals() : -1;
  const auto region = by_hand ? region::Region::serve_file(arguments.region, arguments.region_bytes)
                              : region::Region::attach(arguments.region_fd, arguments.header);
  shmgemm_peer* self = region->engine();
  self->pid = static_cast<std::uint32_t>(getpid());
  for (const std::string& plugin : arguments.plugins) model::load_plugin(plugin);
  const model::Hardware hardware(arguments.hardware);
  compute::Engine numbers(arguments.threads);
  model::EventQueue events;
  engine::HostPortOptions options;
  options.threads = numbers.threads();
  options.compute = [&numbers](const compute::Gemm* gemms, std::size_t count) {
    numbers.run(gemms, count);
  };
  options.log = [](const std::string& text) {
    std::fprintf(stderr, "shmgemm-engine: %s\n", text.c_str());
  };
  engine::HostPort port(region, std::vector<engine::DeviceSetup>(arguments.devices, {hardware}),
                        events, options);
  std::promise<void> ended;
  engine::ControlOptions controlled{arguments.control_fd, arguments.parent_pid, signals, nullptr};
  if (!arguments.link.empty()) {
    controlled.links = std::make_unique<engine::Links>(arguments.link, port, options.log);
  }
  engine::Control control(std::move(controlled), self, [&port, &ended] {
    port.stop();
    // Nobody is left to want the product that is being computed.
    if (ended.get_future().wait_for(kStopLimit) != std::future_status::ready) _exit(1);
  });
  set_state(self, SHMGEMM_PEER_READY);
  if (by_hand) {
    std::printf("shmgemm-engine: serves %s at %s\n", arguments.region.c_str(),
                arguments.link.c_str());
    std::fflush(stdout);
  } else {
    engine::Control::send(arguments.control_fd, SHMGEMM_CONTROL_READY, "");
  }
  while (!port.stopped()) {
    if (!port.poll()) port.wait(std::chrono::seconds(1));
    while (port.flushing() && !port.stopped()) port.run_next();
  }
  ended.set_value();
  set_state(self, SHMGEMM_PEER_DEAD);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0)) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (argc == 2 && std::strcmp(argv[1], "--version") == 0) {
    std::printf("shmgemm-engine %s (ABI %d.%d)\n", SHMGEMM_VERSION, SHMGEMM_ABI_MAJOR,
                SHMGEMM_ABI_MINOR);
    return 0;
  }
  // A plug-in's static objects may end the process that loads it: better this one than Python.
  if (argc == 3 && std::strcmp(argv[1], "--check-plugin") == 0) {
    try {
      model::load_plugin(argv[2]);
      return 0;
    } catch (const model::PluginError&) {
      return 1;
    }
  }
  Arguments arguments;
  try {
    parse(argc, argv, arguments);
    // Ctrl-C goes to the whole terminal's process group; a session decides what it means.
    if (arguments.region.empty()) std::signal(SIGINT, SIG_IGN);
    serve(arguments);
    return 0;
  } catch (...) {
    const std::string why = model::current_exception_text();
    std::fprintf(stderr, "shmgemm-engine: %s\n%s", why.c_str(),
                 arguments.region_fd < 0 && arguments.region.empty() ? kUsage : "");
    if (arguments.control_fd >= 0) {
      engine::Control::send(arguments.control_fd, SHMGEMM_CONTROL_FAILED, why);
    }
    return 1;
  }
}

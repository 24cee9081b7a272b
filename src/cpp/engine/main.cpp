// shmgemm-engine: the embedded engine. Started by a session, it serves one region until the session
// ends.
#include <unistd.h>

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
    "usage: shmgemm-engine --region-fd FD --control-fd FD [--parent PID] [--devices N] [--threads "
    "N] "
    "[--link PATH] [--plugin FILE ...] [key=value ...]\n"
    "Serves the region FD with a simulated device; key=value describe it (see `shmgemm info`),\n"
    "FILE has timing models of its own.\n"
    "A session starts it; it is of no use by hand.\n";

constexpr std::chrono::milliseconds kStopLimit{400};

struct Arguments {
  int region_fd = -1;
  int control_fd = -1;
  int parent_pid = 0;
  std::uint32_t devices = 1;
  std::uint32_t threads = 0;
  std::string link;  // empty: no links
  std::vector<std::string> plugins;
  model::ParameterMap hardware;
};

int number(const std::string& option, const char* text) {
  char* end = nullptr;
  const long value = text == nullptr ? -1 : std::strtol(text, &end, 10);
  if (text == nullptr || *end != '\0' || value < 0 || value > 1 << 30) {
    throw std::invalid_argument(option + ": a number expected, " + (text ? text : "nothing") +
                                " given");
  }
  return static_cast<int>(value);
}

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::size_t equals = word.find('=');
    if (word.rfind("--", 0) != 0 && equals != std::string::npos) {
      arguments.hardware[word.substr(0, equals)] = word.substr(equals + 1);
      continue;
    }
    if (word == "--plugin") {
      if (++i == argc) throw std::invalid_argument("--plugin: a file expected, nothing given");
      arguments.plugins.push_back(argv[i]);
      continue;
    }
    if (word == "--link") {
      if (++i == argc) throw std::invalid_argument("--link: a path expected, nothing given");
      arguments.link = argv[i];
      continue;
    }
    const int value = number(word, argv[++i]);
    if (word == "--region-fd")
      arguments.region_fd = value;
    else if (word == "--control-fd")
      arguments.control_fd = value;
    else if (word == "--parent")
      arguments.parent_pid = value;
    else if (word == "--devices")
      arguments.devices = static_cast<std::uint32_t>(value);
    else if (word == "--threads")
      arguments.threads = static_cast<std::uint32_t>(value);
    else
      throw std::invalid_argument("unknown option " + word);
  }
  if (arguments.region_fd < 0 || arguments.control_fd < 0) {
    throw std::invalid_argument("--region-fd and --control-fd are needed");
  }
  if (arguments.devices < 1 || arguments.devices > 255) {
    throw std::invalid_argument("--devices: 1 to 255 expected, " +
                                std::to_string(arguments.devices) + " given");
  }
  return arguments;
}

void set_state(shmgemm_peer* peer, std::uint32_t state) {
  __atomic_store_n(&peer->state, state, __ATOMIC_SEQ_CST);
}

void serve(const Arguments& arguments) {
  const auto region = region::Region::attach(arguments.region_fd);
  shmgemm_peer* self = region->engine();
  self->pid = static_cast<std::uint32_t>(getpid());
  for (const std::string& plugin : arguments.plugins) model::load_plugin(plugin);
  const model::Hardware hardware(arguments.hardware);
  compute::Engine numbers(arguments.threads);
  model::EventQueue events;
  engine::HostPortOptions options;
  options.threads = numbers.threads();
  options.compute = [&numbers](const compute::Gemm& gemm) { numbers.run(gemm); };
  options.log = [](const std::string& text) {
    std::fprintf(stderr, "shmgemm-engine: %s\n", text.c_str());
  };
  engine::HostPort port(region, std::vector<engine::DeviceSetup>(arguments.devices, {hardware}),
                        events, options);
  std::promise<void> ended;
  engine::ControlOptions controlled{arguments.control_fd, arguments.parent_pid, -1, nullptr};
  if (!arguments.link.empty()) {
    controlled.links = std::make_unique<engine::Links>(arguments.link, port, options.log);
  }
  engine::Control control(std::move(controlled), self, [&port, &ended] {
    port.stop();
    // Nobody is left to want the product that is being computed.
    if (ended.get_future().wait_for(kStopLimit) != std::future_status::ready) _exit(1);
  });
  set_state(self, SHMGEMM_PEER_READY);
  engine::Control::send(arguments.control_fd, SHMGEMM_CONTROL_READY, "");
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
  // Ctrl-C goes to the whole terminal's process group; the session decides what it means.
  std::signal(SIGINT, SIG_IGN);
  Arguments arguments;
  try {
    arguments = parse(argc, argv);
    serve(arguments);
    return 0;
  } catch (...) {
    const std::string why = model::current_exception_text();
    std::fprintf(stderr, "shmgemm-engine: %s\n%s", why.c_str(),
                 arguments.region_fd < 0 ? kUsage : "");
    if (arguments.control_fd >= 0) {
      engine::Control::send(arguments.control_fd, SHMGEMM_CONTROL_FAILED, why);
    }
    return 1;
  }
}

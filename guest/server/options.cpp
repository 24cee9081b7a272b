#include "options.h"

#include <arpa/inet.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <string_view>

namespace shmgemm::server {
namespace {

unsigned number(const std::string& option, std::string_view text, unsigned most) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > most) {
    throw std::invalid_argument(option + ": a number from 0 to " + std::to_string(most) +
                                " expected, " + std::string(text) + " given");
  }
  return value;
}

bool log_level(std::string_view text) {
  if (text != "debug" && text != "info") {
    throw std::invalid_argument("--log-level: info or debug expected, " + std::string(text) +
                                " given");
  }
  return text == "debug";
}

void check(const Options& options) {
  in_addr address;
  if (inet_pton(AF_INET, options.bind.c_str(), &address) != 1) {
    throw std::invalid_argument("--bind: an IPv4 address expected, " + options.bind + " given");
  }
  if (options.link.empty() != options.region.empty()) {
    throw std::invalid_argument("--link and --region go together");
  }
  if (!options.link.empty() && !options.device.empty()) {
    throw std::invalid_argument("--device and --link exclude each other");
  }
}

// A small machine must survive clients that send the largest frames.
void fit_memory(Options& options) {
  struct sysinfo info{};
  if (sysinfo(&info) != 0) return;
  const std::uint64_t total = std::uint64_t{info.totalram} * info.mem_unit;
  options.max_matrix_bytes = std::min(options.max_matrix_bytes, total / 16);
}

}  // namespace

const char* const kUsage =
    "usage: shmgemm-server [--device FILE | --link SOCKET --region FILE] [OPTION...]\n"
    "Serves matrix products over TCP (docs/protocol.md): inline ones, and commands that name\n"
    "matrices in a shared region.\n"
    "  --device FILE       the device of a guest, /dev/sst0\n"
    "  --link SOCKET       an engine on this host (shmgemm-engine --link)\n"
    "  --region FILE       its region: a file, or the number of an inherited descriptor\n"
    "                      with neither a device nor a link, the CPU computes\n"
    "  --port PORT         TCP port (9999; 0: any, which it prints)\n"
    "  --bind ADDRESS      of the interface to listen on (127.0.0.1)\n"
    "  --parent PID        ends with its parent, that process\n"
    "  --log-level LEVEL   info, or debug: op, shapes and byte counts of each frame\n"
    "As the first process of a machine it also sets up a guest: file systems, module, network.\n";

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--help" || word == "-h") {
      options.help = true;
      return options;
    }
    if (word == "--version") {
      options.version = true;
      return options;
    }
    if (i + 1 == argc && word.starts_with("--")) {
      throw std::invalid_argument(word + ": a value expected, or an unknown option");
    }
    const std::string value = i + 1 < argc ? argv[++i] : "";
    if (word == "--device") {
      options.device = value;
    } else if (word == "--link") {
      options.link = value;
    } else if (word == "--region") {
      options.region = value;
    } else if (word == "--port") {
      options.port = static_cast<std::uint16_t>(number(word, value, 65535));
    } else if (word == "--parent") {
      options.parent_pid = static_cast<int>(number(word, value, 1 << 30));
    } else if (word == "--bind") {
      options.bind = value;
    } else if (word == "--log-level") {
      options.debug = log_level(value);
    } else {
      throw std::invalid_argument("unknown option " + word);
    }
  }
  check(options);
  fit_memory(options);
  return options;
}

Options init_options() {
  Options options;
  options.device = "/dev/sst0";
  options.bind = "10.0.2.15";  // what QEMU's user network gives a guest, and forwards to
  fit_memory(options);
  return options;
}

}  // namespace shmgemm::server

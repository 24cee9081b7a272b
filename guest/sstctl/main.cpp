// sstctl: tries the device of a guest from its shell.
#include <charconv>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "actions.h"

namespace {

using namespace shmgemm;

constexpr char kUsage[] =
    "usage: sstctl [--device FILE] ping | echo TEXT | compute UNITS | info | gemm M N K\n"
    "  ping           a NOOP to the engine and back\n"
    "  echo TEXT      TEXT to the engine and back, at most 4080 bytes\n"
    "  compute UNITS  the cycles that UNITS FLOPs take\n"
    "  info           what driver and engine say of themselves\n"
    "  gemm M N K     C = A B in the shared region, A of M x K, B of K x N float32: values and "
    "cycles\n"
    "  --device FILE  instead of /dev/sst0\n";

std::uint64_t number(const char* what, const std::string& text, std::uint64_t most) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > most) {
    throw std::invalid_argument(std::string(what) + ": a whole number up to " +
                                std::to_string(most) + " expected, \"" + text + "\" given");
  }
  return value;
}

std::uint32_t dimension(const char* what, const std::string& text) {
  const std::uint64_t value = number(what, text, 1 << 18);
  if (value == 0) throw std::invalid_argument(std::string(what) + ": 1 at least expected, 0 given");
  return static_cast<std::uint32_t>(value);
}

// What is asked for is checked before the device is opened.
void run(const std::string& device, const std::vector<std::string>& words) {
  const std::string action = words.empty() ? "" : words[0];
  const std::size_t count = words.size() - (words.empty() ? 0 : 1);
  if (action == "ping" && count == 0) {
    sstctl::DeviceFile file(device);
    sstctl::ping(file);
  } else if (action == "echo" && count == 1) {
    sstctl::DeviceFile file(device);
    sstctl::echo(file, words[1]);
  } else if (action == "compute" && count == 1) {
    const std::uint64_t units = number("UNITS", words[1], UINT64_MAX);
    sstctl::DeviceFile file(device);
    sstctl::compute(file, units);
  } else if (action == "info" && count == 0) {
    sstctl::DeviceFile file(device);
    sstctl::show_info(file);
  } else if (action == "gemm" && count == 3) {
    const std::uint32_t m = dimension("M", words[1]), n = dimension("N", words[2]),
                        k = dimension("K", words[3]);
    sstctl::DeviceFile file(device);
    sstctl::gemm(file, m, n, k);
  } else {
    throw std::invalid_argument("ping, echo TEXT, compute UNITS, info or gemm M N K expected");
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string device = "/dev/sst0";
  std::vector<std::string> words(argv + 1, argv + argc);
  if (!words.empty() && (words[0] == "--help" || words[0] == "-h")) {
    return std::fputs(kUsage, stdout) < 0;
  }
  if (words.size() >= 2 && words[0] == "--device") {
    device = words[1];
    words.erase(words.begin(), words.begin() + 2);
  }
  try {
    run(device, words);
    return 0;
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "sstctl: %s\n%s", error.what(), kUsage);
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "sstctl: %s\n", error.what());
    return 1;
  }
}

// shmgemm-measure SUBJECT [name=value ...]: measures one subject and prints one line of JSON.
// Names: engine, engine_word (repeated), rounds, samples, depth, m, n, k, threads, and hw.NAME for
// the hardware's parameters.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>

#include "subjects.h"

namespace {

using shmgemm::measure::Options;
using shmgemm::measure::Results;

const std::map<std::string, Results (*)(const Options&)> kSubjects = {
    {"noop-hot", shmgemm::measure::noop_hot},
    {"noop-one-cpu", shmgemm::measure::noop_one_cpu},
    {"noop-parked", shmgemm::measure::noop_parked},
    {"commands", shmgemm::measure::commands},
    {"product", shmgemm::measure::product},
    {"kernel", shmgemm::measure::kernel},
    {"timing", shmgemm::measure::timing},
};

std::uint32_t number(const std::string& name, const std::string& value) {
  char* end = nullptr;
  const unsigned long parsed = std::strtoul(value.c_str(), &end, 10);
  if (value.empty() || *end != '\0' || parsed > 1000000000) {
    throw std::invalid_argument(name + ": expected a whole number, got \"" + value + "\"");
  }
  return static_cast<std::uint32_t>(parsed);
}

void read_option(Options& options, const std::string& argument) {
  const std::size_t equals = argument.find('=');
  if (equals == std::string::npos) throw std::invalid_argument("not name=value: " + argument);
  const std::string name = argument.substr(0, equals);
  const std::string value = argument.substr(equals + 1);
  const std::map<std::string, std::uint32_t*> numbers = {{"depth", &options.depth},
                                                         {"m", &options.m},
                                                         {"n", &options.n},
                                                         {"k", &options.k},
                                                         {"threads", &options.threads},
                                                         {"same_split", &options.same_split}};
  if (name.rfind("hw.", 0) == 0) {
    options.hardware[name.substr(3)] = value;
  } else if (name == "engine") {
    options.engine_path = value;
  } else if (name == "engine_word") {
    options.engine_words.push_back(value);
  } else if (name == "rounds") {
    options.rounds = number(name, value);
  } else if (name == "samples") {
    options.samples = number(name, value);
  } else if (numbers.count(name) != 0) {
    *numbers.at(name) = number(name, value);
  } else {
    throw std::invalid_argument("unknown option " + name);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 2 || kSubjects.count(argv[1]) == 0) {
      throw std::invalid_argument("the first argument must name a subject");
    }
    Options options;
    for (int i = 2; i < argc; ++i) read_option(options, argv[i]);
    const std::string subject = argv[1];
    if ((subject == "product" || subject == "kernel" || subject == "timing") &&
        (options.m == 0 || options.n == 0 || options.k == 0)) {
      throw std::invalid_argument(subject + " needs m, n and k");
    }
    std::puts(kSubjects.at(subject)(options).json().c_str());
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "shmgemm-measure: error: %s\n", error.what());
    return 1;
  }
}

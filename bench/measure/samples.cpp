#include "samples.h"

#include <algorithm>
#include <cstdio>

namespace shmgemm::measure {
namespace {

std::string json_of(const std::vector<Round>& rounds) {
  std::string text = "[";
  for (const Round& round : rounds) {
    char pair[80];
    std::snprintf(pair, sizeof pair, "%s[%.4f, %.4f]", text.size() > 1 ? ", " : "", round.p50,
                  round.p99);
    text += pair;
  }
  return text + "]";
}

}  // namespace

Round round_of(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  const std::size_t last = samples.size() - 1;
  return {samples[samples.size() / 2], samples[(last * 99 + 50) / 100]};
}

std::string Results::json() const {
  return "{\"ours\": " + json_of(ours_) + ", \"floor\": " + json_of(floor_) + "}";
}

}  // namespace shmgemm::measure

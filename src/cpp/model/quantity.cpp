// Numbers with units, as people write them: read exactly in integer arithmetic, refused with the
// legal range otherwise, and written back in one canonical spelling.
#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>
#include <vector>

#include "model/checked.h"
#include "model/registry.h"

namespace shmgemm::model {
namespace {

struct Scale {
  const char* symbol;
  std::uint64_t factor;
};

struct UnitInfo {
  const char* base;  // as `shmgemm info` shows it
  const char* noun;  // as an error names it
  const char* example;
  bool bare_number;           // may stand without a symbol
  std::vector<Scale> scales;  // ascending
};

const std::uint64_t kKibi = 1024;

const UnitInfo& info_of(Unit unit) {
  static const UnitInfo count{"", "a whole number", "128", true, {{"", 1}}};
  static const UnitInfo hertz{"Hz",
                              "a frequency",
                              "940MHz",
                              false,
                              {{"Hz", 1}, {"kHz", 1000}, {"MHz", 1000000}, {"GHz", 1000000000}}};
  static const UnitInfo bytes{"bytes",
                              "a size",
                              "16MiB",
                              false,
                              {{"B", 1},
                               {"kB", 1000},
                               {"KiB", kKibi},
                               {"MB", 1000000},
                               {"MiB", kKibi * kKibi},
                               {"GB", 1000000000},
                               {"GiB", kKibi * kKibi * kKibi}}};
  static const UnitInfo rate{"bytes/s",
                             "a bandwidth",
                             "450GB/s",
                             false,
                             {{"B/s", 1},
                              {"kB/s", 1000},
                              {"KiB/s", kKibi},
                              {"MB/s", 1000000},
                              {"MiB/s", kKibi * kKibi},
                              {"GB/s", 1000000000},
                              {"GiB/s", kKibi * kKibi * kKibi},
                              {"TB/s", 1000000000000}}};
  static const UnitInfo cycles{"cycles", "a number of cycles", "100", true, {{"cycles", 1}}};
  static const UnitInfo choice{"", "a choice", "", false, {}};
  switch (unit) {
    case Unit::kCount:
      return count;
    case Unit::kHertz:
      return hertz;
    case Unit::kBytes:
      return bytes;
    case Unit::kBytesPerSecond:
      return rate;
    case Unit::kCycles:
      return cycles;
    case Unit::kChoice:
      return choice;
  }
  throw std::logic_error("unknown unit");
}

[[noreturn]] void refuse(const Parameter& parameter, const std::string& text,
                         const std::string& reason) {
  const UnitInfo& unit = info_of(parameter.unit);
  std::string message = parameter.name + " = \"" + text + "\": " + reason + "expected " + unit.noun;
  if (!unit.bare_number) {
    message += " in";
    for (const Scale& scale : unit.scales) {
      message += std::string(scale.factor == 1 ? " " : ", ") + scale.symbol;
    }
  }
  throw ParameterError(message + ", " + legal_range_text(parameter) + ", such as \"" +
                       unit.example + "\"");
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) {
    text.remove_prefix(1);
  }
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) {
    text.remove_suffix(1);
  }
  return text;
}

bool is_negative_number(std::string_view text) {
  return text.size() > 1 && text[0] == '-' && std::isdigit(static_cast<unsigned char>(text[1]));
}

std::string_view take_digits(std::string_view& text) {
  std::size_t length = 0;
  while (length < text.size() && std::isdigit(static_cast<unsigned char>(text[length]))) ++length;
  const std::string_view digits = text.substr(0, length);
  text.remove_prefix(length);
  return digits;
}

std::uint64_t number(std::string_view digits) {
  std::uint64_t value = 0;
  for (const char digit : digits) {
    value = checked_add(checked_multiply(value, 10), static_cast<std::uint64_t>(digit - '0'));
  }
  return value;
}

}  // namespace

std::uint64_t parse_quantity(const Parameter& parameter, const std::string& text) {
  const UnitInfo& unit = info_of(parameter.unit);
  std::string_view rest = trim(text);
  if (is_negative_number(rest)) refuse(parameter, text, "out of range; ");
  const std::string_view whole = take_digits(rest);
  std::string_view fraction;
  if (!rest.empty() && rest.front() == '.') {
    rest.remove_prefix(1);
    fraction = take_digits(rest);
    if (fraction.empty()) refuse(parameter, text, "not a number; ");
  }
  if (whole.empty()) refuse(parameter, text, "not a number; ");
  while (!fraction.empty() && fraction.back() == '0') fraction.remove_suffix(1);

  const std::string_view symbol = trim(rest);
  const auto scale = std::find_if(unit.scales.begin(), unit.scales.end(),
                                  [&](const Scale& known) { return known.symbol == symbol; });
  const bool bare = symbol.empty() && unit.bare_number;
  if (scale == unit.scales.end() && !bare) {
    refuse(parameter, text,
           symbol.empty() ? "no unit; " : "unknown unit \"" + std::string(symbol) + "\"; ");
  }
  const std::uint64_t factor = bare ? 1 : scale->factor;

  std::uint64_t value = 0;
  bool exact = true;
  try {
    std::uint64_t divisor = 1;
    for (std::size_t i = 0; i < fraction.size(); ++i) divisor = checked_multiply(divisor, 10);
    const std::uint64_t part = checked_multiply(number(fraction), factor);
    exact = part % divisor == 0;
    value = checked_add(checked_multiply(number(whole), factor), part / divisor);
  } catch (const std::overflow_error&) {
    refuse(parameter, text, "too large or too precise; ");
  }
  if (!exact)
    refuse(
        parameter, text,
        "not a whole number of " + std::string(unit.base[0] == '\0' ? "units" : unit.base) + "; ");
  if (value < parameter.min || value > parameter.max) refuse(parameter, text, "out of range; ");
  return value;
}

std::string format_quantity(Unit unit, std::uint64_t value) {
  const std::vector<Scale>& scales = info_of(unit).scales;
  if (scales.empty() || info_of(unit).bare_number) return std::to_string(value);
  std::string best;
  for (const Scale& scale : scales) {
    if (value % scale.factor != 0) continue;
    const std::string text = std::to_string(value / scale.factor) + scale.symbol;
    const bool shorter = best.empty() || text.size() < best.size();
    if (shorter || value >= scale.factor) best = text;
  }
  return best;
}

std::string legal_range_text(const Parameter& parameter) {
  std::string text;
  for (const std::string& choice : parameter.choices) text += (text.empty() ? "" : ", ") + choice;
  if (parameter.unit == Unit::kChoice) return text;
  const std::string least = format_quantity(parameter.unit, parameter.min);
  if (parameter.max == UINT64_MAX) return "at least " + least;
  return "from " + least + " to " + format_quantity(parameter.unit, parameter.max);
}

const char* unit_text(Unit unit) { return info_of(unit).base; }

}  // namespace shmgemm::model

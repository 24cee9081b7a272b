// Where timing models register themselves, and the table of parameters each one declares. From this
// table come `shmgemm info`, the SST parameter documentation and every error about a parameter.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/memory.h"
#include "model/timing_model.h"

namespace shmgemm::model {

// A flat map of strings, as SST has it: {"model": "scalesim_ws", "clock": "940MHz", "rows": "128"}.
using ParameterMap = std::map<std::string, std::string>;

// Says key, value given and what is legal. (Python adds the file it came from.)
class SHMGEMM_MODEL_API ParameterError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

enum class Unit { kCount, kHertz, kBytes, kBytesPerSecond, kCycles, kChoice };

struct Parameter {
  std::string name;
  Unit unit = Unit::kCount;
  std::string default_value;  // in the notation a user writes
  std::string meaning;
  std::uint64_t min = 0;  // legal range in the base unit (Hz, bytes, bytes/s, ...)
  std::uint64_t max = UINT64_MAX;
  std::vector<std::string> choices;  // of a kChoice
};

// Parameters after the table was applied: every declared name has a value, no other name exists.
class Parameters {
 public:
  // Throws ParameterError for an unknown key, a wrong unit or a value outside the legal range.
  // Where two entries of the table have one name, the later one counts.
  Parameters(const std::vector<Parameter>& table, const ParameterMap& given);
  std::uint64_t count(const std::string& name) const;  // base unit: Hz, bytes, bytes/s, cycles
  const std::string& choice(const std::string& name) const;
  // Every parameter as `name -> value in the user's notation`, in one spelling ("0.94GHz" is
  // "940MHz"), for reports and hashes.
  const ParameterMap& text() const { return text_; }

 private:
  std::map<std::string, std::uint64_t> numbers_;
  ParameterMap text_;
};

// What a model is made of. `parameters` holds the device's and the model's; it ends with the call.
struct ModelContext {
  Scheduler& scheduler;
  Memory* memory = nullptr;  // null: the model has no memory
  const Parameters& parameters;
};

struct ModelInfo {
  std::string name;
  std::string summary;  // one line, with the source of its formula
  std::vector<Parameter> parameters;
  std::function<std::unique_ptr<TimingModel>(const ModelContext&)> create;
  std::string file = {};  // the plug-in it came from, filled in by load_plugin(); else empty
};

// Models register from a static object in their own file: `const Registration r{{...}};`. Throws
// ParameterError where the table is not legal and std::logic_error where the name is taken; while a
// plug-in is loaded it throws nothing, load_plugin() does. The defaults are compiled into the file
// that registers: they say what it was built against.
struct Registration {
  explicit Registration(const ModelInfo& info, std::uint32_t interface_version = kInterfaceVersion,
                        std::size_t info_bytes = sizeof(ModelInfo));
};

const std::vector<ModelInfo>& models();                // sorted by name
void add_models(std::vector<ModelInfo> infos);         // all or, with std::logic_error, none
const ModelInfo& find_model(const std::string& name);  // ParameterError lists the names there are

// What every device has whatever its model: `model` and `clock`.
std::vector<Parameter> device_parameters();

// "940MHz" -> 940000000, "16MiB" -> 16777216, "450GB/s" -> 450000000000, "128" -> 128. Exact, or a
// ParameterError: a fraction must come out as a whole number of base units; whatever has a unit
// needs it.
std::uint64_t parse_quantity(const Parameter& parameter, const std::string& text);
// The other way, in the largest unit that is exact; parse_quantity() reads it.
std::string format_quantity(Unit unit, std::uint64_t value);
std::string legal_range_text(const Parameter& parameter);  // "from 1 to 65536", "os, ws, is"
const char* unit_text(Unit unit);                          // "Hz", "bytes", ...

}  // namespace shmgemm::model

#include "documentation.h"

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "model/registry.h"

namespace shmgemm::sst_element {
namespace {

struct Documented {
  std::string name;
  std::string meaning;
  std::string default_value;
};

std::string details(const model::Parameter& parameter) {
  const std::string legal = model::legal_range_text(parameter);
  if (parameter.unit == model::Unit::kChoice || parameter.unit == model::Unit::kCount) {
    return " (" + legal + ")";
  }
  return std::string(" [") + model::unit_text(parameter.unit) + "] (" + legal + ")";
}

std::string joined(const std::vector<std::string>& words, const char* between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

// One parameter as the models that have it declare it.
struct Use {
  std::vector<std::pair<std::string, model::Parameter>> models;

  Documented document(std::size_t of_models) const {
    Documented result;
    std::vector<std::string> names;
    std::map<std::string, std::vector<std::string>> texts, defaults;
    for (const auto& [model, parameter] : models) {
      result.name = parameter.name;
      names.push_back(model);
      texts[parameter.meaning + details(parameter)].push_back(model);
      defaults[parameter.default_value].push_back(model);
    }
    for (const auto& [text, of] : texts) {
      if (!result.meaning.empty()) result.meaning += "; ";
      result.meaning += (texts.size() > 1 ? joined(of, ", ") + ": " : "") + text;
    }
    if (texts.size() == 1 && names.size() < of_models) {
      result.meaning += ", of " + joined(names, ", ");
    }
    for (const auto& [value, of] : defaults) {
      if (!result.default_value.empty()) result.default_value += "; ";
      result.default_value += value + (defaults.size() > 1 ? " for " + joined(of, ", ") : "");
    }
    return result;
  }
};

std::deque<Documented> all_parameters() {
  std::deque<Documented> result = {
      {"device", "number by which commands name it, counted from 0 without a gap", "0"},
      {"plugins", "shared objects with timing models of one's own, ':' between them", ""},
      {"requests", "lines that the memory slot has under way at once (from 1 to 65536)", "128"},
      {"mmio_base", "address of its registers where the slot mmio is filled (a multiple of 256)",
       "0"},
  };
  for (const model::Parameter& parameter : model::device_parameters()) {
    const std::string own = parameter.name == "model" ? "; simt where only clock, cores and "
                                                        "memory_bw are given"
                                                      : "";
    result.push_back(
        {parameter.name, parameter.meaning + details(parameter) + own, parameter.default_value});
  }
  std::vector<std::string> order;
  std::map<std::string, Use> uses;
  for (const model::ModelInfo& info : model::models()) {
    std::map<std::string, model::Parameter> own;  // of one name the later counts
    for (const model::Parameter& parameter : info.parameters) own[parameter.name] = parameter;
    for (const model::Parameter& parameter : info.parameters) {
      const auto found = own.find(parameter.name);
      if (found == own.end()) continue;
      if (uses.count(parameter.name) == 0) order.push_back(parameter.name);
      uses[parameter.name].models.emplace_back(info.name, found->second);
      own.erase(found);
    }
  }
  for (const std::string& name : order) {
    result.push_back(uses.at(name).document(model::models().size()));
  }
  return result;
}

}  // namespace

const std::vector<SST::ElementInfoParam>& device_parameter_documentation() {
  static const std::deque<Documented> texts = all_parameters();
  static const std::vector<SST::ElementInfoParam> documentation = [] {
    std::vector<SST::ElementInfoParam> result;
    for (const Documented& text : texts) {
      result.push_back({text.name.c_str(), text.meaning.c_str(), text.default_value.c_str()});
    }
    return result;
  }();
  return documentation;
}

}  // namespace shmgemm::sst_element

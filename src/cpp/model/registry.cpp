// The list of models, and the one place where a flat map of strings is checked against a table of
// parameters.
#include "model/registry.h"

#include <algorithm>
#include <utility>

#include "model/plugin.h"

namespace shmgemm::model {
namespace {

constexpr std::size_t kLongestName = 47;  // what a GET_INFO report holds

std::vector<ModelInfo>& mutable_models() {
  static std::vector<ModelInfo> list;
  return list;
}

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

// "did you mean "rows"? " where a known name is close, and all names there are.
std::string suggest(const std::string& given, const std::vector<std::string>& known) {
  std::string close, all;
  for (const std::string& name : known) {
    const bool extends = !given.empty() && (name.rfind(given, 0) == 0 || given.rfind(name, 0) == 0);
    const std::size_t length = std::max(given.size(), name.size());
    if (extends || edit_distance(given, name) <= std::max<std::size_t>(1, length / 3)) {
      close += (close.empty() ? "\"" : " or \"") + name + "\"";
    }
    all += (all.empty() ? "" : ", ") + name;
  }
  return (close.empty() ? "" : "did you mean " + close + "? ") + "There are: " + all;
}

std::string checked_choice(const Parameter& parameter, const std::string& text) {
  const auto& choices = parameter.choices;
  if (std::find(choices.begin(), choices.end(), text) != choices.end()) return text;
  throw ParameterError(parameter.name + " = \"" + text + "\": no such choice; " +
                       suggest(text, choices));
}

std::vector<std::string> names_of(const std::map<std::string, const Parameter*>& table) {
  std::vector<std::string> names;
  for (const auto& [name, parameter] : table) names.push_back(name);
  return names;
}

const ModelInfo* find(const std::vector<ModelInfo>& infos, const std::string& name) {
  for (const ModelInfo& info : infos) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

// A table nobody could use is an error where it is registered, not where it is first used.
void check_table(const ModelInfo& info) {
  const auto is_plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  if (info.name.empty() || info.name.size() > kLongestName ||
      !std::all_of(info.name.begin(), info.name.end(), is_plain)) {
    throw ParameterError("a model is named \"" + info.name + "\"; expected 1 to " +
                         std::to_string(kLongestName) + " letters, digits, '_', '-' or '.'");
  }
  if (!info.create) throw ParameterError("model \"" + info.name + "\" has no `create`");
  try {
    Parameters(info.parameters, {});
  } catch (const ParameterError& error) {
    throw ParameterError("model \"" + info.name +
                         "\" has a default that is not legal: " + error.what());
  }
}

}  // namespace

Parameters::Parameters(const std::vector<Parameter>& table, const ParameterMap& given) {
  std::map<std::string, const Parameter*> by_name;
  for (const Parameter& parameter : table) by_name[parameter.name] = &parameter;
  for (const auto& [name, value] : given) {
    if (by_name.count(name) == 0) {
      throw ParameterError(name + " = \"" + value + "\": unknown parameter; " +
                           suggest(name, names_of(by_name)));
    }
  }
  for (const auto& [name, parameter] : by_name) {
    const auto found = given.find(name);
    const std::string& value = found == given.end() ? parameter->default_value : found->second;
    if (parameter->unit == Unit::kChoice) {
      text_[name] = checked_choice(*parameter, value);
    } else {
      numbers_[name] = parse_quantity(*parameter, value);
      text_[name] = format_quantity(parameter->unit, numbers_[name]);
    }
  }
}

std::uint64_t Parameters::count(const std::string& name) const {
  const auto found = numbers_.find(name);
  if (found == numbers_.end()) throw std::logic_error("no numeric parameter \"" + name + "\"");
  return found->second;
}

const std::string& Parameters::choice(const std::string& name) const {
  const auto found = text_.find(name);
  if (found == text_.end() || numbers_.count(name) != 0) {
    throw std::logic_error("no choice parameter \"" + name + "\"");
  }
  return found->second;
}

Registration::Registration(const ModelInfo& info, std::uint32_t interface_version,
                           std::size_t info_bytes) {
  if (Loading* loading = Loading::current()) {
    loading->take(info, interface_version, info_bytes);
  } else {
    add_models({info});
  }
}

void add_models(std::vector<ModelInfo> infos) {
  std::vector<ModelInfo> list = mutable_models();
  for (ModelInfo& info : infos) {
    check_table(info);
    if (const ModelInfo* known = find(list, info.name)) {
      throw std::logic_error("two models are named \"" + info.name + "\", the other one is " +
                             (known->file.empty() ? "built in" : "of " + known->file));
    }
    list.push_back(std::move(info));
  }
  std::sort(list.begin(), list.end(),
            [](const ModelInfo& a, const ModelInfo& b) { return a.name < b.name; });
  mutable_models() = std::move(list);
}

const std::vector<ModelInfo>& models() { return mutable_models(); }

const ModelInfo& find_model(const std::string& name) {
  if (const ModelInfo* found = find(models(), name)) return *found;
  std::vector<std::string> names;
  for (const ModelInfo& info : models()) names.push_back(info.name);
  throw ParameterError("model = \"" + name + "\": no such model; " + suggest(name, names));
}

}  // namespace shmgemm::model

// Chooses the model that a description means and checks the description against its table.
#include "model/hardware.h"

#include <string>
#include <utility>
#include <vector>

#include "model/event_queue.h"
#include "model/supervision.h"

namespace shmgemm::model {
namespace {

const char* const kDefaultModel = "systolic";

std::string model_name(const ParameterMap& given) {
  const auto model = given.find("model");
  return model == given.end() ? kDefaultModel : model->second;
}

// Where both are given and the model has another dataflow, neither is wrong by itself: say so.
void refuse_contradiction(const ModelInfo& model, const ParameterMap& given) {
  const auto dataflow = given.find("dataflow");
  if (dataflow == given.end()) return;
  for (const Parameter& parameter : model.parameters) {
    if (parameter.name != "dataflow" || parameter.choices.size() != 1) continue;
    if (parameter.choices[0] == dataflow->second) return;
    throw ParameterError("dataflow = \"" + dataflow->second + "\" contradicts model = \"" +
                         model.name + "\", whose dataflow is \"" + parameter.choices[0] +
                         "\": leave it out or choose another model");
  }
}

std::vector<Parameter> table_of(const ModelInfo& model) {
  std::vector<Parameter> table;
  for (const Parameter& parameter : device_parameters()) {
    table.push_back(parameter);
    if (parameter.name == "model") table.back().default_value = model.name;
  }
  table.insert(table.end(), model.parameters.begin(), model.parameters.end());
  return table;
}

Parameters check(const ModelInfo& model, const ParameterMap& given) {
  refuse_contradiction(model, given);
  return Parameters(table_of(model), given);
}

Parameters check_unregistered(const ModelInfo& model, const ParameterMap& given) {
  std::vector<Parameter> table;
  for (const Parameter& parameter : table_of(model)) {
    if (parameter.name != "model") table.push_back(parameter);
  }
  return Parameters(table, given);
}

}  // namespace

std::vector<Parameter> device_parameters() {
  std::vector<std::string> names;
  for (const ModelInfo& info : models()) names.push_back(info.name);
  return {
      {"model", Unit::kChoice, kDefaultModel, "timing model", 0, 0, names},
      {"clock", Unit::kHertz, "1GHz", "frequency of the device's cycles", 1000, 100000000000, {}},
  };
}

Hardware::Hardware(ModelInfo model, Parameters parameters)
    : model_(std::move(model)), parameters_(std::move(parameters)) {
  EventQueue unused;
  create_model(unused, nullptr);  // throws where parameters are legal alone but not together
}

Hardware::Hardware(const ParameterMap& given)
    : Hardware(find_model(model_name(given)), check(find_model(model_name(given)), given)) {}

Hardware Hardware::of_unregistered(const ModelInfo& model, const ParameterMap& given) {
  return {model, check_unregistered(model, given)};
}

std::unique_ptr<TimingModel> Hardware::create_model(Scheduler& scheduler, Memory* memory) const {
  std::string why = "its `create` returned nothing";
  try {
    auto model = model_.create(ModelContext{scheduler, memory, parameters_});
    if (model) return model;
  } catch (const ParameterError&) {
    throw;
  } catch (...) {
    why = current_exception_text();
  }
  throw ModelError("timing model \"" + model_.name + "\" cannot be made: " + why);
}

}  // namespace shmgemm::model

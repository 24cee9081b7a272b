// One simulated device's description: its model by name, its clock and the model's own parameters,
// checked. Made from the flat map of strings that a TOML preset or an SST configuration becomes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "model/registry.h"

namespace shmgemm::model {

class Hardware {
 public:
  // Throws ParameterError. Without "model" it is "systolic".
  explicit Hardware(const ParameterMap& given);
  // Of a model that is not registered: "model" is no parameter then, its name is `model.name`.
  static Hardware of_unregistered(const ModelInfo& model, const ParameterMap& given);

  const ModelInfo& model() const { return model_; }
  std::uint64_t clock_hz() const { return parameters_.count("clock"); }
  const Parameters& parameters() const { return parameters_; }
  // Each device of a session has a model of its own; scheduler and memory must outlive it. Throws
  // ParameterError where the model refuses a value, ModelError where it cannot be made.
  std::unique_ptr<TimingModel> create_model(Scheduler& scheduler, Memory* memory) const;

 private:
  Hardware(ModelInfo model, Parameters parameters);

  ModelInfo model_;
  Parameters parameters_;
};

}  // namespace shmgemm::model

// Timing models from outside: a shared object whose static objects register models, as a model's
// own file does (registry.h). It finds this library's symbols in the process that loads it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/registry.h"

namespace shmgemm::model {

// Says which file, what it is and what was expected.
class SHMGEMM_MODEL_API PluginError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// Loads `path` for the rest of the process; its models are then in models(). Loading an unchanged
// file again does nothing. Throws PluginError, and leaves models() as it was. Not while another
// thread uses models().
void load_plugin(const std::string& path);

// What registers while a plug-in is loaded.
class Loading {
 public:
  Loading();
  ~Loading();
  Loading(const Loading&) = delete;
  Loading& operator=(const Loading&) = delete;
  static Loading* current();  // null: none is being loaded

  // Looks at `info` only where it is what this library takes it for.
  void take(const ModelInfo& info, std::uint32_t interface_version, std::size_t info_bytes);
  const std::string& problem() const { return problem_; }  // the first one
  std::vector<ModelInfo> take_infos() { return std::move(infos_); }

 private:
  std::vector<ModelInfo> infos_;
  std::string problem_;
};

}  // namespace shmgemm::model

// For tests: a component that makes the accesses it is told through SST::Interfaces::StandardMem,
// one after the other, and prints every answer; and a SubComponent whose timing models fail.
#include <sst/core/component.h>
#include <sst/core/interfaces/stdMem.h>

#include <cstdio>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "sst_gemm_element/timing_model_slot.h"

#if PROBE_SST_MAJOR != 15
#define PROBE_HANDLER Handler
#else
#define PROBE_HANDLER Handler2
#endif

namespace {
using Port = SST::Interfaces::StandardMem;

std::vector<std::uint8_t> bytes_of(const std::string& hex) {
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::uint8_t>(std::stoul(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

class Probe final : public SST::Component {
 public:
  SST_ELI_REGISTER_COMPONENT(Probe, "probe", "Probe", SST_ELI_ELEMENT_VERSION(1, 0, 0),
                             "Makes accesses and prints the answers",
                             COMPONENT_CATEGORY_UNCATEGORIZED)
  SST_ELI_DOCUMENT_PARAMS({"accesses", "`KIND ADDRESS BYTES-OR-HEX`, one after the other", ""})
  SST_ELI_DOCUMENT_SUBCOMPONENT_SLOTS({"interface", "where they go",
                                       "SST::Interfaces::StandardMem"})

  Probe(SST::ComponentId_t id, SST::Params& params)
      : SST::Component(id), accesses_(params.find<std::string>("accesses")) {
    port_ = loadUserSubComponent<Port>("interface", SST::ComponentInfo::SHARE_NONE,
                                       getTimeConverter("1ps"),
                                       new Port::PROBE_HANDLER<Probe, &Probe::answered>(this));
    registerAsPrimaryComponent();
    primaryComponentDoNotEndSim();
  }
  void init(unsigned phase) override { port_->init(phase); }
  void setup() override {
    port_->setup();
    next();
  }

 private:
  void next() {
    std::string kind, argument;
    std::uint64_t address = 0;
    bool is_posted = true;
    while (is_posted) {
      if (!(accesses_ >> kind >> address >> argument)) return primaryComponentOKToEndSim();
      is_posted = kind == "posted";
      port_->send(request(kind, address, argument));
    }
  }

  static Port::Request* request(const std::string& kind, std::uint64_t address,
                                const std::string& argument) {
    if (kind == "read") return new Port::Read(address, std::stoull(argument));
    if (kind == "lock") return new Port::ReadLock(address, std::stoull(argument));
    if (kind == "link") return new Port::LoadLink(address, std::stoull(argument));
    const std::vector<std::uint8_t> data = bytes_of(argument);
    if (kind == "conditional") return new Port::StoreConditional(address, data.size(), data);
    return new Port::Write(address, data.size(), data, kind == "posted");
  }

  void answered(Port::Request* response) {
    const std::unique_ptr<Port::Request> owned(response);
    std::string text = response->getFail() ? "failed" : "ok";
    if (const auto* read = dynamic_cast<Port::ReadResp*>(response)) {
      text += " ";
      char digits[3];
      for (const std::uint8_t byte : read->data) {
        std::snprintf(digits, sizeof digits, "%02x", byte);
        text += digits;
      }
    }
    std::printf("answer %s\n", text.c_str());
    next();
  }

  std::istringstream accesses_;
  Port* port_ = nullptr;
};

class Failing final : public shmgemm::sst_element::TimingModelSlot {
 public:
  SST_ELI_REGISTER_SUBCOMPONENT(Failing, "probe", "Failing", SST_ELI_ELEMENT_VERSION(1, 0, 0),
                                "Its models cannot be made", shmgemm::sst_element::TimingModelSlot)
  Failing(SST::ComponentId_t id, SST::Params&) : TimingModelSlot(id) {}
  std::unique_ptr<shmgemm::model::TimingModel> create(
      const shmgemm::sst_element::TimingContext&) override {
    throw std::runtime_error("no model today");
  }
};

class Older final : public shmgemm::sst_element::TimingModelSlot {
 public:
  SST_ELI_REGISTER_SUBCOMPONENT(Older, "probe", "Older", SST_ELI_ELEMENT_VERSION(1, 0, 0),
                                "As if compiled against another version of the interface",
                                shmgemm::sst_element::TimingModelSlot)
  Older(SST::ComponentId_t id, SST::Params&) : TimingModelSlot(id, 1000) {}
  std::unique_ptr<shmgemm::model::TimingModel> create(
      const shmgemm::sst_element::TimingContext&) override {
    return nullptr;
  }
};

}  // namespace

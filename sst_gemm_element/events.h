// What travels over links: the HostPort's tick to itself, and GEMMs that other components send to a
// device with the answers they get.
#pragma once

#include <sst/core/event.h>

#include <cstdint>

#include "abi/shmgemm_abi.h"

namespace shmgemm::sst_element {

class Tick final : public SST::Event {
 public:
  explicit Tick(std::uint64_t number) : number(number) {}

  void serialize_order(SST::Core::Serialization::serializer& ser) override {
    Event::serialize_order(ser);
    SST_SER(number);
  }

  std::uint64_t number = 0;  // one that is not the latest is void

 private:
  Tick() = default;
  ImplementSerializable(shmgemm::sst_element::Tick);
};

// A record as a host writes it, of which the device reads the shape, the operands' places, `id` and
// `stream`. It is timed, not computed.
class CommandEvent final : public SST::Event {
 public:
  explicit CommandEvent(const shmgemm_command& command) : command(command) {}

  void serialize_order(SST::Core::Serialization::serializer& ser) override {
    Event::serialize_order(ser);
    SST_SER(command);
  }

  shmgemm_command command{};

 private:
  CommandEvent() = default;
  ImplementSerializable(shmgemm::sst_element::CommandEvent);
};

class CompletionEvent final : public SST::Event {
 public:
  explicit CompletionEvent(const shmgemm_completion& completion) : completion(completion) {}

  void serialize_order(SST::Core::Serialization::serializer& ser) override {
    Event::serialize_order(ser);
    SST_SER(completion);
  }

  shmgemm_completion completion{};

 private:
  CompletionEvent() = default;
  ImplementSerializable(shmgemm::sst_element::CompletionEvent);
};

}  // namespace shmgemm::sst_element

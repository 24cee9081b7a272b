#include "client/in_flight.h"

namespace shmgemm::client {

InFlight::InFlight(Heap& heap, Ledger& ledger, const GemmCall& call)
    : ledger_(ledger),
      profiling_(ledger.profiling()),
      origin_(profiling_ ? Origin{steady_ns(), scope(), 0} : Origin{}),
      product_(heap, call),
      report_(profiling_ ? heap.allocate(SHMGEMM_REPORT_BYTES) : nullptr) {}

shmgemm_command InFlight::command() const {
  shmgemm_command command = product_.command();
  if (report_) command.report = static_cast<std::uint32_t>(report_->offset() / SHMGEMM_BLOCK_ALIGN);
  return command;
}

void InFlight::finish(const shmgemm_completion& completion) {
  product_.fetch();
  count(completion);
}

// A report that is none is nobody's error here: there is nobody to be told.
void InFlight::ended(const shmgemm_completion& completion) {
  if (completion.status != SHMGEMM_STATUS_OK) return ledger_.count_reject();
  try {
    count(completion);
  } catch (const ProtocolError&) {
    ledger_.count_reject();
  }
}

void InFlight::count(const shmgemm_completion& completion) {
  ledger_.count(call(), completion, product_.bytes_copied());
  if (!profiling_) return;
  ledger_.record(call(), completion, product_.bytes_copied(), origin_, report_.get());
}

}  // namespace shmgemm::client

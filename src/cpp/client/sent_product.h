// Futures: products that were sent without waiting for them.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>

#include "client/in_flight.h"
#include "client/session.h"
#include "client/session_impl.h"

namespace shmgemm {

// One product that was sent, of a session that it keeps. Many threads may wait for it; one settles.
// A forked child has no engine, and must not touch what its parent's threads may hold: there it is
// done, with an error.
class SentProduct final : public Future {
 public:
  SentProduct(std::shared_ptr<Session> session, SessionImpl& impl,
              std::shared_ptr<client::InFlight> product, StreamMark op)
      : session_(std::move(session)),
        impl_(impl),
        expect_(client::macs_of(product->call()) > kLongMacs ? region::Expect::kLong
                                                             : region::Expect::kShort),
        product_(std::move(product)),
        op_(op) {}
  ~SentProduct() override;

  bool done() override;
  bool wait(double timeout_s) override;
  shmgemm_completion result() override;
  StreamMark mark() const override { return op_; }
  bool cancel() override;

 private:
  void settle();

  const std::shared_ptr<Session> session_;
  SessionImpl& impl_;
  const region::Expect expect_;
  std::shared_ptr<client::InFlight> product_;  // until it is over
  const StreamMark op_;
  std::mutex mutex_;
  std::atomic<bool> over_{false};
  shmgemm_completion completion_{};
  std::exception_ptr error_;
};

// One that was computed at once, where matrices travel.
class DoneProduct final : public Future {
 public:
  explicit DoneProduct(const shmgemm_completion& completion) : completion_(completion) {}
  bool done() override { return true; }
  bool wait(double) override { return true; }
  shmgemm_completion result() override { return completion_; }
  StreamMark mark() const override { return {}; }
  bool cancel() override { return false; }

 private:
  const shmgemm_completion completion_;
};

}  // namespace shmgemm

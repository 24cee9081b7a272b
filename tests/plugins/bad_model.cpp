// A plug-in for the tests: a GEMM takes `cycles` cycles, but with M = 13 the model does what
// `behaviour` says, each of them a break of its contract.
#include <stdexcept>
#include <string>
#include <utility>

#include "model/registry.h"

namespace {

using namespace shmgemm::model;

class BadModel final : public TimingModel {
 public:
  explicit BadModel(const ModelContext& context)
      : scheduler_(context.scheduler),
        behaviour_(context.parameters.choice("behaviour")),
        cycles_(context.parameters.count("cycles")) {
    if (behaviour_ == "throws_when_made") throw std::runtime_error("made in vain");
  }
  ~BadModel() override {
    if (behaviour_ != "well_behaved") scheduler_.at(scheduler_.now(), [this] { go_on(1); });
  }

  std::uint64_t peak_macs_per_cycle() const override { return 1; }

  void start(const GemmShape& shape, Done done) override {
    done_ = std::move(done);
    if (shape.m == 13 && misbehave_at_once()) return;
    after(cycles_, [this, bad = shape.m == 13] {
      if (!bad || !misbehave_later()) done_(timing(cycles_));
    });
  }

 private:
  // True: that was all.
  bool misbehave_at_once() {
    if (behaviour_ == "refuses") throw std::invalid_argument("M = 13 is unlucky");
    if (behaviour_ == "throws") throw std::runtime_error("start() threw");
    if (behaviour_ == "throws_a_number") throw 13;
    if (behaviour_ == "never_ends") return true;
    if (behaviour_ == "stands_still") return go_on(0), true;
    if (behaviour_ == "runs_on") return go_on(1), true;
    if (behaviour_ == "jumps_on") return go_on(Cycle{1} << 58), true;
    if (behaviour_ == "goes_back") return scheduler_.at(scheduler_.now() - 1, [] {}), true;
    if (behaviour_ == "done_at_once") return done_(timing(0)), true;
    if (behaviour_ == "done_and_throws") {
      done_(timing(0));
      throw std::runtime_error("start() threw after done()");
    }
    if (behaviour_ == "leaves_events") after(1, [this] { go_on(1); });
    return false;
  }

  bool misbehave_later() {
    if (behaviour_ == "throws_later") throw std::runtime_error("an event threw");
    if (behaviour_ == "wrong_sum") return done_(timing(cycles_ + 1)), true;
    if (behaviour_ == "huge_sum") {
      GemmTiming huge;
      huge.busy = huge.memory_stall = UINT64_MAX;
      return done_(huge), true;
    }
    if (behaviour_ == "done_twice") done_(timing(cycles_));
    if (behaviour_ == "throws_after_done") {
      done_(timing(cycles_));
      throw std::runtime_error("an event threw after done()");
    }
    if (behaviour_ == "leaves_events") throw std::runtime_error("an event threw");
    return false;
  }

  void go_on(Cycle step) {
    after(step, [this, step] { go_on(step); });
  }
  void after(Cycle cycles, std::function<void()> callback) {
    scheduler_.at(scheduler_.now() + cycles, std::move(callback));
  }
  static GemmTiming timing(Cycle cycles) {
    GemmTiming timing;
    timing.busy = cycles;
    return timing;
  }

  Scheduler& scheduler_;
  const std::string behaviour_;
  const Cycle cycles_;
  Done done_;
};

ModelInfo describe() {
  ModelInfo info;
  info.name = "bad";
  info.summary = "Breaks its contract where M = 13";
  info.parameters = {{"behaviour",
                      Unit::kChoice,
                      "well_behaved",
                      "what it does then",
                      0,
                      0,
                      {"well_behaved", "refuses", "throws", "throws_a_number", "throws_when_made",
                       "never_ends", "stands_still", "runs_on", "jumps_on", "goes_back",
                       "done_at_once", "done_and_throws", "leaves_events", "throws_later",
                       "wrong_sum", "huge_sum", "done_twice", "throws_after_done"}},
                     {"cycles", Unit::kCycles, "10", "of any other GEMM", 1, 1000000, {}}};
  info.create = [](const ModelContext& context) { return std::make_unique<BadModel>(context); };
  return info;
}

const Registration registration{describe()};

}  // namespace

// One GEMM without an engine, also on models that break their contract: an error that names the
// model, never a hang. The model is tests/plugins/bad_model.cpp.
#include "model/simulate.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "contains.h"
#include "model/plugin.h"

namespace shmgemm::model {
namespace {

const EventLimits kLimits{1000, 5000, Cycle{1} << 56};

GemmShape unlucky() {
  GemmShape shape;
  shape.m = 13;
  shape.n = shape.k = 2;
  return shape;
}

Simulated run(const std::string& behaviour) {
  load_plugin(SHMGEMM_BAD_MODEL);
  return simulate(Hardware({{"model", "bad"}, {"behaviour", behaviour}}), unlucky(), nullptr,
                  kLimits);
}

TEST(Simulate, AModelThatBreaksItsContractIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"throws", "start() threw"},        {"throws_a_number", "no std::exception"},
      {"throws_when_made", "in vain"},    {"never_ends", "did not call done()"},
      {"stands_still", "1001 events at"}, {"runs_on", "5001 events"},
      {"jumps_on", "cycles, more than"},  {"throws_later", "an event threw"},
      {"wrong_sum", "after 10 cycles"},   {"huge_sum", "more than 2^64"}};
  for (const auto& [behaviour, said] : cases) {
    try {
      run(behaviour);
      ADD_FAILURE() << behaviour;
    } catch (const ModelError& error) {
      expect_parts(error.what(), {"timing model \"bad\"", said});
    }
  }
}

TEST(Simulate, ARefusalIsTheModelsOwn) { EXPECT_THROW(run("refuses"), std::invalid_argument); }

TEST(Simulate, WhatEndsHasEnded) {
  EXPECT_EQ(run("well_behaved").timing.total(), 10u);
  EXPECT_EQ(run("well_behaved").peak_macs_per_cycle, 1u);
  EXPECT_EQ(run("done_at_once").timing.total(), 0u);
}

TEST(Simulate, MayBeInterrupted) {
  load_plugin(SHMGEMM_BAD_MODEL);
  const Hardware hardware({{"model", "bad"}, {"behaviour", "runs_on"}});
  const auto stop = [] { throw std::range_error("enough"); };
  EXPECT_THROW(simulate(hardware, unlucky(), stop), std::range_error);
}

}  // namespace
}  // namespace shmgemm::model

// A model that throws, never ends or lies fails the op it was told; the device goes on with a fresh
// one, and other devices notice nothing. The model is tests/plugins/bad_model.cpp, a plug-in.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "../model/contains.h"
#include "host.h"
#include "model/plugin.h"

namespace {

using shmgemm::test::Host;
namespace model = shmgemm::model;

constexpr std::uint32_t kUnlucky = 13;
constexpr std::uint64_t kGoodCycles = 10;
const model::EventLimits kLimits{1000, 5000, std::uint64_t{1} << 56};

model::ParameterMap hardware(const std::string& behaviour) {
  model::load_plugin(SHMGEMM_BAD_MODEL);
  return {{"model", "bad"}, {"behaviour", behaviour}};
}

shmgemm_command product(const Host& host, std::uint64_t id, std::uint32_t m) {
  shmgemm_command command = host.product(id, 3);
  command.m = m;
  command.flags |= SHMGEMM_FLAG_FLUSH;
  return command;
}

struct Case {
  const char* behaviour;
  shmgemm_status status;
  const char* said;  // a part of the log
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.behaviour; }

class BadModels : public testing::TestWithParam<Case> {};

TEST_P(BadModels, FailTheirOpAndNoOther) {
  Host host(1, 1, hardware(GetParam().behaviour), kLimits);
  for (std::uint64_t id = 1; id <= 9; ++id) {
    host.send(product(host, id, id % 3 == 1 ? kUnlucky : 1));
  }
  host.serve();
  for (std::uint64_t id = 1; id <= 9; ++id) {
    ASSERT_TRUE(host.has(id)) << id;
    const bool bad = id % 3 == 1;
    EXPECT_EQ(host.status(id), unsigned{bad ? GetParam().status : SHMGEMM_STATUS_OK}) << id;
    if (!bad) {
      EXPECT_EQ(host.end(id) - host.start(id), kGoodCycles) << id;
    }
  }
  ASSERT_EQ(host.log.size(), 3u);
  for (const std::string& line : host.log) {
    model::expect_parts(line, {"timing model \"bad\"", "M=13", GetParam().said});
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, BadModels,
    testing::Values(Case{"refuses", SHMGEMM_STATUS_UNSUPPORTED, "M = 13 is unlucky"},
                    Case{"throws", SHMGEMM_STATUS_ERROR, "start() threw"},
                    Case{"throws_a_number", SHMGEMM_STATUS_ERROR, "no std::exception"},
                    Case{"never_ends", SHMGEMM_STATUS_ERROR, "did not call done()"},
                    Case{"stands_still", SHMGEMM_STATUS_ERROR, "1001 events at cycle"},
                    Case{"runs_on", SHMGEMM_STATUS_ERROR, "5001 events, more than 5000"},
                    Case{"jumps_on", SHMGEMM_STATUS_ERROR, "cycles, more than"},
                    Case{"goes_back", SHMGEMM_STATUS_ERROR, "event at cycle"},
                    Case{"leaves_events", SHMGEMM_STATUS_ERROR, "an event threw"},
                    Case{"throws_later", SHMGEMM_STATUS_ERROR, "an event threw"},
                    Case{"wrong_sum", SHMGEMM_STATUS_ERROR, "after 10 cycles"},
                    Case{"huge_sum", SHMGEMM_STATUS_ERROR, "more than 2^64"}),
    [](const auto& info) { return std::string(info.param.behaviour); });

// The op has ended well before the model breaks: it stays so, and the model is replaced.
TEST(BadModel, AnOpThatHasEndedHasEnded) {
  for (const char* behaviour :
       {"done_at_once", "done_and_throws", "done_twice", "throws_after_done"}) {
    Host host(1, 1, hardware(behaviour), kLimits);
    for (std::uint64_t id = 1; id <= 3; ++id) {
      host.send(product(host, id, id == 2 ? kUnlucky : 1));
      host.serve();
    }
    for (std::uint64_t id = 1; id <= 3; ++id) {
      EXPECT_EQ(host.status(id), unsigned{SHMGEMM_STATUS_OK}) << behaviour << ' ' << id;
    }
    EXPECT_EQ(host.end(3) - host.start(3), kGoodCycles) << behaviour;
    EXPECT_EQ(host.log.size(), std::string(behaviour) == "done_at_once" ? 0u : 1u) << behaviour;
  }
}

TEST(BadModel, OtherDevicesNoticeNothing) {
  for (const char* behaviour : {"throws", "never_ends", "stands_still", "runs_on", "done_twice"}) {
    Host host(2, 1, hardware(behaviour), kLimits);
    std::uint64_t id = 0;
    for (int round = 0; round < 4; ++round) {
      for (std::uint8_t device = 0; device < 2; ++device) {
        auto command = product(host, ++id, device == 0 ? kUnlucky : 1);
        command.flags = 0;
        command.device = device;
        command.stream = device;
        host.send(command);
      }
    }
    host.send(host.command(SHMGEMM_OP_FLUSH, ++id));
    host.serve();
    EXPECT_EQ(host.status(id), unsigned{SHMGEMM_STATUS_OK}) << behaviour;
    for (std::uint64_t good = 2; good < id; good += 2) {
      EXPECT_EQ(host.status(good), unsigned{SHMGEMM_STATUS_OK}) << behaviour << ' ' << good;
      EXPECT_EQ(host.end(good), good / 2 * kGoodCycles) << behaviour << ' ' << good;
    }
  }
}

TEST(BadModel, OneThatCannotBeMadeIsSaidAtTheStart) {
  try {
    Host host(1, 1, hardware("throws_when_made"));
    FAIL();
  } catch (const model::ModelError& error) {
    model::expect_parts(error.what(), {"timing model \"bad\" cannot be made", "made in vain"});
  }
}

TEST(BadModel, CountsItsRejects) {
  Host host(1, 1, hardware("throws"));
  host.send(product(host, 1, kUnlucky));
  host.send(product(host, 2, 1));
  auto info = host.command(SHMGEMM_OP_GET_INFO, 3);
  info.flags = SHMGEMM_FLAG_FLUSH;
  info.report = static_cast<std::uint32_t>(host.region->heap_begin() / SHMGEMM_BLOCK_ALIGN);
  host.send(info);
  host.serve();
  shmgemm_info said;
  std::memcpy(&said, host.region->base() + host.region->heap_begin(), sizeof said);
  EXPECT_EQ(said.rejects, 1u);
  EXPECT_EQ(said.ops, 1u);
  EXPECT_STREQ(said.model, "bad");
}

}  // namespace

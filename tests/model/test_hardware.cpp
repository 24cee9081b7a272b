// A flat map of strings becomes one checked device, or an error that names key, value and what is
// legal.
#include "model/hardware.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "contains.h"
#include "model/event_queue.h"

namespace shmgemm::model {
namespace {

Hardware make(const ParameterMap& given) { return Hardware(given); }

std::string refusal(const ParameterMap& given) {
  try {
    const Hardware hardware(given);
  } catch (const ParameterError& error) {
    return error.what();
  }
  return "";
}

TEST(Hardware, EverythingHasADefault) {
  const Hardware hardware{ParameterMap{}};
  EXPECT_EQ(hardware.model().name, "systolic");
  const Hardware closed = make({{"model", "scalesim_ws"}});
  EXPECT_EQ(closed.parameters().text(), (ParameterMap{{"clock", "1GHz"},
                                                      {"cols", "128"},
                                                      {"dataflow", "ws"},
                                                      {"model", "scalesim_ws"},
                                                      {"rows", "128"}}));
}

TEST(Hardware, ModelAndDataflowMayAgree) {
  EXPECT_EQ(make({{"model", "scalesim_is"}, {"dataflow", "is"}}).model().name, "scalesim_is");
  EXPECT_EQ(make({{"model", "scalesim_os"}}).parameters().choice("dataflow"), "os");
}

TEST(Hardware, ModelAndDataflowMustNotContradict) {
  expect_parts(refusal({{"model", "scalesim_ws"}, {"dataflow", "os"}}),
               {"dataflow = \"os\"", "contradicts", "scalesim_ws", "\"ws\""});
}

TEST(Hardware, ClockIsInHertz) { EXPECT_EQ(make({{"clock", "940MHz"}}).clock_hz(), 940000000u); }

TEST(Hardware, EqualValuesHaveOneSpelling) {
  const Hardware a = make({{"clock", "0.94GHz"}, {"rows", " 64"}});
  const Hardware b = make({{"rows", "64"}, {"clock", "940 MHz"}});
  EXPECT_EQ(a.parameters().text(), b.parameters().text());
}

TEST(Hardware, UnknownKeyNamesCloseOnesAndAll) {
  expect_parts(refusal({{"row", "128"}}), {"row = \"128\"", "did you mean \"rows\"?",
                                           "accumulator, arrays, clock, cols, cores, dataflow"});
  expect_parts(refusal({{"colums", "128"}}), {"did you mean \"cols\"?"});
  EXPECT_EQ(refusal({{"zzzzz", "1"}}).find("did you mean"), std::string::npos);
  expect_parts(refusal({{"", "1"}}), {"unknown parameter"});
}

TEST(Hardware, EveryParameterIsChecked) {
  expect_parts(refusal({{"rows", "0"}}), {"rows = \"0\"", "from 1 to 4096"});
  expect_parts(refusal({{"rows", "4097"}}), {"out of range"});
  expect_parts(refusal({{"rows", "-4"}}), {"rows = \"-4\": out of range", "from 1 to 4096"});
  expect_parts(refusal({{"cols", "128B"}}), {"cols", "unknown unit \"B\""});
  expect_parts(refusal({{"cols", ""}}), {"cols = \"\": not a number"});
  expect_parts(refusal({{"clock", "940"}}), {"clock", "no unit"});
  expect_parts(refusal({{"clock", "1Hz"}}), {"from 1kHz to 100GHz"});
  expect_parts(refusal({{"dataflow", "oss"}}), {"dataflow = \"oss\"", "\"os\"", "os, ws, is"});
  expect_parts(refusal({{"model", "scalesim_so"}}), {"model = \"scalesim_so\"", "\"scalesim_os\""});
}

TEST(Hardware, AModelMadeOfItHasItsArray) {
  const Hardware hardware = make({{"rows", "8"}, {"cols", "4"}});
  EventQueue queue;
  EXPECT_EQ(hardware.create_model(queue, nullptr)->peak_macs_per_cycle(), 32u);
}

TEST(Registry, ModelsAreSortedAndDescribed) {
  std::vector<std::string> names;
  for (const ModelInfo& info : models()) {
    names.push_back(info.name);
    EXPECT_FALSE(info.summary.empty()) << info.name;
    for (const Parameter& parameter : info.parameters) {
      EXPECT_FALSE(parameter.meaning.empty()) << info.name << '.' << parameter.name;
    }
  }
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  for (const char* name : {"scalesim_is", "scalesim_os", "scalesim_ws", "systolic"}) {
    EXPECT_EQ(std::count(names.begin(), names.end(), name), 1) << name;
  }
}

TEST(Registry, DefaultsAreLegal) {
  for (const ModelInfo& info : models()) {
    EXPECT_NO_THROW(Hardware({{"model", info.name}})) << info.name;
  }
  EXPECT_NO_THROW(Parameters(device_parameters(), {}));
}

TEST(Registry, ANameIsTakenOnce) {
  ModelInfo info;
  info.name = "scalesim_ws";
  EXPECT_THROW(Registration{info}, std::logic_error);
}

TEST(Parameters, AskingForWhatIsNotDeclaredIsABug) {
  const Hardware hardware{ParameterMap{}};
  EXPECT_THROW(hardware.parameters().count("dataflow"), std::logic_error);
  EXPECT_THROW(hardware.parameters().choice("rows"), std::logic_error);
  EXPECT_THROW(hardware.parameters().count("bandwidth"), std::logic_error);
}

}  // namespace
}  // namespace shmgemm::model

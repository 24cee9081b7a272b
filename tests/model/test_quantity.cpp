// Quantities are read exactly or refused with everything a user needs to put it right.
#include <gtest/gtest.h>

#include <string>

#include "contains.h"
#include "model/registry.h"

namespace shmgemm::model {
namespace {

Parameter parameter(Unit unit, std::uint64_t min = 0, std::uint64_t max = UINT64_MAX) {
  return {"key", unit, "", "", min, max, {}};
}

std::uint64_t parse(Unit unit, const std::string& text) {
  return parse_quantity(parameter(unit), text);
}

std::string refusal(const Parameter& parameter, const std::string& text) {
  try {
    parse_quantity(parameter, text);
  } catch (const ParameterError& error) {
    return error.what();
  }
  return "";
}

TEST(Quantity, ReadsEveryUnit) {
  EXPECT_EQ(parse(Unit::kCount, "128"), 128u);
  EXPECT_EQ(parse(Unit::kHertz, "5Hz"), 5u);
  EXPECT_EQ(parse(Unit::kHertz, "5kHz"), 5000u);
  EXPECT_EQ(parse(Unit::kHertz, "940MHz"), 940000000u);
  EXPECT_EQ(parse(Unit::kHertz, "2GHz"), 2000000000u);
  EXPECT_EQ(parse(Unit::kBytes, "7B"), 7u);
  EXPECT_EQ(parse(Unit::kBytes, "3kB"), 3000u);
  EXPECT_EQ(parse(Unit::kBytes, "3KiB"), 3072u);
  EXPECT_EQ(parse(Unit::kBytes, "2MB"), 2000000u);
  EXPECT_EQ(parse(Unit::kBytes, "16MiB"), 16777216u);
  EXPECT_EQ(parse(Unit::kBytes, "1GB"), 1000000000u);
  EXPECT_EQ(parse(Unit::kBytes, "1GiB"), 1073741824u);
  EXPECT_EQ(parse(Unit::kBytesPerSecond, "450GB/s"), 450000000000u);
  EXPECT_EQ(parse(Unit::kBytesPerSecond, "1.2TB/s"), 1200000000000u);
  EXPECT_EQ(parse(Unit::kBytesPerSecond, "1GiB/s"), 1073741824u);
  EXPECT_EQ(parse(Unit::kCycles, "100"), 100u);
  EXPECT_EQ(parse(Unit::kCycles, "100cycles"), 100u);
}

TEST(Quantity, FractionsAreExact) {
  EXPECT_EQ(parse(Unit::kHertz, "1.05GHz"), 1050000000u);
  EXPECT_EQ(parse(Unit::kHertz, "0.94GHz"), 940000000u);
  EXPECT_EQ(parse(Unit::kHertz, "0.000000001GHz"), 1u);
  EXPECT_EQ(parse(Unit::kBytes, "0.5KiB"), 512u);
  EXPECT_EQ(parse(Unit::kCount, "4.00"), 4u);
  EXPECT_THROW(parse(Unit::kHertz, "0.0000000001GHz"), ParameterError);
  EXPECT_THROW(parse(Unit::kBytes, "0.5B"), ParameterError);
  EXPECT_THROW(parse(Unit::kCount, "1.5"), ParameterError);
}

TEST(Quantity, SpacesMayStandAroundNumberAndUnit) {
  EXPECT_EQ(parse(Unit::kHertz, " 940 MHz "), 940000000u);
}

TEST(Quantity, RefusesWhatIsNoQuantity) {
  for (const char* text : {"", " ", "MHz", "-1MHz", "+1MHz", "1e9Hz", "0x10Hz", "1.Hz", ".5GHz",
                           "1,5GHz", "940MHz2", "nan", "inf", "1 2MHz"}) {
    EXPECT_THROW(parse(Unit::kHertz, text), ParameterError) << '"' << text << '"';
  }
}

TEST(Quantity, RefusesAnotherUnitAndAMissingOne) {
  for (const char* text : {"940", "940mhz", "940MB", "940M", "16MiB/s"}) {
    EXPECT_THROW(parse(Unit::kHertz, text), ParameterError) << text;
  }
  EXPECT_THROW(parse(Unit::kBytes, "16"), ParameterError);
  EXPECT_THROW(parse(Unit::kBytes, "16GB/s"), ParameterError);
  EXPECT_THROW(parse(Unit::kBytesPerSecond, "16GB"), ParameterError);
  EXPECT_THROW(parse(Unit::kCount, "16B"), ParameterError);
  EXPECT_THROW(parse(Unit::kCycles, "16Hz"), ParameterError);
}

TEST(Quantity, RefusesWhatDoesNotFit) {
  for (const char* text : {"18446744073709551616", "9223372036854775808",
                           "99999999999999999999999999999999", "0.00000000000000000000001"}) {
    EXPECT_THROW(parse(Unit::kCount, text), ParameterError) << text;
  }
  EXPECT_THROW(parse(Unit::kHertz, "9999999999999GHz"), ParameterError);
  EXPECT_EQ(parse(Unit::kCount, "9223372036854775807"), 9223372036854775807u);
}

TEST(Quantity, TheRangeIncludesItsEnds) {
  const Parameter rows = parameter(Unit::kCount, 1, 65536);
  EXPECT_EQ(parse_quantity(rows, "1"), 1u);
  EXPECT_EQ(parse_quantity(rows, "65536"), 65536u);
  EXPECT_THROW(parse_quantity(rows, "0"), ParameterError);
  EXPECT_THROW(parse_quantity(rows, "65537"), ParameterError);
}

TEST(Quantity, ARefusalSaysKeyValueUnitAndRange) {
  const std::string clock = refusal(parameter(Unit::kHertz, 1000, 100000000000), "940");
  expect_parts(clock, {"key", "\"940\"", "no unit", "frequency", "MHz", "1kHz", "100GHz"});
  expect_parts(refusal(parameter(Unit::kHertz), "940mhz"), {"\"mhz\""});
  expect_parts(refusal(parameter(Unit::kBytes, 4096), "1B"), {"at least 4KiB"});
  expect_parts(refusal(parameter(Unit::kCount, 1, 9), "10"), {"out of range", "from 1 to 9"});
  expect_parts(refusal(parameter(Unit::kCount, 1, 9), " -4"), {"out of range", "from 1 to 9"});
  expect_parts(refusal(parameter(Unit::kHertz), "-4MHz"), {"out of range", "at least 0Hz"});
  expect_parts(refusal(parameter(Unit::kCount), "-x"), {"not a number"});
}

TEST(Quantity, OneSpellingInTheLargestExactUnit) {
  EXPECT_EQ(format_quantity(Unit::kHertz, 940000000), "940MHz");
  EXPECT_EQ(format_quantity(Unit::kHertz, 1000000000), "1GHz");
  EXPECT_EQ(format_quantity(Unit::kHertz, 1050000000), "1050MHz");
  EXPECT_EQ(format_quantity(Unit::kHertz, 0), "0Hz");
  EXPECT_EQ(format_quantity(Unit::kBytes, 16777216), "16MiB");
  EXPECT_EQ(format_quantity(Unit::kBytes, 3000), "3kB");
  EXPECT_EQ(format_quantity(Unit::kBytes, 256000), "250KiB");
  EXPECT_EQ(format_quantity(Unit::kBytesPerSecond, 450000000000), "450GB/s");
  EXPECT_EQ(format_quantity(Unit::kCount, 1000000), "1000000");
}

TEST(Quantity, WhatIsWrittenCanBeRead) {
  for (const Unit unit :
       {Unit::kCount, Unit::kHertz, Unit::kBytes, Unit::kBytesPerSecond, Unit::kCycles}) {
    for (const std::uint64_t value :
         {0ull, 1ull, 999ull, 1000ull, 1024ull, 1536ull, 1000000ull, 1048576ull, 940000000ull,
          1073741824ull, 1024000ull, 450000000000ull, 123456789012345ull}) {
      EXPECT_EQ(parse(unit, format_quantity(unit, value)), value) << format_quantity(unit, value);
    }
  }
}

}  // namespace
}  // namespace shmgemm::model

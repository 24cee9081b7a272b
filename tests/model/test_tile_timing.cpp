// Closed forms by hand, and their errors. That they are the array's is tested in test_pe_array.cpp.
#include <gtest/gtest.h>

#include <stdexcept>

#include "contains.h"
#include "model/tile_timing.h"

namespace shmgemm::model {
namespace {

constexpr Dataflow kWs = Dataflow::kWeightStationary;
constexpr Dataflow kOs = Dataflow::kOutputStationary;
constexpr Dataflow kIs = Dataflow::kInputStationary;

TEST(TileTiming, ASinglePeMultipliesInTheCycleTheElementEnters) {
  const TileTiming ws = tile_timing(kWs, {1, 1}, {1, 1, 1});
  EXPECT_EQ(ws.load, 1u);
  EXPECT_EQ(ws.last_mac, 1u);
  EXPECT_EQ(ws.first_result, 1u);
  EXPECT_EQ(ws.last_result, 1u);
  EXPECT_EQ(tile_cycles(kWs, {1, 1}, {1, 1, 1}), 2u);
  EXPECT_EQ(tile_cycles(kOs, {1, 1}, {1, 1, 1}), 1u);
}

TEST(TileTiming, PartialSumsPassAllRowsWhateverTheTileUses) {
  const TileTiming timing = tile_timing(kWs, {8, 4}, {3, 2, 5});
  EXPECT_EQ(timing.load, 3u);
  EXPECT_EQ(timing.last_mac, 8u);      // 5 + 3 + 2 - 2
  EXPECT_EQ(timing.first_result, 8u);  // R
  EXPECT_EQ(timing.last_result, 13u);  // 5 + 8 + 2 - 2
}

TEST(TileTiming, OutputsDrainDownTheColumn) {
  const TileTiming timing = tile_timing(kOs, {8, 4}, {3, 2, 5});
  EXPECT_EQ(timing.load, 0u);
  EXPECT_EQ(timing.last_mac, 8u);
  EXPECT_EQ(timing.first_result, 12u);  // 5 + 8 - 1
  EXPECT_EQ(timing.last_result, 15u);   // 5 + 3 + 8 + 2 - 3
}

TEST(TileTiming, DimensionsLieWhereTheDataflowPutsThem) {
  const TileShape ws = tile_shape(kWs, 1, 2, 3), os = tile_shape(kOs, 1, 2, 3),
                  is = tile_shape(kIs, 1, 2, 3);
  EXPECT_EQ(ws.rows, 3u);
  EXPECT_EQ(ws.columns, 2u);
  EXPECT_EQ(ws.stream, 1u);
  EXPECT_EQ(os.rows, 1u);
  EXPECT_EQ(os.columns, 2u);
  EXPECT_EQ(os.stream, 3u);
  EXPECT_EQ(is.rows, 3u);
  EXPECT_EQ(is.columns, 1u);
  EXPECT_EQ(is.stream, 2u);
}

TEST(TileTiming, TheIntervalIsTheStreamOrTheNextLoad) {
  EXPECT_EQ(issue_interval(kWs, {8, 8, 20}, {8, 8, 1}), 20u);
  EXPECT_EQ(issue_interval(kWs, {8, 8, 5}, {7, 8, 20}), 7u);
  EXPECT_EQ(issue_interval(kIs, {8, 8, 5}, {7, 8, 20}), 7u);
  EXPECT_EQ(issue_interval(kOs, {8, 8, 20}, {8, 8, 20}), 20u);
  EXPECT_EQ(issue_interval(kOs, {8, 8, 5}, {2, 8, 5}), 8u);
  EXPECT_EQ(issue_interval(kOs, {8, 8, 5}, {2, 8, 2}), 11u);
}

TEST(TileTiming, AFullBurstPaysLoadFillAndDrainOnce) {
  const std::vector<TileShape> tiles(10, TileShape{16, 16, 16});
  EXPECT_EQ(burst_cycles(kWs, {16, 16}, tiles), 16u + 9 * 16 + 16 + 16 + 16 - 2);
  EXPECT_EQ(burst_cycles(kOs, {16, 16}, tiles), 9u * 16 + 16 + 16 + 16 + 16 - 3);
}

TEST(TileTiming, AWideTileMayEndAfterTheNarrowOneBehindIt) {
  EXPECT_EQ(burst_cycles(kWs, {1, 9}, {{1, 9, 1}, {1, 1, 1}}), 10u);  // 1 + (1 + 1 + 9 - 2)
}

TEST(TileTiming, NoTilesTakeNoTime) { EXPECT_EQ(burst_cycles(kWs, {4, 4}, {}), 0u); }

TEST(TileTiming, ATileThatDoesNotFitIsAnError) {
  for (const TileShape tile : {TileShape{9, 1, 1}, TileShape{1, 5, 1}, TileShape{0, 1, 1},
                               TileShape{1, 0, 1}, TileShape{1, 1, 0}}) {
    EXPECT_THROW(tile_timing(kWs, {8, 4}, tile), std::invalid_argument);
    EXPECT_THROW(tile_cycles(kOs, {8, 4}, tile), std::invalid_argument);
  }
  try {
    tile_timing(kIs, {8, 4}, {9, 2, 3});
    FAIL();
  } catch (const std::invalid_argument& error) {
    expect_parts(error.what(), {"9 rows", "2 columns", "stream 3", "8x4"});
  }
}

}  // namespace
}  // namespace shmgemm::model

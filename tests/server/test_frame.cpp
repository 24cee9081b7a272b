// Frames of the wire protocol: taken whole and byte by byte, several in a row, and refused with the
// field, what came and what was expected.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "server/frame.h"

namespace {

using namespace shmgemm::server;

constexpr std::uint64_t kMaxMatrixBytes = 1 << 16;

std::string big_endian(std::uint32_t value) {
  std::string text(4, '\0');
  for (int i = 0; i < 4; ++i)
    text[static_cast<std::size_t>(i)] = static_cast<char>(value >> (24 - 8 * i));
  return text;
}

std::string header(std::uint32_t bytes, int op, std::uint32_t magic = kMagic) {
  return big_endian(magic) + big_endian(bytes) + static_cast<char>(op);
}

std::string sized(std::size_t bytes, char fill = 'x') {
  return big_endian(static_cast<std::uint32_t>(bytes)) + std::string(bytes, fill);
}

std::string with_json(int op, const std::string& json) {
  return header(static_cast<std::uint32_t>(json.size()), op) + json;
}

const char kJson[] = R"({"op_id": 1, "M": 2, "N": 3, "K": 4, "A_shape": [2, 4], "B_shape": [4, 3],
                         "dtype": "float32"})";

std::string good_gemm() { return with_json(0, kJson) + sized(32, 'a') + sized(48, 'b'); }

class FrameTest : public testing::Test {
 protected:
  Budget budget_{4 * kMaxMatrixBytes};
  FrameReader reader_{budget_, kMaxMatrixBytes};

  std::size_t feed(const std::string& text) {
    return reader_.feed({reinterpret_cast<const std::byte*>(text.data()), text.size()});
  }
  std::string refusal(const std::string& text) {
    try {
      feed(text);
    } catch (const ProtocolError& error) {
      return error.what();
    }
    return reader_.complete() ? "accepted" : "more is awaited";
  }
};

TEST_F(FrameTest, TakesAProduct) {
  const std::string text = good_gemm();
  EXPECT_EQ(feed(text + "next"), text.size());
  ASSERT_TRUE(reader_.complete());
  const Frame frame = reader_.take();
  EXPECT_EQ(frame.op, Op::kGemm);
  EXPECT_EQ(frame.request.text(), "2x4 @ 4x3 float32");
  EXPECT_EQ(frame.matrices[0], Bytes(32, std::byte{'a'}));
  EXPECT_EQ(frame.matrices[1], Bytes(48, std::byte{'b'}));
  EXPECT_TRUE(frame.matrices[2].empty());
  EXPECT_EQ(frame.bytes, text.size());
  EXPECT_FALSE(reader_.in_frame());
}

TEST_F(FrameTest, TakesItByteByByte) {
  for (int repeat = 0; repeat < 3; ++repeat) {
    for (const char c : good_gemm()) {
      ASSERT_FALSE(reader_.complete());
      ASSERT_EQ(feed(std::string(1, c)), 1u);
    }
    ASSERT_TRUE(reader_.complete());
    EXPECT_EQ(reader_.take().matrices[1].size(), 48u);
  }
}

TEST_F(FrameTest, TakesABias) {
  const std::string json = R"({"M": 1, "N": 3, "K": 1, "bias_shape": [3]})";
  feed(with_json(1, json) + sized(4) + sized(12) + sized(12, 'c'));
  ASSERT_TRUE(reader_.complete());
  const Frame frame = reader_.take();
  EXPECT_TRUE(frame.request.has_bias);
  EXPECT_EQ(frame.matrices[2], Bytes(12, std::byte{'c'}));
}

TEST_F(FrameTest, TakesElementTypes) {
  const auto sizes = [](const char* dtype) {
    const auto request = parse_inline_request(
        R"({"M": 2, "N": 3, "K": 5, "bias_shape": [1, 3], "dtype": ")" + std::string(dtype) + "\"}",
        kMaxMatrixBytes);
    return std::vector<std::uint64_t>{request.a_bytes(), request.b_bytes(), request.c_bytes(),
                                      request.bias_total_bytes()};
  };
  using Sizes = std::vector<std::uint64_t>;
  EXPECT_EQ(sizes("float32"), (Sizes{40, 60, 24, 12}));
  EXPECT_EQ(sizes("torch.float32"), (Sizes{40, 60, 24, 12}));
  EXPECT_EQ(sizes("float64"), (Sizes{80, 120, 48, 24}));
  EXPECT_EQ(sizes("float16"), (Sizes{20, 30, 12, 12}));
  EXPECT_EQ(sizes("int8"), (Sizes{10, 15, 24, 12}));
}

TEST_F(FrameTest, TakesCommandsAndStatus) {
  feed(header(256, 16) + std::string(256, 'c'));
  ASSERT_TRUE(reader_.complete());
  EXPECT_EQ(reader_.take().payload.size(), 256u);
  feed(header(0, 17));
  ASSERT_TRUE(reader_.complete());
  EXPECT_EQ(reader_.take().op, Op::kStatus);
}

TEST_F(FrameTest, RefusesHeaders) {
  EXPECT_EQ(refusal("GET / HTTP/1.1"), "magic: 0x47455420 came, 0xDEADBEEF expected");
  reader_.take();
  EXPECT_EQ(refusal(header(4, 9)),
            "op: 9 came, 0 GEMM, 1 LINEAR, 16 COMMANDS or 17 STATUS expected");
  reader_.take();
  EXPECT_EQ(refusal(header(0xffffffff, 0)),
            "payload length of op 0 GEMM: 4294967295 came, 1 to 65536 bytes of JSON expected");
  reader_.take();
  EXPECT_EQ(refusal(header(130, 16)),
            "payload length of op 16 COMMANDS: 130 came, 1 to 4096 times 128 bytes expected");
  reader_.take();
  EXPECT_EQ(refusal(header(4097 * 128, 16)),
            "payload length of op 16 COMMANDS: 524416 came, 1 to 4096 times 128 bytes expected");
  reader_.take();
  EXPECT_EQ(refusal(header(1, 17)), "payload length of op 17 STATUS: 1 came, 0 expected");
}

TEST_F(FrameTest, RefusesJson) {
  const std::pair<const char*, const char*> cases[] = {
      {"nonsense", "JSON: \"nonsense\" came, an object with M, N and K expected"},
      {"[1, 2]", "JSON: [1,2] came, an object with M, N and K expected"},
      {"{}", "M: nothing came, a whole number from 1 to 65536 expected"},
      {R"({"M": -1})", "M: -1 came, a whole number from 1 to 65536 expected"},
      {R"({"M": 1.5})", "M: 1.5 came, a whole number from 1 to 65536 expected"},
      {R"({"M": "4"})", "M: \"4\" came, a whole number from 1 to 65536 expected"},
      {R"({"M": 18446744073709551615})",
       "M: 18446744073709551615 came, a whole number from 1 to 65536 expected"},
      {R"({"M": 1, "N": 0})", "N: 0 came, a whole number from 1 to 65536 expected"},
      {R"({"M": 2, "N": 3, "K": 4, "A_shape": [2, 5]})",
       "A_shape: [2,5] came, [2,4] by M, N and K expected"},
      {R"({"M": 2, "N": 3, "K": 4, "B_shape": 12})",
       "B_shape: 12 came, [4,3] by M, N and K expected"},
      {R"({"M": 2, "N": 3, "K": 4, "bias_shape": [2]})", "bias_shape: [2] came, [3] by N expected"},
      {R"({"M": 2, "N": 3, "K": 4, "dtype": "complex64"})",
       "dtype: \"complex64\" came, float32, float64, float16 or int8 expected"},
      {R"({"M": 65536, "N": 1, "K": 65536})",
       "size of A by M, N and K: 17179869184 bytes came, at most 65536 expected"},
      {R"({"M": 16000, "N": 16000, "K": 1})",
       "size of C by M, N and K: 1024000000 bytes came, at most 65536 expected"},
  };
  for (const auto& [json, message] : cases) {
    EXPECT_EQ(refusal(with_json(0, json)), message);
    reader_.take();
  }
}

TEST_F(FrameTest, RefusesDeepNesting) {
  const std::string deep(60000, '[');
  EXPECT_NE(refusal(with_json(0, deep)).find("an object with M, N and K expected"),
            std::string::npos);
}

TEST_F(FrameTest, RefusesSizesThatDisagree) {
  EXPECT_EQ(refusal(with_json(0, kJson) + sized(31)),
            "size of A: 31 bytes came, 32 by 2x4 @ 4x3 float32 expected");
  reader_.take();
  EXPECT_EQ(refusal(with_json(0, kJson) + sized(32) + big_endian(0xffffffff)),
            "size of B: 4294967295 bytes came, 48 by 2x4 @ 4x3 float32 expected");
}

TEST_F(FrameTest, SaysWhatIsMissing) {
  feed(header(256, 16) + std::string(100, 'c'));
  EXPECT_EQ(reader_.missing(), "100 of 256 bytes of the payload of op 16 COMMANDS");
  reader_.take();
}

TEST_F(FrameTest, WaitsForRoom) {
  Budget::Reservation all = budget_.reserve(4 * kMaxMatrixBytes);
  const std::string text = good_gemm();
  const std::size_t used = feed(text);
  EXPECT_LT(used, text.size());
  EXPECT_TRUE(reader_.waits_for_room());
  EXPECT_EQ(feed(text.substr(used)), 0u);
  all = Budget::Reservation();
  EXPECT_EQ(feed(text.substr(used)), text.size() - used);
  EXPECT_TRUE(reader_.complete());
}

TEST_F(FrameTest, GivesMemoryBack) {
  for (int i = 0; i < 10000; ++i) {
    feed(good_gemm());
    ASSERT_TRUE(reader_.complete());
    reader_.take();
  }
  EXPECT_TRUE(budget_.reserve(4 * kMaxMatrixBytes));
}

}  // namespace

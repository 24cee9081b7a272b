// The frame parser alone: whatever way the bytes come, the same records come out.
#include "engine/link_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

namespace {

using namespace shmgemm;
using engine::LinkReader;
using Found = LinkReader::Found;
using Bytes = std::vector<std::byte>;

void append(Bytes& stream, const void* data, std::size_t bytes) {
  const auto* from = static_cast<const std::byte*>(data);
  stream.insert(stream.end(), from, from + bytes);
}

template <class Content>
void append_frame(Bytes& stream, std::uint32_t kind, const std::vector<Content>& content) {
  const shmgemm_link_head head{kind, static_cast<std::uint32_t>(content.size() * sizeof(Content))};
  append(stream, &head, sizeof head);
  append(stream, content.data(), head.bytes);
}

shmgemm_link_hello good_hello() {
  shmgemm_link_hello hello{};
  hello.magic = SHMGEMM_LINK_MAGIC;
  hello.abi_major = SHMGEMM_ABI_MAJOR;
  hello.role = SHMGEMM_LINK_QEMU;
  hello.index = 3;
  return hello;
}

shmgemm_command command(std::uint64_t id) {
  shmgemm_command command{};
  command.id = id;
  return command;
}

// What comes out, in short; `pieces` says how many bytes are fed at a time.
std::string told(const Bytes& stream, const std::function<std::size_t()>& piece) {
  LinkReader reader;
  std::string told;
  for (std::size_t at = 0; at < stream.size();) {
    std::byte* const space = reader.space();
    const std::size_t bytes = std::min({piece(), reader.room(), stream.size() - at});
    if (bytes == 0) return told + "full";
    std::memcpy(space, stream.data() + at, bytes);
    reader.received(bytes);
    at += bytes;
    for (Found found = reader.next(); found != Found::kNothing; found = reader.next()) {
      switch (found) {
        case Found::kHello:
          told += "hello " + std::to_string(reader.hello().index) + ", ";
          break;
        case Found::kCommand:
          told += "command " + std::to_string(reader.command().id) + ", ";
          break;
        case Found::kRequest:
          told += "request " + std::to_string(reader.request().id) + ", ";
          break;
        default:
          told += (found == Found::kBad ? "bad: " : "failed: ") + reader.text();
      }
    }
  }
  return told;
}

Bytes story() {
  Bytes stream;
  append_frame(stream, SHMGEMM_LINK_HELLO, std::vector<shmgemm_link_hello>{good_hello()});
  std::vector<shmgemm_command> commands;
  for (std::uint64_t id = 1; id <= SHMGEMM_RING_SLOTS; ++id) commands.push_back(command(id));
  append_frame(stream, SHMGEMM_LINK_COMMANDS, commands);
  virtio_sst_request request{};
  request.id = 77;
  append_frame(stream, SHMGEMM_LINK_REQUEST,
               std::vector<virtio_sst_request>{
                   request,
               });
  append_frame(stream, SHMGEMM_LINK_COMMANDS, std::vector<shmgemm_command>{command(900)});
  append_frame(stream, SHMGEMM_LINK_FAILED, std::vector<char>{'n', 'o'});
  return stream;
}

TEST(LinkReader, TheCutOfTheStreamDoesNotMatter) {
  const Bytes stream = story();
  const std::string whole = told(stream, [] { return std::size_t{1} << 20; });
  EXPECT_EQ(whole.rfind("hello 3, command 1, command 2, ", 0), 0u);
  EXPECT_NE(whole.find("command 256, request 77, command 900, failed: no"), std::string::npos);
  EXPECT_EQ(told(stream, [] { return std::size_t{1}; }), whole);
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    EXPECT_EQ(told(stream, [&random] { return std::size_t{1} + random() % 5000; }), whole);
  }
}

TEST(LinkReader, SaysWhatCameAndWhatWasExpected) {
  const auto after_hello = [](std::uint32_t kind, std::uint32_t bytes) {
    Bytes stream;
    append_frame(stream, SHMGEMM_LINK_HELLO, std::vector<shmgemm_link_hello>{good_hello()});
    const shmgemm_link_head head{kind, bytes};
    append(stream, &head, sizeof head);
    return told(stream, [] { return std::size_t{1000}; });
  };
  EXPECT_EQ(after_hello(SHMGEMM_LINK_COMMANDS, 130),
            "hello 3, bad: a frame of kind 2 (COMMANDS) with 130 bytes came: 1 to 256 commands of "
            "128 bytes were expected");
  EXPECT_NE(after_hello(SHMGEMM_LINK_REQUEST, 0).find("4104 bytes were expected"),
            std::string::npos);
  EXPECT_NE(after_hello(SHMGEMM_LINK_RESPONSE, 4112).find("(RESPONSE)"), std::string::npos);
  EXPECT_NE(after_hello(0, 0).find("kind 0 (unknown)"), std::string::npos);
  EXPECT_NE(after_hello(SHMGEMM_LINK_FAILED, 513).find("1 to 512 bytes"), std::string::npos);
  EXPECT_NE(after_hello(SHMGEMM_LINK_HELLO, 64).find("a second HELLO"), std::string::npos);
  EXPECT_EQ(after_hello(SHMGEMM_LINK_COMMANDS, 32768), "hello 3, ");
}

}  // namespace

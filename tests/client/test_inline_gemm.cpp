// Products whose matrices travel, over a pool of connections: right numbers for any strides, a pool
// that never exceeds its size, a deadline for a connection, and one more try where an idle one
// died.
#include "client/inline_gemm.h"

#include <cstring>
#include <string>

#include "fake_server.h"

namespace shmgemm {
namespace {

using namespace std::chrono_literals;
using client::ConnectionPool;

struct Request {
  std::uint32_t m = 0, n = 0, k = 0;
  std::vector<float> a, b, bias;
};

std::uint32_t number_in(const std::string& json, const std::string& key) {
  const std::size_t at = json.find("\"" + key + "\":");
  EXPECT_NE(at, std::string::npos) << json;
  return static_cast<std::uint32_t>(std::stoul(json.substr(at + key.size() + 3)));
}

std::vector<float> read_matrix(int fd, std::size_t elements) {
  EXPECT_EQ(FakeServer::read_size(fd), elements * 4);
  std::vector<float> matrix(elements);
  EXPECT_TRUE(FakeServer::read_all(fd, matrix.data(), elements * 4));
  return matrix;
}

bool read_request(int fd, Request& request) {
  char head[client::kWireHeadBytes];
  if (!FakeServer::read_all(fd, head, sizeof head)) return false;
  std::string json(client::read_big_endian(head + 4), ' ');
  if (!FakeServer::read_all(fd, json.data(), json.size())) return false;
  request.m = number_in(json, "M");
  request.n = number_in(json, "N");
  request.k = number_in(json, "K");
  EXPECT_EQ(json.find("bias_shape") != std::string::npos, head[8] == 1);
  request.a = read_matrix(fd, std::size_t{request.m} * request.k);
  request.b = read_matrix(fd, std::size_t{request.k} * request.n);
  request.bias = head[8] == 1 ? read_matrix(fd, request.n) : std::vector<float>();
  return true;
}

void answer(int fd, const Request& request) {
  std::vector<float> c(std::size_t{request.m} * request.n);
  for (std::uint32_t i = 0; i < request.m; ++i) {
    for (std::uint32_t j = 0; j < request.n; ++j) {
      float sum = request.bias.empty() ? 0 : request.bias[j];
      for (std::uint32_t k = 0; k < request.k; ++k) {
        sum += request.a[i * request.k + k] * request.b[k * request.n + j];
      }
      c[i * request.n + j] = sum;
    }
  }
  char size[4];
  client::write_big_endian(size, static_cast<std::uint32_t>(c.size() * 4));
  FakeServer::write_all(fd, size, sizeof size);
  FakeServer::write_all(fd, c.data(), c.size() * 4);
}

void serve(int fd, int) {
  for (Request request; read_request(fd, request);) answer(fd, request);
}

// A 2 x 3 and B 3 x 2 of small whole numbers, so that the sums are exact.
struct Product {
  std::vector<float> a{1, 2, 3, 4, 5, 6}, b{7, 8, 9, 10, 11, 12}, c = std::vector<float>(4);
  GemmCall call() {
    GemmCall call;
    call.m = 2;
    call.n = 2;
    call.k = 3;
    call.a = {a.data(), 0, 3, 1};
    call.b = {b.data(), 0, 2, 1};
    call.c = {c.data(), 0, 2, 1};
    return call;
  }
};
const std::vector<float> kExpected{58, 64, 139, 154};

TEST(InlineGemm, GivesTheProduct) {
  FakeServer server(serve);
  ConnectionPool pool(server.address(), 2);
  Product product;
  client::inline_gemm(pool, product.call(), 10);
  EXPECT_EQ(product.c, kExpected);
}

TEST(InlineGemm, TakesStridesBiasAccumulationAndBatches) {
  FakeServer server(serve);
  ConnectionPool pool(server.address(), 2);
  const std::vector<float> a_columns{1, 4, 2, 5, 3, 6}, bias{100, 200};
  Product product;
  std::vector<float> c{1, 2, -1, 3, 4, -1, 5, 6, -1, 7, 8, -1};
  GemmCall call = product.call();
  call.batch = 2;
  call.a = {a_columns.data(), 0, 1, 2};
  call.c = {c.data(), 6, 3, 1};
  call.bias = bias.data();
  call.accumulate = true;
  client::inline_gemm(pool, call, 10);
  EXPECT_EQ(c, (std::vector<float>{159, 266, -1, 242, 358, -1, 163, 270, -1, 246, 362, -1}));
}

TEST(InlineGemm, ThreadsShareAsManyConnectionsAsThePoolHas) {
  FakeServer server(serve);
  ConnectionPool pool(server.address(), 3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        Product product;
        client::inline_gemm(pool, product.call(), 10);
        wrong += product.c != kExpected;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_LE(server.accepted(), 3);
  EXPECT_EQ(pool.open(), static_cast<std::uint32_t>(server.accepted()));
}

TEST(InlineGemm, ACheckoutHasADeadline) {
  FakeServer server(serve);
  ConnectionPool pool(server.address(), 1);
  const auto lent = pool.checkout(region::Clock::now() + 10s);
  Product product;
  EXPECT_THROW(client::inline_gemm(pool, product.call(), 0.05), DeviceTimeout);
}

TEST(InlineGemm, AnIdleConnectionThatWasClosedIsReplaced) {
  FakeServer server([](int fd, int) {
    Request request;
    if (read_request(fd, request)) answer(fd, request);
  });
  ConnectionPool pool(server.address(), 1);
  for (int i = 0; i < 3; ++i) {
    Product product;
    client::inline_gemm(pool, product.call(), 10);
    EXPECT_EQ(product.c, kExpected);
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_EQ(server.accepted(), 3);
}

TEST(InlineGemm, AnOldConnectionThatDiesInUseIsTriedOnceMore) {
  FakeServer server([](int fd, int number) {
    Request request;
    for (int i = 0; read_request(fd, request); ++i) {
      if (number == 0 && i == 1) return;  // hangs up in place of its second answer
      answer(fd, request);
    }
  });
  ConnectionPool pool(server.address(), 1);
  for (int i = 0; i < 4; ++i) {
    Product product;
    client::inline_gemm(pool, product.call(), 10);
    EXPECT_EQ(product.c, kExpected);
  }
  EXPECT_EQ(server.accepted(), 2);
}

TEST(InlineGemm, AFreshConnectionThatDiesIsAnErrorAndNotTriedForEver) {
  FakeServer server([](int fd, int) {
    Request request;
    read_request(fd, request);
  });
  ConnectionPool pool(server.address(), 1);
  Product product;
  EXPECT_THROW(client::inline_gemm(pool, product.call(), 10), DeviceLost);
  EXPECT_EQ(server.accepted(), 1);
  EXPECT_EQ(pool.open(), 0u);
}

TEST(InlineGemm, AnAnswerOfAWrongSizeIsAProtocolError) {
  FakeServer server([](int fd, int) {
    Request request;
    while (read_request(fd, request)) {
      --request.m;
      answer(fd, request);
    }
  });
  ConnectionPool pool(server.address(), 1);
  Product product;
  EXPECT_THROW(client::inline_gemm(pool, product.call(), 10), ProtocolError);
  EXPECT_EQ(pool.open(), 0u) << "what is in an unknown state is not lent again";
}

TEST(InlineGemm, WhatTheProtocolDoesNotCarryIsRefused) {
  ConnectionPool pool({"127.0.0.1", 1}, 1);
  Product product;
  GemmCall call = product.call();
  call.dtype_in = call.dtype_out = SHMGEMM_DTYPE_BFLOAT16;
  EXPECT_THROW(client::inline_gemm(pool, call, 1), Unsupported);
}

}  // namespace
}  // namespace shmgemm

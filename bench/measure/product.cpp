// A float32 product through a session, beside OpenBLAS called once by each of as many threads on
// its share of the columns, over the same matrices; both results are checked against float64.
#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>
#include <vector>

#include "client/session.h"
#include "compute/blas.h"
#include "compute/gemm.h"
#include "compute/pool.h"
#include "compute/split.h"
#include "region/waiter.h"
#include "subjects.h"

namespace shmgemm::measure {
namespace {

struct Matrices {
  float* a;
  float* b;
  float* c;
};

void fill(float* values, std::uint64_t count, std::mt19937& random) {
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (std::uint64_t i = 0; i < count; ++i) values[i] = uniform(random);
}

// A few elements of C against float64 sums; C is then spoilt, so that the next result must be new.
void check_and_spoil(const Options& options, const Matrices& matrices) {
  std::mt19937 random(7);
  for (int sample = 0; sample < 40; ++sample) {
    const std::uint64_t row = random() % options.m;
    const std::uint64_t column = random() % options.n;
    double sum = 0;
    double magnitude = 0;
    for (std::uint64_t k = 0; k < options.k; ++k) {
      const double term = static_cast<double>(matrices.a[row * options.k + k]) *
                          static_cast<double>(matrices.b[k * options.n + column]);
      sum += term;
      magnitude += std::fabs(term);
    }
    float& got = matrices.c[row * options.n + column];
    const double bound = (options.k + 2) * std::ldexp(1.0, -24) * magnitude + 1e-30;
    if (!(std::fabs(got - sum) <= bound)) throw std::runtime_error("a measured product is wrong");
    got = std::nanf("");
  }
}

// OpenBLAS called once for each part of C.
struct RawJob {
  const Options* options;
  Matrices matrices;
  std::vector<compute::Part> parts;
};

void run_part(void* context, std::uint64_t index, unsigned) {
  const RawJob& job = *static_cast<const RawJob*>(context);
  const compute::Part& part = job.parts[index];
  compute::Sgemm call;
  call.m = part.row_end - part.row;
  call.n = part.column_end - part.column;
  call.k = call.lda = job.options->k;
  call.ldb = call.ldc = job.options->n;
  call.a = job.matrices.a + part.row * call.lda;
  call.b = job.matrices.b + part.column;
  call.c = job.matrices.c + part.row * call.ldc + part.column;
  compute::sgemm(call);
}

// The parts the engine cuts C into.
std::vector<compute::Part> same_parts(const Options& options) {
  compute::Gemm gemm;
  gemm.m = options.m;
  gemm.n = options.n;
  gemm.k = options.k;
  const compute::Split split = compute::split_of(gemm);
  std::vector<compute::Part> parts;
  for (std::uint64_t i = 0; i < split.pieces(); ++i) {
    parts.push_back(compute::part_of(gemm, split, i));
  }
  return parts;
}

// As many shares of the columns as there are threads: what the best cut for this machine costs.
std::vector<compute::Part> share_for_each(unsigned threads, const Options& options) {
  const std::uint64_t columns = ((options.n + threads - 1) / threads + 15) / 16 * 16;
  std::vector<compute::Part> parts;
  for (std::uint64_t column = 0; column < options.n; column += columns) {
    const std::uint64_t end = std::min<std::uint64_t>(column + columns, options.n);
    parts.push_back({0, 1, 0, options.m, column, end});
  }
  return parts;
}

std::uint32_t threads_of(const Options& options) {
  return options.threads == 0 ? region::allowed_cpus() : options.threads;
}

}  // namespace

Results product(const Options& options) {
  SessionOptions session_options;
  session_options.engine_path = options.engine_path;
  session_options.engine_words = options.engine_words;
  session_options.parameters = options.hardware;
  session_options.threads = threads_of(options);
  const std::shared_ptr<Session> session = Session::open(session_options);
  const std::uint64_t m = options.m, n = options.n, k = options.k;
  const auto a = session->allocate(m * k * sizeof(float));
  const auto b = session->allocate(k * n * sizeof(float));
  const auto c = session->allocate(m * n * sizeof(float));
  const Matrices matrices{static_cast<float*>(a->data()), static_cast<float*>(b->data()),
                          static_cast<float*>(c->data())};
  std::mt19937 random(1);
  fill(matrices.a, m * k, random);
  fill(matrices.b, k * n, random);
  GemmCall call;
  call.m = options.m;
  call.n = options.n;
  call.k = options.k;
  call.a = {matrices.a, 0, static_cast<std::int64_t>(k), 1};
  call.b = {matrices.b, 0, static_cast<std::int64_t>(n), 1};
  call.c = {matrices.c, 0, static_cast<std::int64_t>(n), 1};
  compute::Pool pool(threads_of(options));
  RawJob job{&options, matrices,
             options.same_split ? same_parts(options) : share_for_each(pool.threads(), options)};
  const auto raw = [&] { pool.run(job.parts.size(), run_part, &job); };
  Results results;
  session->gemm(call);
  raw();
  for (std::uint64_t round = 0; round < options.rounds; ++round) {
    results.ours(time_round(options.samples, [&] { session->gemm(call); }));
    check_and_spoil(options, matrices);
    results.floor(time_round(options.samples, raw));
    check_and_spoil(options, matrices);
  }
  return results;
}

Results kernel(const Options& options) {
  std::vector<float> a(std::uint64_t{options.m} * options.k);
  std::vector<float> b(std::uint64_t{options.k} * options.n);
  std::vector<float> c(std::uint64_t{options.m} * options.n);
  std::mt19937 random(1);
  fill(a.data(), a.size(), random);
  fill(b.data(), b.size(), random);
  compute::Engine engine(threads_of(options));
  compute::Gemm gemm;
  gemm.m = options.m;
  gemm.n = gemm.ldb = gemm.ldc = options.n;
  gemm.k = gemm.lda = options.k;
  gemm.a = a.data();
  gemm.b = b.data();
  gemm.c = c.data();
  Results results;
  for (std::uint64_t round = 0; round < options.rounds; ++round) {
    results.ours(time_round(options.samples, [&] { engine.run(gemm); }));
    check_and_spoil(options, {a.data(), b.data(), c.data()});
  }
  return results;
}

}  // namespace shmgemm::measure

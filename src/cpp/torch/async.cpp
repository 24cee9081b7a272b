#include "torch/async.h"

#include <torch/csrc/utils/pybind.h>

#include <utility>
#include <vector>

#include "python/gil.h"
#include "torch/describe.h"
#include "torch/python_side.h"

namespace py = pybind11;

namespace shmgemm::torch_op {
namespace {

// Region blocks start on multiples of it, and so do the results within one.
constexpr std::uint64_t kAlign = SHMGEMM_BLOCK_ALIGN;

// One product under way, with the tensors that it reads.
class Sent {
 public:
  Sent(std::shared_ptr<Future> future, at::Tensor a, at::Tensor b, at::Tensor bias)
      : a_(std::move(a)), b_(std::move(b)), bias_(std::move(bias)), future_(std::move(future)) {}

  bool done() {
    return call([&] { return future_->done(); });
  }
  bool wait(double timeout_s) {
    return call([&] { return future_->wait(timeout_s); });
  }
  void result() {
    call([&] { return future_->result(); });
  }
  bool cancel() {
    return call([&] { return future_->cancel(); });
  }
  StreamMark mark() const { return future_->mark(); }

 private:
  template <class Function>
  auto call(Function&& function) -> decltype(function()) {
    try {
      const GilRelease unlocked;
      return function();
    } catch (const Error& error) {
      raise(error);
    }
  }

  at::Tensor a_, b_, bias_;
  std::shared_ptr<Future> future_;  // the last: dropped, it keeps the blocks that are still there
};

// (what is under way, the tensor that will hold it)
py::object send(Session& session, Described& described, const at::Tensor& a, const at::Tensor& b) {
  std::shared_ptr<Block> block;
  std::shared_ptr<Future> future;
  try {
    const GilRelease unlocked;
    block = session.allocate(described.result_bytes());
    described.put_result(block->data());
    future = session.gemm_async(described.call);
  } catch (const Error& error) {
    raise(error);
  }
  at::Tensor value = tensor_in(block, block->data(), described.shape, described.out_type);
  return py::make_tuple(std::make_unique<Sent>(std::move(future), a, b, described.device_bias),
                        std::move(value));
}

py::object send_gemm(const at::Tensor& a, const at::Tensor& b, std::int64_t sim_device) {
  const auto session = current_session_or_null();
  Described described;
  if (session == nullptr || !describe_gemm(a, b, sim_device, "gemm", described)) return py::none();
  return send(*session, described, a, b);
}

py::object send_linear(const at::Tensor& input, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, std::int64_t sim_device,
                       const Sent* after) {
  const auto session = current_session_or_null();
  Described described;
  if (session == nullptr ||
      !describe_linear(input, weight, bias, sim_device, "linear", described)) {
    return py::none();
  }
  if (after != nullptr) described.call.after = after->mark();
  return send(*session, described, input, weight);
}

std::uint64_t aligned(std::uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// All results lie in one block, which lives as long as one of them.
std::shared_ptr<Block> put_results(Session& session, std::vector<Described>& described) {
  std::uint64_t bytes = 0;
  for (const Described& one : described) bytes += aligned(one.result_bytes());
  auto block = session.allocate(bytes);
  auto* at = static_cast<std::byte*>(block->data());
  for (Described& one : described) {
    one.put_result(at);
    at += aligned(one.result_bytes());
  }
  return block;
}

std::shared_ptr<Block> run(Session& session, std::vector<Described>& described) {
  try {
    const GilRelease unlocked;
    auto block = put_results(session, described);
    std::vector<GemmCall> calls;
    calls.reserve(described.size());
    for (const Described& one : described) calls.push_back(one.call);
    session.gemm_batch(calls);
    return block;
  } catch (const Error& error) {
    raise(error);
  }
}

// (A, B) is a product, (input, weight, bias) a linear one.
bool describe(const py::tuple& product, std::int64_t sim_device, Described& described) {
  const auto first = product[0].cast<at::Tensor>(), second = product[1].cast<at::Tensor>();
  if (product.size() == 2) return describe_gemm(first, second, sim_device, "gemm", described);
  const auto bias = product[2].cast<std::optional<at::Tensor>>();
  return describe_linear(first, second, bias, sim_device, "linear", described);
}

// The results, or None where one of the products is not simple.
py::object batch(const std::vector<py::tuple>& products, std::int64_t sim_device) {
  const auto session = current_session_or_null();
  std::vector<Described> described(products.size());
  if (session == nullptr || products.empty()) return py::none();
  for (std::size_t i = 0; i < products.size(); ++i) {
    if (!describe(products[i], sim_device, described[i])) return py::none();
  }
  const auto block = run(*session, described);
  py::list results(products.size());
  for (std::size_t i = 0; i < products.size(); ++i) {
    const Described& one = described[i];
    results[i] = tensor_in(block, const_cast<void*>(one.call.c.data), one.shape, one.out_type);
  }
  return results;
}

}  // namespace

void register_async(py::module_& module) {
  using namespace py::literals;
  py::class_<Sent>(module, "Sent")
      .def("done", &Sent::done)
      .def("wait", &Sent::wait, "timeout_s"_a)
      .def("result", &Sent::result)
      .def("cancel", &Sent::cancel);
  module.def("send_gemm", &send_gemm, "a"_a, "b"_a, "sim_device"_a);
  module.def("send_linear", &send_linear, "input"_a, "weight"_a, "bias"_a, "sim_device"_a,
             "after"_a.none(true));
  module.def("batch", &batch, "products"_a, "sim_device"_a);
}

}  // namespace shmgemm::torch_op

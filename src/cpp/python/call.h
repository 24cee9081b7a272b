// A product as Python describes it: addresses and strides.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>

#include "client/session.h"

namespace shmgemm {

using View = std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::int64_t>;

GemmCall call_of(const std::string& name, std::uint32_t m, std::uint32_t n, std::uint32_t k,
                 std::uint32_t batch, std::uint8_t dtype_in, std::uint8_t dtype_out, const View& a,
                 const View& b, const View& c, std::uintptr_t bias, bool accumulate,
                 std::uint8_t device, const std::shared_ptr<Future>& after = nullptr);

}  // namespace shmgemm

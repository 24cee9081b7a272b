// The server's own product, for where no device answers: C = A B (+ bias), row-major. Plain blocked
// loops that the compiler vectorises; float32 and float16 add in float32, int8 in int32.
#pragma once

#include <cstddef>

#include "inline_request.h"

namespace shmgemm::server {

// `bias` is nullptr where the request has none.
void cpu_product(const InlineRequest& request, const std::byte* a, const std::byte* b,
                 const std::byte* bias, std::byte* c);

}  // namespace shmgemm::server

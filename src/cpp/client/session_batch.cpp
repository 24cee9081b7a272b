// Many products with one submission and one wake-up of each engine.
#include <algorithm>
#include <exception>
#include <memory>
#include <vector>

#include "client/session_impl.h"

namespace shmgemm {
namespace {

using client::Channel;

// What of a batch goes to one engine.
struct Part {
  Channel* channel = nullptr;         // null: nothing does
  std::vector<std::size_t> products;  // of the batch
  std::vector<shmgemm_command> commands;
  bool answered = false;

  void submit() {
    if (channel == nullptr) return;
    shmgemm_command flush{};
    flush.op = SHMGEMM_OP_FLUSH;
    commands.push_back(flush);
    channel->submit(commands.data(), commands.size(), Channel::kNoDeadline);
  }

  void wait(std::vector<shmgemm_completion>& completions) {
    if (channel == nullptr || commands.back().id == 0) return;
    try {
      channel->wait(commands.back().id, Channel::kNoDeadline, region::Expect::kShort);
      for (std::size_t i = 0; i < products.size(); ++i) {
        completions[products[i]] =
            channel->wait(commands[i].id, Channel::kNoDeadline, region::Expect::kShort);
      }
    } catch (...) {
      abandon();
      throw;
    }
    answered = true;
  }

  // Whatever is still under way keeps its blocks until it was answered.
  void abandon() {
    for (const shmgemm_command& command : commands) {
      if (command.id != 0) channel->abandon(command.id, nullptr);
    }
  }
};

}  // namespace

std::vector<shmgemm_completion> SessionImpl::gemm_batch(const std::vector<GemmCall>& calls) {
  std::vector<shmgemm_completion> completions;
  for (const GemmCall& call : calls) check_product(call);
  if (calls.empty()) ready(0);
  for (const GemmCall& call : calls) ready(call.device);
  if (pool_) {
    for (const GemmCall& call : calls) completions.push_back(gemm_inline(call));
    return completions;
  }
  for (std::size_t begin = 0; begin < calls.size(); begin += Channel::kMostTogether - 1) {
    std::vector<std::unique_ptr<client::InFlight>> products;
    const std::size_t end = std::min(calls.size(), begin + Channel::kMostTogether - 1);
    for (std::size_t i = begin; i < end; ++i) {
      products.push_back(std::make_unique<client::InFlight>(*heap_, ledger_, calls[i]));
    }
    for (const shmgemm_completion& one : send_together(products)) completions.push_back(one);
  }
  return completions;
}

// Each engine's part with one wake-up; a FLUSH op behind it stands for it all. What was sent to an
// engine that is lost does not keep the others from ending.
std::vector<shmgemm_completion> SessionImpl::send_together(
    const std::vector<std::unique_ptr<client::InFlight>>& products) {
  std::vector<Part> parts(lanes_.size());
  for (std::size_t i = 0; i < products.size(); ++i) {
    const shmgemm_command command = command_of(*products[i]);
    Part& part = parts[command.device % lanes_.size()];
    part.channel = &lane_of(command.device).channel();
    part.products.push_back(i);
    products[i]->sent_to(lane_of(command.device).generation());
    part.commands.push_back(for_engine(command));
  }
  std::vector<shmgemm_completion> completions(products.size());
  std::exception_ptr error;
  const auto keep = [&error](const auto& function) {
    try {
      function();
    } catch (const DeviceLost&) {
      if (!error) error = std::current_exception();
    }
  };
  try {
    for (Part& part : parts) keep([&] { part.submit(); });
    for (Part& part : parts) keep([&] { part.wait(completions); });
  } catch (...) {
    for (Part& part : parts) part.abandon();
    throw;
  }
  for (const Part& part : parts) {
    for (const std::size_t i : part.products) {
      if (!part.answered) continue;
      try {
        settle(*products[i], completions[i]);
      } catch (const Error&) {
        if (!error) error = std::current_exception();
      }
    }
  }
  if (error) std::rethrow_exception(error);
  return completions;
}

}  // namespace shmgemm

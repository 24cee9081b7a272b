#include "engine/link.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace shmgemm::engine {
namespace {

constexpr std::uint64_t kHelloLimit_ns = 5'000'000'000;
constexpr std::uint64_t kPlaceLimit_ns = 3'000'000'000;
constexpr std::uint64_t kCloseLimit_ns = 1'000'000'000;
constexpr char kNotHere[] = "a client's commands came here: they go through its queue pair";
constexpr std::size_t kMostUnsent = 64 << 10;  // then the main loop's answers wait

std::uint64_t now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

// What another process says does not steer a terminal.
std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return text;
}

}  // namespace

Link::Link(int socket, const LinkHost& host)
    : socket_(socket),
      host_(host),
      connection_(std::make_shared<LinkConnection>(host.control)),
      deadline_ns_(now_ns() + kHelloLimit_ns) {
  append(SHMGEMM_LINK_HELLO, &host_.hello, sizeof host_.hello);
}

Link::~Link() {
  hang_up();
  host_.ring();
  close(socket_);
}

void Link::on_events(std::uint32_t events) {
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) return end();
  if ((events & EPOLLIN) != 0) read();
  if ((events & EPOLLOUT) != 0) write();
}

void Link::serve() {
  if (over_) return;
  append_answers();
  if (awaits_place_ && !closing_) place_client();
  parse();
  write();
  if ((closing_ && unsent() == 0) || (closing_ && now_ns() > deadline_ns_)) return end();
  if (!greeted_ && !closing_ && now_ns() > deadline_ns_) {
    refuse("no HELLO came within " + std::to_string(kHelloLimit_ns / 1'000'000'000) + " s");
  }
}

bool Link::has_answers() const {
  if (closing_) return false;
  return (unsent() < kMostUnsent && connection_->answered()) ||
         (awaits_place_ && host_.places->any_free());
}

std::uint32_t Link::interest() const {
  const bool reads = !closing_ && !connection_->full();
  return (reads ? EPOLLIN : 0u) | (unsent() > 0 ? EPOLLOUT : 0u);
}

void Link::read() {
  if (closing_ || over_ || connection_->full()) return;
  std::byte* const space = reader_.space();
  const ssize_t bytes = recv(socket_, space, reader_.room(), MSG_DONTWAIT);
  if (bytes > 0) {
    reader_.received(static_cast<std::size_t>(bytes));
    host_.counters.bytes_in += static_cast<std::uint64_t>(bytes);
    parse();
  } else if (bytes == 0 || (errno != EAGAIN && errno != EINTR)) {
    end();
  }
}

void Link::parse() {
  bool put_some = false;
  while (!closing_ && !over_ && !connection_->full()) {
    const LinkReader::Found found = reader_.next();
    if (found == LinkReader::Found::kNothing) break;
    put(found);
    put_some = true;
  }
  if (put_some) host_.ring();
}

void Link::put(LinkReader::Found found) {
  switch (found) {
    case LinkReader::Found::kHello:
      return greeted();
    case LinkReader::Found::kCommand:
      if (client_ || awaits_place_) return refuse(kNotHere);
      return connection_->put(reader_.command(), now_ns());
    case LinkReader::Found::kRequest:
      if (client_ || awaits_place_) return refuse(kNotHere);
      return connection_->put_request(reader_.request(), index_, now_ns());
    case LinkReader::Found::kFailed:
      host_.log("a link failed at its other end: " + printable(reader_.text()));
      return end();
    default:
      return refuse(reader_.text());
  }
}

void Link::greeted() {
  greeted_ = true;
  index_ = static_cast<std::uint8_t>(std::min(reader_.hello().index, 255u));
  if (reader_.hello().role != SHMGEMM_LINK_CLIENT) return host_.connect(connection_);
  awaits_place_ = true;
  deadline_ns_ = now_ns() + kPlaceLimit_ns;
  place_client();
}

// Where all are taken, one may come free: a client that has died leaves its last op behind.
void Link::place_client() {
  client_ = host_.places->take();
  if (client_) {
    append_lease(client_->index());
    host_.connect(client_);
  } else if (host_.places->all_in_use() || now_ns() > deadline_ns_) {
    append_lease(SHMGEMM_LINK_NO_QUEUE_PAIR);
    closing_ = true;
    deadline_ns_ = now_ns() + kCloseLimit_ns;
  }
  awaits_place_ = !client_ && !closing_;
}

void Link::append_lease(std::uint32_t queue_pair) {
  const shmgemm_link_lease lease{queue_pair, host_.places->count(), 0};
  std::string content(reinterpret_cast<const char*>(&lease), sizeof lease);
  content += host_.parameters;
  write();  // what stands before it: a descriptor goes with the first byte
  if (client_) passed_fd_ = host_.places->region().fd();
  append(SHMGEMM_LINK_LEASE, content.data(), content.size());
}

void Link::refuse(const std::string& why) {
  host_.log("link: " + why);
  const std::string text = why.substr(0, SHMGEMM_LINK_TEXT_BYTES);
  append(SHMGEMM_LINK_FAILED, text.data(), text.size());
  hang_up();
  closing_ = true;
  deadline_ns_ = now_ns() + kCloseLimit_ns;
  write();
}

// Completions that came together go as one frame.
void Link::append_answers() {
  if (closing_) return;
  const std::uint64_t now = now_ns();
  std::vector<shmgemm_completion> completions;
  const auto append_completions = [&] {
    if (completions.empty()) return;
    append(SHMGEMM_LINK_COMPLETIONS, completions.data(),
           completions.size() * sizeof completions[0]);
    completions.clear();
  };
  LinkConnection::Answer answer;
  while (unsent() < kMostUnsent && completions.size() < SHMGEMM_RING_SLOTS &&
         connection_->take_answer(answer)) {
    ++host_.counters.commands;
    host_.counters.sojourn_ns += now - std::min(now, answer.arrived_ns);
    if (answer.response == nullptr) {
      completions.push_back(answer.completion);
      continue;
    }
    append_completions();
    append(SHMGEMM_LINK_RESPONSE, answer.response, sizeof *answer.response);
  }
  append_completions();
}

void Link::append(std::uint32_t kind, const void* content, std::size_t bytes) {
  const shmgemm_link_head head{kind, static_cast<std::uint32_t>(bytes)};
  const auto* head_bytes = reinterpret_cast<const std::byte*>(&head);
  const auto* content_bytes = static_cast<const std::byte*>(content);
  out_.insert(out_.end(), head_bytes, head_bytes + sizeof head);
  out_.insert(out_.end(), content_bytes, content_bytes + bytes);
}

void Link::write() {
  while (!over_ && unsent() > 0) {
    const ssize_t bytes = send_some();
    if (bytes > 0) {
      sent_ += static_cast<std::size_t>(bytes);
      host_.counters.bytes_out += static_cast<std::uint64_t>(bytes);
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      return end();
    }
  }
  out_.erase(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(sent_));
  sent_ = 0;
}

ssize_t Link::send_some() {
  iovec piece{out_.data() + sent_, unsent()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (passed_fd_ >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(head), &passed_fd_, sizeof passed_fd_);
  }
  const ssize_t bytes = sendmsg(socket_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (bytes > 0) passed_fd_ = -1;
  return bytes;
}

void Link::hang_up() {
  connection_->hang_up();
  if (client_) client_->hang_up();
}

void Link::end() {
  over_ = true;
  hang_up();
  host_.ring();
}

}  // namespace shmgemm::engine

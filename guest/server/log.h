// What the server says, one line each: `note` always (errors, connections that end badly, changes
// of state), `debug` only with --log-level debug (each frame). Lines go to stderr, in a guest the
// console.
#pragma once

#include <string>

namespace shmgemm::server {

class Log {
 public:
  static void set_debug(bool on) { debug_ = on; }
  static bool debugging() { return debug_; }
  static void note(const std::string& line);
  static void debug(const std::string& line) {
    if (debug_) note(line);
  }

 private:
  static inline bool debug_ = false;
};

}  // namespace shmgemm::server

// The command line of shmgemm-server.
#pragma once

#include <cstdint>
#include <string>

namespace shmgemm::server {

struct Options {
  std::string device;        // /dev/sst0 ...
  std::string link, region;  // ... or an engine on this host; neither: the CPU alone
  std::string bind = "127.0.0.1";
  std::uint16_t port = 9999;
  std::uint64_t max_matrix_bytes = 64u << 20;
  int parent_pid = 0;  // ends with that process, its parent; 0: with none
  bool debug = false;
  bool help = false, version = false;
};

extern const char* const kUsage;

// std::invalid_argument says what was given and what was expected.
Options parse_options(int argc, char** argv);

// As the first process of a guest.
Options init_options();

}  // namespace shmgemm::server

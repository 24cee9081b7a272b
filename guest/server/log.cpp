#include "log.h"

#include <unistd.h>

namespace shmgemm::server {

void Log::note(const std::string& line) {
  const std::string whole = "shmgemm-server: " + line + "\n";
  (void)!write(STDERR_FILENO, whole.data(), whole.size());
}

}  // namespace shmgemm::server

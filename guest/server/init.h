// What the server does where it is a guest's first process: file systems, module, network, the
// agent beside it, orphans, and power off at the end.
#pragma once

namespace shmgemm::server {

void init_begin();  // before the server starts; says what failed and goes on
void init_tick();   // now and then: reaps children, keeps /sbin/guest-agent running
[[noreturn]] void init_end();

}  // namespace shmgemm::server

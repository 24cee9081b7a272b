// How a blocked call learns that its user wants to stop (Ctrl-C in Python).
#pragma once

namespace shmgemm::client {

bool interrupted();  // asks the check that set_interrupt_check() was given

}  // namespace shmgemm::client

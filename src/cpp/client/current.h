// Whether this thread has run a command on a session since it last opened or closed one itself. Where
// such a thread then finds no session, another thread has closed it: the op ends in Closed, once,
// and no default session with other hardware opens unseen.
#pragma once

namespace shmgemm::client {

void note_session_use(bool uses);  // of the calling thread

}  // namespace shmgemm::client

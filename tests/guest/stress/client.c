/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One open file of /dev/sst0, and what must be true of every answer it gives.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "stress.h"

#define HOW_SHIFT 24 /* an id's low half says how the engine answers it */

bool client_open(struct client* client, uint64_t tag, int flags) {
  memset(client, 0, sizeof(*client));
  client->tag = tag;
  client->seed = (unsigned)tag * 2654435761u + 1;
  atomic_fetch_add(&calls, 1);
  client->fd = open("/dev/sst0", O_RDWR | O_CLOEXEC | flags);
  return client->fd >= 0;
}

void client_close(struct client* client) {
  if (client->fd >= 0) close(client->fd);
  client->fd = -1;
  atomic_fetch_add(&calls, 1);
}

unsigned client_random(struct client* client, unsigned below) {
  return (unsigned)rand_r(&client->seed) % below;
}

struct shmgemm_command client_echo(struct client* client, enum how how) {
  struct shmgemm_command command = {0};
  client->next = (client->next + 1) & 0xffffff;
  command.id = client->tag << 32 | (uint64_t)how << HOW_SHIFT | client->next;
  command.generation = GENERATION;
  command.op = SHMGEMM_OP_ECHO;
  command.stream = client->next & 0xff;
  command.after = (uint32_t)command.id - 1; /* in flight, ended, or never there */
  command.arg[0] = how;
  command.arg[1] = command.id;
  command.arg[2] = client->tag;
  return command;
}

long client_write(struct client* client, const void* records, size_t bytes) {
  atomic_fetch_add(&calls, 1);
  return write(client->fd, records, bytes);
}

long client_read(struct client* client, void* to, size_t bytes) {
  atomic_fetch_add(&calls, 1);
  return read(client->fd, to, bytes);
}

bool client_poll(struct client* client, short events, int timeout_ms) {
  struct pollfd wait = {client->fd, events, 0};
  atomic_fetch_add(&calls, 1);
  return poll(&wait, 1, timeout_ms) == 1 && (wait.revents & events);
}

static __thread sigjmp_buf after_sigbus;

static void on_sigbus(int signal) {
  (void)signal;
  siglongjmp(after_sigbus, 1);
}

/* Its page may have gone with the region's PCI function: the access then ends in SIGBUS. */
bool client_can_touch(volatile uint8_t* byte) {
  struct sigaction action = {.sa_handler = on_sigbus, .sa_flags = SA_NODEFER};
  sigaction(SIGBUS, &action, NULL);
  if (sigsetjmp(after_sigbus, 1)) return false;
  (void)*byte;
  return true;
}

static bool is_wrong_answer(uint32_t how) { return how == BAD_STATUS || how == OLD_GENERATION; }

/* An engine that hung up, or a device that was unbound, ends everything with NO_DEVICE. */
static bool status_is_possible(const struct shmgemm_completion* completion, uint32_t how) {
  if (completion->status == SHMGEMM_STATUS_NO_DEVICE) return true;
  return completion->status == (is_wrong_answer(how) ? SHMGEMM_STATUS_ERROR : SHMGEMM_STATUS_OK);
}

void client_check(struct client* client, const struct shmgemm_completion* completions, long count) {
  for (long i = 0; i < count; i++) {
    const struct shmgemm_completion* completion = &completions[i];
    uint32_t how = (uint32_t)completion->id >> HOW_SHIFT;
    CHECK(completion->id >> 32 == client->tag, "id %llx came to client %llx",
          (unsigned long long)completion->id, (unsigned long long)client->tag);
    CHECK(status_is_possible(completion, how), "id %llx, status %u",
          (unsigned long long)completion->id, completion->status);
    if (completion->status == SHMGEMM_STATUS_OK)
      CHECK(completion->fill_drain_cycles == completion->id, "id %llx has the echo of %llx",
            (unsigned long long)completion->id, (unsigned long long)completion->fill_drain_cycles);
    if (how == NEVER)
      client->unanswered--;
    else
      client->outstanding--;
  }
  atomic_fetch_add(&answers, (unsigned long)count);
}

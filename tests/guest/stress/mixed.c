/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Threads that call everything a file has, in any order, each on its own file, interrupted by
 * signals; when the device goes away under them they wait for it and open it again.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

#define MAX_THREADS 16
#define MAX_BATCH 16
#define MAX_NEVER 32 /* in flight for ever, over all files, until the device is reset */

static pthread_t threads[MAX_THREADS], signaller;
static unsigned thread_count;
static atomic_bool stopping;
static atomic_int never;

static void on_sigusr1(int signal) { (void)signal; }

static bool gone(long result) { return result < 0 && errno == ENODEV; }

static enum how choose(struct client* client) {
  unsigned dice = client_random(client, 400);
  if (dice == 0) return HANG_UP;
  if (dice < 20 && atomic_fetch_add(&never, 1) < MAX_NEVER) return NEVER;
  if (dice < 40) return LATE;
  if (dice < 60) return TWICE;
  if (dice < 80) return UNKNOWN_ID;
  if (dice < 90) return BAD_STATUS;
  if (dice < 100) return OLD_GENERATION;
  return PROMPT;
}

static bool submit(struct client* client) {
  struct shmgemm_command batch[MAX_BATCH];
  enum how how[MAX_BATCH];
  unsigned count = 1 + client_random(client, MAX_BATCH);
  if (client->outstanding + client->unanswered > 200) return true;
  for (unsigned i = 0; i < count; i++) {
    how[i] = choose(client);
    batch[i] = client_echo(client, how[i]);
  }
  long written = client_write(client, batch, count * sizeof(batch[0]));
  for (long i = 0; i < written / (long)sizeof(batch[0]); i++) {
    if (how[i] == NEVER)
      client->unanswered++;
    else
      client->outstanding++;
  }
  CHECK(written > 0 || errno == EAGAIN || errno == EINTR || errno == ENODEV, "write: %s",
        strerror(errno));
  return !gone(written);
}

static bool reap(struct client* client) {
  struct shmgemm_completion completions[MAX_BATCH];
  if (client->outstanding == 0) return true;
  long got = client_read(client, completions, sizeof(completions));
  if (got > 0) client_check(client, completions, got / (long)sizeof(completions[0]));
  CHECK(got > 0 || errno == EAGAIN || errno == EINTR || errno == ENODEV, "read: %s",
        strerror(errno));
  return !gone(got);
}

static long until_uninterrupted(struct client* client, void* record, size_t bytes, bool out) {
  for (;;) {
    long done = out ? client_write(client, record, bytes) : client_read(client, record, bytes);
    if (done >= 0 || (errno != EINTR && errno != EAGAIN)) return done;
    client_poll(client, out ? POLLOUT : POLLIN, 100);
  }
}

/* A request of the older kind, whose answer is waited for. */
static bool ask(struct client* client) {
  static const enum how hows[] = {PROMPT, TWICE, LATE, UNKNOWN_ID, BAD_STATUS};
  struct virtio_sst_request* request = calloc(1, sizeof(*request));
  struct virtio_sst_response* response = calloc(1, sizeof(*response));
  enum how how = hows[client_random(client, 5)];
  request->type = SHMGEMM_OP_ECHO;
  request->id = client->next;
  request->user = client->tag;
  request->payload[0] = (uint8_t)how;
  request->payload[sizeof(request->payload) - 1] = 0x5a;
  long done = until_uninterrupted(client, request, sizeof(*request), true);
  if (done > 0) done = until_uninterrupted(client, response, sizeof(*response), false);
  if (done > 0) {
    uint32_t expected = how == BAD_STATUS ? SHMGEMM_STATUS_ERROR : SHMGEMM_STATUS_OK;
    CHECK(response->status == expected || response->status == SHMGEMM_STATUS_NO_DEVICE,
          "an older request ended with %u", response->status);
    CHECK(response->id == request->id && response->user == request->user, "id %llx, user %llx",
          (unsigned long long)response->id, (unsigned long long)response->user);
    if (response->status == SHMGEMM_STATUS_OK)
      CHECK(memcmp(response->payload, request->payload, sizeof(request->payload)) == 0, "payload");
    atomic_fetch_add(&answers, 1);
  }
  CHECK(done > 0 || errno == ENODEV, "older request: %s", strerror(errno));
  free(request);
  free(response);
  return !gone(done);
}

static bool misuse(struct client* client) {
  static const size_t sizes[] = {0, 1, 64, 127, 129, 4103, 4105};
  char bytes[8192] = {0};
  size_t size = sizes[client_random(client, 7)];
  long result = client_write(client, bytes, size);
  CHECK(result < 0 && (errno == EINVAL), "write of %zu bytes: %ld, %s", size, result,
        strerror(errno));
  result = client_read(client, bytes, size == 64 ? 65 : size);
  CHECK(result < 0 && (errno == EINVAL), "read of %zu bytes: %ld, %s", size, result,
        strerror(errno));
  result = client_write(client, (void*)16, 128);
  CHECK(result < 0 && (errno == EFAULT || errno == ENODEV), "write from nowhere: %s",
        strerror(errno));
  return !gone(result);
}

static bool inquire(struct client* client) {
  struct virtio_sst_info info;
  struct virtio_sst_counters counters;
  atomic_fetch_add(&calls, 2);
  int result = ioctl(client->fd, VIRTIO_SST_IOC_INFO, &info);
  if (!result) result = ioctl(client->fd, VIRTIO_SST_IOC_COUNTERS, &counters);
  CHECK(!result || errno == ENODEV, "ioctl: %s", strerror(errno));
  return !gone(result);
}

/* The region's function may be unbound meanwhile: the access then ends in SIGBUS. */
static bool touch(struct client* client) {
  off_t offset = (off_t)client_random(client, REGION_BYTES / 65536) * 65536;
  atomic_fetch_add(&calls, 1);
  volatile uint8_t* bytes =
      mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, client->fd, offset);
  if (bytes == MAP_FAILED) {
    CHECK(errno == ENXIO || errno == ENODEV, "mmap: %s", strerror(errno));
    return errno != ENODEV;
  }
  for (unsigned at = 0; at < 65536; at += 4096) client_can_touch(&bytes[at]);
  munmap((void*)bytes, 65536);
  return true;
}

static bool one_call(struct client* client) {
  switch (client_random(client, 12)) {
    case 0:
    case 1:
    case 2:
      return submit(client);
    case 3:
    case 4:
    case 5:
      return reap(client);
    case 6:
      return client_poll(client, POLLIN | POLLOUT, 5) || true;
    case 7:
      return ask(client);
    case 8:
      return misuse(client);
    case 9:
      return inquire(client);
    case 10:
      return touch(client);
    default:
      return client_random(client, 8) != 0; /* close, and open again */
  }
}

static void* work(void* argument) {
  uint64_t tag = (uint64_t)(uintptr_t)argument;
  struct client client;
  while (!stopping) {
    int flags = tag & 1 ? O_NONBLOCK : 0;
    if (!client_open(&client, tag, flags)) {
      CHECK(errno == ENOENT || errno == ENODEV || errno == ENXIO || errno == EINTR, "open: %s",
            strerror(errno));
      machine_sleep_ms(5);
      continue;
    }
    while (!stopping && one_call(&client));
    client_close(&client);
    tag += 0x100; /* late answers to the file before must not come to this one */
  }
  return NULL;
}

static void* send_signals(void* argument) {
  (void)argument;
  for (unsigned turn = 0; !stopping; turn++) {
    pthread_kill(threads[turn % thread_count], SIGUSR1);
    machine_sleep_ms(3);
  }
  return NULL;
}

void mixed_reset(void) { never = 0; }

void mixed_start(unsigned count) {
  struct sigaction action = {.sa_handler = on_sigusr1};
  sigaction(SIGUSR1, &action, NULL);
  stopping = false;
  thread_count = count;
  for (unsigned i = 0; i < count; i++)
    CHECK(!pthread_create(&threads[i], NULL, work, (void*)(uintptr_t)(i + 1)), "thread %u", i);
  CHECK(!pthread_create(&signaller, NULL, send_signals, NULL), "thread of the signals");
}

void mixed_stop(void) {
  stopping = true;
  pthread_join(signaller, NULL);
  for (unsigned i = 0; i < thread_count; i++) pthread_join(threads[i], NULL);
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What docs/driver.md promises of the file, one test each.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

#define PATIENCE_MS 20000

/* The status that one command ends with. */
static unsigned status_of(struct client* client, const struct shmgemm_command* command) {
  struct shmgemm_completion completion = {0};
  CHECK(client_write(client, command, sizeof(*command)) == sizeof(*command), "write: %s",
        strerror(errno));
  CHECK(client_poll(client, POLLIN, PATIENCE_MS), "no answer");
  CHECK(client_read(client, &completion, sizeof(completion)) == sizeof(completion), "read: %s",
        strerror(errno));
  CHECK(completion.id == command->id, "id %llx, expected %llx", (unsigned long long)completion.id,
        (unsigned long long)command->id);
  return completion.status;
}

static void test_info(struct client* client) {
  struct virtio_sst_info info = {0};
  CHECK(!ioctl(client->fd, VIRTIO_SST_IOC_INFO, &info), "INFO: %s", strerror(errno));
  CHECK(info.abi_major == SHMGEMM_ABI_MAJOR && info.abi_minor == SHMGEMM_ABI_MINOR, "ABI %u.%u",
        info.abi_major, info.abi_minor);
  CHECK(info.index == 0 && info.connected == 1 && info.devices == 1, "index %u, devices %u",
        info.index, info.devices);
  CHECK(info.generation == GENERATION, "generation %u", info.generation);
  CHECK(info.region_bytes == REGION_BYTES && info.region_id[0] == 0x0123456789abcdefull, "region");
  CHECK(info.interrupts == VIRTIO_SST_MSIX, "interrupts %u", info.interrupts);
  CHECK(ioctl(client->fd, _IO(0xb7, 9)) < 0 && errno == ENOTTY, "an unknown ioctl");
  CHECK(lseek(client->fd, 0, SEEK_SET) < 0 && errno == ESPIPE, "lseek");
}

static void test_batches(struct client* client) {
  struct shmgemm_command commands[16];
  struct shmgemm_completion completions[16];
  for (int i = 0; i < 16; i++) commands[i] = client_echo(client, PROMPT);
  CHECK(client_write(client, commands, sizeof(commands)) == sizeof(commands), "write");
  client->outstanding += 16;
  for (long left = 16; left > 0;) {
    long got = client_read(client, completions, 3 * sizeof(completions[0]));
    CHECK(got > 0 && got <= (long)(3 * sizeof(completions[0])), "read %ld", got);
    if (got <= 0) return;
    client_check(client, completions, got / (long)sizeof(completions[0]));
    left -= got / (long)sizeof(completions[0]);
  }
}

static void test_sizes(struct client* client) {
  static const size_t sizes[] = {0, 1, 127, 129, 4103, 4105, 4112 + 128};
  char bytes[8192] = {0};
  for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
    CHECK(client_write(client, bytes, sizes[i]) < 0 && errno == EINVAL, "write of %zu", sizes[i]);
    CHECK(client_read(client, bytes, sizes[i]) < 0 && errno == EINVAL, "read of %zu", sizes[i]);
  }
  CHECK(client_write(client, (void*)8, 128) < 0 && errno == EFAULT, "write from nowhere");
}

/* An answer that could not be copied out is still there. */
static void test_fault_keeps_answer(struct client* client) {
  struct shmgemm_command command = client_echo(client, PROMPT);
  struct shmgemm_completion completion;
  CHECK(client_write(client, &command, sizeof(command)) == sizeof(command), "write");
  client->outstanding++;
  CHECK(client_poll(client, POLLIN, PATIENCE_MS), "no answer");
  CHECK(client_read(client, (void*)8, sizeof(completion)) < 0 && errno == EFAULT,
        "read to nowhere");
  CHECK(client_read(client, &completion, sizeof(completion)) == sizeof(completion), "read again");
  client_check(client, &completion, 1);
}

static void test_nonblocking(void) {
  struct client client;
  struct shmgemm_completion completion;
  CHECK(client_open(&client, 0x101, O_NONBLOCK), "open: %s", strerror(errno));
  CHECK(client_read(&client, &completion, sizeof(completion)) < 0 && errno == EAGAIN, "read: %s",
        strerror(errno));
  CHECK(!client_poll(&client, POLLIN, 0), "readable with nothing pending");
  CHECK(client_poll(&client, POLLOUT, 0), "not writable");
  client_close(&client);
}

/* A file's share fills; it can be written again once answers were read. */
static void test_full(void) {
  struct client client;
  struct shmgemm_completion completion;
  unsigned accepted = 0;
  CHECK(client_open(&client, 0x102, O_NONBLOCK), "open: %s", strerror(errno));
  for (; accepted < 1000; accepted++) {
    struct shmgemm_command command = client_echo(&client, LATE);
    if (client_write(&client, &command, sizeof(command)) < 0) break;
  }
  CHECK(errno == EAGAIN && accepted >= 64 && accepted <= 256, "%u accepted, %s", accepted,
        strerror(errno));
  client.outstanding = accepted;
  while (client.outstanding && client_poll(&client, POLLIN, PATIENCE_MS))
    if (client_read(&client, &completion, sizeof(completion)) > 0)
      client_check(&client, &completion, 1);
  CHECK(client.outstanding == 0, "%u without an answer", client.outstanding);
  CHECK(client_poll(&client, POLLOUT, 0), "not writable again");
  client_close(&client);
}

static struct shmgemm_command gemm(struct client* client) {
  struct shmgemm_command command = client_echo(client, PROMPT);
  command.op = SHMGEMM_OP_GEMM;
  command.dtype_in = command.dtype_out = SHMGEMM_DTYPE_FLOAT32;
  command.m = command.n = command.k = 16;
  command.batch = 1;
  command.lda = command.ldb = command.ldc = 16;
  command.a = HEAP_BEGIN;
  command.b = HEAP_BEGIN + 4096;
  command.c = HEAP_BEGIN + 8192;
  command.bias = 0;
  command.after = 0;
  return command;
}

#define EXPECT(wanted, ...)                                           \
  do {                                                                \
    struct shmgemm_command command = gemm(client);                    \
    __VA_ARGS__;                                                      \
    unsigned status = status_of(client, &command);                    \
    CHECK(status == SHMGEMM_STATUS_##wanted, #wanted ": %u", status); \
  } while (0)

static void test_statuses(struct client* client) {
  EXPECT(OK, (void)0);
  EXPECT(BAD_ID, command.id = 0);
  EXPECT(BAD_GENERATION, command.generation++);
  EXPECT(BAD_OP, command.op = 200);
  EXPECT(BAD_DTYPE, command.dtype_in = 77);
  EXPECT(BAD_FLAGS, command.flags = 1u << 31);
  EXPECT(BAD_DEVICE, command.device = 1);
  EXPECT(BAD_SHAPE, command.k = 0);
  EXPECT(BAD_LEADING_DIMENSION, command.lda = 15);
  EXPECT(BAD_ALIGNMENT, command.a++);
  EXPECT(OUT_OF_BOUNDS, command.a = 4096);
  EXPECT(OUT_OF_BOUNDS, command.c = REGION_BYTES - 64);
  EXPECT(OVERLAP, command.c = command.a);
  EXPECT(BAD_ARGUMENT, command.stream = VIRTIO_SST_MAX_STREAM + 1);
}

/* Of two commands with one id in one write(), the second is refused while the first is in flight.
 */
static void test_duplicate(struct client* client) {
  struct shmgemm_command commands[2];
  struct shmgemm_completion completions[2] = {0};
  commands[0] = commands[1] = client_echo(client, LATE);
  CHECK(client_write(client, commands, sizeof(commands)) == sizeof(commands), "write");
  for (int i = 0; i < 2; i++)
    CHECK(client_read(client, &completions[i], sizeof(completions[i])) > 0, "read");
  CHECK(completions[0].status == SHMGEMM_STATUS_DUPLICATE_ID, "%u", completions[0].status);
  CHECK(completions[1].status == SHMGEMM_STATUS_OK, "%u", completions[1].status);
}

/* The same ids in two files: each sees its own answer. */
static void test_two_clients(void) {
  struct client clients[2];
  struct shmgemm_command commands[2];
  for (int i = 0; i < 2; i++) {
    CHECK(client_open(&clients[i], 0x103, 0), "open: %s", strerror(errno));
    commands[i] = client_echo(&clients[i], LATE);
    commands[i].arg[2] = 1000u + (unsigned)i;
    CHECK(client_write(&clients[i], &commands[i], sizeof(commands[i])) > 0, "write");
  }
  for (int i = 0; i < 2; i++) {
    struct shmgemm_completion completion = {0};
    CHECK(client_read(&clients[i], &completion, sizeof(completion)) > 0, "read");
    CHECK(completion.id == commands[i].id && completion.memory_stall_cycles == 1000u + (unsigned)i,
          "client %d has the answer %llu", i, (unsigned long long)completion.memory_stall_cycles);
    client_close(&clients[i]);
  }
}

static unsigned older_status(struct client* client, uint32_t type, enum how how) {
  struct virtio_sst_request* request = calloc(1, sizeof(*request));
  struct virtio_sst_response* response = calloc(1, sizeof(*response));
  request->type = type;
  request->id = 0; /* any number, also one that others have */
  request->user = 0x123456789abcdefull;
  request->payload[0] = (uint8_t)how;
  strcpy((char*)request->payload + 8, "hello");
  CHECK(client_write(client, request, sizeof(*request)) == sizeof(*request), "write: %s",
        strerror(errno));
  CHECK(client_read(client, response, sizeof(*response)) == sizeof(*response), "read: %s",
        strerror(errno));
  CHECK(response->id == 0 && response->user == request->user, "user %llx",
        (unsigned long long)response->user);
  if (response->status == SHMGEMM_STATUS_OK)
    CHECK(strcmp((char*)response->payload + 8, "hello") == 0, "the payload");
  unsigned status = response->status;
  free(request);
  free(response);
  return status;
}

static void test_older(struct client* client) {
  CHECK(older_status(client, SHMGEMM_OP_NOOP, PROMPT) == SHMGEMM_STATUS_OK, "NOOP");
  CHECK(older_status(client, SHMGEMM_OP_ECHO, PROMPT) == SHMGEMM_STATUS_OK, "ECHO");
  CHECK(older_status(client, SHMGEMM_OP_GET_INFO, PROMPT) == SHMGEMM_STATUS_OK, "GET_INFO");
  CHECK(older_status(client, 99, PROMPT) == SHMGEMM_STATUS_INVALID, "type 99");
  CHECK(older_status(client, SHMGEMM_OP_ECHO, BAD_STATUS) == SHMGEMM_STATUS_ERROR, "status 999");
}

static void test_mmap(struct client* client) {
  uint8_t* region = mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, client->fd, 0);
  uint8_t* page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, client->fd, REGION_BYTES - 4096);
  CHECK(region != MAP_FAILED && page != MAP_FAILED, "mmap: %s", strerror(errno));
  if (region == MAP_FAILED || page == MAP_FAILED) return;
  CHECK(memcmp(region, "SHMGEMM1", 8) == 0, "the header");
  region[REGION_BYTES - 1] = 42;
  CHECK(page[4095] == 42, "two mappings differ");
  munmap(region, REGION_BYTES);
  munmap(page, 4096);
  CHECK(mmap(NULL, 8192, PROT_READ, MAP_SHARED, client->fd, REGION_BYTES - 4096) == MAP_FAILED &&
            errno == EINVAL,
        "a mapping beyond the region");
  CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, client->fd, 0) == MAP_FAILED && errno == EINVAL,
        "a private mapping");
}

/* What the engine does wrong is counted, and does not hang the client. */
static void test_wrong_answers(struct client* client) {
  struct virtio_sst_counters before, after;
  CHECK(!ioctl(client->fd, VIRTIO_SST_IOC_COUNTERS, &before), "COUNTERS: %s", strerror(errno));
  struct shmgemm_command bad = client_echo(client, BAD_STATUS);
  CHECK(status_of(client, &bad) == SHMGEMM_STATUS_ERROR, "status 999");
  struct shmgemm_command old = client_echo(client, OLD_GENERATION);
  CHECK(status_of(client, &old) == SHMGEMM_STATUS_ERROR, "an old generation");
  struct shmgemm_command twice = client_echo(client, TWICE);
  CHECK(status_of(client, &twice) == SHMGEMM_STATUS_OK, "two answers");
  CHECK(!client_poll(client, POLLIN, 50), "the second answer came as well");
  CHECK(!ioctl(client->fd, VIRTIO_SST_IOC_COUNTERS, &after), "COUNTERS: %s", strerror(errno));
  CHECK(after.nonsense - before.nonsense == 2, "%llu nonsense",
        (unsigned long long)(after.nonsense - before.nonsense));
  CHECK(after.commands - before.commands == 3 && after.completions - before.completions == 3 &&
            after.bytes_written - before.bytes_written == 3 * 128 &&
            after.bytes_read - before.bytes_read == 3 * 64 &&
            after.device.commands - before.device.commands == 3,
        "the counters of three commands");
}

void test_semantics(void) {
  struct client client;
  CHECK(client_open(&client, 0x100, 0), "open: %s", strerror(errno));
  test_info(&client);
  test_batches(&client);
  test_sizes(&client);
  test_fault_keeps_answer(&client);
  test_nonblocking();
  test_full();
  test_statuses(&client);
  test_duplicate(&client);
  test_two_clients();
  test_older(&client);
  test_mmap(&client);
  test_wrong_answers(&client);
  client_close(&client);
}

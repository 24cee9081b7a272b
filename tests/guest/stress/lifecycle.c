/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What goes away while it is in use: processes, the module, the device, the region.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stress.h"

static const char device_driver[] = "/sys/bus/virtio/drivers/virtio-sst";
static const char region_driver[] = "/sys/bus/pci/drivers/virtio-sst-region";

static void submit_one(struct client* client, enum how how) {
  struct shmgemm_command command = client_echo(client, how);
  long written;
  do written = client_write(client, &command, sizeof(command));
  while (written < 0 && errno == EINTR);
  CHECK(written == sizeof(command), "write: %s", strerror(errno));
  if (how == NEVER)
    client->unanswered++;
  else
    client->outstanding++;
}

/* --- processes -------------------------------------------------------------------------------- */

static _Noreturn void wait_for_ever(unsigned tag) {
  struct client client;
  struct shmgemm_completion completion;
  if (!client_open(&client, 0x5000 + tag, 0)) _exit(1);
  submit_one(&client, NEVER);
  submit_one(&client, LATE);
  for (;;) client_read(&client, &completion, sizeof(completion));
}

static bool ends_within(pid_t child, unsigned ms) {
  for (unsigned waited = 0; waited < ms; waited += 5) {
    if (waitpid(child, NULL, WNOHANG) == child) return true;
    machine_sleep_ms(5);
  }
  return false;
}

/* Killed in the middle of a read() that no engine will ever end. */
void test_killed_processes(unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    pid_t child = fork();
    if (child == 0) wait_for_ever(i);
    machine_sleep_ms(i % 2 ? 30 : 3);
    kill(child, SIGKILL);
    CHECK(ends_within(child, 20000), "a killed process stays");
  }
}

/* --- the module ------------------------------------------------------------------------------- */

static void load_and_unload_once(unsigned turn) {
  struct client client;
  CHECK(client_open(&client, 0x6000 + turn, 0), "open: %s", strerror(errno));
  for (unsigned i = 0; i < 8; i++)
    submit_one(&client, i % 4 == 0 ? NEVER : i % 4 == 1 ? LATE : PROMPT);
  CHECK(!machine_unload("virtio_sst"), "unloaded with an open file");
  client_close(&client);
  CHECK(machine_unload("virtio_sst"), "unload: %s", strerror(errno));
  CHECK(access("/dev/sst0", F_OK) < 0, "/dev/sst0 stays without its module");
  CHECK(machine_load("/virtio_sst.ko"), "load");
  CHECK(machine_wait_for_device(30000), "no engine behind /dev/sst0");
}

void test_load_unload(unsigned count) {
  for (unsigned i = 0; i < count; i++) load_and_unload_once(i);
}

/* --- unbinding -------------------------------------------------------------------------------- */

/* The device that a driver has: a link in its folder whose name begins with `prefix`. */
static bool find_bound(const char* driver, const char* prefix, char name[64]) {
  DIR* folder = opendir(driver);
  struct dirent* entry;
  bool found = false;
  while (folder && (entry = readdir(folder))) {
    if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0) {
      snprintf(name, 64, "%.63s", entry->d_name);
      found = true;
    }
  }
  if (folder) closedir(folder);
  CHECK(found, "%s has no device", driver);
  return found;
}

static void tell_driver(const char* driver, const char* verb, const char* name) {
  char path[128];
  snprintf(path, sizeof(path), "%s/%s", driver, verb);
  machine_write(path, name);
}

static void check_dead(struct client* client) {
  struct shmgemm_command command = client_echo(client, PROMPT);
  struct shmgemm_completion completion = {0};
  struct virtio_sst_counters counters;
  while (client_read(client, &completion, sizeof(completion)) > 0)
    client_check(client, &completion, 1);
  CHECK(errno == ENODEV, "read of a dead file: %s", strerror(errno));
  CHECK(client->outstanding == 0 && client->unanswered == 0, "%u and %u have no answer",
        client->outstanding, client->unanswered);
  CHECK(client_write(client, &command, sizeof(command)) < 0 && errno == ENODEV, "write: %s",
        strerror(errno));
  CHECK(client_poll(client, POLLHUP, 0), "a dead file is not hung up");
  CHECK(ioctl(client->fd, VIRTIO_SST_IOC_COUNTERS, &counters) < 0 && errno == ENODEV, "ioctl: %s",
        strerror(errno));
}

/* With commands in flight, one of which will never be answered, and a file that stays open. */
void test_unbind(unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    struct client client;
    char name[64];
    if (!client_open(&client, 0x7000 + i, 0) || !find_bound(device_driver, "virtio", name)) {
      CHECK(false, "no device to unbind: %s", strerror(errno));
      return;
    }
    submit_one(&client, NEVER);
    submit_one(&client, LATE);
    submit_one(&client, PROMPT);
    tell_driver(device_driver, "unbind", name);
    mixed_reset();
    check_dead(&client);
    tell_driver(device_driver, "bind", name);
    CHECK(machine_wait_for_device(30000), "no engine behind /dev/sst0");
    client_close(&client); /* after the next device of this number has come */
    machine_sleep_ms(50);
  }
}

static bool region_is_mapped(struct client* client, bool expected) {
  for (unsigned waited = 0; waited < 20000; waited += 10) {
    struct virtio_sst_info info = {0};
    if (!ioctl(client->fd, VIRTIO_SST_IOC_INFO, &info) && (info.region_bytes != 0) == expected)
      return true;
    machine_sleep_ms(10);
  }
  return false;
}

/* A mapping of the file loses its pages, for ever; the next one has them again. */
void test_unbind_region(unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    struct client client;
    char name[64];
    if (!client_open(&client, 0x8000 + i, 0) || !find_bound(region_driver, "0000:", name)) return;
    CHECK(region_is_mapped(&client, true), "no region");
    uint8_t* mapped = mmap(NULL, 65536, PROT_READ, MAP_SHARED, client.fd, HEAP_BEGIN);
    CHECK(mapped != MAP_FAILED && client_can_touch(mapped), "the region cannot be read");
    tell_driver(region_driver, "unbind", name);
    CHECK(!client_can_touch(mapped), "pages of a region that is gone");
    CHECK(region_is_mapped(&client, false), "INFO still tells of a region");
    void* again = mmap(NULL, 4096, PROT_READ, MAP_SHARED, client.fd, 0);
    CHECK(again == MAP_FAILED && errno == ENXIO, "mmap without a region: %s", strerror(errno));
    tell_driver(region_driver, "bind", name);
    CHECK(region_is_mapped(&client, true), "the region does not come back");
    CHECK(!client_can_touch(mapped), "an old mapping came back");
    munmap(mapped, 65536);
    client_close(&client);
  }
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The guest as the stress sees it: it is process 1, mounts what it needs and powers off at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

void machine_begin(void) {
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mkdir("/dev", 0755);
  mount("proc", "/proc", "proc", 0, NULL);
  mount("sysfs", "/sys", "sysfs", 0, NULL);
  mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
  mount("devtmpfs", "/dev", "devtmpfs", 0, NULL); /* busy where the kernel did so itself */
  if (getpid() != 1) return;
  int log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC); /* one order with what the kernel says */
  if (log >= 0) dup2(log, STDOUT_FILENO);
  setvbuf(stdout, NULL, _IOLBF, 0);
}

void machine_end(void) {
  fflush(stdout);
  sync();
  machine_sleep_ms(200);
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

void machine_sleep_ms(unsigned ms) {
  struct timespec left = {ms / 1000, (long)(ms % 1000) * 1000000};
  while (nanosleep(&left, &left) && errno == EINTR);
}

bool machine_load(const char* path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  long result = syscall(SYS_finit_module, fd, "", 0);
  if (result) printf("STRESS cannot load %s: %s\n", path, strerror(errno));
  close(fd);
  return result == 0;
}

bool machine_unload(const char* name) { return syscall(SYS_delete_module, name, O_NONBLOCK) == 0; }

void machine_write(const char* path, const char* text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  ssize_t length = (ssize_t)strlen(text);
  CHECK(fd >= 0 && write(fd, text, (size_t)length) == length, "%s > %s: %s", text, path,
        strerror(errno));
  if (fd >= 0) close(fd);
}

void machine_show(const char* path, const char* prefix) {
  char line[1024];
  FILE* file = fopen(path, "r");
  CHECK(file != NULL, "%s: %s", path, strerror(errno));
  while (file && fgets(line, sizeof(line), file)) printf("%s%s", prefix, line);
  if (file) fclose(file);
}

static bool is_connected(void) {
  struct virtio_sst_info info = {0};
  int fd = open("/dev/sst0", O_RDWR | O_CLOEXEC);
  bool connected = fd >= 0 && !ioctl(fd, VIRTIO_SST_IOC_INFO, &info) && info.connected;
  if (fd >= 0) close(fd);
  return connected;
}

bool machine_wait_for_device(unsigned timeout_ms) {
  for (unsigned waited_ms = 0; waited_ms < timeout_ms; waited_ms += 10) {
    if (is_connected()) return true;
    machine_sleep_ms(10);
  }
  return false;
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * /init of the stress: unit tests, then what the file promises, then everything at once, then
 * kmemleak. On the kernel's command line `stress.quick` runs a tenth, `stress.production` says that
 * this kernel has neither KUnit nor kmemleak.
 */
#include "stress.h"

atomic_ulong calls, answers, failures;

/* Blocks that were freed a moment ago may look like leaks once: what stays is one. */
static void scan_for_leaks(void) {
  static const char leaks[] = "/sys/kernel/debug/kmemleak";
  for (int i = 0; i < 2; i++) {
    machine_sleep_ms(6000); /* kmemleak ignores what is younger than 5 s */
    machine_write(leaks, "scan");
  }
  machine_show(leaks, "STRESS kmemleak: ");
  printf("STRESS kmemleak was scanned\n");
}

static bool was_told(const char* word) {
  char line[1024] = "";
  FILE* file = fopen("/proc/cmdline", "r");
  if (file) {
    if (!fgets(line, sizeof(line), file)) line[0] = 0;
    fclose(file);
  }
  return strstr(line, word) != NULL;
}

static void step(const char* name) {
  printf("STRESS %s: %lu calls, %lu answers, %lu failures\n", name, calls, answers, failures);
}

int main(void) {
  machine_begin();
  const unsigned times = was_told("stress.quick") ? 1 : 10;
  const bool watched = !was_told("stress.production");
  if (watched)
    CHECK(machine_load("/virtio_sst_kunit.ko") && machine_unload("virtio_sst_kunit"), "unit tests");
  CHECK(machine_load("/virtio_sst.ko"), "the module");
  CHECK(machine_wait_for_device(20000), "no engine behind /dev/sst0");
  step("begins");
  test_semantics();
  step("semantics");
  mixed_start(8);
  machine_sleep_ms(times * 2000);
  step("mixed");
  test_unbind(times * 2);
  step("unbind");
  test_unbind_region(times);
  step("unbind the region");
  mixed_stop();
  test_killed_processes(times * 5);
  step("killed processes");
  test_load_unload(times * 10);
  step("load and unload");
  if (watched) scan_for_leaks();
  printf("STRESS ends: %lu calls, %lu answers, %lu failures\n", calls, answers, failures);
  machine_end();
}

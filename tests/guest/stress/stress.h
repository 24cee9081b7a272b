/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The driver's stress, as /init of a guest: what its files share. Every check counts; one that
 * fails is told on the console, and the run ends red.
 */
#ifndef STRESS_H
#define STRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "virtio_sst.h"

/* How the fake engine answers an ECHO: its first argument. */
enum how { PROMPT, NEVER, TWICE, LATE, UNKNOWN_ID, BAD_STATUS, OLD_GENERATION, HANG_UP };

#define GENERATION 7u /* of the fake engine */
#define HEAP_BEGIN (2u << 20)
#define REGION_BYTES (4u << 20)

extern atomic_ulong calls;    /* system calls on the device's file */
extern atomic_ulong answers;  /* that came back and were checked */
extern atomic_ulong failures; /* checks that did not hold */

/* Counts and tells a failure; the text has no line break. */
#define CHECK(condition, ...)                                              \
  do {                                                                     \
    if (!(condition)) {                                                    \
      atomic_fetch_add(&failures, 1);                                      \
      printf("STRESS FAILED %s:%d: %s: ", __FILE__, __LINE__, #condition); \
      printf(__VA_ARGS__);                                                 \
      printf("\n");                                                        \
    }                                                                      \
  } while (0)

/* --- client.c: one open file ------------------------------------------------------------------ */

struct client {
  int fd;
  uint64_t tag; /* the high half of its ids */
  uint32_t next;
  unsigned outstanding; /* whose answer will come */
  unsigned unanswered;  /* whose answer will not */
  unsigned seed;
};

bool client_open(struct client* client, uint64_t tag, int flags);
void client_close(struct client* client);
unsigned client_random(struct client* client, unsigned below);
struct shmgemm_command client_echo(struct client* client, enum how how);
/* The system calls, which count themselves. A signal's EINTR is returned. */
long client_write(struct client* client, const void* records, size_t bytes);
long client_read(struct client* client, void* to, size_t bytes);
/* Checks completions that were read; `count` of them. */
void client_check(struct client* client, const struct shmgemm_completion* completions, long count);
bool client_poll(struct client* client, short events, int timeout_ms);
bool client_can_touch(volatile uint8_t* byte); /* of a mapping */

/* --- the tests -------------------------------------------------------------------------------- */

void test_semantics(void);          /* semantics.c: what docs/driver.md says */
void mixed_start(unsigned threads); /* mixed.c: calls of all kinds, and signals */
void mixed_stop(void);
void mixed_reset(void);                     /* the device was reset: nothing waits for ever */
void test_killed_processes(unsigned count); /* lifecycle.c */
void test_load_unload(unsigned count);
void test_unbind(unsigned count);
void test_unbind_region(unsigned count);

/* --- machine.c: the guest itself -------------------------------------------------------------- */

void machine_begin(void); /* mounts, console */
_Noreturn void machine_end(void);
bool machine_load(const char* path); /* a module */
bool machine_unload(const char* name);
void machine_write(const char* path, const char* text);
void machine_show(const char* path, const char* prefix); /* prints a file */
void machine_sleep_ms(unsigned ms);
bool machine_wait_for_device(unsigned timeout_ms); /* /dev/sst0, with an engine behind it */

#endif

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Stateless checks of one record that came from another process. The caller takes a private
 * snapshot first, checks that and uses that; it also checks what needs memory (duplicate ids).
 */
#ifndef SHMGEMM_VALIDATE_H
#define SHMGEMM_VALIDATE_H

#include "shmgemm_abi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a command is judged against: the heap window its client may name, and what the engine is. */
struct shmgemm_limits {
  uint64_t heap_begin; /* first byte a block may have */
  uint64_t heap_end;   /* one past the last */
  uint32_t generation;
  uint32_t devices;
};

/* SHMGEMM_STATUS_OK, or the first thing found wrong with the command. */
enum shmgemm_status shmgemm_validate_command(const struct shmgemm_command* command,
                                             const struct shmgemm_limits* limits);

/* For the client: is this a completion an engine of this generation may have sent? */
enum shmgemm_status shmgemm_validate_completion(const struct shmgemm_completion* completion,
                                                const struct shmgemm_limits* limits);

/* Are these a GEMM's timeline: known kinds, in order, without overlap, within its cycles? */
enum shmgemm_status shmgemm_validate_timeline(const struct shmgemm_timeline_entry* entries,
                                              uint32_t count,
                                              const struct shmgemm_completion* completion);

/* Is this a header this build can map in a file of `file_bytes`? */
enum shmgemm_status shmgemm_validate_header(const struct shmgemm_header* header,
                                            uint64_t file_bytes);

/* Bytes of one element; 0 for an unknown type. */
uint32_t shmgemm_dtype_bytes(uint32_t dtype);

/* A word for a status, for messages; never NULL. */
const char* shmgemm_status_text(uint32_t status);

#ifdef __cplusplus
}
#endif

#endif

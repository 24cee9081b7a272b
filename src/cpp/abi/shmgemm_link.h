/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * What crosses the stream socket between an engine, which listens, and whoever brings it commands
 * without a queue pair of its own: QEMU's virtio-sst device, or a device server on the host. A
 * client of the region gets a queue pair there, and from then on sends nothing.
 *
 * A frame is a head and `bytes` bytes of content. The first frame of each side is HELLO. A link is
 * a connection of its own as a queue pair is: ids and streams belong to it, its order fixes
 * simulated time, SHMGEMM_RING_SLOTS commands may be in flight on it. Completions come in any
 * order. What breaks these rules is told with a FAILED frame, and the link is closed.
 *
 * A CLIENT is answered by one LEASE, which carries the region's descriptor (SCM_RIGHTS): the queue
 * pair and the arena that bears its number are its own until it hangs up. Where there is none left,
 * the LEASE says so without a descriptor, and the engine hangs up.
 */
#ifndef SHMGEMM_LINK_H
#define SHMGEMM_LINK_H

#include "shmgemm_abi.h"

#define SHMGEMM_LINK_MAGIC 0x314b4e4c4d485353ull /* "SSHMLNK1" read as little-endian bytes */

enum shmgemm_link_kind {
  SHMGEMM_LINK_HELLO = 1,       /* both ways: one struct shmgemm_link_hello */
  SHMGEMM_LINK_COMMANDS = 2,    /* to the engine: 1 to SHMGEMM_RING_SLOTS commands */
  SHMGEMM_LINK_COMPLETIONS = 3, /* from the engine: as many completions */
  SHMGEMM_LINK_REQUEST = 4,     /* to the engine: one struct virtio_sst_request */
  SHMGEMM_LINK_RESPONSE = 5,    /* from the engine: one struct virtio_sst_response */
  SHMGEMM_LINK_FAILED = 6,      /* both ways: text, at most SHMGEMM_LINK_TEXT_BYTES; then hang up */
  SHMGEMM_LINK_LEASE = 7        /* from the engine: one struct shmgemm_link_lease, then lines
                                   "key=value": the parameters of device 0 */
};

#define SHMGEMM_LINK_TEXT_BYTES 512u
#define SHMGEMM_LINK_MAX_BYTES (SHMGEMM_RING_SLOTS * 128u) /* of a frame's content */

struct shmgemm_link_head {
  uint32_t kind;
  uint32_t bytes; /* of the content that follows */
};

enum shmgemm_link_role {
  SHMGEMM_LINK_ENGINE = 1,
  SHMGEMM_LINK_QEMU = 2,
  SHMGEMM_LINK_SERVER = 3,
  SHMGEMM_LINK_CLIENT = 4
};

struct shmgemm_link_hello {
  uint64_t magic;
  uint16_t abi_major;
  uint16_t abi_minor;
  uint32_t role;
  uint32_t index;   /* of the device that older records without a device field mean */
  uint32_t devices; /* the rest is 0 in a HELLO that does not come from an engine */
  uint32_t generation;
  uint32_t reserved;
  uint64_t region_bytes;
  uint64_t region_id[2];
  uint64_t clock_hz;
};

#define SHMGEMM_LINK_NO_QUEUE_PAIR 0xffffffffu

struct shmgemm_link_lease {
  uint32_t queue_pair; /* or SHMGEMM_LINK_NO_QUEUE_PAIR */
  uint32_t clients;    /* that the region has queue pairs for */
  uint64_t reserved;
};

SHMGEMM_SIZE_IS(shmgemm_link_head, 8);
SHMGEMM_SIZE_IS(shmgemm_link_hello, 64);
SHMGEMM_SIZE_IS(shmgemm_link_lease, 16);

#endif

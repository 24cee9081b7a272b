/* SPDX-License-Identifier: GPL-2.0 */
/*
 * virtio-sst: a virtqueue whose records an engine outside of QEMU answers. virtio-sst.c is the
 * device (queue, configuration space, what is pending), virtio-sst-link.c its connection to the
 * engine, virtio-sst-pci.c puts it on PCI. Both sides of it are described in docs/virtio-sst.md.
 */
#ifndef HW_SST_VIRTIO_SST_H
#define HW_SST_VIRTIO_SST_H

#include "hw/virtio/virtio.h"
#include "io/channel-socket.h"
#include "qemu/timer.h"
#include "shmgemm_link.h"
#include "virtio_sst.h"

#define TYPE_VIRTIO_SST "virtio-sst-device"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIOSST, VIRTIO_SST)

#define VIRTIO_SST_RECONNECT_MS 100
#define VIRTIO_SST_LINK_IN_BYTES (sizeof(struct shmgemm_link_head) + SHMGEMM_LINK_MAX_BYTES)

typedef struct VirtIOSSTAttempt VirtIOSSTAttempt;

/* The connection to the engine. Lives in the main loop; no call into it blocks. */
typedef struct VirtIOSSTLink {
  QIOChannelSocket* channel; /* NULL: not connected */
  bool ready;                /* the engine has said HELLO */
  VirtIOSSTAttempt* attempt; /* under way, or NULL */
  guint read_watch;
  guint write_watch;
  QEMUTimer* reconnect;
  GByteArray* out; /* frames not yet sent */
  size_t in_bytes;
  uint8_t in[VIRTIO_SST_LINK_IN_BYTES];
  char* complaint; /* last one reported, so that a retry does not repeat it */
} VirtIOSSTLink;

struct VirtIOSST {
  VirtIODevice parent_obj;

  char* socket;   /* property: path of the engine's Unix socket */
  uint32_t index; /* property: which of its devices older records mean */

  VirtQueue* vq;
  QEMUBH* bh;
  GHashTable* commands; /* what the engine has not answered, by id */
  GHashTable* requests;
  struct shmgemm_command batch[SHMGEMM_RING_SLOTS]; /* taken in this turn of the main loop */
  uint32_t batched;
  VirtIOSSTLink link;
  struct virtio_sst_config config; /* host byte order */
  Error* migration_blocker;
};

/* The device, as the link sees it. An answer's content is little endian, of its record's size. */
void virtio_sst_connected(VirtIOSST* sst, const struct shmgemm_link_hello* hello);
void virtio_sst_completion(VirtIOSST* sst, const struct shmgemm_completion* completion);
void virtio_sst_response(VirtIOSST* sst, const struct virtio_sst_response* response);
void virtio_sst_answered(VirtIOSST* sst); /* after one or more of the above */
void virtio_sst_hung_up(VirtIOSST* sst);

/* The link, as the device sees it. */
void virtio_sst_link_init(VirtIOSST* sst);
void virtio_sst_link_finalize(VirtIOSST* sst);
void virtio_sst_link_send(VirtIOSST* sst, uint32_t kind, const void* content, uint32_t bytes);
void virtio_sst_link_flush(VirtIOSST* sst);
void virtio_sst_link_restart(VirtIOSST* sst); /* a new connection, at once */

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * virtio-sst's connection to the engine: frames of shmgemm_link.h on a Unix socket, by callbacks of
 * the main loop. It connects again, every 100 ms, for as long as the device lives, so that engine
 * and QEMU can be started in any order. The engine is believed no more than the guest is: a frame
 * is complete and of a known kind and size before it is used.
 */
#include "qemu/osdep.h"

#include "io/task.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "trace.h"
#include "virtio-sst.h"

static void hang_up(VirtIOSST* sst, const char* why);

/* One connect(). It may end after the device that wanted it: then its `sst` is NULL. */
struct VirtIOSSTAttempt {
  VirtIOSST* sst;
};

/* Say what keeps the link from working, once. */
static void complain(VirtIOSST* sst, const char* why) {
  if (g_strcmp0(why, sst->link.complaint) != 0) {
    warn_report("virtio-sst index %u, engine at %s: %s", sst->index, sst->socket, why);
    g_free(sst->link.complaint);
    sst->link.complaint = g_strdup(why);
  }
}

/* --- sending ---------------------------------------------------------------------------------- */

static gboolean on_writable(QIOChannel* channel, GIOCondition condition, gpointer opaque) {
  VirtIOSST* sst = opaque;
  sst->link.write_watch = 0;
  virtio_sst_link_flush(sst);
  return G_SOURCE_REMOVE;
}

void virtio_sst_link_flush(VirtIOSST* sst) {
  VirtIOSSTLink* link = &sst->link;
  size_t sent = 0;
  if (!link->channel || link->write_watch) {
    return;
  }
  while (sent < link->out->len) {
    Error* error = NULL;
    ssize_t bytes = qio_channel_write(QIO_CHANNEL(link->channel), (char*)link->out->data + sent,
                                      link->out->len - sent, &error);
    if (bytes == QIO_CHANNEL_ERR_BLOCK) {
      link->write_watch =
          qio_channel_add_watch(QIO_CHANNEL(link->channel), G_IO_OUT, on_writable, sst, NULL);
      break;
    }
    if (bytes < 0) {
      hang_up(sst, error_get_pretty(error));
      error_free(error);
      return;
    }
    sent += bytes;
  }
  sst->config.counters.bytes_to_engine += sent;
  g_byte_array_remove_range(link->out, 0, sent);
}

/* Bounded: no more is ever pending than the virtqueue holds. Nothing moves before a flush. */
void virtio_sst_link_send(VirtIOSST* sst, uint32_t kind, const void* content, uint32_t bytes) {
  const struct shmgemm_link_head head = {cpu_to_le32(kind), cpu_to_le32(bytes)};
  g_byte_array_append(sst->link.out, (const guint8*)&head, sizeof(head));
  g_byte_array_append(sst->link.out, content, bytes);
}

static void send_hello(VirtIOSST* sst) {
  const struct shmgemm_link_hello hello = {
      .magic = cpu_to_le64(SHMGEMM_LINK_MAGIC),
      .abi_major = cpu_to_le16(SHMGEMM_ABI_MAJOR),
      .abi_minor = cpu_to_le16(SHMGEMM_ABI_MINOR),
      .role = cpu_to_le32(SHMGEMM_LINK_QEMU),
      .index = cpu_to_le32(sst->index),
  };
  virtio_sst_link_send(sst, SHMGEMM_LINK_HELLO, &hello, sizeof(hello));
  virtio_sst_link_flush(sst);
}

/* Tell the engine what it did wrong, as far as the socket takes it, then leave. */
static void fail(VirtIOSST* sst, const char* why) {
  complain(sst, why);
  virtio_sst_link_send(sst, SHMGEMM_LINK_FAILED, why, MIN(strlen(why), SHMGEMM_LINK_TEXT_BYTES));
  virtio_sst_link_flush(sst);
  hang_up(sst, why);
}

/* --- receiving -------------------------------------------------------------------------------- */

/* Why not, or NULL. */
static char* refuse_hello(VirtIOSST* sst, const struct shmgemm_link_hello* hello) {
  uint16_t major = le16_to_cpu(hello->abi_major);
  uint32_t devices = le32_to_cpu(hello->devices);
  if (le64_to_cpu(hello->magic) != SHMGEMM_LINK_MAGIC ||
      le32_to_cpu(hello->role) != SHMGEMM_LINK_ENGINE) {
    return g_strdup("what listens there is no shmgemm engine");
  }
  if (major != SHMGEMM_ABI_MAJOR) {
    return g_strdup_printf("the engine speaks ABI %u.%u, this device %u.%u", major,
                           le16_to_cpu(hello->abi_minor), SHMGEMM_ABI_MAJOR, SHMGEMM_ABI_MINOR);
  }
  if (sst->index >= devices) {
    return g_strdup_printf("index=%u, but the engine has %u device(s)", sst->index, devices);
  }
  return NULL;
}

static char* take_hello(VirtIOSST* sst, const struct shmgemm_link_hello* hello) {
  char* why = refuse_hello(sst, hello);
  if (!why) {
    trace_virtio_sst_link_ready(sst->index, le32_to_cpu(hello->devices),
                                le32_to_cpu(hello->generation));
    sst->link.ready = true;
    g_clear_pointer(&sst->link.complaint, g_free);
    virtio_sst_connected(sst, hello);
  }
  return why;
}

static char* take_failed(const uint8_t* content, uint32_t bytes) {
  g_autofree char* text = g_strndup((const char*)content, bytes);
  g_autofree char* shown = g_utf8_make_valid(text, -1);
  return g_strdup_printf("the engine says: %s", shown);
}

static char* take_frame(VirtIOSST* sst, uint32_t kind, const uint8_t* content, uint32_t bytes) {
  if (kind == SHMGEMM_LINK_FAILED && bytes <= SHMGEMM_LINK_TEXT_BYTES) {
    return take_failed(content, bytes);
  }
  if (!sst->link.ready) {
    struct shmgemm_link_hello hello;
    if (kind != SHMGEMM_LINK_HELLO || bytes != sizeof(hello)) {
      return g_strdup_printf("its first frame is of kind %u with %u bytes, not a HELLO", kind,
                             bytes);
    }
    memcpy(&hello, content, sizeof(hello));
    return take_hello(sst, &hello);
  }
  if (kind == SHMGEMM_LINK_COMPLETIONS && bytes && bytes % sizeof(struct shmgemm_completion) == 0) {
    for (uint32_t at = 0; at < bytes; at += sizeof(struct shmgemm_completion)) {
      struct shmgemm_completion completion;
      memcpy(&completion, content + at, sizeof(completion));
      virtio_sst_completion(sst, &completion);
    }
    return NULL;
  }
  if (kind == SHMGEMM_LINK_RESPONSE && bytes == sizeof(struct virtio_sst_response)) {
    g_autofree struct virtio_sst_response* response = g_memdup2(content, bytes);
    virtio_sst_response(sst, response);
    return NULL;
  }
  return g_strdup_printf("it sent a frame of kind %u with %u bytes", kind, bytes);
}

/* Uses every complete frame and keeps the rest. Returns why the link must end, or NULL. */
static char* take_frames(VirtIOSST* sst) {
  VirtIOSSTLink* link = &sst->link;
  size_t used = 0;
  char* why = NULL;
  while (!why && link->in_bytes - used >= sizeof(struct shmgemm_link_head)) {
    struct shmgemm_link_head head;
    memcpy(&head, link->in + used, sizeof(head));
    const uint32_t bytes = le32_to_cpu(head.bytes);
    if (bytes > SHMGEMM_LINK_MAX_BYTES) {
      return g_strdup_printf("it announced a frame of %u bytes, at most %u are allowed", bytes,
                             SHMGEMM_LINK_MAX_BYTES);
    }
    if (link->in_bytes - used < sizeof(head) + bytes) {
      break;
    }
    why = take_frame(sst, le32_to_cpu(head.kind), link->in + used + sizeof(head), bytes);
    used += sizeof(head) + bytes;
  }
  link->in_bytes -= used;
  memmove(link->in, link->in + used, link->in_bytes);
  return why;
}

static gboolean on_readable(QIOChannel* channel, GIOCondition condition, gpointer opaque) {
  VirtIOSST* sst = opaque;
  VirtIOSSTLink* link = &sst->link;
  g_autofree char* why = NULL;
  Error* error = NULL;
  ssize_t bytes = qio_channel_read(channel, (char*)link->in + link->in_bytes,
                                   sizeof(link->in) - link->in_bytes, &error);
  if (bytes == QIO_CHANNEL_ERR_BLOCK) {
    return G_SOURCE_CONTINUE;
  }
  if (bytes <= 0) {
    hang_up(sst, bytes == 0 ? "the engine hung up" : error_get_pretty(error));
    error_free(error);
    return G_SOURCE_REMOVE;
  }
  sst->config.counters.bytes_from_engine += bytes;
  link->in_bytes += bytes;
  why = take_frames(sst);
  virtio_sst_answered(sst);
  if (why) {
    fail(sst, why);
    return G_SOURCE_REMOVE;
  }
  return G_SOURCE_CONTINUE;
}

/* --- connecting ------------------------------------------------------------------------------- */

static void remove_watch(guint* watch) {
  if (*watch) {
    g_source_remove(*watch);
    *watch = 0;
  }
}

static void disconnect(VirtIOSST* sst) {
  VirtIOSSTLink* link = &sst->link;
  remove_watch(&link->read_watch);
  remove_watch(&link->write_watch);
  g_byte_array_set_size(link->out, 0);
  link->in_bytes = 0;
  link->ready = false;
  if (link->channel) {
    qio_channel_close(QIO_CHANNEL(link->channel), NULL);
    object_unref(OBJECT(link->channel));
    link->channel = NULL;
  }
}

static void connect_later(VirtIOSST* sst) {
  timer_mod(sst->link.reconnect, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + VIRTIO_SST_RECONNECT_MS);
}

static void hang_up(VirtIOSST* sst, const char* why) {
  if (sst->link.channel) {
    trace_virtio_sst_link_lost(sst->index, why);
    disconnect(sst);
    virtio_sst_hung_up(sst);
    connect_later(sst);
  }
}

static void on_connected(QIOTask* task, gpointer opaque) {
  VirtIOSSTAttempt* attempt = opaque;
  VirtIOSST* sst = attempt->sst;
  QIOChannel* channel = QIO_CHANNEL(qio_task_get_source(task));
  const bool failed = qio_task_propagate_error(task, NULL);
  if (!sst) {
    return;
  }
  sst->link.attempt = NULL;
  if (failed || qio_channel_set_blocking(channel, false, NULL) < 0) {
    connect_later(sst);
    return;
  }
  sst->link.channel = QIO_CHANNEL_SOCKET(object_ref(OBJECT(channel)));
  sst->link.read_watch = qio_channel_add_watch(channel, G_IO_IN, on_readable, sst, NULL);
  send_hello(sst);
}

/* In a thread of its own: where the engine's backlog is full, connect() waits. */
static void connect_engine(void* opaque) {
  VirtIOSST* sst = opaque;
  SocketAddress address = {.type = SOCKET_ADDRESS_TYPE_UNIX, .u.q_unix.path = sst->socket};
  g_autoptr(QIOChannelSocket) channel = qio_channel_socket_new();
  trace_virtio_sst_link_connect(sst->index, sst->socket);
  sst->link.attempt = g_new(VirtIOSSTAttempt, 1);
  sst->link.attempt->sst = sst;
  qio_channel_socket_connect_async(channel, &address, on_connected, sst->link.attempt, g_free,
                                   NULL);
}

void virtio_sst_link_restart(VirtIOSST* sst) {
  if (sst->link.channel) {
    disconnect(sst);
    virtio_sst_hung_up(sst);
    connect_engine(sst);
  }
}

void virtio_sst_link_init(VirtIOSST* sst) {
  sst->link.out = g_byte_array_new();
  sst->link.reconnect = timer_new_ms(QEMU_CLOCK_REALTIME, connect_engine, sst);
  connect_engine(sst);
}

void virtio_sst_link_finalize(VirtIOSST* sst) {
  if (sst->link.attempt) {
    sst->link.attempt->sst = NULL;
  }
  disconnect(sst);
  timer_free(sst->link.reconnect);
  g_byte_array_free(sst->link.out, TRUE);
  g_clear_pointer(&sst->link.complaint, g_free);
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The virtio-sst device: takes records off the virtqueue, hands them to the link, and uses their
 * chains in whatever order the engine answers. Nothing here waits: without an engine a record is
 * answered NO_DEVICE at once. The guest is not trusted; what it may do wrong ends as a bad chain.
 */
#include "qemu/osdep.h"

#include "hw/qdev-properties.h"
#include "migration/blocker.h"
#include "qapi/error.h"
#include "qemu/iov.h"
#include "qemu/module.h"
#include "standard-headers/linux/virtio_ids.h"
#include "trace.h"
#include "virtio-sst.h"

#define CHAINS_PER_TURN SHMGEMM_RING_SLOTS /* of the main loop, which has other work too */
#define MAX_PENDING SHMGEMM_RING_SLOTS     /* a guest may give the queue more room than it had */

/* A chain that waits for the engine's answer. virtqueue_pop() wants the element first. */
typedef struct VirtIOSSTPending {
  VirtQueueElement element;
  uint64_t id; /* key in its table */
  uint64_t user;
  int64_t taken_ns;
  uint32_t generation;
  uint16_t device;
} VirtIOSSTPending;

static guint count_pending(VirtIOSST* sst) {
  return g_hash_table_size(sst->commands) + g_hash_table_size(sst->requests);
}

static int64_t now_ns(void) { return qemu_clock_get_ns(QEMU_CLOCK_REALTIME); }

static void use_chain(VirtIOSST* sst, VirtIOSSTPending* pending, const void* answer, size_t bytes) {
  size_t written = 0;
  if (bytes) {
    written = iov_from_buf(pending->element.in_sg, pending->element.in_num, 0, answer, bytes);
  }
  virtqueue_push(sst->vq, &pending->element, written);
  g_free(pending);
}

static void answer_command_no_device(VirtIOSST* sst, VirtIOSSTPending* pending) {
  struct shmgemm_completion completion = {
      .id = cpu_to_le64(pending->id),
      .generation = cpu_to_le32(pending->generation),
      .status = cpu_to_le16(SHMGEMM_STATUS_NO_DEVICE),
      .device = cpu_to_le16(pending->device),
  };
  trace_virtio_sst_no_device(sst->index, pending->id);
  sst->config.counters.no_device++;
  use_chain(sst, pending, &completion, sizeof(completion));
}

static void answer_request_no_device(VirtIOSST* sst, VirtIOSSTPending* pending) {
  g_autofree struct virtio_sst_response* response = g_new0(struct virtio_sst_response, 1);
  response->status = cpu_to_le32(SHMGEMM_STATUS_NO_DEVICE);
  response->id = cpu_to_le64(pending->id);
  response->user = cpu_to_le64(pending->user);
  trace_virtio_sst_no_device(sst->index, pending->id);
  sst->config.counters.no_device++;
  use_chain(sst, pending, response, sizeof(*response));
}

static void refuse_chain(VirtIOSST* sst, VirtIOSSTPending* pending, const char* why) {
  size_t readable = iov_size(pending->element.out_sg, pending->element.out_num);
  size_t writable = iov_size(pending->element.in_sg, pending->element.in_num);
  trace_virtio_sst_bad_chain(sst->index, why, readable, writable);
  sst->config.counters.bad_chains++;
  use_chain(sst, pending, NULL, 0);
}

static void send_batch(VirtIOSST* sst) {
  if (sst->batched) {
    virtio_sst_link_send(sst, SHMGEMM_LINK_COMMANDS, sst->batch,
                         sst->batched * sizeof(sst->batch[0]));
    sst->batched = 0;
  }
}

/* The record was copied once out of the guest's memory; what is judged is what is sent. */
static void take_command(VirtIOSST* sst, VirtIOSSTPending* pending) {
  struct shmgemm_command command;
  iov_to_buf(pending->element.out_sg, pending->element.out_num, 0, &command, sizeof(command));
  pending->id = le64_to_cpu(command.id);
  pending->generation = le32_to_cpu(command.generation);
  pending->device = command.device;
  if (g_hash_table_contains(sst->commands, &pending->id)) {
    refuse_chain(sst, pending, "a command of this id is pending");
    return;
  }
  trace_virtio_sst_command(sst->index, pending->id, command.op);
  sst->config.counters.commands++;
  if (!sst->link.ready) {
    answer_command_no_device(sst, pending);
    return;
  }
  g_hash_table_insert(sst->commands, &pending->id, pending);
  sst->batch[sst->batched++] = command;
}

static void take_request(VirtIOSST* sst, VirtIOSSTPending* pending) {
  g_autofree struct virtio_sst_request* request = g_new(struct virtio_sst_request, 1);
  iov_to_buf(pending->element.out_sg, pending->element.out_num, 0, request, sizeof(*request));
  pending->id = le64_to_cpu(request->id);
  pending->user = le64_to_cpu(request->user);
  if (g_hash_table_contains(sst->requests, &pending->id)) {
    refuse_chain(sst, pending, "a request of this id is pending");
    return;
  }
  trace_virtio_sst_request(sst->index, pending->id, le32_to_cpu(request->type));
  sst->config.counters.requests++;
  if (!sst->link.ready) {
    answer_request_no_device(sst, pending);
    return;
  }
  g_hash_table_insert(sst->requests, &pending->id, pending);
  send_batch(sst);
  virtio_sst_link_send(sst, SHMGEMM_LINK_REQUEST, request, sizeof(*request));
}

static void take_chain(VirtIOSST* sst, VirtIOSSTPending* pending) {
  size_t readable = iov_size(pending->element.out_sg, pending->element.out_num);
  size_t writable = iov_size(pending->element.in_sg, pending->element.in_num);
  pending->taken_ns = now_ns();
  if (readable == sizeof(struct shmgemm_command) && writable == sizeof(struct shmgemm_completion)) {
    take_command(sst, pending);
  } else if (readable == sizeof(struct virtio_sst_request) &&
             writable == sizeof(struct virtio_sst_response)) {
    take_request(sst, pending);
  } else {
    refuse_chain(sst, pending, "no record has these sizes");
  }
}

static void take_chains(void* opaque) {
  VirtIOSST* sst = opaque;
  VirtIODevice* vdev = VIRTIO_DEVICE(sst);
  unsigned taken = 0;
  while (taken < CHAINS_PER_TURN && count_pending(sst) < MAX_PENDING) {
    VirtIOSSTPending* pending = virtqueue_pop(sst->vq, sizeof(*pending));
    if (!pending) {
      break;
    }
    take_chain(sst, pending);
    taken++;
  }
  send_batch(sst);
  virtio_sst_link_flush(sst);
  if (taken) {
    virtio_notify(vdev, sst->vq);
  }
  if (taken == CHAINS_PER_TURN) {
    qemu_bh_schedule(sst->bh);
  }
}

static void handle_output(VirtIODevice* vdev, VirtQueue* vq) {
  qemu_bh_schedule(VIRTIO_SST(vdev)->bh);
}

static VirtIOSSTPending* end_pending(VirtIOSST* sst, GHashTable* table, uint64_t id,
                                     uint32_t status) {
  VirtIOSSTPending* pending = g_hash_table_lookup(table, &id);
  if (!pending) {
    trace_virtio_sst_unknown_answer(sst->index, id);
    return NULL;
  }
  g_hash_table_remove(table, &id);
  int64_t sojourn_ns = now_ns() - pending->taken_ns;
  trace_virtio_sst_answer(sst->index, id, status, sojourn_ns);
  sst->config.counters.completed++;
  sst->config.counters.sojourn_ns += sojourn_ns;
  return pending;
}

void virtio_sst_completion(VirtIOSST* sst, const struct shmgemm_completion* completion) {
  VirtIOSSTPending* pending =
      end_pending(sst, sst->commands, le64_to_cpu(completion->id), le16_to_cpu(completion->status));
  if (pending) {
    use_chain(sst, pending, completion, sizeof(*completion));
  }
}

void virtio_sst_response(VirtIOSST* sst, const struct virtio_sst_response* response) {
  VirtIOSSTPending* pending =
      end_pending(sst, sst->requests, le64_to_cpu(response->id), le32_to_cpu(response->status));
  if (pending) {
    use_chain(sst, pending, response, sizeof(*response));
  }
}

void virtio_sst_answered(VirtIOSST* sst) {
  virtio_notify(VIRTIO_DEVICE(sst), sst->vq);
  qemu_bh_schedule(sst->bh); /* chains may have waited for room */
}

void virtio_sst_connected(VirtIOSST* sst, const struct shmgemm_link_hello* hello) {
  sst->config.connected = 1;
  sst->config.devices = le32_to_cpu(hello->devices);
  sst->config.generation = le32_to_cpu(hello->generation);
  sst->config.region_bytes = le64_to_cpu(hello->region_bytes);
  sst->config.region_id[0] = le64_to_cpu(hello->region_id[0]);
  sst->config.region_id[1] = le64_to_cpu(hello->region_id[1]);
  sst->config.clock_hz = le64_to_cpu(hello->clock_hz);
  virtio_notify_config(VIRTIO_DEVICE(sst));
}

static void end_all(VirtIOSST* sst, GHashTable* table,
                    void (*end)(VirtIOSST* sst, VirtIOSSTPending* pending)) {
  GHashTableIter iterator;
  gpointer pending;
  g_hash_table_iter_init(&iterator, table);
  while (g_hash_table_iter_next(&iterator, NULL, &pending)) {
    g_hash_table_iter_remove(&iterator);
    end(sst, pending);
  }
}

/* What comes from now on is answered at once; what was pending is answered here. */
void virtio_sst_hung_up(VirtIOSST* sst) {
  const bool pending = count_pending(sst) != 0;
  end_all(sst, sst->commands, answer_command_no_device);
  end_all(sst, sst->requests, answer_request_no_device);
  if (pending) {
    virtio_sst_answered(sst);
  }
  if (sst->config.connected) {
    sst->config.connected = 0;
    virtio_notify_config(VIRTIO_DEVICE(sst));
  }
}

static void detach(VirtIOSST* sst, VirtIOSSTPending* pending) {
  virtqueue_detach_element(sst->vq, &pending->element, 0);
  g_free(pending);
}

/*
 * The guest takes back what is pending. The engine may still answer it, with ids that the next
 * driver uses again: a new connection keeps the two apart.
 */
static void virtio_sst_reset(VirtIODevice* vdev) {
  VirtIOSST* sst = VIRTIO_SST(vdev);
  const guint pending = count_pending(sst);
  trace_virtio_sst_reset(sst->index, pending);
  qemu_bh_cancel(sst->bh);
  end_all(sst, sst->commands, detach);
  end_all(sst, sst->requests, detach);
  if (pending) {
    virtio_sst_link_restart(sst);
  }
}

static void virtio_sst_get_config(VirtIODevice* vdev, uint8_t* bytes) {
  const struct virtio_sst_config* from = &VIRTIO_SST(vdev)->config;
  const struct virtio_sst_device_counters* counters = &from->counters;
  struct virtio_sst_config config = {
      .abi_major = cpu_to_le16(from->abi_major),
      .abi_minor = cpu_to_le16(from->abi_minor),
      .index = cpu_to_le32(from->index),
      .connected = cpu_to_le32(from->connected),
      .devices = cpu_to_le32(from->devices),
      .generation = cpu_to_le32(from->generation),
      .region_bytes = cpu_to_le64(from->region_bytes),
      .region_id = {cpu_to_le64(from->region_id[0]), cpu_to_le64(from->region_id[1])},
      .clock_hz = cpu_to_le64(from->clock_hz),
      .counters = {
          .commands = cpu_to_le64(counters->commands),
          .requests = cpu_to_le64(counters->requests),
          .completed = cpu_to_le64(counters->completed),
          .no_device = cpu_to_le64(counters->no_device),
          .bad_chains = cpu_to_le64(counters->bad_chains),
          .bytes_to_engine = cpu_to_le64(counters->bytes_to_engine),
          .bytes_from_engine = cpu_to_le64(counters->bytes_from_engine),
          .sojourn_ns = cpu_to_le64(counters->sojourn_ns),
      }};
  memcpy(bytes, &config, sizeof(config));
}

static uint64_t virtio_sst_get_features(VirtIODevice* vdev, uint64_t features, Error** errp) {
  return features;
}

static bool check_socket(VirtIOSST* sst, Error** errp) {
  const size_t longest = sizeof(((struct sockaddr_un*)0)->sun_path) - 1;
  if (!sst->socket || !sst->socket[0]) {
    error_setg(errp, "virtio-sst: socket=PATH is missing: the engine's Unix socket");
    return false;
  }
  if (strlen(sst->socket) > longest) {
    error_setg(errp, "virtio-sst: socket=%s has %zu characters, a Unix socket's path at most %zu",
               sst->socket, strlen(sst->socket), longest);
    return false;
  }
  return true;
}

static void virtio_sst_realize(DeviceState* dev, Error** errp) {
  VirtIODevice* vdev = VIRTIO_DEVICE(dev);
  VirtIOSST* sst = VIRTIO_SST(dev);
  if (!check_socket(sst, errp)) {
    return;
  }
  error_setg(&sst->migration_blocker,
             "virtio-sst cannot migrate: the engine and the region stay on this host");
  if (migrate_add_blocker(sst->migration_blocker, errp) < 0) {
    error_free(sst->migration_blocker);
    sst->migration_blocker = NULL;
    return;
  }
  /* virtio_init() knows names by id and refuses an id that has none. */
  virtio_init(vdev, VIRTIO_ID_RNG, sizeof(struct virtio_sst_config));
  vdev->device_id = VIRTIO_SST_DEVICE_ID;
  vdev->name = "virtio-sst";
  sst->vq = virtio_add_queue(vdev, VIRTIO_SST_QUEUE_SIZE, handle_output);
  sst->bh = virtio_bh_new_guarded(dev, take_chains, sst);
  sst->commands = g_hash_table_new(g_int64_hash, g_int64_equal);
  sst->requests = g_hash_table_new(g_int64_hash, g_int64_equal);
  sst->config.abi_major = SHMGEMM_ABI_MAJOR;
  sst->config.abi_minor = SHMGEMM_ABI_MINOR;
  sst->config.index = sst->index;
  virtio_sst_link_init(sst);
}

static void virtio_sst_unrealize(DeviceState* dev) {
  VirtIODevice* vdev = VIRTIO_DEVICE(dev);
  VirtIOSST* sst = VIRTIO_SST(dev);
  end_all(sst, sst->commands, detach);
  end_all(sst, sst->requests, detach);
  virtio_sst_link_finalize(sst);
  qemu_bh_delete(sst->bh);
  g_hash_table_destroy(sst->commands);
  g_hash_table_destroy(sst->requests);
  virtio_delete_queue(sst->vq);
  virtio_cleanup(vdev);
  migrate_del_blocker(sst->migration_blocker);
  error_free(sst->migration_blocker);
}

static Property virtio_sst_properties[] = {
    DEFINE_PROP_STRING("socket", VirtIOSST, socket),
    DEFINE_PROP_UINT32("index", VirtIOSST, index, 0),
    DEFINE_PROP_END_OF_LIST(),
};

static void virtio_sst_class_init(ObjectClass* klass, void* data) {
  DeviceClass* dc = DEVICE_CLASS(klass);
  VirtioDeviceClass* vdc = VIRTIO_DEVICE_CLASS(klass);
  device_class_set_props(dc, virtio_sst_properties);
  set_bit(DEVICE_CATEGORY_MISC, dc->categories);
  dc->desc = "simulated matrix accelerator";
  vdc->realize = virtio_sst_realize;
  vdc->unrealize = virtio_sst_unrealize;
  vdc->get_features = virtio_sst_get_features;
  vdc->get_config = virtio_sst_get_config;
  vdc->reset = virtio_sst_reset;
}

static const TypeInfo virtio_sst_info = {
    .name = TYPE_VIRTIO_SST,
    .parent = TYPE_VIRTIO_DEVICE,
    .instance_size = sizeof(VirtIOSST),
    .class_init = virtio_sst_class_init,
};

static void virtio_sst_register_types(void) { type_register_static(&virtio_sst_info); }

type_init(virtio_sst_register_types)

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The virtio-sst device and its file /dev/sst<index>: virtio configuration space, the one
 * virtqueue, the older fixed records, ioctls. Shared by the QEMU device, the Linux driver (whose
 * uapi header it is), the device server and the engines. Little endian.
 *
 * Virtqueue 0: one chain for each record, told apart by the bytes that the device may read:
 *   128 (struct shmgemm_command)      and may write  64 (struct shmgemm_completion)
 *   4104 (struct virtio_sst_request)  and may write 4112 (struct virtio_sst_response)
 * The device uses chains in any order. Any other chain is used with 0 bytes written. A record for
 * which no engine is there, or whose engine hangs up, ends with status NO_DEVICE.
 *
 * The file: write() of n x 128 bytes submits n commands, of 4104 bytes one request. read() into n x
 * 64 bytes takes up to n completions, into 4112 bytes one response. mmap() gives the region, offset
 * 0 its byte 0. Each open file is a client of its own: ids and streams (0 to
 * VIRTIO_SST_MAX_STREAM) are its own.
 */
#ifndef VIRTIO_SST_H
#define VIRTIO_SST_H

#include "shmgemm_abi.h"

#ifdef __KERNEL__
#include <linux/ioctl.h>
#elif defined(__linux__)
#include <sys/ioctl.h>
#endif

#define VIRTIO_SST_DEVICE_ID 63u
#define VIRTIO_SST_PCI_VENDOR_ID 0x1af4u
#define VIRTIO_SST_PCI_DEVICE_ID 0x107fu /* 0x1040 + 63 */
#define VIRTIO_SST_QUEUE_SIZE 256u
#define VIRTIO_SST_MAX_STREAM 0xffffu

/* Counted by the device since it was made. */
struct virtio_sst_device_counters {
  uint64_t commands;   /* taken from the virtqueue */
  uint64_t requests;   /* older ones */
  uint64_t completed;  /* answered with what an engine said */
  uint64_t no_device;  /* answered with NO_DEVICE */
  uint64_t bad_chains; /* of no known size */
  uint64_t bytes_to_engine;
  uint64_t bytes_from_engine;
  uint64_t sojourn_ns; /* sum over completed records: from the virtqueue and back to it */
};

/* Configuration space. A change of `connected` raises the configuration interrupt. */
struct virtio_sst_config {
  uint16_t abi_major;
  uint16_t abi_minor;
  uint32_t index;
  uint32_t connected; /* 1: an engine has said HELLO; what follows up to the counters is its own */
  uint32_t devices;
  uint32_t generation;
  uint32_t reserved;
  uint64_t region_bytes;
  uint64_t region_id[2];
  uint64_t clock_hz;
  struct virtio_sst_device_counters counters;
};

/* --- the older fixed records ------------------------------------------------------------------ */

#define VIRTIO_SST_PAYLOAD_BYTES 4080u

/* `type` is an enum shmgemm_op from NOOP to CONFIGURE. */
struct virtio_sst_request {
  uint32_t type;
  uint32_t flags;
  uint64_t id;
  uint64_t user;
  uint8_t payload[VIRTIO_SST_PAYLOAD_BYTES];
};

/* `status` is an enum shmgemm_status from OK to NO_DEVICE; id and user are the request's. */
struct virtio_sst_response {
  uint32_t status;
  uint32_t reserved;
  uint64_t id;
  uint64_t user;
  uint64_t result;
  uint8_t payload[VIRTIO_SST_PAYLOAD_BYTES];
};

struct virtio_sst_compute_request {
  uint64_t compute_units; /* FLOPs */
  uint32_t latency_model; /* 0 */
  uint32_t reserved;
};

struct virtio_sst_compute_response {
  uint64_t cycles;
  uint64_t timestamp; /* simulated time at the end, in cycles */
};

/* READ and WRITE of device memory; the data follow, in the request or in the response. */
struct virtio_sst_transfer {
  uint64_t address;
  uint32_t bytes;
  uint32_t reserved;
};

#define VIRTIO_SST_MAX_TRANSFER_BYTES (VIRTIO_SST_PAYLOAD_BYTES - 16u)

struct virtio_sst_configure {
  uint32_t parameter; /* enum shmgemm_configure */
  uint32_t reserved;
  uint64_t value;
};

struct virtio_sst_info_response {
  uint32_t version;      /* abi_major << 16 | abi_minor */
  uint32_t capabilities; /* bit t set: type t is served */
  uint64_t max_compute_units;
  uint64_t memory_bytes; /* of the device's own memory, which READ and WRITE reach */
};

/* --- ioctls ----------------------------------------------------------------------------------- */

enum virtio_sst_interrupts {
  VIRTIO_SST_POLLED = 0, /* no interrupt came: a timer looks */
  VIRTIO_SST_MSIX = 1,
  VIRTIO_SST_LINE = 2
};

struct virtio_sst_info {
  uint16_t abi_major; /* of the driver */
  uint16_t abi_minor;
  uint32_t index;
  uint32_t connected;
  uint32_t devices;
  uint32_t generation;
  uint32_t interrupts;   /* enum virtio_sst_interrupts */
  uint64_t region_bytes; /* 0: no region is mapped */
  uint64_t region_id[2]; /* of the mapped region */
  uint64_t clock_hz;
  uint64_t reserved[9];
};

/* Counted by the driver since it was bound, over all files; then what the device counts. */
struct virtio_sst_counters {
  uint64_t commands;
  uint64_t requests;
  uint64_t completions; /* handed to a file */
  uint64_t responses;
  uint64_t dropped;  /* answers whose file was closed or whose reader gave up */
  uint64_t nonsense; /* answers to nothing that is in flight, or of a wrong length */
  uint64_t bytes_written;
  uint64_t bytes_read;
  uint64_t sojourn_ns; /* sum over answers: from the submission to the answer's arrival */
  uint64_t polls;      /* by the timer, that found something */
  uint64_t rejected; /* commands and requests answered by the driver: they never reach the device */
  uint64_t reserved[5];
  struct virtio_sst_device_counters device;
};

#define VIRTIO_SST_IOC_INFO _IOR(0xb7, 0, struct virtio_sst_info)
#define VIRTIO_SST_IOC_COUNTERS _IOR(0xb7, 1, struct virtio_sst_counters)

SHMGEMM_SIZE_IS(virtio_sst_device_counters, 64);
SHMGEMM_SIZE_IS(virtio_sst_config, 120);
SHMGEMM_OFFSET_IS(virtio_sst_config, region_bytes, 24);
SHMGEMM_OFFSET_IS(virtio_sst_config, counters, 56);
SHMGEMM_SIZE_IS(virtio_sst_request, 4104);
SHMGEMM_SIZE_IS(virtio_sst_response, 4112);
SHMGEMM_SIZE_IS(virtio_sst_transfer, 16);
SHMGEMM_SIZE_IS(virtio_sst_info_response, 24);
SHMGEMM_SIZE_IS(virtio_sst_info, 128);
SHMGEMM_SIZE_IS(virtio_sst_counters, 192);

#endif

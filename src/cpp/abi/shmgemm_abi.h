/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Every record that crosses a process or a machine: the region's header, commands, completions,
 * reports and control messages. Little endian, fixed width, no pointers. All sides (host, engine,
 * SST element, QEMU device, Linux driver, guest server) include this file and nothing else in
 * common. A layout change raises SHMGEMM_ABI_MAJOR; a new op, status or reserved field raises the
 * minor.
 */
#ifndef SHMGEMM_ABI_H
#define SHMGEMM_ABI_H

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/types.h>
#else
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#endif

#define SHMGEMM_MAGIC 0x314d4d45474d4853ull /* "SHMGEMM1" read as little-endian bytes */
#define SHMGEMM_ABI_MAJOR 1
#define SHMGEMM_ABI_MINOR 1

/* Sizes and places within the region, all in bytes. */
#define SHMGEMM_MIN_REGION_BYTES (4ull << 20)
#define SHMGEMM_PAGE_BYTES 4096u
#define SHMGEMM_HEAP_ALIGN (2ull << 20)      /* where the heap starts */
#define SHMGEMM_BLOCK_ALIGN 64u              /* a block, and what a report offset counts in */
#define SHMGEMM_LARGE_BLOCK_BYTES (1u << 20) /* from here on blocks are page-aligned */
#define SHMGEMM_MAX_QUEUE_PAIRS 14u
#define SHMGEMM_MAX_PEERS 15u /* peer 0 is the engine, peer 1 + i the client of queue pair i */
#define SHMGEMM_ENGINE_PEER 0u
#define SHMGEMM_MAX_ARENAS 8u
#define SHMGEMM_MAX_ENGINES 8u  /* of one region; engine i has its header in page i */
#define SHMGEMM_RING_SLOTS 256u /* of the command ring and of the completion ring */
#define SHMGEMM_QUEUE_PAIR_BYTES 65536u
#define SHMGEMM_FLUSH_EVERY 128u /* a client flushes at least this often */

/* Operations. 0..7 keep the numbers of the older fixed records. */
enum shmgemm_op {
  SHMGEMM_OP_NOOP = 0,
  SHMGEMM_OP_ECHO = 1,      /* arg[0..2] come back in busy, fill_drain, memory_stall */
  SHMGEMM_OP_COMPUTE = 2,   /* arg[0] FLOPs, arg[1] latency model */
  SHMGEMM_OP_READ = 3,      /* device memory arg[0], arg[1] bytes, to the heap at arg[2] */
  SHMGEMM_OP_WRITE = 4,     /* the other way */
  SHMGEMM_OP_RESET = 5,     /* ends what is in flight on the device, zeroes its counters */
  SHMGEMM_OP_GET_INFO = 6,  /* fills the report block with struct shmgemm_info */
  SHMGEMM_OP_CONFIGURE = 7, /* arg[0] an enum shmgemm_configure, arg[1] its value */
  SHMGEMM_OP_GEMM = 8,
  SHMGEMM_OP_FLUSH = 9, /* ends with `after`, or, where that is 0, with all before it in its ring */
  SHMGEMM_OP_COUNT = 10
};

/* Parameters of CONFIGURE. */
enum shmgemm_configure {
  SHMGEMM_CONFIGURE_MAX_COMPUTE_UNITS = 0, /* above which COMPUTE is refused; at first 2^40 */
  SHMGEMM_CONFIGURE_COUNT = 1
};

enum shmgemm_dtype {
  SHMGEMM_DTYPE_NONE = 0,
  SHMGEMM_DTYPE_FLOAT32 = 1,
  SHMGEMM_DTYPE_FLOAT16 = 2,
  SHMGEMM_DTYPE_BFLOAT16 = 3,
  SHMGEMM_DTYPE_INT8 = 4,
  SHMGEMM_DTYPE_INT32 = 5,
  SHMGEMM_DTYPE_COUNT = 6
};

/* Command flags. */
#define SHMGEMM_FLAG_TRANSPOSE_A 0x01u  /* A lies as K x M */
#define SHMGEMM_FLAG_TRANSPOSE_B 0x02u  /* B lies as N x K */
#define SHMGEMM_FLAG_BIAS 0x04u         /* add bias[N] before the final rounding */
#define SHMGEMM_FLAG_ACCUMULATE 0x08u   /* C += A B */
#define SHMGEMM_FLAG_FLUSH 0x10u        /* the host waits for this op */
#define SHMGEMM_FLAG_BIT_ACCURATE 0x20u /* sum in the order of the modelled array */
#define SHMGEMM_FLAG_ALL 0x3fu

/* 0..5 keep the numbers of the older fixed records; 16 and up say what was wrong with a command. */
enum shmgemm_status {
  SHMGEMM_STATUS_OK = 0,
  SHMGEMM_STATUS_ERROR = 1,
  SHMGEMM_STATUS_BUSY = 2,
  SHMGEMM_STATUS_INVALID = 3,
  SHMGEMM_STATUS_TIMEOUT = 4,
  SHMGEMM_STATUS_NO_DEVICE = 5,
  SHMGEMM_STATUS_UNSUPPORTED = 6, /* a legal command this engine or model does not serve */
  SHMGEMM_STATUS_BAD_GENERATION = 16,
  SHMGEMM_STATUS_BAD_OP = 17,
  SHMGEMM_STATUS_BAD_DTYPE = 18,
  SHMGEMM_STATUS_BAD_FLAGS = 19,
  SHMGEMM_STATUS_BAD_DEVICE = 20,
  SHMGEMM_STATUS_BAD_SHAPE = 21, /* M, N, K or batch is zero, or the product overflows */
  SHMGEMM_STATUS_BAD_LEADING_DIMENSION = 22, /* shorter than a row */
  SHMGEMM_STATUS_BAD_ALIGNMENT = 23,         /* an offset is not a multiple of its element size */
  SHMGEMM_STATUS_OUT_OF_BOUNDS = 24,         /* an operand leaves the heap */
  SHMGEMM_STATUS_OVERLAP = 25,               /* C overlaps A, B, bias, the report or itself */
  SHMGEMM_STATUS_BAD_REPORT = 26,
  SHMGEMM_STATUS_DUPLICATE_ID = 27,
  SHMGEMM_STATUS_BAD_ARGUMENT = 28, /* a field that this op does not use is not 0 */
  SHMGEMM_STATUS_BAD_ID = 29        /* id 0 is reserved */
};

/*
 * Row-major GEMM, for each b < batch: C[b] = A[b] B[b] (+ bias) (+ C[b]).
 * Offsets are bytes from byte 0 of the region, 0 = none; leading dimensions and strides are
 * elements. A lies as M x K with lda >= K (transposed: K x M, lda >= M), B as K x N with ldb >= N
 * (transposed: N x K, ldb >= K), C as M x N with ldc >= N. stride_a/b may be 0 (one matrix for
 * all); stride_c may be 0 only where batch is 1.
 */
struct shmgemm_command {
  uint64_t id; /* chosen by the client, unique among its outstanding ones, never 0 */
  uint32_t generation;
  uint8_t op;
  uint8_t dtype_in;
  uint8_t dtype_out;
  uint8_t device;
  uint32_t flags;
  uint32_t stream;
  uint32_t m;
  uint32_t n;
  uint32_t k;
  uint32_t batch;
  uint32_t lda;
  uint32_t ldb;
  uint32_t ldc;
  uint32_t report; /* offset / 64 of the report block, 0 = none */
  uint64_t stride_a;
  uint64_t stride_b;
  uint64_t stride_c;
  union {
    struct {
      uint64_t a;
      uint64_t b;
      uint64_t c;
      uint64_t bias;
    };
    uint64_t arg[4];
  };
  uint64_t release_cycles; /* not before this simulated time */
  uint32_t after;          /* low 32 bits of the id this op depends on, 0 = none */
  uint32_t seq;            /* written last: 1 + the record's number in its ring, modulo 2^32 */
};

struct shmgemm_completion {
  uint64_t id;
  uint32_t generation;
  uint16_t status;
  uint16_t device;
  uint64_t start_cycles;
  uint64_t end_cycles;
  uint64_t busy_cycles;
  uint64_t fill_drain_cycles;
  uint64_t memory_stall_cycles; /* what is left of end - start is dispatch overhead */
  uint32_t report_bytes;        /* written to the report block */
  uint32_t seq;
};

/* --- report blocks ------------------------------------------------------------------------- */

enum shmgemm_report_kind { SHMGEMM_REPORT_GEMM = 1, SHMGEMM_REPORT_INFO = 2 };
enum shmgemm_level { SHMGEMM_LEVEL_SCRATCHPAD = 0, SHMGEMM_LEVEL_MEMORY = 1, SHMGEMM_LEVELS = 2 };
enum shmgemm_operand {
  SHMGEMM_OPERAND_A = 0,
  SHMGEMM_OPERAND_B = 1,
  SHMGEMM_OPERAND_C = 2,
  SHMGEMM_OPERAND_BIAS = 3,
  SHMGEMM_OPERANDS = 4
};
/* What an entry of a timeline shows, and what its amount counts. */
enum shmgemm_activity {
  SHMGEMM_ACTIVITY_LOAD = 0,    /* from the request to its end; bytes */
  SHMGEMM_ACTIVITY_COMPUTE = 1, /* arrays at work; cycles in which operands stream */
  SHMGEMM_ACTIVITY_STORE = 2,   /* from the request to its end; bytes */
  SHMGEMM_ACTIVITY_STALL = 3,   /* arrays that could work wait for memory; cycles */
  SHMGEMM_ACTIVITIES = 4
};

/* The client allocates SHMGEMM_REPORT_BYTES at least; the engine writes no more than that. */
#define SHMGEMM_REPORT_BYTES 16384u

struct shmgemm_report {
  uint32_t kind;
  uint32_t bytes; /* of the whole report */
};

struct shmgemm_gemm_report {
  struct shmgemm_report head;
  uint64_t macs;
  uint64_t peak_macs_per_cycle;
  uint64_t folds;             /* tiles of the array the GEMM was cut into */
  double mapping_efficiency;  /* mean share of PEs a fold uses, 0..1 */
  double compute_utilization; /* mean share of PE-cycles within a fold that multiply, 0..1 */
  uint64_t read_bytes[SHMGEMM_LEVELS][SHMGEMM_OPERANDS];
  uint64_t write_bytes[SHMGEMM_LEVELS][SHMGEMM_OPERANDS];
  uint32_t timeline_count; /* of the entries that follow */
  uint32_t reserved;
};

/* By core, then kind, then start; those of one core and kind do not overlap. */
struct shmgemm_timeline_entry {
  uint32_t core;
  uint32_t kind; /* enum shmgemm_activity */
  uint64_t start_cycles;
  uint64_t end_cycles;
  uint64_t amount;
};

struct shmgemm_info {
  struct shmgemm_report head;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint32_t devices;
  uint32_t threads;
  uint64_t clock_hz;
  uint64_t peak_macs_per_cycle; /* of one device */
  uint64_t now_cycles;
  uint64_t ops; /* completed by the device since its last RESET */
  uint64_t rejects;
  uint64_t busy_cycles;
  uint64_t dtypes;          /* bit d set: dtype_in d is served */
  uint64_t link_commands;   /* answered on links (shmgemm_link.h) since the engine began */
  uint64_t link_sojourn_ns; /* sum over them: from the socket and back to it */
  uint64_t link_bytes_in;
  uint64_t link_bytes_out;
  uint64_t memory_bytes; /* of the device's own memory, which READ and WRITE reach */
  uint64_t max_compute_units;
  char engine[16]; /* "embedded" or "sst" */
  char model[48];
  char version[32];
};

/* --- the region's header ------------------------------------------------------------------- */

enum shmgemm_peer_state {
  SHMGEMM_PEER_NONE = 0,
  SHMGEMM_PEER_INIT = 1,
  SHMGEMM_PEER_READY = 2,
  SHMGEMM_PEER_DRAINING = 3,
  SHMGEMM_PEER_DEAD = 4
};

/* One cache line, written by its peer alone but for `sleeping`, which whoever wakes it clears. */
struct shmgemm_peer {
  uint32_t state;
  uint32_t sleeping;  /* futex word: 1 while the peer is parked */
  uint64_t heartbeat; /* rises every 100 ms */
  uint32_t pid;
  uint8_t reserved[44];
};

/*
 * An arena has one allocator, in its owner's private memory. Whoever allocates in a FREE one of a
 * region that it did not create holds a lock (F_OFD_SETLK) on the byte at the arena's offset. A
 * FREE one with an owner is kept for that peer: a client that gets its queue pair from the engine
 * (shmgemm_link.h).
 */
enum shmgemm_arena_state {
  SHMGEMM_ARENA_FREE = 0,
  SHMGEMM_ARENA_LEASED = 1, /* by the session that created the region */
  SHMGEMM_ARENA_GUEST = 2   /* for the device server in the guest */
};

struct shmgemm_arena {
  uint64_t offset;
  uint64_t bytes;
  uint32_t owner; /* peer; 0 where none */
  uint32_t state; /* enum shmgemm_arena_state */
};

struct shmgemm_header {
  uint64_t magic;
  uint16_t abi_major;
  uint16_t abi_minor;
  uint32_t header_bytes;
  uint64_t region_bytes;
  uint64_t region_id[2]; /* random */
  uint32_t generation;   /* rises with each engine; 0 = none yet */
  uint32_t queue_pair_count;
  uint64_t queue_pair_offset;
  uint64_t heap_offset;
  uint64_t heap_bytes;
  uint32_t arena_count;
  uint32_t reserved0;
  uint8_t reserved1[176];
  struct shmgemm_arena arenas[SHMGEMM_MAX_ARENAS];
  uint8_t reserved2[64];
  struct shmgemm_peer peers[SHMGEMM_MAX_PEERS];
};

/* A queue pair: commands flow to the engine, completions back. Indices are private to each side. */
struct shmgemm_queue_pair {
  struct shmgemm_command commands[SHMGEMM_RING_SLOTS];
  struct shmgemm_completion completions[SHMGEMM_RING_SLOTS];
};

/* --- control socket (SOCK_SEQPACKET): one record a packet ----------------------------------- */

enum shmgemm_control_kind {
  SHMGEMM_CONTROL_READY = 1,   /* engine -> session: it serves */
  SHMGEMM_CONTROL_FAILED = 2,  /* engine -> session: it cannot; text says why */
  SHMGEMM_CONTROL_SHUTDOWN = 3 /* session -> engine: end */
};

struct shmgemm_control {
  uint32_t kind;
  uint16_t abi_major;
  uint16_t abi_minor;
  uint32_t pid;
  uint32_t text_bytes;
  char text[240];
};

#define SHMGEMM_OFFSET_IS(type, field, value) \
  static_assert(offsetof(struct type, field) == (value), #type "." #field " moved")
#define SHMGEMM_SIZE_IS(type, value) \
  static_assert(sizeof(struct type) == (value), "size of " #type " changed")

SHMGEMM_SIZE_IS(shmgemm_command, 128);
SHMGEMM_OFFSET_IS(shmgemm_command, generation, 8);
SHMGEMM_OFFSET_IS(shmgemm_command, op, 12);
SHMGEMM_OFFSET_IS(shmgemm_command, flags, 16);
SHMGEMM_OFFSET_IS(shmgemm_command, m, 24);
SHMGEMM_OFFSET_IS(shmgemm_command, lda, 40);
SHMGEMM_OFFSET_IS(shmgemm_command, report, 52);
SHMGEMM_OFFSET_IS(shmgemm_command, stride_a, 56);
SHMGEMM_OFFSET_IS(shmgemm_command, a, 80);
SHMGEMM_OFFSET_IS(shmgemm_command, arg, 80);
SHMGEMM_OFFSET_IS(shmgemm_command, release_cycles, 112);
SHMGEMM_OFFSET_IS(shmgemm_command, after, 120);
SHMGEMM_OFFSET_IS(shmgemm_command, seq, 124);
SHMGEMM_SIZE_IS(shmgemm_completion, 64);
SHMGEMM_OFFSET_IS(shmgemm_completion, status, 12);
SHMGEMM_OFFSET_IS(shmgemm_completion, start_cycles, 16);
SHMGEMM_OFFSET_IS(shmgemm_completion, report_bytes, 56);
SHMGEMM_OFFSET_IS(shmgemm_completion, seq, 60);
SHMGEMM_SIZE_IS(shmgemm_gemm_report, 184);
SHMGEMM_SIZE_IS(shmgemm_timeline_entry, 32);
SHMGEMM_SIZE_IS(shmgemm_info, 224);
SHMGEMM_SIZE_IS(shmgemm_peer, 64);
SHMGEMM_SIZE_IS(shmgemm_arena, 24);
SHMGEMM_OFFSET_IS(shmgemm_header, region_bytes, 16);
SHMGEMM_OFFSET_IS(shmgemm_header, generation, 40);
SHMGEMM_OFFSET_IS(shmgemm_header, arenas, 256);
SHMGEMM_OFFSET_IS(shmgemm_header, peers, 512);
SHMGEMM_SIZE_IS(shmgemm_header, 1472);
SHMGEMM_SIZE_IS(shmgemm_queue_pair, 49152);
SHMGEMM_SIZE_IS(shmgemm_control, 256);

#endif

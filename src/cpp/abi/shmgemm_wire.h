/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The head of each frame between a client and a device server over TCP (docs/protocol.md), big
 * endian: magic u32, bytes of the payload u32, op u8.
 */
#ifndef SHMGEMM_WIRE_H
#define SHMGEMM_WIRE_H

#define SHMGEMM_WIRE_MAGIC 0xdeadbeefu
#define SHMGEMM_WIRE_HEAD_BYTES 9u

enum shmgemm_wire_op {
  SHMGEMM_WIRE_GEMM = 0,
  SHMGEMM_WIRE_LINEAR = 1,
  SHMGEMM_WIRE_COMMANDS = 16,
  SHMGEMM_WIRE_STATUS = 17
};

#endif

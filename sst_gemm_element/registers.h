/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of a GemmDevice's memory-mapped command port, as offsets from its parameter
 * `mmio_base`; little endian. To run a GEMM: write a struct shmgemm_command to COMMAND, in pieces
 * of any size; write DOORBELL; read WAIT (or READY until it is not 0); read COMPLETION; write NEXT.
 *
 * An access lies within one register. Of COMMAND and COMPLETION it may be any part, of the others,
 * which have 8 bytes, it begins with the first. What breaks these rules is answered as failed, and
 * changes nothing: a register that is not there, a write to one that is read only and the other
 * way round, DOORBELL with SHMGEMM_MMIO_COMMANDS commands not yet dropped, WAIT where no command is
 * under way, NEXT where COMPLETION is empty.
 */
#ifndef SHMGEMM_REGISTERS_H
#define SHMGEMM_REGISTERS_H

enum shmgemm_mmio {
  SHMGEMM_MMIO_COMMAND = 0x00,    /* 128 bytes, read and write: the command to be sent */
  SHMGEMM_MMIO_DOORBELL = 0x80,   /* written: sends what COMMAND holds; read: how many were sent */
  SHMGEMM_MMIO_READY = 0x88,      /* read: completions waiting, that in the window among them */
  SHMGEMM_MMIO_WAIT = 0x90,       /* read: as READY, answered when it is not 0 */
  SHMGEMM_MMIO_NEXT = 0x98,       /* written: drops the completion in the window for the next */
  SHMGEMM_MMIO_COMPLETION = 0xc0, /* 64 bytes, read: struct shmgemm_completion; 0 where none is */
  SHMGEMM_MMIO_BYTES = 0x100      /* of the port, and what `mmio_base` is a multiple of */
};

/* Sent and not yet dropped from the window, at most; as many reads of WAIT may be waiting. */
#define SHMGEMM_MMIO_COMMANDS 256u

#endif

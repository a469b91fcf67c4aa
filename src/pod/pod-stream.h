#pragma once
/* Moves the bytes of one stream, stdout or stderr of a container:
 *
 *     container's pipe ──splice──▶ staging pipe ──read──▶ buffer in the state memfd ──write──▶ log file
 *
 * How many bytes a system call moved is lost when the process dies before it has stored the result, so each step is made
 * such that the number can be found again. Nobody but us writes to the staging pipe, so FIONREAD is exact; nobody but us
 * appends to the log, so its size is exact; and what is to be written is a function of the buffer and a recorded time.
 *
 * An unfinished line stays in the buffer, which the stream then keeps. A stream whose log cannot be written (disk full)
 * keeps its buffer as well and stops reading; the others take other buffers. Else there is one, used in turn. */

#include "pod/pod-log.h"

/* Moves one block from the stream's source into its buffer. Returns the bytes, 0 when there are none now, -EIO when a
 * terminal has ended. Not for a stream that is WRITING. */
int stream_read(uint32_t index);
/* Writes the finished lines of the buffer, with `flush` an unfinished one too, and finishes what is half written.
 * 0, or why the log cannot be written. */
int stream_write(uint32_t index, bool flush);
/* A log that doesn't take what is half written: gives the block back, unless a part of it is in the file. */
bool stream_unwrite(uint32_t index);
/* The stream is readable: moves one block into the log, or stops watching it. */
void stream_ready(uint32_t index);
/* After a restart: marks the buffer of the stream as taken, for all of them before the first stream_recover(), which
 * takes up where the process before was killed. */
void stream_claim(uint32_t index);
void stream_recover(uint32_t index);

int stream_source(uint32_t index);
void stream_watch(uint32_t index, bool watch);
/* Gives the stream's buffer back, with what is in it. */
void stream_release(uint32_t index);
/* The log of this stream's container doesn't take anything now (r: why): not watched until pump_retry(). */
void stream_stuck(uint32_t index, int r);
/* Gives the memory of the lines back. */
void stream_trim(void);

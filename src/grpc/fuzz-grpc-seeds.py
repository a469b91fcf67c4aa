#!/usr/bin/python3
"""Inputs for fuzz-grpc to begin with: fuzz-grpc-seeds.py DIRECTORY. They bring the server into the state that is hardest to
find, with streams ended in a write that is stuck (see step() in fuzz-grpc.c for the bytes)."""

import os
import sys


def call(path, message=b'', variant=0):
    return bytes([10, variant, path, len(message)]) + message


def window_update(stream, value):
    return bytes([13, stream, value])


def seed(kind, read):
    out = bytes([3, 25]) + call(5) + window_update(1, 128 + 20) + bytes([13 | 128, 128 + 20]) + bytes([0xfe])
    for _ in range(6):
        for _ in range(4):
            out += kind
        out += bytes([12, 255]) + bytes([0xfe]) + bytes([0xff, read])
        for stream in range(1, 5):
            out += window_update(stream, 1)
        for window in (0, 128 + 20, 0, 25):
            out += bytes([12 | 128, window])
        out += bytes([0xfe])
    return out


os.makedirs(sys.argv[1], exist_ok=True)
for i, kind in enumerate((call(0, b'y' * 20), call(6), call(0, b'', 128 | 32), call(2, b'\3\3\3'), call(3, b'\5'))):
    for read in (76, 84, 92, 120):
        with open(os.path.join(sys.argv[1], 'seed-%d-%d' % (i, read)), 'wb') as f:
            f.write(seed(kind, read))

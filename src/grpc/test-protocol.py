#!/usr/bin/python3
"""gRPC and HTTP/2 as seen from outside, good and hostile clients: test-protocol.py GRPC-TEST-SERVER [sanitized] [NAME…]"""

import os
import re
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from h2client import *

PROGRAM = sys.argv[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
SANITIZED = 'sanitized' in sys.argv[2:]
ONLY = [a for a in sys.argv[2:] if a != 'sanitized']
M = '/test.Test/'
MIB = 1 << 20
OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = range(6)
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 8, 12, 13, 14
tests = []


def test(function):
    tests.append(function)
    return function


class Server:
    """The server program, and what the kernel says about it."""

    started = []

    def __init__(self, *args, path=None, name=None, files=None, pass_fds=(), umask=0o022):
        self.path = path or os.path.join(directory, name or 'socket')
        self.errors = tempfile.TemporaryFile(dir=directory)

        def prepare():
            os.umask(umask)
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        self.process = subprocess.Popen([PROGRAM, *(args or [self.path])], stdout=subprocess.PIPE, stderr=self.errors,
                                        preexec_fn=prepare, pass_fds=pass_fds)
        self.started.append(self.process)
        self.ready = self.process.stdout.readline() == b'ready\n'

    def stderr(self):
        self.errors.seek(0)
        lines = self.errors.read().decode().splitlines(True)
        return ''.join(x for x in lines if "ASan doesn't fully support makecontext" not in x)

    def rss(self):
        with open('/proc/%d/status' % self.process.pid) as f:
            return int(re.search(r'VmRSS:\s+(\d+)', f.read())[1]) * 1024

    def cpu(self):
        with open('/proc/%d/stat' % self.process.pid) as f:
            fields = f.read().rsplit(')')[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def client(self, *args, **kwargs):
        return Client(self.path, *args, **kwargs)

    def stats(self):
        c = self.client()
        text = c.call(M + 'Stats').messages[0].decode()
        c.close()
        return {k: int(v) for k, v in (x.split('=') for x in text.split())}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.finish()

    def finish(self, timeout=30):
        code = self.process.wait(timeout)
        self.process.stdout.close()
        return code


def check(condition, *what):
    if not condition:
        raise AssertionError(' '.join(repr(w) for w in what))


def good(reply, data=None):
    check(reply.status == OK and reply.error is None, reply)
    kinds = [k for k, _, _ in reply.frames if k != WINDOW_UPDATE]
    check(kinds[0] == HEADERS and kinds[-1] == HEADERS, reply)
    if data is not None:
        check(reply.messages == [data], reply)
    return reply


def failed(reply, status, text=None):
    check(reply.status == status, reply)
    check(reply.headers[':status'] == '200' and reply.headers['content-type'] == 'application/grpc', reply)
    if text is not None:
        check(re.search(text, reply.text), reply.text, text)
    return reply


def served(path=None):
    """Another client is served, soon."""
    c = Client(path or server.path, timeout=20 if SANITIZED else 5)
    good(c.call(M + 'Echo', b'still there?'), b'still there?')
    c.close()


def eventually(condition, timeout=10):
    """Waits for a number of the server's to get there."""
    end = time.monotonic() + timeout
    while True:
        s = server.stats()
        if condition(s):
            return s
        check(time.monotonic() < end, s)
        time.sleep(0.02)


def quiet():
    """Nothing is left of earlier calls: one call and one fiber is the question itself."""
    return eventually(lambda s: s['calls'] == 1 and s['fibers'] == 1)


def bounded(before, mib, what='resident memory'):
    """The server's memory grew by less than that. A sanitizer keeps freed memory for a while."""
    grown = server.rss() - before
    limit = mib * MIB * (3 if SANITIZED else 1) + (300 * MIB if SANITIZED else 0)
    check(grown < limit, what, 'grew by MiB', grown >> 20)


def rss():
    c = server.client()
    c.call(M + 'Trim')
    c.close()
    return server.rss()


def send_until_stuck(c, chunk, total, timeout=1.0):
    """Writes without reading; gives how much the server took."""
    c.socket.settimeout(timeout)
    chunk, sent, at = memoryview(chunk), 0, 0
    try:
        while sent < total:
            n = c.socket.send(chunk[at:])
            sent, at = sent + n, (at + n) % len(chunk)
    except (socket.timeout, OSError):
        pass
    return sent


def read_some(c, size):
    """Reads about so much, to let a stuck server write a little more."""
    timeout = c.socket.gettimeout()
    c.socket.settimeout(0.05)
    try:
        while size > 0:
            got = c.socket.recv(size)
            if not got:
                break
            c.buffer, size = c.buffer + got, size - len(got)
    except socket.timeout:
        pass
    c.socket.settimeout(timeout)


# Calls

@test
def a_unary_call_is_one_write():
    c = server.client()
    c.call(M + 'Echo', b'warm up')
    stream = c.start(M + 'Echo', b'hello')
    c.buffer = c.socket.recv(65536)
    seen = []
    while c.buffer:
        seen.append(c.step()[0])
    check(seen == [HEADERS, DATA, HEADERS], seen)
    good(c.reply(stream), b'hello')


@test
def messages_of_all_sizes_come_back():
    c = server.client(window=1 << 24, extra=window_update(0, 1 << 30))
    for size in (0, 1, 5, 1000, 16378, 16379, 16380, 65530, 65536, 81920, 100000, 1 << 20):
        data = os.urandom(size)
        good(c.call(M + 'Echo', data), data)


@test
def an_error_is_one_headers_frame():
    c = server.client()
    r = failed(c.call(M + 'Fail', b'5 no such thing'), NOT_FOUND, '^no such thing$')
    check(len(r.frames) == 1 and r.frames[0][1] & END_STREAM, r)


@test
def error_texts_survive_whatever_is_in_them():
    c = server.client()
    for text in ('100% é', 'a\nb\rc\td', '\x7f', '日本語', '%41', ' spaces '):
        check(c.call(M + 'Fail', b'9 ' + text.encode()).text == text, text)
    check('�' in c.call(M + 'Fail', b'9 bad \xff\xc3 bytes').text)
    check(c.call(M + 'Fail', b'9').text == '')


@test
def a_long_error_text_is_cut_at_a_character():
    c = server.client()
    for character in ('x', '%', 'é', '日', '🙂'):
        text = c.call(M + 'Fail', b'9 ' + (character * 4000).encode()[:8000]).text
        check(2045 <= len(text.encode()) <= 2048 and set(text) == {character}, character, len(text))


@test
def an_unset_error_is_filled_from_the_errno():
    c = server.client()
    for errno, status in ((2, NOT_FOUND), (22, INVALID_ARGUMENT), (12, RESOURCE_EXHAUSTED), (125, CANCELLED),
                          (110, DEADLINE_EXCEEDED), (9, INTERNAL)):
        r = failed(c.call(M + 'Errno', b'%d' % errno), status)
        check(r.text, 'no text for errno', errno)


@test
def unknown_methods_are_unimplemented():
    c = server.client()
    failed(c.call('/no.Such/Method'), UNIMPLEMENTED, 'Unknown method /no.Such/Method')
    failed(c.call('/'), UNIMPLEMENTED)
    failed(c.call(M + 'Ech'), UNIMPLEMENTED)
    failed(c.call(M + 'Echo/'), UNIMPLEMENTED)
    failed(c.call('/%ff?x=1/../' + 'y' * 5000), UNIMPLEMENTED)
    good(c.call(M + 'Echo', b'1'), b'1')


@test
def method_data_reaches_the_handler():
    good(server.client().call(M + 'Data'), b'attached')


@test
def a_unary_handler_must_answer_exactly_once():
    c = server.client()
    failed(c.call(M + 'Silent'), INTERNAL, 'sent no answer')
    r = failed(c.call(M + 'Twice'), INVALID_ARGUMENT)
    check(not r.data, r)
    check(good(c.call(M + 'StreamSilent')).messages == [])


@test
def an_error_after_a_unary_answer_replaces_it():
    c = server.client()
    r = failed(c.call(M + 'FailLate', b'1 5'), NOT_FOUND, 'late')
    check(not r.data, r)
    r = c.call(M + 'StreamFailLate', b'3 5')
    check(r.status == NOT_FOUND and r.messages == [b'before'] * 3, r)


@test
def malformed_messages_are_refused():
    c = server.client()
    failed(c.call(M + 'Echo', body=message(b'x', flags=1)), UNIMPLEMENTED, 'compressed')
    failed(c.call(M + 'Echo', body=message(b'x', flags=7)), INTERNAL, 'flags')
    for body in (b'', b'\0', b'\0\0\0\0', message(b'abc')[:-1]):
        failed(c.call(M + 'Echo', body=body), INTERNAL)
    failed(c.call(M + 'Echo', body=message(b'a') + message(b'b')), INTERNAL, 'more than the one')
    failed(c.call(M + 'Echo', body=message(b'a') + b'\0'), INTERNAL)
    failed(c.call(M + 'Echo', body=b'\0\xff\xff\xff\xff'), RESOURCE_EXHAUSTED)
    c.send(frame(HEADERS, END_HEADERS | END_STREAM, c.next, request_headers(M + 'Echo')))
    failed(c.wait(c.next), INTERNAL)


@test
def streams_send_each_message_at_once():
    c = server.client()
    stream = c.start(M + 'Stream', b'5 10 50')
    times = []
    while not c.reply(stream).ended:
        if c.step()[0] == DATA:
            times.append(time.monotonic())
    check(len(times) == 5 and times[-1] - times[0] > 0.15, times)
    r = good(c.reply(stream))
    check(r.messages == [bytes([97 + i]) * 10 for i in range(5)], r)


@test
def long_streams_arrive_whole_and_in_order():
    c = server.client(window=1 << 20, extra=window_update(0, (1 << 31) - 70000))
    r = good(c.call(M + 'Stream', b'5000 100 0'))
    check(r.messages == [bytes([97 + i % 26]) * 100 for i in range(5000)])


# Deadlines and cancellation

@test
def deadlines_end_calls():
    c = server.client()
    before = server.stats()['expired']
    for value in ('50m', '50000u', '50000000n'):
        start = time.monotonic()
        failed(c.call(M + 'Sleep', b'20000', [('grpc-timeout', value)]), DEADLINE_EXCEEDED, 'deadline')
        check(0.04 < time.monotonic() - start < (5 if SANITIZED else 2), value, time.monotonic() - start)
    check(server.stats()['expired'] == before + 3)
    r = c.call(M + 'Stream', b'100 10 20', [('grpc-timeout', '100m')])
    check(r.status == DEADLINE_EXCEEDED and 1 <= len(r.messages) < 10, r)
    quiet()


@test
def deadlines_in_all_units_are_understood():
    c = server.client()
    for value in ('1H', '99999999H', '1M', '10S', '10000m', '99999999u', '99999999n', '00000010S'):
        good(c.call(M + 'Sleep', b'1', [('grpc-timeout', value)]))
    for value in ('0S', '0n', '00000000H'):
        failed(c.call(M + 'Sleep', b'1', [('grpc-timeout', value)]), DEADLINE_EXCEEDED)
    for value in ('', 'S', '1', '1s', '-1S', '1.5S', ' 1S', '1S ', '100000000S', '1SS', 'xS', '٣S', '99999999999999999999n'):
        failed(c.call(M + 'Sleep', b'1', [('grpc-timeout', value)]), INTERNAL, 'grpc-timeout')


@test
def a_reset_cancels_the_handler():
    before = server.stats()['cancelled']
    c = server.client()
    for _ in range(20):
        stream = c.start(M + 'Sleep', b'60000')
        time.sleep(0.005)
        c.send(reset(stream))
    eventually(lambda s: s['cancelled'] == before + 20)
    good(c.call(M + 'Echo', b'x'), b'x')
    quiet()


@test
def a_lost_connection_cancels_the_handlers():
    before = server.stats()['cancelled']
    for _ in range(10):
        c = server.client()
        c.start(M + 'Sleep', b'60000')
        c.start(M + 'Stream', b'100 10 1000')
        c.call(M + 'Echo')
        c.close()
    eventually(lambda s: s['cancelled'] == before + 20)
    quiet()


@test
def a_request_outlives_its_stream():
    body = b'300 ' + os.urandom(300000)
    for how in ('reset', 'close', 'answer'):
        c = server.client()
        streams = [c.start(M + 'Stubborn', body) for _ in range(5)]
        time.sleep(0.05)
        if how == 'reset':
            c.send(*[reset(s) for s in streams])
            other = server.client(extra=window_update(0, 1 << 24))
            for _ in range(20):
                other.call(M + 'Echo', os.urandom(50000))
        elif how == 'close':
            c.close()
        else:
            for s in streams:
                good(c.wait(s), b'done')
    check(quiet()['corrupt'] == 0)


@test
def resets_are_bounded_even_if_handlers_are_slow_to_end():
    c = server.client()
    for _ in range(3000):
        c.send(reset(c.start(M + 'Stubborn', b'1500')))
    most = server.stats()['fibers']
    check(900 <= most <= 1001, most)
    failed(c.call(M + 'Echo'), RESOURCE_EXHAUSTED, 'Too many calls')
    served()
    quiet()
    good(c.call(M + 'Echo', b'x'), b'x')


# Flow control

@test
def windows_around_the_exact_size():
    size = 20 + 5
    for window in (0, 1, size - 1, size, size + 1):
        for together in (False, True):
            c = server.client(window=window)
            stream = c.start(M + 'Echo', b'y' * 20)
            if together:
                c.send(*[window_update(stream, 100)] * 3)
            else:
                for by in (1, 100, 100):
                    time.sleep(0.005)
                    c.send(window_update(stream, by))
            good(c.wait(stream), b'y' * 20)


@test
def windows_that_settings_push_below_zero_and_back():
    c = server.client(window=25)
    for _ in range(300):
        stream = c.start(M + 'Echo', b'y' * 20)
        c.send(settings(window=0), settings(window=25), window_update(stream, 7), window_update(0, 25))
        good(c.wait(stream), b'y' * 20)


@test
def a_blocked_stream_sends_byte_by_byte():
    c = server.client(window=0)
    stream = c.start(M + 'Stream', b'3 50 0')
    for _ in range(165):
        time.sleep(0.0005)
        c.send(window_update(stream, 1))
    check(len(good(c.wait(stream)).messages) == 3)


@test
def errors_pass_a_blocked_connection_window():
    c = server.client(window=1 << 24)
    streams = [c.start(M + 'Big', b'3000000') for _ in range(3)]
    while sum(len(c.reply(s).data) for s in streams) < 65535:
        c.step()
    failed(c.call(M + 'Fail', b'5 x'), NOT_FOUND)
    c.send(reset(streams[1]), window_update(0, 1 << 24))
    check(len(good(c.wait(streams[0])).messages[0]) == 3000000)
    check(len(good(c.wait(streams[2])).messages[0]) == 3000000)
    good(c.call(M + 'Echo', b'x'), b'x')


@test
def window_updates_that_overflow():
    c = server.client()
    stream = c.start(M + 'Sleep', b'60000')
    c.send(window_update(stream, 0x7fffffff))
    check(c.wait(stream).error == 3, c.reply(stream))
    good(c.call(M + 'Echo', b'x'), b'x')
    c.send(window_update(0, 0x7fffffff))
    check(c.until_closed() and c.goaways[-1][1] == 3, c.goaways)
    served()


class StuckClient(Client):
    """A client that doesn't read, so that each of the server's writes is stuck. Streams are then over for one side only,
    and h2o is in the states its assertions are about."""

    def __init__(self, window):
        super().__init__(server.path, window=window, extra=window_update(0, 1 << 26))
        self.blocker = self.start(M + 'Stream', b'300 100000 0')
        if window < 1 << 26:
            self.send(window_update(self.blocker, 1 << 26))
        time.sleep(0.1)

    def advance(self):
        """Lets the write that is stuck complete, and the next one, with all that is ready now at its end, be stuck: it
        begins with more answers to PING than the socket holds."""
        self.send(frame(PING, 0, 0, bytes(8)) * 20000)
        time.sleep(0.1)
        read_some(self, 250000)
        self.buffer = b''
        time.sleep(0.1)


@test
def windows_of_ended_streams_that_open_while_output_is_stuck():
    # h2o asserts that a stream which waits for its write has no window to open. Its own answer to a bad header has 42
    # bytes, ours to this 25, and those that are errors none.
    for kind, window in (('answer', 25), ('answer', 0x7fffffff), ('unknown', 25), ('GET', 25), ('bad header', 42)):
        c = StuckClient(window)
        streams = []
        for _ in range(10):
            stream, c.next = c.next, c.next + 2
            streams.append(stream)
            end = END_STREAM if kind == 'bad header' else 0
            c.send(frame(HEADERS, END_HEADERS | end, stream,
                         request_headers('/unknown' if kind == 'unknown' else M + 'Echo',
                                         method='GET' if kind == 'GET' else 'POST',
                                         extra=[('x-bad', 'a\x01b')] if kind == 'bad header' else [])))
            if not end:
                c.send(frame(DATA, END_STREAM, stream, message(b'z' * 20)))
        c.advance()
        c.send(*[window_update(s, 1) for s in streams])
        c.send(settings(window=0), settings(window=max(window, 1 << 20)), settings(window=0), settings(window=window))
        served()
        c.close()
        served()


@test
def reset_streams_whose_output_is_stuck_can_still_be_ended():
    for path, request in (('Stream', b'1 10 400'), ('Stream', b'2 10 400'), ('Stream', b'50 10 10'), ('StreamFailLate', b'1 5'), ('Echo', b'x')):
        c = StuckClient(1 << 24)
        streams = [c.start(M + path, request) for _ in range(10)]
        c.advance()
        c.send(*[reset(s) for s in streams])
        time.sleep(0.4)
        served()
        c.close()
        quiet()


@test
def a_slow_reader_slows_only_its_own_handler():
    before = rss()
    c = server.client(window=(1 << 31) - 1, extra=window_update(0, (1 << 31) - 70000))
    stream = c.start(M + 'Stream', b'4000 100000 0')
    time.sleep(1)
    check(server.stats()['corrupt'] == 0)
    bounded(before, 10)
    served()
    r = good(c.wait(stream))
    check(len(r.data) == 4000 * 100005)
    check(quiet()['corrupt'] == 0)


@test
def many_large_unread_answers_are_bounded():
    before = rss()
    c = server.client(window=0)
    streams = [c.start(M + 'Big', b'3000000') for _ in range(300)]
    time.sleep(0.5)
    bounded(before, 50)
    check(server.stats()['calls'] >= 300)
    served()
    c.send(settings(window=1 << 24), window_update(0, 1 << 30))
    for s in streams:
        check(len(good(c.wait(s)).data) == 3000005)
    quiet()


# Sizes

@test
def messages_of_16_mib_pass_both_ways():
    c = server.client(window=1 << 25, extra=window_update(0, 1 << 30), timeout=60)
    good(c.call(M + 'Big', b'%d' % (16 * MIB)))
    data = os.urandom(MIB) * 16
    for _ in range(2):
        stream = c.start(M + 'Echo', data)
        check(good(c.wait(stream)).messages == [data])


@test
def larger_answers_are_refused():
    failed(server.client().call(M + 'Big', b'%d' % (16 * MIB + 1)), RESOURCE_EXHAUSTED, 'larger than the limit')


@test
def larger_requests_are_refused():
    c = server.client(timeout=30)
    failed(c.call(M + 'Echo', b'x' * (16 * MIB + 1)), RESOURCE_EXHAUSTED, 'larger than the limit')
    c.replies.clear()
    # One that doesn't end, in spite of a small prefix.
    stream, c.next = c.next, c.next + 2
    c.send(frame(HEADERS, END_HEADERS, stream, request_headers(M + 'Echo')))
    chunk = frame(DATA, 0, stream, bytes(16384))
    for _ in range(1026):
        c.send(chunk)
    r = c.reply(stream)
    while not r.blocks:
        c.step()
    check(r.status in (INTERNAL, RESOURCE_EXHAUSTED), r)
    # Flow control is still in order: 100 MiB more.
    for _ in range(7):
        c.replies.clear()
        c2 = [c.start(M + 'Sleep', b'0 ' + b'x' * (15 * MIB))]
        good(c.wait(c2[0]))
    served()


@test
def unfinished_requests_are_bounded():
    before = rss()
    c = server.client()
    refused = set()
    for i in range(90):
        stream, c.next = c.next, c.next + 2
        c.send(frame(HEADERS, END_HEADERS, stream, request_headers(M + 'Echo')),
               *[frame(DATA, 0, stream, bytes(16384))] * 64)
        c.socket.setblocking(False)
        try:
            while True:
                got = c.step()
                if got[0] == RST_STREAM:
                    refused.add(got[2])
        except BlockingIOError:
            pass
        c.socket.settimeout(10)
    check(c.call(M + 'Echo', b'no room').error == 7)
    refused |= {s for s, r in c.replies.items() if r.error is not None}
    check(20 <= len(refused) <= 30, len(refused))
    c.send(reset(1))
    good(c.call(M + 'Echo', b'room again'), b'room again')
    bounded(before, 150)
    served()
    c.close()
    quiet()


# Odd but allowed

@test
def frames_that_arrive_byte_by_byte_split_and_padded():
    c = server.client()
    block = request_headers(M + 'Echo')
    body = message(b'abc')
    for byte in (frame(HEADERS, 0, 1, block[:20]) + frame(CONTINUATION, 0, 1, block[20:40]) +
                 frame(CONTINUATION, 0, 1) + frame(CONTINUATION, END_HEADERS, 1, block[40:]) +
                 frame(DATA, PADDED, 1, b'\x03' + body[:2] + bytes(3)) + frame(DATA, 0, 1) +
                 frame(DATA, PADDED | END_STREAM, 1, b'\xff' + body[2:] + bytes(255))):
        c.send(bytes([byte]))
    good(c.wait(1), b'abc')


@test
def headers_with_padding_and_priority():
    c = server.client()
    block = request_headers(M + 'Echo')
    c.send(frame(HEADERS, END_HEADERS | PADDED | 0x20, 1, b'\x05' + struct.pack('>IB', 0x80000000, 200) + block + bytes(5)),
           frame(DATA, END_STREAM, 1, message(b'p')))
    good(c.wait(1), b'p')
    c.send(frame(PRIORITY, 0, 5, struct.pack('>IB', 3, 10)), frame(PRIORITY, 0, 3, struct.pack('>IB', 5, 10)))
    c.next = 3
    good(c.call(M + 'Echo', b'3'), b'3')
    good(c.call(M + 'Echo', b'5'), b'5')


@test
def requests_that_trailers_end():
    c = server.client()
    c.send(frame(HEADERS, END_HEADERS, 1, request_headers(M + 'Echo')), frame(DATA, 0, 1, message(b't')),
           frame(HEADERS, END_HEADERS | END_STREAM, 1, literal('x-t', '1')))
    good(c.wait(1), b't')
    c.send(frame(HEADERS, END_HEADERS, 3, request_headers(M + 'Echo')), frame(DATA, 0, 3, message(b't')),
           frame(HEADERS, END_STREAM, 3, literal('x-t', '1')), frame(CONTINUATION, END_HEADERS, 3, literal('x-u', '2')))
    good(c.wait(3), b't')


@test
def any_authority_will_do():
    for authority in (None, '', 'localhost', '%2Frun%2Frktlet.sock', '/run/rktlet.sock', 'x' * 5000, 'a:b:c', '[::1]:1'):
        c = server.client()
        c.send(frame(HEADERS, END_HEADERS, 1, request_headers(M + 'Echo', authority=authority)),
               frame(DATA, END_STREAM, 1, message(b'a')))
        good(c.wait(1), b'a')
        c.close()


@test
def content_types():
    for value, status in (('application/grpc', '200'), ('application/grpc+proto', '200'), ('APPLICATION/GRPC', '200'),
                          ('application/grpc;x=y', '200'), ('application/grpcx', '415'), ('application/grp', '415'),
                          ('text/plain', '415'), ('', '415'), (None, '415')):
        c = server.client()
        c.send(frame(HEADERS, END_HEADERS, 1, request_headers(M + 'Echo', content_type=value)),
               frame(DATA, END_STREAM, 1, message(b'a')))
        r = c.wait(1)
        check(r.headers[':status'] == status, value, r)
        c.close()


@test
def only_post():
    c = server.client()
    c.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, request_headers(M + 'Echo', method='GET')))
    check(c.wait(1).headers[':status'] == '405')
    c.next = 3
    good(c.call(M + 'Echo', b'x'), b'x')


@test
def bad_characters_in_metadata_hurt_only_their_call():
    c = server.client()
    for name, value in (('x-bin', 'a\x01b'), ('grpc-bad\x7f', 'b'), ('x y', 'z')):
        stream, c.next = c.next, c.next + 2
        c.send(frame(HEADERS, END_HEADERS, stream, request_headers(M + 'Echo', extra=[(name, value)])),
               frame(DATA, END_STREAM, stream, message()))
        r = c.wait(stream)
        check(r.error == 1 or r.headers.get(':status') == '400', r)
        good(c.call(M + 'Echo', b'x'), b'x')
    quiet()


@test
def unknown_frames_are_ignored_silently():
    before = server.stderr()
    c = server.client()
    for kind in range(10, 256):
        c.send(frame(kind, 0xff, 0, b'whatever'), frame(kind, 0, 1, bytes(16384 if kind == 77 else 3)))
    good(c.call(M + 'Echo', b'x'), b'x')
    check(server.stderr() == before)


@test
def pings_are_answered():
    c = server.client()
    c.send(frame(PING, 0, 0, b'12345678'), frame(PING, ACK, 0, b'goodbye\0'))
    while not c.pings:
        c.step()
    check(c.pings == [(ACK, b'12345678')] and not c.goaways)


@test
def a_client_that_says_goaway_is_still_answered():
    c = server.client()
    stream = c.start(M + 'Sleep', b'100')
    c.send(frame(GOAWAY, 0, 0, struct.pack('>II', 0, 0)))
    good(c.wait(stream), b'slept')


# Many

@test
def a_thousand_streams_at_once():
    c = server.client(window=1 << 20, extra=window_update(0, 1 << 30), timeout=30)
    c.call(M + 'Echo')
    check(c.settings[3] == 1000, c.settings)
    streams = [c.start(M + 'Sleep', b'700') for _ in range(1000)]
    over = c.start(M + 'Echo', b'x')
    check(c.wait(over).error == 7, c.reply(over))
    check(server.stats()['calls'] == 1001)
    for s in streams:
        good(c.wait(s), b'slept')
    good(c.call(M + 'Echo', b'x'), b'x')
    # All headers before the first message.
    first = c.next
    c.next += 2000
    c.send(*[frame(HEADERS, END_HEADERS, s, request_headers(M + 'Echo')) for s in range(first, c.next, 2)])
    c.send(*[frame(DATA, END_STREAM, s, message(b'%d' % s)) for s in range(first, c.next, 2)])
    for s in range(first, c.next, 2):
        good(c.wait(s), b'%d' % s)
    quiet()


@test
def many_clients_at_once():
    errors = []

    def run(n):
        try:
            c = server.client(timeout=60)
            for i in range(50):
                good(c.call(M + 'Echo', b'%d %d' % (n, i)), b'%d %d' % (n, i))
            c.close()
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(50)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check(not errors, errors)


@test
def connections_are_limited():
    """Beyond 256 the one that was idle the longest is told to go; of busy ones there are 1024."""
    clients = [server.client() for _ in range(256)]
    for c in clients:
        good(c.call(M + 'Echo', b'x'))
    good(clients[0].call(M + 'Echo', b'x'))  # so the second is idle the longest
    clients.append(server.client())
    good(clients[-1].call(M + 'Echo', b'x'))
    while len(clients[1].goaways) < 2:
        clients[1].step()
    check(clients[1].goaways[-1][:2] == (1, 0), clients[1].goaways)
    for c in clients[:1] + clients[2:]:
        good(c.call(M + 'Echo', b'x'))
        check(not c.goaways)
    for c in clients:
        c.close()
    quiet()


@test
def connections_that_are_busy_are_limited_too():
    s = Server(name='busy', files=4096)
    clients = []
    for _ in range(1024):
        clients.append(s.client())
        clients[-1].start(M + 'Sleep', b'60000')
        good(clients[-1].call(M + 'Echo', b'x'))
    extra = Client(s.path, greet=False, timeout=5)
    check(extra.until_closed())
    check(not any(c.goaways for c in clients))
    clients.pop().close()
    time.sleep(0.2)
    served(s.path)
    for c in clients:
        c.close()
    check(s.stop() == 0, s.stderr())


@test
def torn_connections():
    whole = PREFACE + settings(window=1 << 24) + window_update(0, 1 << 24) + frame(
        HEADERS, END_HEADERS, 1, request_headers(M + 'Big')) + frame(DATA, END_STREAM, 1, message(b'2000000'))
    for i in range(len(whole) * 2):
        c = Client(server.path, greet=False)
        c.send(whole[:i % len(whole)] if i < len(whole) else whole)
        if i >= len(whole) and i % 3:
            c.socket.recv(i * 100 + 1)
        c.close()
    served()
    quiet()


@test
def half_closed_clients():
    for size in (b'10', b'3000000'):
        c = server.client(window=1 << 24, extra=window_update(0, 1 << 24))
        c.start(M + 'Big', size)
        c.start(M + 'Sleep', b'60000')
        c.socket.shutdown(socket.SHUT_WR)
        check(c.until_closed())
    before = server.stats()['cancelled']
    c = server.client(window=1 << 24, extra=window_update(0, 1 << 24))
    c.start(M + 'Big', b'8000000')
    c.start(M + 'Sleep', b'60000')
    time.sleep(0.1)
    c.socket.shutdown(socket.SHUT_WR)
    eventually(lambda s: s['cancelled'] == before + 1)
    served()
    quiet()


@test
def answers_and_resets_cross():
    c = server.client()
    for i in range(1000):
        s = c.start(M + 'Echo', b'x')
        c.send(reset(s), window_update(s, 5))
    good(c.call(M + 'Echo', b'y'), b'y')
    quiet()


# Protocol errors end the connection, and nothing else

@test
def garbage_closes_the_connection():
    headers = frame(HEADERS, END_HEADERS, 1, request_headers(M + 'Echo'))
    cases = [b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', bytes(24), os.urandom(500)]
    for f in (frame(DATA, 0, 1, b'x'), frame(HEADERS, END_HEADERS, 2, request_headers(M + 'Echo')),
              frame(HEADERS, END_HEADERS, 1, b'\xff\xff\xff'), frame(HEADERS, END_HEADERS, 1, b'\x80'),
              frame(HEADERS, END_HEADERS, 1, b'\xfe'), frame(HEADERS, END_HEADERS, 1, b'\x3f\xff\xff\xff\xff\x0f'),
              frame(HEADERS, END_HEADERS, 1, b'\0\x7f\xff\xff\xff\x0f'), frame(HEADERS, END_HEADERS, 1, b'\0\x01A\x01b'),
              frame(HEADERS, END_HEADERS | PADDED, 1, b'\xff'), frame(HEADERS, END_HEADERS | 0x20, 1, b'\0\0'),
              window_update(0, 0), frame(SETTINGS, 0, 0, b'123'), frame(SETTINGS, ACK, 0, b'123456'), settings(frame=1),
              frame(SETTINGS, 0, 0, struct.pack('>HI', 4, 0xffffffff)), frame(PING, 0, 0, b'short'), frame(GOAWAY, 0, 0, b'x'),
              frame(RST_STREAM, 0, 1, b'1234'), frame(CONTINUATION, END_HEADERS, 1, b''), frame(PUSH_PROMISE, 0, 1, bytes(4)),
              frame(HEADERS, 0, 1, b'') + frame(PING, 0, 0, bytes(8)), frame(HEADERS, 0, 1, b'') + frame(99, 0, 0, b''),
              frame(HEADERS, 0, 1, b'') + frame(CONTINUATION, 0, 3, b''), headers + headers,
              frame(PRIORITY, 0, 3, struct.pack('>IB', 3, 1)), headers + frame(WINDOW_UPDATE, 0, 0, b'123'),
              struct.pack('>I', 16385)[1:] + bytes([0, 0, 0, 0, 0, 1]), frame(SETTINGS, 0, 1, b'')):
        cases.append(PREFACE + settings(window=65535) + f)
    for kind in (DATA, HEADERS, RST_STREAM, CONTINUATION):
        cases.append(PREFACE + settings(window=65535) + frame(kind, 4, 0, bytes(8)))
    for case in cases:
        c = Client(server.path, greet=False, timeout=5)
        c.send(case)
        check(c.until_closed(), case)
        c.close()
    served()
    quiet()


@test
def stream_errors_end_only_the_stream():
    c = server.client()
    for broken in (b'', literal(':method', 'POST'), literal(':path', '/') + literal(':method', 'POST')):
        stream, c.next = c.next, c.next + 2
        c.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, broken))
        check(c.wait(stream).error == 1, c.reply(stream))
    stream = c.start(M + 'Sleep', b'60000')
    c.send(frame(DATA, END_STREAM, stream, b'more'))
    check(c.wait(stream).error == 5, c.reply(stream))
    stream, c.next = c.next, c.next + 2
    c.send(frame(HEADERS, END_HEADERS, stream, request_headers(M + 'Echo', extra=[('content-length', '7')])),
           frame(DATA, END_STREAM, stream, message(b'123')))
    check(c.wait(stream).error == 1, c.reply(stream))
    good(c.call(M + 'Echo', b'x'), b'x')
    quiet()


# Floods: memory stays bounded, others are served

def flood(chunk, total, mib, closes=None):
    before = rss()
    c = server.client()
    sender = threading.Thread(target=send_until_stuck, args=(c, chunk, total))
    sender.start()
    for _ in range(5):
        served()
        bounded(before, mib)
        time.sleep(0.05)
    sender.join()
    served()
    bounded(before, mib)
    if closes is not None:
        check(c.until_closed() == closes)
    c.close()
    served()
    quiet()


@test
def flood_of_pings():
    flood(frame(PING, 0, 0, b'12345678') * 2000, 50 * MIB, 5)


@test
def flood_of_settings():
    flood(settings(window=100000, table=0) * 2000, 50 * MIB, 5)


@test
def flood_of_requests_that_are_never_read():
    c = b''.join(frame(HEADERS, END_HEADERS, s, request_headers(M + 'Echo')) + frame(DATA, END_STREAM, s, message(b'x'))
                 for s in range(1, 200001, 2))
    flood(c, len(c), 100)


@test
def flood_of_resets():
    c = b''.join(frame(HEADERS, END_HEADERS, s, request_headers(M + 'Sleep')) +
                 frame(DATA, END_STREAM, s, message(b'60000')) + reset(s) for s in range(1, 100001, 2))
    flood(c, len(c), 80)


@test
def flood_of_priorities():
    flood(b''.join(frame(PRIORITY, 0, s, struct.pack('>IB', 0, 1)) for s in range(1, 4001, 2)), 1 * MIB, 5, closes=True)
    flood(frame(PRIORITY, 0, 3, struct.pack('>IB', 0x80000005, 1)) + frame(PRIORITY, 0, 5, struct.pack('>IB', 0x80000003, 1)),
          1 * MIB, 5)


@test
def flood_of_continuations():
    start = frame(HEADERS, 0, 1, request_headers(M + 'Echo'))
    flood(start + frame(CONTINUATION, 0, 1, bytes(16384)) * 100, 20 * MIB, 5, closes=True)
    flood(start + frame(CONTINUATION, 0, 1) * 100000, 900009, 5, closes=True)


@test
def flood_of_small_frames():
    c = frame(HEADERS, END_HEADERS, 1, request_headers(M + 'Echo'))
    flood(c + frame(DATA, 0, 1) * 1000000, 9 * MIB, 5)
    flood(frame(99, 0, 0, b'x' * 100) * 1000, 50 * MIB, 5)
    flood(window_update(0, 1) * 1000, 10 * MIB, 5)


@test
def hpack_bomb():
    # A 4,000-byte field in the table, then one byte for each use of it.
    define = b'\x40' + number(5, 7, 0) + b'x-big' + number(3900, 7, 0) + b'v' * 3900
    before = rss()
    c = server.client()
    c.send(frame(HEADERS, END_HEADERS, 1, request_headers(M + 'Echo') + define), frame(DATA, END_STREAM, 1, message(b'1')))
    good(c.wait(1), b'1')
    c.next = 3
    for _ in range(500):
        stream, c.next = c.next, c.next + 2
        c.send(frame(HEADERS, END_HEADERS, stream, request_headers(M + 'Echo') + b'\xbe' * 15000))
    served()
    bounded(before, 20)
    check(c.wait(stream).error == 11)
    # In a request that is complete with its headers.
    stream, c.next = c.next, c.next + 2
    c.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, request_headers(M + 'Echo') + b'\xbe' * 15000))
    failed(c.wait(stream), RESOURCE_EXHAUSTED, 'header fields')
    c.close()
    served()
    quiet()


@test
def many_streams_with_large_headers():
    before = rss()
    c = server.client()
    for _ in range(900):
        stream, c.next = c.next, c.next + 2
        c.send(frame(HEADERS, END_HEADERS, stream, request_headers(M + 'Echo', extra=[('x-%d' % i, 'v' * 150) for i in range(80)])))
    served()
    bounded(before, 60)
    c.send(frame(HEADERS, END_HEADERS, c.next, request_headers(M + 'Echo', extra=[('cache-digest', 'AfdA; complete'), ('x', 'y' * 200)])))
    check(c.wait(c.next).error == 11)
    c.close()
    quiet()


# Ends

@test
def an_idle_connection_does_not_wake_the_server():
    c = server.client()
    c.call(M + 'Echo')
    time.sleep(0.3)
    before = server.cpu()
    time.sleep(1)
    check(server.cpu() - before < 0.05, server.cpu() - before)


@test
def without_descriptors_it_waits_instead_of_spinning():
    s = Server(name='few', files=40)
    clients = [Client(s.path) for _ in range(60)]
    time.sleep(0.3)
    before = s.cpu()
    time.sleep(1)
    check(s.cpu() - before < 0.15, s.cpu() - before)
    good(clients[0].call(M + 'Echo', b'x'), b'x')
    for c in clients[:40]:
        c.close()
    good(clients[59].call(M + 'Echo', b'x'), b'x')
    for c in clients:
        c.close()
    check(s.stop() == 0 and s.stderr() == '', s.stderr())


@test
def drain_lets_running_calls_end():
    s = Server(name='drain')
    idle, c, deaf = s.client(), s.client(), s.client()
    idle.call(M + 'Echo')
    deaf.call(M + 'Echo')
    deaf.answer_pings = False
    stream, events = c.start(M + 'Sleep', b'1500'), c.start(M + 'Stream', b'15 10 100')
    slow = deaf.start(M + 'Sleep', b'1500')
    time.sleep(0.1)
    s.process.send_signal(signal.SIGTERM)
    # What was on its way when the server began to go is served.
    while not c.goaways:
        c.step()
    check(c.goaways[0][:2] == (0x7fffffff, 0), c.goaways)
    while len(c.goaways) < 2:
        c.step()
    check(c.goaways[1][:2] == (events, 0), c.goaways)
    late = c.start(M + 'Echo', b'late')
    check(c.wait(late).error == 7, c.reply(late))
    check(idle.until_closed())
    check(not os.path.exists(s.path))
    good(c.wait(stream), b'slept')
    check(len(good(c.wait(events)).messages) == 15)
    check(c.until_closed())
    good(deaf.wait(slow), b'slept')
    check(len(deaf.goaways) == 2 and deaf.until_closed())
    check(s.finish() == 0 and s.stderr() == '', s.stderr())


@test
def drain_serves_what_was_sent_before_the_client_knew():
    s = Server(name='race')
    c = s.client()
    c.call(M + 'Echo')
    c.answer_pings = False
    s.process.send_signal(signal.SIGTERM)
    while not c.goaways:
        c.step()
    good(c.call(M + 'Echo', b'x'), b'x')
    c.send(*[frame(PING, ACK, 0, p) for _, p in c.pings])
    check(c.until_closed() and len(c.goaways) == 2)
    check(s.finish() == 0, s.stderr())


@test
def drain_loses_no_byte_of_an_answer():
    s = Server(name='tail')
    # One whose answer is at the end of a write that is stuck.
    stuck = s.client()
    stuck.call(M + 'Echo')
    stuck.send(frame(PING, 0, 0, bytes(8)) * 28000)
    last = stuck.start(M + 'Echo', b'last')
    clients = [s.client(window=1 << 25, extra=window_update(0, 1 << 25)) for _ in range(5)]
    streams = [c.start(M + 'Big', b'3000000') for c in clients]
    time.sleep(0.2)
    s.process.send_signal(signal.SIGTERM)
    time.sleep(1.3)
    for c, stream in zip(clients, streams):
        # Slowly at the end, so that the last write is stuck for a while.
        while len(c.reply(stream).data) < 2500000:
            c.step()
        for _ in range(30):
            read_some(c, 20000)
            time.sleep(0.005)
        check(len(good(c.wait(stream)).data) == 3000005)
        check(c.until_closed())
    read_some(stuck, 200000)
    time.sleep(0.3)
    good(stuck.wait(last), b'last')
    check(stuck.until_closed() and len(stuck.goaways) == 2)
    check(s.finish() == 0, s.stderr())


@test
def drain_cancels_what_takes_too_long():
    path = os.path.join(directory, 'impatient')
    s = Server(path, '300', path=path)
    c, dead, slow = s.client(), s.client(window=0), s.client(window=1 << 24, extra=window_update(0, 1 << 24))
    stream, events = c.start(M + 'Sleep', b'60000'), c.start(M + 'Stream', b'1000 10 100')
    dead.start(M + 'Big', b'1000000')
    slow.start(M + 'Big', b'10000000')
    time.sleep(0.1)
    start = time.monotonic()
    s.process.send_signal(signal.SIGTERM)
    failed(c.wait(stream), UNAVAILABLE, 'shutting down')
    check(c.wait(events).status == UNAVAILABLE, c.reply(events))
    check(c.until_closed())
    check(s.finish() == 3 and s.stderr() == '', s.stderr())
    check(time.monotonic() - start < (6 if SANITIZED else 3))


@test
def drain_waits_for_handlers_whose_client_is_gone():
    s = Server(name='orphans')
    c = s.client()
    c.start(M + 'Stubborn', b'700')
    time.sleep(0.1)
    c.close()
    start = time.monotonic()
    check(s.stop() == 0, s.stderr())
    check(time.monotonic() - start > 0.4)


@test
def an_end_with_everything_open_frees_everything():
    path = os.path.join(directory, 'end')
    s = Server(path, '0', path=path)
    clients = [s.client(window=1000) for _ in range(20)]
    for i, c in enumerate(clients):
        c.start(M + 'Stream', b'1000 100000 0')
        c.start(M + 'Stubborn', b'2000 ' + bytes(100000))
        c.start(M + 'Big', b'100000')
        c.send(frame(HEADERS, END_HEADERS, 101, request_headers(M + 'Echo')), frame(DATA, 0, 101, bytes(i * 800)))
        if i % 2:
            c.send(frame(HEADERS, 0, 103, request_headers(M + 'Echo')))
    time.sleep(0.3)
    check(s.stop() == 3 and s.stderr() == '', s.process.returncode, s.stderr())


@test
def the_socket_is_private_whatever_the_umask():
    for umask in (0, 0o022, 0o077, 0o777):
        s = Server(name='umask', umask=umask)
        check(s.ready, s.stderr())
        check(stat.S_IMODE(os.stat(s.path).st_mode) == 0o660, oct(os.stat(s.path).st_mode))
        s.stop()
        check(not os.path.exists(s.path))


@test
def a_stale_socket_is_replaced_and_a_live_one_is_not():
    s = Server(name='stale')
    s.process.kill()
    s.finish()
    check(os.path.exists(s.path))
    s = Server(name='stale')
    check(s.ready, s.stderr())
    second = Server(name='stale')
    check(not second.ready and second.finish() == 1 and 'Another process serves' in second.stderr(), second.stderr())
    served(s.path)
    check(s.stop() == 0)
    # A listener whose queue is full is alive, too.
    k = socket.socket(socket.AF_UNIX)
    k.bind(s.path)
    k.listen(0)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for w in waiting:
        w.setblocking(False)
        w.connect_ex(s.path)
    second = Server(name='stale')
    check(not second.ready and second.finish() == 1 and 'Another process serves' in second.stderr(), second.stderr())


@test
def a_newer_server_keeps_its_socket():
    old = Server(name='newer')
    os.unlink(old.path)
    new = Server(name='newer')
    check(old.stop() == 0)
    served(new.path)
    check(new.stop() == 0)


@test
def bad_socket_paths_are_explained():
    with open(os.path.join(directory, 'file'), 'w'):
        pass
    for path, text in ((directory + '/' + 'x' * 120, 'too long'), (directory + '/file', 'not a socket'),
                       ('relative', 'not absolute'), (directory + '/none/socket', 'No such file'), ('fd:0', 'Descriptor 0')):
        s = Server(path, path=path)
        check(not s.ready and s.finish() == 1 and text in s.stderr(), path, s.stderr())


@test
def a_passed_socket_is_served_and_left_in_place():
    path = os.path.join(directory, 'passed')
    k = socket.socket(socket.AF_UNIX)
    k.bind(path)
    k.listen(5)
    for _ in range(2):
        s = Server('fd:%d' % k.fileno(), path=path, pass_fds=(k.fileno(),))
        served(path)
        check(s.stop() == 0 and os.path.exists(path), s.stderr())


@test
def the_server_ends_clean_after_all_this():
    quiet()
    check(server.stop() == 0 and server.stderr() == '', server.process.returncode, server.stderr())


def main():
    global directory, server
    selected = [t for t in tests if not ONLY or t.__name__ in ONLY]
    print('1..%d' % len(selected), flush=True)
    failures = 0
    with tempfile.TemporaryDirectory(prefix='grpc.') as directory:
        server = Server()
        for n, function in enumerate(selected, 1):
            start = time.monotonic()
            try:
                function()
                result = 'ok'
            except Exception:
                result = 'not ok'
                failures += 1
                for line in traceback.format_exc().splitlines():
                    print('# ' + line[:2000])
                if server.process.poll() is not None:
                    print('# the server is dead:', server.process.returncode, server.stderr()[-3000:].replace('\n', '\n# '))
                    server = Server()
            print('%s %d - %s # %.2f s' % (result, n, function.__name__.replace('_', ' '), time.monotonic() - start), flush=True)
        for process in Server.started:  # a failed test may have left its own
            if process.poll() is None:
                process.kill()
                process.wait()
    return 1 if failures else 0


sys.exit(main())

"""A small HTTP/2 client on raw frames, for tests that a well-behaved library won't do. Encodes headers as literals, and
decodes all of HPACK (RFC 7541), Huffman included."""

import socket
import struct

PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
NAMES = 'DATA HEADERS PRIORITY RST_STREAM SETTINGS PUSH_PROMISE PING GOAWAY WINDOW_UPDATE CONTINUATION'.split()
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8

# Lengths of the Huffman codes of the bytes 0 to 255 and the end marker (RFC 7541 appendix B). The codes themselves follow
# from them: ascending by length, then by symbol.
HUFFMAN_LENGTHS = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28,
    28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13,
    6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6,
    6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23,
    23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23,
    22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21,
    22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30]


def huffman_codes():
    codes, code, length = {}, 0, 0
    for symbol in sorted(range(257), key=lambda s: (HUFFMAN_LENGTHS[s], s)):
        code <<= HUFFMAN_LENGTHS[symbol] - length
        length = HUFFMAN_LENGTHS[symbol]
        codes[length, code] = symbol
        code += 1
    return codes


HUFFMAN = huffman_codes()

STATIC = [(':authority', ''), (':method', 'GET'), (':method', 'POST'), (':path', '/'), (':path', '/index.html'),
          (':scheme', 'http'), (':scheme', 'https'), (':status', '200'), (':status', '204'), (':status', '206'),
          (':status', '304'), (':status', '400'), (':status', '404'), (':status', '500'), ('accept-charset', ''),
          ('accept-encoding', 'gzip, deflate'), ('accept-language', ''), ('accept-ranges', ''), ('accept', ''),
          ('access-control-allow-origin', ''), ('age', ''), ('allow', ''), ('authorization', ''), ('cache-control', ''),
          ('content-disposition', ''), ('content-encoding', ''), ('content-language', ''), ('content-length', ''),
          ('content-location', ''), ('content-range', ''), ('content-type', ''), ('cookie', ''), ('date', ''),
          ('etag', ''), ('expect', ''), ('expires', ''), ('from', ''), ('host', ''), ('if-match', ''),
          ('if-modified-since', ''), ('if-none-match', ''), ('if-range', ''), ('if-unmodified-since', ''),
          ('last-modified', ''), ('link', ''), ('location', ''), ('max-forwards', ''), ('proxy-authenticate', ''),
          ('proxy-authorization', ''), ('range', ''), ('referer', ''), ('refresh', ''), ('retry-after', ''),
          ('server', ''), ('set-cookie', ''), ('strict-transport-security', ''), ('transfer-encoding', ''),
          ('user-agent', ''), ('vary', ''), ('via', ''), ('www-authenticate', '')]


class Decoder:
    def __init__(self):
        self.table, self.max = [], 4096

    def number(self, bits):
        mask = (1 << bits) - 1
        value = self.data[self.at] & mask
        self.at += 1
        shift = 0
        while value >= mask if shift == 0 else True:
            byte = self.data[self.at]
            self.at += 1
            value += (byte & 127) << shift
            shift += 7
            if not byte & 128:
                break
        return value

    def string(self):
        huffman = self.data[self.at] & 128
        size = self.number(7)
        raw = self.data[self.at:self.at + size]
        assert len(raw) == size
        self.at += size
        if not huffman:
            return raw.decode('latin1')
        out, code, length = [], 0, 0
        for byte in raw:
            for bit in range(7, -1, -1):
                code, length = code << 1 | byte >> bit & 1, length + 1
                if (length, code) in HUFFMAN:
                    out.append(HUFFMAN[length, code])
                    code = length = 0
        assert length < 8 and code == (1 << length) - 1
        return bytes(out).decode('latin1')

    def entry(self, index):
        return STATIC[index - 1] if index <= len(STATIC) else self.table[index - len(STATIC) - 1]

    def decode(self, data):
        self.data, self.at, fields = data, 0, []
        while self.at < len(data):
            first = data[self.at]
            if first & 128:
                fields.append(self.entry(self.number(7)))
                continue
            if first & 0xe0 == 0x20:
                self.max = self.number(5)
                self.shrink()
                continue
            index = self.number(6 if first & 64 else 4)
            name = self.entry(index)[0] if index else self.string()
            fields.append((name, self.string()))
            if first & 64:
                self.table.insert(0, fields[-1])
                self.shrink()
        return fields

    def shrink(self):
        while sum(len(n) + len(v) + 32 for n, v in self.table) > self.max:
            self.table.pop()


def frame(kind, flags, stream, payload=b''):
    return struct.pack('>I', len(payload))[1:] + bytes([kind, flags]) + struct.pack('>I', stream) + payload


def number(value, bits, first):
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = [first | limit], value - limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + [value])


def literal(name, value):
    name = name if isinstance(name, bytes) else name.encode()
    value = value if isinstance(value, bytes) else value.encode()
    return b'\0' + number(len(name), 7, 0) + name + number(len(value), 7, 0) + value


def settings(**values):
    ids = {'table': 1, 'push': 2, 'streams': 3, 'window': 4, 'frame': 5, 'headers': 6}
    return frame(SETTINGS, 0, 0, b''.join(struct.pack('>HI', ids[k], v) for k, v in values.items()))


def window_update(stream, by):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack('>I', by))


def reset(stream, error=8):
    return frame(RST_STREAM, 0, stream, struct.pack('>I', error))


def message(data=b'', flags=0):
    return bytes([flags]) + struct.pack('>I', len(data)) + data


def request_headers(path, content_type='application/grpc', authority='localhost', method='POST', extra=()):
    fields = [(':method', method), (':scheme', 'http'), (':path', path)]
    if authority is not None:
        fields.append((':authority', authority))
    fields.append(('te', 'trailers'))
    if content_type is not None:
        fields.append(('content-type', content_type))
    return b''.join(literal(n, v) for n, v in fields + list(extra))


class Reply:
    """What came back on a stream."""

    def __init__(self):
        self.frames, self.blocks, self.data, self.error, self.ended = [], [], bytearray(), None, False

    @property
    def headers(self):
        return dict(self.blocks[0]) if self.blocks else {}

    @property
    def trailers(self):
        return dict(self.blocks[-1]) if self.blocks else {}

    @property
    def status(self):
        return int(self.trailers['grpc-status']) if 'grpc-status' in self.trailers else None

    @property
    def text(self):
        raw, out, i = self.trailers.get('grpc-message', ''), bytearray(), 0
        while i < len(raw):
            if raw[i] == '%':
                out.append(int(raw[i + 1:i + 3], 16))
                i += 3
            else:
                out.append(ord(raw[i]))
                i += 1
        return out.decode()

    @property
    def messages(self):
        out, at = [], 0
        while at < len(self.data):
            size = int.from_bytes(self.data[at + 1:at + 5], 'big')
            assert self.data[at] == 0 and at + 5 + size <= len(self.data), 'broken message'
            out.append(bytes(self.data[at + 5:at + 5 + size]))
            at += 5 + size
        return out

    def __repr__(self):
        return 'Reply(%s status=%s text=%r data=%d error=%s ended=%s)' % (
            [(NAMES[k], f, n) for k, f, n in self.frames[-8:]], self.status, self.trailers.get('grpc-message'),
            len(self.data), self.error, self.ended)


class Closed(Exception):
    pass


class Client:
    def __init__(self, path, window=65535, extra=b'', timeout=10, greet=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.buffer, self.replies, self.decoder = b'', {}, Decoder()
        self.settings, self.goaways, self.pings, self.acks = None, [], [], 0
        self.next = 1
        self.answer_pings = True
        if greet:
            self.send(PREFACE + settings(window=window) + extra)

    def close(self):
        self.socket.close()

    def send(self, *frames):
        self.socket.sendall(b''.join(frames))

    def start(self, path, data=b'', extra=(), body=None):
        """A whole unary request; returns its stream."""
        stream, self.next = self.next, self.next + 2
        body = message(data) if body is None else body
        out = [frame(HEADERS, END_HEADERS, stream, request_headers(path, extra=extra))]
        while len(body) > 16384:
            out.append(frame(DATA, 0, stream, body[:16384]))
            body = body[16384:]
        out.append(frame(DATA, END_STREAM, stream, body))
        self.send(*out)
        return stream

    def call(self, path, data=b'', extra=(), **more):
        return self.wait(self.start(path, data, extra, **more))

    def reply(self, stream):
        return self.replies.setdefault(stream, Reply())

    def read_frame(self):
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], 'big'):
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionResetError:
                more = b''
            if not more:
                raise Closed()
            self.buffer += more
        size = int.from_bytes(self.buffer[:3], 'big')
        kind, flags = self.buffer[3], self.buffer[4]
        stream = int.from_bytes(self.buffer[5:9], 'big')
        payload, self.buffer = self.buffer[9:9 + size], self.buffer[9 + size:]
        return kind, flags, stream, payload

    def step(self):
        """Takes in one frame and returns it."""
        kind, flags, stream, payload = got = self.read_frame()
        if stream:
            reply = self.reply(stream)
            assert not reply.ended or kind in (RST_STREAM, WINDOW_UPDATE), 'a frame after the end of the stream'
            reply.frames.append((kind, flags, len(payload)))
            if kind == HEADERS:
                assert flags & END_HEADERS
                reply.blocks.append(self.decoder.decode(payload))
            elif kind == DATA:
                reply.data.extend(payload)
            elif kind == RST_STREAM:
                reply.error = int.from_bytes(payload, 'big')
                reply.ended = True
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                assert kind == HEADERS or reply.headers.get(':status') != '200', 'DATA ends a gRPC stream'
                reply.ended = True
        elif kind == SETTINGS and not flags & ACK:
            self.settings = dict(struct.unpack_from('>HI', payload, i) for i in range(0, len(payload), 6))
        elif kind == SETTINGS:
            self.acks += 1
        elif kind == GOAWAY:
            self.goaways.append(struct.unpack('>II', payload[:8]) + (payload[8:],))
        elif kind == PING:
            self.pings.append((flags, payload))
            if not flags & ACK and self.answer_pings:
                try:
                    self.send(frame(PING, ACK, 0, payload))
                except BrokenPipeError:
                    pass
        return got

    def wait(self, stream):
        while not self.reply(stream).ended:
            self.step()
        return self.replies[stream]

    def until_closed(self):
        """True if the server closes the connection, False if nothing comes until the timeout."""
        try:
            while True:
                self.step()
        except Closed:
            return True
        except socket.timeout:
            return False

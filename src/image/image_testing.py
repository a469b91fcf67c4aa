"""What test-pull.py and test-registry.py share: the store behind image-tool, the real docker-registry, and a registry that
can be made to misbehave.

usage of either: test-….py IMAGE-TOOL RKTLET-UNPACK [TEST…]   (as root; prints TAP)"""

import http.server
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "test", "images"))
from oci import Image, Index, Layer, Registry, digest_of  # noqa: E402

TOOL, UNPACK = (os.path.abspath(a) for a in sys.argv[1:3])
tests = []
WORK = None


def test(f):
    tests.append(f)
    return f


class Pulled:
    def __init__(self, line):
        fields = line.split()
        self.id = fields[0]
        values = dict(f.split("=", 1) for f in fields[1:])
        self.tags, self.digests, self.layers = (
            [x for x in values[k].split(",") if x] for k in ("tags", "digests", "layers")
        )
        self.size, self.manifest, self.user = int(values["size"]), values["manifest"], values["user"]
        self.pinned = values["pinned"] == "1"


class Store:
    def __init__(self, base=None):
        self.dir = os.path.join(tempfile.mkdtemp(dir=base or WORK), "store")
        self.registries = self.dir + "-registries"

    def hosts(self, host, text):
        os.makedirs(os.path.join(self.registries, host), exist_ok=True)
        with open(os.path.join(self.registries, host, "hosts.conf"), "w") as f:
            f.write(text)

    def command(self, *args, **options):
        a = [TOOL, "--unpack=" + UNPACK, "--registries=" + self.registries]
        a += ["--" + k.replace("_", "-") + "=" + str(v) for k, v in options.items()]
        return a + [self.dir, *args]

    def run(self, *args, **options):
        p = subprocess.run(self.command(*args, **options), capture_output=True, text=True, timeout=120)
        assert "Sanitizer" not in p.stderr and p.returncode in (0, 1), (p.returncode, p.stderr)
        self.stderr = p.stderr
        return p.returncode, p.stdout

    def pull(self, *refs, **options):
        code, out = self.run("pull", *refs, **options)
        assert code == 0, out + self.stderr
        images = [Pulled(line) for line in out.splitlines()]
        return images[0] if len(refs) == 1 else images

    def refused(self, ref, code, *texts, **options):
        status, out = self.run("pull", ref, **options)
        assert status == 1, out
        assert (" " + code + ": ") in out, out
        for t in texts:
            assert t in out, (t, out)
        for secret in ("s3cret", "T0ken", "refresh-me"):
            assert secret not in out + self.stderr, out
        self.nothing_left()
        return out

    def list(self):
        return [Pulled(line) for line in self.run("list")[1].splitlines()]

    def names(self, folder):
        try:
            return sorted(os.listdir(os.path.join(self.dir, folder)))
        except FileNotFoundError:
            return []

    def nothing_left(self, layers=()):
        assert self.names("tmp") == [], self.names("tmp")
        if not self.names("images"):
            assert self.names("layers") == list(layers), self.names("layers")
            assert self.names("blobs/sha256") == []

    def fs(self, layer, path=""):
        return os.path.join(self.dir, "layers", layer, "fs", path)

    def read(self, layer, path):
        with open(self.fs(layer, path), "rb") as f:
            return f.read()


def ways_to_damage(path):
    """Each a function that damages the file anew."""
    with open(path, "rb") as f:
        data = f.read()

    def write(text):
        def func():
            with open(path, "wb") as f:
                f.write(text)

        return func

    def replace(make):
        def func():
            os.unlink(path)
            make(path)

        return func

    yield replace(lambda p: None)
    yield replace(os.mkdir)
    yield replace(os.mkfifo)
    yield replace(lambda p: os.symlink("nowhere", p))
    for text in (b"", b"{}", b"[]", b"\xff\xff\xff", b'{"version": 0}', data[:-1], data[: len(data) // 2]):
        yield write(text)
    for bit in range(0, len(data) * 8, max(1, len(data) * 8 // 24)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield write(bytes(flipped))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class RealRegistry:
    def __init__(self):
        self.dir = tempfile.mkdtemp(dir=WORK)
        self.host = "127.0.0.1:%d" % free_port()
        config = self.dir + "/config.yml"
        with open(config, "w") as f:
            f.write(
                "version: 0.1\nlog: { level: error, accesslog: { disabled: true } }\nstorage: { filesystem: { "
                "rootdirectory: %s/data }, delete: { enabled: true } }\nhttp: { addr: '%s' }\n" % (self.dir, self.host)
            )
        self.process = subprocess.Popen(
            ["/usr/bin/docker-registry", "serve", config],
            stdout=subprocess.DEVNULL,
            stderr=open(self.dir + "/log", "w"),
        )
        self.client = Registry(self.host)
        for _ in range(200):
            if self.client.is_up():
                return
            time.sleep(0.05)
        raise RuntimeError("docker-registry doesn't start: " + open(self.dir + "/log").read())

    def stop(self):
        self.process.kill()
        self.process.wait()

    def push(self, name, tag, what):
        return self.client.push(name, tag, what)


class FakeRegistry:
    """A registry whose every answer can be bent: `hook(handler, path)` may answer a request itself and return True."""

    def __init__(self, address="127.0.0.1"):
        outer = self
        self.blobs, self.manifests, self.log, self.hook = {}, {}, [], lambda h, p: False
        self.lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def do_GET(self):
                path = urllib.parse.urlsplit(self.path).path
                with outer.lock:
                    outer.log.append((self.command, self.path, dict(self.headers)))
                try:
                    if not outer.hook(self, path):
                        outer.answer(self, path)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_HEAD = do_POST = do_GET

            def reply(self, status, body=b"", headers=None, length=None):
                self.send_response(status)
                for k, v in (headers or {}).items():
                    self.send_header(k, v)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def error(self, status, code="DENIED", message="because", headers=None):
                self.reply(
                    status,
                    json.dumps({"errors": [{"code": code, "message": message}]}).encode(),
                    dict(headers or {}, **{"Content-Type": "application/json"}),
                )

            def cut(self, body, n):
                """Says it sends all, sends n bytes, and hangs up."""
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:n])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 100
            daemon_threads = True

            def handle_error(self, *a):
                pass

        self.server = Server((address, 0), Handler)
        self.host = "%s:%d" % (address, self.server.server_port)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def push(self, name, tag, what, media=None):
        if isinstance(what, Index):
            for i in what.images:
                self.push(name, digest_of(i.manifest), i)
            kind = what.media["index"]
        else:
            for layer in what.layers:
                self.blobs[digest_of(layer.finish()[0])] = layer.finish()[0]
            self.blobs[digest_of(what.config)] = what.config
            kind = what.media["manifest"]
        for t in (tag, digest_of(what.manifest)):
            self.manifests[name, t] = (what.manifest, media or kind)
        return digest_of(what.manifest)

    def answer(self, h, path):
        parts = path.split("/")
        if path == "/v2/":
            return h.reply(200)
        name, kind, what = "/".join(parts[2:-2]), parts[-2], parts[-1]
        if kind == "manifests" and (name, what) in self.manifests:
            body, media = self.manifests[name, what]
            headers = {"Docker-Content-Digest": digest_of(body)}
            if media:
                headers["Content-Type"] = media
            return h.reply(200, body, headers)
        if kind == "blobs" and what in self.blobs:
            body = self.blobs[what]
            r = h.headers.get("Range")
            if r:
                start = int(r[6:].split("-")[0])
                return h.reply(
                    206, body[start:], {"Content-Range": "bytes %d-%d/%d" % (start, len(body) - 1, len(body))}
                )
            return h.reply(200, body, {"Content-Type": "application/octet-stream"})
        return h.error(404, kind.upper()[:-1] + "_UNKNOWN", "unknown " + what[:20])

    def requests(self, kind=""):
        with self.lock:
            return [(m, p, h) for m, p, h in self.log if kind in p]


def small(text="hello", **k):
    return Image([Layer().dir("etc").file("etc/x", text)], **k)


def random_bytes(n, seed):
    return random.Random(seed).randbytes(n)


class Started:
    """The real registry, from the first use on."""

    registry = None

    def __getattr__(self, name):
        if not Started.registry:
            Started.registry = RealRegistry()
        return getattr(Started.registry, name)


REAL = Started()


def work():
    return WORK


def main():
    global WORK
    for f in (TOOL, UNPACK):
        if not os.access(f, os.X_OK):
            sys.exit("%s is not there" % f)
    if os.geteuid() != 0 or not os.path.exists("/usr/bin/docker-registry") or not shutil.which("zstd"):
        print("1..0 # SKIP needs root, docker-registry and zstd")
        sys.exit(77)
    for k in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        os.environ.pop(k, None)
    WORK = tempfile.mkdtemp(prefix="rktlet-test-image-", dir=os.environ.get("TMPDIR", "/tmp"))
    failed = 0
    try:
        only = sys.argv[3:]
        chosen = [f for f in tests if not only or f.__name__ in only]
        print("1..%d" % len(chosen), flush=True)
        for n, f in enumerate(chosen, 1):
            start = time.monotonic()
            try:
                f()
                print("ok %d - %s # %.1f s" % (n, f.__name__, time.monotonic() - start), flush=True)
            except Exception:
                failed += 1
                print("not ok %d - %s" % (n, f.__name__), flush=True)
                traceback.print_exc()
    finally:
        if Started.registry:
            Started.registry.stop()
        subprocess.run(["rm", "-rf", WORK])
    sys.stdout.flush()
    os._exit(1 if failed else 0)  # whatever threads of fake registries still wait for

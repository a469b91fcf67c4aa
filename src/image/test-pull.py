#!/usr/bin/env python3
"""The image store end to end: against the real docker-registry, and against one that misbehaves.

usage: test-pull.py IMAGE-TOOL RKTLET-UNPACK [TEST…]   (as root; prints TAP)"""
import base64
import gzip
import hashlib
import http.server
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "test", "images"))
from oci import DOCKER, OCI, Image, Index, Layer, Registry, digest_of  # noqa: E402

TOOL, UNPACK = (os.path.abspath(a) for a in sys.argv[1:3])
tests = []


def test(f):
    tests.append(f)
    return f


class Pulled:
    def __init__(self, line):
        fields = line.split()
        self.id = fields[0]
        values = dict(f.split("=", 1) for f in fields[1:])
        self.tags, self.digests, self.layers = ([x for x in values[k].split(",") if x] for k in ("tags", "digests", "layers"))
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
            f.write("version: 0.1\nlog: { level: error, accesslog: { disabled: true } }\nstorage: { filesystem: { "
                    "rootdirectory: %s/data }, delete: { enabled: true } }\nhttp: { addr: '%s' }\n" % (self.dir, self.host))
        self.process = subprocess.Popen(["/usr/bin/docker-registry", "serve", config], stdout=subprocess.DEVNULL,
                                        stderr=open(self.dir + "/log", "w"))
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
                self.reply(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode(),
                           dict(headers or {}, **{"Content-Type": "application/json"}))

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
                return h.reply(206, body[start:], {"Content-Range": "bytes %d-%d/%d" % (start, len(body) - 1, len(body))})
            return h.reply(200, body, {"Content-Type": "application/octet-stream"})
        return h.error(404, kind.upper()[:-1] + "_UNKNOWN", "unknown " + what[:20])

    def requests(self, kind=""):
        with self.lock:
            return [(m, p, h) for m, p, h in self.log if kind in p]


def small(text="hello", **k):
    return Image([Layer().dir("etc").file("etc/x", text)], **k)


def random_bytes(n, seed):
    return random.Random(seed).randbytes(n)


# ---- the real registry ----

def a_real_image():
    base = Layer().dir("./", 0o755).dir("etc").file("etc/passwd", "root").dir("usr").dir("usr/bin").file("usr/bin/a", "A", 0o755)
    second = Layer("zstd").dir("etc").whiteout("etc/passwd").file("opt/new", "n").dir("usr").opaque("usr")
    third = Layer("none").file("tmp/x", "y").symlink("l", "/etc")
    return Image([base, second, third], {"User": "7", "Env": ["A=b"]})


@test
def a_pulled_image_has_its_names_layers_and_trees():
    store = Store()
    image = a_real_image()
    digest = REAL.push("a/b", "t1", image)
    i = store.pull(REAL.host + "/a/b:t1")
    assert i.id == digest_of(image.config) and i.tags == [REAL.host + "/a/b:t1"] and i.digests == [REAL.host + "/a/b@" + digest]
    assert i.manifest == digest and i.user == "7" and len(i.layers) == 3
    assert i.size == len(image.config) + sum(len(x.finish()[0]) for x in image.layers)
    assert store.read(i.layers[0], "etc/passwd") == b"root" and os.stat(store.fs(i.layers[0], "usr/bin/a")).st_mode & 0o111
    assert stat.S_ISCHR(os.lstat(store.fs(i.layers[1], "etc/passwd")).st_mode)
    assert "trusted.overlay.opaque" in os.listxattr(store.fs(i.layers[1], "usr"))
    assert store.read(i.layers[1], "opt/new") == b"n" and os.readlink(store.fs(i.layers[2], "l")) == "/etc"
    assert os.stat(store.dir).st_mode & 0o777 == 0o700 and store.names("tmp") == []
    # overlayfs takes it as it is.
    target = tempfile.mkdtemp(dir=WORK)
    lower = ":".join(store.fs(x) for x in reversed(i.layers))
    if subprocess.run(["mount", "-t", "overlay", "overlay", "-o", "ro,lowerdir=" + lower, target], stderr=subprocess.DEVNULL).returncode == 0:
        seen = sorted(os.path.relpath(os.path.join(d, n), target) for d, ds, fs in os.walk(target) for n in ds + fs)
        subprocess.run(["umount", target], check=True)
        assert seen == ["etc", "l", "opt", "opt/new", "tmp", "tmp/x", "usr"], seen
    for ref in (i.id, i.id[7:], i.id[7:19], "sha256:" + i.id[7:15], REAL.host + "/a/b:t1", i.digests[0]):
        assert Pulled(store.run("find", ref)[1]).id == i.id, ref
    for ref in ("ffff", i.id[7:10], REAL.host + "/a/b", "sha256:" + "0" * 64, "zz", "", REAL.host + "/a/b@sha256:" + "0" * 64):
        assert store.run("find", ref)[0] == 1, ref


@test
def tags_digests_and_ids_come_and_go():
    store = Store()
    one, two = small("one"), small("two")
    d1 = REAL.push("tags", "1", one)
    REAL.push("tags", "1b", one)
    d2 = REAL.push("tags", "2", two)
    name = REAL.host + "/tags"
    store.pull(name + ":1")
    store.pull(name + ":1b")
    i = store.pull(name + "@" + d1)
    assert i.tags == [name + ":1", name + ":1b"] and i.digests == [name + "@" + d1]
    j = store.pull(name + "@" + d2)
    assert j.tags == [] and j.digests == [name + "@" + d2]
    # The tag moves.
    REAL.push("tags", "1", two)
    j = store.pull(name + ":1")
    assert j.tags == [name + ":1"]
    assert {x.id: x.tags for x in store.list()} == {i.id: [name + ":1b"], j.id: [name + ":1"]}
    store.pull(name + ":2")
    assert store.run("remove", name + ":1")[0] == 0
    assert {x.id: x.tags for x in store.list()} == {i.id: [name + ":1b"], j.id: [name + ":2"]}
    assert store.run("remove", name + ":1b")[0] == 0
    assert [x.id for x in store.list()] == [j.id] and store.names("layers") == j.layers
    assert store.run("remove", "unknown", "sha256:" + "0" * 64, name + ":nope")[0] == 0
    assert store.run("remove", j.id)[0] == 0
    assert store.list() == []
    store.nothing_left()


@test
def an_index_is_resolved_for_this_machine():
    store = Store()
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    mine, other = small("mine", architecture=arch), small("other", architecture="s390x")
    for media in (OCI, DOCKER):
        mine.media = other.media = media
        mine, other = (Image(x.layers, architecture=x.platform["architecture"], media=media) for x in (mine, other))
        digest = REAL.push("index", "latest", Index([other, mine], media))
        i = store.pull(REAL.host + "/index")
        assert i.id == digest_of(mine.config) and i.digests[-1] == REAL.host + "/index@" + digest, i.digests
        assert store.read(i.layers[0], "etc/x") == b"mine"
        assert store.pull(i.digests[-1]).id == i.id
        store.run("remove", i.id)
    d = REAL.push("index", "foreign", Index([other]))
    store.refused(REAL.host + "/index:foreign", "NotFound", "no manifest for linux/" + arch)
    REAL.push("index", "single", other)
    store.refused(REAL.host + "/index:single", "NotFound", "s390x")
    assert d


@test
def shared_layers_are_kept_once_and_as_long_as_needed():
    store = Store()
    base, more = Layer().file("base", "b" * 5000), Layer("zstd").file("more", "m")
    again = Layer("zstd").file("base", "b" * 5000)  # the same tree, compressed otherwise
    REAL.push("shared", "a", Image([base]))
    REAL.push("shared", "b", Image([again, more, base]))
    a = store.pull(REAL.host + "/shared:a")
    b = store.pull(REAL.host + "/shared:b")
    assert store.names("layers") == sorted(set(a.layers + b.layers)) and len(store.names("layers")) == 2
    # A layer that comes twice shows once, on top.
    assert len(b.layers) == 2 and b.layers[1] == a.layers[0]
    store.run("remove", a.id)
    assert store.names("layers") == sorted(b.layers)
    store.run("remove", b.id)
    store.nothing_left()


@test
def layers_in_use_outlive_their_image():
    store = Store()
    REAL.push("held", "1", Image([Layer().file("a", "x" * 10000), Layer().file("b", "2")]))
    i = store.pull(REAL.host + "/held:1")
    code, out = store.run("hold", "container-1", i.id, i.id)
    lines = out.splitlines()
    assert code == 0 and lines[1].split() == sorted(i.layers), out
    assert int(lines[0].split("bytes=")[1].split()[0]) >= 10000, out
    store.nothing_left()


@test
def fs_info_sums_what_there_is():
    store = Store()
    before = store.run("info")[1]
    REAL.push("sums", "1", Image([Layer().file("a", b"x" * 1000000)] + [Layer().file("f%d" % n, "1") for n in range(20)]))
    store.pull(REAL.host + "/sums:1")
    used = int(store.run("info")[1].split("bytes=")[1].split()[0])
    du = int(subprocess.run(["du", "-s", "-B1", store.dir], capture_output=True, text=True).stdout.split()[0])
    assert 0.7 * du < used < 1.3 * du, (used, du)
    assert store.run("info")[1].split()[0] == subprocess.run(["stat", "-c%m", store.dir], capture_output=True, text=True).stdout.strip()
    store.run("remove", REAL.host + "/sums:1")
    assert store.run("info")[1] == before


@test
def parallel_pulls_share_the_work():
    store = Store()
    fake = FakeRegistry()
    base = Layer().file("big", random_bytes(3 << 20, 1))
    images = [Image([base, Layer().file("n", str(n))]) for n in range(4)]
    for n, image in enumerate(images):
        fake.push("p", "t%d" % n, image)
    slow = {digest_of(base.finish()[0])}

    def hook(h, path):
        if path.split("/")[-1] in slow:
            time.sleep(0.3)
        return False

    fake.hook = hook
    refs = [fake.host + "/p:t%d" % (n % 4) for n in range(8)]
    got = store.pull(*refs)
    assert sorted(i.id for i in got) == sorted([digest_of(i.config) for i in images] * 2)
    gets = [p for m, p, h in fake.requests("/blobs/")]
    assert len(gets) == len(set(gets)) == 4 + 1 + 4, gets
    assert len(fake.requests("/manifests/")) == 4
    assert len(store.names("layers")) == 5
    fake.stop()


@test
def an_unchanged_image_costs_one_request():
    store, fake = Store(), FakeRegistry()
    image = small("same")
    d = fake.push("u", "1", image)
    store.pull(fake.host + "/u:1")
    fake.log.clear()
    store.pull(fake.host + "/u:1")
    assert [m for m, p, h in fake.log] == ["HEAD"]
    store.pull(fake.host + "/u@" + d)
    assert [m for m, p, h in fake.log] == ["HEAD"] * 2
    # But who may not have it any more doesn't get it from us.
    fake.hook = lambda h, p: h.error(403) or True
    assert store.run("pull", fake.host + "/u:1")[0] == 1
    fake.stop()


@test
def implied_directories_take_modes_from_below():
    store = Store()
    below = Layer().dir("tmp", 0o1777).dir("home", 0o750, 5, 6)
    above = Layer().file("tmp/x", "1").file("home/a/y", "2")
    REAL.push("implied", "1", Image([below, above]))
    REAL.push("implied", "2", Image([Layer().dir("tmp", 0o700), above]))
    one, two = store.pull(REAL.host + "/implied:1"), store.pull(REAL.host + "/implied:2")

    def mode(i, path):
        s = os.stat(store.fs(i.layers[1], path))
        return (s.st_mode & 0o7777, s.st_uid, s.st_gid)
    assert mode(one, "tmp") == (0o1777, 0, 0) and mode(one, "home") == (0o750, 5, 6) and mode(one, "home/a") == (0o755, 0, 0)
    assert mode(two, "tmp") == (0o700, 0, 0) and mode(two, "home") == (0o755, 0, 0)
    assert store.pull(REAL.host + "/implied:1").id == one.id and len(store.list()) == 2


@test
def an_opaque_root_hides_all_layers_below():
    store = Store()
    REAL.push("root", "1", Image([Layer().file("a", "1"), Layer().file("b", "2").file(".wh..wh..opq"), Layer().file("c", "3")]))
    i = store.pull(REAL.host + "/root:1")
    assert len(i.layers) == 2 and store.read(i.layers[0], "b") == b"2"
    assert len(store.names("layers")) == 3
    store.run("remove", i.id)
    store.nothing_left()


@test
def a_restart_finds_everything_and_leaves_damage_aside():
    store = Store()
    ids = []
    for n in range(4):
        REAL.push("restart", str(n), Image([Layer().file("same", "s"), Layer().file("f", "x" * n)]))
        ids.append(store.pull(REAL.host + "/restart:%d" % n, linger=6000 if n == 3 else 0).id)
    assert not any(os.path.lexists(os.path.join(store.dir, "layers", n, "unsynced")) for n in store.names("layers"))
    os.makedirs(store.dir + "/tmp/left-over/fs/x")
    assert [i.id for i in sorted(store.list(), key=lambda i: ids.index(i.id))] == ids
    store.run("collect")
    assert store.names("tmp") == [] and len(store.names("layers")) == 5

    def image_file(n):
        return os.path.join(store.dir, "images", ids[n][7:] + ".json")
    with open(image_file(0), "w") as f:
        f.write('{"version": 1, "id":')
    with open(os.path.join(store.dir, "blobs/sha256", ids[1][7:]), "a") as f:
        f.write("x")
    layer = next(i for i in store.list() if i.id == ids[2]).layers[1]
    shutil.rmtree(os.path.join(store.dir, "layers", layer))
    assert [i.id for i in store.list()] == [ids[3]]
    assert "set aside" in store.stderr or True
    store.run("list")
    assert len([n for n in store.names("images") if n.endswith(".damaged")]) == 3
    store.run("collect")
    assert len(store.names("layers")) == 2
    assert store.pull(REAL.host + "/restart:0").id == ids[0]


@test
def a_layer_that_was_not_safe_on_disk_is_fetched_again():
    store = Store()
    REAL.push("unsafe", "1", Image([Layer().file("a", "1"), Layer().file("b", "2")]))
    i = store.pull(REAL.host + "/unsafe:1")
    link = os.path.join(store.dir, "layers", i.layers[0], "unsynced")
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink("another-boot", link)
    assert store.list() == []
    assert i.layers[0] not in store.names("layers")
    j = store.pull(REAL.host + "/unsafe:1")
    assert j.id == i.id and store.read(j.layers[0], "a") == b"1"


@test
def a_full_disk_is_an_error_and_leaves_nothing():
    small_disk = os.path.join(WORK, "disk")
    os.makedirs(small_disk, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small_disk]).returncode:
        print("# no tmpfs, not tested")
        return
    try:
        store = Store(small_disk)
        REAL.push("full", "ok", small())
        REAL.push("full", "big", Image([Layer("none").file("a", "1"), Layer("none").file("b", random_bytes(8 << 20, 2))]))
        REAL.push("full", "two", Image([Layer("none").file("a", random_bytes(2 << 20, 3)),
                                        Layer("none").file("b", random_bytes(2 << 20, 4))]))
        store.refused(REAL.host + "/full:big", "ResourceExhausted", "free")
        store.refused(REAL.host + "/full:two", "ResourceExhausted", "space left")
        i = store.pull(REAL.host + "/full:ok")
        # Not a byte is free: everything is still known, and can be removed.
        with open(small_disk + "/fill", "wb") as f:
            try:
                while True:
                    f.write(b"x" * 65536)
                    f.flush()
            except OSError:
                pass
        assert [x.id for x in store.list()] == [i.id]
        with open(os.path.join(store.dir, "images", i.id[7:] + ".json"), "r+b") as f:
            good = f.read()
            f.seek(0)
            f.write(b"XXXX")
        assert store.list() == []
        os.rename(os.path.join(store.dir, "images", i.id[7:] + ".json.damaged"), os.path.join(store.dir, "images", i.id[7:] + ".json"))
        with open(os.path.join(store.dir, "images", i.id[7:] + ".json"), "r+b") as f:
            f.write(good)
        assert store.run("remove", i.id)[0] == 0
        store.nothing_left()
    finally:
        subprocess.run(["umount", "-l", small_disk])


@test
def a_killed_pull_leaves_nothing_after_the_next_start():
    store, fake = Store(), FakeRegistry()
    image = Image([Layer("none").file("a", b"x" * 100000), Layer("none").file("b", random_bytes(4 << 20, 5))])
    fake.push("k", "1", image)
    blob = image.layers[1].finish()[0]

    def hook(h, path):
        if path.endswith(digest_of(blob)):
            h.send_response(200)
            h.send_header("Content-Length", str(len(blob)))
            h.end_headers()
            h.wfile.write(blob[:2 << 20])
            h.wfile.flush()
            time.sleep(5)
            h.close_connection = True
            return True
        return False

    fake.hook = hook
    p = subprocess.Popen(store.command("pull", fake.host + "/k:1"), stdout=subprocess.PIPE)
    for _ in range(100):
        time.sleep(0.05)
        if store.names("tmp") and store.names("layers"):
            break
    p.send_signal(signal.SIGKILL)
    p.wait()
    p.stdout.close()
    assert store.list() == []
    store.run("collect")
    store.nothing_left()
    fake.hook = lambda h, p: False
    assert store.pull(fake.host + "/k:1")
    fake.stop()


@test
def a_cancelled_pull_ends_at_once_and_leaves_nothing():
    store, fake = Store(), FakeRegistry()
    image = Image([Layer("none").file("a", b"x" * 100000), Layer("none").file("b", random_bytes(1 << 20, 6))])
    fake.push("c", "1", image)
    release = threading.Event()
    for stuck in ("/manifests/", "/blobs/" + digest_of(image.config), "/blobs/" + digest_of(image.layers[1].finish()[0])):
        def hook(h, path):
            if stuck in path:
                h.send_response(200)
                h.send_header("Content-Length", "400")
                h.end_headers()
                h.wfile.write(b"x" * 100)
                h.wfile.flush()
                release.wait(20)
                h.close_connection = True
                return True
            return False
        fake.hook = hook
        start = time.monotonic()
        code, out = store.run("pull", fake.host + "/c:1", fake.host + "/c:1", cancel_after=400)
        assert code == 1 and out.count("Canceled") == 2 and time.monotonic() - start < 5, (out, time.monotonic() - start)
        store.nothing_left()
    release.set()
    fake.stop()


@test
def pinned_images_are_marked():
    store = Store()
    REAL.push("pause", "3.9", small("pause"))
    REAL.push("other", "1", small("other"))
    a, b = (store.pull(REAL.host + r, pinned=REAL.host + "/pause:*") for r in ("/pause:3.9", "/other:1"))
    assert a.pinned and not b.pinned


@test
def twenty_megabytes_in_many_layers():
    store = Store()
    layers = [Layer(("gzip", "zstd", "none")[n % 3]).dir("d%d" % n).file("d%d/f" % n, random_bytes(2 << 20, 10 + n)) for n in range(10)]
    REAL.push("large", "1", Image(layers))
    start = time.monotonic()
    i = store.pull(REAL.host + "/large:1")
    print("# 20 MB pulled in %.2f s" % (time.monotonic() - start))
    for n, layer in enumerate(i.layers):
        assert store.read(layer, "d%d/f" % n) == random_bytes(2 << 20, 10 + n)


@test
def what_is_not_there_is_not_found():
    store = Store()
    store.refused(REAL.host + "/nope:1", "NotFound", "404", "MANIFEST_UNKNOWN", REAL.host)
    REAL.push("there", "1", small())
    store.refused(REAL.host + "/there:2", "NotFound", "check the image's name and tag")
    store.refused(REAL.host + "/there@sha256:" + "0" * 64, "NotFound")
    store.refused("Bad:Ref:x", "InvalidArgument")
    store.refused("127.0.0.1:1/x", "Unavailable", "can't be reached", "127.0.0.1:1")
    store.refused("registry.invalid/x", "Unavailable", "registry.invalid")


# ---- mirrors ----

@test
def mirrors_stand_in_for_their_registry():
    store, bad = Store(), FakeRegistry()
    image = small("mirrored")
    d = REAL.push("e2e-test-images/busybox", "1.29-2", image)
    store.hosts("registry.example", "[Registry]\nMirror=http://%s\n" % REAL.host)
    i = store.pull("registry.example/e2e-test-images/busybox:1.29-2")
    assert i.tags == ["registry.example/e2e-test-images/busybox:1.29-2"]
    assert i.digests == ["registry.example/e2e-test-images/busybox@" + d]
    assert store.pull("registry.example/e2e-test-images/busybox@" + d).id == i.id
    # The second mirror, when the first one fails in any way; drop-ins are read anew each time.
    bad.hook = lambda h, p: h.error(503) or True
    REAL.push("mirrored/library/x", "latest", small("x"))
    store.hosts("docker.io", "# a comment\n[Mirror]\nURL=http://127.0.0.1:1\n\n[Mirror]\nURL=http://%s/mirrored\n[Registry]\nFallback=no\n" % REAL.host)
    assert store.pull("x").tags == ["docker.io/library/x:latest"]
    # The origin, when no mirror has it; the error names both.
    store.hosts(REAL.host, "[Mirror]\nURL=http://%s\n" % bad.host)
    REAL.push("origin", "1", small("origin"))
    start = time.monotonic()
    bad.hook = lambda h, p: h.error(404) or True
    assert store.pull(REAL.host + "/origin:1")
    assert time.monotonic() - start < 20
    out = store.run("pull", REAL.host + "/origin:2")[1]
    assert "NotFound" in out and bad.host in out and REAL.host in out, out
    assert any("ns=" + REAL.host in p for m, p, h in bad.log)
    store.hosts("_default", "[Registry]\nMirror=http://%s\nFallback=no\n" % REAL.host)
    assert store.pull("other.example:443/origin:1")
    bad.stop()


@test
def a_mirror_with_wrong_bytes_is_passed_over():
    store, bad, good = Store(), FakeRegistry(), FakeRegistry()
    image = Image([Layer("none").file("a", random_bytes(200000, 7))])
    for f in (bad, good):
        f.push("w", "1", image)
    blob = image.layers[0].finish()[0]
    bad.blobs[digest_of(blob)] = blob[:100000] + b"!" + blob[100001:]
    store.hosts(good.host, "[Mirror]\nURL=http://%s\n" % bad.host)
    i = store.pull(good.host + "/w:1")
    assert store.read(i.layers[0], "a") == random_bytes(200000, 7)
    assert len(bad.requests("/blobs/" + digest_of(blob))) == 1 and store.names("tmp") == []
    bad.stop()
    good.stop()


@test
def hosts_files_that_say_nonsense_are_errors_with_a_line():
    store = Store()
    for text, where in (("Mirror=http://x\n", ":1"), ("[Registry]\nnonsense\n", ":2"), ("[Registry]\n\nInsecure=perhaps\n", ":3"),
                        ("[Mirror]\nCA=/x\n", "URL"), ("[Registry]\nMirror=http://\n", ":2"), ("[Registry]\nCA=relative\n", ":2"),
                        ("[Registry]\nMirror=http://user:pw@x/\n", ":2")):
        store.hosts("bad.example", text)
        store.refused("bad.example/x", "FailedPrecondition", "hosts.conf", where)
    store.hosts("127.0.0.1:1", "[Registry]\nUnknown=1\n[Future]\nkey=1\n")
    store.refused("127.0.0.1:1/x", "Unavailable")
    assert "unknown key Unknown" in store.stderr and "unknown section [Future]" in store.stderr


# ---- a registry that misbehaves ----

@test
def torn_connections_are_resumed_where_they_broke():
    store, fake = Store(), FakeRegistry()
    image = Image([Layer("none").file("a", random_bytes(1 << 20, 8))])
    fake.push("torn", "1", image)
    blob, d = image.layers[0].finish()[0], digest_of(image.layers[0].finish()[0])
    cuts = [100, 70000, 300000, 999999]

    def hook(h, path):
        if path.endswith(d) and cuts:
            r = h.headers.get("Range")
            start = int(r[6:].split("-")[0]) if r else 0
            end = cuts.pop(0)
            h.send_response(206 if r else 200)
            if r:
                h.send_header("Content-Range", "bytes %d-%d/%d" % (start, len(blob) - 1, len(blob)))
            h.send_header("Content-Length", str(len(blob) - start))
            h.end_headers()
            h.wfile.write(blob[start:end])
            h.wfile.flush()
            h.close_connection = True
            h.connection.shutdown(socket.SHUT_RDWR)
            return True
        if path.endswith(digest_of(image.config)) and "config" not in seen:
            seen.append("config")
            h.cut(image.config, 10)
            return True
        return False

    seen = []
    fake.hook = hook
    i = store.pull(fake.host + "/torn:1")
    assert store.read(i.layers[0], "a") == random_bytes(1 << 20, 8)
    ranges = [h.get("Range") for m, p, h in fake.requests(d)]
    assert ranges == [None, "bytes=100-", "bytes=70000-", "bytes=300000-", "bytes=999999-"], ranges
    fake.stop()


@test
def a_server_without_ranges_or_lengths_is_resumed_as_well():
    store, fake = Store(), FakeRegistry()
    image = Image([Layer("none").file("a", random_bytes(500000, 9))])
    fake.push("noranges", "1", image)
    blob, d = image.layers[0].finish()[0], digest_of(image.layers[0].finish()[0])
    n = [0]

    def hook(h, path):
        if not path.endswith(d):
            return False
        n[0] += 1
        if n[0] == 1:
            h.cut(blob, 200000)
        else:
            # Everything from the start; ended by the end of the connection, too early at first.
            h.protocol_version = "HTTP/1.0"
            h.send_response(200)
            h.send_header("Connection", "close")
            h.end_headers()
            h.wfile.write(blob if n[0] == 3 else blob[:400000])
            h.close_connection = True
        return True

    fake.hook = hook
    i = store.pull(fake.host + "/noranges:1")
    assert n[0] == 3 and store.read(i.layers[0], "a") == random_bytes(500000, 9)
    fake.stop()


@test
def a_range_that_wasnt_asked_for_is_refused():
    store, fake = Store(), FakeRegistry()
    image = Image([Layer("none").file("a", random_bytes(500000, 9))])
    fake.push("wrongrange", "1", image)
    blob, d = image.layers[0].finish()[0], digest_of(image.layers[0].finish()[0])

    def hook(h, path):
        if not path.endswith(d):
            return False
        if h.headers.get("Range"):
            h.reply(206, blob[5:], {"Content-Range": "bytes 5-499999/500000"})
        else:
            h.cut(blob, 1000)
        return True

    fake.hook = hook
    store.refused(fake.host + "/wrongrange:1", "Unavailable")
    fake.stop()


@test
def limits_and_server_errors_pass_after_a_while():
    store, fake = Store(), FakeRegistry()
    image = small("patience")
    fake.push("busy", "1", image)
    answers = {"manifests": [(429, {"Retry-After": "1"}), (503, {}), (500, {})], "blobs": [(502, {}), (504, {}), (429, {})]}

    def hook(h, path):
        todo = answers[path.split("/")[-2]]
        if todo:
            status, headers = todo.pop(0)
            h.error(status, "TOOMANYREQUESTS", "slow down", headers)
            return True
        return False

    fake.hook = hook
    start = time.monotonic()
    store.pull(fake.host + "/busy:1")
    assert time.monotonic() - start >= 1
    fake.hook = lambda h, p: h.error(429, "TOOMANYREQUESTS", "slow down") or True
    fake.log.clear()
    fake.push("busy", "2", small("never"))
    out = store.run("pull", fake.host + "/busy:2")[1]
    assert "ResourceExhausted" in out and "slow down" in out and "429" in out and len(fake.log) == 5, (out, len(fake.log))
    fake.hook = lambda h, p: h.reply(503, b"<html>") or True
    out = store.run("pull", fake.host + "/busy:2")[1]
    assert "Unavailable" in out and "503" in out, out
    fake.stop()


@test
def wrong_digests_and_sizes_are_refused():
    store, fake = Store(), FakeRegistry()
    image = Image([Layer("none").file("a", b"x" * 1000), Layer().file("b", random_bytes(5000, 1))])
    d = fake.push("wrong", "1", image)
    good = dict(fake.blobs)
    config, layer = digest_of(image.config), digest_of(image.layers[1].finish()[0])
    for which, bend, text in ((config, lambda b: b[:-1] + b" ", "digest"), (config, lambda b: b + b" ", "expected"),
                              (config, lambda b: b[:-1], "digest"), (layer, lambda b: b[:-1] + b"x", "Cannot unpack"),
                              (layer, lambda b: b + b"x", "expected"), (layer, lambda b: b[:-1], "bytes")):
        fake.blobs = dict(good)
        fake.blobs[which] = bend(good[which])
        out = store.refused(fake.host + "/wrong:1", "ResourceExhausted" if which == config and text == "expected" else "DataLoss", text)
        assert "wrong" in out
    fake.blobs = good
    body, media = fake.manifests["wrong", "1"]
    fake.manifests["wrong", d] = (body + b" ", media)
    store.refused(fake.host + "/wrong@" + d, "DataLoss", "digest")
    fake.hook = lambda h, p: "manifests" in p and (h.reply(200, body, {"Content-Type": media, "Docker-Content-Digest": "sha256:" + "0" * 64}) or True)
    store.refused(fake.host + "/wrong:1", "DataLoss", "the registry says")
    fake.stop()


def bent_manifest(fake, tag, bend, media="manifest", body=None):
    image = Image([Layer("none").file("a", b"x" * 1000)])
    fake.push("m", "base", image)
    j = json.loads(image.manifest)
    j = bend(j) or j
    text = body if body is not None else json.dumps(j).encode()
    fake.manifests["m", tag] = (text, OCI.get(media, media))
    return image


@test
def manifests_that_contradict_themselves_are_refused():
    store, fake = Store(), FakeRegistry()
    index = Index([small()])
    inner = json.loads(index.manifest)["manifests"]
    many = {"mediaType": OCI["gzip"], "digest": "sha256:" + "1" * 64, "size": 5}
    cases = [
        (lambda j: j.update(manifests=inner), "manifest", "DataLoss", "at once"),
        (lambda j: j.update(manifests=inner, mediaType=OCI["index"]), "index", "DataLoss", "at once"),
        (lambda j: j.update(manifests=[]), "manifest", "DataLoss", "at once"),
        (lambda j: j.update(mediaType=DOCKER["manifest"]), "manifest", "DataLoss", "but was sent as"),
        (lambda j: None, "index", "DataLoss", "sent as"),
        (lambda j: None, "application/vnd.docker.distribution.manifest.v1+prettyjws", "DataLoss", "sent as"),
        (lambda j: {"schemaVersion": 1, "fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+prettyjws", "Unimplemented", "schema 1"),
        (lambda j: {"schemaVersion": 2, "manifests": inner}, None, "NotFound", ""),
        (lambda j: j.pop("config") and None, "manifest", "DataLoss", "no config"),
        (lambda j: j.update(layers=[]), "manifest", "DataLoss", "no layer"),
        (lambda j: j.update(layers={}), "manifest", "DataLoss", ""),
        (lambda j: j.update(layers=[many] * 300), "manifest", "ResourceExhausted", "300 layers"),
        (lambda j: j["layers"][0].update(digest="sha256:../../../../etc/passwd"), "manifest", "Unimplemented", "digest"),
        (lambda j: j["layers"][0].update(digest="sha512:" + "1" * 128), "manifest", "Unimplemented", "sha256"),
        (lambda j: j["layers"][0].update(size=-1), "manifest", "DataLoss", "size"),
        (lambda j: j["layers"][0].update(size=1 << 50), "manifest", "ResourceExhausted", "at most"),
        (lambda j: j["layers"][0].update(size="5"), "manifest", "DataLoss", "size"),
        (lambda j: j["layers"][0].update(mediaType="text/html"), "manifest", "FailedPrecondition", "text/html"),
        (lambda j: j["layers"][0].update(mediaType=OCI["gzip"] + "+encrypted"), "manifest", "Unimplemented", "encrypted"),
        (lambda j: j["config"].update(mediaType="application/vnd.cncf.helm.config.v1+json"), "manifest", "FailedPrecondition", "helm"),
        (lambda j: j["config"].update(size=1 << 30), "manifest", "ResourceExhausted", ""),
        (lambda j: j.update(schemaVersion=3), "manifest", "DataLoss", "schemaVersion"),
        (lambda j: None, "text/html", "DataLoss", "sent as"),
        (lambda j: j["layers"].append(j["layers"][0]), "manifest", "DataLoss", "its config 1"),
    ]
    for n, (bend, media, code, text) in enumerate(cases):
        bent_manifest(fake, "t%d" % n, bend, media)
        try:
            store.refused(fake.host + "/m:t%d" % n, code, text)
        except AssertionError as e:
            raise AssertionError(n, *e.args)
    for body, code in ((b"", "DataLoss"), (b"[]", "DataLoss"), (b"{", "DataLoss"), (b'{"a":' * 100000, "DataLoss"),
                       (b'{"schemaVersion":2,"layers":[],"layers":[]}', "DataLoss"), (b" " * (5 << 20), "ResourceExhausted"),
                       (b"<html>login</html>", "DataLoss"), (b"\xff\xfe{}", "DataLoss")):
        bent_manifest(fake, "b", lambda j: None, None, body)
        store.refused(fake.host + "/m:b", code)
    # An index that leads elsewhere than it says.
    image = small("i")
    index = Index([image])
    j = json.loads(index.manifest)
    fake.push("m", "x", image)
    for key, value in (("size", 5), ("mediaType", DOCKER["manifest"]), ("mediaType", OCI["index"])):
        k = json.loads(json.dumps(j))
        k["manifests"][0][key] = value
        fake.manifests["m", "i"] = (json.dumps(k).encode(), OCI["index"])
        store.refused(fake.host + "/m:i", "DataLoss")
    # Without any media type what it is shows the document; null is nothing.
    bent_manifest(fake, "plain", lambda j: j.pop("mediaType") and None, None)
    store.pull(fake.host + "/m:plain")
    bent_manifest(fake, "octets", lambda j: j.update(annotations=None), "application/octet-stream")
    store.pull(fake.host + "/m:octets")
    fake.stop()


@test
def configs_that_make_no_sense_are_refused():
    store, fake = Store(), FakeRegistry()
    layer = Layer("none").file("a", b"x" * 1000)
    for n, (extra, code) in enumerate((({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]}}, "DataLoss"),
                                       ({"rootfs": {"type": "layers", "diff_ids": []}}, "DataLoss"),
                                       ({"rootfs": None}, "DataLoss"), ({"rootfs": {"diff_ids": ["../x"]}}, "Unimplemented"),
                                       ({"config": {"Env": "A=b"}}, "DataLoss"), ({"config": {"Cmd": [1]}}, "DataLoss"),
                                       ({"config": {"Labels": {"a": 1}}}, "DataLoss"), ({"config": []}, "DataLoss"),
                                       ({"config": {"User": 5}}, "DataLoss"), ({"architecture": 5}, "DataLoss"))):
        fake.push("cfg", "t%d" % n, Image([layer], config_extra=extra))
        store.refused(fake.host + "/cfg:t%d" % n, code)
    fake.push("cfg", "nulls", Image([layer], config_extra={"config": {"Env": None, "Labels": None, "Cmd": None, "User": None}}))
    store.pull(fake.host + "/cfg:nulls")
    fake.stop()


@test
def layers_that_attack_are_refused_and_leave_nothing():
    store, fake = Store(), FakeRegistry()
    for n, layer in enumerate((Layer().file("../x", "1"), Layer().hardlink("h", "../../etc/passwd"), Layer().file("a/.wh...", ""),
                               Layer().symlink("a", "b").symlink("b", "a").file("a/x", "1"))):
        fake.push("evil", "t%d" % n, Image([Layer().file("ok", "1"), layer]))
        out = store.refused(fake.host + "/evil:t%d" % n, "DataLoss", "refused", fake.host)
        assert "sha256:" in out
    fake.stop()


@test
def a_silent_registry_is_given_up():
    store, fake = Store(), FakeRegistry()
    image = small("silent")
    fake.push("s", "1", image)
    layer = image.layers[0].finish()[0]
    release = threading.Event()

    def hook(h, path):
        if path.endswith(digest_of(layer)):
            h.send_response(200)
            h.send_header("Content-Length", str(len(layer)))
            h.end_headers()
            h.wfile.write(layer[:10])
            h.wfile.flush()
            release.wait(30)
            h.close_connection = True
            return True
        return False

    fake.hook = hook
    start = time.monotonic()
    store.refused(fake.host + "/s:1", "Unavailable", "sent nothing for 1 s", timeout=1)
    assert 4 < time.monotonic() - start < 25
    release.set()
    # Slow, but never silent for so long, is fine.

    def trickle(h, path):
        if path.endswith(digest_of(layer)):
            h.send_response(200)
            h.send_header("Content-Length", str(len(layer)))
            h.end_headers()
            for i in range(0, len(layer), len(layer) // 4):
                h.wfile.write(layer[i:i + len(layer) // 4])
                h.wfile.flush()
                time.sleep(0.6)
            return True
        return False

    fake.hook = trickle
    store.pull(fake.host + "/s:1", timeout=1)
    fake.stop()


# ---- authentication ----

class TokenServer:
    """Beside a registry: hands out tokens for alice:s3cret, and for the identity token refresh-me."""

    def __init__(self, fake, anonymous=False):
        self.fake, self.n, self.valid = fake, 0, set()
        self.anonymous = anonymous
        fake.hook = self.hook

    def hook(self, h, path):
        if path == "/token":
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(h.path).query)
            if h.command == "POST":
                form = urllib.parse.parse_qs(h.rfile.read(int(h.headers["Content-Length"])).decode())
                ok = form["grant_type"] == ["refresh_token"] and form["refresh_token"] == ["refresh-me"]
                scope = form["scope"]
            else:
                given = h.headers.get("Authorization", "")
                ok = given == "Basic " + base64.b64encode(b"alice:s3cret").decode() or (self.anonymous and not given)
                scope = query["scope"]
                assert query["service"] == ["the registry"], query
            assert scope[0].startswith("repository:") and scope[0].endswith(":pull"), scope
            if not ok:
                h.error(401, "UNAUTHORIZED", "who are you")
                return True
            self.n += 1
            token = "T0ken-%d" % self.n
            self.valid.add(token)
            h.reply(200, json.dumps({"access_token" if h.command == "POST" else "token": token}).encode())
            return True
        given = h.headers.get("Authorization", "")
        if given.startswith("Bearer ") and given[7:] in self.valid:
            return False
        name = path.split("/v2/")[1].rsplit("/", 2)[0]
        h.error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate":
                'Bearer realm="http://%s/token",service="the registry",scope="repository:%s:pull"' % (self.fake.host, name)})
        return True


@test
def the_token_flow():
    store, fake = Store(), FakeRegistry()
    fake.push("private/x", "1", small("secret thing"))
    server = TokenServer(fake)
    store.refused(fake.host + "/private/x:1", "Unauthenticated", "who are you", "none were given")
    store.refused(fake.host + "/private/x:1", "Unauthenticated", "check the credentials", user="alice:wrong")
    i = store.pull(fake.host + "/private/x:1", user="alice:s3cret")
    assert server.n == 1  # one token for all of its requests
    store.run("remove", i.id)
    store.pull(fake.host + "/private/x:1", identity_token="refresh-me")
    store.run("remove", i.id)
    server.valid.add("given")
    n = server.n
    store.pull(fake.host + "/private/x:1", registry_token="given")
    assert server.n == n
    # Credentials for another registry are not shown to this one.
    store.run("remove", i.id)
    fake.log.clear()
    store.refused(fake.host + "/private/x:1", "Unauthenticated", user="alice:s3cret", server="https://other.example/v1/")
    assert not any("Authorization" in h for m, p, h in fake.log)
    store.pull(fake.host + "/private/x:1", user="alice:s3cret", server="http://" + fake.host)
    server.valid.clear()  # tokens that expired in between
    store.pull(fake.host + "/private/x:1", user="alice:s3cret")
    TokenServer(fake, anonymous=True)
    store.run("remove", i.id)
    store.pull(fake.host + "/private/x:1")
    fake.stop()


@test
def basic_credentials_from_the_request_or_the_configuration():
    store, fake = Store(), FakeRegistry()
    fake.push("b", "1", small("basic"))
    want = "Basic " + base64.b64encode(b"alice:s3cret").decode()

    def hook(h, path):
        if h.headers.get("Authorization") == want:
            return False
        h.error(401, "UNAUTHORIZED", "no", {"WWW-Authenticate": 'Basic realm="x"'})
        return True

    fake.hook = hook
    store.refused(fake.host + "/b:1", "Unauthenticated", "none were given")
    i = store.pull(fake.host + "/b:1", user="alice:s3cret")
    store.run("remove", i.id)
    with open(WORK + "/password", "w") as f:
        f.write("s3cret\n")
    store.hosts(fake.host, "[Registry]\nUsername=alice\nPasswordFile=%s/password\n" % WORK)
    store.pull(fake.host + "/b:1")
    store.run("remove", i.id)
    store.hosts(fake.host, "[Registry]\nUsername=alice\nPasswordFile=/nonexistent\n")
    store.refused(fake.host + "/b:1", "NotFound", "/nonexistent")
    # A mirror has credentials of its own; the request's are not for it.
    store.hosts("origin.example", "[Mirror]\nURL=http://%s\n[Registry]\nFallback=no\n" % fake.host)
    fake.log.clear()
    store.refused("origin.example/b:1", "Unauthenticated", user="alice:s3cret")
    assert not any("Authorization" in h for m, p, h in fake.log)
    store.hosts("origin.example", "[Mirror]\nURL=http://%s\nUsername=alice\nPasswordFile=%s/password\n[Registry]\nFallback=no\n" % (fake.host, WORK))
    store.pull("origin.example/b:1")
    fake.hook = lambda h, p: h.error(403, "DENIED", "not you\x1b[31m\nreally") or True
    out = store.run("pull", fake.host + "/b:2")[1]
    assert "PermissionDenied" in out and "not you [31m really" in out, out
    fake.stop()


@test
def credentials_dont_follow_redirects_to_other_hosts():
    store, fake, cdn = Store(), FakeRegistry(), FakeRegistry("127.0.0.2")
    image = small("redirected")
    fake.push("r", "1", image)
    cdn.blobs = dict(fake.blobs)
    server = TokenServer(fake)

    def hook(h, path):
        if "/blobs/" in path and not h.path.endswith("?again"):
            h.reply(307, b"", {"Location": "http://%s%s?X-Signature=T0ken-of-cdn" % (cdn.host, path)})
            return True
        return server.hook(h, path)

    fake.hook = hook
    store.pull(fake.host + "/r:1", user="alice:s3cret")
    assert len(cdn.log) == 2 and not any("Authorization" in h for m, p, h in cdn.log)
    # What goes wrong there is told without the signature.
    cdn.hook = lambda h, p: h.error(403, "AccessDenied", "expired") or True
    fake.push("r", "2", small("two"))
    out = store.run("pull", fake.host + "/r:2", user="alice:s3cret")[1]
    assert "PermissionDenied" in out and "T0ken" not in out, out
    # Round and round.
    fake.hook = lambda h, p: h.reply(302, b"", {"Location": h.path}) or True
    assert "redirects" in store.run("pull", fake.host + "/r:2")[1]
    fake.hook = lambda h, p: h.reply(302, b"", {"Location": "file:///etc/passwd"}) or True
    assert store.run("pull", fake.host + "/r:2")[0] == 1
    fake.stop()
    cdn.stop()


@test
def somebody_elses_pull_gives_nobody_access():
    store, fake = Store(), FakeRegistry()
    fake.push("private/y", "1", small("y"))
    server = TokenServer(fake)
    real = server.hook

    def slow(h, path):
        time.sleep(0.2)
        return real(h, path)

    fake.hook = slow
    p = subprocess.Popen(store.command("pull", fake.host + "/private/y:1", user="alice:s3cret"), stdout=subprocess.PIPE, text=True)
    out = p.communicate(timeout=60)[0]
    assert p.returncode == 0, out
    # Known and unchanged, and still not for everybody.
    code, out = store.run("pull", fake.host + "/private/y:1")
    assert code == 1 and "Unauthenticated" in out, out
    fake.stop()


@test
def a_certificate_is_trusted_only_when_told():
    if not shutil.which("openssl"):
        return
    import ssl
    store, fake = Store(), FakeRegistry()
    key, crt = WORK + "/key.pem", WORK + "/crt.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", crt, "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, stderr=subprocess.DEVNULL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    fake.server.socket = context.wrap_socket(fake.server.socket, server_side=True)
    fake.push("tls", "1", small("tls"))
    store.hosts(fake.host, "[Registry]\nPlainHTTP=no\n")
    store.refused(fake.host + "/tls:1", "Unavailable", "not trusted")
    store.hosts(fake.host, "[Registry]\nPlainHTTP=no\nCA=%s\n" % crt)
    store.pull(fake.host + "/tls:1")
    store.hosts(fake.host, "[Registry]\nPlainHTTP=no\nInsecure=yes\n")
    store.run("remove", fake.host + "/tls:1")
    store.pull(fake.host + "/tls:1")
    # From https never to http.
    other = FakeRegistry()
    fake.hook = lambda h, p: h.reply(302, b"", {"Location": "http://%s%s" % (other.host, p)}) or True
    assert "without https" in store.run("pull", fake.host + "/tls:2")[1]
    fake.stop()
    other.stop()


for f in (TOOL, UNPACK):
    if not os.access(f, os.X_OK):
        sys.exit("%s is not there" % f)
if os.geteuid() != 0 or not os.path.exists("/usr/bin/docker-registry") or not shutil.which("zstd"):
    print("1..0 # SKIP needs root, docker-registry and zstd")
    sys.exit(77)
for k in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
    os.environ.pop(k, None)
WORK = tempfile.mkdtemp(prefix="rktlet-test-pull-", dir=os.environ.get("TMPDIR", "/tmp"))
REAL = None
failed = 0
try:
    REAL = RealRegistry()
    only = sys.argv[3:]
    chosen = [f for f in tests if not only or f.__name__ in only]
    print("1..%d" % len(chosen), flush=True)
    for n, f in enumerate(chosen, 1):
        start = time.monotonic()
        try:
            f()
            print("ok %d - %s # %.1f s" % (n, f.__name__, time.monotonic() - start), flush=True)
        except Exception:
            import traceback
            failed += 1
            print("not ok %d - %s" % (n, f.__name__), flush=True)
            traceback.print_exc()
finally:
    if REAL:
        REAL.stop()
    subprocess.run(["rm", "-rf", WORK])
sys.stdout.flush()
os._exit(1 if failed else 0)

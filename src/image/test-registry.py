#!/usr/bin/env python3
"""Pulling from registries that misbehave, attack or ask for credentials."""

import base64
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

sys.dont_write_bytecode = True
from image_testing import *  # noqa: E402,F403
from oci import DOCKER, OCI, Image, Index, Layer, digest_of  # noqa: E402


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
    answers = {
        "manifests": [(429, {"Retry-After": "1"}), (503, {}), (500, {})],
        "blobs": [(502, {}), (504, {}), (429, {})],
    }

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
    assert "ResourceExhausted" in out and "slow down" in out and "429" in out and len(fake.log) == 5, (
        out,
        len(fake.log),
    )
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
    for which, bend, text in (
        (config, lambda b: b[:-1] + b" ", "digest"),
        (config, lambda b: b + b" ", "expected"),
        (config, lambda b: b[:-1], "digest"),
        (layer, lambda b: b[:-1] + b"x", "Cannot unpack"),
        (layer, lambda b: b + b"x", "expected"),
        (layer, lambda b: b[:-1], "bytes"),
    ):
        fake.blobs = dict(good)
        fake.blobs[which] = bend(good[which])
        out = store.refused(
            fake.host + "/wrong:1", "ResourceExhausted" if which == config and text == "expected" else "DataLoss", text
        )
        assert "wrong" in out
    fake.blobs = good
    body, media = fake.manifests["wrong", "1"]
    fake.manifests["wrong", d] = (body + b" ", media)
    store.refused(fake.host + "/wrong@" + d, "DataLoss", "digest")
    fake.hook = lambda h, p: "manifests" in p and (
        h.reply(200, body, {"Content-Type": media, "Docker-Content-Digest": "sha256:" + "0" * 64}) or True
    )
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
        (
            lambda j: {"schemaVersion": 1, "fsLayers": []},
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "Unimplemented",
            "schema 1",
        ),
        (lambda j: {"schemaVersion": 2, "manifests": inner}, None, "NotFound", ""),
        (lambda j: j.pop("config") and None, "manifest", "DataLoss", "no config"),
        (lambda j: j.update(layers=[]), "manifest", "DataLoss", "no layer"),
        (lambda j: j.update(layers={}), "manifest", "DataLoss", ""),
        (lambda j: j.update(layers=[many] * 300), "manifest", "ResourceExhausted", "300 layers"),
        (
            lambda j: j["layers"][0].update(digest="sha256:../../../../etc/passwd"),
            "manifest",
            "Unimplemented",
            "digest",
        ),
        (lambda j: j["layers"][0].update(digest="sha512:" + "1" * 128), "manifest", "Unimplemented", "sha256"),
        (lambda j: j["layers"][0].update(size=-1), "manifest", "DataLoss", "size"),
        (lambda j: j["layers"][0].update(size=1 << 50), "manifest", "ResourceExhausted", "at most"),
        (lambda j: j["layers"][0].update(size="5"), "manifest", "DataLoss", "size"),
        (lambda j: j["layers"][0].update(mediaType="text/html"), "manifest", "FailedPrecondition", "text/html"),
        (
            lambda j: j["layers"][0].update(mediaType=OCI["gzip"] + "+encrypted"),
            "manifest",
            "Unimplemented",
            "encrypted",
        ),
        (
            lambda j: j["config"].update(mediaType="application/vnd.cncf.helm.config.v1+json"),
            "manifest",
            "FailedPrecondition",
            "helm",
        ),
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
    for body, code in (
        (b"", "DataLoss"),
        (b"[]", "DataLoss"),
        (b"{", "DataLoss"),
        (b'{"a":' * 100000, "DataLoss"),
        (b'{"schemaVersion":2,"layers":[],"layers":[]}', "DataLoss"),
        (b" " * (5 << 20), "ResourceExhausted"),
        (b"<html>login</html>", "DataLoss"),
        (b"\xff\xfe{}", "DataLoss"),
    ):
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
    for n, (extra, code) in enumerate(
        (
            ({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]}}, "DataLoss"),
            ({"rootfs": {"type": "layers", "diff_ids": []}}, "DataLoss"),
            ({"rootfs": None}, "DataLoss"),
            ({"rootfs": {"diff_ids": ["../x"]}}, "Unimplemented"),
            ({"config": {"Env": "A=b"}}, "DataLoss"),
            ({"config": {"Cmd": [1]}}, "DataLoss"),
            ({"config": {"Labels": {"a": 1}}}, "DataLoss"),
            ({"config": []}, "DataLoss"),
            ({"config": {"User": 5}}, "DataLoss"),
            ({"architecture": 5}, "DataLoss"),
        )
    ):
        fake.push("cfg", "t%d" % n, Image([layer], config_extra=extra))
        store.refused(fake.host + "/cfg:t%d" % n, code)
    fake.push(
        "cfg",
        "nulls",
        Image([layer], config_extra={"config": {"Env": None, "Labels": None, "Cmd": None, "User": None}}),
    )
    store.pull(fake.host + "/cfg:nulls")
    fake.stop()


@test
def layers_that_attack_are_refused_and_leave_nothing():
    store, fake = Store(), FakeRegistry()
    for n, layer in enumerate(
        (
            Layer().file("../x", "1"),
            Layer().hardlink("h", "../../etc/passwd"),
            Layer().file("a/.wh...", ""),
            Layer().symlink("a", "b").symlink("b", "a").file("a/x", "1"),
        )
    ):
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
                h.wfile.write(layer[i : i + len(layer) // 4])
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
        h.error(
            401,
            "UNAUTHORIZED",
            "authentication required",
            {
                "WWW-Authenticate": 'Bearer realm="http://%s/token",service="the registry",scope="repository:%s:pull"'
                % (self.fake.host, name)
            },
        )
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
    store.refused(
        fake.host + "/private/x:1", "Unauthenticated", user="alice:s3cret", server="https://other.example/v1/"
    )
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
    with open(work() + "/password", "w") as f:
        f.write("s3cret\n")
    store.hosts(fake.host, "[Registry]\nUsername=alice\nPasswordFile=%s/password\n" % work())
    store.pull(fake.host + "/b:1")
    store.run("remove", i.id)
    store.hosts(fake.host, "[Registry]\nUsername=alice\nPasswordFile=/nonexistent\n")
    store.refused(fake.host + "/b:1", "NotFound", "/nonexistent")
    # A mirror has credentials of its own; the request's are not for it.
    store.hosts("origin.example", "[Mirror]\nURL=http://%s\n[Registry]\nFallback=no\n" % fake.host)
    fake.log.clear()
    store.refused("origin.example/b:1", "Unauthenticated", user="alice:s3cret")
    assert not any("Authorization" in h for m, p, h in fake.log)
    store.hosts(
        "origin.example",
        "[Mirror]\nURL=http://%s\nUsername=alice\nPasswordFile=%s/password\n[Registry]\nFallback=no\n"
        % (fake.host, work()),
    )
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
    p = subprocess.Popen(
        store.command("pull", fake.host + "/private/y:1", user="alice:s3cret"), stdout=subprocess.PIPE, text=True
    )
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
    key, crt = work() + "/key.pem", work() + "/crt.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            key,
            "-out",
            crt,
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )
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


main()

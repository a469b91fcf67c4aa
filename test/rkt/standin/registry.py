"""image fetch: from a registry, unpacked whole and described as docker2aci does it."""
import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import tarfile
import time
import urllib.parse

from .common import Fail, complain, fault, put
from .images import database, find

TYPES = ", ".join(f"application/vnd.{t}+json" for t in (
    "docker.distribution.manifest.v2", "oci.image.manifest.v1", "docker.distribution.manifest.list.v2", "oci.image.index.v1"))


# --- registry -----------------------------------------------------------------------------------------------------

class Registry:
    def __init__(self, store, host):
        self.store, self.host, self.authorization, self.scheme = store, host, None, "https"
        for directory in (store.local_config, store.user_config):
            self.read_auth(f"{directory}/auth.d" if directory else "")

    def read_auth(self, directory):
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
            with open(f"{directory}/{name}") as f:
                o = json.load(f)
            if o["rktKind"] == "dockerAuth" and self.host in o["registries"]:
                pair = f'{o["credentials"]["user"]}:{o["credentials"]["password"]}'
                self.authorization = "Basic " + base64.b64encode(pair.encode()).decode()

    def request(self, url, headers):
        u = urllib.parse.urlsplit(url)
        if u.scheme == "https":
            import ssl
            c = http.client.HTTPSConnection(u.netloc, timeout=30, context=ssl.create_default_context())
        else:
            c = http.client.HTTPConnection(u.netloc, timeout=30)
        try:
            c.request("GET", u.path + (f"?{u.query}" if u.query else ""), headers=headers)
            return c.getresponse()
        except OSError as e:
            why = e.strerror or str(e)
            if "WRONG_VERSION_NUMBER" in str(e) or "wrong version number" in str(e).lower():
                why = "http: server gave HTTP response to HTTPS client"
            elif e.errno:
                why = f"dial tcp {u.netloc}: connect: {why.lower()}"
            raise Fail(f'fetch: Get "{url}": {why}')

    def get(self, path, accept="*/*", authorization=None):
        headers = {"Accept": accept}
        if authorization or self.authorization:
            headers["Authorization"] = authorization or self.authorization
        url = f"{self.scheme}://{self.host}{path}"
        try:
            r = self.request(url, headers)
        except Fail:
            if "http" not in self.store.insecure or self.scheme == "http":
                raise
            self.scheme = "http"
            return self.get(path, accept, authorization)
        if r.status == 401 and not authorization:
            r.read()
            token = self.token(r.headers.get("WWW-Authenticate", ""))
            if token:
                return self.get(path, accept, f"Bearer {token}")
        if r.status in (301, 302, 307, 308):
            r.read()
            target = urllib.parse.urljoin(url, r.headers["Location"])
            r = self.request(target, {"Accept": accept})
        if r.status == 404:
            raise Fail("fetch: attempted fallback to API v1 but not supported")
        if r.status != 200:
            raise Fail(f"fetch: Unexpected HTTP code: {r.status}, URL: {url}")
        return r

    def token(self, challenge):
        if not challenge.startswith("Bearer "):
            return None
        parts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = urllib.parse.urlencode({k: v for k, v in parts.items() if k in ("service", "scope")})
        r = self.request(f'{parts["realm"]}?{query}', {"Authorization": self.authorization} if self.authorization else {})
        if r.status != 200:
            raise Fail(f"fetch: error getting the token: Unexpected HTTP code: {r.status}")
        o = json.loads(r.read())
        return o.get("token") or o.get("access_token")


def checked(data, digest):
    if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
        raise Fail(f"fetch: error verifying the digest {digest}")
    return data


# --- layers -------------------------------------------------------------------------------------------------------

def remove_path(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def whiteout(root, name):
    directory, base = os.path.split(name)
    target = os.path.join(root, directory)
    if base == ".wh..wh..opq":
        for n in os.listdir(target) if os.path.isdir(target) else []:
            remove_path(os.path.join(target, n))
    else:
        remove_path(os.path.join(target, base[4:]))


def apply_layer(root, data):
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)) as tar:
        for m in tar:
            name = os.path.normpath("/" + m.name).lstrip("/")
            if name in ("", "."):
                continue
            m.name = name
            parent = os.path.realpath(os.path.join(root, os.path.dirname(name)))
            if os.path.commonpath((parent, root)) != root:
                raise Fail(f"fetch: layer leads out of its root: {name}")
            if os.path.basename(name).startswith(".wh."):
                whiteout(root, name)
                continue
            path = os.path.join(root, name)
            if os.path.lexists(path) and not (m.isdir() and os.path.isdir(path) and not os.path.islink(path)):
                remove_path(path)
            if m.islnk():
                m.linkname = os.path.normpath("/" + m.linkname).lstrip("/")
            tar.extract(m, root, numeric_owner=True)


def tree_size(path):
    return sum(os.lstat(os.path.join(d, n)).st_size for d, _, names in os.walk(path) for n in names)


# --- conversion ---------------------------------------------------------------------------------------------------

def app_manifest(name, tag, original, host, repository, digest, image_id, config):
    c = config.get("config") or {}
    user, _, group = (c.get("User") or "0").partition(":")
    entrypoint, cmd = c.get("Entrypoint") or [], c.get("Cmd") or []
    app = {"exec": entrypoint + cmd, "user": user, "group": group or "0", "workingDirectory": c.get("WorkingDir") or "/"}
    if c.get("Env"):
        app["environment"] = [{"name": k, "value": v} for k, _, v in (e.partition("=") for e in c["Env"])]
    if c.get("Volumes"):
        app["mountPoints"] = [{"name": "volume-" + re.sub("[^a-z0-9]+", "-", v.lower()).strip("-"), "path": v}
                              for v in sorted(c["Volumes"])]
    labels = [{"name": "arch", "value": config.get("architecture", "amd64")}, {"name": "os", "value": config.get("os", "linux")}]
    if tag:
        labels.append({"name": "version", "value": tag})
    notes = [("created", config.get("created")), ("appc.io/docker/originalname", original),
             ("appc.io/docker/registryurl", host), ("appc.io/docker/repository", repository),
             ("appc.io/docker/imageid", image_id), ("appc.io/docker/manifesthash", digest),
             ("appc.io/docker/entrypoint", json.dumps(entrypoint, separators=(",", ":")) if entrypoint else None),
             ("appc.io/docker/cmd", json.dumps(cmd, separators=(",", ":")) if cmd else None)]
    m = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": name, "labels": labels}
    if app["exec"]:
        m["app"] = app
    m["annotations"] = [{"name": k, "value": v} for k, v in notes if v]
    return m


def fetch(store, flags, words, rest):
    if len(words) != 1:
        raise Fail("fetch: must provide at least one image")
    url = words[0]
    if not url.startswith("docker://"):
        raise Fail(f"fetch: open {url}: no such file or directory" if url.startswith("/") else "fetch: discovery failed")
    original = url[len("docker://"):]
    host, _, repository = original.partition("/")
    repository, _, digest = repository.partition("@")
    tag = None
    if not digest:
        repository, _, tag = repository.rpartition(":")
    if flags.get("pull-policy", ["new"])[-1] == "never":
        return print_hash(flags, find(store, url))
    registry = Registry(store, host)
    registry.get("/v2/").read()
    r = registry.get(f"/v2/{repository}/manifests/{digest or tag}", TYPES)
    data = r.read()
    if digest:
        checked(data, digest)
    manifest_digest, manifest = "sha256:" + hashlib.sha256(data).hexdigest(), json.loads(data)
    if "manifests" in manifest:
        one = next((m for m in manifest["manifests"] if (m.get("platform") or {}).get("architecture") == "amd64"), None)
        if not one:
            raise Fail("fetch: no supported platform found in the manifest list")
        data = checked(registry.get(f'/v2/{repository}/manifests/{one["digest"]}', TYPES).read(), one["digest"])
        manifest_digest, manifest = one["digest"], json.loads(data)
    if "layers" not in manifest or "config" not in manifest:
        raise Fail("fetch: error getting the image manifest: unknown schema")
    image_id = manifest["config"]["digest"]
    config = json.loads(checked(registry.get(f"/v2/{repository}/blobs/{image_id}").read(), image_id))
    name = f"{host.replace(':', '_')}/{repository}"
    m = app_manifest(name, tag, original, host, repository, manifest_digest, image_id, config)
    hash_ = "sha512-" + hashlib.sha512(json.dumps(m, sort_keys=True).encode()).hexdigest()[:64]
    with database(store) as images:
        known = hash_ in images
    if not known:
        unpack(store, registry, repository, manifest, hash_)
    fault("image fetch", "middle")
    with database(store) as images:
        now = time.time_ns()
        if hash_ not in images:
            size = tree_size(f"{store.cas}/tree/{hash_}")
            images[hash_] = {"name": f"{name}:{tag}" if tag else name, "url": url, "import_time": now, "size": size, "manifest": m}
        images[hash_]["import_time"] = images[hash_]["last_used_time"] = now
    return print_hash(flags, hash_)


def unpack(store, registry, repository, manifest, hash_):
    root = f"{store.cas}/tmp/{hash_}.{os.getpid()}"
    os.makedirs(root)
    root = os.path.realpath(root)
    try:
        for layer in manifest["layers"]:
            data = checked(registry.get(f'/v2/{repository}/blobs/{layer["digest"]}').read(), layer["digest"])
            complain(f'Downloading {layer["digest"][:18]} {len(data) / 1e6:.2f} MB / {len(data) / 1e6:.2f} MB')
            apply_layer(root, data)
        os.makedirs(f"{store.cas}/tree", exist_ok=True)
        os.rename(root, f"{store.cas}/tree/{hash_}")
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as e:
        raise Fail(f"fetch: error converting the image: {e}")
    except OSError:
        if not os.path.isdir(f"{store.cas}/tree/{hash_}"):
            raise
    finally:
        shutil.rmtree(root, ignore_errors=True)


def print_hash(flags, hash_):
    put(hash_ if flags.get("full", ["false"])[-1] == "true" else hash_[:39])

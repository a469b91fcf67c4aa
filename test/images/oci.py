"""Makes container images from scratch and pushes them to a registry, with nothing but Python's standard library.

Formats: OCI image specification (layer.md, config.md, manifest.md, image-index.md) and Docker's schema 2 where asked;
protocol: OCI distribution specification. Everything is deterministic, so an image has the same digest wherever it is
made from the same parts.
"""

import gzip
import hashlib
import http.client
import io
import json
import subprocess
import tarfile
import urllib.parse

OCI = {
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "index": "application/vnd.oci.image.index.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "none": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
DOCKER = {
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "none": "application/vnd.docker.image.rootfs.diff.tar",
    "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layer:
    """A tar archive in the making. Methods return the layer, so that they can be chained."""

    def __init__(self, compression="gzip", tar_format=tarfile.PAX_FORMAT):
        self.compression = compression
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tar_format)
        self._done = None

    def _add(self, name, kind, mode, uid, gid, content=None, link="", device=(0, 0), xattrs=None):
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.uid, entry.gid, entry.linkname = kind, mode, uid, gid, link
        entry.devmajor, entry.devminor = device
        entry.mtime = 1700000000
        for key, value in (xattrs or {}).items():
            entry.pax_headers["SCHILY.xattr." + key] = value
        if content is not None:
            entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content) if content is not None else None)
        return self

    def file(self, name, content=b"", mode=0o644, uid=0, gid=0, xattrs=None):
        if isinstance(content, str):
            content = content.encode()
        return self._add(name, tarfile.REGTYPE, mode, uid, gid, content, xattrs=xattrs)

    def dir(self, name, mode=0o755, uid=0, gid=0):
        return self._add(name, tarfile.DIRTYPE, mode, uid, gid)

    def symlink(self, name, target, uid=0, gid=0):
        return self._add(name, tarfile.SYMTYPE, 0o777, uid, gid, link=target)

    def hardlink(self, name, target, mode=0o644):
        return self._add(name, tarfile.LNKTYPE, mode, 0, 0, link=target)  # mode: the file's, as tar writes it

    def device(self, name, major, minor, mode=0o666, block=False):
        return self._add(name, tarfile.BLKTYPE if block else tarfile.CHRTYPE, mode, 0, 0, device=(major, minor))

    def fifo(self, name, mode=0o644):
        return self._add(name, tarfile.FIFOTYPE, mode, 0, 0)

    def whiteout(self, name):
        folder, _, last = name.rpartition("/")
        return self.file((folder + "/" if folder else "") + ".wh." + last)

    def opaque(self, folder):
        return self.file(folder + "/.wh..wh..opq")

    def finish(self):
        """Returns (compressed bytes, diff ID)."""
        if self._done is None:
            self._tar.close()
            raw = self._buffer.getvalue()
            if self.compression == "gzip":
                data = gzip.compress(raw, 6, mtime=0)
            elif self.compression == "zstd":
                data = subprocess.run(["zstd", "-q", "-3", "-c"], input=raw, stdout=subprocess.PIPE, check=True).stdout
            else:
                data = raw
            self._done = (data, digest_of(raw))
        return self._done


class Image:
    """Layers and a config. `config` holds the members of the OCI config's "config" object (Env, Cmd, User, …)."""

    def __init__(self, layers, config=None, architecture="amd64", variant=None, media=OCI, manifest_extra=None,
                 config_extra=None):
        self.layers, self.media = layers, media
        text = {"architecture": architecture, "os": "linux", "created": "2024-01-02T03:04:05Z", "config": config or {},
                "rootfs": {"type": "layers", "diff_ids": [layer.finish()[1] for layer in layers]},
                "history": [{"created": "2024-01-02T03:04:05Z", "created_by": "test/images"} for _ in layers]}
        if variant:
            text["variant"] = variant
        text.update(config_extra or {})
        self.config = json.dumps(text).encode()
        self.platform = {"architecture": architecture, "os": "linux"}
        if variant:
            self.platform["variant"] = variant
        manifest = {"schemaVersion": 2, "mediaType": media["manifest"],
                    "config": self._descriptor(media["config"], self.config),
                    "layers": [self._descriptor(media[layer.compression], layer.finish()[0]) for layer in layers]}
        manifest.update(manifest_extra or {})
        self.manifest = json.dumps(manifest).encode()

    @staticmethod
    def _descriptor(media_type, data):
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def descriptor(self):
        return self._descriptor(self.media["manifest"], self.manifest)


class Index:
    """Several images under one name, one a platform."""

    def __init__(self, images, media=OCI):
        self.images, self.media = images, media
        self.manifest = json.dumps({
            "schemaVersion": 2, "mediaType": media["index"],
            "manifests": [dict(image.descriptor(), platform=image.platform) for image in images]}).encode()


class Registry:
    """A registry that speaks plain HTTP at host:port."""

    def __init__(self, address):
        self._address = address
        self._connection = http.client.HTTPConnection(address, timeout=60)

    def _request(self, method, path, body=None, headers=None, expect=()):
        self._connection.request(method, path, body=body, headers=headers or {})
        reply = self._connection.getresponse()
        text = reply.read()
        if reply.status not in expect:
            raise RuntimeError(f"{method} {path}: {reply.status} {text[:300]!r}")
        return reply

    def is_up(self):
        try:
            self._request("GET", "/v2/", expect=(200,))
            return True
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return False

    def push_blob(self, name, data):
        digest = digest_of(data)
        if self._request("HEAD", f"/v2/{name}/blobs/{digest}", expect=(200, 404)).status == 200:
            return
        location = self._request("POST", f"/v2/{name}/blobs/uploads/", b"", expect=(202,)).headers["Location"]
        parts = urllib.parse.urlsplit(location)
        query = (parts.query + "&" if parts.query else "") + urllib.parse.urlencode({"digest": digest})
        self._request("PUT", f"{parts.path}?{query}", data, {"Content-Type": "application/octet-stream"}, expect=(201,))

    def push_manifest(self, name, reference, media_type, data):
        self._request("PUT", f"/v2/{name}/manifests/{reference}", data, {"Content-Type": media_type}, expect=(201,))

    def push(self, name, tag, what):
        """Pushes an Image or Index; returns the digest of what the tag now points at."""
        if isinstance(what, Index):
            for image in what.images:
                self.push(name, digest_of(image.manifest), image)
            self.push_manifest(name, tag, what.media["index"], what.manifest)
        else:
            for layer in what.layers:
                self.push_blob(name, layer.finish()[0])
            self.push_blob(name, what.config)
            self.push_manifest(name, tag, what.media["manifest"], what.manifest)
        return digest_of(what.manifest)

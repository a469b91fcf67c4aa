#!/usr/bin/env python3
"""The checker of the image store: every kind of file damaged in every kind of way is found, named and mended."""

import hashlib
import os
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
from image_testing import *  # noqa: E402,F403
from oci import Image, Layer  # noqa: E402


def check(store, command="check", *layers):
    p = subprocess.run([TOOL, store.dir, command, *layers], capture_output=True, text=True, timeout=120)
    assert "Sanitizer" not in p.stderr, p.stderr
    return p.returncode, p.stdout


def fingerprint(directory):
    h = hashlib.sha256()
    for base, folders, files in os.walk(directory):
        for name in sorted(folders + files):
            path = os.path.join(base, name)
            h.update(path.encode())
            if os.path.islink(path):
                h.update(os.readlink(path).encode())
            elif os.path.isfile(path):
                with open(path, "rb") as f:
                    h.update(f.read())
        folders.sort()
    return h.hexdigest()


class Base:
    """Two images with a layer each of their own, and one that they share."""

    def __init__(self):
        self.store = Store()
        self.ids = {}
        for name in ("healthy", "hurt"):
            image = Image([Layer().file("shared", "s" * 5000),
                           Layer().dir("d").file("d/x", name * 500).file("d/empty", "").symlink("l", "d/x")])
            REAL.push("check-" + name, "1", image)
            self.ids[name] = self.store.pull(REAL.host + "/check-%s:1" % name, linger=6000).id
        listed = {i.id: i for i in self.store.list()}
        self.hurt, self.healthy = listed[self.ids["hurt"]], listed[self.ids["healthy"]]

    def copy(self):
        store = Store()
        shutil.copytree(self.store.dir, store.dir, symlinks=True)
        return store

    def healthy_is_there(self, store):
        listed = {i.id: i for i in store.list()}
        assert self.healthy.id in listed, store.stderr
        assert store.read(self.healthy.layers[1], "d/x") == b"healthy" * 500
        return listed

    def hurt_can_be_pulled(self, store):
        again = store.pull(REAL.host + "/check-hurt:1")
        assert again.id == self.hurt.id and store.read(again.layers[1], "d/x") == b"hurt" * 500
        assert store.read(again.layers[0], "shared") == b"s" * 5000
        assert check(store)[0] == 0, check(store)


base = None


@test
def a_sound_store_has_nothing_to_find():
    global base
    base = Base()
    before = fingerprint(base.store.dir)
    assert check(base.store) == (0, ""), check(base.store)
    assert check(base.store, "repair") == (0, "")
    assert fingerprint(base.store.dir) == before
    empty = Store()
    assert check(empty) == (0, "") and not os.path.exists(empty.dir)


def damaged(file, survives):
    """Damages the file in all ways, each in a store of its own."""
    n = 0
    for way, _ in enumerate(ways_to_damage(os.path.join(base.copy().dir, file))):
        store = base.copy()
        list(ways_to_damage(os.path.join(store.dir, file)))[way]()
        before = fingerprint(store.dir)
        code, out = check(store)
        assert fingerprint(store.dir) == before, "looking has changed something"
        if code == 0:
            # A bit of the checksum's own name, or the time when the image was saved: nothing is lost.
            listed = base.healthy_is_there(store)
            assert base.hurt.id in listed and listed[base.hurt.id].layers == base.hurt.layers, file
            continue
        n += 1
        assert code == 4 and "Lost: " in out and "With --repair: " in out, (file, way, code, out)
        code, out = check(store, "repair")
        assert code == 1 and "Repaired: " in out and "Not repaired" not in out, (file, way, code, out)
        assert check(store) == (0, ""), (file, way, check(store))
        listed = base.healthy_is_there(store)
        assert not survives or base.hurt.id in listed, (file, way, out, store.stderr)
        assert "damaged" not in store.stderr and "set aside" not in store.stderr, store.stderr
        base.hurt_can_be_pulled(store)
        shutil.rmtree(store.dir)
    assert n >= 20, (file, n)


@test
def layer_descriptions():
    damaged("layers/%s/layer.json" % base.hurt.layers[1], survives=True)


@test
def files_of_layers():
    damaged("layers/%s/fs/d/x" % base.hurt.layers[1], survives=False)


@test
def checksums_of_layers():
    file = os.path.join("layers", base.hurt.layers[1], "sums")
    store = base.copy()
    os.unlink(os.path.join(store.dir, file))  # one of before there were any
    assert check(store) == (0, "")
    with open(os.path.join(store.dir, file), "w") as f:
        f.write("x")
    assert check(store)[0] == 4


@test
def images():
    damaged("images/%s.json" % base.hurt.id[7:], survives=False)


@test
def configs():
    damaged("blobs/sha256/" + base.hurt.id[7:], survives=False)


@test
def manifests():
    blobs = [n for n in base.store.names("blobs/sha256") if n not in (base.hurt.id[7:], base.healthy.id[7:])]
    for blob in blobs:
        with open(os.path.join(base.store.dir, "blobs/sha256", blob)) as f:
            if base.hurt.id in f.read():
                damaged("blobs/sha256/" + blob, survives=True)
                return
    raise AssertionError("no manifest")


@test
def versions():
    store = base.copy()
    path = store.dir + "/version.json"
    for text in ("", "{", "[]", '{"version": 0}'):
        with open(path, "w") as f:
            f.write(text)
        assert check(store)[0] == 4 and check(store, "repair")[0] == 1 and check(store)[0] == 0
    with open(path, "w") as f:
        f.write('{"version": 2}')
    for command in ("check", "repair"):
        code, out = check(store, command)
        assert code == 8 and "is of version 2, this rktlet" in out, out


@test
def what_is_left_over():
    store = base.copy()
    made = ["tmp/left/fs/x", "layers/99/fs/x", "images/.0.json.0123456789abcdef", "blobs/sha256/" + "0" * 64,
            "blobs/sha256/.1.0123456789abcdef", "images/%s.json.damaged" % ("2" * 64), ".version.json.0123456789abcdef"]
    for name in made:
        path = os.path.join(store.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "w").close()
    shutil.copy(os.path.join(store.dir, "layers", base.hurt.layers[0], "layer.json"), store.dir + "/layers/99/layer.json")
    code, out = check(store)
    assert code == 4 and out.count("Lost: ") == len(made), out
    code, out = check(store, "repair")
    assert code == 1 and out.count("Repaired: removed") == len(made), out
    assert check(store) == (0, "")
    for name in made:
        assert not os.path.lexists(os.path.join(store.dir, name)), name
    assert len(store.list()) == 2


@test
def folders():
    for folder in ("layers", "images", "blobs", "blobs/sha256"):
        for make in (lambda p: None, lambda p: open(p, "w").close(), lambda p: os.symlink("nowhere", p)):
            store = base.copy()
            path = os.path.join(store.dir, folder)
            shutil.rmtree(path)
            make(path)
            assert check(store)[0] == 4
            check(store, "repair")
            assert check(store, "repair")[0] in (0, 1) and check(store)[0] == 0, check(store)
            base.hurt_can_be_pulled(store)


@test
def layers_that_containers_have_stay():
    store = base.copy()
    layer = base.hurt.layers[1]
    with open(store.fs(layer, "d/x"), "w") as f:
        f.write("something else")
    code, out = check(store, "repair", layer)
    assert code == 1 and "kept for the containers" in out, out
    assert store.read(layer, "d/x") == b"something else"
    assert check(store, "check", layer) == (0, "")
    # Nobody else gets it.
    again = store.pull(REAL.host + "/check-hurt:1")
    assert again.layers[1] != layer and store.read(again.layers[1], "d/x") == b"hurt" * 500
    # It goes with the last container.
    assert check(store, "check")[0] == 4
    store.run("collect")
    assert layer not in store.names("layers")


main()

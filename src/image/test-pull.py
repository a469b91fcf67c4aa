#!/usr/bin/env python3
"""Pulling, keeping and removing images, end to end against the real docker-registry, directly and as a mirror."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from image_testing import *  # noqa: E402,F403
from oci import DOCKER, OCI, Image, Index, Layer, digest_of  # noqa: E402


def a_real_image():
    base = (
        Layer()
        .dir("./", 0o755)
        .dir("etc")
        .file("etc/passwd", "root")
        .dir("usr")
        .dir("usr/bin")
        .file("usr/bin/a", "A", 0o755)
    )
    second = Layer("zstd").dir("etc").whiteout("etc/passwd").file("opt/new", "n").dir("usr").opaque("usr")
    third = Layer("none").file("tmp/x", "y").symlink("l", "/etc")
    return Image([base, second, third], {"User": "7", "Env": ["A=b"]})


@test
def a_pulled_image_has_its_names_layers_and_trees():
    store = Store()
    image = a_real_image()
    digest = REAL.push("a/b", "t1", image)
    i = store.pull(REAL.host + "/a/b:t1")
    assert (
        i.id == digest_of(image.config)
        and i.tags == [REAL.host + "/a/b:t1"]
        and i.digests == [REAL.host + "/a/b@" + digest]
    )
    assert i.manifest == digest and i.user == "7" and len(i.layers) == 3
    assert i.size == len(image.config) + sum(len(x.finish()[0]) for x in image.layers)
    assert (
        store.read(i.layers[0], "etc/passwd") == b"root"
        and os.stat(store.fs(i.layers[0], "usr/bin/a")).st_mode & 0o111
    )
    assert stat.S_ISCHR(os.lstat(store.fs(i.layers[1], "etc/passwd")).st_mode)
    assert "trusted.overlay.opaque" in os.listxattr(store.fs(i.layers[1], "usr"))
    assert store.read(i.layers[1], "opt/new") == b"n" and os.readlink(store.fs(i.layers[2], "l")) == "/etc"
    assert os.stat(store.dir).st_mode & 0o777 == 0o700 and store.names("tmp") == []
    # overlayfs takes it as it is.
    target = tempfile.mkdtemp(dir=work())
    lower = ":".join(store.fs(x) for x in reversed(i.layers))
    if (
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", "ro,lowerdir=" + lower, target], stderr=subprocess.DEVNULL
        ).returncode
        == 0
    ):
        seen = sorted(os.path.relpath(os.path.join(d, n), target) for d, ds, fs in os.walk(target) for n in ds + fs)
        subprocess.run(["umount", target], check=True)
        assert seen == ["etc", "l", "opt", "opt/new", "tmp", "tmp/x", "usr"], seen
    for ref in (i.id, i.id[7:], i.id[7:19], "sha256:" + i.id[7:15], REAL.host + "/a/b:t1", i.digests[0]):
        assert Pulled(store.run("find", ref)[1]).id == i.id, ref
    for ref in (
        "ffff",
        i.id[7:10],
        REAL.host + "/a/b",
        "sha256:" + "0" * 64,
        "zz",
        "",
        REAL.host + "/a/b@sha256:" + "0" * 64,
    ):
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
def of_two_files_with_one_tag_the_later_is_right():
    store = Store()
    ids = []
    for text in ("old", "new"):
        REAL.push("twice", "1", small(text))
        ids.append(store.pull(REAL.host + "/twice:1").id)
    old = os.path.join(store.dir, "images", ids[0][7:] + ".json")
    with open(old) as f:
        j = json.load(f)
    del j["crc32"]  # a file of before there was one
    j.update(tags=[REAL.host + "/twice:1"], saved=j["saved"] - 1000000)
    with open(old, "w") as f:
        json.dump(j, f)
    assert {i.id: i.tags for i in store.list()} == {ids[0]: [], ids[1]: [REAL.host + "/twice:1"]}
    j["saved"] += 1000000000
    with open(old, "w") as f:
        json.dump(j, f)
    assert Pulled(store.run("find", REAL.host + "/twice:1")[1]).id == ids[0]


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
    REAL.push(
        "sums", "1", Image([Layer().file("a", b"x" * 1000000)] + [Layer().file("f%d" % n, "1") for n in range(20)])
    )
    store.pull(REAL.host + "/sums:1")
    used = int(store.run("info")[1].split("bytes=")[1].split()[0])
    du = int(subprocess.run(["du", "-s", "-B1", store.dir], capture_output=True, text=True).stdout.split()[0])
    assert 0.7 * du < used < 1.3 * du, (used, du)
    assert (
        store.run("info")[1].split()[0]
        == subprocess.run(["stat", "-c%m", store.dir], capture_output=True, text=True).stdout.strip()
    )
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

    assert (
        mode(one, "tmp") == (0o1777, 0, 0)
        and mode(one, "home") == (0o750, 5, 6)
        and mode(one, "home/a") == (0o755, 0, 0)
    )
    assert mode(two, "tmp") == (0o700, 0, 0) and mode(two, "home") == (0o755, 0, 0)
    assert store.pull(REAL.host + "/implied:1").id == one.id and len(store.list()) == 2


@test
def an_opaque_root_hides_all_layers_below():
    store = Store()
    REAL.push(
        "root",
        "1",
        Image([Layer().file("a", "1"), Layer().file("b", "2").file(".wh..wh..opq"), Layer().file("c", "3")]),
    )
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

    layer = next(i for i in store.list() if i.id == ids[2]).layers[1]
    with open(image_file(0), "w") as f:
        f.write('{"version": 1, "id":')
    with open(os.path.join(store.dir, "blobs/sha256", ids[1][7:]), "a") as f:
        f.write("x")
    shutil.rmtree(os.path.join(store.dir, "layers", layer))
    assert [i.id for i in store.list()] == [ids[3]]
    assert store.stderr.count("set aside") == 3, store.stderr
    assert [i.id for i in store.list()] == [ids[3]] and "set aside" not in store.stderr
    assert len([n for n in store.names("images") if n.endswith(".damaged")]) == 3
    store.run("collect")
    assert len(store.names("layers")) == 2
    assert store.pull(REAL.host + "/restart:0").id == ids[0]


@test
def damage_costs_only_what_is_damaged():
    base = Store()
    ids = {}
    for name in ("healthy", "hurt"):
        image = Image([Layer().file("d/" + name, name), Layer().dir("d", 0o700).file("d/x", name * 2)])
        REAL.push("damage-" + name, "1", image)
        ids[name] = base.pull(REAL.host + "/damage-%s:1" % name).id
    hurt = next(i for i in base.list() if i.id == ids["hurt"])
    for file, survives in (
        ("layers/%s/layer.json" % hurt.layers[0], True),
        ("layers/%s/layer.json" % hurt.layers[1], True),
        ("images/%s.json" % ids["hurt"][7:], False),
        ("blobs/sha256/" + ids["hurt"][7:], False),
        ("version.json", True),
    ):
        for damage in list(ways_to_damage(os.path.join(base.dir, file))):
            store = Store()
            shutil.copytree(base.dir, store.dir, symlinks=True)
            # The function knows the file of the base: it is damaged there, and put back afterwards.
            os.rename(base.dir, base.dir + "-kept")
            os.rename(store.dir, base.dir)
            damage()
            os.rename(base.dir, store.dir)
            os.rename(base.dir + "-kept", base.dir)
            for _ in range(2):  # what has been made again stays so
                listed = {i.id: i for i in store.list()}
                assert ids["healthy"] in listed, (file, store.stderr)
                assert not survives or ids["hurt"] in listed, (file, store.stderr)
                assert store.read(listed[ids["healthy"]].layers[1], "d/x") == b"healthyhealthy"
                # A container that runs from it has its files.
                for layer in hurt.layers:
                    assert os.path.exists(store.fs(layer, "d")), (file, store.stderr)
            again = store.pull(REAL.host + "/damage-hurt:1")
            assert again.id == ids["hurt"] and store.read(again.layers[1], "d/x") == b"hurthurt"
            shutil.rmtree(store.dir)


@test
def folders_that_are_none_are_moved_aside():
    for folder in ("layers", "images", "blobs", "blobs/sha256", "tmp"):
        for make in (lambda p: open(p, "w").close(), lambda p: os.symlink("nowhere", p)):
            store = Store()
            REAL.push("folders", "1", small(folder))
            i = store.pull(REAL.host + "/folders:1")
            shutil.rmtree(os.path.join(store.dir, folder))
            make(os.path.join(store.dir, folder))
            assert [i.id] == [k.id for k in store.list()] or folder != "tmp", store.stderr
            assert store.pull(REAL.host + "/folders:1").id == i.id


@test
def a_store_of_a_later_version_is_refused_and_not_touched():
    store = Store()
    store.list()
    with open(store.dir + "/version.json", "w") as f:
        f.write('{"version": 2}')
    os.makedirs(store.dir + "/tmp/theirs")
    code, out = store.run("list")
    assert code == 1 and "is of version 2, this rktlet" in out, out
    assert store.names("tmp") == ["theirs"]
    # One of before there was a version is taken over.
    os.unlink(store.dir + "/version.json")
    assert store.list() == [] and "version.json" in os.listdir(store.dir)


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
    small_disk = os.path.join(work(), "disk")
    os.makedirs(small_disk, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small_disk]).returncode:
        print("# no tmpfs, not tested")
        return
    try:
        store = Store(small_disk)
        REAL.push("full", "ok", small())
        REAL.push(
            "full", "big", Image([Layer("none").file("a", "1"), Layer("none").file("b", random_bytes(8 << 20, 2))])
        )
        REAL.push(
            "full",
            "two",
            Image(
                [Layer("none").file("a", random_bytes(2 << 20, 3)), Layer("none").file("b", random_bytes(2 << 20, 4))]
            ),
        )
        start = time.monotonic()
        store.refused(REAL.host + "/full:big", "ResourceExhausted", "free")
        # The unpacker gives up while the download waits for it, and is noticed then.
        assert time.monotonic() - start < 20
        store.refused(REAL.host + "/full:two", "ResourceExhausted", "the file system of the image store")
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
        os.rename(
            os.path.join(store.dir, "images", i.id[7:] + ".json.damaged"),
            os.path.join(store.dir, "images", i.id[7:] + ".json"),
        )
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
            h.wfile.write(blob[: 2 << 20])
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
    for stuck in (
        "/manifests/",
        "/blobs/" + digest_of(image.config),
        "/blobs/" + digest_of(image.layers[1].finish()[0]),
    ):

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
        assert code == 1 and out.count("Canceled") == 2 and time.monotonic() - start < 5, (
            out,
            time.monotonic() - start,
        )
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
    layers = [
        Layer(("gzip", "zstd", "none")[n % 3]).dir("d%d" % n).file("d%d/f" % n, random_bytes(2 << 20, 10 + n))
        for n in range(10)
    ]
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
    store.hosts(
        "docker.io",
        "# a comment\n[Mirror]\nURL=http://127.0.0.1:1\n\n[Mirror]\nURL=http://%s/mirrored\n[Registry]\nFallback=no\n"
        % REAL.host,
    )
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
    for text, where in (
        ("Mirror=http://x\n", ":1"),
        ("[Registry]\nnonsense\n", ":2"),
        ("[Registry]\n\nInsecure=perhaps\n", ":3"),
        ("[Mirror]\nCA=/x\n", "URL"),
        ("[Registry]\nMirror=http://\n", ":2"),
        ("[Registry]\nCA=relative\n", ":2"),
        ("[Registry]\nMirror=http://user:pw@x/\n", ":2"),
    ):
        store.hosts("bad.example", text)
        store.refused("bad.example/x", "FailedPrecondition", "hosts.conf", where)
    store.hosts("127.0.0.1:1", "[Registry]\nUnknown=1\n[Future]\nkey=1\n")
    store.refused("127.0.0.1:1/x", "Unavailable")
    assert "unknown key Unknown" in store.stderr and "unknown section [Future]" in store.stderr


main()

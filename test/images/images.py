#!/usr/bin/env python3
"""Makes the images that the end-to-end tests pull, from parts of the machine's Debian tree, and pushes them.

Usage: images.py TREE REGISTRY    (REGISTRY is host:port; plain HTTP)

Names are test/… for images as people make them and evil/… for those that want to break out.
"""

import os
import random
import subprocess
import sys
import time

import critest
from oci import DOCKER, Image, Index, Layer, Registry

PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
app:x:1001:1001:The app:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
"""
GROUP = """root:x:0:
daemon:x:1:
www-data:x:33:
app:x:1001:
extra:x:2001:app
more:x:2002:app,www-data
nogroup:x:65534:
"""
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def base_layer(tree, compression="gzip", media_format=None, passwd=True):
    """busybox with all its applets, users and groups."""
    layer = Layer(compression)
    for name, mode in (("bin", 0o755), ("etc", 0o755), ("home", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755)):
        layer.dir(name, mode)
    layer.dir("home/app", 0o750, 1001, 1001)
    layer.file("bin/busybox", read(tree, "bin/busybox"), 0o755)
    applets = subprocess.run([os.path.join(tree, "bin/busybox"), "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            layer.symlink("bin/" + applet, "busybox")
    if passwd:
        layer.file("etc/passwd", PASSWD).file("etc/group", GROUP)
    return layer


def good(tree):
    base = base_layer(tree)
    shell = {"Env": [PATH], "Cmd": ["sh"]}
    yield "test/base", ["latest"], Image([base], shell)
    yield "test/pause", ["latest"], Image([base], {"Env": [PATH], "Entrypoint": ["tail", "-f", "/dev/null"]})  # for peers
    yield "test/tags", ["1", "2", "3"], Image([base, Layer().file("tags", "one image, three tags\n")], shell)

    # Each layer takes something away from, or turns something around in, the one below.
    lower = (Layer().dir("a").file("a/kept", "kept\n").file("a/gone", "gone\n").dir("a/sub").file("a/sub/gone", "gone\n")
             .dir("opaque").file("opaque/old", "old\n").dir("opaque/dir").file("opaque/dir/old", "old\n")
             .file("becomes-dir", "file\n").dir("becomes-file").file("becomes-file/inside", "inside\n")
             .dir("becomes-link").file("becomes-link/inside", "inside\n")
             .file("changed", "first\n", 0o600).file("hard-a", "hard\n").hardlink("hard-b", "hard-a")
             .dir("sticky", 0o1777).dir("setgid", 0o2775, 0, 2001).file("setuid", "x", 0o4755)
             .file("owned", "owned\n", 0o640, 1001, 2001).file("big-ids", "ids\n", 0o644, 2000000, 3000000)
             .symlink("link-abs", "/a/kept").symlink("link-rel", "a/kept").symlink("link-dangling", "/nowhere")
             .file("back", "first\n").file("name with space", "space\n").file("ümläut", "utf-8\n")
             .file("l" * 120 + "/" + "m" * 120, "long\n").fifo("pipe"))
    middle = (Layer().whiteout("a/gone").whiteout("a/sub").dir("opaque").opaque("opaque").file("opaque/new", "new\n")
              .whiteout("becomes-dir").dir("becomes-dir").file("becomes-dir/inside", "inside\n")
              .whiteout("becomes-file").file("becomes-file", "file\n")
              .whiteout("becomes-link").symlink("becomes-link", "a")
              .file("changed", "second\n", 0o644, 33, 33).whiteout("hard-a").whiteout("back")
              .whiteout("never-was-there"))
    upper = Layer().file("back", "again\n").dir("a/sub").file("a/sub/new", "new\n").file("opaque/newer", "newer\n")
    yield "test/layers", ["latest", "v1"], Image([base, lower, middle, upper], shell)

    yield "test/users", ["latest"], Image([base], dict(shell, User="app"))
    yield "test/user-name-group", ["latest"], Image([base], dict(shell, User="app:extra"))
    yield "test/user-number", ["latest"], Image([base], dict(shell, User="1234:5678"))
    yield "test/user-unknown", ["latest"], Image([base], dict(shell, User="ghost"))
    yield "test/no-passwd", ["latest"], Image([base_layer(tree, passwd=False)], shell)
    yield "test/no-command", ["latest"], Image([base], {"Env": [PATH]})
    yield "test/config", ["latest"], Image([base, Layer().file(
        "bin/show", "#!/bin/sh\necho \"args:$*\"\necho \"cwd:$(pwd)\"\necho \"user:$(id -u)\"\nenv | sort\n", 0o755)], {
            "Env": [PATH, "FROM_IMAGE=image", "BOTH=image", "EMPTY="], "Entrypoint": ["/bin/show"], "Cmd": ["one", "two"],
            "WorkingDir": "/srv/work", "User": "app", "StopSignal": "SIGUSR1", "Volumes": {"/data": {}},
            "ExposedPorts": {"8080/tcp": {}}, "Labels": {"maintainer": "test"}})
    yield "test/stop-signal", ["latest"], Image([base], dict(shell, StopSignal="SIGUSR1"))
    yield "test/web", ["latest"], Image([base, Layer().dir("www").file("www/index.html", "hello from the pod\n")], {
        "Env": [PATH], "Cmd": ["httpd", "-f", "-v", "-p", "8080", "-h", "/www"], "ExposedPorts": {"8080/tcp": {}}})

    # About 90 MB in 11 layers, half of it incompressible; many small files in the last.
    rng = random.Random(1)
    layers = [base]
    for i in range(10):
        layer = Layer().dir(f"data{i}")
        for j in range(4):
            layer.file(f"data{i}/{j}", rng.randbytes(2 << 20) + bytes(2 << 20))
        layers.append(layer)
    small = Layer().dir("small")
    for i in range(2000):
        small.file(f"small/{i}", rng.randbytes(700))
    yield "test/big", ["latest"], Image(layers + [small], shell)

    arm = Layer().file("arch", "arm64\n")
    ours = Layer().file("arch", "amd64\n")
    foreign = Image([arm], shell, architecture="arm64", variant="v8")
    yield "test/multi", ["latest"], Index([foreign, Image([base, ours], shell)])
    yield "test/foreign", ["latest"], Index([foreign])
    yield "test/docker", ["latest"], Index([Image([arm], shell, "arm64", media=DOCKER),
                                            Image([base, ours], shell, media=DOCKER)], DOCKER)
    yield "test/docker-single", ["latest"], Image([base, ours], shell, media=DOCKER)
    yield "test/zstd", ["latest"], Image([base_layer(tree, "zstd"), Layer("zstd").file("zstd", "zstd\n")], shell)
    yield "test/plain", ["latest"], Image([base_layer(tree, "none"), Layer("none").file("plain", "plain\n")], shell)
    yield "test/empty-layer", ["latest"], Image([base, Layer(), Layer().file("after", "after\n")], shell)
    yield "test/same-layer-twice", ["latest"], Image([base, ours, ours], shell)
    # To be mounted: one layer, and two.
    data = Layer().dir("data").file("data/file", "one\n").file("data/gone", "x").dir("data/sub").file("data/sub/inner", "inner\n").file(
        "run.sh", "#!/bin/sh\n", 0o755)
    yield "test/volume-one", ["latest"], Image([data], {})
    yield "test/volume", ["latest"], Image([data, Layer().file("data/file", "two\n").whiteout("data/gone"), Layer().symlink(
        "link", "data/sub").symlink("out", "/tmp").symlink("up", "../../../../../../tmp").symlink("magic", "/proc/self/root/tmp").fifo(
        "fifo").device("device", 1, 3)], {})


def evil(tree):
    """Each must be refused, or be harmless; `/escaped` or `escaped` must never appear outside of the container."""
    base = base_layer(tree)
    shell = {"Env": [PATH], "Cmd": ["sh"]}

    def image(*layers, **config):
        return Image([base, *layers], dict(shell, **config))

    yield "evil/dotdot", image(Layer().file("../../../../../../../../../tmp/escaped", "x"))
    yield "evil/dotdot-inside", image(Layer().dir("d").file("d/../inside", "x"))
    yield "evil/absolute", image(Layer().file("/absolute-inside", "x"))
    yield "evil/symlink-write", image(Layer().symlink("out", "/tmp").file("out/escaped", "x"))
    yield "evil/symlink-dotdot", image(Layer().symlink("out", "../../../../../../../../tmp").file("out/escaped", "x"))
    yield "evil/symlink-two-layers", image(Layer().symlink("out", "/tmp"), Layer().file("out/escaped", "x"))
    yield "evil/hardlink", image(Layer().hardlink("stolen", "../../../../../../../../etc/passwd"))
    yield "evil/hardlink-absolute", image(Layer().hardlink("stolen", "/etc/hostname"))
    yield "evil/hardlink-symlink", image(Layer().symlink("out", "/etc").hardlink("stolen", "out/hostname"))
    yield "evil/whiteout-symlink", image(Layer().symlink("out", "/tmp"), Layer().whiteout("out/victim"))
    yield "evil/whiteout-dotdot", image(Layer().file("../../../../../../../../tmp/.wh.victim"))
    yield "evil/whiteout-names", image(Layer().file(".wh..").file(".wh...").file(".wh."))
    yield "evil/opaque-root", image(Layer().file(".wh..wh..opq").file("only", "x"))
    yield "evil/overlay-whiteout", image(Layer().device("char00", 0, 0))
    yield "evil/overlay-xattr", image(Layer().file("redirect", "x", xattrs={"trusted.overlay.redirect": "/etc"}))
    yield "evil/device", image(Layer().device("sda", 8, 0, block=True).device("mem", 1, 1))
    yield "evil/deep", image(Layer().file("/".join(["d"] * 2000) + "/f", "deep"))
    yield "evil/passwd-fifo", image(Layer().whiteout("etc/passwd").fifo("etc/passwd"), User="app")
    yield "evil/passwd-symlink", image(Layer().symlink("etc/passwd", "/proc/self/root/etc/passwd"), User="app")
    yield "evil/passwd-outside", image(Layer().symlink("etc/passwd", "../../../../../../../../../etc/shadow"), User="app")
    yield "evil/passwd-device", image(Layer().device("etc/passwd", 1, 5), User="app")
    yield "evil/passwd-huge", image(Layer().file("etc/passwd", bytes(256 << 20)), User="app")
    yield "evil/passwd-newline", image(Layer().file("etc/passwd", "app:x:1001:1001:x:/home/a\rLD_PRELOAD=x\n:/bin/sh\n"), User="app")
    yield "evil/user-huge", image(User="4294967296")
    yield "evil/user-negative", image(User="-1")
    yield "evil/user-hex", image(User="0x0")
    yield "evil/user-space", image(User=" 1")
    yield "evil/user-uid-name", image(Layer().file("etc/passwd", "1000:x:0:0::/:/bin/sh\n"), User="1000")
    yield "evil/etc-symlink", image(Layer().whiteout("etc").symlink("etc", "/tmp"))
    yield "evil/dev-symlink", image(Layer().symlink("dev", "/tmp"))
    yield "evil/proc-symlink", image(Layer().symlink("proc", "/tmp"))
    yield "evil/sys-symlink", image(Layer().symlink("sys", "../../../../../../tmp"))
    yield "evil/proc-file", image(Layer().file("proc", "x"))
    # Deeper down: what they hide, or are resolved within the image.
    yield "evil/dev-deep", image(Layer().symlink("dev/shm", "/tmp").symlink("dev/pts", "../../../../../../tmp").symlink(
        "dev/mqueue", "/tmp").symlink("dev/null", "/tmp/escaped").symlink("dev/fd", "/tmp").symlink("dev/console", "/tmp/escaped").symlink(
        "dev/net", "/tmp").symlink("dev/ptmx", "/tmp/escaped").symlink("dev/.rktlet-exec", "/tmp/escaped"))
    yield "evil/proc-deep", image(Layer().symlink("proc/sys", "/tmp").symlink("proc/kcore", "/tmp/escaped").symlink(
        "proc/self", "/tmp").symlink("proc/1", "/tmp"))
    yield "evil/sys-deep", image(Layer().symlink("sys/fs", "../../../../../../tmp").symlink("sys/firmware", "/tmp"))
    yield "evil/sys-cgroup", image(Layer().dir("sys/fs").symlink("sys/fs/cgroup", "/tmp"))
    yield "evil/etc-files", image(Layer().symlink("etc/hosts", "/tmp/escaped").symlink(
        "etc/hostname", "../../../../../../../tmp/escaped-too").symlink("etc/resolv.conf", "/var/none/escaped"))
    yield "evil/etc-magic", image(Layer().symlink("etc/resolv.conf", "/proc/1/root/tmp/escaped"))
    yield "evil/etc-loop", image(Layer().symlink("etc/hosts", "resolv.conf").symlink("etc/resolv.conf", "hosts"))
    yield "evil/etc-fifo", image(Layer().whiteout("etc/hostname").fifo("etc/hostname"))
    yield "evil/etc-device", image(Layer().whiteout("etc/hosts").device("etc/hosts", 10, 130))
    yield "evil/masked-symlink", image(Layer().symlink("masked", "/tmp/victim").symlink("protected", "../../../../../../tmp"))
    yield "evil/workdir-symlink", image(Layer().symlink("work", "../../../../../../../../tmp"), WorkingDir="/work/escaped")
    yield "evil/workdir-fd", image(WorkingDir="/proc/self/fd/8")
    yield "evil/mount-symlink", image(Layer().symlink("mnt", "../../../../../../../../tmp"))
    yield "evil/volume-symlink", image(Layer().symlink("vol", "/tmp"), Volumes={"/vol/escaped": {}})
    yield "evil/labels", image(Labels={
        "org.systemd.property.MemoryMax": "uint64 12345", "run.oci.handler": "wasm", "run.oci.hooks.stdout": "/tmp/escaped",
        "org.criu.config": "/tmp/x", "io.kubernetes.cri-o.Devices": "/dev/sda", "run.oci.systemd.subgroup": "evil"})
    yield "evil/env", image(Env=[PATH, "NOEQUALS", "=novalue", "A=1", "A=2", "NL=a\nb"])
    yield "evil/stop-signal", image(StopSignal="SIGNOTHING")
    yield "evil/diff-id", Image([base, Layer().file("x", "x")], shell,
                                config_extra={"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64] * 2}})
    yield "evil/diff-id-count", Image([base, Layer().file("x", "x")], shell,
                                      config_extra={"rootfs": {"type": "layers", "diff_ids": []}})
    yield "evil/config-type", Image([base], shell, config_extra={"config": {"Env": "text", "Cmd": {"a": 1}}})


def main():
    tree, address = sys.argv[1:]
    registry = Registry(address)
    for _ in range(200):
        if registry.is_up():
            break
        time.sleep(0.05)
    else:
        sys.exit(f"no registry answers at {address}")

    for name, tags, image in good(tree):
        for tag in tags:
            registry.push(name, tag, image)
    for name, image in evil(tree):
        registry.push(name, "latest", image)
    for name, tag, image in critest.images(tree):
        registry.push(name, tag, image)


if __name__ == "__main__":
    main()

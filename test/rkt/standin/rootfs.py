"""An app's root: the image below, what it writes above, and what rkt mounts into it."""
import os
import shutil

from .common import (MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_REMOUNT, mount, umount)

MASKED = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sysrq-trigger")
READONLY = ("/proc/sys", "/proc/bus", "/proc/irq", "/proc/fs", "/proc/asound")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def path_of(pod, name):
    return f"{pod.rootfs}/opt/stage2/{name}/rootfs"


def layers(pod, name, image_id):
    base = f"{pod.dir}/overlay/deps-{image_id}"
    return tuple(f"{base}/{kind}" + f"/{name}" for kind in ("upper", "work"))


def inside(root, path, depth=0):
    """Follows symbolic links as if root were /."""
    here = root
    parts = [p for p in path.split("/") if p not in ("", ".")]
    for i, p in enumerate(parts):
        if p == "..":
            here = os.path.dirname(here) if here != root else root
            continue
        step = f"{here}/{p}"
        if os.path.islink(step) and depth < 40:
            target = os.readlink(step)
            rest = "/".join(parts[i + 1:])
            base = "" if target.startswith("/") else here[len(root):]
            return inside(root, f"{base}/{target}/{rest}", depth + 1)
        here = step
    return here


def make_target(path, directory):
    os.makedirs(path if directory else os.path.dirname(path), exist_ok=True)
    if not directory and not os.path.exists(path):
        with open(path, "w"):
            pass


def bind(source, target, read_only=False):
    make_target(target, os.path.isdir(source))
    mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def mount_api(root, paths):
    for d in ("proc", "sys", "dev", "etc"):
        os.makedirs(inside(root, d), exist_ok=True)
    mount("proc", inside(root, "proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", inside(root, "sys"), "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY)
    dev = inside(root, "dev")
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755,size=64k")
    for d in DEVICES:
        bind(f"/dev/{d}", f"{dev}/{d}")
    os.mkdir(f"{dev}/pts")
    os.mkdir(f"{dev}/shm")
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    mount("tmpfs", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    os.symlink("pts/ptmx", f"{dev}/ptmx")
    for i, n in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{i}", f"{dev}/{n}")
    os.symlink("/proc/self/fd", f"{dev}/fd")
    if paths:
        for p in READONLY:
            if os.path.exists(root + p):
                bind(root + p, root + p, True)
        for p in MASKED:
            if os.path.exists(root + p):
                mount("/dev/null", root + p, None, MS_BIND)


def mount_app(pod, name, app):
    root = path_of(pod, name)
    upper, work = layers(pod, name, app["image_id"])
    for d in (root, upper, work):
        os.makedirs(d, exist_ok=True)
    lower = f'{pod.store.cas}/tree/{app["image_id"]}'
    shutil.copystat(lower, upper)
    os.chown(upper, os.stat(lower).st_uid, os.stat(lower).st_gid)
    mount("overlay", root, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")
    mount_api(root, app["protect_paths"])
    for file in ("resolv.conf", "hosts"):
        if not any(m["container_path"] == f"/etc/{file}" for m in app["mounts"]):
            bind(f"{pod.rootfs}/etc/rkt-{file}", inside(root, f"/etc/{file}"))
    for m in app["mounts"]:
        bind(m["host_path"], inside(root, m["container_path"]), m["read_only"])
    if app["readonly_rootfs"]:
        mount(None, root, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def umount_app(pod, name):
    umount(path_of(pod, name))

#!/usr/bin/env python3
"""rktlet-unpack against layers made by hand: what it must do, and what a hostile layer must not get.

usage: test-unpack.py RKTLET-UNPACK   (as root; prints TAP)"""

import gzip
import hashlib
import io
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import time

UNPACK = os.path.abspath(sys.argv[1])
ASAN = bool(int(os.environ.get("RKTLET_TEST_SANITIZED", "0")))
INVALID, NO_SPACE, UNIMPLEMENTED, DATA_LOSS = 3, 8, 12, 15
tests = []


def test(f):
    tests.append(f)
    return f


def member(
    name,
    type=tarfile.REGTYPE,
    data=b"",
    mode=0o644,
    uid=0,
    gid=0,
    mtime=1000000000,
    link="",
    pax=None,
    major=0,
    minor=0,
):
    t = tarfile.TarInfo(name)
    t.type, t.mode, t.uid, t.gid, t.mtime, t.linkname = type, mode, uid, gid, mtime, link
    t.size = len(data)
    t.devmajor, t.devminor = major, minor
    t.pax_headers = pax or {}
    return t, data


def directory(name, **k):
    return member(name, tarfile.DIRTYPE, mode=k.pop("mode", 0o755), **k)


def symlink(name, target, **k):
    return member(name, tarfile.SYMTYPE, link=target, mode=0o777, **k)


def hardlink(name, target):
    return member(name, tarfile.LNKTYPE, link=target)


def tar(*members, format=tarfile.PAX_FORMAT):
    b = io.BytesIO()
    with tarfile.open(fileobj=b, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as t:
        for info, data in members:
            t.addfile(info, io.BytesIO(data))
    return b.getvalue()


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Result:
    def __init__(self, root, implied, p):
        self.root, self.implied, self.code = root, implied, p.returncode
        self.error = p.stderr.decode()
        self.out = p.stdout.decode().split()

    def path(self, name):
        return os.path.join(self.root, name)

    def stat(self, name):
        return os.lstat(self.path(name))

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def whiteout(self, name):
        s = self.stat(name)
        return stat.S_ISCHR(s.st_mode) and s.st_rdev == 0

    def opaque(self, name):
        return "trusted.overlay.opaque" in os.listxattr(self.path(name))


def with_fds(fds, args, **k):
    """Runs a command with the descriptors of the list as 3, 4, …"""
    high = [os.dup(f) for f in fds]

    def child():
        moved = [__import__("fcntl").fcntl(f, __import__("fcntl").F_DUPFD, 100) for f in high]
        for i, f in enumerate(moved):
            os.dup2(f, 3 + i, inheritable=True)
        os.closerange(3 + len(moved), 200)

    try:
        return subprocess.run(args, preexec_fn=child, close_fds=False, timeout=300, **k)
    finally:
        for f in high:
            os.close(f)


def run(blob, diff=None, digest=None, size=None, plain=None, base=None, piecewise=False):
    """Unpacks blob; plain is the tar in it (the blob itself by default)."""
    top = tempfile.mkdtemp(dir=base or WORK)
    root = os.path.join(top, "fs")
    os.mkdir(root)
    os.chmod(root, 0o755)
    fd = os.open(root, os.O_RDONLY)
    implied_path = os.path.join(top, "implied")
    implied = os.open(implied_path, os.O_RDWR | os.O_CREAT, 0o600)
    args = [
        UNPACK,
        "layer",
        digest or sha(blob),
        str(len(blob) if size is None else size),
        diff or sha(blob if plain is None else plain),
    ]
    stdin = {"input": blob}
    writer = None
    if piecewise:
        r, w = os.pipe()
        writer = os.fork()
        if writer == 0:
            os.close(r)
            try:
                for i in range(0, len(blob), piecewise):
                    os.write(w, blob[i : i + piecewise])
            finally:
                os._exit(0)
        os.close(w)
        stdin = {"stdin": r}
    p = with_fds([fd, implied], args, capture_output=True, **stdin)
    if writer:
        os.close(stdin["stdin"])
        os.waitpid(writer, 0)
    os.close(fd)
    os.close(implied)
    with open(implied_path, "rb") as f:
        names = sorted(n for n in f.read().split(b"\0") if n)
    return Result(root, names, p)


def good(*members, **k):
    t = tar(*members, format=k.pop("format", tarfile.PAX_FORMAT))
    r = run(t, **k)
    assert r.code == 0, (r.code, r.error)
    return r


def refused(*members, code=DATA_LOSS, text="", **k):
    t = tar(*members, **k)
    r = run(t)
    assert r.code == code and text in r.error, (r.code, r.error)
    return r


@test
def files_directories_links_with_owner_mode_and_time():
    r = good(
        directory("./", mode=0o711, mtime=5),
        directory("etc/", mode=0o750, uid=3, gid=4, mtime=77),
        member("etc/a", data=b"hello", mode=0o4755, uid=1000, gid=1001, mtime=12345),
        member("etc/sticky", mode=0o2755, gid=7),
        symlink("etc/l", "a", uid=5, mtime=99),
        hardlink("etc/h", "etc/a"),
        directory("tmp", mode=0o1777),
        directory("etc/x"),
        member("etc/x/late"),
    )
    assert r.read("etc/a") == b"hello"
    s = r.stat("etc/a")
    assert (s.st_mode & 0o7777, s.st_uid, s.st_gid, s.st_mtime, s.st_nlink) == (0o4755, 1000, 1001, 12345, 2)
    assert r.stat("etc/h").st_ino == s.st_ino
    assert r.stat("etc/sticky").st_mode & 0o7777 == 0o2755
    assert os.readlink(r.path("etc/l")) == "a" and r.stat("etc/l").st_uid == 5 and r.stat("etc/l").st_mtime == 99
    s = r.stat("etc")
    assert (s.st_mode & 0o7777, s.st_uid, s.st_gid, s.st_mtime) == (0o750, 3, 4, 77)
    assert r.stat("tmp").st_mode & 0o7777 == 0o1777
    assert r.stat(".").st_mode & 0o7777 == 0o711 and r.stat(".").st_mtime == 5
    assert r.implied == [] and r.out[2:] == ["0", "0"]
    assert int(r.out[1]) == sum(len(d) + len(f) for _, d, f in os.walk(r.root)) + 1 - 1  # one hard link
    assert int(r.out[0]) >= 4096 * 5


@test
def devices_and_fifos():
    r = good(
        member("c", tarfile.CHRTYPE, major=1, minor=3, mode=0o666, uid=9),
        member("b", tarfile.BLKTYPE, major=8, minor=1),
        member("p", tarfile.FIFOTYPE, mode=0o600),
    )
    s = r.stat("c")
    assert stat.S_ISCHR(s.st_mode) and s.st_rdev == os.makedev(1, 3) and s.st_mode & 0o777 == 0o666 and s.st_uid == 9
    assert stat.S_ISBLK(r.stat("b").st_mode) and stat.S_ISFIFO(r.stat("p").st_mode)


@test
def all_header_formats_and_long_names():
    long = "/".join(["d" * 100] * 12) + "/" + "f" * 255
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        r = good(member(long, data=b"x"), symlink("l", "t" * 3000), member("ä/ö€", data=b"utf"), format=format)
        assert r.read(long) == b"x" and os.readlink(r.path("l")) == "t" * 3000 and r.read("ä/ö€") == b"utf"
    r = good(member("plain/name", data=b"x"), format=tarfile.USTAR_FORMAT)
    assert r.read("plain/name") == b"x"
    r = good(member("latin\udce4", data=b"x"), format=tarfile.GNU_FORMAT)
    assert os.listdir(os.fsencode(r.root)) == [b"latin\xe4"]


@test
def extended_attributes_a_container_may_have():
    cap = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0).decode("latin-1")
    r = good(
        member(
            "f",
            data=b"x",
            uid=5,
            pax={
                "SCHILY.xattr.security.capability": cap,
                "SCHILY.xattr.user.a": "b",
                "SCHILY.xattr.trusted.overlay.redirect": "/etc",
                "SCHILY.xattr.trusted.overlay.metacopy": "",
                "SCHILY.xattr.user.overlay.opaque": "y",
                "SCHILY.xattr.security.selinux": "x",
            },
        ),
        directory("d", pax={"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.k": "v"}),
    )
    assert sorted(os.listxattr(r.path("f"))) == ["security.capability", "user.a"], os.listxattr(r.path("f"))
    assert os.getxattr(r.path("f"), "user.a") == b"b"
    assert os.getxattr(r.path("f"), "security.capability")[:4] == b"\x01\0\0\x02"
    assert os.listxattr(r.path("d")) == ["user.k"]


@test
def whiteouts_become_devices_and_opaque_directories():
    r = good(
        directory("a"),
        member("a/.wh.gone"),
        member("a/.wh..wh..opq"),
        member("b/.wh.x"),
        member(".wh.top"),
        member("a/.wh..wh.plnk/1"),
    )
    assert r.whiteout("a/gone") and r.opaque("a") and r.whiteout("b/x") and r.whiteout("top")
    assert r.implied == [b"a/.wh..wh.plnk", b"b"] or r.implied == [b"b"], r.implied
    assert not r.opaque("b")


@test
def a_whiteout_and_a_file_of_the_same_layer_in_either_order():
    r = good(
        directory("d1"),
        member("d1/f", data=b"1"),
        member(".wh.d1"),
        member(".wh.d2"),
        directory("d2"),
        member("d2/f"),
        member("f1"),
        member(".wh.f1"),
        member(".wh.f2"),
        member("f2", data=b"2"),
        member(".wh.d3"),
        member("d3/e/f"),
    )
    assert r.read("d1/f") == b"1" and r.opaque("d1") and r.opaque("d2") and not r.whiteout("f1")
    assert r.read("f2") == b"2" and r.opaque("d3") and not r.opaque("d3/e")


@test
def an_opaque_root_is_reported():
    assert good(member("x"), member(".wh..wh..opq")).out[3] == "1"
    assert good(member("x"), member("./.wh..wh..opq")).out[3] == "1"


@test
def whiteouts_that_delete_no_file_are_refused():
    refused(member(".wh."))
    refused(member(".wh..."))
    refused(
        member(
            "a/.wh..",
        )
    )


@test
def nothing_leaves_the_tree_by_dots():
    for name in ("../x", "a/../../x", "..", "a/..", "/../x", "./../x", "../../../../../../tmp/x"):
        refused(member(name, data=b"x"), text="steps out")
        refused(directory(name))
        refused(symlink(name, "y"))
        refused(member("f"), hardlink("l", name))
        refused(member(name + "/.wh.y"))


@test
def absolute_names_lie_in_the_tree():
    r = good(member("/etc/x", data=b"1"), member("//y"), hardlink("/z", "/etc/x"), member("/.wh.q"))
    assert r.read("etc/x") == b"1" and r.stat("y") and r.stat("z").st_nlink == 2 and r.whiteout("q")


@test
def links_never_lead_out_of_the_tree():
    outside = tempfile.mkdtemp(dir=WORK)
    with open(outside + "/victim", "w") as f:
        f.write("safe")
    up = "../" * 40
    for target in (outside, up.rstrip("/") + outside):
        r = good(
            symlink("out", target),
            member("out/new", data=b"x"),
            member("out/victim", data=b"hit"),
            member("out/.wh.gone"),
            symlink("out/s", "/"),
            directory("out/dir"),
            member("out/d/e/f"),
        )
        assert os.listdir(outside) == ["victim"] and open(outside + "/victim").read() == "safe"
        assert r.read(outside.strip("/") + "/victim") == b"hit"
        assert r.whiteout(outside.strip("/") + "/gone")
        refused(symlink("out", target), hardlink("h", "out/victim"), text="doesn't have")
    r = good(symlink("p", "/proc/self/root"), member("p/etc/rktlet-test", data=b"1"))
    assert r.read("proc/self/root/etc/rktlet-test") == b"1" and not os.path.exists("/etc/rktlet-test")


@test
def a_link_in_place_of_a_directory_is_noticed():
    # The parent a/ is remembered from the entry before; then it becomes a link.
    r = good(directory("a"), member("a/1"), symlink("a", "/b"), member("a/2"))
    assert os.path.islink(r.path("a")) and sorted(os.listdir(r.path("b"))) == ["2"]
    r = good(symlink("a", "/b"), directory("a"), member("a/1"))
    assert os.path.isdir(r.path("a")) and not os.path.islink(r.path("a")) and not os.path.exists(r.path("b"))
    # A file over a link replaces the link, not what it leads to.
    r = good(member("t", data=b"old"), symlink("l", "t"), member("l", data=b"new"))
    assert r.read("t") == b"old" and r.read("l") == b"new"
    r = good(member("t", data=b"old", mode=0o644), symlink("l", "t"), symlink("l", "u", uid=7))
    assert r.stat("t").st_uid == 0 and os.readlink(r.path("l")) == "u"


@test
def whiteouts_on_links_touch_the_link():
    r = good(directory("real"), member("real/f", data=b"1"), symlink("l", "real"), member(".wh.l"), member("l/.wh.f"))
    assert os.path.islink(r.path("l")) and r.read("real/f") == b"1"
    r = good(symlink("l", "/nowhere"), member("l/.wh..wh..opq"))
    assert r.opaque("nowhere")


@test
def link_loops_and_files_as_directories_are_refused():
    refused(symlink("a", "b"), symlink("b", "a"), member("a/x"))
    refused(symlink("a", "a"), member("a/x"))
    refused(member("f"), member("f/x"), text="isn't one")
    refused(member("p", tarfile.FIFOTYPE), member("p/x"))
    refused(
        symlink("l", ""),
    )


@test
def hard_links_stay_in_the_layer():
    refused(hardlink("l", "etc/passwd"), text="doesn't have")
    refused(directory("d"), hardlink("l", "d"), text="directory")
    refused(hardlink("l", "/"))
    refused(hardlink("l", ""))
    r = good(symlink("s", "/etc/shadow"), hardlink("l", "s"))
    assert os.path.islink(r.path("l"))
    r = good(member("a", data=b"1"), hardlink("a", "a"), member("b"), hardlink("b", "a"))
    assert r.read("b") == b"1" and r.stat("a").st_nlink == 2
    refused(directory("d"), member("d/f"), hardlink("d", "d/f"), text="replaces")


@test
def implied_directories_are_made_and_listed():
    r = good(member("a/b/c", data=b"x"), directory("a/b", mode=0o700), member("e/f/g"))
    assert r.implied == [b"a", b"e", b"e/f"], r.implied
    assert r.stat("a").st_mode & 0o7777 == 0o755 and r.stat("a/b").st_mode & 0o7777 == 0o700
    assert r.out[2] == "3"


@test
def a_missing_link_target_is_made():
    r = good(symlink("lib", "usr/lib"), member("lib/x/y", data=b"1"), symlink("v/run", "../run"), member("v/run/z"))
    assert r.read("usr/lib/x/y") == b"1" and r.stat("run/z")


@test
def replaced_things_are_gone():
    r = good(
        directory("d"),
        directory("d/e"),
        member("d/e/f"),
        member("d", data=b"file"),
        member("x"),
        directory("x"),
        member("y", data=b"1"),
        member("y", data=b"22"),
    )
    assert r.read("d") == b"file" and os.path.isdir(r.path("x")) and r.read("y") == b"22"
    # Times are set at the end, on what is then a directory.
    r = good(
        directory("d", mtime=5),
        directory("d/e", mtime=6),
        symlink("d", "/x/y", mtime=7),
        directory("x", mtime=8),
        directory("z", mtime=9),
        member("z/f"),
    )
    assert (
        r.stat("d").st_mtime == 7
        and r.stat("x").st_mtime == 8
        and r.stat("z").st_mtime == 9
        and not os.path.lexists(r.path("x/y"))
    )


@test
def groups_handed_down_by_a_directory_are_not_taken():
    r = good(
        directory("g", mode=0o2775, gid=50),
        member("g/f"),
        directory("g/d", mode=0o711),
        member("g/d/f", gid=3),
        symlink("g/l", "x"),
        member("g/p", tarfile.FIFOTYPE),
        member("g/n/f"),
    )
    for n, gid, mode in (
        ("g", 50, 0o2775),
        ("g/f", 0, 0o644),
        ("g/d", 0, 0o711),
        ("g/d/f", 3, 0o644),
        ("g/l", 0, 0o777),
        ("g/p", 0, 0o644),
    ):
        s = r.stat(n)
        assert (s.st_gid, s.st_mode & 0o7777) == (gid, mode), (n, s)
    for gid in (0, 1000):
        r = good(directory("d", mode=0o1777, uid=1000, gid=gid), member("d/f"))
        assert r.stat("d").st_uid == 1000 and r.stat("d").st_mode & 0o7777 == 0o1777 and r.stat("d/f").st_uid == 0


@test
def wide_trees():
    r = good(*[member("d%d/f%d" % (i % 50, i), data=b"%d" % i) for i in range(5000)])
    assert r.read("d7/f4907") == b"4907" and len(r.implied) == 50


@test
def trees_deeper_than_a_path():
    # Each link leads 300 levels below the one before.
    def links(n):
        return [symlink("l%d" % i, (("l%d/" % (i - 1)) if i else "") + "/".join(["d"] * 300)) for i in range(n)]

    refused(*links(60), *[member("l%d/f" % i) for i in range(60)])
    r = good(*links(20), *[member("l%d/f" % i) for i in range(20)])
    assert len(r.implied) == 6000
    fd = os.open(os.path.dirname(r.root), os.O_RDONLY)
    assert with_fds([fd], [UNPACK, "remove", "fs"]).returncode == 0
    os.close(fd)
    assert not os.path.exists(r.root)
    refused(member("/".join(["d" * 200] * 30)), text="longer than 4095")
    refused(member("x" * 256), text="longer than 255")


@test
def sparse_files():
    # GNU's pax sparse format 1.0: a map in front of the data.
    data = b"2\n0\n5\n1048576\n5\n".ljust(512, b"\0") + b"hello" + b"world"
    r = good(
        member(
            "s",
            data=data,
            pax={
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": "real",
                "GNU.sparse.realsize": str(8 << 20),
            },
        )
    )
    s = r.stat("real")
    assert s.st_size == 8 << 20 and s.st_blocks * 512 < 1 << 20
    assert r.read("real")[1048576:1048581] == b"world"
    # A bomb of nothing takes nothing; beyond what files can be it is refused.
    bomb = b"0\n".ljust(512, b"\0")
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "real"}
    assert (
        good(member("s", data=bomb, pax=dict(pax, **{"GNU.sparse.realsize": str(1 << 40)}))).stat("real").st_blocks
        < 100
    )
    for size in (1 << 60, (1 << 63) - 1, -1):
        r = run(tar(member("s", data=bomb, pax=dict(pax, **{"GNU.sparse.realsize": str(size)}))))
        assert r.code in (NO_SPACE, DATA_LOSS), (size, r.code, r.error)
    r = run(
        tar(
            member(
                "s",
                data=b"1\n900000000000\n5\n".ljust(512, b"\0") + b"hello",
                pax=dict(pax, **{"GNU.sparse.realsize": "10"}),
            )
        )
    )
    assert r.code == DATA_LOSS, r.error


@test
def size_lies():
    t = bytearray(tar(member("f", data=b"x" * 1000)))
    for lie in (b"77777777777", b"00000100000"):
        u = bytearray(t)
        u[124:135] = lie
        u[148:156] = b" " * 8
        u[148:156] = b"%06o\0 " % sum(u[:512])
        r = run(bytes(u))
        assert r.code == DATA_LOSS, (r.code, r.error)
    for n in (1, 511, 513, 1000, 1500):
        assert run(bytes(t[:n])).code == DATA_LOSS
    u = bytearray(t)
    u[100] ^= 1
    assert run(bytes(u)).code == DATA_LOSS
    r = run(bytes(t), size=len(t) - 1)
    assert r.code == DATA_LOSS and "more than" in r.error
    r = run(bytes(t), size=len(t) + 1)
    assert r.code == DATA_LOSS and "its manifest says" in r.error


@test
def owners_no_system_has_are_refused():
    refused(member("f", pax={"uid": str(1 << 32)}))
    refused(member("f", pax={"gid": "4294967295"}))
    good(member("f", pax={"uid": "4294967294", "mtime": "99999999999999"}))


@test
def digests_are_compared():
    t = tar(member("f", data=b"x"))
    z = gzip.compress(t)
    r = run(z, plain=t, digest="sha256:" + "0" * 64)
    assert r.code == DATA_LOSS and "manifest says" in r.error, r.error
    r = run(z, diff="sha256:" + "0" * 64)
    assert r.code == DATA_LOSS and "config says" in r.error, r.error
    assert run(z, plain=t).code == 0
    assert run(t + b"\0" * 100000).code == 0  # what follows the end counts for the digest


@test
def gzip_in_all_its_forms():
    parts = [os.urandom(1000) + b"a" * 100000, b"b" * 3000, b""]
    t = tar(*[member("f%d" % i, data=p) for i, p in enumerate(parts)])
    for level in (0, 1, 9):
        assert run(gzip.compress(t, level), plain=t).code == 0
    # Many members, empty ones among them, split anywhere (eStargz, pigz).
    cuts = [0, 1, 500, 501, 50000, len(t)]
    many = b"".join(gzip.compress(t[a:b]) + gzip.compress(b"") for a, b in zip(cuts, cuts[1:]))
    for piece in (1, 7, 4096, False):
        r = run(many if piece != 1 else many[:], plain=t, piecewise=piece)
        assert r.code == 0, (piece, r.error)
        assert r.read("f0") == parts[0]
    b = io.BytesIO()
    with gzip.GzipFile("name", "wb", fileobj=b, mtime=1) as f:
        f.write(t)
    named = b.getvalue()
    assert run(named, plain=t).code == 0
    z = gzip.compress(t)
    for n in (3, 10, 100, len(z) - 9, len(z) - 1):
        r = run(z[:n], plain=t)
        assert r.code == DATA_LOSS and ("cut off" in r.error or "damaged" in r.error), (n, r.error)
    for flip in (len(z) - 1, len(z) - 6, len(z) // 2):
        u = bytearray(z)
        u[flip] ^= 0x55
        assert run(bytes(u), plain=t).code == DATA_LOSS
    assert run(z + b"garbage", plain=t).code == DATA_LOSS


def zstd(data, *args):
    return subprocess.run(["zstd", "-q", "-c", *args], input=data, stdout=subprocess.PIPE, check=True).stdout


@test
def zstd_in_all_its_forms():
    if not shutil.which("zstd"):
        return
    t = tar(*[member("f%d" % i, data=os.urandom(100) * 1000) for i in range(10)])
    skippable = struct.pack("<II", 0x184D2A50, 5) + b"hello"
    for z in (zstd(t), zstd(t, "-19"), zstd(t[:1000]) + skippable + zstd(t[1000:]) + skippable, skippable + zstd(t)):
        for piece in (False, 5):
            assert run(z, plain=t, piecewise=piece and max(5, len(z) // 3000)).code == 0
    z = zstd(t)
    assert run(z[:-1], plain=t).code == DATA_LOSS and run(z[:50], plain=t).code == DATA_LOSS
    u = bytearray(z)
    u[len(u) // 2] ^= 0xFF
    assert run(bytes(u), plain=t).code == DATA_LOSS
    # A frame that asks for a window of 2 GiB.
    r = run(b"\x28\xb5\x2f\xfd\0" + bytes([21 << 3]) + struct.pack("<I", (5 << 3) | 1)[:3] + b"hello")
    assert r.code == NO_SPACE and "window" in r.error, r.error


@test
def other_compressions_are_named():
    t = tar(member("f"))
    import bz2
    import lzma

    for z, name in ((bz2.compress(t), "bzip2"), (lzma.compress(t), "xz"), (b"\x04\x22\x4d\x18" + b"x" * 100, "lz4")):
        r = run(z)
        assert r.code == UNIMPLEMENTED and name in r.error, r.error


@test
def no_archive_at_all():
    for junk in (b"x", b"hello world" * 1000, os.urandom(5000), b"<html>" * 500):
        r = run(junk)
        assert r.code == DATA_LOSS, (junk[:10], r.code, r.error)
    assert run(b"").code == 0
    assert run(b"\0" * 1024).code == 0
    assert run(gzip.compress(b"\0" * 1024), plain=b"\0" * 1024).code == 0
    # Other formats libarchive knows are not layers.
    assert run(b"!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\n").code == DATA_LOSS
    assert run(b"070701" + b"0" * 104 + b"\0" * 500).code == DATA_LOSS


@test
def bombs_and_full_disks():
    small = os.path.join(WORK, "small")
    os.mkdir(small)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=200", "tmpfs", small]).returncode:
        print("# no tmpfs, not tested")
        return
    try:
        plain = tar(member("bomb", data=b"\0" * (64 << 20)))
        r = run(gzip.compress(plain, 1), plain=plain, base=small)
        assert r.code == NO_SPACE and "free" in r.error, r.error
        assert shutil.disk_usage(small).free > 0
        shutil.rmtree(os.path.dirname(r.root))
        r = run(tar(*[member("f%d" % i) for i in range(400)]), base=small)
        assert r.code == NO_SPACE and "No space left" in r.error, r.error
        shutil.rmtree(os.path.dirname(r.root))
        # Bytes that pass the first look and are gone meanwhile.
        fd = os.open(small + "/other", os.O_WRONLY | os.O_CREAT)
        big = tar(*[member("f%d" % i, data=os.urandom(1 << 16)) for i in range(40)])
        os.posix_fallocate(fd, 0, 1 << 20)
        pid = os.fork()
        if pid == 0:
            time.sleep(0.05)
            try:
                os.posix_fallocate(fd, 0, 3 << 20)
            finally:
                os._exit(0)
        r = run(big, base=small, piecewise=4096)
        os.waitpid(pid, 0)
        assert r.code in (0, NO_SPACE), r.error
    finally:
        subprocess.run(["umount", "-l", small])


@test
def the_process_is_confined():
    if ASAN:
        print("# the filter is off under sanitizers, not tested")
        return
    top = tempfile.mkdtemp(dir=WORK)
    os.mkdir(top + "/fs")
    tree, implied = os.open(top + "/fs", os.O_RDONLY), os.open(top + "/i", os.O_RDWR | os.O_CREAT)
    r, w = os.pipe()
    z = gzip.compress(tar(member("f", data=b"x" * 100000)))
    os.write(w, z[:20])
    import threading

    result = {}

    def go():
        result["p"] = with_fds(
            [tree, implied],
            [UNPACK, "layer", sha(z), str(len(z)), "sha256:" + "0" * 64],
            stdin=r,
            stderr=subprocess.PIPE,
        )

    t = threading.Thread(target=go)
    t.start()
    for _ in range(200):
        time.sleep(0.02)
        for pid in os.listdir("/proc"):
            try:
                if (
                    pid.isdigit()
                    and b"rktlet-unpack" in open("/proc/%s/cmdline" % pid, "rb").read()
                    and os.readlink("/proc/%s/root" % pid) == top + "/fs"
                ):
                    result["status"] = open("/proc/%s/status" % pid).read()
                    result["limits"] = open("/proc/%s/limits" % pid).read()
            except OSError:
                pass
        if "Seccomp:\t2" in result.get("status", ""):
            break
    os.close(w)
    t.join()
    status = dict(l.split(":", 1) for l in result["status"].splitlines())
    assert status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1"
    caps = int(status["CapEff"], 16)
    assert caps & ~((1 << 0) | (1 << 1) | (1 << 3) | (1 << 4) | (1 << 21) | (1 << 27) | (1 << 31)) == 0, hex(caps)
    assert result["p"].returncode == DATA_LOSS


def adopt(names, trees):
    fds = [os.open(t, os.O_RDONLY) for t in trees]
    p = with_fds(fds, [UNPACK, "adopt"], input=b"".join(n + b"\0" for n in names), capture_output=True)
    for f in fds:
        os.close(f)
    assert p.returncode == 0, p.stderr


@test
def implied_directories_take_after_the_layers_below():
    lowest = good(
        directory("tmp", mode=0o1777, uid=1, mtime=42),
        directory("a", mode=0o700),
        directory("a/b", mode=0o701),
        directory("c"),
        directory("c/d", mode=0o700),
        directory("o"),
        directory("o/p", mode=0o700),
        directory("q", mode=0o700),
    )
    middle = good(
        member(".wh.a"), directory("o"), member("o/.wh..wh..opq"), symlink("q", "tmp"), directory("keep", mode=0o700)
    )
    top = good(
        member("tmp/x"),
        member("a/b/f"),
        member("c/d/f"),
        member("o/p/f"),
        member("q/f"),
        member(".wh.keep"),
        member("keep/f"),
        member("new/f"),
    )
    adopt(top.implied, [top.root, middle.root, lowest.root])

    def mode(n):
        return top.stat(n).st_mode & 0o7777

    assert mode("tmp") == 0o1777 and top.stat("tmp").st_uid == 1 and top.stat("tmp").st_mtime == 42
    assert mode("a") == 0o755 and mode("a/b") == 0o755  # deleted in between
    assert mode("c/d") == 0o700 and mode("o/p") == 0o755 and mode("q") == 0o755 and mode("keep") == 0o755
    adopt([b"../../etc", b"/etc", b"x/../../..", b"nothing"], [top.root, lowest.root])


@test
def usage_errors():
    for args in ([], ["what"], ["layer"], ["layer", "x", "1", "y"], ["layer", sha(b""), "-1", sha(b"")]):
        p = subprocess.run([UNPACK, *args], capture_output=True)
        assert p.returncode == INVALID and p.stderr, args


if not os.access(UNPACK, os.X_OK):
    sys.exit("%s is not there" % UNPACK)
WORK = tempfile.mkdtemp(prefix="rktlet-test-unpack-", dir=os.environ.get("TMPDIR", "/tmp"))
if os.geteuid() != 0:
    print("1..0 # SKIP needs root")
    sys.exit(77)
try:
    only = sys.argv[2:]
    chosen = [f for f in tests if not only or f.__name__ in only]
    print("1..%d" % len(chosen), flush=True)
    failed = 0
    for n, f in enumerate(chosen, 1):
        try:
            start = time.monotonic()
            f()
            print("ok %d - %s # %.1f s" % (n, f.__name__, time.monotonic() - start), flush=True)
        except Exception:
            import traceback

            failed += 1
            print("not ok %d - %s" % (n, f.__name__), flush=True)
            traceback.print_exc()
    sys.exit(1 if failed else 0)
finally:
    subprocess.run(["rm", "-rf", WORK])

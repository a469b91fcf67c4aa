"""What all commands share: the data directory, errors in rkt's words, namespaces, faults on request."""
import ctypes
import json
import os
import sys
import time

CONTROL = os.environ.get("RKT_TEST_DIRECTORY", "/run/rkt-test")  # faults and records, see README.md
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 19, 1 << 18
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8

libc = ctypes.CDLL(None, use_errno=True)


class Fail(Exception):
    """Ends the command with rkt's words and exit code."""

    def __init__(self, text, code=254):
        super().__init__(text)
        self.text, self.code = text, code


def check(result, what):
    if result < 0:
        n = ctypes.get_errno()
        raise OSError(n, f"{what}: {os.strerror(n)}")
    return result


def unshare(flags):
    check(libc.unshare(flags), "unshare")


def setns(path, flag=0):
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        check(libc.setns(fd, flag), f"setns {path}")
    finally:
        os.close(fd)


def mount(source, target, kind=None, flags=0, data=None):
    b = [None if x is None else os.fsencode(x) for x in (source, target, kind, data)]
    check(libc.mount(b[0], b[1], b[2], ctypes.c_ulong(flags), b[3]), f"mount {target}")


def umount(target):
    libc.umount2(os.fsencode(target), 2)


def go_time(t=None):
    """RFC3339Nano as Go prints it: without trailing zeros."""
    ns = time.time_ns() if t is None else t
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9))
    fraction = f"{ns % 10**9:09d}".rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def put(text, end="\n"):
    sys.stdout.write(text + end)
    sys.stdout.flush()


def complain(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def compact(o):
    return json.dumps(o, separators=(",", ":"), ensure_ascii=False)


def fault(command, when="before"):
    """A test can have the next calls of a command go wrong: CONTROL/fault-COMMAND has lines "WHAT[:WHEN] [COUNT]"."""
    path = f"{CONTROL}/fault-{command.replace(' ', '-')}"
    try:
        with open(path) as f:
            words = f.read().split()
    except OSError:
        return
    if not words:
        return
    what, _, moment = words[0].partition(":")
    if (moment or "before") != when:
        return
    if len(words) > 1:
        left = int(words[1]) - 1
        if left > 0:
            with open(path, "w") as f:
                f.write(f"{words[0]} {left}")
        else:
            os.unlink(path)
    if what == "hang":
        while True:
            time.sleep(1000)
    elif what == "garbage":
        put("\x01\xff {not json" * 3)
        os._exit(0)
    elif what == "endless":
        while True:
            put("x" * 65536)
    elif what == "empty":
        os._exit(0)
    elif what == "crash":
        complain("panic: runtime error: invalid memory address or nil pointer dereference")
        os.kill(os.getpid(), 9)
        time.sleep(10)
    elif what == "fail":
        raise Fail(f"{command.split()[-1]}: something is wrong with the stand-in")
    elif what.isdigit():
        time.sleep(int(what) / 1000)


def record(argv):
    """With a file CONTROL/calls there, each command line goes into it."""
    path = f"{CONTROL}/calls"
    if os.path.exists(path):
        with open(path, "a") as f:
            f.write(json.dumps(argv) + "\n")


class Store:
    """--dir: images below cas, pods below pods."""

    def __init__(self, flags):
        self.dir = flags.get("dir", ["/var/lib/rkt"])[-1]
        self.local_config = flags.get("local-config", ["/etc/rkt"])[-1]
        self.user_config = flags.get("user-config", [""])[-1]
        self.insecure = set(",".join(flags.get("insecure-options", [""])).split(","))
        self.run, self.cas = f"{self.dir}/pods/run", f"{self.dir}/cas"
        os.makedirs(self.run, 0o750, exist_ok=True)
        os.makedirs(self.cas, 0o770, exist_ok=True)

    def pod_names(self):
        return sorted(os.listdir(self.run))

    def find_pod(self, prefix, words="problem retrieving pod", code=254):
        found = [n for n in self.pod_names() if n.startswith(prefix)] if prefix else []
        if len(found) != 1:
            raise Fail(f'{words}: no matches found for "{prefix}"', code)
        return Pod(self, found[0])


class Pod:
    def __init__(self, store, uuid):
        self.store, self.uuid, self.dir = store, uuid, f"{store.run}/{uuid}"
        self.rootfs = f"{self.dir}/stage1/rootfs"

    def path(self, *parts):
        return "/".join((self.dir,) + parts)

    def load(self, name, default=None):
        try:
            with open(self.path(name)) as f:
                return json.load(f)
        except (OSError, ValueError):
            return default

    def save(self, name, o):
        with open(self.path(name + ".new"), "w") as f:
            json.dump(o, f)
        os.rename(self.path(name + ".new"), self.path(name))

    def leader(self):
        """The process that nspawn would be, if it lives."""
        try:
            with open(self.path("pid")) as f:
                pid, start = f.read().split()
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rpartition(")")[2].split()
            return int(pid) if fields[19] == start and fields[0] != "Z" else 0
        except (OSError, ValueError, IndexError):
            return 0

    def running(self):
        return self.leader() > 0

    def ready(self):
        return os.path.exists(f"{self.rootfs}/rkt/supervisor-status")

    def need_running(self, command):
        if not self.running():
            raise Fail(f'{command}: pod "{self.uuid}" isn\'t currently running')

    def need_ready(self, command):
        self.need_running(command)
        if not self.ready():
            raise Fail(f'{command}: supervisor for pod "{self.uuid}" is not yet ready')

    def apps(self):
        return self.load("apps.json", {})

"""app add, start, stop, rm, status, list, exec."""
import json
import os
import re
import signal
import socket
import time
from contextlib import contextmanager
import fcntl

from . import images, rootfs
from .common import Fail, compact, complain, fault, libc, put
from .pods import one

CAPABILITIES = ("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
                "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
                "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
                "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ").split()
DEFAULT_CAPABILITIES = ("AUDIT_WRITE CHOWN DAC_OVERRIDE FSETID FOWNER KILL MKNOD NET_RAW NET_BIND_SERVICE SETUID SETGID SETPCAP "
                        "SETFCAP SYS_CHROOT").split()
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_SECONDS = 90


@contextmanager
def locked_apps(pod):
    with open(pod.path("apps.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        apps = pod.apps()
        yield apps
        pod.save("apps.json", apps)


def ask(pod, **request):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    here = os.getcwd()
    try:
        os.chdir(pod.dir)
        s.connect("control")
    finally:
        os.chdir(here)
    with s:
        s.sendall(json.dumps(request).encode() + b"\n")
        line = s.makefile().readline()
    return json.loads(line) if line else {"error": "the supervisor has ended"}


def app_name(flags, command):
    if not one(flags, "app"):
        raise Fail(f"{command}: must provide the app to {command}")
    return one(flags, "app")


# --- add ----------------------------------------------------------------------------------------------------------

def lookup(tree, file, name, fields):
    """A line of /etc/passwd or /etc/group of the image, by name or number."""
    path = rootfs.inside(tree, f"/etc/{file}")
    try:
        with open(path) as f:
            for line in f:
                parts = line.rstrip("\n").split(":")
                if len(parts) > fields and (parts[0] == name or parts[2] == name):
                    return parts
    except OSError:
        pass
    return None


def resolve_user(tree, flags, app):
    user = one(flags, "user", app.get("user", "0"))
    group = one(flags, "group", app.get("group", "0") if "user" not in flags else "")
    entry = lookup(tree, "passwd", user, 3)
    if not user.isdigit() and not entry:
        raise Fail(f'add: error adding app to pod: unable to determine app\'s user: "{user}" user not found')
    uid = int(user) if user.isdigit() else int(entry[2])
    if not group:
        gid = int(entry[3]) if entry else 0
    elif group.isdigit():
        gid = int(group)
    else:
        g = lookup(tree, "group", group, 2)
        if not g:
            raise Fail(f'add: error adding app to pod: unable to determine app\'s group: "{group}" group not found')
        gid = int(g[2])
    return uid, gid, [int(g) for g in one(flags, "supplementary-gids").split(",") if g], entry


def capabilities(store, flags):
    if "all-run" in store.insecure or "capabilities" in store.insecure:
        return None
    names = DEFAULT_CAPABILITIES
    if "caps-retain" in flags:
        names = [c.removeprefix("CAP_") for c in one(flags, "caps-retain").split(",")]
    elif "caps-remove" in flags:
        gone = {c.removeprefix("CAP_") for c in one(flags, "caps-remove").split(",")}
        names = [c for c in names if c not in gone]
    if not all(c in CAPABILITIES for c in names):
        raise Fail("Error: invalid capability")
    return [CAPABILITIES.index(c) for c in names]


def parse_mounts(flags):
    import urllib.parse

    mounts = []
    for text in flags.get("mnt-volume", []):
        q = {k: v[-1] for k, v in urllib.parse.parse_qs(text.replace(",", "&"), keep_blank_values=True, separator="&").items()}
        if not {"name", "kind", "source", "target"} <= set(q) or not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", q["name"]):
            raise Fail(f'Error: invalid argument "{text}" for --mnt-volume={text}')
        mounts.append({"name": q["name"], "container_path": q["target"], "host_path": q["source"],
                       "read_only": q.get("readOnly") == "true"})
    return mounts


def command_line(flags, rest, app, manifest):
    args = rest[:rest.index("---")] if rest and "---" in rest else rest or []
    if "exec" in flags:
        return [one(flags, "exec")] + args
    if not args:
        return app.get("exec", [])
    entrypoint = next((a["value"] for a in manifest.get("annotations", []) if a["name"] == "appc.io/docker/entrypoint"), None)
    cmd = next((a["value"] for a in manifest.get("annotations", []) if a["name"] == "appc.io/docker/cmd"), None)
    return (json.loads(entrypoint or "[]") if entrypoint or cmd else app.get("exec", [])) + args


def find_binary(tree, name, env, cwd):
    """A bare name is looked for in the app's PATH when it is added; a path is taken as it is."""
    if name.startswith("/"):
        return name
    if "/" in name:
        return os.path.normpath(f"{cwd}/{name}")
    path = dict(env).get("PATH", PATH)
    for d in path.split(":"):
        if os.path.exists(rootfs.inside(tree, f"{d}/{name}")):
            return f"{d}/{name}"
    raise Fail(f'add: error adding app to pod: unable to find "{name}" in "{path}"')


def environment(flags, app, name, entry, uid):
    home, user = (entry[5] or "/", entry[0]) if entry and len(entry) > 6 else ("/root" if uid == 0 else "/", "root" if uid == 0 else "")
    env = {"PATH": PATH, "LOGNAME": user, "USER": user, "SHELL": "/bin/sh", "HOME": home, "AC_APP_NAME": name}
    for e in app.get("environment", []):
        env[e["name"]] = e["value"]
    for e in flags.get("environment", []):
        k, _, v = e.partition("=")
        env[k] = v
    return list(env.items())


def describe_app(store, pod, flags, rest, name, image_id):
    with images.database(store) as known:
        manifest = known[image_id]["manifest"]
    app, tree = manifest.get("app", {}), f"{store.cas}/tree/{image_id}"
    uid, gid, groups, entry = resolve_user(tree, flags, app)
    env = environment(flags, app, name, entry, uid)
    cwd = one(flags, "working-dir", app.get("workingDirectory", "/")) or "/"
    argv = command_line(flags, rest, app, manifest)
    if not argv:
        raise Fail("add: error adding app to pod: image has no app section and no exec was given")
    argv[0] = find_binary(tree, argv[0], env, cwd)
    annotations = {k: v for k, _, v in (a.partition("=") for a in flags.get("annotation", []))}
    relaxed = {"all-run", "paths"} & (store.insecure | set(pod.load("pod.json", {}).get("insecure", [])))
    return {"image_id": image_id, "argv": argv, "env": env, "cwd": cwd, "uid": uid, "gid": gid, "groups": groups,
            "mounts": parse_mounts(flags), "readonly_rootfs": one(flags, "readonly-rootfs") == "true",
            "capabilities": capabilities(store, flags), "protect_paths": not relaxed,
            "stdin": one(flags, "stdin", "null"), "stdout": one(flags, "stdout", "log"),
            "oom_score_adj": one(flags, "oom-score-adj"),
            "log_path": annotations.get("coreos.com/rkt/experiment/kubernetes-log-path", ""),
            "user_annotations": {k: v for k, _, v in (x.partition("=") for x in flags.get("user-annotation", []))},
            "user_labels": {k: v for k, _, v in (x.partition("=") for x in flags.get("user-label", []))}}


def add(store, flags, words, rest):
    if len(words) != 2:
        raise Fail("add: must provide the pod UUID and an IMAGEID")
    pod = store.find_pod(words[0], "add: problem retrieving pod")
    pod.need_ready("add")
    image_id = images.find(store, words[1])
    complain('add: group "rkt" not found, will use default gid when rendering images')
    name = one(flags, "name")
    if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name):
        raise Fail('add: error adding app to pod: ACName must contain only lower case alphanumeric characters plus "-"')
    app = describe_app(store, pod, flags, rest, name, image_id)
    with locked_apps(pod) as apps:
        if name in apps:
            raise Fail(f"add: error adding app to pod: error: multiple apps with name {name}")
        apps[name] = app
    with open(f"{pod.rootfs}/rkt/env/{name}", "wb") as f:
        f.write(b"\0".join(os.fsencode(f"{k}={v}") for k, v in app["env"]))
    with open(f"{pod.rootfs}/rkt/status/{name}-created", "w"):
        pass
    fault("app add", "middle")
    answer = ask(pod, do="mount", name=name)
    if "error" in answer:
        # It stays behind, half made.
        complain(f'stage1: {answer["error"]}') if os.environ.get("RKT_TEST_DEBUG") else None
        raise Fail("add: error adding app to pod: exit status 254")


# --- start, stop, rm, status --------------------------------------------------------------------------------------

def need_app(pod, name, words):
    if name not in pod.apps():
        raise Fail(f'{words}: error: nonexistent app "{name}"')


def start(store, flags, words, rest):
    name = app_name(flags, "start")
    pod = store.find_pod(words[0], "start: problem retrieving pod")
    pod.need_ready("start")
    need_app(pod, name, "start: error starting app")
    answer = ask(pod, do="start", name=name)
    if "error" in answer:
        raise Fail("start: error starting app: exit status 254")
    fault("app start", "after")


def stop_app(pod, name):
    if not ask(pod, do="signal", name=name, signo=signal.SIGTERM).get("running"):
        return
    end = time.monotonic() + STOP_SECONDS
    while ask(pod, do="running", name=name).get("running"):
        if time.monotonic() > end:
            ask(pod, do="signal", name=name, signo=signal.SIGKILL)
        time.sleep(0.01)


def stop(store, flags, words, rest):
    name = app_name(flags, "stop")
    pod = store.find_pod(words[0], "stop: problem retrieving pod")
    if not pod.running():
        put(f'pod "{pod.uuid}" is already stopped')
        return
    need_app(pod, name, "stop: error stopping app")
    stop_app(pod, name)


def remove(store, flags, words, rest):
    name = app_name(flags, "rm")
    pod = store.find_pod(words[0], "rm: problem retrieving pod")
    need_app(pod, name, "rm: error removing app")
    if pod.running():
        stop_app(pod, name)
        ask(pod, do="umount", name=name)
    import shutil
    fault("app rm", "middle")
    app = pod.apps()[name]
    for path in rootfs.layers(pod, name, app["image_id"]):
        shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(f"{pod.rootfs}/opt/stage2/{name}", ignore_errors=True)
    for suffix in ("", "-created", "-started"):
        if os.path.exists(f"{pod.rootfs}/rkt/status/{name}{suffix}"):
            os.unlink(f"{pod.rootfs}/rkt/status/{name}{suffix}")
    if os.path.exists(f"{pod.rootfs}/rkt/env/{name}"):
        os.unlink(f"{pod.rootfs}/rkt/env/{name}")
    with locked_apps(pod) as apps:
        apps.pop(name, None)


def mtime(path):
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def status(store, flags, words, rest):
    name = one(flags, "app")
    if not name:
        raise Fail("", 1)
    pod = store.find_pod(words[0], "status: error getting app status", 1)
    app = pod.apps().get(name)
    if not app:
        raise Fail(f'status: cannot find app "{name}" in the pod', 1)
    base = f"{pod.rootfs}/rkt/status/{name}"
    created, started, finished = mtime(f"{base}-created"), mtime(f"{base}-started"), mtime(base)
    o = {"name": name, "state": "exited" if finished or (started and not pod.running()) else "running" if started else "created",
         "created_at": created}
    if not started and not pod.running():
        o["state"] = "exited"
    if started:
        o["started_at"] = started
    if finished:
        o["finished_at"] = finished
        with open(base) as f:
            o["exit_code"] = int(f.read() or 0)
    o["image_id"] = app["image_id"]
    if app["mounts"]:
        o["mounts"] = app["mounts"]
    for k in ("user_annotations", "user_labels"):
        if app[k]:
            o[k] = app[k]
    if one(flags, "format") == "json":
        put(compact(o))
    else:
        put("\n".join(f"{k}={v}" for k, v in o.items()))


def list_apps(store, flags, words, rest):
    pod = store.find_pod(words[0], "list: problem retrieving pod")
    put("NAME\tSTATE")
    for name in pod.apps():
        base = f"{pod.rootfs}/rkt/status/{name}"
        put(f'{name}\t{"exited" if mtime(base) else "running" if mtime(base + "-started") else "created"}')


# --- exec ---------------------------------------------------------------------------------------------------------

def execute(store, flags, words, rest):
    name, command = app_name(flags, "exec"), words[1:]
    pod = store.find_pod(words[0], "exec: problem retrieving pod")
    pod.need_running("exec")
    if not command:
        raise Fail("exec: must provide a command")
    try:
        with open(f"{pod.rootfs}/rkt/env/{name}", "rb") as f:
            env = dict(x.partition(b"=")[::2] for x in f.read().split(b"\0") if x)
    except OSError:
        raise Fail(f'Error: Unable to fopen "/rkt/env/{name}": No such file or directory', 6)
    with open(pod.path("payload-pid")) as f:
        payload = f.read()
    root = rootfs.path_of(pod, name)
    fds = [os.open(f"/proc/{payload}/ns/{n}", os.O_RDONLY) for n in ("ipc", "uts", "net", "pid", "mnt")]
    for fd in fds:
        if libc.setns(fd, 0) < 0:
            raise Fail(f'exec: pod "{pod.uuid}" isn\'t currently running')
        os.close(fd)
    os.chroot(root)
    os.chdir("/")
    binary = command[0]
    if "/" not in binary:
        binary = next((f"{d}/{binary}" for d in env.get(b"PATH", PATH.encode()).decode().split(":")
                       if os.path.exists(f"{d}/{binary}")), binary)
    if not os.path.exists(binary):
        raise Fail(f'Error: Unable to open "{command[0]}": No such file or directory', 1)
    env.setdefault(b"TERM", b"vt100")
    child = os.fork()
    if child == 0:
        # Root, whatever the app's user is; it outlives this process when that is killed.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            os.setgroups([])
            os.execve(binary, command, env)
        except OSError as e:
            complain(f"Error: Exec failed: {e.strerror}")
        os._exit(7)
    _, result = os.waitpid(child, 0)
    if os.WIFSIGNALED(result):
        signo = os.WTERMSIG(result)
        signal.signal(signo, signal.SIG_DFL) if signo not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), signo)
        time.sleep(1)
        return 128 + signo
    return os.WEXITSTATUS(result)

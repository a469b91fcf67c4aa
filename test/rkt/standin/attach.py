"""attach: between our own streams and the sockets of an app's multiplexer."""
import json
import os
import selectors
import socket
import sys

from .common import Fail
from .pods import one


def failed(words):
    raise Fail(f'iottymux: runtime failure: {words}\nstage1-attach: error executing "iottymux": exit status 254\n'
               "attach: attach failed: error executing stage1 entrypoint: exit status 254")


def connect(directory, name, app):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    here = os.getcwd()
    try:
        os.chdir(directory)
        s.connect(f"sock-{name}")
    except OSError as e:
        failed(f"dial unix /rkt/iottymux/{app}/sock-{name}: connect: {e.strerror.lower()}")
    finally:
        os.chdir(here)
    return s


def attach(store, flags, words, rest):
    app, mode = one(flags, "app"), one(flags, "mode", "auto")
    pod = store.find_pod(words[0], "attach: problem retrieving pod")
    pod.need_running("attach")
    directory = f"{pod.rootfs}/rkt/iottymux/{app}"
    try:
        with open(f"{directory}/endpoints") as f:
            endpoints = json.load(f)
    except OSError:
        failed(f"open /rkt/iottymux/{app}/endpoints: no such file or directory")
    if mode == "list":
        sys.stdout.write(json.dumps(endpoints, indent=4))
        return
    names = [t["name"] for t in endpoints["targets"]]
    wanted = names if mode == "auto" else mode.split(",")
    if not set(wanted) <= set(names):
        raise Fail(f"attach: attach failed: endpoint not available: {mode}")
    sockets = {n: connect(directory, n, app) for n in wanted}
    selector = selectors.DefaultSelector()
    outputs = 0
    for n, s in sockets.items():
        if n != "stdin":
            selector.register(s, selectors.EVENT_READ, (s, 2 if n == "stderr" else 1))
            outputs += 1
    source = sockets.get("stdin") or sockets.get("tty")
    if source:
        try:
            selector.register(0, selectors.EVENT_READ, None)
        except PermissionError:
            pass  # a file, which is always ready
    while outputs or (source and not any(n != "stdin" for n in sockets)):
        for key, _ in selector.select():
            if key.data is None:
                data = os.read(0, 65536)
                if data:
                    source.sendall(data)
                else:
                    selector.unregister(0)  # the app is not told
                    if not outputs:
                        return
                continue
            s, fd = key.data
            try:
                data = s.recv(65536)
            except OSError:
                data = b""
            if not data:
                selector.unregister(s)
                outputs -= 1
                continue
            while data:
                data = data[os.write(fd, data):]

"""The pod's PID 1: starts and reaps the apps, and moves their output, as rkt's systemd and iottymux do."""
import ctypes
import errno
import fcntl
import json
import os
import pty
import selectors
import signal
import socket
import sys
import termios
import time

from . import rootfs
from .common import (CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWUTS, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REC, MS_SLAVE, go_time, libc,
                     mount, setns, unshare)

EXIT_CHDIR, EXIT_EXEC = 200, 203  # systemd's
PR_CAPBSET_DROP = 24
READ = 65536


class Mux:
    """One app's output: lines into rkt's log, bytes to who is attached."""

    def __init__(self, sup, name, app):
        self.sup, self.name, self.app = sup, name, app
        self.clients, self.listeners = {"stdin": [], "stdout": [], "stderr": [], "tty": []}, []
        self.partial = {"stdout": b"", "stderr": b""}
        self.log, self.stdin, self.master, self.sources = None, None, None, {}
        self.pending, self.stopped = b"", False
        path = app["log_path"]
        # The kubelet's NAME/0.log makes the real one end, and nobody is told.
        if path and "/" not in path and app["stdout"] == "stream":
            self.log = os.open(f'{sup.data["log_directory"]}/{path}', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755)

    def open(self):
        """The app's descriptors 0, 1 and 2."""
        directory = f"{self.sup.pod.rootfs}/rkt/iottymux/{self.name}"
        os.makedirs(directory, exist_ok=True)
        names = ["tty"] if self.app["stdout"] == "tty" else ["stdout", "stderr"]
        if self.app["stdin"] == "stream":
            names.insert(0, "stdin")
        here = os.getcwd()
        os.chdir(directory)  # a socket's path is short
        for n in names:
            if os.path.exists(f"sock-{n}"):
                os.unlink(f"sock-{n}")
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            s.bind(f"sock-{n}")
            s.listen(8)
            s.setblocking(False)
            self.listeners.append(s)
            self.sup.watch(s, lambda s=s, n=n: self.accept(s, n))
        os.chdir(here)
        with open(f"{directory}/endpoints", "w") as f:
            json.dump({"version": 1, "targets": [{"name": n, "domain": "unix", "address": f"/rkt/iottymux/{self.name}/sock-{n}"}
                                                 for n in names]}, f)
        if self.app["stdout"] == "tty":
            self.master, slave = pty.openpty()
            os.set_blocking(self.master, False)
            return [slave] * 3
        if self.app["stdin"] == "stream":
            r, self.stdin = os.pipe()
            os.set_blocking(self.stdin, False)
        else:
            r = os.open("/dev/null", os.O_RDONLY)
        fds = [r]
        for n in ("stdout", "stderr"):
            read, write = os.pipe()
            os.set_blocking(read, False)
            self.sources[n] = read
            self.sup.watch(read, lambda n=n: self.read(n))
            fds.append(write)
        return fds

    def accept(self, s, name):
        try:
            c, _ = s.accept()
        except OSError:
            return
        c.setblocking(False)
        self.clients[name].append(c)
        self.sup.watch(c, lambda: self.from_client(c, name))
        if name == "tty" and self.master is not None and self.master not in self.sup.handlers:
            self.sup.watch(self.master, self.read_tty)  # nobody reads a terminal before that

    def drop(self, c, name):
        self.sup.unwatch(c)
        if c in self.clients[name]:
            self.clients[name].remove(c)
        c.close()

    def from_client(self, c, name):
        try:
            data = c.recv(READ) if len(self.pending) < 4 * READ else None
        except OSError:
            data = b""
        if data is None:
            return
        if not data:
            # The app is not told that its input has ended.
            return self.drop(c, name)
        if name in ("stdin", "tty"):
            self.pending += data
            self.flush_input()

    def flush_input(self):
        target = self.master if self.master is not None else self.stdin
        while self.pending and target is not None:
            try:
                self.pending = self.pending[os.write(target, self.pending):]
            except BlockingIOError:
                return self.sup.later(self.flush_input)
            except OSError:
                self.pending = b""

    def broadcast(self, name, data):
        for c in list(self.clients[name]):
            try:
                c.setblocking(True)
                c.settimeout(5)
                c.sendall(data)
                c.setblocking(False)
            except OSError:
                self.drop(c, name)

    def read(self, name):
        try:
            data = os.read(self.sources[name], READ)
        except BlockingIOError:
            return False
        except (KeyError, OSError):
            return False
        if not data:
            self.sup.unwatch(self.sources[name])
            os.close(self.sources.pop(name))
            return False
        if self.stopped:
            return True
        if self.log is not None:
            lines = (self.partial[name] + data).split(b"\n")
            self.partial[name] = lines.pop()  # what has no newline yet, or never gets one, is not in the log
            if lines:
                os.write(self.log, b"".join(f"{go_time()} {name} ".encode() + x + b"\n" for x in lines))
        self.broadcast(name, data)
        return True

    def read_tty(self):
        try:
            data = os.read(self.master, READ)
        except BlockingIOError:
            return False
        except OSError:
            self.sup.unwatch(self.master)
            return False
        self.broadcast("tty", data)
        return True

    def drain(self):
        for n in list(self.sources):
            while n in self.sources and self.read(n):
                pass
        while self.master is not None and self.clients["tty"] and self.read_tty():
            pass

    def close(self):
        for name, clients in self.clients.items():
            for c in list(clients):
                self.drop(c, name)
        for s in self.listeners:
            self.sup.unwatch(s)
            s.close()
        for fd in [*self.sources.values(), self.master, self.stdin, self.log]:
            if fd is not None:
                self.sup.unwatch(fd)
                os.close(fd)
        self.sources, self.listeners, self.master, self.stdin, self.log = {}, [], None, None, None


class Supervisor:
    def __init__(self, pod, data, netns):
        self.pod, self.data, self.netns = pod, data, netns
        self.selector, self.handlers, self.timers = selectors.DefaultSelector(), {}, []
        self.pids, self.muxes, self.ending = {}, {}, False

    # --- loop

    def watch(self, fd, func):
        n = fd if isinstance(fd, int) else fd.fileno()
        self.handlers[n] = func
        self.selector.register(n, selectors.EVENT_READ, func)

    def unwatch(self, fd):
        n = fd if isinstance(fd, int) else fd.fileno()
        if self.handlers.pop(n, None):
            self.selector.unregister(n)

    def later(self, func, delay=0.02):
        self.timers.append((time.monotonic() + delay, func))

    def run(self):
        cgroup = self.data["cgroup"]
        with open(f"{cgroup}/payload/init.scope/cgroup.procs", "w") as f:
            f.write("0")
        if self.netns:
            setns(self.netns)
        unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC)
        mount(None, "/", None, MS_REC | MS_SLAVE)
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        if self.data["net"] != "host" or self.data["hostname"]:
            socket.sethostname(self.data["hostname"] if not self.data["hostname"].startswith("rkt-") or self.netns
                               else socket.gethostname())
        os.setsid()
        wake, wake_write = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.end())
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self.watch(wake, lambda: os.read(wake, 4096))
        os.chdir(self.pod.dir)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind("control")
        server.listen(64)
        self.watch(server, lambda: self.serve(server))
        self.later(self.get_ready, 0.03)
        while True:
            now = time.monotonic()
            due, self.timers = [t for t in self.timers if t[0] <= now], [t for t in self.timers if t[0] > now]
            for _, func in due:
                func()
            wait = max(0, min(t[0] for t in self.timers) - time.monotonic()) if self.timers else None
            for key, _ in self.selector.select(wait):
                if key.fd in self.handlers:
                    self.handlers[key.fd]()
            self.reap()

    def get_ready(self):
        """A moment after nspawn said READY=1: until then apps can't be added."""
        with open(f"{self.pod.rootfs}/rkt/supervisor-status", "w") as f:
            f.write("ready")

    def end(self):
        """The pod is stopped: its apps end with it, and nobody notes how."""
        if not self.ending:
            self.ending = True
            for pid in self.pids:
                os.kill(pid, signal.SIGTERM)
        self.later(lambda: os._exit(0), 0.05 if self.pids else 0)

    def serve(self, server):
        c, _ = server.accept()
        with c:
            c.settimeout(10)
            try:
                request = json.loads(c.makefile().readline())
                answer = getattr(self, "do_" + request.pop("do"))(**request)
            except (OSError, ValueError, TypeError, AttributeError) as e:
                answer = {"error": f"{e}"}
            try:
                c.sendall(json.dumps(answer or {}).encode() + b"\n")
            except OSError:
                pass

    # --- apps

    def do_mount(self, name):
        rootfs.mount_app(self.pod, name, self.pod.apps()[name])

    def do_umount(self, name):
        rootfs.umount_app(self.pod, name)
        if name in self.muxes:
            self.muxes.pop(name).close()
        try:
            os.rmdir(f'{self.data["cgroup"]}/payload/system.slice/{name}.service')
        except OSError:
            pass

    def do_start(self, name):
        if name in self.pids.values():
            return
        app = self.pod.apps()[name]
        status = f"{self.pod.rootfs}/rkt/status/{name}"
        if os.path.exists(status):
            os.unlink(status)
        if name in self.muxes:
            self.muxes.pop(name).close()
        mux = self.muxes[name] = Mux(self, name, app)
        fds = mux.open()
        cgroup = f'{self.data["cgroup"]}/payload/system.slice/{name}.service'
        os.makedirs(cgroup, exist_ok=True)
        with open(f"{status}-started", "w"):
            pass
        pid = os.fork()
        if pid == 0:
            self.become(name, app, fds, cgroup)
        self.pids[pid] = name
        for fd in set(fds):
            os.close(fd)

    def do_signal(self, name, signo):
        for pid, n in self.pids.items():
            if n == name:
                # What an app writes from now on its multiplexer does not see any more.
                self.muxes[name].drain()
                self.muxes[name].stopped = True
                os.kill(pid, signo)
                return {"running": True}
        return {"running": False}

    def do_running(self, name):
        return {"running": name in self.pids.values()}

    def become(self, name, app, fds, cgroup):
        try:
            signal.set_wakeup_fd(-1)
            for s in range(1, 65):
                try:
                    signal.signal(s, signal.SIG_DFL)
                except (OSError, ValueError):
                    pass
            with open(f"{cgroup}/cgroup.procs", "w") as f:
                f.write("0")
            os.setsid()
            if app["oom_score_adj"]:
                with open("/proc/self/oom_score_adj", "w") as f:
                    f.write(app["oom_score_adj"])
            fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
            for i, fd in enumerate(fds):
                os.dup2(fd, i)
            if app["stdout"] == "tty":
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            elif app["uid"]:
                for i in (1, 2):
                    os.fchown(i, app["uid"], app["gid"])
            os.closerange(3, 4096)
            os.chroot(rootfs.path_of(self.pod, name))
            os.umask(0o022)
            try:
                os.chdir(app["cwd"])
            except OSError:
                os._exit(EXIT_CHDIR)
            if app["capabilities"] is not None:
                for c in range(64):
                    if c not in app["capabilities"]:
                        libc.prctl(PR_CAPBSET_DROP, c, 0, 0, 0)
            os.setgroups(app["groups"])
            os.setgid(app["gid"])
            os.setuid(app["uid"])
            env = {os.fsencode(k): os.fsencode(v) for k, v in app["env"]}
            os.execve(app["argv"][0], app["argv"], env)
        except BaseException:  # noqa: BLE001
            pass
        time.sleep(0.15)
        os._exit(EXIT_EXEC)

    def reap(self):
        while True:
            try:
                pid, result = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            name = self.pids.pop(pid, None)
            if name:
                self.ended(name, result)
        if self.ending and not self.pids:
            os._exit(0)

    def ended(self, name, result):
        mux = self.muxes[name]
        mux.drain()
        cgroup = f'{self.data["cgroup"]}/payload/system.slice/{name}.service'
        try:
            with open(f"{cgroup}/cgroup.kill", "w") as f:
                f.write("1")
        except OSError:
            pass
        if self.ending:
            return
        # systemd's ExecMainStatus: an exit status or a signal, and which of the two is not said.
        code = os.WEXITSTATUS(result) if os.WIFEXITED(result) else os.WTERMSIG(result)
        with open(f"{self.pod.rootfs}/rkt/status/{name}", "w") as f:
            f.write(str(code))
        mux.close()
        self.remove_cgroup(cgroup)

    def remove_cgroup(self, cgroup, tries=50):
        try:
            for d in os.listdir(cgroup):
                if os.path.isdir(f"{cgroup}/{d}"):
                    os.rmdir(f"{cgroup}/{d}")
            os.rmdir(cgroup)
        except FileNotFoundError:
            pass
        except OSError:
            if tries:
                self.later(lambda: self.remove_cgroup(cgroup, tries - 1))

#!/usr/bin/env python3
"""The daemon as a process: options, configuration, sockets, signals, notifications. It needs root for its mount namespace,
but neither systemd nor a bus: it waits for them.

Usage: test-rktlet.py RKTLET
"""
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

rktlet = sys.argv[1]
number = 0


def check(what, condition, *details):
    global number
    number += 1
    print("ok" if condition else "not ok", number, "-", what)
    if not condition:
        print("#", *details)
        print("Bail out!")
        sys.exit(1)


if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
    print("1..0 # SKIP needs root and a mount namespace of its own")
    sys.exit(0)


def run(*arguments):
    return subprocess.run([rktlet, *arguments], capture_output=True, text=True, timeout=60)


r = run("--version")
check("--version", r.returncode == 0 and r.stdout.startswith("rktlet "), r)
r = run("--help")
check("--help", r.returncode == 0 and "--dump-config" in r.stdout, r)
check("unknown options are refused", run("--nonsense").returncode == 1)
check("arguments are refused", run("nonsense").returncode == 1)
check("a relative socket is refused", run("--socket=x").returncode == 1)

work = pathlib.Path(tempfile.mkdtemp(prefix="test-rktlet-"))
conf = work / "rktlet.conf"
conf.write_text(f"""[Manager]
StateDirectory={work}/state
RunDirectory={work}/run
Soket=/nowhere
[Network]
CniConfDirectories={work}/net.d
CniBinDirectories={work}/bin
[Image]
RegistriesDirectory={work}/registries.d
""")
r = run("-c", str(conf), "--dump-config", "--log-level=debug")
check("what is wrong in the configuration is named", f"{conf}:4: Unknown key Soket=" in r.stderr, r)
check("the configuration in force is shown", f"\nSocket={work}/run/rktlet.sock\n" in "\n" + r.stdout and "LogLevel=debug" in r.stdout, r)
check("a file that is not there is an error", run("-c", "/nonexistent").returncode == 1)

notify_path = str(work / "notify")
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(notify_path)
notify.settimeout(30)
path = work / "run/rktlet.sock"


def forget():
    """What an earlier one said must not be taken for this one's."""
    notify.setblocking(False)
    try:
        while notify.recv(4096):
            pass
    except BlockingIOError:
        pass
    notify.settimeout(30)


class Daemon:
    def __init__(self, *arguments, **kwargs):
        forget()
        self.log = open(work / "log", "w+")
        self.process = subprocess.Popen([rktlet, "-c", str(conf), *arguments], stderr=self.log,
                                        env={**os.environ, "NOTIFY_SOCKET": notify_path}, **kwargs)

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def until(condition):
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def notified(what):
    seen = b""
    while what not in seen:
        seen = notify.recv(4096)
    return True


def speaks_http2(address):
    """The server's first frame is SETTINGS (RFC 9113, 3.4)."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        try:
            s.connect(str(address))
        except ConnectionRefusedError:
            return False  # left by one that is gone
        s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        head = b""
        while len(head) < 9:
            more = s.recv(9 - len(head))
            if not more:
                return False
            head += more
        return head[3] == 4


def mode(p):
    return stat.S_IMODE(os.stat(p).st_mode)


d = Daemon()
try:
    check("it serves the socket before it is done with anything else", until(path.exists) and until(lambda: speaks_http2(path)), d.text())
    check("the socket is root's", mode(path) == 0o660, oct(mode(path)))
    check("its directories are", mode(work / "state") == 0o700 and mode(work / "run") == 0o711)
    check("systemd is told what it does", notified(b"STATUS=Looking for pods and containers"))
    r = run("-c", str(conf))
    check("a second one on the same directories refuses to run", r.returncode == 1 and "Another rktlet" in r.stderr, r)
    check("its mounts are its own", os.readlink(f"/proc/{d.process.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"))
    text = conf.read_text()
    conf.write_text(text.replace("Soket=/nowhere", "LogLevel=debug\nStopTimeoutSec=3s\nStreamPort=1\nLoud=yes"))
    d.process.send_signal(signal.SIGHUP)
    check("SIGHUP takes over what can be", until(lambda: "Configuration read again: LogLevel= StopTimeoutSec=" in d.text()), d.text())
    check("and names the rest", until(lambda: "is restarted (which stops no container): StreamPort=" in d.text()), d.text())
    check("and what is wrong, with its line", f"{conf}:7: Unknown key Loud=" in d.text(), d.text())
    conf.unlink()
    d.process.send_signal(signal.SIGHUP)
    check("a configuration that can't be read changes nothing", until(lambda: "was not taken over: Cannot read" in d.text()), d.text())
    conf.write_text(text)
    d.process.send_signal(signal.SIGHUP)
    check("it goes on", until(lambda: d.text().count("Configuration read again") == 2), d.text())
    d.process.send_signal(signal.SIGPIPE)
    check("SIGTERM ends it in order", d.stop() == 0, d.text())
    check("and systemd is told", notified(b"STOPPING=1"))

    # It was killed: its lock is gone with it, and a stale socket is in nobody's way.
    d = Daemon()
    check("it starts again", until(path.exists) and until(lambda: speaks_http2(path)), d.text())
    d.process.kill()
    d.process.wait(60)
    d = Daemon()
    check("it starts again after SIGKILL", notified(b"STATUS=Looking") and speaks_http2(path), d.text())
    check("it ends again", d.stop() == 0, d.text())

    # A socket from systemd, descriptor 3; a client that is there before the daemon is served.
    given = work / "given.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(given))
        listener.listen(16)
        early = socket.socket(socket.AF_UNIX)
        early.settimeout(30)
        early.connect(str(given))
        early.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        pid = os.fork()
        if pid == 0:
            os.dup2(listener.fileno(), 3)
            os.set_inheritable(3, True)
            os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), NOTIFY_SOCKET=notify_path)
            os.dup2(os.open(work / "log", os.O_RDWR | os.O_CREAT | os.O_TRUNC), 2)
            os.execv(rktlet, [rktlet, "-c", str(conf), f"--socket={given}"])
        check("a client that came before the daemon is served", len(early.recv(9)) > 0)
        early.close()
        check("the socket is taken over from systemd", speaks_http2(given))
        os.kill(pid, signal.SIGTERM)
        check("it ends in order", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, (work / "log").read_text())
        check("systemd's socket stays", given.exists())

    # Twice SIGTERM: at once, whatever goes on.
    d = Daemon()
    notified(b"STATUS=Looking")
    d.process.send_signal(signal.SIGTERM)
    d.process.send_signal(signal.SIGINT)
    check("a second signal ends it at once", d.process.wait(30) == 0, d.text())
finally:
    if d.process.poll() is None:
        d.process.kill()
        d.process.wait()
    shutil.rmtree(work)
print(f"1..{number}")

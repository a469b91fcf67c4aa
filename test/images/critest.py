"""The images that critest, the conformance suite of cri-tools, asks for by name, made from Debian parts.

It asks several registries by name; a mirror setting for each (registries.d) points them all at ours.
"""

import os
import subprocess
import tempfile

from oci import Image, Layer

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
GROUP = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"

# busybox has no pgrep and ipcs; the suite looks for a process by name and for a shared memory segment.
PGREP = """#!/bin/sh
for d in /proc/[0-9]*; do
        [ "${d#/proc/}" = $$ ] && continue
        case "$(cat $d/comm 2>/dev/null)" in *"$1"*) echo "${d#/proc/}"; found=1;; esac
done
[ -n "$found" ]
"""
IPCS = """#!/bin/sh
echo "------ Shared Memory Segments --------"
tail -n +2 /proc/sysvipc/shm
"""

NO_NEW_PRIVS = r"""
#include <stdio.h>
#include <unistd.h>
int main(void) { return printf("Effective uid: %d\n", (int) geteuid()) < 0; }
"""


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def busybox(tree):
    layer = Layer()
    for name, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755), ("usr", 0o755),
                       ("usr/bin", 0o755), ("home", 0o755), ("lib", 0o755), ("lib/x86_64-linux-gnu", 0o755), ("lib64", 0o755)):
        layer.dir(name, mode)
    # Not the static one of the tree: that runs its applets without looking at /bin, and the suite masks /bin/ls.
    program = read(os.environ["BUSYBOX"])
    layer.file("bin/busybox", program, 0o755)
    for path in libraries(tree, "/bin/true"):  # libc and the loader
        layer.file(path.lstrip("/"), read(os.path.realpath(os.path.join(tree, path.lstrip("/")))), 0o755)
    layer.file("lib/x86_64-linux-gnu/libresolv.so.2", read(os.path.realpath(os.path.join(tree, "lib/x86_64-linux-gnu/libresolv.so.2"))))
    with tempfile.NamedTemporaryFile(prefix="busybox") as file:
        file.write(program)
        file.flush()
        os.chmod(file.name, 0o755)
        listing = subprocess.run([os.path.join(tree, "lib64/ld-linux-x86-64.so.2"), "--library-path",
                                  os.path.join(tree, "lib/x86_64-linux-gnu"), file.name, "--list"],
                                 capture_output=True, text=True, check=True)
    for applet in listing.stdout.split():
        if applet not in ("busybox", "pgrep", "ipcs"):
            layer.hardlink("bin/" + applet, "bin/busybox", 0o755)
    layer.file("bin/pgrep", PGREP, 0o755).file("bin/ipcs", IPCS, 0o755)
    return layer.file("etc/passwd", PASSWD).file("etc/group", GROUP)


def libraries(tree, program):
    """What a program of the tree is linked with, as paths of the tree."""
    listing = subprocess.run(["chroot", tree, "ldd", program], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        path = line.split("=>")[-1].split("(")[0].strip()
        if path.startswith("/"):
            yield path


def nginx(tree, port):
    layer = Layer()
    for name in ("usr", "usr/sbin", "etc/nginx", "var/log", "var/log/nginx", "var/lib", "var/lib/nginx", "run", "www"):
        layer.dir(name)
    layer.symlink("var/run", "/run")
    layer.file("usr/sbin/nginx", read(tree, "usr/sbin/nginx"), 0o755)
    for path in libraries(tree, "/usr/sbin/nginx"):
        layer.file(path.lstrip("/"), read(os.path.realpath(os.path.join(tree, path.lstrip("/")))), 0o755)
    layer.file("etc/nginx/nginx.conf", f"""user www-data;
error_log /dev/stderr;
pid /run/nginx.pid;
events {{ }}
http {{ access_log /dev/stdout; server {{ listen {port}; root /www; }} }}
""")
    return layer.file("www/index.html", "<h1>Welcome to nginx!</h1>\n")


def static_program(source):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "program")
        subprocess.run(["gcc", "-static", "-Os", "-s", "-x", "c", "-", "-o", path], input=source.encode(), check=True)
        return read(path)


def images(tree):
    base = busybox(tree)
    shell = {"Env": [PATH], "Cmd": ["sh"]}
    yield "e2e-test-images/busybox", "1.29-2", Image([base], shell)
    yield "e2e-test-images/nginx", "1.14-2", Image([base, nginx(tree, 80)], {
        "Env": [PATH], "Cmd": ["nginx", "-g", "daemon off;"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGTERM"})
    yield "k8s-staging-cri-tools/hostnet-nginx-amd64", "latest", Image([base, nginx(tree, 12003)], {
        "Env": [PATH], "Cmd": ["nginx", "-g", "daemon off;"]})
    yield "e2e-test-images/httpd", "2.4.39-4", Image([base, Layer().dir("www").file("www/index.html", "It works!\n")], {
        "Env": [PATH], "Cmd": ["sh", "-c", "echo 'httpd -D FOREGROUND'; exec httpd -f -v -p 80 -h /www"]})
    yield "e2e-test-images/nonewprivs", "1.3", Image([base, Layer().file("nnp", static_program(NO_NEW_PRIVS), 0o4755)], {
        "Env": [PATH], "Entrypoint": ["/nnp"]})
    staging = "k8s-staging-cri-tools/test-image-"
    for name, user in (("user-uid", "1002"), ("user-username", "www-data"), ("user-uid-group", "1003:1004"),
                       ("user-username-group", "www-data:1004")):
        yield staging + name, "latest", Image([base], dict(shell, User=user))
    groups = (Layer().file("etc/passwd", PASSWD + "default-user:x:1000:1000::/home:/bin/sh\n")
              .file("etc/group", GROUP + "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"))
    yield staging + "predefined-group", "latest", Image([base, groups], dict(shell, User="1000"))
    for name in ("1", "2", "3", "latest", "digest"):
        yield staging + name, "latest", Image([base, Layer().file("name", name)], shell)
    for tag in ("test", "all"):
        yield staging + "tag", tag, Image([base, Layer().file("name", "tag " + tag)], shell)
    tags = Image([base, Layer().file("name", "tags")], shell)
    for tag in ("1", "2", "3"):
        yield staging + "tags", tag, tags
    yield "pause", "3.9", Image([base], {"Env": [PATH], "Entrypoint": ["tail", "-f", "/dev/null"]})

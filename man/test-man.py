#!/usr/bin/env python3
"""Holds the pages, the example configuration and the D-Bus page against the code they describe.

Usage: test-man.py SOURCE_ROOT MAN_BUILD_DIR PROGRAM...    (programs: rktlet, rktletctl; their --help is read)
"""
import pathlib
import re
import subprocess
import sys

root, man = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
number = 0
failed = False


def check(what, *missing):
    global number, failed
    number += 1
    missing = sorted(set().union(*missing))
    failed |= bool(missing)
    print("not ok" if missing else "ok", number, "-", what, *([":", " ".join(missing)] if missing else []))


def page(name):
    return (man / name).read_text().replace("\\-", "-")


settings = set(re.findall(r'"(?:Manager|Engine|Rkt|Network|Image)", "(\w+)"', (root / "src/config.c").read_text()))
settings |= set(re.findall(r'streq\(key, "(\w+)"\)', (root / "src/config-runtime.c").read_text()))  # of [Runtime NAME]
example = set(re.findall(r"^#(\w+)=", (root / "units/rktlet.conf").read_text(), re.M))
described = set(re.findall(r"^\.I (\w+)=$", page("rktlet.conf.5"), re.M))
check("the example configuration has each setting", settings ^ example)
check("rktlet.conf(5) describes each setting", settings ^ described)

keys = set(re.findall(r'(?:streq\((?:key|line), |\{ ?)"([A-Z]\w+)"', (root / "src/image/hosts.c").read_text()))
described = set(re.findall(r"^\.I (\w+)=$", page("rktlet.registries.5"), re.M))
check("rktlet.registries(5) describes each key", keys ^ described)

def words(text):
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text)).replace('\\"', '"')


limits = [(words(a), words(b)) for a, b in re.findall(
    r'\[RKT_LIMIT_\w+\] = \{ ((?:"(?:[^"\\]|\\.)*"\s*)+),\s*((?:"(?:[^"\\]|\\.)*"\s*)+)\}',
    (root / "src/engine/rkt/limits.c").read_text())]
text = page("rktlet-rkt.7").replace("\\(dq", '"')
described = set(re.findall(r"^\.TP\n(.+)\n(.+)$", text[text.index(".SH WHAT IT CANNOT DO"):], re.M))
check("rktlet-rkt(7) has each limit of rkt, with its reason", {w for w, _ in set(limits) ^ described}, set() if limits else {"none found"})

for program in sys.argv[3:]:
    name = pathlib.Path(program).name
    help_text = subprocess.run([program, "--help"], check=True, capture_output=True, text=True).stdout
    text = page({"rktlet": "rktlet.8", "rktletctl": "rktletctl.1"}[name])
    described = set(re.findall(r"--[a-z][a-z-]*", text)) - {"--dump-config"} | ({"--dump-config"} if name == "rktlet" else set())
    options = set(re.findall(r"--[a-z][a-z-]*", help_text))
    check(f"the page of {name} has each option", options - described)
    check(f"the page of {name} has no other", described - options)
    commands = set(re.findall(r"^  ([a-z][a-z-]+)", help_text, re.M))
    check(f"the page of {name} has each command", {c for c in commands if not re.search(rf"^\.BI? {c}", text, re.M)})

code = (root / "src/pod/pod.c").read_text()
text = page("rktlet-pod.8")
check("rktlet-pod(8) has each option, and no other",
      set(re.findall(r'argv\[i\], "(--[a-z-]+)', code)) ^ set(re.findall(r"--[a-z][a-z-]*", text)))
check("rktlet-pod(8) has the exit codes",
      {n for n in re.findall(r"define POD_EXIT_\w+ (\d+)", (root / "src/pod/pod-protocol.h").read_text()) if n not in text})

ids = set(re.findall(r'"MESSAGE_ID=([0-9a-f]{32})"', (root / "src/basic/message-id.h").read_text()))
explained = re.findall(r"^-- ([0-9a-f]{32})$", (root / "units/rktlet.catalog").read_text(), re.M)
check("the catalog explains each message ID, once", ids ^ set(explained), {i for i in explained if explained.count(i) > 1})
pages = {f"{n.stem}({n.suffix[1:]})" for n in man.glob("*.[1578]")}
check("the catalog names pages that there are",
      set(re.findall(r"man:(\S+)", (root / "units/rktlet.catalog").read_text())) - pages)

# The live introspection is compared in test/e2e; this is sooner, and tells where. Each object has a part of the page.
sources = "".join(f.read_text() for f in [*(root / "src/monitor").glob("*.c"), root / "src/cri/cri.c"])
metrics = set(re.findall(r'metric_head\(f, "(\w+)"', sources))
described = set(re.findall(r"^\.B ((?:rktlet|process)_\w+)", page("rktlet.metrics.7"), re.M))
check("rktlet.metrics(7) has each metric, and no other", metrics ^ described)

dbus = page("org.rktlet1.5")
for source in sorted((root / "src/bus").glob("*.c")):
    code = source.read_text()
    if "SD_BUS_VTABLE_START" not in code or source.name.startswith("test-"):
        continue
    title = {"manager-object.c": "THE MANAGER OBJECT", "log-control.c": "THE LOG CONTROL OBJECT"}.get(
        source.name, source.name.split("-")[0].upper() + " OBJECTS")
    part = re.search(rf"^\.SH {title}\n(.*?)(?=^\.SH )", dbus, re.M | re.S).group(1)
    members = set(f"{'readwrite' if w else 'readonly'} {t} {n}"
                  for w, n, t in re.findall(r'SD_BUS_(WRITABLE_)?PROPERTY\("(\w+)", "([^"]+)"', code))
    check(f"org.rktlet1(5) has the properties of {source.name}, and no other",
          members ^ set(re.findall(r"^(read\w+ \S+ \w+);", part, re.M)))
    methods = set(re.findall(r'SD_BUS_METHOD_WITH_ARGS\("(\w+)"', code))
    check(f"org.rktlet1(5) has the methods of {source.name}, and no other", methods ^ set(re.findall(r"^(\w+)\(", part, re.M)))

for name in sorted(man.glob("*.[1578]")):
    r = subprocess.run(["groff", "-man", "-Tutf8", "-ww", str(name)], capture_output=True, text=True) \
        if pathlib.Path("/usr/bin/groff").exists() else None
    check(f"{name.name} is well-formed", set(r.stderr.splitlines()) if r else set())

print(f"1..{number}")
sys.exit(failed)

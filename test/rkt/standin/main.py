"""The command line, and who does what."""
import importlib
import os
import sys

from .common import Fail, Store, complain, fault, record

GLOBAL = {"dir", "insecure-options", "local-config", "user-config", "system-config", "debug"}
# Command: its flags, and what does it. A command of "exec"'s kind takes what follows the UUID as it is.
COMMANDS = {
    "app sandbox": ({"uuid-file-save", "annotation", "stage1-name", "hostname", "dns", "dns-search", "dns-opt", "dns-domain",
                     "hosts-entry", "port", "net", "user-annotation", "user-label"}, "sandbox sandbox"),
    "app add": ({"annotation", "name", "stdin", "stdout", "stderr", "user-annotation", "user-label", "environment",
                 "cpu-shares", "cpu", "memory", "oom-score-adj", "caps-retain", "caps-remove", "seccomp", "user", "group",
                 "supplementary-gids", "readonly-rootfs", "working-dir", "mnt-volume", "exec"}, "apps add"),
    "app start": ({"app"}, "apps start"),
    "app stop": ({"app"}, "apps stop"),
    "app rm": ({"app"}, "apps remove"),
    "app status": ({"app", "format"}, "apps status"),
    "app list": ({"no-legend"}, "apps list_apps"),
    "app exec": ({"app"}, "apps execute"),
    "attach": ({"mode", "app"}, "attach attach"),
    "status": ({"format", "wait", "wait-ready"}, "pods status"),
    "list": ({"format", "full", "no-legend"}, "pods list_pods"),
    "stop": ({"force"}, "pods stop"),
    "rm": (set(), "pods remove"),
    "gc": ({"grace-period", "mark-only"}, "pods collect"),
    "cat-manifest": (set(), "pods cat_manifest"),
    "image fetch": ({"pull-policy", "full"}, "registry fetch"),
    "image list": ({"full", "format", "sort"}, "images list_images"),
    "image cat-manifest": (set(), "images cat_manifest"),
    "image rm": (set(), "images remove"),
    "version": (set(), "pods version"),
}


def parse(argv):
    """Flags (name → list of values), the command, its words, and what stands after "--"."""
    flags, words, rest, command = {}, [], None, ""
    args = iter(argv)
    for a in args:
        if a == "--" and command != "app exec":
            rest = list(args)
            break
        if a.startswith("--") and not (command == "app exec" and words):
            name, _, value = a[2:].partition("=")
            flags.setdefault(name, []).append(value)
            continue
        if command not in COMMANDS:
            command = f"{command} {a}".strip()
            if not any(c == command or c.startswith(command + " ") for c in COMMANDS):
                raise Fail(f'Error: unknown command "{a}" for "rkt"\nRun \'rkt --help\' for usage.')
            hidden = {"app": "RKT_EXPERIMENT_APP", "attach": "RKT_EXPERIMENT_ATTACH"}.get(command)
            if hidden and os.environ.get(hidden) != "true":
                raise Fail(f'Error: unknown command "{command}" for "rkt"\nRun \'rkt --help\' for usage.')
            continue
        words.append(a)
        if command == "app exec" and len(words) == 1:
            words.extend(args)
            break
    if command not in COMMANDS:
        raise Fail(f'Error: unknown command "{command}" for "rkt"')
    for name in flags:
        if name not in GLOBAL | COMMANDS[command][0]:
            raise Fail(f"Error: unknown flag: --{name}")
    return flags, command, words, rest


def main(argv):
    record(argv)
    os.umask(0o022)
    try:
        flags, command, words, rest = parse(argv[1:])
        fault(command)
        module, function = COMMANDS[command][1].split()
        code = getattr(importlib.import_module(f"{__package__}.{module}"), function)(Store(flags), flags, words, rest)
    except Fail as f:
        complain(f.text)
        code = f.code
    except BrokenPipeError:
        code = 254
    sys.stdout.flush()
    os._exit(code or 0)

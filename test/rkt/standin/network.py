"""Networks by CNI plugins, as rkt's stage1 does it: the configuration in net.d of the local configuration."""
import json
import os
import subprocess

from .common import CLONE_NEWNET, MS_BIND, Fail, complain, mount, umount, unshare

PLUGINS = ("/usr/lib/rkt/plugins/net", "/opt/cni/bin", "/usr/lib/cni")


def configurations(store):
    directory = f"{store.local_config}/net.d"
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        if name.endswith(".conf"):
            with open(f"{directory}/{name}") as f:
                yield name, json.load(f)


def plugin(kind):
    for directory in PLUGINS:
        if os.access(f"{directory}/{kind}", os.X_OK):
            return f"{directory}/{kind}"
    raise Fail(f"stage1: network error\n  └─could not find plugin {kind}")


def call(command, conf, uuid, netns, ifname="eth0"):
    env = {"PATH": ":".join(PLUGINS) + ":/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND": command, "CNI_CONTAINERID": uuid,
           "CNI_NETNS": netns, "CNI_IFNAME": ifname, "CNI_PATH": ":".join(p for p in PLUGINS if os.path.isdir(p))}
    r = subprocess.run([plugin(conf["type"])], input=json.dumps(conf), capture_output=True, text=True, env=env)
    if r.returncode != 0:
        try:
            why = json.loads(r.stdout)["msg"]
        except (ValueError, KeyError):
            why = (r.stdout + r.stderr).strip()
        raise Fail(f"stage1: network error\n  └─error setting up network {conf.get('name')}\n    └─{why}")
    return json.loads(r.stdout) if command == "ADD" and r.stdout.strip() else {}


def portmap(conf, ports, ip):
    mappings = [{"hostPort": p["hostPort"], "containerPort": p["port"], "protocol": p["protocol"],
                 **({"hostIP": p["hostIP"]} if p["hostIP"] not in ("", "0.0.0.0") else {})} for p in ports]
    return {"cniVersion": "0.4.0", "name": conf["name"], "type": "portmap", "snat": True,
            "runtimeConfig": {"portMappings": mappings},
            "prevResult": {"cniVersion": "0.4.0", "interfaces": [{"name": "eth0", "sandbox": "x"}],
                           "ips": [{"version": "4", "interface": 0, "address": ip}]}}


def make_namespace(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "x"):
        pass
    child = os.fork()
    if child == 0:
        try:
            unshare(CLONE_NEWNET)
            mount("/proc/self/ns/net", path, None, MS_BIND)
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise Fail("stage1: network error\n  └─cannot make a network namespace")


def remove_namespace(path):
    umount(path)
    if os.path.exists(path):
        os.unlink(path)
    try:
        os.rmdir(os.path.dirname(path))
    except OSError:
        pass


def set_up(pod, name, ports):
    """Makes the namespace and returns net-info.json's list. What fails half-way `rkt rm` takes down."""
    found = [(f, c) for f, c in configurations(pod.store) if c.get("name") == name]
    if not found:
        raise Fail(f"stage1: error setting up the network\n  └─error loading network definitions\n    └─networks not found: {name}")
    file, conf = found[0]
    path = f"/var/run/netns/cni-{pod.uuid}"
    make_namespace(path)
    with open(pod.path("netns"), "w") as f:
        f.write(path)
    pod.save("net-state.json", {"conf": conf, "ports": ports, "ip": ""})
    result = call("ADD", conf, pod.uuid, path)
    ip = (result.get("ip4") or {}).get("ip", "")
    if ports and not ip:
        ip = next((i["address"] for i in result.get("ips", []) if "." in i["address"]), "")
    pod.save("net-state.json", {"conf": conf, "ports": ports, "ip": ip})
    if ports:
        call("ADD", portmap(conf, ports, ip), pod.uuid, path)
    # A plugin of a newer version than rkt knows gives an address that it doesn't see.
    seen = (result.get("ip4") or {}).get("ip", "").partition("/")[0]
    bits = int((result.get("ip4") or {}).get("ip", "/0").partition("/")[2] or 0)
    mask = ".".join(str((0xffffffff << (32 - bits) >> s) & 255) for s in (24, 16, 8, 0)) if seen else ""
    return [{"netName": name, "netConf": f"net/{file}", "pluginPath": plugin(conf["type"]), "ifName": "eth0", "ip": seen,
             "args": "", "mask": mask}]


def take_down(pod):
    state = pod.load("net-state.json")
    if not state:
        return
    path = f"/var/run/netns/cni-{pod.uuid}"
    steps = [state["conf"]]
    if state["ports"] and state["ip"]:
        steps.insert(0, portmap(state["conf"], state["ports"], state["ip"]))
    for conf in steps:
        try:
            call("DEL", conf, pod.uuid, path)
        except Fail as f:
            complain(f.text)  # the rest is taken down nevertheless
    remove_namespace(path)
    os.unlink(pod.path("net-state.json"))

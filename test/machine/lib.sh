# Shared by the scripts beside it: where things lie, and the name of a machine's files. To be sourced.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# What is made once and kept: the Debian tree, the registry's content, Go's and pip's downloads.
cache=${RKTLET_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/rktlet}
# What belongs to one running machine.
machines=${RKTLET_MACHINES:-/var/tmp/rktlet-machines}

say() {
        echo "${0##*/}: $*" >&2
}

die() {
        say "$*"
        exit 1
}

[ "$(id -u)" = 0 ] || die "this needs root: namespaces, mounts and a cgroup are made"

# Sets the names that belong to the machine $1.
machine_names() {
        [[ ${1:-} =~ ^[a-z0-9][a-z0-9-]{0,30}$ ]] || die "'${1:-}' is no machine name: use a-z, 0-9 and -"
        machine=$1
        state=$machines/$machine
        cgroup=rktlet-test-$machine
}

# Prints the process ID of the machine's PID 1; fails when the machine isn't up.
machine_leader() {
        local leader
        leader=$(cat "$state/leader" 2>/dev/null) || return 1
        [ "$(cat "/proc/$leader/comm" 2>/dev/null)" = systemd ] || return 1
        echo "$leader"
}

# Prints the process ID of PID 1 below the systemd-nspawn of the machine, its grandchild; fails while there is none.
machine_pid1() {
        local nspawn child grandchild
        nspawn=$(cat "$state/nspawn" 2>/dev/null) || return 1
        for child in $(cat "/proc/$nspawn/task/"*/children 2>/dev/null); do
                for grandchild in $child $(cat "/proc/$child/task/"*/children 2>/dev/null); do
                        if [ "$(cat "/proc/$grandchild/comm" 2>/dev/null)" = systemd ]; then
                                echo "$grandchild"
                                return 0
                        fi
                done
        done
        return 1
}

# Waits for a PID 1 that isn't $2 while the process $1 lives, and prints its number; fails after 20 s.
machine_wait_pid1() {
        local i leader
        for ((i = 0; i < 1000; i++)); do
                if leader=$(machine_pid1) && [ "$leader" != "$2" ] && [ -S "/proc/$leader/root/run/systemd/private" ]; then
                        echo "$leader"
                        return 0
                fi
                [ -d "/proc/$1" ] || break
                sleep 0.02
        done
        return 1
}

# Waits until the machine with the PID 1 $1 has come up, and finishes what nspawn left to do.
machine_ready() {
        local result
        # Ended early with "degraded" when some unit failed; that is the business of whoever looks.
        result=$(timeout 60 nsenter --target "$1" --all systemctl is-system-running --wait 2>&1) || true
        case $result in
        running) ;;
        degraded) say "some unit failed in machine $machine: see '$here/in $machine systemctl --failed'" ;;
        *)
                say "systemctl is-system-running says '$result'"
                return 1
                ;;
        esac
        # Some versions of nspawn make it read-only; sysctls of pods need it writable, as it is on a node.
        nsenter --target "$1" --all sh -c '! mountpoint -q /proc/sys || mount -o remount,bind,rw /proc/sys'
}

# A key for everything that the arguments (files or words) say.
key_of() {
        local a
        for a in "$@"; do if [ -f "$a" ]; then cat "$a"; else echo "$a"; fi; done | sha256sum | cut -c1-12
}

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

# A key for everything that the arguments (files or words) say.
key_of() {
        local a
        for a in "$@"; do if [ -f "$a" ]; then cat "$a"; else echo "$a"; fi; done | sha256sum | cut -c1-12
}

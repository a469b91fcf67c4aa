#!/bin/sh
# Runs the Go tests of this folder that match $1; $2 is the descriptor set of proto/runtime.proto, $3 the server that
# the tests of the wire call. 77: cannot run here.
set -eu
tests=$1
descriptor=$(realpath "$2")
server=${3:+$(realpath "$3")}
cd "$(dirname "$0")"
command -v go >/dev/null || { echo "no go: install it to compare with k8s.io/cri-api"; exit 77; }
go mod download >/dev/null 2>&1 || { echo "the Go modules are neither cached nor to be had from here"; exit 77; }
RUNTIME_DESCRIPTOR=$descriptor WIRE_SERVER=$server exec go test -count=1 -mod=readonly -v -run "$tests" ./...

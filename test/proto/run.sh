#!/bin/sh
# Runs the Go tests of this folder; $1 is the descriptor set of proto/runtime.proto. 77: cannot run here.
set -eu
descriptor=$(realpath "$1")
cd "$(dirname "$0")"
command -v go >/dev/null || { echo "no go: install it to compare with k8s.io/cri-api"; exit 77; }
go mod download >/dev/null 2>&1 || { echo "the Go modules are neither cached nor to be had from here"; exit 77; }
RUNTIME_DESCRIPTOR=$descriptor exec go test -count=1 -mod=readonly -v ./...

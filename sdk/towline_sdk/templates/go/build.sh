#!/bin/sh
# Builds the entry point: one static program, the same bytes from the same source.
cd "$(dirname "$0")" && CGO_ENABLED=0 exec go build -trimpath -buildvcs=false -ldflags="-s -w -buildid=" -o plugin .

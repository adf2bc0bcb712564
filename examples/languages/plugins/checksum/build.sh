#!/bin/sh
cd "$(dirname "$0")" && CGO_ENABLED=0 exec go build -trimpath -buildvcs=false -ldflags="-s -w -buildid=" -o checksum .

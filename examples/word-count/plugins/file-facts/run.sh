#!/bin/sh
# The request is JSON on stdin, the result JSON on file descriptor 3; whatever goes to stdout is the log.
set -eu

file=$(sed -n 's/.*"file": *"\([a-z]*\.txt\)".*/\1/p')
path=$TOWLINE_PLUGIN_DIR/texts/$file
if [ ! -f "$path" ]; then
    printf '{"error": {"class": "PERMANENT", "code": "NO_SUCH_FILE", "message": "no text named %s"}}' "$file" >&3
    exit 1
fi

echo "measuring $file"
lines=$(wc -l <"$path")
words=$(wc -w <"$path")
bytes=$(wc -c <"$path")
sha256=$(sha256sum <"$path" | cut -d ' ' -f 1)
printf '{"file": "%s", "lines": %d, "words": %d, "bytes": %d, "sha256": "%s"}' \
    "$file" "$lines" "$words" "$bytes" "$sha256" >&3

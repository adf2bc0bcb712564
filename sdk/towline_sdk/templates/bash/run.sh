#!/usr/bin/env bash
# Greets somebody. Standard input is JSON, file descriptor 3 takes the result, what is printed is the log. Needs jq.
set -euo pipefail

who=$(jq -r '.config.who')
echo "greeting $who"
if [ "$who" = nobody ]; then
    echo '{"error": {"class": "PERMANENT", "code": "NOBODY_THERE", "message": "there is nobody to greet"}}' >&3
    exit 1
fi
jq -n --arg who "$who" '{greeting: "Hello, \($who)!"}' >&3

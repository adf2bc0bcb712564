#!/usr/bin/env bash
# A line with a frame around it: JSON on standard input, the result on file descriptor 3, the log on standard output.
set -euo pipefail

request=$(cat)
text=$(jq -r '.config.text' <<<"$request")
width=$(jq -r '.config.width // 40' <<<"$request")
echo "${#text} characters, $width wide at most"
if ((${#text} > width)); then
    jq -n --arg width "$width" \
        '{error: {class: "PERMANENT", code: "TOO_LONG", message: "the text is wider than \($width)"}}' >&3
    exit 1
fi
rule="+$(printf '%*s' $((${#text} + 2)) '' | tr ' ' -)+"
jq -n --arg rule "$rule" --arg line "| $text |" '{lines: [$rule, $line, $rule]}' >&3

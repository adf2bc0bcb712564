#!/usr/bin/env node
// A text as a part of an address: JSON on standard input, the result on file descriptor 3, the log on standard output.
import { readFileSync, writeFileSync } from "node:fs";

const { config } = JSON.parse(readFileSync(0, "utf8"));
const plain = config.text.normalize("NFKD").replace(/\p{M}/gu, "").replaceAll("ß", "ss").toLowerCase();
const slug = plain.split(/[^a-z0-9]+/).filter(Boolean).join("-");
console.log(`${config.text} -> ${slug}`);
if (slug) {
  writeFileSync(3, JSON.stringify({ slug }));
} else {
  const error = { class: "PERMANENT", code: "NOTHING_LEFT", message: "the text has no letter and no digit" };
  writeFileSync(3, JSON.stringify({ error }));
  process.exitCode = 1;
}

#!/usr/bin/env node
// Greets somebody. Standard input is JSON, file descriptor 3 takes the result, what is printed is the log.
import { readFileSync, writeFileSync } from "node:fs";

const { config } = JSON.parse(readFileSync(0, "utf8"));
console.log(`greeting ${config.who}`);
if (config.who === "nobody") {
  const error = { class: "PERMANENT", code: "NOBODY_THERE", message: "there is nobody to greet" };
  writeFileSync(3, JSON.stringify({ error }));
  process.exitCode = 1;
} else {
  writeFileSync(3, JSON.stringify({ greeting: `Hello, ${config.who}!` }));
}

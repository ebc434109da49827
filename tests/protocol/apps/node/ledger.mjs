/** What a node app did to the outside world: one JSON line per effect in SHOP_LOG, on the disk before the step ends. */
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { dirname } from "node:path";

const LOG = process.env.SHOP_LOG ?? ".stepwell/shop/effects.jsonl";

export function record(key, step, outcome = "done", details = {}) {
  mkdirSync(dirname(LOG), { recursive: true });
  const line = { time: new Date().toISOString(), order_id: key, step, outcome, ...details };
  const file = openSync(LOG, "a", 0o600);
  try {
    writeSync(file, `${JSON.stringify(line)}\n`);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

export function effects(key) {
  let text = "";
  try {
    text = readFileSync(LOG, "utf8");
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  const found = [];
  for (const line of text.split("\n")) {
    try {
      const entry = JSON.parse(line);
      if (entry.order_id === key) found.push(entry);
    } catch {
      // The last line is empty, or was cut off by a power failure.
    }
  }
  return found;
}

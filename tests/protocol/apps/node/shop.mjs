/**
 * The sample shop's order function, written with the npm package `inngest` on plain node http.
 *
 * Started by the protocol tests as a process: `node shop.mjs`. Reads PORT, SHOP_LOG and the SDK's own INNGEST_* variables.
 * Its ledger and bank follow examples/shop: one JSON line per side effect, each on the disk before the step ends; two
 * refusals per order, counted from those lines, so that killing the process does not make the bank forget.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { createServer } from "node:http";
import { dirname } from "node:path";
import { Inngest, NonRetriableError, RetryAfterError } from "inngest";
import { serve } from "inngest/node";

const LOG = process.env.SHOP_LOG ?? ".stepwell/shop/effects.jsonl";
const REFUSALS = 2;
const RETRY_AFTER_S = 2;

function record(orderId, step, outcome = "done", details = {}) {
  mkdirSync(dirname(LOG), { recursive: true });
  const line = { time: new Date().toISOString(), order_id: orderId, step, outcome, ...details };
  const file = openSync(LOG, "a", 0o600);
  try {
    writeSync(file, `${JSON.stringify(line)}\n`);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function charges(orderId) {
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
      if (entry.order_id === orderId && entry.step === "charge-payment") found.push(entry);
    } catch {
      // The last line is empty, or was cut off by a power failure.
    }
  }
  return found;
}

function charge(orderId, cents, attempt) {
  const before = charges(orderId);
  const chargeId = `ch_${orderId}`;
  if (before.some((entry) => entry.outcome === "done")) {
    record(orderId, "charge-payment", "repeated", { attempt, charge_id: chargeId });
  } else if (before.length < REFUSALS) {
    record(orderId, "charge-payment", "refused", { attempt });
    throw new RetryAfterError(`The bank is busy, try again in ${RETRY_AFTER_S} seconds`, `${RETRY_AFTER_S}s`);
  } else {
    record(orderId, "charge-payment", "done", { attempt, charge_id: chargeId, cents });
  }
  return chargeId;
}

const client = new Inngest({ id: "shop-node" });

const fulfilOrder = client.createFunction(
  { id: "fulfil-order", name: "Fulfil an order", triggers: [{ event: "shop/order.placed" }] },
  async ({ event, step, attempt }) => {
    const { order_id: orderId, cents, items, email } = event.data;

    const reserved = await step.run("reserve-stock", () => {
      record(orderId, "reserve-stock");
      return { reservation: `res_${orderId}`, items: items.length };
    });
    const [fraud, tax] = await Promise.all([
      step.run("check-fraud", () => {
        record(orderId, "check-fraud");
        return { risk: cents >= 1_000_000 ? "high" : "low" };
      }),
      step.run("price-tax", () => {
        record(orderId, "price-tax");
        return Math.floor((cents * 20) / 100);
      }),
    ]);
    if (fraud.risk === "high") throw new NonRetriableError(`Order ${orderId} looks like fraud.`);
    const chargeId = await step.run("charge-payment", () => charge(orderId, cents + tax, attempt));
    await step.sleep("wait-before-packing", "2s");
    const tracking = await step.run("pack-order", () => {
      record(orderId, "pack-order");
      return `trk_${orderId}`;
    });
    const confirmation = await step.run("send-confirmation", () => {
      record(orderId, "send-confirmation");
      return `sent to ${email}`;
    });
    return {
      order_id: orderId,
      reservation: reserved.reservation,
      cents: cents + tax,
      charge_id: chargeId,
      tracking,
      confirmation,
    };
  },
);

const handler = serve({ client, functions: [fulfilOrder] });

async function place(request, response) {
  let text = "";
  for await (const chunk of request) text += chunk;
  const order = JSON.parse(text);
  const { ids } = await client.send({ name: "shop/order.placed", id: order.order_id, data: order });
  response.writeHead(202, { "content-type": "application/json" });
  response.end(JSON.stringify({ order_id: order.order_id, event_id: ids[0] }));
}

createServer((request, response) => {
  if (request.method === "POST" && request.url === "/orders") {
    place(request, response).catch((error) => {
      response.writeHead(502, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: String(error) }));
    });
  } else {
    handler(request, response);
  }
}).listen(Number(process.env.PORT), "127.0.0.1");

// The shop of shop_flask.py for Node: an order is charged and packed, and fails for want of an address.
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";
import { Inngest } from "inngest";
import { serve } from "inngest/node";

const COURIER = "";

const inngest = new Inngest({ id: "my-app" });

const note = (step) => appendFileSync(new URL("ledger.txt", import.meta.url), `${step}\n`);

const order = inngest.createFunction(
  { id: "order", retries: 0, triggers: [{ event: "shop/order" }] },
  async ({ step }) => {
    await step.run("charge-card", () => note("charge-card"));
    await step.run("pack", () => note("pack"));
    const to = await step.run("ship", () => {
      note("ship");
      if (!COURIER) throw new Error("The courier has no address");
      return COURIER;
    });
    return { to };
  },
);

const nap = inngest.createFunction(
  { id: "nap", triggers: [{ event: "shop/nap" }] },
  async ({ step }) => {
    await step.run("lie-down", () => note("lie-down"));
    await step.sleep("sleep", "1h");
    await step.run("get-up", () => note("get-up"));
  },
);

createServer(serve({ client: inngest, functions: [order, nap] })).listen(3000);

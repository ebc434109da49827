/**
 * The functions of the cases, written with the npm package `inngest`; twins of those in own_cases.py.
 *
 * Reads PORT, SHOP_LOG and the SDK's own INNGEST_* variables. The ledger's order_id is the key of the event's data.
 */
import { Inngest } from "inngest";
import { serve } from "inngest/node";
import { listen } from "./door.mjs";
import { record } from "./ledger.mjs";

const client = new Inngest({ id: "cases-node" });

function noted(key, what) {
  record(key, what);
  return what;
}

/** Sleeps an hour between two steps. */
const sleeper = client.createFunction(
  { id: "sleeper", triggers: [{ event: "case/sleeper" }] },
  async ({ event, step }) => {
    const { key } = event.data;
    const first = await step.run("before", () => noted(key, "before"));
    await step.sleep("an-hour", "1h");
    await step.run("after", () => noted(key, "after"));
    return first;
  },
);

async function send({ name, data }) {
  const { ids } = await client.send({ name, data });
  return { event_id: ids[0] };
}

listen("/send", send, serve({ client, functions: [sleeper] }));

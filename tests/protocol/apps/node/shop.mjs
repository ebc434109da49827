/**
 * The sample shop's order function, written with the npm package `inngest` on plain node http.
 *
 * Started by the protocol tests as a process: `node shop.mjs`. Reads PORT, SHOP_LOG and the SDK's own INNGEST_* variables.
 * Its ledger and bank follow examples/shop: one JSON line per side effect, each on the disk before the step ends; two
 * refusals per order, counted from those lines, so that killing the process does not make the bank forget.
 */
import { Inngest, NonRetriableError, RetryAfterError } from "inngest";
import { serve } from "inngest/node";
import { listen } from "./door.mjs";
import { effects, record } from "./ledger.mjs";

const REFUSALS = 2;
const RETRY_AFTER_S = 2;

function charge(orderId, cents, attempt) {
  const before = effects(orderId).filter((entry) => entry.step === "charge-payment");
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

async function place(order) {
  const { ids } = await client.send({ name: "shop/order.placed", id: order.order_id, data: order });
  return { order_id: order.order_id, event_id: ids[0] };
}

listen("/orders", place, serve({ client, functions: [fulfilOrder] }));

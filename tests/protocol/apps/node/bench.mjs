/**
 * The bench's function with ten checkpointed steps, written with the npm package as its users write it: no settings.
 *
 * Reads PORT and the SDK's own INNGEST_* variables. Answers what bench/app.py answers at /bench/, as far as the bench asks
 * it of this app. Times are nanoseconds of the system's monotonic clock, which all processes of one machine share; of
 * a run they are [the function began, step 1 ended, step 2 began, step 2 ended, …, the function returns].
 */
import { createServer } from "node:http";
import { Inngest } from "inngest";
import { serve } from "inngest/node";

const STEPS = 10;
const FN = "npm-cp10";
const client = new Inngest({ id: "bench-npm", logger: silent() });
let runs, counts, waiters = [];

function reset() {
  runs = new Map();
  counts = { [FN]: { calls: 0, steps: 0, done: 0 } };
}
reset();

const now = () => Number(process.hrtime.bigint());

const tenSteps = client.createFunction({ id: FN, triggers: [{ event: `bench/${FN}` }] }, async ({ event, step, runId }) => {
  const entered = now();
  const run = runs.get(runId) ?? { tag: event.data.tag, fn: FN, times: [entered], ends: 0 };
  runs.set(runId, run);
  for (let n = 0; n < STEPS; n += 1) {
    await step.run(`s${n}`, () => {
      if (n > 0) run.times.push(now());
      counts[FN].steps += 1;
      run.times.push(now());
      return { n, ok: true };
    });
  }
  run.ends += 1;
  run.times.push(now());
  if (run.ends === 1) {
    counts[FN].done += 1;
    tellWaiters();
  }
  return { done: true };
});

function tellWaiters() {
  const told = waiters.filter(({ done }) => counts[FN].done >= done);
  waiters = waiters.filter((waiter) => !told.includes(waiter));
  for (const { response } of told) reply(response, counts);
}

function control(what, query, response) {
  if (what === "wait") {
    const waiter = { done: Number(query.get("done")), response };
    waiters.push(waiter);
    response.on("close", () => { waiters = waiters.filter((other) => other !== waiter); });
    tellWaiters();
    return;
  }
  if (what === "reset") reset();
  reply(response, what === "report" ? [...runs.values()] : counts);
}

function reply(response, value) {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

function silent() {
  const nothing = () => {};
  return { debug: nothing, info: nothing, warn: nothing, error: console.error };
}

const handler = serve({ client, functions: [tenSteps] });
createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://app");
  if (pathname.startsWith("/bench/")) {
    control(pathname.slice("/bench/".length), searchParams, response);
    return;
  }
  if (request.method === "POST") counts[FN].calls += 1;
  handler(request, response);
}).listen(Number(process.env.PORT), "127.0.0.1", () => console.log("listening"));

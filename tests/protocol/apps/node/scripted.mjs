/**
 * The matrix's app for the npm package `inngest`, whichever line of it: the programs beside it hand it in.
 *
 * Reads SCRIPTED (the catalogue's path), SCRIPTED_LEDGER, SCRIPTED_APP (the app's id), SCRIPTED_CHECKPOINTING and PORT.
 */
import { existsSync, openSync, readFileSync, writeSync } from "node:fs";
import { createServer } from "node:http";

const APP_ID = process.env.SCRIPTED_APP;
const LEDGER = openSync(process.env.SCRIPTED_LEDGER, "a", 0o600);
const FUNCTIONS = JSON.parse(readFileSync(process.env.SCRIPTED, "utf8"));
/** Between two looks of a step that is held. */
const LOOK_MS = 50;
const tried = new Map();
const pause = (ms) => new Promise((wake) => setTimeout(wake, ms));
let order = 0;

class Frame {
  constructor(functionId, ctx) {
    Object.assign(this, { functionId, ctx, kept: {} });
  }

  get key() {
    const data = this.ctx.event.data ?? {};
    return String((data.key === undefined ? data.event?.data?.key : data.key) ?? this.functionId);
  }

  record(what, at, value = null) {
    const line = { key: this.key, function: this.functionId, what, at, value, attempt: this.ctx.attempt };
    writeSync(LEDGER, `${JSON.stringify({ ...line, run: this.ctx.runId, ms: Date.now(), order: order++ })}\n`);
  }

  resolve(value) {
    if (Array.isArray(value)) return value.map((item) => this.resolve(item));
    if (value === null || typeof value !== "object") return value;
    if ("$var" in value) return this.kept[value.$var];
    if ("$event" in value) {
      const parts = value.$event === "" ? [] : value.$event.split(".");
      return parts.reduce((found, part) => found?.[part], this.ctx.event);
    }
    if ("$events" in value) return this.ctx.events.map((event) => event.data[value.$events]);
    if ("$run_id" in value) return this.ctx.runId;
    if ("$length" in value) return this.kept[value.$length].length;
    if ("$null" in value) return null;
    if ("$js" in value) return ONLY_HERE[value.$js]();
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, this.resolve(item)]));
  }
}

/** Values that only JavaScript has. */
const ONLY_HERE = {
  undefined: () => undefined,
  date: () => new Date(Date.UTC(2026, 1, 3, 4, 5, 6, 789)),
  "negative zero": () => -0,
  nan: () => NaN,
  map: () => new Map([["a", 1]]),
};

/** `lib` is the package, `dialect` how its line writes what they write differently. */
export function start(lib, serve, dialect) {
  function mayFail(frame, what, fails) {
    if (!fails) return;
    const id = `${frame.ctx.runId} ${what}`;
    tried.set(id, (tried.get(id) ?? 0) + 1);
    if (tried.get(id) > fails.times) return;
    if (fails.kind === "non_retriable") throw new lib.NonRetriableError(fails.message);
    if (fails.kind === "retry_after") throw new lib.RetryAfterError(fails.message, `${fails.after_s}s`);
    throw new Error(fails.message);
  }

  async function execute(script, frame) {
    let last = null;
    for (const op of script) {
      if (op.op === "give") return frame.resolve(op.value ?? null);
      last = await one(op, frame);
      frame.kept[op.keep ?? op.id ?? ""] = last;
    }
    return last;
  }

  async function one(op, frame) {
    const { step, logger } = frame.ctx;
    switch (op.op) {
      case "run":
        return step.run(op.id, async () => {
          frame.record(op.id, "step");
          mayFail(frame, op.id, op.fails);
          if (op.takes_ms) await pause(op.takes_ms);
          const file = op.until && frame.resolve(op.until);
          while (file && !existsSync(file)) await pause(LOOK_MS);
          if (op.takes_ms || op.until) frame.record(op.id, "end");
          return op.size === undefined ? frame.resolve(op.gives) : "x".repeat(op.size);
        });
      case "sleep":
        return step.sleep(op.id, op.ms);
      case "sleep_until":
        return step.sleepUntil(op.id, new Date(Date.now() + op.ms));
      case "wait": {
        const how = op.if ? { if: op.if } : op.match ? { match: op.match } : {};
        const found = await step.waitForEvent(op.id, { event: op.event, timeout: op.ms, ...how });
        return found === null ? null : found.data;
      }
      case "wait_signal":
        return step.waitForSignal(op.id, { signal: frame.resolve(op.signal), timeout: op.ms, onConflict: op.conflict });
      case "send_signal":
        return step.sendSignal(op.id, { signal: frame.resolve(op.signal), data: frame.resolve(op.value) });
      case "invoke": {
        const target = lib.referenceFunction({ appId: op.app, functionId: op.function });
        const options = { function: target, data: frame.resolve(op.value) };
        return step.invoke(op.id, op.ms === undefined ? options : { ...options, timeout: op.ms });
      }
      case "send":
        return (await step.sendEvent(op.id, frame.resolve(op.events))).ids;
      case "fetch": {
        const options = op.body === undefined ? {} : { method: "POST", body: JSON.stringify(op.body) };
        const answer = await step.fetch(op.url, options);
        return { status: answer.status, body: await answer.json() };
      }
      case "infer": {
        const { model, ...body } = op.body;
        const options = { model, apiKey: "secret", baseUrl: op.url };
        const defaultParameters = op.provider === "anthropic" ? { defaultParameters: { max_tokens: 10 } } : {};
        return step.ai.infer(op.id, { model: step.ai.models[op.provider]({ ...options, ...defaultParameters }), body });
      }
      case "wrap":
        return step.ai.wrap(op.id, async (value) => value, frame.resolve(op.value));
      case "parallel": {
        const branches = () => op.branches.map((branch) => execute(branch, frame));
        if (op.mode === "race") return dialect.race(frame.ctx, branches);
        if (op.mode === "wait") return Promise.all(branches());
        const settled = await Promise.allSettled(branches());
        return settled.map((end) => (end.status === "fulfilled" ? end.value : { error: end.reason.message }));
      }
      case "attempt":
        try {
          await execute(op.script, frame);
        } catch (error) {
          return { name: error.name, message: error.message };
        }
        return null;
      case "note":
        return frame.record(op.what, "note", frame.resolve(op.value ?? null));
      case "throw":
        return mayFail(frame, "", op.fails);
      case "log":
        return logger.info(op.message);
      case "defer":
        return void frame.ctx.defer(op.id, { function: deferred[op.function], data: frame.resolve(op.value) });
      default:
        throw new Error(`no operation ${op.op}`);
    }
  }

  function options({ id, options: given, on_failure: onFailure }) {
    const written = { id };
    const seconds = (value) => (value === undefined ? {} : { timeout: `${value}s` });
    for (const [name, value] of Object.entries(given)) {
      const { period_s: period, timeout_s: timeout, max: maxSize, ...rest } = value;
      if (name === "cancel") {
        written.cancelOn = value.map(({ timeout_s: after, ...one }) => ({ ...one, ...seconds(after) }));
      } else if (name === "priority") written.priority = { run: value };
      else if (name === "batch") written.batchEvents = { maxSize, timeout: `${timeout}s`, ...rest };
      else if (name === "timeouts") {
        written.timeouts = {};
        if (value.start_s !== undefined) written.timeouts.start = `${value.start_s}s`;
        if (value.finish_s !== undefined) written.timeouts.finish = `${value.finish_s}s`;
      } else if (name === "rate_limit") written.rateLimit = { ...rest, period: `${period}s` };
      else if (name === "throttle" || name === "debounce") written[name] = { ...rest, period: `${period}s` };
      else if (name === "max_runtime_ms") Object.assign(written, dialect.maxRuntime(value));
      else written[name] = value;
    }
    if (onFailure) written.onFailure = (ctx) => execute(onFailure, new Frame(id, ctx));
    return written;
  }

  const settings = process.env.SCRIPTED_CHECKPOINTING === "off" ? { checkpointing: false } : {};
  const clients = {
    function: new lib.Inngest({ id: APP_ID, ...settings }),
    streaming: new lib.Inngest({ id: `${APP_ID}-streaming`, ...settings }),
  };
  const deferred = {};
  for (const one of FUNCTIONS.filter(({ kind }) => kind === "deferred")) {
    deferred[one.id] = lib.createDefer(clients.function, { id: one.id }, (ctx) => execute(one.script, new Frame(one.id, ctx)));
  }
  const declared = (kind) =>
    FUNCTIONS.filter((one) => one.kind === kind).map((one) =>
      dialect.declare(clients[kind], options(one), one.triggers, (ctx) => execute(one.script, new Frame(one.id, ctx))),
    );
  const doors = {
    "/api/inngest": serve({ client: clients.function, functions: [...declared("function"), ...Object.values(deferred)] }),
    "/api/streaming": serve({ client: clients.streaming, functions: declared("streaming"), streaming: dialect.streaming }),
  };
  const atTheDoor = new Map(FUNCTIONS.filter(({ door }) => door).map(({ id, door }) => [`${APP_ID}-${id}`, { ...door }]));

  async function send(request, response) {
    let text = "";
    for await (const chunk of request) text += chunk;
    const { ids } = await clients.function.send(JSON.parse(text));
    response.writeHead(202, { "content-type": "application/json" }).end(JSON.stringify({ ids }));
  }

  createServer((request, response) => {
    const url = new URL(request.url, "http://app");
    const own = atTheDoor.get(url.searchParams.get("fnId"));
    if (own && own.times-- > 0) response.writeHead(own.status).end("not now");
    else if (url.pathname in doors) doors[url.pathname](request, response);
    else if (url.pathname === "/send") {
      send(request, response).catch((error) => response.writeHead(502).end(String(error)));
    } else response.writeHead(404).end();
  }).listen(Number(process.env.PORT), "127.0.0.1");
}

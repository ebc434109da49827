/** The matrix's app with version 4 of the package. */
import * as lib from "inngest";
import * as experimental from "inngest/experimental";
import { serve } from "inngest/node";
import { start } from "./scripted.mjs";

start({ ...experimental, ...lib }, serve, {
  declare: (client, options, triggers, handler) => client.createFunction({ ...options, triggers }, handler),
  maxRuntime: (ms) => ({ checkpointing: { maxRuntime: ms } }),
  race: (ctx, branches) => ctx.group.parallel(async () => Promise.race(branches())),
  streaming: true,
});

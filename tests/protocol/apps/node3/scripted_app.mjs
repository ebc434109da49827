/** The matrix's app with version 3 of the package. */
import * as lib from "inngest";
import { serve } from "inngest/node";
import { start } from "../node/scripted.mjs";

start(lib, serve, {
  declare: (client, options, triggers, handler) => client.createFunction(options, triggers, handler),
  race: (_ctx, branches) => Promise.race(branches()),
  streaming: "force",
});

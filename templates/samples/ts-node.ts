import { createServer } from "node:http";
import { Inngest } from "inngest";
import { serve } from "inngest/node";

const inngest = new Inngest({ id: "my-app" });

const hello = inngest.createFunction(
  { id: "hello", triggers: [{ event: "demo/hello" }] },
  async ({ event, step }) => {
    const greeting = await step.run("greet", () => `Hello, ${event.data.name ?? "world"}!`);
    await step.sleep("wait-a-moment", "1s");
    return { greeting };
  },
);

createServer(serve({ client: inngest, functions: [hello] })).listen(3000);

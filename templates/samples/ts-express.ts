import express from "express";
import { Inngest } from "inngest";
import { serve } from "inngest/express";

const inngest = new Inngest({ id: "my-app" });

const hello = inngest.createFunction(
  { id: "hello", triggers: [{ event: "demo/hello" }] },
  async ({ event, step }) => {
    const greeting = await step.run("greet", () => `Hello, ${event.data.name ?? "world"}!`);
    await step.sleep("wait-a-moment", "1s");
    return { greeting };
  },
);

const app = express();
app.use(express.json({ limit: "5mb" }));
app.use("/api/inngest", serve({ client: inngest, functions: [hello] }));
app.listen(3000);

// app/api/inngest/route.ts
import { Inngest } from "inngest";
import { serve } from "inngest/next";

const inngest = new Inngest({ id: "my-app" });

const hello = inngest.createFunction(
  { id: "hello", triggers: [{ event: "demo/hello" }] },
  async ({ event, step }) => {
    const greeting = await step.run("greet", () => `Hello, ${event.data.name ?? "world"}!`);
    await step.sleep("wait-a-moment", "1s");
    return { greeting };
  },
);

export const { GET, POST, PUT } = serve({ client: inngest, functions: [hello] });

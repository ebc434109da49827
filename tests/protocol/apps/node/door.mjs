/** An app's web side on plain node http: one POST door that sends an event through the SDK, and the SDK's own. */
import { createServer } from "node:http";

/** `send` takes the decoded body and gives what is answered with 202. */
export function listen(path, send, handler) {
  createServer((request, response) => {
    if (new URL(request.url, "http://app").pathname === "/api/inngest") {
      handler(request, response);
      return;
    }
    if (request.method !== "POST" || request.url !== path) {
      response.writeHead(404).end();
      return;
    }
    answer(request, response, send).catch((error) => {
      response.writeHead(502, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: String(error) }));
    });
  }).listen(Number(process.env.PORT), "127.0.0.1");
}

async function answer(request, response, send) {
  let text = "";
  for await (const chunk of request) text += chunk;
  const sent = await send(JSON.parse(text));
  response.writeHead(202, { "content-type": "application/json" });
  response.end(JSON.stringify(sent));
}

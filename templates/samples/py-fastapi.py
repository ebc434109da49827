import datetime

import inngest
import inngest.fast_api
from fastapi import FastAPI

client = inngest.Inngest(app_id="my-app")


@client.create_function(fn_id="hello", trigger=inngest.TriggerEvent(event="demo/hello"))
async def hello(ctx: inngest.Context) -> dict[str, str]:
    async def greet() -> str:
        return f"Hello, {ctx.event.data.get('name', 'world')}!"

    greeting = await ctx.step.run("greet", greet)
    await ctx.step.sleep("wait-a-moment", datetime.timedelta(seconds=1))
    return {"greeting": greeting}


app = FastAPI()
inngest.fast_api.serve(app, client, [hello])

import stepwell

client = stepwell.Client("my-app")


@client.function(id="hello", trigger=stepwell.Event("demo/hello"))
async def hello(ctx: stepwell.Context, step: stepwell.Step) -> dict[str, str]:
    async def greet() -> str:
        return f"Hello, {ctx.event.data.get('name', 'world')}!"

    greeting = await step.run("greet", greet)
    await step.sleep("wait-a-moment", "1s")
    return {"greeting": greeting}


app = stepwell.serve.asgi(client)

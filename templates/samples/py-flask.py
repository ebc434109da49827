import datetime

import inngest
import inngest.flask
from flask import Flask

client = inngest.Inngest(app_id="my-app")


@client.create_function(fn_id="hello", trigger=inngest.TriggerEvent(event="demo/hello"))
def hello(ctx: inngest.ContextSync) -> dict[str, str]:
    def greet() -> str:
        return f"Hello, {ctx.event.data.get('name', 'world')}!"

    greeting = ctx.step.run("greet", greet)
    ctx.step.sleep("wait-a-moment", datetime.timedelta(seconds=1))
    return {"greeting": greeting}


app = Flask(__name__)
inngest.flask.serve(app, client, [hello])

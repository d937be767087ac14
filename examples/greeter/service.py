"""The greeter as a NATS micro service: pip install nats-py, then python3 service.py [NATS_URL]."""

import asyncio
import json
import sys

import nats
import nats.micro


async def main():
    client = await nats.connect(sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222")
    service = await nats.micro.add_service(client, name="greeter", version="1.0.0")

    async def say_hello(request):
        name = json.loads(request.data)["name"]
        if not name:
            return await request.respond_error(code="400", description="name: must not be empty")
        await request.respond(json.dumps({"text": f"hello {name}"}).encode())

    await service.add_endpoint(name="say_hello", subject="say_hello", queue_group="greeter", handler=say_hello)
    print("greeter: answers on say_hello", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())

"""The greeter as a NATS micro service: pip install nats-py, then python3 service.py [NATS_URL,...].

A user and its password are in NATS_USER and NATS_PASSWORD: servers that the client discovers get them too."""

import asyncio
import json
import os
import sys

import nats
import nats.micro


async def main():
    servers = sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222"
    user, password = os.environ.get("NATS_USER"), os.environ.get("NATS_PASSWORD")
    client = await nats.connect(servers.split(","), user=user, password=password, max_reconnect_attempts=-1)
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

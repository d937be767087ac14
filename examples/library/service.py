"""The library as a NATS micro service: pip install nats-py, then python3 service.py [NATS_URL,...].

It makes the stream LIBRARY, learns its books from there, and answers JSON. It knows of no gateway."""

import asyncio
import json
import sys

import nats
import nats.micro
from nats.js.api import StreamConfig


async def main():
    servers = sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222"
    client = await nats.connect(servers.split(","), max_reconnect_attempts=-1)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(name="LIBRARY", subjects=["library.added.*"]))
    books = {}

    async def added(message):
        book = json.loads(message.data)
        books[book["isbn"]] = {name: book[name] for name in ("isbn", "title", "shelf")}

    await stream.subscribe("library.added.*", cb=added, ordered_consumer=True)

    async def get_book(request):
        isbn = json.loads(request.data)["isbn"]
        if isbn not in books:
            return await request.respond_error(code="404", description=f"there is no book {isbn}")
        await request.respond(json.dumps(books[isbn]).encode())

    async def search_books(request):
        word = json.loads(request.data)["word"].lower()
        for book in [book for book in books.values() if word in book["title"].lower()]:
            await request.respond(json.dumps(book).encode())
        # An empty message without headers: the end.
        await request.respond(b"")

    async def lent(message):
        print("library:", message.data.decode(), flush=True)

    service = await nats.micro.add_service(client, name="library", version="1.0.0")
    for name, subject, handler in (
        ("get", "library.books.*.get", get_book),
        ("search", "library.search", search_books),
    ):
        await service.add_endpoint(name=name, subject=subject, queue_group="library", handler=handler)
    await client.subscribe("library.lent", cb=lent)
    await client.flush()
    print("library: answers on library.books.*.get and library.search", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())

"""Starts NATS, a worker and a gateway that reaches NATS through a proxy. The proxy passes orders and drops their
acknowledgements until the gateway has told its callers that the outcome is unknown. The callers' library has the
retry policy of docs/errors.md. Without a request_id it must not retry. With one it may, and a retry finds the order.
In the end no call has two orders. Usage: retries.py FOLDER-OF-BINARIES NATS-SERVER"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from waiting import free_port, listens, within

FOLDER, NATS = sys.argv[1:3]
PATIENCE, CALLERS = 90, 8
ORDERS, STOCK = "orders.v1.OrderService", "inventory.v1.InventoryService"
CREATED = b"PUB orders.event.order_created."
POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"],
}


def until(what, holds):
    within(PATIENCE, what, holds)


class Proxy:
    """A proxy. While it is `deaf`, data from the server after the first new order is dropped."""

    def __init__(self, target):
        self.target, self.deaf, self.lost = target, False, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.links = self.listener.getsockname()[1], []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(("127.0.0.1", self.target))
            self.links.append((near, far))
            for ends in ((near, far, True), (far, near, False)):
                threading.Thread(target=self.carry, args=ends, daemon=True).start()

    def carry(self, source, sink, up):
        seen = b""
        try:
            while chunk := source.recv(1 << 16):
                if up and self.deaf:
                    seen = seen[-64:] + chunk
                    self.lost |= CREATED in seen
                if up or not self.lost:
                    sink.sendall(chunk)
        except OSError:
            pass
        for end in (source, sink):
            end.close()

    def hear(self):
        """Breaks every connection; new ones pass everything."""
        self.deaf = self.lost = False
        links, self.links = self.links, []
        for near, far in links:
            for end in (near, far):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


def start(name, **variables):
    log = open(f"{work}/{name}.log", "ab")
    command = [name] if os.path.isabs(name) else [f"{FOLDER}/{name}"]
    child = subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log)
    everything.append(child)


def healthy(port, service):
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            return health_pb2_grpc.HealthStub(channel).Check(request, timeout=2).status == 1
        except grpc.RpcError:
            return False


class Client:
    """A client whose library retries by the policy; its types come from reflection."""

    def __init__(self, port):
        config = {"methodConfig": [{"name": [{"service": ORDERS}, {"service": STOCK}], "retryPolicy": POLICY}]}
        options = [("grpc.service_config", json.dumps(config)), ("grpc.enable_retries", 1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.services = {name: pool.FindServiceByName(name) for name in (ORDERS, STOCK)}

    def method(self, service, name):
        rpc = self.services[service].methods_by_name[name]
        request, reply = GetMessageClass(rpc.input_type), GetMessageClass(rpc.output_type)
        return request, self.channel.unary_unary(
            f"/{service}/{name}", request.SerializeToString, reply.FromString
        )

    def orders(self, customer):
        request, call = self.method(ORDERS, "ListOrders")
        return [order.order_id for order in call(request(customer_id=customer, page_size=100)).orders]


def outcome(call, request):
    try:
        return "OK", call(request).order.order_id
    except grpc.RpcError as error:
        pushback = dict(error.trailing_metadata()).get("grpc-retry-pushback-ms")
        return f"{error.code().name} {pushback}", error.details()


def lose(client, proxy, named):
    """Each caller places one order while acknowledgements are lost. Prints how the calls ended."""
    request, call = client.method(ORDERS, "CreateOrder")
    item = {"product_id": "lamp", "quantity": 1}
    kind = "named" if named else "nameless"
    wishes = [
        request(customer_id=f"{kind}-{n}", items=[item], request_id=str(uuid.uuid4()) if named else "")
        for n in range(CALLERS)
    ]
    proxy.deaf = True
    with ThreadPoolExecutor(CALLERS) as callers:
        begun = time.monotonic()
        calls = [callers.submit(outcome, call, wish) for wish in wishes]
        until("an order is on its way", lambda: proxy.lost)
        # After the gateway's budget of 20 s the library has its answer, and the proxy passes everything again.
        time.sleep(max(0, begun + 20.3 - time.monotonic()))
        proxy.hear()
        ends = [call.result(PATIENCE) for call in calls]
    until("the gateway is back", lambda: healthy(gateway_port, ORDERS))
    placed = [client.orders(wish.customer_id) for wish in wishes]
    codes = sorted(end for end, _ in ends)
    print(f"retries: {kind}: {CALLERS} calls ended {codes}; orders of each {[len(orders) for orders in placed]}", flush=True)
    assert all(len(orders) <= 1 for orders in placed), f"an order was placed twice: {placed}"
    assert sum(map(len, placed)) >= 1, "no order was recorded, so nothing was tested"
    for (end, text), orders, wish in zip(ends, placed, wishes):
        if end == "OK":
            assert orders == [text], (orders, text)
        if named:
            again = call(wish).order.order_id
            assert orders in ([], [again]), (orders, again)
            assert client.orders(wish.customer_id) == [again]
    return codes


def run():
    client, proxy_of_gateway = Client(gateway_port), proxy
    request, call = client.method(STOCK, "AdjustStock")
    call(request(request_id="first", adjustments=[{"product_id": "lamp", "delta": 1_000}]))
    nameless = lose(client, proxy_of_gateway, named=False)
    assert "UNAVAILABLE -1" in nameless, nameless
    named = lose(client, proxy_of_gateway, named=True)
    assert "OK" in named or "UNAVAILABLE 500" in named, named
    assert "UNAVAILABLE -1" not in named, named


with tempfile.TemporaryDirectory() as work:
    nats_port, gateway_port, worker_port = free_port(), free_port(), free_port()
    everything = []
    try:
        server = [NATS, "--addr", "127.0.0.1", "--port", str(nats_port), "--jetstream", "--store_dir", f"{work}/nats"]
        everything.append(subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        until("NATS listens", lambda: listens(nats_port))
        proxy = Proxy(nats_port)
        start("inventory-worker", NATS_URL=f"nats://127.0.0.1:{nats_port}", GW_HEALTH_ADDR=f"127.0.0.1:{worker_port}",
              GW_HTTP_ADDR="127.0.0.1:0")
        start("gateway", NATS_URL=f"nats://127.0.0.1:{proxy.port}", GW_GRPC_ADDR=f"127.0.0.1:{gateway_port}",
              GW_HTTP_ADDR="127.0.0.1:0", GW_THREADS="1")
        until("everything serves", lambda: all(healthy(gateway_port, name) for name in ("", ORDERS, STOCK)))
        run()
        code = 0
    except BaseException:
        code = 1
        traceback.print_exc()
        for name in sorted(os.listdir(work)):
            if name.endswith(".log"):
                print(f"--- {name}\n" + "".join(open(f"{work}/{name}").readlines()[-15:]))
    finally:
        for child in everything:
            if child.poll() is None:
                child.kill()
sys.stdout.flush()
os._exit(code)

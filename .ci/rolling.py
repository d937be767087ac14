"""Starts NATS, three workers and two gateways as processes, and replaces them one after the other by SIGTERM, under load.
Every call has to end with OK or UNAVAILABLE, no watch may miss an order, and every process has to exit with 0 even if
peers are silent. Usage: rolling.py FOLDER-OF-BINARIES NATS-SERVER"""

import os
import signal
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
# Time limits of a drain, and of anything else, in seconds.
DRAIN, PATIENCE = 20, 60
# An attempt of the gateway takes up to 5 s: a call that takes that long lost a request.
LOST = 5
CALLERS, WATCHES = 16, 8
ORDERS, STOCK = "orders.v1.OrderService", "inventory.v1.InventoryService"


def until(what, holds):
    within(PATIENCE, what, holds)


def healthy(port, service):
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            return health_pb2_grpc.HealthStub(channel).Check(request, timeout=2).status == 1
        except grpc.RpcError:
            return False


class Process:
    """A gateway or a worker, and its other ports."""

    def __init__(self, name, port, service, **variables):
        self.name, self.port, self.service = name, port, service
        self.environment = {**os.environ, "NATS_URL": f"nats://127.0.0.1:{nats_port}", "GW_DRAIN_TIMEOUT": str(DRAIN)}
        self.environment.update(variables)
        self.log = open(f"{work}/{name}-{port}.log", "ab")
        self.begin()

    def begin(self):
        self.child = subprocess.Popen([f"{FOLDER}/{self.name}"], env=self.environment, stdout=self.log, stderr=self.log)
        everything.append(self.child)

    def serve(self):
        until(f"{self.name} serves", lambda: self.child.poll() is not None or healthy(self.port, self.service))
        assert self.child.poll() is None, f"{self.name} ended with {self.child.returncode}"

    def end(self):
        """SIGTERM while two peers are silent or send only the preface. Returns how long the exit took."""
        peers = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(2)]
        peers[1].sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        start = time.monotonic()
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(DRAIN + 5)
        assert code == 0, f"{self.name} ended with {code}"
        for peer in peers:
            peer.close()
        return time.monotonic() - start


class Client:
    """A client with the addresses, and types from reflection."""

    def __init__(self, ports):
        first = grpc.insecure_channel(f"127.0.0.1:{ports[0]}")
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(first))
        # Resolved here, as the descriptor pool is not thread-safe.
        self.services = {name: pool.FindServiceByName(name) for name in (ORDERS, STOCK)}
        self.target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        self.codes, self.longest, self.lock = {}, 0.0, threading.Lock()

    def channel(self):
        # Reconnect soon, as the process is only being replaced.
        backoff = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
        own = [("grpc.lb_policy_name", "round_robin"), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        # The library would send the list of addresses as the authority, which is invalid in HTTP/2.
        return grpc.insecure_channel(self.target, own + backoff + [("grpc.default_authority", "gateway")])

    def method(self, channel, service, name):
        rpc = self.services[service].methods_by_name[name]
        request, reply = GetMessageClass(rpc.input_type), GetMessageClass(rpc.output_type)
        make = channel.unary_stream if rpc.server_streaming else channel.unary_unary
        return request, make(f"/{service}/{name}", request.SerializeToString, reply.FromString)

    def repeat(self, call, request):
        """Calls until it succeeds. Retries only UNAVAILABLE."""
        limit = time.monotonic() + PATIENCE
        while True:
            start = time.monotonic()
            try:
                reply, code = call(request, timeout=PATIENCE), "OK"
            except grpc.RpcError as error:
                reply, code = None, f"{error.code().name}: {error.details()}"
            with self.lock:
                self.codes[code] = self.codes.get(code, 0) + 1
                self.longest = max(self.longest, time.monotonic() - start)
            if reply is not None:
                return reply
            assert code.startswith("UNAVAILABLE") and time.monotonic() < limit, code
            time.sleep(0.02)


class Load:
    """Places, reads and watches orders until told to stop."""

    def __init__(self, client):
        self.client, self.done = client, 0
        self.stop, self.all_placed = threading.Event(), threading.Event()
        self.placed, self.lock = set(), threading.Lock()
        self.seen, self.ends = [[] for _ in range(WATCHES)], {}
        self.workers = ThreadPoolExecutor(CALLERS + WATCHES)
        self.watched = [self.workers.submit(self.watch, seen) for seen in self.seen]
        self.calls = []
        until("watches have begun", lambda: self.failed() or all(self.seen))
        self.calls = [self.workers.submit(self.buy if number % 2 else self.look) for number in range(CALLERS)]

    def buy(self):
        request, call = self.client.method(self.client.channel(), ORDERS, "CreateOrder")
        while not self.stop.is_set():
            item = {"product_id": "lamp", "quantity": 1}
            wish = request(request_id=str(uuid.uuid4()), customer_id="ann", items=[item])
            order = self.client.repeat(call, wish).order.order_id
            with self.lock:
                assert order not in self.placed
                self.placed.add(order)
                self.done += 1

    def look(self):
        request, call = self.client.method(self.client.channel(), STOCK, "GetStock")
        while not self.stop.is_set():
            self.client.repeat(call, request(product_id="lamp"))
            with self.lock:
                self.done += 1

    def watch(self, seen):
        """Receives every order, over as many watches as it takes."""
        request, call = self.client.method(self.client.channel(), ORDERS, "WatchOrders")
        token = ""
        complete = lambda: self.all_placed.is_set() and self.placed <= set(seen)
        while not complete():
            stream = call(request(resume_token=token))
            try:
                for event in stream:
                    token = event.resume_token or token
                    seen.append(event.order.order_id)
                    if complete():
                        stream.cancel()
                        break
            except grpc.RpcError as error:
                with self.lock:
                    self.ends[error.code().name] = self.ends.get(error.code().name, 0) + 1
                assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                time.sleep(0.02)

    def goes_on(self, more=300):
        goal = self.done + more
        until("calls go on", lambda: self.failed() or self.done >= goal)

    def failed(self):
        for task in self.calls + self.watched:
            if task.done():
                task.result()

    def end(self):
        self.stop.set()
        for task in self.calls:
            task.result(PATIENCE)
        # One more order, so that watches wake up after the flag to stop was set.
        request, call = self.client.method(self.client.channel(), ORDERS, "CreateOrder")
        item = {"product_id": "lamp", "quantity": 1}
        wish = request(request_id=str(uuid.uuid4()), customer_id="ann", items=[item])
        self.all_placed.set()
        self.placed.add("to come")
        order = self.client.repeat(call, wish).order.order_id
        self.placed.add(order)
        self.placed.remove("to come")
        for task in self.watched:
            task.result(PATIENCE)
        for seen in self.seen:
            orders = [order for order in seen if order]
            assert sorted(orders) == sorted(self.placed), (len(orders), len(set(orders)), len(self.placed))


def start_nats():
    command = [NATS, "--addr", "127.0.0.1", "--port", str(nats_port), "--jetstream", "--store_dir", f"{work}/nats"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    everything.append(child)
    return child


def gateway():
    port = free_port()
    return Process("gateway", port, ORDERS, GW_GRPC_ADDR=f"127.0.0.1:{port}", GW_HTTP_ADDR=f"127.0.0.1:{free_port()}")


def worker():
    port = free_port()
    return Process("inventory-worker", port, "", GW_HEALTH_ADDR=f"127.0.0.1:{port}", GW_HTTP_ADDR="127.0.0.1:0")


def rolling(workers, gateways):
    client = Client([one.port for one in gateways])
    request, call = client.method(client.channel(), STOCK, "AdjustStock")
    client.repeat(call, request(request_id="first", adjustments=[{"product_id": "lamp", "delta": 1_000_000}]))
    load = Load(client)
    for name, crew in [("workers", workers), ("gateways", gateways)]:
        times = []
        for one in crew:
            load.goes_on()
            times.append(one.end())
            load.goes_on()
            one.begin()
            one.serve()
        load.goes_on()
        print(f"rolling: {name} replaced, each exited within {', '.join(f'{time:.1f} s' for time in times)}", flush=True)
    load.end()
    print(f"rolling: {len(load.placed)} orders, each seen once by {WATCHES} watches; watches ended {load.ends}")
    print(f"rolling: status codes {client.codes}; the longest call took {client.longest:.2f} s")
    assert client.longest < LOST, "a request was lost on the way to a worker"


def without_nats(nats, workers, gateways):
    """Processes exit gracefully without waiting for replies that cannot come, whether NATS is silent or gone."""
    nats.send_signal(signal.SIGSTOP)
    starting = [worker(), gateway()]
    for one in starting:
        until("it listens", lambda: listens(one.port))
    times = [one.end() for one in starting]
    print(f"rolling: SIGTERM during the start: a worker exited within {times[0]:.1f} s, a gateway within {times[1]:.1f} s")
    for what, number in [("silent", 0), ("gone", 1)]:
        if what == "gone":
            nats.kill()
            nats.wait()
        times = [one.end() for one in (workers[number], gateways[number])]
        print(f"rolling: NATS is {what}: a worker exited within {times[0]:.1f} s, a gateway within {times[1]:.1f} s", flush=True)


with tempfile.TemporaryDirectory() as work:
    nats_port, everything = free_port(), []
    try:
        nats = start_nats()
        until("NATS listens", lambda: listens(nats_port))
        workers, gateways = [worker() for _ in range(3)], [gateway() for _ in range(2)]
        for one in workers + gateways:
            one.serve()
        rolling(workers, gateways)
        without_nats(nats, workers, gateways)
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
# Exits without waiting for blocked threads.
sys.stdout.flush()
os._exit(code)

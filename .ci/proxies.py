"""Two gateways behind nginx and behind HAProxy. An error with the most details possible reaches its caller and does not
affect others; and no call that may be retried is lost while connections live for a second and gateways are replaced by
SIGTERM, sent twice. Usage: proxies.py FOLDER-OF-BINARIES NATS-SERVER SECONDS"""

import itertools
import os
import signal
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
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from waiting import free_port, listens, within

FOLDER, NATS, SECONDS = sys.argv[1], sys.argv[2], float(sys.argv[3])
PATIENCE = 30
# Threads of a proxy's load, and seconds after which nginx tries a failed gateway again.
CALLERS, AWAY = 16, 12
ORDERS, STOCK = "orders.v1.OrderService", "inventory.v1.InventoryService"
# The library retries by itself what its peer did not process (GOAWAY), as nginx sends it after 1,000 requests.
OWN = [("grpc.use_local_subchannel_pool", 1)]

# Only what is necessary: buffers, timeouts and keep-alive are nginx's defaults.
NGINX = """
daemon off; pid {work}/nginx.pid; error_log {work}/nginx.log; worker_processes 1;
events {{}}
http {{
  access_log off;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  upstream gateways {{ server 127.0.0.1:{a}; server 127.0.0.1:{b}; }}
  server {{ listen 127.0.0.1:{port} http2; location / {{ grpc_pass grpc://gateways; }} }}
}}
"""
HAPROXY = """
global
  log {work}/none local0
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option redispatch
frontend clients
  bind 127.0.0.1:{port} proto h2
  default_backend gateways
backend gateways
  balance roundrobin
  server a 127.0.0.1:{a} proto h2 check inter 200ms
  server b 127.0.0.1:{b} proto h2 check inter 200ms
"""


def until(what, holds):
    within(PATIENCE, what, holds)


def healthy(port, service):
    with grpc.insecure_channel(f"127.0.0.1:{port}", OWN) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            return health_pb2_grpc.HealthStub(channel).Check(request, timeout=2).status == 1
        except grpc.RpcError:
            return False


class Process:
    """A program that is stopped at the end."""

    def __init__(self, name, command, **variables):
        self.name, self.command = name, command
        self.environment = {**os.environ, **variables}
        self.begin()

    def begin(self):
        with open(f"{work}/{self.name}.log", "ab") as log:
            self.child = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log)
        everything.append(self.child)

    def replace(self, port):
        """SIGTERM, and another at once when nothing is in flight; then a restart."""
        self.child.send_signal(signal.SIGTERM)
        assert self.child.wait(PATIENCE) == 0, f"{self.name} ended with {self.child.returncode}"
        self.begin()
        until(f"{self.name} serves again", lambda: healthy(port, ORDERS))


class Types:
    """The contract, by reflection from a gateway."""

    def __init__(self, port):
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", OWN)
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        self.services = {name: pool.FindServiceByName(name) for name in [ORDERS, STOCK]}

    def method(self, channel, service, name):
        rpc = self.services[service].methods_by_name[name]
        request, reply = GetMessageClass(rpc.input_type), GetMessageClass(rpc.output_type)
        return request, channel.unary_unary(f"/{service}/{name}", request.SerializeToString, reply.FromString)


class Load:
    """Callers without retries, each with a connection to the proxy, and their results."""

    def __init__(self, types, port):
        self.types, self.port, self.ends, self.lock = types, port, {}, threading.Lock()
        self.stop, self.pool = threading.Event(), ThreadPoolExecutor(CALLERS)
        self.tasks = [self.pool.submit(self.look, number) for number in range(CALLERS)]

    def look(self, number):
        channel, ends = grpc.insecure_channel(f"127.0.0.1:{self.port}", OWN), {}
        request, call = self.types.method(channel, STOCK, "GetStock")
        while not self.stop.is_set():
            try:
                call(request(product_id="lamp"), timeout=PATIENCE)
                end = "OK"
            except grpc.RpcError as error:
                end = f"{error.code().name}: {error.details()}"
            ends[end] = ends.get(end, 0) + 1
        with self.lock:
            for end, count in ends.items():
                self.ends[end] = self.ends.get(end, 0) + count

    def over(self):
        self.stop.set()
        for task in self.tasks:
            task.result(PATIENCE)
        return self.ends


def refused(types, port, items, code, reason):
    """An error with the most details possible, through a proxy."""
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", OWN)
    request, call = types.method(channel, ORDERS, "CreateOrder")
    try:
        call(request(request_id=str(uuid.uuid4()), customer_id="ann", items=items), timeout=PATIENCE)
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or [])
        assert error.code() == code, f"{error.code()}: {error.details()}"
        details = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details
        assert any(reason.encode() in detail.value for detail in details), f"no {reason} in {details}"
        return
    raise AssertionError("the call was not refused")


def refusals(types, port):
    load = Load(types, port)
    short = [{"product_id": f"{'rare' * 14}-{number:03}", "quantity": 1_000} for number in range(80)]
    faulty = [{"product_id": "no such id", "quantity": 0} for _ in range(500)]
    for _ in range(4):
        refused(types, port, short, grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK")
        refused(types, port, faulty, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    ends = load.over()
    assert set(ends) == {"OK"}, f"other callers were affected: {ends}"
    return ends["OK"]


def replaced(types, port, gateways):
    """Restarts the gateways in turn, each at least once: nginx leaves out a failed one for 10 s."""
    load, begun = Load(types, port), time.monotonic()
    turns = max(2, int(SECONDS) // AWAY)
    for turn, (process, number) in zip(range(turns), itertools.cycle(gateways)):
        time.sleep(max(0, begun + 2 + turn * AWAY - time.monotonic()))
        process.replace(number)
    time.sleep(max(0, begun + SECONDS - time.monotonic()))
    ends = load.over()
    assert set(ends) == {"OK"}, f"calls were lost: {ends}"
    return ends["OK"]


def gateway(name):
    port = free_port()
    process = Process(name, [f"{FOLDER}/gateway"], **at, GW_GRPC_ADDR=f"127.0.0.1:{port}", GW_HTTP_ADDR=f"127.0.0.1:{free_port()}",
                      GW_MAX_CONNECTION_AGE="1")
    return process, port


def proxies(a, b):
    for name, config, command in [
        ("nginx", NGINX, ["nginx", "-e", "stderr", "-p", work, "-c"]),
        ("haproxy", HAPROXY, ["haproxy", "-db", "-f"]),
    ]:
        port, path = free_port(), f"{work}/{name}.conf"
        with open(path, "w") as file:
            file.write(config.format(work=work, a=a, b=b, port=port))
        process = Process(name, [*command, path])
        until(f"{name} listens", lambda: listens(port))
        yield name, port
        process.child.send_signal(signal.SIGTERM)
        process.child.wait(PATIENCE)


def run():
    gateways = [gateway("gateway-a"), gateway("gateway-b")]
    Process("worker", [f"{FOLDER}/inventory-worker"], **at, GW_HEALTH_ADDR="127.0.0.1:0", GW_HTTP_ADDR="127.0.0.1:0")
    for process, port in gateways:
        until(f"{process.name} serves", lambda: healthy(port, ORDERS))
    types = Types(gateways[0][1])
    request, adjust = types.method(grpc.insecure_channel(f"127.0.0.1:{gateways[0][1]}", OWN), STOCK, "AdjustStock")
    adjust(request(request_id="first", adjustments=[{"product_id": "lamp", "delta": 1_000_000}]), timeout=PATIENCE)
    for name, port in proxies(gateways[0][1], gateways[1][1]):
        noticed = refusals(types, port)
        print(f"proxies: {name}: large errors arrived complete, and {noticed} calls of others succeeded meanwhile", flush=True)
        calls = replaced(types, port, gateways)
        print(f"proxies: {name}: {calls} calls while gateways were replaced, none lost", flush=True)
    for process, _ in gateways:
        # Within a millisecond, with nothing in flight.
        process.child.send_signal(signal.SIGTERM)
        process.child.send_signal(signal.SIGTERM)
        assert process.child.wait(PATIENCE) == 0, f"{process.name} ended with {process.child.returncode}"
    print("proxies: an idle gateway exits with 0 on two signals at once", flush=True)


code, everything = 1, []
with tempfile.TemporaryDirectory() as work:
    try:
        nats_port = free_port()
        at = {"NATS_URL": f"nats://127.0.0.1:{nats_port}"}
        store = ["--jetstream", "--store_dir", f"{work}/nats"]
        Process("nats", [NATS, "--addr", "127.0.0.1", "--port", str(nats_port), *store])
        until("NATS listens", lambda: listens(nats_port))
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
        for name in sorted(os.listdir(work)):
            if name.endswith(".log"):
                print(f"--- {name}\n" + "".join(open(f"{work}/{name}", errors="replace").readlines()[-15:]))
    finally:
        for child in everything:
            if child.poll() is None:
                child.terminate()
        for child in everything:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
# Exits without waiting for blocked threads.
sys.stdout.flush()
os._exit(code)

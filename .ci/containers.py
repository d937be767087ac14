"""Runs docker-compose.yml by compose.py with the images of .ci/containers, and checks what the documents say:
the calls of docs/getting-started.md and the operator commands of deploy/README.md (from the text itself), the privileges of
containers, health checks, Prometheus' targets, TLS and API keys with two gateways, the audit of replayed orders, and
SIGTERM. Everything it starts is in the namespaces it was started in. Usage: containers.py TOOLS LOADTEST"""

import atexit
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from compose import Compose, podman, said
from waiting import within

TOOLS, BENCH = (str(Path(each).resolve()) for each in sys.argv[1:3])
SECURE = ["docker-compose.yml", "deploy/compose/secure.yml"]
# Largest size of an image, in MiB: half of it is the base. The gateway with its compiler of protos has 48.2.
SIZE = 56
DRAIN, PATIENCE = 20, 60
started = time.monotonic()
work = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, work, ignore_errors=True)
# Folder in which the documents' commands are run.
desk = work / "desk"


def ok(what):
    print(f"{'ok':10} {time.monotonic() - started:4.0f}s  {what}", flush=True)


def environment(**more):
    """An environment with `docker`, which is compose.py, and the clients first in PATH."""
    docker = work / "bin/docker"
    if not docker.exists():
        docker.parent.mkdir()
        docker.write_text(f'#!/bin/sh\nshift\ncd {Path.cwd()}\nexec {sys.executable} -B {Path(__file__).resolve().parent}/compose.py "$@"\n')
        docker.chmod(0o755)
    return {**os.environ, "PATH": f"{docker.parent}:{TOOLS}:{os.environ['PATH']}", "CERTS": str(desk / "certs"), **more}


def shell(line, fails=False, **variables):
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], env=environment(**variables), cwd=desk, text=True, timeout=120,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert bool(done.returncode) == fails, f"{line}\nended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def block(file, heading, number=1):
    """The lines of the first (or another) console block after a heading, without prompts."""
    text = Path(file).read_text().split(f"\n{heading}\n", 1)[1]
    lines = text.split("```console\n", number)[number].split("```", 1)[0].replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+# .*", "", line[2:]) for line in lines if line.startswith("$ ")]


def containers(compose, *services):
    for name in services:
        for container in compose.containers(name):
            yield container, json.loads(said("inspect", container))[0]


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


# --- images and containers ----------------------------------------------------------------------------------------------


def images():
    for target in ("gateway", "inventory-worker"):
        image = json.loads(said("image", "inspect", f"localhost/order-gateway/{target}:ci"))[0]
        size = image["Size"] / 2**20
        assert image["Config"]["User"] == "65532:65532", image["Config"]
        assert size < SIZE, f"{target}: {size:.1f} MiB, of at most {SIZE}"
        without = podman("run", "--rm", "--pull", "never", "--network", "none", "--entrypoint", "/bin/sh", image["Id"], "-c", "true",
                         check=False, stderr=subprocess.DEVNULL)
        assert without.returncode, f"{target} contains a shell"
        ok(f"image {target}: {size:.1f} MiB, at most {SIZE}; as 65532, without a shell")


def confined(compose):
    """Checks the state of each process in the kernel, not podman's configuration."""
    for container, found in containers(compose, "gateway", "inventory-worker", "nats"):
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{found['State']['Pid']}/status").read_text().splitlines() if ":\t" in line)
        for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[key], 16) == 0, f"{container}: {key} is {status[key]}"
        assert status["NoNewPrivs"].strip() == "1", f"{container}: may gain privileges (NoNewPrivs is not set)"
        if "nats" not in container:
            assert set(status["Uid"].split()) == {"65532"}, f"{container}: runs as {status['Uid']}"
        root = next(line.split() for line in Path(f"/proc/{found['State']['Pid']}/mounts").read_text().splitlines() if line.split()[1] == "/")
        assert "ro" in root[3].split(","), f"{container}: its root file system is writable"
        limit = found["HostConfig"]["Memory"]
        assert limit, f"{container}: no memory limit"
        assert not found["RestartCount"], f"{container}: was restarted"
    ok("gateway, workers and NATS: read-only root, no capabilities, no new privileges, a memory limit; ours as 65532")


def memory(compose):
    for container, found in containers(compose, "gateway", "inventory-worker", "nats"):
        status = Path(f"/proc/{found['State']['Pid']}/status").read_text()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
        limit = found["HostConfig"]["Memory"] / 2**20
        assert peak < limit / 2, f"{container}: {peak:.0f} MiB of {limit:.0f}"
        print(f"{'':17} {container}: {peak:.0f} MiB at most, limit {limit:.0f}")


# --- user procedures --------------------------------------------------------------------------------------------------


def signed_in():
    """The NATS client's credentials as in deploy/README.md, whose commands are run too."""
    export = {}
    for line in block("deploy/README.md", "## On one machine", 2):
        if line.startswith("export "):
            now = line
            continue
        export["subscriber" if "subscriber" in line else "operator"] = now
        watched(f"{now}; exec {line}") if " sub " in line else shell(f"{now}; {line}")
    return export


def calls():
    lines = block("docs/getting-started.md", "## Calls to try")
    assert len(lines) >= 7, lines
    export = signed_in()
    for line in lines:
        if line.startswith("nats "):
            who = "subscriber" if " sub " in line else "operator"
            line = line.replace("nats ", f"{export[who]}; exec nats --inbox-prefix _INBOX_{who} ", 1)
        if " sub " in line or "WatchOrders" in line:
            watched(line)
        else:
            answer = shell(line)
            assert "CreateOrder" not in line or "ORDER_STATUS_PENDING" in answer, answer
            assert "GetStock" not in line or '"reserved": 1' in answer, answer
            assert "check_inventory" not in line or '"available":true' in answer, answer
    ok(f"docs/getting-started.md's {len(lines)} calls, on a fresh stack")


def watched(line):
    """A streaming call that runs until it is stopped: it has to print an order."""
    with open(work / "watched", "w+") as out:
        child = subprocess.Popen(["bash", "-c", line], env=environment(), cwd=desk, start_new_session=True, stdout=out, stderr=out)
        try:
            number = 0

            def comes():
                nonlocal number
                number += 1
                shell(f"buf curl --http2-prior-knowledge --protocol grpc http://127.0.0.1:50051/orders.v1.OrderService/CreateOrder "
                      f"-d '{{\"customerId\":\"watch\",\"items\":[{{\"productId\":\"candle\",\"quantity\":1}}]}}'")
                time.sleep(0.5)
                assert child.poll() is None, Path(out.name).read_text()
                return "candle" in Path(out.name).read_text()

            within(PATIENCE, f"an order comes: {line}", comes)
        finally:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(10)


def operator():
    lines = block("deploy/README.md", "### An operator's commands")
    assert len(lines) >= 5, lines
    for line in lines:
        shell(line)
    ok(f"deploy/README.md's {len(lines)} operator commands")


def once(compose):
    """The demo stock is loaded only once."""
    shell("printf 'product,on_hand\\nlamp,7\\nsofa,5\\n' | docker compose run --rm -T stock import --skip-bad -")
    compose.up({})
    stock = shell("docker compose run --rm -T stock export -")
    assert "\nlamp,7\n" in stock and "\nbasket,120\n" in stock, stock
    ok("a second `up` leaves the stock as it is")


def targets(compose, gateways):
    """Prometheus finds each container by the names and ports in its configuration, and scrapes it."""
    wanted = {"gateway": gateways, "inventory-worker": 2, "prometheus": 1}

    def found():
        up = {}
        for target in json.loads(get("http://127.0.0.1:9090/api/v1/targets"))["data"]["activeTargets"]:
            if target["health"] == "up":
                up[target["labels"]["job"]] = up.get(target["labels"]["job"], 0) + 1
        return up == wanted

    within(PATIENCE, f"Prometheus scrapes {wanted}", found)
    rules = json.loads(get("http://127.0.0.1:9090/api/v1/rules"))["data"]["groups"]
    ok(f"Prometheus: targets {wanted}, all up; {sum(len(group['rules']) for group in rules)} rules")


def baskets():
    """Orders to replay, the same in each run."""
    chance = random.Random(14)
    products = [f"sku-{number}" for number in range(200)]
    with open(work / "stock.csv", "w") as file:
        file.write("product,on_hand\n" + "".join(f"{product},{chance.randint(5, 60)}\n" for product in products))
    with open(work / "baskets.csv", "w") as file:
        file.write("order,customer,product,quantity,time\n")
        for order in range(1_500):
            for product in chance.sample(products, chance.randint(1, 4)):
                file.write(f"replay-{order},customer-{order % 97},{product},{chance.randint(1, 3)},2026-11-01T10:00:00Z\n")


def replay(*more):
    done = subprocess.run([BENCH, "replay", "--orders", work / "baskets.csv", "--stock", work / "stock.csv", *more],
                          text=True, timeout=240, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    return done.stdout


def ends(compose):
    """SIGTERM under load: each container exits within its drain, with 0. No acknowledged order is lost."""
    running = threading.Thread(target=lambda: results.append(replay("--concurrency", "8")))
    results = []
    running.start()
    time.sleep(1)
    for name in ("inventory-worker", "gateway"):
        container = compose.containers(name)[-1]
        begun = time.monotonic()
        said("stop", container)
        took = time.monotonic() - begun
        state = json.loads(said("inspect", container))[0]["State"]
        assert state["ExitCode"] == 0 and took < DRAIN + 5, f"{container}: {state['ExitCode']} after {took:.1f} s"
        said("start", container)
        compose.holds(name, "service_healthy")
        ok(f"{container}: SIGTERM under load, ended with 0 after {took:.1f} s, and serves again")
    running.join(240)
    assert results, "the replay under load failed"
    placed = int(re.search(r"^placed +([\d,]+)", results[0], re.M)[1].replace(",", ""))
    assert placed > 500, results[0]
    ok(f"the replay of 1,500 orders that ran meanwhile: {placed} placed, the audit found nothing")


# --- TLS and keys --------------------------------------------------------------------------------------------------------


def certificates():
    """Follows deploy/README.md up to a call. Returns the API key."""
    lines = block("deploy/README.md", "### For other machines")
    for line in lines:
        answer = shell(line)
    assert "ORDER_STATUS_PENDING" in answer, answer
    ok(f"deploy/README.md's {len(lines)} steps to TLS and keys, with -f deploy/compose/secure.yml up, and an order")
    return (desk / "certs/till.key").read_text().strip()


def secured(key):
    def call(port, how="-cacert certs/ca.crt", key=None, **fails):
        header = f"-H 'x-api-key: {key}'" if key else ""
        order = '{"customerId":"tls","items":[{"productId":"candle","quantity":1}]}'
        return shell(f"grpcurl {how} {header} -max-time 10 -d '{order}' localhost:{port} orders.v1.OrderService/CreateOrder", **fails)

    for port in (50051, 50052):
        assert "ORDER_STATUS_PENDING" in call(port, key=key), port
        for wrong in (None, key[:-1] + ("x" if key[-1] != "x" else "y")):
            answer = call(port, key=wrong, fails=True)
            assert "Unauthenticated" in answer, answer
        call(port, how="-plaintext", key=key, fails=True)
    for port in (8080, 8081):
        get(f"http://127.0.0.1:{port}/healthz")
    ok("two gateways with TLS: a valid key is accepted; no key, a wrong one and plain text are rejected")


def main():
    desk.mkdir()
    images()
    baskets()
    demo = Compose(["docker-compose.yml"], ["monitoring"])
    demo.services.pop("grafana")
    # Left by an interrupted run.
    demo.down(True)
    demo.up({})
    ok("docker compose --profile monitoring up (all healthy, by the images' own health checks; Grafana: NOT DONE, no image)")
    confined(demo)
    calls()
    operator()
    once(demo)
    targets(demo, 1)
    ends(demo)
    replay()
    ok("and once more: nothing is placed twice, the audit is clean")
    memory(demo)
    key = certificates()
    os.environ["CERTS"] = str(desk / "certs")
    secure = Compose(SECURE, ["monitoring"])
    secure.services.pop("grafana")
    secure.up({})
    confined(secure)
    secured(key)
    targets(secure, 2)
    begun = time.monotonic()
    secure.stop(["gateway", "inventory-worker"])
    for container, found in containers(secure, "gateway", "inventory-worker"):
        assert found["State"]["ExitCode"] == 0, f"{container} ended with {found['State']['ExitCode']}"
    ok(f"stop: four containers ended with 0, {time.monotonic() - begun:.1f} s in all")
    secure.down(True)
    left = said("ps", "--all", "--quiet") + said("volume", "ls", "--quiet")
    assert not left, left
    ok("down -v: nothing is left")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()

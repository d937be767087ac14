"""Follows docs/recover.md to its end: three NATS nodes with the shipped roles, orders, a backup under load, all nodes killed
and their disks deleted, new nodes, and the commands of that page as they are, each as its role. Usage: disaster.py
FOLDER-OF-BINARIES NATS-SERVER GRPCURL NATS-CLI RESTIC"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from documents import ROOT, of_document, role_of, roles
from plant import Plant
from waiting import within

PAGE = "docs/recover.md"
LIMIT = 120
ORDERS, STOCK = "orders.v1.OrderService", "inventory.v1.InventoryService"
ON_HAND = 10_000


class Walk:
    def __init__(self, work, programs, nats_server, grpcurl, nats, restic):
        self.work, self.grpcurl, self.table = Path(work), Path(grpcurl).resolve(), roles()
        self.plant = Plant(work, programs, nats_server, reservation_ttl=10)
        (self.work / "bin").mkdir()
        programs = [self.plant.programs / "gateway", self.plant.programs / "inventory-worker", Path(nats), Path(restic)]
        for path in programs:
            (self.work / "bin" / path.name).symlink_to(path.resolve())
        (self.work / "restic-password").write_text("hush")
        self.restic = {"RESTIC_REPOSITORY": f"{self.work}/elsewhere", "RESTIC_PASSWORD_FILE": f"{self.work}/restic-password"}
        (self.work / "backups").mkdir()
        self.steps = self.read()

    @staticmethod
    def read():
        """The page's steps by number (0 for what comes before): their words, and their commands."""
        text = (ROOT / PAGE).read_text().split("## One stream is lost")[0]
        starts = [(0, 0)] + [(int(found.group(1)), text[: found.start()].count("\n") + 1) for found in re.finditer(r"^\*\*(\d)\. ", text, re.M)]
        commands = [(int(command.where.rsplit(":", 1)[1]), command.text) for command in of_document(PAGE) if command.kind == "block"]
        ends = [start for _, start in starts[1:]] + [text.count("\n") + 1]
        return {number: [said for line, said in commands if start <= line < end] for (number, start), end in zip(starts, ends)}

    def type(self, step):
        """The commands of a step, from the page."""
        assert self.steps[step], f"{PAGE} has no command in step {step}"
        for text in self.steps[step]:
            role = role_of(text, self.table)
            who = self.plant.role(role) if role else self.restic
            environment = {**os.environ, **who, "PATH": f"{self.work}/bin:{os.environ['PATH']}"}
            done = subprocess.run(["bash", "-c", text], cwd=self.work, env=environment, capture_output=True, text=True, timeout=LIMIT)
            print(f"$ {text}    # {role}\n" + "".join(f"    {line}\n" for line in (done.stdout + done.stderr).splitlines()[-14:]), end="", flush=True)
            assert done.returncode == 0, f"{text} ended with {done.returncode}"

    # --- a client ---------------------------------------------------------------------------------------------------------

    def call(self, service, method, body):
        """The reply, or the status code."""
        command = [self.grpcurl, "-plaintext", "-max-time", "20", "-d", json.dumps(body), f"127.0.0.1:{self.plant.grpc}", f"{service}/{method}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        if done.returncode == 0:
            return json.loads(done.stdout or "{}")
        code = re.search(r"Code: (\w+)", done.stderr)
        return code.group(1) if code else done.stderr

    def place(self, name):
        body = {"requestId": name, "customerId": "ann", "items": [{"productId": "lamp", "quantity": 2}]}
        placed = self.call(ORDERS, "CreateOrder", body)
        return placed["order"] if isinstance(placed, dict) else placed

    def move(self, order, *steps):
        for status in steps:
            moved = self.call(ORDERS, "UpdateOrderStatus", {"orderId": order["orderId"], "status": f"ORDER_STATUS_{status}"})
            assert isinstance(moved, dict), moved
            order = moved["order"]
        return order

    def get(self, order):
        found = self.call(ORDERS, "GetOrder", {"orderId": order["orderId"]})
        return found["order"] if isinstance(found, dict) else found

    def stock(self):
        stock = self.call(STOCK, "GetStock", {"productId": "lamp"})
        return stock["stock"] if isinstance(stock, dict) else stock

    def resume_token(self):
        command = [self.grpcurl, "-plaintext", "-max-time", "5", "-d", "{}", f"127.0.0.1:{self.plant.grpc}", f"{ORDERS}/WatchOrders"]
        seen = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT).stdout
        return re.findall(r'"resumeToken": "([^"]+)"', seen)[-1]

    # --- the procedure------------------------------------------------------------------------------------------------------

    def before(self):
        self.plant.start_nats()
        self.provision()
        (self.work / "counted.csv").write_text(f"product,on_hand\nlamp,{ON_HAND}\n")
        environment = {**os.environ, **self.plant.role("operator")}
        subprocess.run([self.plant.programs / "inventory-worker", "stock", "import", "counted.csv"], cwd=self.work, env=environment, check=True, capture_output=True, timeout=LIMIT)
        self.staff()
        orders = [self.place(f"before-{number}") for number in range(8)]
        self.kept = [
            *(self.move(order, "CANCELLED") for order in orders[:2]),
            *(self.move(order, "CONFIRMED", "SHIPPED") for order in orders[2:4]),
            *(self.move(order, "CONFIRMED") for order in orders[4:6]),
            *orders[6:],
        ]
        self.page_token = self.call(ORDERS, "ListOrders", {"pageSize": 2})["nextPageToken"]
        self.watch_token = self.resume_token()
        # Orders are placed while the backup is made.
        stop, placed = threading.Event(), []

        def buy():
            while not stop.is_set():
                placed.append(self.place(f"meanwhile-{len(placed)}"))

        buyer = threading.Thread(target=buy)
        buyer.start()
        within(LIMIT, "there is load", lambda: len(placed) > 3)
        self.type(0)
        within(LIMIT, "there is load", lambda: len(placed) > 8)
        stop.set()
        buyer.join()
        self.meanwhile = [order for order in placed if isinstance(order, dict)]
        self.lost = [self.place(f"after-{number}") for number in range(3)]

    def provision(self):
        environment = {**os.environ, **self.plant.role("provisioner"), "GW_STREAM_REPLICAS": "3"}
        subprocess.run([self.plant.programs / "gateway", "provision"], env=environment, check=True, capture_output=True, timeout=LIMIT)

    def staff(self):
        for number in range(2):
            self.plant.worker(f"worker-{number}")
        self.plant.gateway()

    def lose(self):
        """Kills everything at once, and deletes all disks."""
        self.plant.end()
        self.plant.children.clear()
        shutil.rmtree(self.work / "disks")
        shutil.rmtree(self.work / "backups")

    def recover(self):
        # Step 1 is done: nothing runs. Step 2: the disks are new.
        self.plant.start_nats("new-disks")
        self.type(2)
        self.type(3)
        self.type(4)
        self.staff()
        self.type(6)

    def after(self):
        for order in self.kept:
            assert self.get(order) == order, (order, self.get(order))
        for order in self.lost:
            assert self.get(order) == "NotFound", self.get(order)
        # An order that was placed while the backup was made is unchanged or absent.
        states = [self.get(order) for order in self.meanwhile]
        assert all(state in (order, "NotFound") for order, state in zip(self.meanwhile, states)), states
        refused = self.call(ORDERS, "ListOrders", {"pageSize": 2, "pageToken": self.page_token})
        assert refused == "InvalidArgument", refused
        refused = self.call(ORDERS, "WatchOrders", {"resumeToken": self.watch_token})
        assert refused == "InvalidArgument", refused
        # Of eight orders with two units each, two were cancelled and two shipped.
        living = 4 + sum(isinstance(state, dict) for state in states)
        free = {"productId": "lamp", "onHand": ON_HAND - 4, "reserved": living * 2, "available": ON_HAND - 4 - living * 2}
        # Reservations of orders that are not in the backup expire after GW_RESERVATION_TTL.
        within(LIMIT, f"the stock is {free}", lambda: self.stock() == free)
        again, new = self.place("after-0"), self.place("new")
        assert again["orderId"] == self.lost[0]["orderId"] and again["status"] == "ORDER_STATUS_PENDING", again
        assert self.get(new) == new
        listed = self.call(ORDERS, "ListOrders", {"pageSize": 1000})["orders"]
        assert len(listed) == 8 + living - 4 + 2, len(listed)
        self.type(6)
        refused = self.plant.violations()
        assert not refused, refused

    def all(self):
        began = time.monotonic()
        self.before()
        print(f"disaster: {len(self.kept) + len(self.meanwhile) + len(self.lost)} orders, a backup; now all nodes are lost", flush=True)
        self.lose()
        lost = time.monotonic()
        self.recover()
        recovered = time.monotonic() - lost
        self.after()
        print(f"disaster: recovered after {recovered:.0f} s; orders, stock, tokens and roles are correct; {time.monotonic() - began:.0f} s in all")


with tempfile.TemporaryDirectory() as work:
    walk, code = Walk(work, *sys.argv[1:6]), 1
    try:
        walk.all()
        code = 0
    except BaseException:
        traceback.print_exc()
        for path in sorted(Path(work).glob("*.log")):
            print(f"--- {path.name}\n" + "".join(path.read_text(errors="replace").splitlines(keepends=True)[-12:]))
    finally:
        walk.plant.end()
sys.exit(code)

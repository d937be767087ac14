"""A secured NATS cluster of three nodes with the shipped roles, and our programs on it, for the checks that run documented
commands. Everything is below one folder and on free ports; `end()` stops all processes."""

import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path

from waiting import free_port, within

ROOT = Path(__file__).resolve().parent.parent
ROLES = ["gateway", "worker", "provisioner", "operator", "subscriber", "catalog_publisher", "breakglass", "system", "breakglass_system"]
PATIENCE = 90


class Plant:
    def __init__(self, work, programs, nats_server, nodes=3, reservation_ttl=120):
        self.work, self.programs, self.nats_server = Path(work), Path(programs).resolve(), nats_server
        self.children, self.reservation_ttl = [], str(reservation_ttl)
        # Positions up to which the servers' logs were read.
        self.read = {}
        # A role's credentials are files and nats CLI contexts, as in the documents.
        self.passwords = self.work / "passwords"
        self.passwords.mkdir(mode=0o700)
        for role in ROLES:
            (self.passwords / role).write_text(f"p{role}secret\n")
            (self.passwords / role).chmod(0o600)
        self.ports = [[free_port() for _ in range(3)] for _ in range(nodes)]
        self.urls = ",".join(f"nats://127.0.0.1:{client}" for client, _, _ in self.ports)
        self.monitors = ",".join(f"http://127.0.0.1:{monitor}" for _, monitor, _ in self.ports)
        self.contexts = self.work / "config" / "nats" / "context"
        self.contexts.mkdir(parents=True)
        for role in ROLES:
            self.context(role, self.urls)

    def context(self, role, urls, name=None):
        password = (self.passwords / role).read_text().strip()
        context = {"url": urls, "user": role, "password": password, "inbox_prefix": f"_INBOX_{role}"}
        (self.contexts / f"{name or role}.json").write_text(json.dumps(context))

    def role(self, name, urls=None):
        """The environment of a person or a service of this role."""
        return {
            "NATS_URL": urls or self.urls,
            "NATS_USER": name,
            "GW_NATS_PASSWORD_FILE": str(self.passwords / name),
            "GW_NATS_INBOX_PREFIX": f"_INBOX_{name}",
            "NATS_CONTEXT": name,
            "XDG_CONFIG_HOME": str(self.work / "config"),
        }

    def start_nats(self, disks="disks"):
        """deploy/nats/cluster.conf with other ports and names."""
        (self.work / "roles.conf").write_text((ROOT / "deploy/nats/roles.conf").read_text())
        routes = ", ".join(f"nats://127.0.0.1:{route}" for _, _, route in self.ports)
        passwords = {f"NATS_{role.upper()}_PASSWORD": (self.passwords / role).read_text().strip() for role in ROLES}
        nodes = []
        for number, (client, monitor, route) in enumerate(self.ports):
            cluster = f'cluster {{ name: orders, listen: "127.0.0.1:{route}", routes: [{routes}] }}\n'
            (self.work / f"nats-{number}.conf").write_text(
                f'server_name: nats-{number}\nlisten: "127.0.0.1:{client}"\nhttp: "127.0.0.1:{monitor}"\n'
                f'jetstream {{ store_dir: "{self.work}/{disks}/{number}", sync_interval: always }}\n'
                f"{cluster if len(self.ports) > 1 else ''}include roles.conf\n"
            )
            nodes.append(self.start([self.nats_server, "-c", f"nats-{number}.conf"], f"nats-{number}", passwords))
        within(PATIENCE, "the nodes are a cluster", lambda: self.leads() and all(map(self.well, self.ports)))
        return nodes

    def leads(self):
        """Whether there is a meta leader that sees all nodes."""
        if len(self.ports) == 1:
            return True
        metas = [self.fetch(monitor, "/jsz").get("meta_cluster", {}) for _, monitor, _ in self.ports]
        return any(meta.get("cluster_size") == len(self.ports) and meta.get("leader") for meta in metas)

    def well(self, ports):
        return self.fetch(ports[1], "/healthz").get("status") == "ok"

    @staticmethod
    def fetch(port, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
                return json.loads(answer.read() or b"{}")
        except (OSError, ValueError):
            return {}

    def start(self, command, name, variables):
        log = open(self.work / f"{name}.log", "ab")
        environment = {**os.environ, **variables}
        child = subprocess.Popen(command, cwd=self.work, env=environment, stdout=log, stderr=log)
        self.children.append(child)
        return child

    def worker(self, name="worker"):
        health = free_port()
        ports = {"GW_HTTP_ADDR": "127.0.0.1:0", "GW_HEALTH_ADDR": f"127.0.0.1:{health}"}
        own = {"GW_PROVISION": "never", "GW_STREAM_REPLICAS": str(len(self.ports)), "GW_RESERVATION_TTL": self.reservation_ttl, **ports}
        child = self.start([self.programs / "inventory-worker"], name, {**self.role("worker"), **own})
        probe = [self.programs / "inventory-worker", "healthcheck", "--addr", f"127.0.0.1:{health}"]
        self.healthy(name, child, probe)
        return child

    def gateway(self, name="gateway"):
        self.grpc, self.http = free_port(), free_port()
        ports = {"GW_GRPC_ADDR": f"127.0.0.1:{self.grpc}", "GW_HTTP_ADDR": f"127.0.0.1:{self.http}"}
        own = {"GW_PROVISION": "never", "GW_STREAM_REPLICAS": str(len(self.ports)), "GW_NATS_MONITOR_URL": self.monitors}
        child = self.start([self.programs / "gateway"], name, {**self.role("gateway"), **own, **ports})
        self.healthy(name, child, [self.programs / "gateway", "healthcheck", "--addr", f"127.0.0.1:{self.grpc}"])
        return child

    def healthy(self, name, child, probe):
        def up():
            assert child.poll() is None, f"{name} ended with {child.returncode}"
            return subprocess.run(probe, capture_output=True, timeout=30).returncode == 0

        within(PATIENCE, f"{name} is healthy", up)

    def violations(self):
        """Permission violations that the servers logged since the last call."""
        new = []
        for number in range(len(self.ports)):
            log = (self.work / f"nats-{number}.log").read_bytes()
            lines = log[self.read.get(number, 0) :].decode(errors="replace").splitlines()
            new += [line for line in lines if "Violation" in line or "authentication error" in line]
            self.read[number] = len(log)
        return new

    def end(self, children=None, how=signal.SIGKILL):
        for child in children or self.children:
            if child.poll() is None:
                child.send_signal(how)
        for child in children or self.children:
            child.wait(60)

"""Runs every command of the documents, of the alerts' runbooks and of the programs' hints, taken from the text, as the role
that docs/operate.md names for it, on a secured cluster with orders and dead letters. Each has to exit with 0 and cause no
permission violation. Commands that cannot be run here are listed with the reason; one that matches no rule is a failure.
Usage: commands.py FOLDER-OF-BINARIES NATS-SERVER"""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from documents import HISTORY, ROOT, Command, everything, role_of, roles
from plant import Plant
from waiting import free_port, within

LIMIT = 60
# How long a command has to run that runs until it is stopped.
GOES_ON = 2
REFUSED = re.compile(r"permissions? violation|does not permit|authori[sz]ation violation|not authorized", re.I)

# How a command is run. The first match applies.
#   run       as its role, on the cluster
#   spare     as its role, on a separate server: it destroys something, or needs an empty server
#   serve     as its role; it has to run until it is stopped
#   dev       against `gateway dev`, which has no authentication
#   parse     only its flags, with --help appended: it takes long, or is run by another check
#   client    kubectl, as far as possible without a cluster
#   late      on the cluster, after a node was lost for good
#   anything else: the reason why it is not run
RULES = [
    (r"deploy/nats/certificates\.sh \S+ ", "run"),
    (r"deploy/debian/texts.sh", "run by .ci/deploy"),
    (r"nats-server --signal|systemd-analyze\b", "signals a server, or needs systemd: tests/nodes.rs stops and adds servers, .ci/deploy verifies units"),
    (r"cd deploy/kubernetes/\S+ && kustomize edit", "run by .ci/deploy"),
    (r"kubectl .*create job --from", "needs a Kubernetes cluster"),
    (r"cargo update\b", "run by whoever releases"),
    # A name alone is not a command.
    (r"(gateway|inventory-worker|loadtest|spec|nats|nats-server|docker|kubectl|helm|nsc|curl|go|npm|pip|age|apt|cargo|systemctl|podman)$", "name"),
    (r"target/\S+/$", "name"),
    (r"(deploy|target|fuzz)/\S*\.(md|yml|yaml|json|conf|toml|service|html|sh)$", "name"),
    (r"deploy/\S*$", "name"),
    (r"(echo .*)?grpcurl .* (greeter|library)\.v1\.|(cargo run .* dev|gateway (dev|serve)( .*)?) --proto |python3 |PYTHONPATH=|cd examples/", "run by .ci/tutorial, and in the process by tests/contracts.rs"),
    (r"(cargo run --release --bin gateway -- dev|gateway dev)\b", "serve"),
    (r"cargo run --release --bin (loadtest|spec) --", "parse"),
    (r"cargo run --release -p \S+ --example", "a measurement, by whoever wants it"),
    (r"cargo (test|fmt|clippy|doc|bench|build|deny|install|deb|tree)\b|cargo \+nightly", "run by .ci/run, or by whoever develops"),
    (r"(\.ci|fuzz)/\w+", "a check of its own: it is there, and may be executed"),
    (r"(loadtest|spec|target/dist/loadtest) \w+", "parse"),
    (r"buf (lint|breaking|build)\b", "run by .ci/run, or by whoever writes a contract"),
    (r"gateway catalog|gateway serve --catalog-bucket|nats kv ", "run by gateway/tests/bucket.rs, and in the process by tests/bucket.rs"),
    (r"gateway routes", "run by .ci/tutorial, and by gateway/tests/routes.rs"),
    (r"grpcurl -cacert ", "needs a gateway with TLS: .ci/containers makes the same call of deploy/README.md"),
    (r"buf curl|grpcurl .*(CreateOrder|ListOrders|GetStock|GetOrder|UpdateOrderStatus|AdjustStock)", "run"),
    (r"restic ", "run by .ci/disaster"),
    (r"(head|tail) -n 1 ", "takes a printed key apart: tests/keys.rs makes keys and calls with them"),
    (r"grpcurl .*WatchOrders", "serve"),
    (r"curl ", "run"),
    (r"promtool query ", "needs a Prometheus; .ci/check-metrics checks that the metrics of documented queries exist"),
    (r"promtool ", "run"),
    (r"kubectl .*create\b", "client"),
    (r"kubectl apply -k", "client"),
    (r"kubectl\b", "needs a Kubernetes cluster"),
    (r"helm\b|kind\b", "needs a Kubernetes cluster, and charts from outside"),
    (r"docker\b|podman\b|buildah\b", "needs a container engine"),
    (r"systemctl\b|journalctl\b|apt(-get)?\b|dpkg\b", "needs a machine with systemd, and root"),
    (r"nsc\b|deploy/nats/accounts.sh|ls credentials|sed .*credentials/accounts.conf", "needs nsc"),
    (r"(pip|npm|go|age|amtool) ", "somebody else's program, of which nothing here depends"),
    # Our programs.
    (r"gateway keys new \S+ --proto", "run by gateway/tests/routes.rs"),
    (r"gateway keys new", "run"),
    # The cluster's gateways have no TLS, and no port of health alone.
    (r"gateway healthcheck --(addr https://|health-addr )", "parse"),
    (r"gateway healthcheck|inventory-worker healthcheck", "run"),
    (r"gateway (provision|backup|reconcile|dead-letters|doctor)|inventory-worker stock", "run"),
    (r"gateway restore", "spare"),
    (r"(gateway|inventory-worker) (config|completions|man|--help|--version)\b", "run"),
    (r"(gateway|inventory-worker)( serve)?( --orders=false)?( 2?>>.*)?$", "serve"),
    # NATS.
    (r"nats-server --config", "run"),
    (r"nats context ", "run"),
    (r"nats sub\b", "serve"),
    (r"nats (stream (rm|purge|edit|backup|restore)|consumer (rm|pause|resume|cluster))\b", "spare"),
    (r"nats (stream cluster peer-remove|server cluster peer-remove)", "late"),
    (r"nats (stream|consumer|server|micro|req|account)\b", "run"),
    # The shell.
    (r"(export|mkdir|ls|cat|for|cd|umask) ", "run"),
    (r"openssl ", "run"),
]

# Commands that the text shortens, in full.
FULL = {
    "gateway dead-letters": "gateway dead-letters list",
    "gateway doctor": "gateway doctor --as-operator",
    "gateway backup": "gateway backup FOLDER-TO-BE",
    "gateway restore": "gateway restore FOLDER",
    "inventory-worker stock": "inventory-worker stock export -",
    "nats micro": "nats micro ls",
    "nats req": """nats req check_inventory '[{"productId":"lamp","quantity":1}]'""",
    "nats stream info": "nats stream info ORDERS",
    "nats stream state": "nats stream state ORDERS",
    "nats stream get": "nats stream get ORDERS 1",
    "nats stream edit": "nats stream edit DEAD_LETTERS",
    "nats stream rm": "nats stream rm DEAD_LETTERS",
    "nats stream purge": "nats stream purge DEAD_LETTERS",
    "nats stream backup": "nats stream backup ORDERS saved-orders",
    "nats stream restore": "nats stream restore saved-orders",
    "nats stream cluster": "nats stream cluster step-down ORDERS",
    "nats stream cluster step-down": "nats stream cluster step-down ORDERS",
    "nats stream cluster peer-remove": "nats stream cluster peer-remove ORDERS nats-2",
    "nats consumer ls": "nats consumer ls ORDERS",
    "nats consumer report": "nats consumer report ORDERS",
    "nats consumer info": "nats consumer info ORDERS inventory-worker",
    "nats consumer add": "nats consumer add ORDERS subscriber --pull --filter 'orders.event.*.*' --ack explicit --deliver all --defaults",
    "nats consumer rm": "nats consumer rm ORDERS inventory-worker",
    "nats consumer pause": "nats consumer pause ORDERS inventory-worker 1m",
    "nats consumer resume": "nats consumer resume ORDERS inventory-worker",
    "nats consumer cluster": "nats consumer info ORDERS inventory-worker",
    "nats server report": "nats server report jetstream",
    "nats server cluster": "nats server cluster step-down",
    "nats server cluster peer-remove": "nats server cluster peer-remove nats-2",
    "nats server passwd": "nats server passwd --generate",
    "nats sub": "nats sub order_created",
    "gateway keys new": "gateway keys new till --scopes orders.create",
}

# Placeholders for values of the reader. Names in the text stay.
FIXTURES = [
    # A reader's consumer has a random name; the one that is there is known.
    (r"nats consumer rm (?:\{stream\}|ORDERS) (?:\{consumer\}|CONSUMER) -f", "nats consumer rm ORDERS inventory-worker -f"),
    (r"\{\{ \$labels\.stream \}\}|\{stream\}|\bNAME\b(?!=)", "DEAD_LETTERS"),
    (r"\{CONSUMER\}", "inventory-worker"),
    # Names of machines, and a path on one of them.
    (r"(export .*)NATS_URL=tls://\S+( NATS_CA=\S+)?", r"\1NATS_URL=@URLS@"),
    (r"GW_NATS_MONITOR_URL=http://nats-0\S+", "GW_NATS_MONITOR_URL=@MONITORS@"),
    (r"/etc/nats/tls/tls\.crt", "tls.crt"),
    (r"\{REPLICAS\}|\{wanted\}", "REPLICAS-OF-IT"),
    (r"(dead-letters (?:show|replay|discard)) (?:\d+|ID|\{id\})", r"\1 @LETTER@"),
    (r"--why TEXT", "--why 'a test of the documents'"),
    (r"nats stream get ORDERS N", "nats stream get ORDERS 1"),
    (r"stream get INVENTORY \d+", "stream get INVENTORY 1"),
    # The id of request my-1, which is placed with `gateway dev`; on the cluster doc-0 is.
    (r"(last-for orders\.event\.order_created\.)71d9efea-\S+", r"\1b241522a-83ba-53b0-b075-fcb25b6572bb"),
    (r"\bFILE\.csv\b", "counted.csv"),
    (r"PRODUCT…", "chair"),
    (r"(nats-\d),…", r"\1,127.0.0.1"),
    (r"/backups/monday|(?<!\w)backups/monday|\bFOLDER\b(?!-)", "BACKUP"),
    (r"NATS_CREDS=\S*?(\w+)\.creds", r"NATS_USER=\1 GW_NATS_PASSWORD_FILE=passwords/\1"),
    (r"--creds \S*?(\w+)\.creds", r"--context \1"),
    (r"NATS_USER=(\w+) GW_NATS_PASSWORD_FILE=…", r"NATS_USER=\1 GW_NATS_PASSWORD_FILE=passwords/\1"),
]


class Run:
    def __init__(self, work, programs, nats_server):
        self.work, self.table = Path(work), roles()
        self.plant, self.nats_server = Plant(work, programs, nats_server), nats_server
        self.bin = self.work / "bin"
        self.bin.mkdir()
        tools = ROOT / "target/ci-tools/bin"
        for program, path in [
            *((name, Path(programs).resolve() / name) for name in ("gateway", "inventory-worker", "loadtest", "spec")),
            *((name, tools / name) for name in ("nats", "grpcurl", "buf", "promtool")),
            ("nats-server", Path(nats_server).resolve()),
        ]:
            if path.exists():
                (self.bin / program).symlink_to(path)
        self.counted, self.seen, self.boxes, self.states = itertools.count(), {}, {}, {}
        self.faults, self.done, self.told = [], 0, {}

    # --- the cluster ------------------------------------------------------------------------------------------------------

    def prepare(self):
        plant = self.plant
        self.nodes = plant.start_nats()
        self.must("gateway provision", "provisioner", {"GW_STREAM_REPLICAS": "3"})
        (self.work / "counted.csv").write_text("product,on_hand\nlamp,900\nchair,0\n")
        self.must("inventory-worker stock import counted.csv", "operator")
        self.workers = [plant.worker(f"worker-{number}") for number in range(2)]
        plant.gateway()
        for number in range(3):
            self.order(number)
        within(LIMIT, "the events are worked off", lambda: '"num_pending": 0' in self.must("nats consumer info ORDERS inventory-worker --json", "operator"))
        (self.work / "baskets.csv").write_text("order,customer,product,quantity,time\n1,ann,lamp,1,2026-01-01T00:00:00Z\n")
        (self.work / "stock.csv").write_text("product,on_hand\nlamp,100\n")
        (self.work / "credentials").mkdir()
        for role in ("provisioner", "gateway", "worker", "operator"):
            (self.work / "credentials" / f"{role}.creds").write_text("not a secret\n")
        self.must("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost "
                  "-addext subjectAltName=DNS:localhost -days 30 -keyout tls.key -out tls.crt && cp tls.crt ca.crt", None)
        self.must("gateway keys new till --scopes orders.create,inventory.check | tail -n 1 >keys", None)
        self.must("gateway backup backup", "operator")
        # A server for destructive commands.
        spare = self.work / "spare"
        spare.mkdir()
        self.spare = Plant(spare, plant.programs, self.nats_server, nodes=1)
        self.spare.start_nats()
        self.restock()
        worker = self.spare.worker()
        self.spare.end([worker])

    def order(self, number):
        wish = {"requestId": f"doc-{number}", "customerId": "ann", "items": [{"productId": "lamp", "quantity": 1}]}
        self.must(f"grpcurl -plaintext -d '{json.dumps(wish)}' 127.0.0.1:{self.plant.grpc} orders.v1.OrderService/CreateOrder", None)

    def letter(self):
        """Stores a dead letter of the first order's first event, which a worker can replay, and returns its id."""
        event = json.loads(self.must("nats stream get ORDERS 1 --json", "operator"))
        subject = event["subject"]
        order = subject.rsplit(".", 1)[1]
        headers = f"-H Dead-Letter-Subject:{subject} -H Dead-Letter-Sequence:1 -H 'Dead-Letter-Error:made by a test'"
        self.must(f"nats req dead_letters.orders.{order} '' {headers}", "worker")
        listed = self.must("gateway dead-letters list --json", "operator").splitlines()
        return json.loads(listed[-1])["id"]

    def restock(self):
        """Creates the streams and the workers' consumer on the spare server."""
        self.must("gateway provision", "provisioner", plant=self.spare)

    # --- one command ------------------------------------------------------------------------------------------------------

    def environment(self, role, plant=None):
        plant = plant or self.plant
        base = {key: value for key, value in os.environ.items() if not key.startswith(("NATS_", "GW_"))}
        base.update(PATH=f"{self.bin}:{os.environ['PATH']}", XDG_CONFIG_HOME=str(plant.work / "config"), NO_COLOR="1", USER="ann")
        return {**base, **(plant.role(role) if role else {})}

    def must(self, text, role, more=None, plant=None):
        """Runs a command of a fixture, which is in no document."""
        environment = {**self.environment(role, plant), **(more or {})}
        done = subprocess.run(["bash", "-c", text], cwd=self.work, env=environment, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def box(self, document):
        """A folder for a document's commands, with all files that they name."""
        if document not in self.boxes:
            box = self.work / f"box-{len(self.boxes)}"
            box.mkdir()
            for path in [*self.work.glob("*.c[sr]*"), self.work / "tls.key", self.work / "keys", self.work / "passwords", self.work / "credentials"]:
                (box / path.name).symlink_to(path)
            for path in ("deploy", ".ci", "proto", "target", "fuzz"):
                (box / path).symlink_to(ROOT / path)
            for name in ("gateway.txt", "worker.txt"):
                (box / name).write_text("")
            self.boxes[document] = box
        return self.boxes[document]

    def full(self, text):
        text = FULL.get(text, text)
        for pattern, fixture in FIXTURES:
            text = re.sub(pattern, fixture, text)
        text = text.replace("REPLICAS-OF-IT", "1" if "--replicas" in text else "3")
        text = text.replace("FOLDER-TO-BE", str(self.work / f"backup-{next(self.counted)}"))
        if text.endswith(" backup BACKUP"):
            text = text.replace("BACKUP", str(self.work / f"backup-{next(self.counted)}"))
        text = text.replace("BACKUP", str(self.work / "backup"))
        if "@LETTER@" in text:
            text = text.replace("@LETTER@", str(self.letter()))
        # Instead of passwords that a document generates, those of the cluster are used.
        text = text.replace("GW_NATS_PASSWORD_FILE=passwords/", f"GW_NATS_PASSWORD_FILE={self.plant.passwords}/")
        text = text.replace("@URLS@", self.plant.urls).replace("@MONITORS@", self.plant.monitors)
        text = re.sub(r"(--server[= ]|NATS_URL=)nats://127\.0\.0\.1:4222", rf"\g<1>{self.plant.urls}", text)
        text = re.sub(r"cargo run --release --bin (\w+) --", r"\1", text)
        text = text.replace("target/dist/loadtest", "loadtest")
        # The command asks for confirmation; nobody is there to confirm.
        if re.match(r"(?:nats |.* )?(?:--context \w+ )?(stream (rm|purge|edit)|consumer (rm|pause|resume|edit)|server cluster (peer-remove|step-down)|stream cluster peer-remove)\b", text) and not re.search(r" -f\b", text):
            text += " --force"
        if re.match(r"nats stream edit \w+ --force", text):
            text = text.replace(" --force", " --description edited --force")
        return text

    def addressed(self, text, grpc, http):
        text = re.sub(r"(127\.0\.0\.1|localhost|0\.0\.0\.0):50051", rf"\1:{grpc}", text)
        return re.sub(r"(127\.0\.0\.1|localhost):8080", rf"\1:{http}", text)

    def one(self, command):
        if command.mark == "compose":
            # Run from the same text on real containers.
            self.told.setdefault("run by .ci/containers", []).append(command.text)
            return
        plain = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", command.text)
        plain = re.sub(r"^nats (?:--?[\w-]+ \S+ )+", "nats ", plain)
        rule = next((how for pattern, how in RULES if re.match(pattern, plain)), None)
        if rule == "name":
            return
        if rule is None:
            return self.fault(command, "no rule of .ci/commands.py knows what to do with it")
        role = role_of(command.text, self.table)
        ours = re.match(r"(nats (stream|consumer|server (list|report|info|cluster)|micro|req|account|sub)|gateway (provision|backup|restore|reconcile|dead-letters|doctor)|inventory-worker stock)\b", plain)
        if ours and role is None and rule not in ("parse",) and not command.mark:
            if not re.match(r"nats stream (backup|restore)", plain):
                return self.fault(command, "docs/operate.md does not say which role runs it")
            role = "operator"
        key = (rule, role, command.mark, command.text if command.kind != "block" else command.where)
        if key in self.seen:
            return
        self.seen[key] = command
        self.plant.violations()
        try:
            said = self.act(command, rule, role)
        except Exception as error:  # noqa: BLE001: each fault is told, and the others are run
            return self.fault(command, f"{type(error).__name__}: {error}")
        refused = self.plant.violations()
        if refused:
            return self.fault(command, f"the server refused: {refused[0]}")
        if said is None and rule != "late":
            self.done += 1
            print(f"ok       {role or '-':18} {command.where:32} {command.text}", flush=True)
        elif said is not None:
            self.told.setdefault(said, []).append(command.text)

    def act(self, command, rule, role):
        """Runs it. Returns why it was not run, or None."""
        text = command.text
        if rule == "parse":
            text = self.full(text)
            self.shell(command, f"{text} --help", None)
        elif rule.startswith("a check of its own"):
            script = ROOT / text.split()[0]
            assert os.access(script, os.X_OK), f"{script} cannot be executed"
            return rule
        elif rule == "client":
            self.client(command)
        elif rule == "serve":
            self.serve(command, role)
        elif rule == "spare":
            self.spared(command, role)
        elif rule == "late":
            self.late.append((command, role))
        elif rule == "run":
            self.run(command, role)
        else:
            return rule
        return None

    def run(self, command, role):
        text = self.full(command.text)
        # Servers are not started; only their configuration is checked.
        text = re.sub(r"nats-server --config (\S+)(?: >\S+ 2>&1 &)?", r"nats-server -t --config \1 || exit 1;", text).removesuffix(" || exit 1;")
        if re.match(r"mkdir .*passwords", text):
            (self.box(command.where.split(":")[0]) / "passwords").unlink()
        if text.startswith("inventory-worker healthcheck"):
            return self.shell(command, f"{text} --help", None)
        grpc, http = (self.dev[1], self.dev[2]) if command.mark == "dev" else (self.plant.grpc, self.plant.http)
        text = self.addressed(text, grpc, http)
        more = {"GW_GRPC_ADDR": f"127.0.0.1:{grpc}"} if "healthcheck" in text else {}
        if command.mark == "dev":
            role, more = None, {"NATS_URL": self.dev[0]}
        if text.startswith("gateway provision"):
            more["GW_STREAM_REPLICAS"] = "3"
        self.shell(command, text, role, more)

    def spared(self, command, role):
        text, plant = self.full(command.text), self.spare
        if "restore" in text.split():
            for name in ("ORDERS", "INVENTORY", "OBJ_inventory-snapshots", "DEAD_LETTERS"):
                subprocess.run(["bash", "-c", f"nats stream rm {name} --force"], env=self.environment("breakglass", plant), capture_output=True, timeout=LIMIT)
            text += " --replicas 1"
        elif " consumer " in text:
            self.restock()
            plant.end([plant.worker(f"worker-{next(self.counted)}")])
            if " resume " in text:
                self.must("nats consumer pause ORDERS inventory-worker 1h --force", "breakglass", plant=plant)
        else:
            self.restock()
        plant.violations()
        self.shell(command, text, role, plant=plant)
        refused = plant.violations()
        assert not refused, refused

    def client(self, command):
        text = command.text
        if "apply -k" in text:
            text = "kubectl kustomize " + text.split("-k ")[1]
        else:
            text += " --dry-run=client"
        self.shell(command, text, None)

    def serve(self, command, role):
        text = self.addressed(self.full(command.text), self.plant.grpc, self.plant.http)
        ports = {name: f"127.0.0.1:{free_port()}" for name in ("GW_GRPC_ADDR", "GW_HTTP_ADDR", "GW_HEALTH_ADDR")}
        ours = re.match(r"(?:[A-Z_]+=\S+ )*(gateway|inventory-worker)", text)
        if ours:
            text = re.sub(r"\bGW_(GRPC_ADDR|HTTP_ADDR|HEALTH_ADDR)=\S+ ", "", text)
            role = role or {"gateway": "gateway", "inventory-worker": "worker"}[ours.group(1)]
        if "gateway dev" in text:
            text += f" --data-dir {self.work}/dev-{next(self.counted)} --nats-port {free_port()}"
            role = None
        more = ports if ours else {}
        if command.mark == "dev" and "gateway dev" not in text:
            text, role, more = self.addressed(command.text, self.dev[1], self.dev[2]), None, {"NATS_URL": self.dev[0]}
        log = open(self.work / "served.log", "wb+")
        environment = {**self.environment(role), **more}
        child = subprocess.Popen(["bash", "-c", f"exec env {text}" if ours else f"exec {text}"], cwd=self.box(command.where.split(":")[0]), env=environment,
                                 stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.plant.children.append(child)
        try:
            if "gateway dev" in text:
                within(LIMIT, "it is ready", lambda: child.poll() is not None or b"\nready" in Path(log.name).read_bytes())
            elif ours:
                port = int(ports["GW_HTTP_ADDR"].rsplit(":", 1)[1])
                within(LIMIT, "it serves", lambda: child.poll() is not None or (b"gateway_build_info" if "--orders=false" in text else b"jetstream") in self.metrics(port))
            else:
                time.sleep(GOES_ON)
            said = Path(log.name).read_text(errors="replace")
            assert child.poll() is None, f"it ended with {child.returncode}: {said[-800:]}"
            assert not REFUSED.search(said), said[-800:]
        finally:
            self.plant.end([child], signal.SIGINT if "gateway dev" in text else signal.SIGTERM)

    @staticmethod
    def metrics(port):
        import urllib.request

        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                return answer.read()
        except OSError:
            return b""

    def shell(self, command, text, role, more=None, plant=None):
        """Runs it in a shell, and keeps its exports for the rest of its block."""
        document = command.where.split(":")[0]
        block = (document, command.block) if command.kind == "block" else None
        state = self.work / "state"
        state.unlink(missing_ok=True)
        environment = {**self.environment(role, plant), **self.states.get(block, {}), **(more or {})}
        script = f"set -o pipefail\n{text}\ncode=$?\nenv -0 >{state}\nexit $code"
        done = subprocess.run(["bash", "-c", script], cwd=self.box(document), env=environment, capture_output=True, text=True,
                              timeout=LIMIT, stdin=subprocess.DEVNULL)
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"exit code {done.returncode} of {text!r}: {said[-800:]}"
        assert not REFUSED.search(said), said[-800:]
        if block and state.exists() and re.match(r"export |for .*export ", text):
            after = dict(pair.split("=", 1) for pair in state.read_text().split("\0") if "=" in pair)
            own = {key: value for key, value in after.items() if environment.get(key) != value and key not in ("_", "SHLVL")}
            self.states[block] = {**self.states.get(block, {}), **own}

    def fault(self, command, why):
        self.faults.append(f"{command.where}: `{command.text}`: {why}")
        if command.where != "control":
            print(f"FAILED   {self.faults[-1]}", flush=True)

    # --- all --------------------------------------------------------------------------------------------------------------

    def start_dev(self):
        nats, grpc, http = free_port(), free_port(), free_port()
        environment = {**self.environment(None), "GW_GRPC_ADDR": f"127.0.0.1:{grpc}", "GW_HTTP_ADDR": f"127.0.0.1:{http}"}
        command = [self.plant.programs / "gateway", "dev", "--data-dir", str(self.work / "dev"), "--nats-port", str(nats)]
        child = self.plant.start(command, "dev", environment)
        log = self.work / "dev.log"
        within(LIMIT, "gateway dev is ready", lambda: child.poll() is not None or "\nready" in log.read_text())
        assert child.poll() is None, log.read_text()
        self.dev = (f"nats://127.0.0.1:{nats}", grpc, http)
        return child

    def bites(self):
        """Negative controls: an unknown command, one that fails, and one that its role may not run have to be detected."""
        controls = ["nats frobnicate ORDERS", "gateway dead-letters lst", "nats --context operator stream rm ORDERS", "nats --context system stream info ORDERS"]
        for text in controls:
            self.one(Command("control", text, "span"))
        assert len(self.faults) == len(controls), self.faults
        self.faults.clear()

    def all(self):
        started = time.monotonic()
        self.late = []
        self.prepare()
        dev = self.start_dev()
        print(f"commands: prepared after {time.monotonic() - started:.0f} s", flush=True)
        self.bites()
        for command in everything():
            self.one(command)
        self.plant.end([dev], signal.SIGINT)
        # A node that is lost for good.
        self.plant.end([self.nodes[2]])
        within(LIMIT, "the others have a leader", lambda: any(
            Plant.fetch(monitor, "/jsz").get("meta_cluster", {}).get("leader") in ("nats-0", "nats-1") for _, monitor, _ in self.plant.ports[:2]
        ))
        for command, role in self.late:
            try:
                self.shell(command, self.full(command.text), role)
                self.done += 1
                print(f"ok       {role:18} {command.where:32} {command.text}, with a node lost", flush=True)
            except Exception as error:  # noqa: BLE001
                self.fault(command, str(error))
        for why, texts in sorted(self.told.items()):
            print(f"not run: {why}:")
            for text in sorted(set(texts)):
                print(f"           {text}")
        print(f"commands: {self.done} run, {sum(len(set(texts)) for texts in self.told.values())} not run, {len(self.faults)} failed; "
              f"{', '.join(sorted(HISTORY))} is history; {time.monotonic() - started:.0f} s")
        return 1 if self.faults else 0


with tempfile.TemporaryDirectory() as work:
    run, code = Run(work, sys.argv[1], sys.argv[2]), 1
    try:
        code = run.all()
    except BaseException:
        traceback.print_exc()
        for path in sorted(Path(work).glob("*.log")):
            print(f"--- {path.name}\n" + "".join(path.read_text(errors="replace").splitlines(keepends=True)[-12:]))
    finally:
        run.plant.end()
        if hasattr(run, "spare"):
            run.spare.end()
sys.exit(code)

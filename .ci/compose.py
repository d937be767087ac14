"""The subset of `docker compose` that the check of the containers needs, on podman, from docker-compose.yml as it is. An
unknown key is an error, and so is a missing image. Images that the file builds are `order-gateway/TARGET:ci`. Health
checks are run from here, as podman leaves them to systemd.

Usage, as docker has it: compose.py [-f FILE]... [--profile NAME]... COMMAND
    up [-d] [--build] [--wait] [--scale SERVICE=N]...  |  run [--rm] [-T] SERVICE ARGUMENT...
    exec [-T] SERVICE COMMAND...  |  stop [SERVICE]...  |  down [-v]"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import yaml

KNOWN = {
    "build", "cap_add", "cap_drop", "command", "depends_on", "deploy", "entrypoint", "environment", "healthcheck", "image",
    "mem_limit", "network_mode", "ports", "profiles", "read_only", "restart", "security_opt", "stop_grace_period", "tmpfs",
    "user", "volumes",
}


class Override(list):
    """A list that replaces the one of the previous file."""


class Loader(yaml.SafeLoader):
    pass


Loader.add_constructor("!override", lambda loader, node: Override(loader.construct_sequence(node, deep=True)))


def podman(*arguments, check=True, stdin=subprocess.DEVNULL, **options):
    return subprocess.run(["podman", *arguments], check=check, text=True, stdin=stdin, **options)


def said(*arguments):
    return podman(*arguments, stdout=subprocess.PIPE).stdout.strip()


def seconds(text):
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h)", text))


def merged(base, more):
    """Merges two files: mappings by key, lists concatenated, anything else replaced."""
    if isinstance(base, dict) and isinstance(more, dict):
        return base | {key: merged(base[key], value) if key in base else value for key, value in more.items()}
    if isinstance(base, list) and isinstance(more, list) and not isinstance(more, Override):
        return base + more
    return more


def filled(value):
    """Substitutes environment variables and `$$` in a value of the file."""
    if isinstance(value, dict):
        return {key: filled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each) for each in value]
    if not isinstance(value, str):
        return value

    def variable(found):
        name, default, escaped = found["name"], found["default"], found["escaped"]
        return "$" if escaped else os.environ.get(name) or default or ""

    return re.sub(r"(?P<escaped>\$\$)|\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}", variable, value)


class Compose:
    def __init__(self, files, profiles):
        document = {}
        for file in files:
            document = merged(document, yaml.load(Path(file).read_text(), Loader))
        document = filled(document)
        self.project, self.services = document["name"], document["services"]
        self.named, self.profiles = document.get("volumes") or {}, set(profiles)
        for name, service in self.services.items():
            unknown = set(service) - KNOWN
            assert not unknown, f"{name}: {', '.join(sorted(unknown))}: not known to {sys.argv[0]}"

    def wanted(self):
        """The services of the active profiles, dependencies first."""
        order = []

        def add(name):
            for other in self.services[name].get("depends_on") or {}:
                add(other)
            if name not in order:
                order.append(name)

        for name, service in self.services.items():
            if not service.get("profiles") or self.profiles & set(service["profiles"]):
                add(name)
        return order

    def replicas(self, name, scale):
        return scale.get(name, (self.services[name].get("deploy") or {}).get("replicas", 1))

    def containers(self, name, *more):
        """Containers of one service, or of all."""
        labels = ["--filter", f"label=project={self.project}"] + (["--filter", f"label=service={name}"] if name else [])
        return said("ps", "--all", "--format", "{{.Names}}", "--sort", "names", *labels, *more).split()

    def image(self, name):
        service = self.services[name]
        return f"localhost/order-gateway/{service['build']['target']}:ci" if "build" in service else service["image"]

    def options(self, name, number, ports=True):
        """podman's arguments for a service; `number` is the replica's."""
        service = self.services[name]
        yield from ("--pull", "never", "--label", f"project={self.project}", "--label", f"service={name}")
        if "network_mode" in service:
            yield from ("--network", service["network_mode"])
        else:
            yield from ("--network", f"{self.project}_default", "--network-alias", name)
        for key, value in (service.get("environment") or {}).items():
            yield from ("--env", f"{key}={value}")
        for volume in service.get("volumes") or []:
            source, rest = volume.split(":", 1)
            mine = f"{self.project}_{source}" if source in self.named else str(Path(source).resolve())
            yield from ("--volume", f"{mine}:{rest}")
        for port in (service.get("ports") or []) if ports else []:
            yield from ("--publish", nth(port, number))
        flags = {"cap_add": "--cap-add", "cap_drop": "--cap-drop", "security_opt": "--security-opt", "tmpfs": "--tmpfs"}
        for key, flag in flags.items():
            for value in service.get(key) or []:
                yield from (flag, value.replace("no-new-privileges:true", "no-new-privileges"))
        if service.get("read_only"):
            # As in Docker; podman would mount a tmpfs on /tmp, /run and /var/tmp.
            yield from ("--read-only", "--read-only-tmpfs=false")
        for key, flag in {"mem_limit": "--memory", "user": "--user"}.items():
            if key in service:
                yield from (flag, str(service[key]))
        if "mem_limit" in service:
            yield from ("--memory-swap", str(service["mem_limit"]))
        if "stop_grace_period" in service:
            yield from ("--stop-timeout", str(int(seconds(service["stop_grace_period"]))))
        if "healthcheck" in service:
            kind, *test = service["healthcheck"]["test"]
            assert kind == "CMD" and len(test) > 1, f"{name}: this kind of health check is not supported"
            # podman prepends CMD to a list of more than one word by itself.
            yield from ("--health-cmd", json.dumps(test))
        if "entrypoint" in service:
            yield from ("--entrypoint", json.dumps(service["entrypoint"]))

    def up(self, scale):
        if podman("network", "exists", f"{self.project}_default", check=False).returncode:
            said("network", "create", f"{self.project}_default")
        order = self.wanted()
        for name in order:
            self.conditions(name)
            count = self.replicas(name, scale)
            for number in range(1, count + 1):
                self.start(name, number)
            for more in self.containers(name)[count:]:
                said("rm", "--force", "--time", "30", more)
        for name in order:
            waits = "service_healthy" if "healthcheck" in self.services[name] else "service_completed_successfully"
            if "healthcheck" in self.services[name] or self.services[name].get("restart") == "no":
                self.holds(name, waits)

    def start(self, name, number):
        service, container = self.services[name], f"{self.project}-{name}-{number}"
        restart = service.get("restart", "no")
        command = [*self.options(name, number), "--restart", "always" if restart == "unless-stopped" else restart,
                   self.image(name), *(service.get("command") or [])]
        digest = hashlib.sha256(json.dumps([command, said("image", "inspect", "--format", "{{.Id}}", self.image(name))]).encode())
        if container in self.containers(name, "--filter", f"label=digest={digest.hexdigest()}"):
            said("start", container)
            return
        if container in self.containers(name):
            said("rm", "--force", "--time", "30", container)
        said("run", "--detach", "--name", container, "--label", f"digest={digest.hexdigest()}", *command)

    def conditions(self, name):
        for other, how in (self.services[name].get("depends_on") or {}).items():
            self.holds(other, how["condition"])

    def holds(self, name, condition):
        """Waits until the service is healthy, for as long as it may take."""
        health = self.services[name].get("healthcheck") or {}
        limit = time.monotonic() + 30 + health.get("retries", 3) * seconds(health.get("interval", "30s"))
        for container in self.containers(name):
            while not self.holds_now(container, condition):
                if time.monotonic() > limit:
                    podman("logs", "--tail", "20", container, check=False)
                    sys.exit(f"{container}: not yet {condition}")
                time.sleep(0.2)

    def holds_now(self, container, condition):
        state = json.loads(said("inspect", container))[0]["State"]
        if condition == "service_healthy":
            return state["Running"] and self.healthy(container)
        if state["Status"] in ("exited", "stopped") and state["ExitCode"]:
            podman("logs", "--tail", "20", container, check=False)
            sys.exit(f"{container} ended with {state['ExitCode']}")
        return state["Status"] in ("exited", "stopped")

    @staticmethod
    def healthy(container):
        """Whether the container's health check passes."""
        return podman("healthcheck", "run", container, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def run(self, name, arguments):
        self.conditions(name)
        # Standard input is passed on, as with docker.
        return podman("run", "--rm", "--interactive", *self.options(name, 1, ports=False), self.image(name),
                      *(arguments or self.services[name].get("command") or []), check=False, stdin=None).returncode

    def execute(self, name, command):
        return podman("exec", "--interactive", self.containers(name)[0], *command, check=False, stdin=None).returncode

    def stop(self, names):
        for name in names or reversed(self.wanted()):
            if self.containers(name):
                said("stop", *self.containers(name))

    def down(self, volumes):
        for container in self.containers(None):
            said("rm", "--force", "--time", "30", container)
        podman("network", "rm", "--force", f"{self.project}_default", stdout=subprocess.DEVNULL)
        for volume in self.named if volumes else []:
            podman("volume", "rm", "--force", f"{self.project}_{volume}", stdout=subprocess.DEVNULL)


def nth(port, number):
    """The port of a replica: the first replica gets the first port of a range."""
    return re.sub(r"(\d+)-(\d+)(?=:)", lambda found: str(int(found[1]) + number - 1), port)


def arguments(words):
    parser = argparse.ArgumentParser(prog="docker compose", usage=__doc__)
    parser.add_argument("-f", "--file", action="append")
    parser.add_argument("--profile", action="append", default=[])
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up")
    for flag in ("-d", "--build", "--wait"):
        up.add_argument(flag, action="store_true")
    up.add_argument("--scale", action="append", default=[])
    for name in ("run", "exec"):
        one = commands.add_parser(name)
        one.add_argument("-T", action="store_true")
        if name == "run":
            one.add_argument("--rm", action="store_true")
        one.add_argument("service")
        one.add_argument("arguments", nargs=argparse.REMAINDER)
    commands.add_parser("stop").add_argument("services", nargs="*")
    commands.add_parser("down").add_argument("-v", action="store_true")
    return parser.parse_args(words)


def main(words):
    said_ = arguments(words)
    compose = Compose(said_.file or ["docker-compose.yml"], said_.profile)
    if said_.command == "up":
        return compose.up({name: int(count) for name, count in (each.split("=") for each in said_.scale)})
    if said_.command == "run":
        return compose.run(said_.service, said_.arguments)
    if said_.command == "exec":
        return compose.execute(said_.service, said_.arguments)
    if said_.command == "stop":
        return compose.stop(said_.services)
    return compose.down(said_.v)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

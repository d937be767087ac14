"""Runs documents from their text: see .ci/tutorial."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from waiting import listens, within

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL, LIBRARY = "docs/tutorial.md", "examples/library/README.md"
TEXT = (ROOT / TUTORIAL).read_text()
# What is started and goes on, and the line that says that it is there. The first build may take long.
STARTED = {
    r"cargo run .* dev ": ("ready", 900),
    r"python3 examples/greeter/service.py ": ("greeter: answers", 30),
    r"cd examples/greeter && go run ": ("greeter: answers", 240),
    r"python3 examples/library/service.py ": ("library: answers", 30),
}
CALL = "grpcurl -plaintext -d '{\"name\":\"ann\"}'"


def commands(text=TEXT):
    """Each command, and what it prints."""
    for block in re.findall(r"```console\n(.*?)```", text, re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, printed = part.partition("\n")
            yield command, printed


class Tutorial:
    def __init__(self, folder):
        self.folder, self.running, self.ran = Path(folder), {}, 0
        self.env = {**os.environ, "GW_DATA_DIR": str(self.folder / "data")}

    def start(self, command, line, patience):
        log = self.folder / f"{len(self.running)}.log"
        self.running[command] = subprocess.Popen(
            ["bash", "-c", command], cwd=ROOT, env=self.env, stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True
        )
        child = self.running[command]
        try:
            within(patience, f"{command} prints {line!r}", lambda: child.poll() is not None or line in log.read_text())
            assert child.poll() is None, f"{command} ended"
        except AssertionError:
            sys.exit(f"FAILED: {command}\n{log.read_text()[-3000:]}")

    def run(self, command, printed):
        done = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
        )
        wanted = "".join(".*" if line == "…" else re.escape(line + "\n") for line in printed.splitlines())
        failed = done.returncode != 0 and not printed.startswith("ERROR")
        if failed or (printed and not re.fullmatch(wanted, done.stdout, re.S)):
            sys.exit(f"FAILED: {command}\nexit code {done.returncode}, printed:\n{done.stdout}\nthe tutorial says:\n{printed}")

    def follow(self, text):
        for command, printed in commands(text):
            known = next((said for pattern, said in STARTED.items() if re.match(pattern, command)), None)
            self.start(command, *known) if known else self.run(command, printed)
            print(f"ok: {command}", flush=True)
            self.ran += 1

    def either_service_answers_alone(self):
        call = next((command, printed) for command, printed in commands() if command.startswith(CALL))
        self.stop(next(command for command in self.running if "service.py" in command))
        self.run(*call)

    def a_mistake_is_told(self):
        """The line that the text shows for a subject with a space."""
        told = re.search(r"```\n(greeter\.proto:.*?\n)```", TEXT, re.S).group(1)
        wrong = self.folder / "greeter.proto"
        wrong.write_text((ROOT / "examples/greeter/greeter.proto").read_text().replace('"say_hello"', '"say hello"'))
        done = subprocess.run(["gateway", "routes", "check", wrong], env=self.env, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, told), f"{done}\nthe tutorial says:\n{told}"

    def stop(self, command):
        child = self.running.pop(command)
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


def run(document, *checks):
    with tempfile.TemporaryDirectory() as folder:
        tutorial = Tutorial(folder)
        try:
            tutorial.follow((ROOT / document).read_text())
            for check in checks:
                check(tutorial)
        finally:
            for command in list(tutorial.running):
                tutorial.stop(command)
    print(f"{tutorial.ran} commands of {document} ran as written")


def main():
    taken = [port for port in (50051, 8080) if listens(port)]
    if taken:
        sys.exit(f"FAILED: something listens on {taken}, which the tutorial needs")
    run(TUTORIAL, Tutorial.either_service_answers_alone, Tutorial.a_mistake_is_told)
    run(LIBRARY)


main()

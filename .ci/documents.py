"""The commands of documents, runbooks and hints as they are there, and the table of docs/operate.md with the role of each.
Does not depend on how they are run."""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A text in backquotes or after `$ ` that starts with one of these is a command.
PROGRAMS = (
    "nats gateway inventory-worker loadtest spec cargo grpcurl ghz buf curl promtool kubectl helm docker podman kind nsc nats-server "
    "openssl systemctl journalctl apt apt-get dpkg pip npm go amtool age etcdctl"
).split()
PATHS = r"(?:\.ci|fuzz|deploy|target)/\S+"
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:(?:{'|'.join(map(re.escape, PROGRAMS))})(?= |$)|{PATHS})")
# Documents about the past, whose commands nobody types.
HISTORY = {"CHANGELOG.md"}
# Crates whose texts operators do not read.
TOOLS = {"loadtest", "local-nats", "spec"}
MARK = re.compile(r"<!-- commands: (\w+) -->")


@dataclass
class Command:
    where: str
    text: str
    # "block": as typed; "span": in a sentence, possibly shortened; "hint": of a program.
    kind: str
    # Its block: lines of one block share their variables.
    block: int = 0
    # Text of a marker before the block: where it is run.
    mark: str = ""


def files(*patterns):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if (ROOT / name).exists()]


def comment_off(line):
    """A shell line without its comment."""
    quote = None
    for at, letter in enumerate(line):
        if quote:
            quote = None if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (at == 0 or line[at - 1] == " "):
            return line[:at].rstrip()
    return line.rstrip()


def of_document(name):
    text, found, block, mark = (ROOT / name).read_text(), [], 0, ""
    lines, fence, at = text.splitlines(), None, 0
    while at < len(lines):
        line, number = lines[at], at + 1
        at += 1
        opened = re.match(r"\s*```(\w*)", line)
        if opened:
            fence, block = (None, block) if fence is not None else (opened.group(1), block + 1)
            mark = "" if fence is None else mark
        elif fence is not None:
            if fence in ("console", "sh", "bash", "shell") and line.startswith("$ "):
                while line.endswith("\\"):
                    line = line[:-1].rstrip() + " " + lines[at].strip()
                    at += 1
                found.append(Command(f"{name}:{number}", comment_off(line[2:]), "block", block, mark))
        else:
            marked = MARK.search(line)
            mark = marked.group(1) if marked else mark if not line.strip() else ""
            for span in re.findall(r"`([^`]+)`", line):
                if COMMAND.match(span):
                    found.append(Command(f"{name}:{number}", span, "span"))
    return found


def of_alerts(name):
    return [
        Command(f"{name}:{number}", span, "span")
        for number, line in enumerate(joined((ROOT / name).read_text()), 1)
        for span in re.findall(r"`([^`]+)`", line)
        if COMMAND.match(span) and not line.lstrip().startswith("#")
    ]


def joined(text):
    """Lines of YAML: a text in backquotes may span two of them."""
    return re.sub(r"`([^`\n]*)\n\s*([^`\n]*)`", r"`\1 \2`\n", text).splitlines()


def of_source(name):
    """Hints: texts in backquotes in a program's messages."""
    text = (ROOT / name).read_text()
    text = text.split("#[cfg(test)]")[0]
    text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
    found = []
    for literal in re.findall(r'"((?:[^"\\]|\\.)*)"', text, re.S):
        literal = re.sub(r"\\\n\s*", "", literal)
        for span in re.findall(r"`([^`]+)`", literal):
            if COMMAND.match(span):
                found.append(Command(name, span, "hint"))
        if re.match(r"nats (stream|consumer|server) \w+ ", literal):
            found.append(Command(name, literal, "hint"))
    return found


def everything():
    found = []
    for name in files("*.md"):
        if name not in HISTORY and not name.startswith("tests/"):
            found += of_document(name)
    for name in files("deploy/prometheus/*.yml"):
        found += of_alerts(name)
    for name in files("gateway/src/*.rs", "inventory-worker/src/*.rs", "crates/*/src/*.rs"):
        if name.split("/")[1] not in TOOLS:
            found += of_source(name)
    return found


def roles():
    """The roles by beginning of the command, from the table of docs/operate.md."""
    table = {}
    for line in (ROOT / "docs/operate.md").read_text().splitlines():
        row = re.match(r"\| `(\w+)` \| (`.*`) \|$", line)
        if row and row.group(1) in ROLES:
            for command in re.findall(r"`([^`]+)`", row.group(2)):
                table[command] = row.group(1)
    return table


ROLES = ["gateway", "worker", "provisioner", "operator", "subscriber", "catalog_publisher", "breakglass", "system", "breakglass_system"]


def role_of(text, table):
    """The role that runs a command, or None if it needs none."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    said = next((word.split("=", 1)[1] for word in words if word.startswith("NATS_USER=")), None)
    for flag in ("--context", "--user"):
        if flag in words:
            said = words[words.index(flag) + 1]
    for flag in ("--creds", "NATS_CREDS="):
        creds = re.search(rf"{flag}[ =]?\S*?(\w+)\.creds", text)
        said = creds.group(1) if creds else said
    # Without variables, and without global flags and their values.
    plain = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", text)
    plain = re.sub(r" --?(?:context|creds|inbox-prefix|js-api-prefix|server|s) \S+", "", plain)
    fitting = [prefix for prefix in table if plain == prefix or plain.startswith(prefix + " ")]
    return said or (table[max(fitting, key=len)] if fitting else None)

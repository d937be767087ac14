"""Checks the links of all tracked *.md files: files, anchors, images, and paths in backquotes. Needs no network. Prints a line
`file:line: what` for each broken link, and exits with 1. Usage: links.py [--list], which also prints links to other sites."""

import os
import re
import sys
import unicodedata
from pathlib import Path
from urllib.parse import unquote

from documents import HISTORY, ROOT, files

INLINE = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^()\s>]+(?:\([^()\s]*\)[^()\s]*)?)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\s{0,3}\[[^\]]+\]:\s+<?(\S+?)>?(?:\s+.*)?$")
HTML = re.compile(r"""<(?:a|img)\b[^>]*?\b(?:href|src)=["']([^"']+)["']""")
ANCHOR = re.compile(r"""<a\b[^>]*?\b(?:id|name)=["']([^"']+)["']""")
BARE = re.compile(r"(?<![(<\[\"'`])\bhttps?://[^\s)>\]`]+")
HEADING = re.compile(r"\s{0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*$")
SPAN = re.compile(r"(`+)(.+?)\1")
# A path in backquotes is one of the repository if its first folder is, and if it has no placeholders.
PATH = re.compile(r"(?:\.\.?/)*[\w@.-]+(?:/[\w@.-]+)+/?|\w[\w-]*\.(?:md|rs|toml)")
# Paths that only a build or a run creates.
MADE = re.compile(r"target/|certs/|certificates/|credentials/|passwords/|backups/|try/")
# Names of files of the reader or of other programs.
THEIRS = {"mod.rs"}


class Document:
    """A document's links with their lines, its paths in backquotes, and its anchors."""

    def __init__(self, name, text):
        self.name, self.links, self.paths, self.anchors = name, [], [], set()
        fence, seen = None, {}
        for number, line in enumerate(text.splitlines(), 1):
            opened = re.match(r"\s*(```+|~~~+)", line)
            if opened and (fence is None or opened.group(1).startswith(fence)):
                fence = opened.group(1)[:3] if fence is None else None
                continue
            if fence is not None:
                continue
            heading = HEADING.match(line)
            if heading:
                self.anchors.add(anchor(heading.group(2), seen))
            self.anchors |= set(ANCHOR.findall(line))
            self.paths += [(number, span) for _, span in SPAN.findall(line)]
            # Links in code are not links; a link whose text is code is one.
            plain = SPAN.sub(lambda found: "x" * len(found.group(0)), line)
            for pattern in (INLINE, REFERENCE, HTML):
                self.links += [(number, target) for target in pattern.findall(plain)]
            self.links += [(number, target) for target in BARE.findall(INLINE.sub("", plain))]


def anchor(text, seen):
    """The anchor that hosting sites generate for a heading."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<[^>]+>", "", text).replace("`", "").replace("*", "")
    kept = (letter for letter in text.lower() if letter in " -_" or unicodedata.category(letter)[0] in "LN")
    slug = "".join(kept).replace(" ", "-")
    seen[slug] = seen.get(slug, -1) + 1
    return slug if seen[slug] == 0 else f"{slug}-{seen[slug]}"


class Links:
    def __init__(self):
        self.tracked = set(files("."))
        self.folders = {str(parent) for name in self.tracked for parent in Path(name).parents}
        self.documents = {name: Document(name, (ROOT / name).read_text()) for name in sorted(self.tracked) if name.endswith(".md")}
        self.faults, self.outside, self.inside, self.named = [], {}, 0, 0

    def fault(self, document, number, what):
        self.faults.append(f"{document.name}:{number}: {what}")

    def exists(self, path):
        path = path.rstrip("/") or "."
        return path in self.tracked or path in self.folders

    def resolve(self, document, path):
        """A target relative to the document as a path of the repository; None if it is outside."""
        base = ROOT if path.startswith("/") else (ROOT / document.name).parent
        try:
            return str(Path(os.path.normpath(base / path.lstrip("/"))).relative_to(ROOT))
        except ValueError:
            return None

    def link(self, document, number, target):
        if re.match(r"https?://", target):
            self.outside.setdefault(target.rstrip(".,;:"), f"{document.name}:{number}")
            return
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            return
        self.inside += 1
        path, _, fragment = target.partition("#")
        name = self.resolve(document, unquote(path)) if path else document.name
        if name is None or not (self.exists(name) or name in self.documents):
            return self.fault(document, number, f"there is no {target}")
        if not fragment:
            return
        leads = self.documents.get(name)
        if leads is None:
            return self.fault(document, number, f"{target} has an anchor, and {name} is no document")
        if unquote(fragment) not in leads.anchors:
            self.fault(document, number, f"{name} has no heading #{fragment}")

    def path(self, document, number, text):
        """A path in backquotes, relative to the top or to the document."""
        text = text.split()[0] if re.match(r"(\.ci|fuzz|deploy)/", text) else text
        text = re.sub(r":\d+(-\d+)?$", "", text)
        if not PATH.fullmatch(text) or MADE.match(text) or text in THEIRS:
            return
        if "/" in text and text.split("/")[0] not in self.folders | {".", ".."}:
            # An rpc, a media type, a path of another project.
            return
        self.named += 1
        beside = self.resolve(document, text)
        anywhere = "/" not in text and any(name == text or name.endswith("/" + text) for name in self.tracked)
        if not (self.exists(text) or beside and self.exists(beside) or anywhere):
            self.fault(document, number, f"`{text}` is no file of the repository")

    def bites(self):
        """Controls: broken links are found, and valid ones pass."""
        good = "# A `b` (c), d\n# A\n# A\n[x](#a-b-c-d) [`y`](#a-1) ![z](docs/console-light.png) [w](docs/) `.ci/links` `[x](nothing)`\n```\n[x](nothing)\n```\n"
        bad = "[x](#none)\n[x](none.md)\n[x](../outside)\n![x](docs/none.png)\n[x](docs/operate.md#none)\n`.ci/none`\n[x]: none\n<img src='none'>\n"
        for text, wanted in ((good, 0), (bad, 8)):
            document = self.documents["control.md"] = Document("control.md", text)
            self.check(document)
            assert len(self.faults) == wanted, self.faults
            self.faults.clear()
        del self.documents["control.md"]
        self.inside, self.named = 0, 0

    def check(self, document):
        for number, target in document.links:
            self.link(document, number, target)
        # Files that a changelog or a test fixture's README names may no longer exist.
        if document.name not in HISTORY and not document.name.startswith("tests/"):
            for number, text in document.paths:
                self.path(document, number, text)

    def all(self):
        self.bites()
        for document in self.documents.values():
            self.check(document)
        return self.faults


links = Links()
faults = links.all()
if "--list" in sys.argv[1:]:
    for target, where in sorted(links.outside.items()):
        print(f"outside  {where:36} {target}")
for fault in faults:
    print(f"broken   {fault}")
print(f"links: {len(links.documents)} documents, {links.inside} links inside, {links.named} paths in backquotes, "
      f"{len(links.outside)} links to other sites not fetched, {len(faults)} broken")
sys.exit(1 if faults else 0)

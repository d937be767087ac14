"""Reads JSON of the transcoder by protobuf's own json_format, and prints JSON that the transcoder has to read.

    judge.py FOLDER SEED

The folder is that of crates/transcode/examples/judge.rs: descriptor sets, messages with their JSON, and texts with what
they are read as. Each JSON has to be read as its message. Each text has to be read as the same message, or refused by both.
What differs on purpose is in the lists below. Each message is printed, in a spelling that the seed chooses, into a file
with the same name that ends in `.printed`. The exit code is 1 if the two differ in anything else."""

import base64
import random
import re
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

OWN = "json_format refuses what it prints itself"
# What json_format refuses to read, though it prints the same: NullValue in a list or a map.
REFUSED = ["null is not allowed to be used as an element in a repeated field", "not 'NoneType'"]
# Texts that plans refuse and json_format takes: the plans' reason, what the text has, and what json_format makes of it.
REFUSED_BY_US = [
    ("expected an object", r':\[?("|\[\])', "characters of a string, or nothing of a list, as unknown fields of a message"),
    ("expected bytes in base64", r':\[?"', "characters that base64 does not have are dropped"),
    ("expected a number", r':\[?(true|"(inf|\.5| 1)")', "`true` is 1; `inf`, `.5`, and spaces around a number"),
    ("expected a whole number", r":\[?1\.5\]?}", "a number of an enum is cut off"),
    ("is out of the range of its field", r"4294967296|9007199254740993\.0", "such a number of an enum is left out"),
    ("is out of the range of its field", r"1e400", "it is infinite"),
    ("occurs twice", r'{"1":1,"01":1}', "keys of a map are the same only if they are spelled so"),
    ("expected seconds", r'"(1\.|\.5|\+1)s"', "seconds as Python spells numbers"),
]
# Texts that plans take and json_format refuses: a part of its reason, what the text has, and what plans make of it.
TAKEN_BY_US = [
    *((reason, "null", "NullValue in lists and maps") for reason in REFUSED),
    ("duplicate key", r'{"a":1,"a":2}', "unknown fields may occur twice"),
    ("Float value too large", r"3\.4028235e38", "it rounds to the largest float, which is written so"),
    ("Value out of range", r'"4294967295"', "a text is a name of an enum, and this one unknown"),
]
# Texts that both take, and read as different messages: what the text has, and what differs.
READ_DIFFERENTLY = [
    (r"9007199254740993\.0", "json_format reads integers with a point as doubles"),
    (r":\[?-0\]?}", "json_format loses the sign of -0 in doubles"),
    (r':\[?"( |\+|0)?(1|\\u0031)"\]?}', "json_format reads a text as number of an enum; plans as an unknown name"),
]


def listed(differences, why, text):
    """The remark on a list for a reason and a text, or None."""
    return next((remark for reason, has, remark in differences if reason in why and re.search(has, text)), None)


def is_refused_as_its_own(error, message):
    """Whether json_format refuses what it prints of the message itself, for a reason on the list."""
    if not any(reason in str(error) for reason in REFUSED):
        return False
    try:
        json_format.Parse(json_format.MessageToJson(message), type(message)())
    except json_format.ParseError as own:
        return any(reason in str(own) for reason in REFUSED)
    return False


def same(one, other):
    """Whether two messages are equal. NaN has many encodings, and is the same as NaN."""
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True) or str(one) == str(other)


def printed(message, chance):
    """The message as JSON in one line, in one of the spellings that json_format has."""
    return json_format.MessageToJson(
        message,
        always_print_fields_with_no_presence=chance.random() < 0.5,
        preserving_proto_field_name=chance.random() < 0.5,
        use_integers_for_enums=chance.random() < 0.3,
        ensure_ascii=chance.random() < 0.5,
        sort_keys=chance.random() < 0.5,
        indent=None,
    )


def messages(path, pool, chance):
    """Reads and prints the messages of a file. Yields a failure, a remark that something differs on purpose, or None."""
    lines = []
    # Not `splitlines`, which would split at U+2028.
    for line in path.read_text().split("\n")[:-1]:
        name, wire, text = line.split("\t", 2)
        kind = GetMessageClass(pool.FindMessageTypeByName(name))
        message = kind.FromString(base64.b64decode(wire))
        message.DiscardUnknownFields()
        lines.append(f"{name}\t{wire}\t{printed(message, chance)}\n")
        try:
            read = json_format.Parse(text, kind())
            yield None if same(read, message) else f"{name}: {text}\nis read as\n{read}\ninstead of\n{message}"
        except json_format.ParseError as error:
            yield OWN if is_refused_as_its_own(error, message) else f"{name}: {text}\nis refused: {error}"
    path.with_suffix(".printed").write_text("".join(lines))


def texts(path, pool):
    """Reads the texts of a file. Yields as `messages` does."""
    for line in path.read_text().split("\n")[:-1]:
        name, text, read = line.split("\t", 2)
        kind, text = GetMessageClass(pool.FindMessageTypeByName(name)), base64.b64decode(text).decode()
        try:
            theirs, why = json_format.Parse(text, kind(), ignore_unknown_fields=True), None
        except json_format.ParseError as error:
            theirs, why = None, str(error)
        if read[0] == "!":
            remark = listed(REFUSED_BY_US, read[1:], text)
            yield None if theirs is None else remark or f"{name}: {text}\nis refused: {read[1:]}: {theirs}"
            continue
        ours = kind.FromString(base64.b64decode(read[1:]))
        if theirs is None:
            yield listed(TAKEN_BY_US, why, text) or f"{name}: {text}\nis taken: {why}\n{ours}"
        elif same(ours, theirs):
            yield None
        else:
            remark = next((remark for pattern, remark in READ_DIFFERENTLY if re.search(pattern, text)), None)
            yield remark or f"{name}: {text}\nis read as\n{ours}\ninstead of\n{theirs}"


def main():
    folder, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    failures, count, remarks = [], 0, Counter()
    for path in sorted(folder.glob("*.set")):
        pool = DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
            pool.Add(file)
        outcomes = chain(messages(path.with_suffix(".samples"), pool, chance), texts(path.with_suffix(".texts"), pool))
        for outcome in outcomes:
            count += 1
            if outcome and "\n" in outcome:
                failures.append(f"{path.stem}: {outcome}")
            elif outcome:
                remarks[outcome] += 1
    print("\n\n".join(failures[:20]))
    print(f"{count} messages and texts, {len(failures)} failures. Different on purpose:")
    for remark, times in remarks.most_common():
        print(f"  {times:5} {remark}")
    return 1 if failures or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())

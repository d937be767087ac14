"""Reads JSON of the transcoder by protobuf's own json_format, and prints JSON that the transcoder has to read.

    judge.py FOLDER SEED

The folder is that of crates/transcode/examples/judge.rs: descriptor sets, and messages with their JSON. Each JSON has to be
read as its message, but for what REFUSED lists. Each message is printed, in a spelling that the seed chooses, into a
file with the same name that ends in `.printed`. The exit code is 1 if json_format reads another message, or refuses one."""

import base64
import json
import random
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

# What json_format refuses to read, though it prints the same: NullValue in a list or a map.
REFUSED = ["null is not allowed to be used as an element in a repeated field", "not 'NoneType'"]


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
    """Whether two messages are equal, and NaN the same as NaN."""
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


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


def main():
    folder, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    failures, count, refused = [], 0, 0
    for path in sorted(folder.glob("*.samples")):
        pool, lines = DescriptorPool(), []
        for file in descriptor_pb2.FileDescriptorSet.FromString(path.with_suffix(".set").read_bytes()).file:
            pool.Add(file)
        # Not `splitlines`, which would split at U+2028.
        for line in path.read_text().split("\n")[:-1]:
            name, wire, text = line.split("\t", 2)
            kind = GetMessageClass(pool.FindMessageTypeByName(name))
            try:
                message = kind.FromString(base64.b64decode(wire))
            except DecodeError as error:
                failures.append(f"{path.name}: {name}: cannot be decoded: {error}: {wire}")
                continue
            message.DiscardUnknownFields()
            count += 1
            try:
                read = json_format.Parse(text, kind(), descriptor_pool=pool)
                if not same(read, message):
                    failures.append(f"{path.name}: {name}: {text}\nis read as\n{read}\ninstead of\n{message}")
            except json_format.ParseError as error:
                if is_refused_as_its_own(error, message):
                    refused += 1
                else:
                    failures.append(f"{path.name}: {name}: {text}\nis refused: {error}")
            lines.append(f"{name}\t{wire}\t{printed(message, chance)}\n")
        path.with_suffix(".printed").write_text("".join(lines))
    print("\n\n".join(failures[:20]))
    print(f"{count} messages, {len(failures)} failures; {refused} refused as json_format's own JSON of them")
    return 1 if failures or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())

"""Bytes that are nearly a file of some kind: a valid one, of which bytes, lines, fields or the structure are changed.

Where a format has checksums or lengths, they are made to fit what was changed, so that a change reaches what lies below them. The same
random numbers make the same bytes.
"""

import io
import itertools
import json
import pickletools
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import xxhash
import yaml

# What readers stumble over in the place of a number, of a word.
NUMBERS = (
    0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63,
    -(2**63), 2**64 - 1, 2**64, 10**30, 10**400, 0.0, -0.0, 0.5, -1.5, 1e-308, 5e-324, 1e20, 1e308, float("inf"), float("-inf"),
    float("nan"), True, False,
)  # fmt: skip
WORDS = (
    "", " ", "nan", "NaN", "-inf", "Infinity", "1e308", "1e999", "-1", "-0", "0x10", "1_000", "٣", "①", "0" * 5000, "9" * 5000, "null",
    "None", "true", "[]", "{}", "l", "r", "2", "s", "..", "../..", "/", "//", "/etc/passwd", "~", "C:\\x", "a\0b", "\0", "\x1b[31m", "\r",
    "\x85", "\u2028", "\ud7ff", "\ufeff", "é", "𝔘", "a" * 300, "%s%n", "{0}", "$HOME", "`id`", "<b>", "NaN\n", "1,2", "1;2", "&a", "*a",
    "<<", "!!python/object:os.system", "!!binary x", "2020-01-01", "12:30:45", "0o17", "0b11", "---", "...", "#", "?", "- -", ": ",
    "[" * 2000, "{" * 2000, "'", '"',
)  # fmt: skip
DEEP = 3000
INTERESTING_BYTES = (0, 1, 2, 0x0A, 0x20, 0x2E, 0x30, 0x39, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)
WIDTHS = ("<H", ">H", "<I", ">I", "<Q", ">Q", "<f", ">f", "<d", ">d")
# Files do not grow without end by being mutated.
MOST_BYTES = 1 << 18

Mutation = Callable[[bytes, Random], bytes]


def mutate(form: str, seeds: Sequence[bytes], random: Random) -> bytes:
    """One input: one of ``seeds`` with one or a few changes of a ``form``, a key of ``FORMS``."""
    data = random.choice(seeds)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        structural = FORMS[form]
        changed = random.choice(structural) if structural and random.random() < 0.6 else random.choice(_TEXT if form in TEXTS else _BYTES)
        try:
            data = changed(data, random)
        except Exception:  # no longer of that form, after an earlier change
            data = random.choice(_BYTES)(data, random)
        if random.random() < 0.05:
            data = _splice(data, random.choice(seeds), random)
        data = data[:MOST_BYTES]
    return data


# --- bytes


def _place(data: bytes, random: Random) -> int:
    # Headers, at the beginning, decide more than what follows.
    return random.randrange(min(len(data), 256) if random.random() < 0.4 else len(data)) if data else 0


def _flip_bit(data: bytes, random: Random) -> bytes:
    place = _place(data, random)
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :] if data else b"\0"


def _set_byte(data: bytes, random: Random) -> bytes:
    place = _place(data, random)
    return data[:place] + bytes([random.choice(INTERESTING_BYTES)]) + data[place + 1 :]


def _set_number(data: bytes, random: Random) -> bytes:
    form, place = random.choice(WIDTHS), _place(data, random)
    number = random.choice(NUMBERS)
    if form[1] in "fd":
        try:
            packed = struct.pack(form, float(number))
        except OverflowError:
            packed = struct.pack(form, float("inf"))
    else:
        whole = int(number) if number == number and abs(number) != float("inf") else 0
        packed = struct.pack(form, whole % (1 << 8 * struct.calcsize(form)))
    return data[:place] + packed + data[place + len(packed) :]


def _change_number(data: bytes, random: Random) -> bytes:
    """A number that stands there, a little more or less: a length that is off by one."""
    form, place = random.choice(WIDTHS[:6]), _place(data, random)
    size = struct.calcsize(form)
    if place + size > len(data):
        return data
    (number,) = struct.unpack_from(form, data, place)
    return data[:place] + struct.pack(form, (number + random.choice((-8, -4, -2, -1, 1, 2, 4, 8))) % (1 << 8 * size)) + data[place + size :]


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))] if data else data


def _drop(data: bytes, random: Random) -> bytes:
    place = _place(data, random)
    return data[:place] + data[place + random.choice((1, 2, 4, 8, 16, 64, 1024)) :]


def _double(data: bytes, random: Random) -> bytes:
    place, size = _place(data, random), random.choice((1, 2, 4, 8, 16, 64, 1024))
    return data[:place] + data[place : place + size] * random.choice((2, 2, 3, 50)) + data[place + size :]


def _insert(data: bytes, random: Random) -> bytes:
    place = _place(data, random)
    new = random.randbytes(random.randrange(1, 20)) if random.random() < 0.5 else random.choice(WORDS).encode("utf-8", "surrogatepass")
    return data[:place] + new + data[place:]


def _overwrite(data: bytes, random: Random) -> bytes:
    place, size = _place(data, random), random.choice((1, 4, 16, 64, 256))
    filling = random.choice((b"\0" * size, b"\xff" * size, random.randbytes(size)))
    return data[:place] + filling + data[place + size :]


def _splice(data: bytes, other: bytes, random: Random) -> bytes:
    return data[: _place(data, random)] + other[_place(other, random) :]


_BYTES: tuple[Mutation, ...] = (
    _flip_bit,
    _set_byte,
    _set_number,
    _change_number,
    _cut,
    _drop,
    _double,
    _insert,
    _overwrite,
    _flip_bit,
    _set_number,
)

# --- text


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def _drop_line(data: bytes, random: Random) -> bytes:
    lines = _lines(data)
    if lines:
        del lines[random.randrange(len(lines))]
    return b"".join(lines)


def _double_line(data: bytes, random: Random) -> bytes:
    lines = _lines(data)
    if lines:
        lines.insert(random.randrange(len(lines) + 1), random.choice(lines) * random.choice((1, 1, 2, 100)))
    return b"".join(lines)


def _swap_lines(data: bytes, random: Random) -> bytes:
    lines = _lines(data)
    random.shuffle(lines)
    return b"".join(lines)


def _change_token(data: bytes, random: Random) -> bytes:
    """A word between blanks or signs becomes another word or number, or goes."""
    text = data.decode("utf-8", "surrogateescape")
    places = [number for number, letter in enumerate(text) if letter in " \t\n,:=[]{}\"'"]
    start = random.choice([-1, *places]) + 1
    end = next((place for place in places if place >= start), len(text))
    number = random.choice(NUMBERS)
    new = random.choice((random.choice(WORDS), "1e400" if abs(number) > 1e300 else str(number), repr(random.uniform(-1e6, 1e6)), ""))
    return (text[:start] + new + text[end:]).encode("utf-8", "surrogateescape" if text.isprintable() else "surrogatepass")


def _long_line(data: bytes, random: Random) -> bytes:
    place = _place(data, random)
    return data[:place] + random.choice((b"a", b" ", b"1", b"-", b"[", b"1 ")) * random.choice((300, 5000, 70_000)) + data[place:]


_TEXT: tuple[Mutation, ...] = (
    _change_token, _change_token, _change_token, _drop_line, _double_line, _swap_lines, _long_line,
    _flip_bit, _set_byte, _cut, _insert, _overwrite,
)  # fmt: skip

# --- trees of JSON and YAML


def mutate_tree(value: Any, random: Random) -> Any:
    """A tree of dicts and lists in which one node is another: a number of a kind that nobody expects, a list for a word, nothing at all."""
    places: list[tuple[Any, Any]] = []
    seen: set[int] = set()

    def walk(node: Any) -> None:
        if id(node) in seen:  # an alias
            return
        seen.add(id(node))
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(value)
    if not places or random.random() < 0.05:
        return _leaf(random)
    node, key = random.choice(places)
    how = random.randrange(7)
    if how == 0:
        del node[key]
    elif how == 1:
        node[key] = [node[key]] * random.choice((1, 2, 20))
    elif how == 2:
        node[key] = {str(random.choice(WORDS)): node[key]}
    elif how == 3 and isinstance(node, dict):
        node[str(random.choice(WORDS))] = node.pop(key)
    elif how == 4:
        node[key] = random.choice(places)[0].copy()
    else:
        node[key] = _leaf(random)
    return value


def _leaf(random: Random) -> Any:
    if random.random() < 0.02:
        deep: Any = 0
        for _ in range(random.choice((50, 200))):
            deep = [deep]
        return deep
    return random.choice(
        (random.choice(NUMBERS), random.choice(WORDS), None, [], {}, [random.choice(NUMBERS)] * random.choice((1, 3, 12)), random.random())
    )


def _in_json(data: bytes, random: Random) -> bytes:
    """A tree of one line; of several lines, one of them."""
    text = data.decode()
    try:
        tree = json.loads(text)
    except ValueError:
        lines = text.splitlines()
        number = random.randrange(len(lines))
        lines[number] = json.dumps(mutate_tree(json.loads(lines[number]), random))
        return "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"
    return json.dumps(mutate_tree(tree, random)).encode("utf-8", "surrogatepass")


def _deep(data: bytes, random: Random) -> bytes:
    opening, closing = random.choice((("[", "]"), ('{"a":', "}"), ("[{", "}]")))
    depth = random.choice((100, 1000, DEEP, 50_000))
    depth = depth if random.random() < 0.1 else 100
    return (opening * depth + random.choice(("", "0", "null")) + closing * (depth if random.random() < 0.5 else 0)).encode()


def _in_yaml(data: bytes, random: Random) -> bytes:
    tree = mutate_tree(yaml.load(data.decode().removeprefix("%YAML:1.0").replace("!!opencv-matrix", ""), yaml.CSafeLoader), random)
    return yaml.dump(tree, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=random.choice((None, True, False))).encode(
        "utf-8", "surrogatepass"
    )


def _aliases(data: bytes, random: Random) -> bytes:
    """Names that mean ten of the name before: a billion in a few lines."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, random.choice((2, 4, 9, 30)))]
    block = "\n".join(lines).encode() + b"\n"
    return random.choice((data + block, block + data, b"cameras: &c\n  front_left: *c\n", b"a: &a [*a]\n" + data))


# --- containers


def _in_png(data: bytes, random: Random) -> bytes:
    """Chunks dropped, doubled, moved or changed, under checksums that fit."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    number = random.randrange(len(chunks))
    name, content = chunks[number]
    how = random.randrange(6)
    if how == 0:
        del chunks[number]
    elif how == 1:
        chunks.insert(random.randrange(len(chunks) + 1), chunks[number])
    elif how == 2 and name == b"IDAT":
        chunks[number] = name, zlib.compress(random.choice(_BYTES)(zlib.decompress(content), random))
    elif how == 3:
        new = random.choice((b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"gAMA", b"pHYs"))
        chunks.insert(1, (new, random.randbytes(random.choice((0, 1, 6, 13, 26, 100)))))
    else:
        chunks[number] = name, random.choice(_BYTES)(content, random)
    return data[:8] + b"".join(
        struct.pack(">I", len(each)) + kind + each + struct.pack(">I", zlib.crc32(kind + each)) for kind, each in chunks
    )


def _in_zip(data: bytes, random: Random) -> bytes:
    """Entries dropped, doubled, renamed or changed, under checksums that fit; an .npy or a pickle in its own structure."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(entry.filename, archive.read(entry), entry.compress_type) for entry in archive.infolist()]
    number = random.randrange(len(entries))
    name, content, kind = entries[number]
    how = random.randrange(8)
    if how == 0:
        del entries[number]
    elif how == 1:
        entries.append(entries[number])
    elif how == 2:
        entries[number] = random.choice(WORDS).replace("\0", "") or "x", content, kind
    elif how == 3:
        entries[number] = name, content, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    else:
        inner = {"npy": _in_npy, "pkl": _in_pickle, "json": _in_json}.get(name.rpartition(".")[2], random.choice(_BYTES))
        entries[number] = name, inner(content, random), kind
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # of names that stand there twice
        for each, content, kind in entries:
            archive.writestr(zipfile.ZipInfo(each), content, kind)
    return out.getvalue()


KINDS = (
    "'<f4'", "'<f8'", "'>f4'", "'<f2'", "'|O'", "'|b1'", "'<c16'", "'|S5'", "'<U3'", "'<M8[s]'", "'<f16'", "'|V8'", "'<i8'", "'<u2'",
    "[('a', '<f4')]", "'nonsense'", "5", "None",
)  # fmt: skip
SHAPES = (
    "()", "(0,)", "(-1,)", "(1,)", "(2, 3)", "(0, 0)", "(1, 0, 5)", "(99999999999,)", "(2**40,)", "(3, 4, 5, 6)", "(True,)", "(1.5,)", "5",
    "[2, 3]", "(9999999, 9999999)",
)  # fmt: skip


def _in_npy(data: bytes, random: Random) -> bytes:
    """Another header over the same numbers: its length fits."""
    (length,) = struct.unpack_from("<H", data, 8)
    header, content = data[10 : 10 + length].decode("latin1"), data[10 + length :]
    if random.random() < 0.2:
        return data[: 10 + length] + random.choice(_BYTES)(content, random)
    how = random.randrange(4)
    if how == 0:
        shape = header.partition("'shape': ")[2].rpartition("}")[0].strip(" ,")
        header = f"{{'descr': {random.choice(KINDS)}, 'fortran_order': False, 'shape': {shape}, }}"
    elif how == 1:
        header = header[: header.index("'shape'")] + f"'shape': {random.choice(SHAPES)}, }}"
    elif how == 2:
        header = header.replace("False", random.choice(("True", "1", "None", "x")))
    else:
        header = _change_token(header.encode(), random).decode("latin1")
    packed = header.encode("latin1")[:65000]
    return data[:8] + struct.pack("<H", len(packed)) + packed + content


OPERATIONS = (
    b"N", b"\x88", b"]", b"}", b")", b"(", b"K\0", b"J\xff\xff\xff\xff", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"G\x7f\xf8" + b"\0" * 6,
    b"X\x01\0\0\0a", b"X\0\0\0\0", b"R", b"b", b"u", b"s", b"0", b"t", b"Q", b"cos\nsystem\n", b"cbuiltins\nprint\n", b"h\0", b"q\0",
    b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"\x89", b"e", b"\x86", b"\x85",
)  # fmt: skip


def _in_pickle(data: bytes, random: Random) -> bytes:
    """Operations dropped, doubled, exchanged, and numbers and words replaced by others."""
    stops = [place for _, _, place in pickletools.genops(data)] + [len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(stops)]
    for _ in range(random.choice((1, 1, 2, 4))):
        number = random.randrange(len(parts))
        how = random.randrange(5)
        if how == 0:
            del parts[number]
        elif how == 1:
            parts.insert(random.randrange(len(parts)), parts[number])
        elif how == 2:
            other = random.randrange(len(parts))
            parts[number], parts[other] = parts[other], parts[number]
        else:
            parts[number] = random.choice(OPERATIONS)
        if not parts:
            return b""
    return b"".join(parts)


def _in_store(data: bytes, random: Random) -> bytes:
    """A frame store whose header says other things, under a checksum that fits."""
    magic, version, length, _ = struct.unpack_from("<8sQQQ", data)
    header = (_in_json if random.random() < 0.8 else random.choice(_BYTES))(data[32 : 32 + length], random)
    return struct.pack("<8sQQQ", magic, version, len(header), xxhash.xxh3_64_intdigest(header)) + header + data[32 + length :]


def _in_safetensors(data: bytes, random: Random) -> bytes:
    (length,) = struct.unpack_from("<Q", data)
    header = _in_json(data[8 : 8 + length], random)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _in_onnx(data: bytes, random: Random) -> bytes:
    """A field of the model, at any depth, another."""
    import onnx

    model = onnx.load_from_string(data)
    nodes: list[tuple[Any, Any, Any]] = []

    def walk(message: Any) -> None:
        for field, value in message.ListFields():
            repeated = not isinstance(value, (str, bytes, int, float)) and hasattr(value, "__len__")
            for number, each in enumerate(value) if repeated else [(None, value)]:
                if hasattr(each, "ListFields"):
                    walk(each)
                nodes.append((message, field.name, number))

    walk(model)
    message, name, number = random.choice(nodes)
    value = getattr(message, name)
    if number is None and (random.random() < 0.1 or hasattr(value, "ListFields")):
        message.ClearField(name)
    elif number is not None and (random.random() < 0.2 or hasattr(value[number], "ListFields")):
        random.choice((lambda: value.__delitem__(number), lambda: value.append(value[number])))()
    else:
        old = value if number is None else value[number]
        words = [word for word in WORDS if len(word) < 400]
        if isinstance(old, str):
            new: Any = str(random.choice((random.choice(words), random.choice(NUMBERS[:-10]))))
        elif isinstance(old, bytes):
            new = random.choice(_BYTES)(old, random)
        else:
            new = type(old)(random.choice([n for n in NUMBERS if abs(n) < 2**31]))
        if number is None:
            setattr(message, name, new)
        else:
            value[number] = new
    return model.SerializeToString()


def _in_boxes(data: bytes, random: Random) -> bytes:
    """A box of an mp4, at any depth, with another content or length."""
    places, waiting = [], [(0, len(data))]
    while waiting:
        place, end = waiting.pop()
        while place + 8 <= end:
            size, kind = struct.unpack_from(">I4s", data, place)
            if size < 8:
                break
            places.append((place, size))
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta"):
                waiting.append((place + 8, min(end, place + size)))
            place += size
    place, size = random.choice(places)
    how = random.randrange(4)
    if how == 0:
        return data[:place] + data[place + size :]
    if how == 1:
        return data[:place] + data[place : place + size] + data[place:]
    if how == 2:
        return data[: place + 8] + random.choice(_BYTES)(data[place + 8 : place + size], random) + data[place + size :]
    return data[:place] + struct.pack(">I", random.choice((0, 1, 7, 8, 9, size - 1, size + 1, 2**31, 2**32 - 1))) + data[place + 4 :]


TEXTS = ("text", "json", "yaml")
FORMS: dict[str, tuple[Mutation, ...]] = {
    "text": (),
    "json": (*[_in_json] * 30, _deep),
    "yaml": (*[_in_yaml] * 30, _aliases, _deep),
    "bytes": (),
    "png": (_in_png,),
    "zip": (_in_zip,),
    "npy": (_in_npy,),
    "pickle": (_in_pickle,),
    "store": (_in_store,),
    "safetensors": (_in_safetensors,),
    "onnx": (_in_onnx,),
    "mp4": (_in_boxes,),
}

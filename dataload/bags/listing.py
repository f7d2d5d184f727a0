"""The listing of a recording that ``--list`` shows."""

from __future__ import annotations

from pathlib import Path

from dataload.bags.formats.reading import Bag, Contents
from dataload.bags.options import ConvertOptions
from dataload.bags.topics import choose
from splits.errors import InputError


def describe(path: Path, options: ConvertOptions) -> list[str]:
    """Topics, types, counts, rates and what each would be used as; ``InputError`` where the recording cannot be opened."""
    with Bag(path) as bag:
        contents = bag.scan()
    seconds = (contents.end_ns - contents.begin_ns) / 1e9
    lines = [f"{path}: {sum(track.count for track in contents.tracks.values())} messages in {seconds:.1f} s"]
    try:
        roles = choose(contents, options)
        wrong = ""
    except InputError as error:
        roles, wrong = None, str(error)
    width = max((len(name) for name in contents.tracks), default=0)
    kind_width = max((len(track.topic.msgtype) for track in contents.tracks.values()), default=0)
    for name, track in sorted(contents.tracks.items()):
        role = roles.of(name) if roles is not None else ""
        rate = f"{_rate_hz(contents, name):6.1f} Hz"
        lines.append(f"  {name:<{width}}  {track.topic.msgtype:<{kind_width}} {track.count:>7}  {rate}  {role}".rstrip())
    if wrong:
        lines.append(f"  nothing would be converted: {wrong}")
    if contents.damage:
        lines.append(f"  not all can be read: {contents.damage}")
    return lines


def _rate_hz(contents: Contents, name: str) -> float:
    """Messages per second between the first and the last of a topic, or of the recording where the topic's times were not kept."""
    track = contents.tracks[name]
    begin, end = (min(track.log_ns), max(track.log_ns)) if track.log_ns else (contents.begin_ns, contents.end_ns)
    return (track.count - 1) * 1e9 / (end - begin) if end > begin else 0.0

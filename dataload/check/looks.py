"""The check of what frames show, and of what kind of file: black frames, those of one colour, kinds that do not belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from dataload.check.frames import Finding, Frames, Kind
from dataload.check.report import Report, count
from dataload.config import DataConfig
from dataload.datasets.base import Dataset, some
from dataload.pipeline.backend import dali_fault, has_dali
from dataload.pipeline.decoders import DaliDecoder

# Nearly black: values at most this of 255. 12 bits in 16-bit files come to 15; of KITTI's frames, all reach 255.
NEARLY_BLACK = 24
# 14 bits in 16-bit files come to 63; a sequence of a camera's own 8 bits has some light somewhere.
DIM = 64
# A frame spoils its target and those of its two neighbours: a tenth of the frames is the share of targets that may stand still (0.3).
MOST_DULL = 0.1
# Files damaged inside that are tried with DALI's decoder, too.
MOST_TRIED = 100
# A single dull frame is accepted, however short the sequence.
FEW_DULL = 1


def inspect_looks(config: DataConfig, dataset: Dataset, frames: Frames, report: Report) -> None:
    """Report frames that show nothing, files damaged inside, and mixed kinds of file."""
    by_folder = {dataset.relative(folder): list(present.values()) for folder, present in frames.present.items()}
    found = [seen for folder in by_folder.values() for seen in folder]
    blank = [seen for seen in found if seen.is_blank]
    black = [seen for seen in found if _is_dull(seen) and not seen.is_blank]
    report.facts["frames"] |= {name: [dataset.relative(seen.path) for seen in dull] for name, dull in (("blank", blank), ("black", black))}
    borne = {folder for folder, seen in by_folder.items() if _report_light(folder, seen, report)}
    for dull, what in ((blank, "of a single colour"), (black, f"nearly black (values of at most {NEARLY_BLACK} of 255)")):
        few = [seen for seen in dull if dataset.relative(seen.path.parent) in borne]
        if few:
            report.warn(f"{count(len(few), 'image')} {what}: {_named(dataset, few)}; take their lines out of the split")
    scarred = [seen for seen in found if seen.complaint]
    if scarred:
        cpu = torch.device("cpu")
        if has_dali() and not dali_fault(cpu):
            with report.faults():
                DaliDecoder(config, cpu).name_the_damaged([seen.path for seen in scarred[:MOST_TRIED]])
        report.warn(
            f"{count(len(scarred), 'image')} damaged inside, though decoders read them: {_named(dataset, scarred)} "
            f"({scarred[0].complaint}); parts may be grey or shifted: look at them, and restore the files"
        )
    for folder, seen in by_folder.items():
        _report_mixture(folder, seen, report)
    kinds = Counter(seen.kind for seen in found if seen.kind is not None)
    if kinds:
        report.say("Kinds", ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common()))


def _is_dull(seen: Finding) -> bool:
    return seen.is_blank or seen.brightest <= NEARLY_BLACK


def _report_light(folder: str, found: Sequence[Finding], report: Report) -> bool:
    """Report a folder where too much shows nothing, or all of it too little; returns whether its dull images are few enough to accept."""
    dull = [seen for seen in found if _is_dull(seen)]
    brightest = max(seen.brightest for seen in found)
    is_wide = any(seen.kind is not None and seen.kind.bits > 8 for seen in found)
    remedy = "scale values of fewer bits to the whole range (12 bits in 16: times 16)" if is_wide or brightest <= DIM else ""
    if len(dull) > max(FEW_DULL, MOST_DULL * len(found)):
        remedy = remedy or "remove them, or record again"
        report.problem(
            f"{folder}: {len(dull):,} of {count(len(found), 'image')} nearly black or of a single colour, as {dull[0].path.name} "
            f"(values of at most {dull[0].brightest} of 255); nothing can be learned from them: {remedy}"
        )
        return False
    if brightest <= DIM:
        tell = report.problem if is_wide else report.warn
        tell(f"{folder}: no image has values above {brightest} of 255; {remedy}")
    return True


def _report_mixture(folder: str, found: Sequence[Finding], report: Report) -> None:
    """Report where the files of a folder are of kinds that do not come from one camera."""
    kinds = Counter(seen.kind for seen in found if seen.kind is not None)
    (usual, usual_number), *others = kinds.most_common()
    if not others:
        return
    examples = {seen.kind: seen.path.name for seen in reversed(found)}
    named = some([f"{number:,} of {kind}, as {examples[kind]}" for kind, number in others])
    text = f"{folder}: files of several kinds, {usual_number:,} of {usual}, but {named}"
    if all(_camera_facts(kind) == _camera_facts(usual) for kind, _ in others):
        report.warn(f"{text}; are they from one recording?")
    else:
        report.problem(f"{text}; a sequence is of one camera: put the others elsewhere (depth into a folder depth/), or save all alike")


def _camera_facts(kind: Kind) -> tuple[int, bool, int]:
    """What does not change within a camera's recording, whatever format it is saved in."""
    return kind.bits, kind.is_grey, kind.orientation


def _named(dataset: Dataset, found: Sequence[Finding]) -> str:
    return some([dataset.relative(seen.path) for seen in found])

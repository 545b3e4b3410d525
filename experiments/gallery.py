"""Makes every figure and the gallery from committed logs, profiles and tables.

    python -m experiments.gallery [NAME ...]

With names (fig12_cluster, or how it begins: fig12) only those exhibits are made, and the gallery is
left as it is.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from alto_runs.files.directory import write_atomically
from experiments.exhibits import (
    bf16_spread,
    fig01_sensitivity,
    fig03_batch_size,
    fig04_utilization,
    fig07_early_rank,
    fig09_end_to_end,
    fig10_expert,
    fig11_preferences,
    fig12_cluster,
    fig13_adapter_parallel,
    fig14_quality,
    fig15_samples_saved,
    fig16_warmup,
    past_cluster,
    past_cobatching,
    past_curves,
    past_energy,
    past_kinds,
    past_profile_error,
    past_repeats,
    past_searches,
    past_selection,
    past_sensitivity,
    past_tuners,
    table2_kernels,
    throughput_curve,
)
from experiments.exhibits.exhibit import CONTRADICTION, Exhibit, markdown, title_of, write

__all__ = ["EXHIBITS", "gallery_text", "main"]

GALLERY = Path(__file__).parent / "README.md"

EXHIBITS: tuple[Callable[[], Exhibit], ...] = (
    fig01_sensitivity.exhibit,
    fig03_batch_size.exhibit,
    fig04_utilization.exhibit,
    fig07_early_rank.exhibit,
    fig09_end_to_end.exhibit,
    fig10_expert.exhibit,
    fig11_preferences.exhibit,
    fig12_cluster.exhibit,
    fig13_adapter_parallel.exhibit,
    fig14_quality.exhibit,
    fig15_samples_saved.exhibit,
    fig16_warmup.exhibit,
    table2_kernels.exhibit,
    throughput_curve.exhibit,
    bf16_spread.exhibit,
    past_searches.exhibit,
    past_repeats.exhibit,
    past_selection.exhibit,
    past_tuners.exhibit,
    past_sensitivity.exhibit,
    past_profile_error.exhibit,
    past_curves.exhibit,
    past_cluster.exhibit,
    past_kinds.exhibit,
    past_cobatching.exhibit,
    past_energy.exhibit,
)
_HEAD = """# The paper's figures and tables again, and what lies beyond them

Made by `make figures` from what is committed here: run logs, step-time profiles, tables of results.
Nothing is trained for it; `python -m experiments.gallery fig12` makes a single exhibit, in the
environment `.venv`. Each exhibit is one file of `exhibits/`, and beside its picture lies a CSV with
all numbers. Numbers of the paper (arXiv 2604.05426) are read from its text, or from its figures
where only they print them.

| word | meaning |
|---|---|
| search, grid | all jobs of a task; in a full grid every job is trained to its end |
| exits | rules that stop jobs early; `alto` has the paper's, `alto+` our own |
| kept | jobs that go on after the warm-up |
| regret | how much higher the winner's best validation loss is than the best of the full grid |
| recorded | losses of a search that was really trained, with its log committed |
| *generated* | losses that nobody trained, drawn by `alto_sim.curves.generated` |

Generated final losses are fitted to 548 real runs; the way there is an assumption.

"""

Made = tuple[str, str, Exhibit]  # name and docstring of the module, and what it has come to


def gallery_text(made: Sequence[Made]) -> str:
    lines = [
        f"| [{title_of(text)}](#{_anchor(title_of(text))}) | {one.verdict.value} | {one.gist} |\n"
        for _, text, one in made
    ]
    sections = [markdown(name, text, one) for name, text, one in made]
    table = "| exhibit | verdict | what it comes to |\n|---|---|---|\n" + "".join(lines)
    return _HEAD + "\n".join([table, _contradictions([text for _, text, _ in made]), *sections])


def _contradictions(texts: Sequence[str]) -> str:
    """Where to read of them."""
    found = [title_of(text) for text in texts if CONTRADICTION in text]
    links = ", ".join(f"[{title.split(':')[0].lower()}](#{_anchor(title)})" for title in found)
    return f"Where the paper contradicts itself is told at {links}.\n" if found else ""


def main(names: Sequence[str]) -> None:
    if {"-h", "--help"} & set(names):
        print(__doc__)
        return
    made: list[Made] = []
    for name, make in _wanted(names).items():
        begun = time.perf_counter()
        one = make()
        path = write(name, one)
        made.append((name, sys.modules[make.__module__].__doc__ or "", one))
        took = time.perf_counter() - begun
        print(f"{name}: {one.verdict.value}, {took:.1f} s, {path}", flush=True)
    if not names:
        write_atomically(GALLERY, gallery_text(made))


def _wanted(names: Sequence[str]) -> dict[str, Callable[[], Exhibit]]:
    """Exhibits whose names begin so; all, where no name is given."""
    known = {make.__module__.rsplit(".", 1)[-1]: make for make in EXHIBITS}
    begin = tuple(name.removesuffix(".py") for name in names)
    for name in begin:
        if not any(each.startswith(name) for each in known):
            sys.exit(f"{name}: no exhibit of that name, expected some of {', '.join(known)}")
    return {name: make for name, make in known.items() if not names or name.startswith(begin)}


def _anchor(title: str) -> str:
    """As code hosts make it of a heading."""
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Makes a preference set of the demo's data: the right conclusion, and that of another record.

    python examples/preferences/make_pairs.py

The other record is the one of the same split whose prompt shares the most words with this one's,
the first of them where several do, so that the worse answer is about the same things.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parent / "demo" / "data"
SIZES = {"train": 800, "validation": 120}


def pairs_of(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """One for each record, in their order."""
    words = [set(row["prompt"].lower().split()) for row in rows]
    records_with: dict[str, list[int]] = defaultdict(list)
    for number, own in enumerate(words):
        for word in sorted(own):
            records_with[word].append(number)
    pairs = []
    for number, row in enumerate(rows):
        shared = Counter(n for word in sorted(words[number]) for n in records_with[word])
        others = [n for n in shared if rows[n]["completion"] != row["completion"]]
        nearest = min(others, key=lambda n: (-shared[n], n))
        pairs.append(
            {
                "prompt": row["prompt"],
                "chosen": row["completion"],
                "rejected": rows[nearest]["completion"],
            }
        )
    return pairs


def main() -> None:
    (HERE / "data").mkdir(exist_ok=True)
    for split, size in SIZES.items():
        lines = (SOURCE / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:size]
        pairs = pairs_of([json.loads(line) for line in lines])
        text = "".join(f"{json.dumps(pair, ensure_ascii=False)}\n" for pair in pairs)
        (HERE / "data" / f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Figure 11: preference tuning (DPO).

The paper: Qwen2.5-32B on UltraFeedback, 60 configurations, batch 2 to 16: batched 1.8 times and
batched with early exit 4.7 times as fast as one after another; best preference accuracy 76.17 %
both with and without exits.

Here: nothing is recorded: no preference data of that kind lies in the project, and no grid of DPO
was run. The exits read only the two losses, which DPO reports as well.

The paper against itself: text and figure 15 give 84 and 80 % for the samples that exits save in
DPO.
"""

from experiments.exhibit import Exhibit, Table, Verdict

__all__ = ["exhibit"]

# Figure 11: speed-up over one after another, and best accuracy in per cent where it is printed.
_PAPER = (("sequential", 1.0, None), ("batched", 1.8, None), ("batched, exits", 4.7, 76.17))


def exhibit() -> Exhibit:
    return Exhibit(
        verdict=Verdict.CANNOT,
        found=("Nothing was run.",),
        table=Table(("system", "paper, speed-up", "paper, accuracy"), _PAPER),
        logs=("the paper",),
        seeds="None.",
    )

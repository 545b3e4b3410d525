"""How many GPUs each of several tasks is to have, where each could take several numbers of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from alto_policy.types import Task, TaskId

__all__ = ["Claim", "width_shares"]


@dataclass(frozen=True, slots=True)
class Claim:
    task: Task
    widths: tuple[int, ...]  # numbers of GPUs that are of use to it, increasing
    jobs: int  # that are left to it
    held: int = 0  # GPUs that it has now


def width_shares(
    claims: Sequence[Claim], room: int, quotas: Mapping[str, int]
) -> dict[TaskId, int]:
    """The least to each in this order, as far as there is room; then more, step by step, to whoever
    has the most jobs for a GPU, of equals to who has no GPU yet.

    Tenants stay in their quotas. Who finds no room is to have the least all the same.
    """
    shares = {claim.task.id: claim.widths[0] for claim in claims}
    left = dict(quotas)
    steps: list[tuple[float, int, int, int]] = []  # with the claim, and its place among widths
    for number, claim in enumerate(claims):
        width, tenant = claim.widths[0], claim.task.tenant
        if width <= min(room, left.get(tenant, room)):
            room -= width
            steps.append((-claim.jobs / width, claim.held, number, 0))
            if tenant in left:
                left[tenant] -= width
    heapify(steps)
    while steps and room > 0:
        _, _, number, place = heappop(steps)
        claim = claims[number]
        if place + 1 == len(claim.widths):
            continue
        width, tenant = claim.widths[place + 1], claim.task.tenant
        more = width - claim.widths[place]
        if more <= min(room, left.get(tenant, room)):
            room -= more
            shares[claim.task.id] = width
            heappush(steps, (-claim.jobs / width, claim.held, number, place + 1))
            if tenant in left:
                left[tenant] -= more
    return shares

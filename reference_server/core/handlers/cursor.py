"""Where a member's stream begins: the one formula of SPEC.md, section 9.1."""


def join_point(head: int, oldest: int, epoch: int, client_epoch: int, since: int, cap: int) -> tuple[int, bool]:
    """(`start`, GAP) of JOINED, for a room's log and the cursor (`client_epoch`, `since`) in JOIN.

    `cap` is the greatest number of messages to replay. RW-CURSOR-1.
    """
    floor = max(oldest, head + 1 - cap)
    if client_epoch == 0:
        return max(floor, head + 1 - since), False
    want = since + 1 if client_epoch == epoch else floor
    start = min(max(want, floor), head + 1)
    return start, client_epoch != epoch or start != since + 1

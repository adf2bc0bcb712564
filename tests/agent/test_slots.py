"""What keeps slots from being asked for."""

from towline_agent.slots import Slots


def test_what_pauses_the_slots_is_told_apart() -> None:
    freed: list[int] = []
    slots = Slots(2, lambda: freed.append(1))
    slots.pause("disk", paused=True)
    slots.pause("drained", paused=True)
    slots.pause("disk", paused=False)
    assert slots.free == 0
    slots.pause("drained", paused=False)
    assert (slots.free, slots.reserve()) == (2, 2)

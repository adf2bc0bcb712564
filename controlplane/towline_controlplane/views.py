"""What a replica remembers of runs between commits, so that the next commit need not load them again.

A view is current exactly if the run's newest event is the one that it knows: every change of a run, its steps and its
attempts comes with a line of its history, in one transaction. Whoever takes a view compares under the run's lock, so
that another replica's commit is noticed; whoever changes one gives it back only after the commit, so that what was
rolled back, or may have been, is forgotten.
"""

from collections import OrderedDict
from collections.abc import Iterable

from towline_controlplane.engine.transitions import ATTEMPT_TERMINAL, RUN_TERMINAL
from towline_controlplane.engine.view import View

_LARGE = 1_024
"""Characters of a step's JSON from which it is cheaper to load it again than to remember it."""


class Views:
    """Views of the open runs that were touched most recently, bounded by their number of steps in all."""

    def __init__(self, max_steps: int = 50_000) -> None:
        self._max_steps = max_steps
        self._views: OrderedDict[str, tuple[View, int]] = OrderedDict()
        self._steps = 0

    def take(self, run_id: str, event_count: int) -> View | None:
        """Removes and returns the view of a run whose newest event is `event_count`, None if it is not at hand."""
        view, steps = self._views.pop(run_id, (None, 0))
        self._steps -= steps
        return view if view is not None and view.run.event_count == event_count else None

    def keep(self, views: Iterable[View]) -> None:
        """Remembers views as they were committed."""
        for view in views:
            self.take(view.run.id, 0)
            if view.run.state in RUN_TERMINAL or len(view.run.input) > _LARGE:
                continue
            self._views[view.run.id] = view, len(view.steps)
            self._steps += len(view.steps)
        while self._steps > self._max_steps:
            _, (_, steps) = self._views.popitem(last=False)
            self._steps -= steps


def forget_bulk(view: View, node_id: str) -> None:
    """Drops from a view what is not worth remembering of a step: its attempt if that has ended, itself if large."""
    attempt, step = view.attempts.get(node_id), view.steps[node_id]
    if attempt is not None and attempt.state in ATTEMPT_TERMINAL:
        del view.attempts[node_id]
    if len(step.output or "") + len(step.config or "") > _LARGE:
        del view.steps[node_id]
        view.outputs.pop(node_id, None)

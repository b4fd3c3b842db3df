"""Script of a user, which knows nothing of where its runs are executed or stored; it prints what it got."""

import json

from pleinair.app.api import draw, find, home
from pleinair.app.streams import follow
from pleinair.app.trace.fork import fork
from pleinair.app.trace.steps import steps_of

result = draw("a hoopoe in the snow", seed=1)
branch = fork(result.run_id, "critique:1")
assert result.outcome.best and branch.outcome.best and result.picture
best = result.outcome.best
print(  # noqa: T201
    json.dumps(
        {
            "ending": result.outcome.ending,
            "image": best.picture.sha256,
            "references": [reference.hit.id for reference in best.request.references],
            "steps": [step.names for step in steps_of(find(result.run_id), home())],
            "last event": [event.kind for event in follow(result.run_id)][-1],
            "fork": branch.outcome.best.picture.sha256,
            "file": result.picture.is_file() and result.sidecar.is_file(),
        }
    )
)

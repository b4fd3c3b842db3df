"""Program that draws with engines that block, prints how the runs ended, and exits.

Each argument is a JSON object of overrides; the runs work at the same time, each in a thread.
"""

import atexit
import json
import sys
import threading
import time

from pleinair.app.api import draw


def write(*values: object) -> None:
    """Write values as one line of JSON."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def run(overrides: dict[str, object]) -> None:
    """Draw, and print the ending as one line."""
    outcome = draw("first thing and second thing", seed=7, overrides=overrides).outcome
    write(outcome.ending, outcome.limit)


if __name__ == "__main__":
    atexit.register(lambda: write("exits", time.time()))
    threads = [threading.Thread(target=run, args=(json.loads(word),)) for word in sys.argv[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    write("over", time.time())

"""Break the papers' methods on purpose, one mutation after another, and count those that a test notices.

`python -m tests.mutations [ID …]` runs the tests of each mutation on a copy of the source tree: unchanged,
when they must pass, and changed, when one must fail. It exits with 1 if a mutation survives.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.mutations import main

sys.exit(main())

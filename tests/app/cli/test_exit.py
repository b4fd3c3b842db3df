"""End of the command line's process: quick, with exit functions, and after threads that have to end."""

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, gc, sys, threading
from pleinair.app.cli.main import console

class Last:
    def __del__(self):
        print("taken apart")

def work():
    threading.main_thread().join()
    print("worked")

last = Last()
last.itself = last
atexit.register(lambda: print("young objects:", gc.get_threshold()[0]))
if {thread}:
    threading.Thread(target=work).start()
sys.argv = ["pleinair", *{arguments!r}]
console()
"""


def _run(*arguments: str, thread: bool = False) -> tuple[int, list[str]]:
    program = PROGRAM.format(arguments=arguments, thread=thread)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return result.returncode, result.stdout.splitlines()


@pytest.mark.parametrize(("arguments", "code"), [(("--version",), 0), (("no-such-command",), 2)])
def test_exit_functions_run_and_no_module_is_taken_apart(arguments: tuple[str, ...], code: int) -> None:
    returned, lines = _run(*arguments)
    assert returned == code
    assert lines[-1] == "young objects: 50000"
    assert "taken apart" not in lines


def test_a_thread_that_is_no_daemon_is_awaited() -> None:
    returned, lines = _run("--version", thread=True)
    assert returned == 0 and "worked" in lines

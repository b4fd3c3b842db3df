"""The mutations can be applied and are noticed or not; `python -m tests.mutations` runs them all."""

from pathlib import Path

import pytest
from support.mutations import Mutation, Unusable, read_mutations, run_all
from support.source_tree import ROOT

SOURCE = "def double(value: int) -> int:\n    return 2 * value\n"
TEST = "from double import double\n\ndef test_it() -> None:\n    assert double({argument}) == {product}\n"


def mutation(**changes: str) -> Mutation:
    fields = {"id": "X1", "row": "", "what": "", "file": "double.py", "old": "2 * value", "new": "value + 2"}
    return Mutation(**{**fields, **changes}, tests=("test_double.py",))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n", "utf-8")
    (tmp_path / "double.py").write_text(SOURCE, "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("argument", "product", "state"), [(3, 6, "killed"), (2, 4, "survived"), (3, 5, "red before")]
)
def test_a_mutation_is_killed_by_a_test_that_fails(
    argument: int, product: int, state: str, tree: Path
) -> None:
    (tree / "test_double.py").write_text(TEST.format(argument=argument, product=product), "utf-8")
    assert [result for _, result in run_all([mutation()], tree)] == [state]
    assert (tree / "double.py").read_text("utf-8") == SOURCE


def test_a_text_that_is_not_there_once_is_not_applied(tree: Path) -> None:
    (tree / "test_double.py").write_text(TEST.format(argument=3, product=6), "utf-8")
    for old in ("3 * value", "value"):
        assert [result for _, result in run_all([mutation(old=old)], tree)] == ["not applied"]


def test_every_mutation_of_the_tables_can_be_applied(tmp_path: Path) -> None:
    for entry in read_mutations():
        paths = [ROOT / entry.file] if entry.file else sorted(ROOT.glob(entry.all_files))
        for path in paths:
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(path.read_text("utf-8"), "utf-8")
        try:
            with entry.applied(tmp_path):
                pass
        except Unusable:
            pytest.fail(f"{entry.id}: its text is not in {entry.file or entry.all_files} once")
        for test in entry.tests:
            assert (ROOT / test.partition("::")[0]).exists(), f"{entry.id}: {test} does not exist"


def test_an_id_that_no_mutation_has_ends_the_program() -> None:
    with pytest.raises(SystemExit, match="no mutation has the id Z9"):
        read_mutations(["Z9"])

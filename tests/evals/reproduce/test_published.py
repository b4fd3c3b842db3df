"""The transcription of the papers' tables: whole, and where they repeat or derive a figure, consistent."""

from itertools import pairwise

import pytest

from pleinair.evals.reproduce.published import Figure, Published, published

TABLES = {
    *(f"imagerag/{number}" for number in ("1", "2", "3", "4", "5", "6", "8", "E.5")),
    *(f"crossmodal/{number}" for number in (1, 2, 3, 4, 5)),
    *(f"realrag/{number}" for number in (1, 2, 3, 5)),
}
FAMILIES = {"Δ AR": ("OmniGen", "Emu"), "Δ U-Net": ("SD V2.1", "SDXL"), "Δ DiT": ("SD V3", "Flux")}


def values(id: str, row: str) -> list[float]:
    return [figure.value for figure in published()[id].rows[row] if figure]


def test_every_table_is_there_and_has_a_figure_in_each_cell_but_those_of_llava() -> None:
    assert set(published()) == TABLES
    for table in published().values():
        for name, row in table.rows.items():
            assert len(row) == len(table.columns), (table.id, name)
            assert (None in row) == (name == "LLaVA"), (table.id, name)


def test_errors_are_read_where_they_are_printed() -> None:
    assert published()["imagerag/2"].figure("OmniGen", "cub DINO") == Figure(0.747, 0.005)
    assert published()["imagerag/8"].figure("SDXL", "cub DINO") == Figure(0.782, None)
    assert published()["imagerag/8"].figure("SDXL", "aircraft DINO") is None


def test_tables_of_imagerag_repeat_the_rows_of_table_2() -> None:
    main = published()["imagerag/2"]
    for id, name, row in (
        ("imagerag/3", "OmniGen", "OmniGen"),
        ("imagerag/3", "ImageRAG-O", "ImageRAG-O"),
        ("imagerag/4", "CLIP", "ImageRAG-O"),
        ("imagerag/6", "LAION-O", "ImageRAG-O"),
        ("imagerag/6", "LAION-SD", "ImageRAG-SD"),
        ("imagerag/8", "SDXL", "SDXL"),
        ("imagerag/8", "ImageRAG-SD", "ImageRAG-SD"),
    ):
        assert all(same_value(published()[id], name, main, row)), (id, name)


def same_value(table: Published, name: str, other: Published, row: str) -> list[bool]:
    columns = [column for column in table.columns if column in other.columns]
    assert columns
    cells = [(table.figure(name, column), other.figure(row, column)) for column in columns]
    return [
        first is not None and second is not None and first.value == second.value for first, second in cells
    ]


def test_the_rows_that_are_no_targets_are_those_that_repeat_the_plain_model() -> None:
    table = published()["imagerag/6"]
    assert table.not_targets == ("LAION-F", "Proprietary-F")
    assert all(same_value(table, "LAION-F", published()["imagerag/2"], "FLUX"))


def test_gains_of_realrag_are_the_means_of_their_families() -> None:
    table = published()["realrag/1"]
    for name, generators in FAMILIES.items():
        for column, printed in zip(table.columns, values(table.id, name), strict=True):
            gains = []
            for generator in generators:
                plain, better = (
                    table.figure(generator, column),
                    table.figure(f"{generator} + RealRAG", column),
                )
                assert plain and better
                gains.append(better.value - plain.value)
            assert sum(gains) / 2 == pytest.approx(printed, abs=0.0101), (name, column)


def test_averages_of_realrag_are_those_of_their_columns() -> None:
    for id in ("realrag/2", "realrag/5"):
        for name in published()[id].rows:
            *parts, printed = values(id, name)
            tolerance = 0.031 if name == "SD V3 + RealRAG" else 0.0051
            assert sum(parts) / 3 == pytest.approx(printed, abs=tolerance), (id, name)


def test_the_reflective_rows_of_the_ablations_are_those_of_the_main_tables() -> None:
    for generator in ("Emu", "SD V2.1", "Flux"):
        main = values("realrag/1", f"{generator} + RealRAG")[:3]
        assert values("realrag/3", f"{generator} reflective") == main
        accuracies = values("realrag/2", f"{generator} + RealRAG")
        assert values("realrag/5", f"{generator} reflective") == accuracies


def test_recall_grows_with_k_and_each_retriever_of_realrag_has_a_lower_distance_than_the_one_before() -> None:
    for name in published()["crossmodal/1"].rows:
        recalls = values("crossmodal/1", name)
        assert recalls[:3] == sorted(recalls[:3]) and recalls[3:] == sorted(recalls[3:])
    for generator in ("Emu", "SD V2.1", "Flux"):
        steps = [values("realrag/3", f"{generator} {loss}")[2] for loss in ("zero", "normal", "reflective")]
        assert all(later < earlier for earlier, later in pairwise(steps))


def test_tables_of_crossmodal_rag_fit_each_other() -> None:
    ours = published()["crossmodal/2"].rows["Ours"][-3:]
    assert published()["crossmodal/4"].rows["Ours"] == ours
    images, queries, pool = values("crossmodal/5", "WikiArt")
    assert images - queries == pool
    images, _, pool = values("crossmodal/5", "CUB")
    assert images - 1 == pool  # all but the test image
    images, queries, pool = values("crossmodal/5", "ImageNet-LT")
    assert images - queries == pool

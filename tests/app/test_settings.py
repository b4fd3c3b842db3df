"""Settings: precedence, origins, and errors with key, value and what is accepted."""

from pathlib import Path
from typing import Any

import pytest

from pleinair.app.runs.request import DrawRequest
from pleinair.app.settings import Settings, assignments, load, profiles
from pleinair.tools.types import BadInput


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PLEINAIR_TRUST", "all")  # of the folder's own file: see test_trust.py
    return tmp_path


def user_file(folder: Path, text: str) -> None:
    path = folder / "config" / "pleinair" / "pleinair.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", sorted(profiles()))
def test_every_packaged_profile_loads(name: str) -> None:
    assert load(name).profile == name


def test_pocket_is_the_default() -> None:
    settings = load()
    assert (settings.profile, settings.library.folder, settings.paths.out) == (
        "pocket",
        "pocket",
        "pleinair-out",
    )


def test_each_source_outranks_the_next(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [load().retrieval.k]
    user_file(empty, "retrieval.k = 5")
    values.append(load().retrieval.k)
    (empty / "pleinair.toml").write_text("[retrieval]\nk = 6\nthreshold = 0.5", encoding="utf-8")
    values.append(load().retrieval.k)
    monkeypatch.setenv("PLEINAIR_RETRIEVAL__K", "7")
    values.append(load().retrieval.k)
    values.append(load(overrides={"retrieval.k": 8}).retrieval.k)
    assert values == [4, 5, 6, 7, 8]
    assert load().retrieval.threshold == 0.5


def test_every_source_can_set_the_profile(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backends = 'generator.backend = "a"\nencoder.backend = "b"\nmllm.backend = "c"'
    (empty / "mine.toml").write_text(backends, encoding="utf-8")
    (empty / "pleinair.toml").write_text('profile = "./mine.toml"', encoding="utf-8")
    assert load().generator.backend == "a"
    monkeypatch.setenv("PLEINAIR_PROFILE", "pocket")
    assert load().generator.backend == "in_context"
    assert load("./mine.toml").mllm.backend == "c"


def test_another_backend_drops_the_arguments_of_the_former() -> None:
    settings = load(overrides={"generator.backend": "other", "generator.steps": 3})
    assert settings.generator.arguments == {"steps": 3}


def test_the_same_backend_keeps_its_other_arguments() -> None:
    settings = load(overrides={"generator.slots": 1})
    assert settings.generator.arguments["folder"] == load().generator.arguments["folder"]


def test_home_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_HOME", "/somewhere")
    assert isinstance(load(), Settings)


def test_the_options_of_a_graph_are_a_table(empty: Path) -> None:
    (empty / "pleinair.toml").write_text('[imagerag]\nmode = "generation"\nrounds = 2', encoding="utf-8")
    options = load(overrides={"imagerag.rounds": 3}).imagerag
    assert (options.mode, options.rounds, options.captions) == ("generation", 3, 1)


def test_retrieval_is_composed_by_a_table(empty: Path) -> None:
    text = '[retrieval]\nmethod = "both"\nlicenses = ["CC0-1.0"]\n[retrieval.second]\nbackend = "open_clip"'
    (empty / "pleinair.toml").write_text(text + '\nmodel = "ViT-B-16-SigLIP"', encoding="utf-8")
    knobs = load(overrides={"retrieval.rerank": "bm25"}).retrieval
    assert (knobs.method, knobs.rerank, knobs.licenses) == ("both", "bm25", ("CC0-1.0",))
    assert knobs.second is not None
    assert knobs.second.arguments == {"model": "ViT-B-16-SigLIP"}


def test_another_method_drops_the_arguments_of_the_former(empty: Path) -> None:
    text = '[retrieval]\nmethod = "varied"\narguments.shared = 2'
    (empty / "pleinair.toml").write_text(text, encoding="utf-8")
    assert load(overrides={"retrieval.arguments.other": 1}).retrieval.arguments == {"shared": 2, "other": 1}
    assert load(overrides={"retrieval.method": "dense"}).retrieval.arguments == {}


BAD_KEYS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"imagerag.mode": "fast"}, ("imagerag.mode = 'fast'", "the request", "'draft_first' or 'generation'")),
    ({"imagerag.x": 1}, ("imagerag.x = 1", "unknown key; accepted: mode, retrieve_by")),
    ({"retrieval.method": ""}, ("retrieval.method = ''", "at least 1 character")),
    ({"retrieval.arguments": 1}, ("retrieval.arguments = 1", "must be a table")),
    ({"retrieval.licenses": "CC0"}, ("retrieval.licenses = 'CC0'", "must be a list")),
    ({"retrieval.second.model": "x"}, ("retrieval.second.backend = nothing", "required")),
    ({"retrieval.k": 0}, ("retrieval.k = 0", "the request", "at least 1")),
    ({"retrieval.k": "many"}, ("retrieval.k = 'many'", "must be a whole number")),
    ({"retrieval.threshold": 2}, ("retrieval.threshold = 2", "at most 1")),
    ({"retrieval.threshold": "often"}, ("retrieval.threshold = 'often'", "from -1 to 1, or 'auto'")),
    ({"retrieval.x": 1}, ("retrieval.x = 1", "unknown key; accepted: method, rerank")),
    ({"retreival.k": 1}, ("retreival = {'k': 1}", "unknown key", "Did you mean `retrieval`?")),
    ({"retrieval.k": "8"}, ("retrieval.k = '8'", "must be a whole number")),
    ({"retrieval.k": True}, ("retrieval.k = True", "must be a whole number")),
    ({"worker.grace": float("inf")}, ("worker.grace = inf: must be a finite number",)),
    ({"budget.seconds": float("inf")}, ("budget.seconds = inf: must be a finite number",)),
    ({"imagerag.threshold": float("nan")}, ("imagerag.threshold = nan: must be a finite number",)),
    ({"image.width": 63}, ("image.width = 63", "multiple of 8")),
    ({"image.num_inference_steps": 0}, ("image.num_inference_steps = 0", "greater than 0")),
    ({"image.guidance_scale": -1}, ("image.guidance_scale = -1", "at least 0")),
    ({"image.reference_strength": 2}, ("image.reference_strength = 2", "at most 1")),
    ({"image.widht": 64}, ("image.widht = 64", "Did you mean `width`?")),
    ({"budget.attempts": -1}, ("budget.attempts = -1", "at least 0")),
    ({"budget.euros": 1}, ("budget.euros = 1", "usd")),
    ({"generator.backend": ""}, ("generator.backend = ''", "at least 1 character")),
    ({"library": 3}, ("library = 3",)),
    ({"library.folder": ""}, ("library.folder = ''",)),
    ({"paths.out": 3}, ("paths.out = 3", "must be a text")),
    ({"paths.out": "", "retrieval.k": 0}, ("paths.out = ''", "retrieval.k = 0")),
]


@pytest.mark.parametrize(("overrides", "words"), BAD_KEYS)
def test_a_bad_key_is_refused_with_value_origin_and_what_is_accepted(
    overrides: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(BadInput) as error:
        load(overrides=overrides)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_the_origin_is_the_file_or_the_environment(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty / "pleinair.toml").write_text("retrieval.k = 0", encoding="utf-8")
    with pytest.raises(BadInput, match=r"set in: pleinair\.toml"):
        load()
    monkeypatch.setenv("PLEINAIR_RETRIEVAL__K", "-3")
    with pytest.raises(BadInput, match="-3 .set in: environment"):
        load()


def test_an_unknown_environment_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_BUGDET__ATTEMPTS", "3")
    with pytest.raises(BadInput, match="bugdet"):
        load()


def test_an_unknown_profile_lists_the_choices() -> None:
    with pytest.raises(BadInput, match="'sorbet'.*accepted: .*pocket"):
        load("sorbet")


def test_invalid_toml_is_refused_with_the_file(empty: Path) -> None:
    (empty / "pleinair.toml").write_text("retrieval = [", encoding="utf-8")
    with pytest.raises(BadInput, match=r"pleinair\.toml: invalid TOML"):
        load()


def test_a_value_and_a_table_at_once_is_an_error() -> None:
    with pytest.raises(BadInput, match="both to a value and to a table"):
        load(overrides={"library": "x", "library.folder": "y"})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=1.5", 1.5),
        ("a=true", True),
        ("a=word", "word"),
        ('a="1"', "1"),
        ("a=[1, 2]", [1, 2]),
        ("a=", ""),
    ],
)
def test_assignments_read_toml_or_text(text: str, value: Any) -> None:
    assert assignments([text]) == {"a": value}


@pytest.mark.parametrize("text", ["", "a", "=1"])
def test_an_assignment_needs_key_and_sign(text: str) -> None:
    with pytest.raises(BadInput, match="must be key=value"):
        assignments([text])


def test_a_profile_inherits_from_the_one_that_it_extends(empty: Path) -> None:
    mine = 'extends = "pocket"\n[retrieval]\nk = 9\n[mllm]\nbackend = "openai"\nmodel = "m"\n'
    (empty / "mine.toml").write_text(mine, encoding="utf-8")
    settings, pocket = load("mine.toml"), load("pocket")
    assert (settings.retrieval.k, settings.retrieval.threshold) == (9, pocket.retrieval.threshold)
    assert (settings.generator, settings.mllm.arguments) == (pocket.generator, {"model": "m"})


def test_a_circular_extends_is_refused(empty: Path) -> None:
    (empty / "a.toml").write_text('extends = "b.toml"', encoding="utf-8")
    (empty / "b.toml").write_text('extends = "a.toml"', encoding="utf-8")
    with pytest.raises(BadInput, match=r"extends = 'a.toml' \(set in: b.toml\): circular `extends`"):
        load("a.toml")


@pytest.mark.parametrize(
    ("former", "current"),
    [
        ("retrieval.floor", "retrieval.threshold"),
        ("generator.engine", "generator.backend"),
        ("mllm.eyes", "mllm.detector"),
    ],
)
def test_a_renamed_key_is_accepted_with_a_warning(former: str, current: str) -> None:
    value = 0.5 if former.endswith("floor") else "in_context"
    with pytest.warns(DeprecationWarning, match=f"{former} is now called {current}") as warnings:
        settings = load(overrides={former: value})
    assert "set in: the request" in str(warnings[0].message)
    assert settings == load(overrides={current: value})


def test_settings_of_a_stored_run_are_read_by_their_former_keys() -> None:
    stored = load().model_dump(mode="json")
    stored["retrieval"]["floor"] = stored["retrieval"].pop("threshold")
    stored["mllm"]["engine"] = stored["mllm"].pop("backend")
    request = DrawRequest.model_validate(
        {"prompt": "x", "graph": "direct", "seed": 1, "settings": stored, "out": "/tmp"}
    )
    assert request.settings == load()

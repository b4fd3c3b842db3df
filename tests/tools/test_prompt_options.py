"""Options in prompts: what is read, what stays, and that prompts without options come back unchanged."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleinair.tools.prompt_options import parse_prompt_options

TRAILER = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 12, Size: 512x768, Model: x"
READ: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("a (wren:1.2) in snow", "a wren in snow", [("weight", "wren")]),
    ("a (wren in snow:0.8)", "a wren in snow", [("weight", "wren in snow")]),
    ("((wren)) in snow", "wren in snow", [("weight", "wren")]),
    ("(((a wren)))", "a wren", [("weight", "a wren")]),
    ("a [wren] in snow", "a wren in snow", [("weight", "wren")]),
    ("a wren, [[snow]]", "a wren, snow", [("weight", "snow")]),
    ("a (wren)1.3 in snow", "a wren in snow", [("weight", "wren")]),
    ("a (wren)++, snow", "a wren, snow", [("weight", "wren")]),
    ("(a wren, (snow:1.1):1.3)", "a wren, snow", [("weight", "snow"), ("weight", "a wren, snow")]),
    ("wren::2 snow::1", "wren snow", [("unsupported", ""), ("unsupported", "")]),
    ("<lora:feathers:0.8> a wren", "a wren", [("unsupported", "")]),
    ("a wren --ar 16:9", "a wren", [("ratio", "16:9")]),
    ("a wren --ar 3x2", "a wren", [("ratio", "3:2")]),
    ("a wren --aspect 4:5, in snow", "a wren, in snow", [("ratio", "4:5")]),
    ("a wren —ar 16:9", "a wren", [("ratio", "16:9")]),
    ("--ar 1:1 a wren", "a wren", [("ratio", "1:1")]),
    ("a wren --no text", "a wren", [("negative_prompt", "text")]),
    ("a wren --no text, hands --seed 7", "a wren", [("seed", "7"), ("negative_prompt", "text, hands")]),
    ('a wren --negative-prompt "blurry sky"', "a wren", [("negative_prompt", "blurry sky")]),
    ("a wren --seed 7", "a wren", [("seed", "7")]),
    ("a wren --seed=7 in snow", "a wren in snow", [("seed", "7")]),
    ("a wren --seed -1", "a wren", [("seed", "-1")]),
    ("a wren --v 6", "a wren", [("unsupported", "")]),
    ("a wren --v 6.1 --stylize 250", "a wren", [("unsupported", "")] * 2),
    ("a wren --niji 6 --tile --q 2", "a wren", [("unsupported", "")] * 3),
    ("a wren --style raw", "a wren", [("unsupported", "")]),
    ("a wren --sref https://example.org/a.png", "a wren", [("unsupported", "")]),
    ("a wren --steps 30 --cfg 4.5", "a wren", [("num_inference_steps", "30"), ("guidance_scale", "4.5")]),
    ("a wren --w 512 --h 768", "a wren", [("size", "512x"), ("size", "x768")]),
    ("a wren --size 512x768", "a wren", [("size", "512x768")]),
    ("a wren --num-images 3", "a wren", [("num_images", "3")]),
    ("a wren\nNegative prompt: blurry, text", "a wren", [("negative_prompt", "blurry, text")]),
    ("a wren. Negative prompt: text", "a wren.", [("negative_prompt", "text")]),
    ("a wren, negative_prompt: text", "a wren", [("negative_prompt", "text")]),
    (
        f"a wren\nNegative prompt: text\n{TRAILER}",
        "a wren",
        [("unsupported", ""), ("seed", "12"), ("size", "512x768"), ("negative_prompt", "text")],
    ),
    ("4 pictures of a wren", "a picture of a wren", [("num_images", "4")]),
    ("Four images of a wren", "an image of a wren", [("num_images", "4")]),
    ("please draw me two photos of a wren", "please draw me a photo of a wren", [("num_images", "2")]),
    ("draw 3 variations of a wren", "draw a wren", [("num_images", "3")]),
    ("make six different pictures of a wren", "make a picture of a wren", [("num_images", "6")]),
    ("a wren 1024x768", "a wren", [("size", "1024x768")]),
    ("a wren, 1024×768 px, in snow", "a wren, in snow", [("size", "1024x768")]),
    ("a wren (in snow), 512x512.", "a wren (in snow).", [("size", "512x512")]),
    ("a wren at 1920 x 1080", "a wren", [("size", "1920x1080")]),
    ("a wren, 64x64 pixels", "a wren", [("size", "64x64")]),
    ("a wren in portrait format", "a wren", [("ratio", "2:3")]),
    ("a wren, landscape format, in snow", "a wren, in snow", [("ratio", "3:2")]),
    ("a wren in square format", "a wren", [("ratio", "1:1")]),
    ("Landscape orientation, a wren", "a wren", [("ratio", "3:2")]),
    ("a wren, square", "a wren", [("ratio", "1:1")]),
    ("a wren, 16:9", "a wren", [("ratio", "16:9")]),
    ("a wren in 9:16", "a wren", [("ratio", "9:16")]),
    ("a wren, 3:2", "a wren", [("ratio", "3:2")]),
    ("a wren, aspect ratio 4:3", "a wren", [("ratio", "4:3")]),
    ("a wren in a 2:3 format", "a wren", [("ratio", "2:3")]),
    ("a “(wren:1.2)” sign --seed 7", "a “(wren:1.2)” sign", [("seed", "7")]),
    ("A WREN --AR 16:9 --No Text", "A WREN", [("ratio", "16:9"), ("negative_prompt", "Text")]),
    ("a wren -ar 16:9 -seed 7", "a wren", [("ratio", "16:9"), ("seed", "7")]),
    ("a wren --ar16:9 --q .5", "a wren", [("ratio", "16:9"), ("unsupported", "")]),
    ("a wren --ar 1.91:1", "a wren", [("ratio", "1.91:1")]),
    ("a wren --ar 16：9", "a wren", [("ratio", "16:9")]),
    ("a wren --ar 0:9", "a wren", [("ratio", "0:9")]),
    ("a wren --ar 1.5, in snow", "a wren, in snow", [("unsupported", "")]),
    ("a wren --seed abc --size 512", "a wren abc", [("unsupported", "")] * 2),
    ("a wren --no-text --no-people", "a wren", [("negative_prompt", "text"), ("negative_prompt", "people")]),
    ("a wren | negative prompt: text", "a wren", [("negative_prompt", "text")]),
    ("a wren::2 snow::-1", "a wren", [("negative_prompt", "snow"), ("unsupported", "")]),
    ("/imagine prompt: a wren --v 6", "a wren", [("unsupported", "")] * 2),
    (
        "Prompt: a wren\nNegative prompt: text",
        "a wren",
        [("negative_prompt", "text"), ("unsupported", "")],
    ),
    ("a wren, 1024*768", "a wren", [("size", "1024x768")]),
    ("a wren at 16:9", "a wren", [("ratio", "16:9")]),
    ("a wren, vertical format", "a wren", [("ratio", "2:3")]),
    ("a portrait-format photo of a wren", "a photo of a wren", [("ratio", "2:3")]),
    (
        "Could you please draw me 4 images of a wren?",
        "Could you please draw me an image of a wren?",
        [("num_images", "4")],
    ),
    ("I'd like a couple of photos of a wren", "I'd like a photo of a wren", [("num_images", "2")]),
    ("a wren, two versions", "a wren", [("num_images", "2")]),
    ("a wren, 3 different images please.", "a wren", [("num_images", "3")]),
    ("a wren, seed 42", "a wren", [("seed", "42")]),
    ("a wren in snow with seed: 42", "a wren in snow", [("seed", "42")]),
    ("seed=42, a wren", "a wren", [("seed", "42")]),
]
UNCHANGED = [
    "a wren in the snow",
    "a 4x4 truck",
    "a 2x4 plank, 10x10 grid of dots",
    "16:9 ratio poster 'no text'",
    "(rare) wren",
    "a wren (in the snow)",
    "a wren ((",
    "a photo of a 1920x1080 monitor",
    "a 1024x768 pixel art of a wren",
    "a town square",
    "a square of grass, round",
    "a landscape of hills",
    "a portrait of a man, landscape behind him",
    "a woman, portrait",
    "a clock at 10:30",
    "the final score, 3:2",
    "the team won 2:1, 2:1",
    "a 1:18 scale model car",
    "a page that says (John 3:1)",
    "a train leaving (at 10:30)",
    "two cats",
    "four finches beside a wren",
    "two photos of a wren on a wall",
    "3 pictures of cats in a collage",
    "a painting of two pictures of a wren",
    "one picture of a wren",
    'a poster with the words "--ar 16:9 --no text"',
    "a sign saying 'Negative prompt: none'",
    "a terminal showing `git commit --amend`",
    "git log --no-merges in a terminal",
    "a diagram of --force",
    "an array a[1] on a blackboard",
    "a sign [1] and [ ]",
    "std::vector on a T-shirt",
    "a link [wren](https://example.org)",
    "[cat:dog:0.5]",
    "a wren—no snow at all",
    "a wren -- the last of its kind",
    "please draw me a wren, thanks",
    "a watercolour of a wren, in the snow, at night",
    "a wren 🙂 in the snow",
    "Steps: a staircase in the mist",
    "a seed 7 of a sunflower",
    "a sparrow eating seed 7",
    "a train that leaves at 9:16",
    "doors open from 9:16, a queue",
    "git log --no-merges in a terminal window",
    "a sign at 10-w 512",
    "two versions of",
    "a prompt: a word on a screen",
    '```json\n{"prompt": "a wren"}\n```',
    "  a wren\n",
]


@pytest.mark.parametrize(("text", "prompt", "options"), READ)
def test_options_are_taken_out_of_a_prompt(text: str, prompt: str, options: list[tuple[str, str]]) -> None:
    parsed = parse_prompt_options(text)
    assert parsed.prompt == prompt
    read = [
        (option.option, option.value if option.option != "unsupported" else "") for option in parsed.options
    ]
    assert read == options
    assert all(option.text in text for option in parsed.options if option.option != "weight")
    again = parse_prompt_options(parsed.prompt)
    assert again.prompt == parsed.prompt and not again.options


@pytest.mark.parametrize("text", UNCHANGED)
def test_what_may_be_part_of_the_scene_stays(text: str) -> None:
    parsed = parse_prompt_options(text)
    assert parsed.prompt == text and not parsed.options


@given(st.text(st.characters(exclude_characters="()[]<>-—–:x×", exclude_categories=["Cs"]), max_size=120))
def test_a_prompt_without_option_syntax_comes_back_unchanged(text: str) -> None:
    if not re.search(r"\d|format|orientation|mode|square| of ", text, re.IGNORECASE):
        parsed = parse_prompt_options(text)
        assert parsed.prompt == text and not parsed.options


@given(st.text(st.sampled_from("()[]<>-:,. \n\"'x16wrennoseed"), max_size=300))
def test_any_text_is_read_and_a_prompt_with_no_option_is_unchanged(text: str) -> None:
    parsed = parse_prompt_options(text)
    assert parsed.options or parsed.prompt == text
    assert len(parsed.prompt) <= len(text)


@pytest.mark.parametrize("part", ["(", "[", "((", "--", '"', "“", "a (b", "--no ", "1x", "<lora:", "(a:"])
def test_reading_takes_linear_time(part: str) -> None:
    text = (part * 2000)[:2000]
    assert len(parse_prompt_options(text).prompt) <= 2000


@pytest.mark.parametrize("name", ["<|image_1|>", "<img><|image_1|></img>"])
def test_a_placeholder_of_an_input_image_is_no_option(name: str) -> None:
    prompt = f"my cat {name} riding a finch"
    parsed = parse_prompt_options(prompt)
    assert (parsed.prompt, parsed.options) == (prompt, ())

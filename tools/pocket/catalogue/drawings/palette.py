"""Colours of the catalogue world; those of `NAMED` are words of a prompt."""

from functools import cache

RGB = tuple[int, int, int]

NAMED: dict[str, RGB] = {
    "red": (206, 38, 44),
    "orange": (240, 126, 28),
    "yellow": (248, 210, 48),
    "green": (56, 142, 62),
    "teal": (20, 158, 160),
    "blue": (38, 84, 200),
    "purple": (122, 58, 172),
    "pink": (242, 134, 170),
    "brown": (126, 80, 44),
    "grey": (138, 142, 150),
    "white": (248, 248, 244),
    "black": (34, 32, 38),
    "gold": (206, 158, 56),
    "cream": (244, 228, 190),
    "turquoise": (84, 204, 210),
    "maroon": (116, 28, 44),
}
DETAIL: dict[str, RGB] = {
    "ink": (26, 24, 30),
    "horn": (224, 164, 58),
    "glass": (196, 222, 234),
    "stem": (86, 140, 66),
    "leaf": (104, 164, 78),
    "rubber": (40, 40, 44),
    "silver": (196, 200, 206),
    "sky": (146, 198, 240),
    "tan": (212, 170, 116),
    "buff": (226, 184, 132),
    "lilac": (178, 150, 214),
    "rust": (178, 82, 36),
    "olive": (118, 124, 52),
    "slate": (82, 96, 120),
}
COLOURS: dict[str, RGB] = NAMED | DETAIL


@cache
def rgb(colour: str) -> RGB:
    """Return a colour's bytes; "dark" before its name makes it a shade darker, and may be repeated."""
    if colour.startswith("dark "):
        red, green, blue = rgb(colour.removeprefix("dark "))
        return int(red * 0.82), int(green * 0.82), int(blue * 0.82)
    return COLOURS[colour]


def distinct(colour: str, beside: str) -> str:
    """Return a colour, or its darker shade where it would not stand out beside an equal one."""
    return f"dark {colour}" if colour == beside else colour

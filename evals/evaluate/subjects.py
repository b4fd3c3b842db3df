"""Subject of an English caption: its first noun phrase, by lists of words and without a model.

What comes before it is left out: a command ("draw a …"), the kind of image ("a photo of a …"), "there is", an
article, a number, a measure ("a bunch of …"), and what the name of a file has besides words. It ends at a
preposition, a verb, a participle, or a mark. Not covered: words that the lists lack, captions in other
languages, and plurals, which are other subjects than their singulars.
"""

from __future__ import annotations

import re

from pleinair.tools.retrieval.readers.names import subject_of as words_of_name

_LONGEST = 4  # words of a subject
_SENTENCE = 8  # words above which a caption without an end of the subject is not understood
_FOREIGN = re.compile(  # words of German, French, Spanish, Italian, Portuguese, Dutch; or another script
    r"\b(?:ein|eine[mnrs]?|der|dem|und|mit|auf|im|über|une?|les|des|du|sur|avec|dans|el|los|las|una|con|del|della|"
    r"il|nel|een|het|op|met|um|uma|com|em|de|la|le)\b|[^\W\d_a-zß-ʯ]+"
)
_ENGLISH = re.compile(r"\b(?:an?|the|of|in|on|at|with|and|is|to)\b")
_COLOURS = (
    "black white red green blue yellow orange brown grey gray pink purple gold silver tan beige".split()
)
_COLOUR = "|".join(_COLOURS)
_ARTICLE = (
    r"(?:an?|the|this|that|these|those|his|her|its|their|my|our|your|some|several|many|few|various|both|one|two|"
    r"three|four|five|six|seven|eight|nine|ten|\d+)"
)
_MEDIUM = (
    r"(?:photos?|photographs?|pics?|pictures?|images?|snapshots?|shots?|drawings?|paintings?|watercolou?rs?|"
    r"sketch(?:es)?|illustrations?|renders?|renderings?|prints?|posters?|portraits?|views?|scenes?|depictions?|"
    r"screenshots?|close-?ups?|close up|selfies?|cartoons?)"
)
_ADJECTIVES = (
    r"(?:black and white |(?!(?:of|and|or|in|on|at|by|with|an?|the|is|are|holds|takes)\b|\w+ing\b)"
    r"[a-z0-9][\w'-]*,? ){0,3}"
)
_SHOWS = r"(?:of|shows?|showing|features?|featuring|depicts?|depicting|captures?|capturing|contains?|with)"
_COMMAND = "(?:draw|paint|show|give|make|create|generate|render|sketch|design|illustrate|produce|imagine|see)"
_MEASURE = (
    "(?:groups?|pairs?|couple|bunch|herd|flock|rows?|pile|stack|set|lot|number|variety|collection|"
    "crowd|team|pieces?|slices?|plates?|bowls?|cups?|glass|glasses|bottles?|box|boxes|baskets?|bouquet)"
)
_BEFORE = re.compile(
    r"(?:"
    r"/imagine(?: prompt:?)? "
    r"|(?:masterpiece|best quality|high quality|highres|absurdres|[48]k), ?"
    r"|please |(?:can|could|would) you |i (?:want|need|would like)(?: you)?(?: to)? "
    r"|i'd like(?: you)?(?: to)? "
    rf"|{_COMMAND} (?:me|us) |(?:(?<=please )|(?<=you )|(?<=to )){_COMMAND} "
    rf"|{_COMMAND} (?={_ARTICLE} |{_MEDIUM}\b)"
    r"|(?:in|on) (?:this|the) (?:photo|picture|image|scene),? "
    r"|(?:there|here|this|that|these|those|it)(?: is| are|'s) |(?:we|you)(?: can)? see "
    rf"|(?:{_ARTICLE} )?{_ADJECTIVES}{_MEDIUM}(?: \d+)? {_SHOWS} "
    rf"|(?:{_MEDIUM}|{_COMMAND}|prompt|caption|title|description|subject): "
    rf"|(?:{_ARTICLE} )?(?:(?:large|small|big|huge|whole) )?{_MEASURE} of "
    rf"|{_ARTICLE} "
    r"|n\d{6,}[ -]+"  # a class of ImageNet
    r")*"
)
_PREPOSITIONS = (
    "in|on|at|by|with|without|or|to|under|over|near|next|beside|behind|above|below|of|from|for|into|onto|through|"
    "against|around|along|across|between|before|after|while|as|inside|outside|atop|towards?|during|among|who|that|"
    "which|where|up|down|out|off"
)
_VERBS = (
    "is|are|was|were|has|have|had|left|right|made|seen|shown|taken|sat|stood|ran|held|wore|flew|stands|sits|runs|lies|"
    "lays|walks|plays|jumps|holds|rides|looks|wears|flies|eats|sleeps|drives|swims|waits|rests|stares|smiles|catches|"
    "throws|hits|kicks|reads|talks|poses|leans|climbs|carries|pulls|pushes|makes|takes|gets|goes|comes|wades|grazes|"
    "perches|hangs|travels|sails|floats|enjoys|performs|surfs|swings|prepares|feeds|crouches|kneels|dances|builds|"
    "uses|tries|shows|chases|hovers|barks|grows|shines|appears|seems"
)
_OF_PLURALS = (
    "stand|sit|run|lie|lay|walk|play|jump|hold|ride|look|wear|fly|eat|sleep|drive|swim|wait|rest|stare|smile|pose|"
    "lean|climb|carry|make|take|get|go|graze|perch|hang|sail|float|enjoy|perform|surf|prepare|dance|build|grow"
)
_PLURAL = "|".join(f"(?<={end} )" for end in "[^s]s people children men women sheep geese mice".split())
_PAIR = "".join(rf"(?<!\b{colour} )" for colour in _COLOURS) + rf"\band\b|\band\b(?! (?:{_COLOUR})\b)"
_NOUNS = (  # that end as a participle does
    "buildings?|ceilings?|paintings?|drawings?|weddings?|living|dining|clothing|morning|evening|spring|string|"
    "railings?|earrings?|pudding|frosting|icing|sibling|duckling|gosling|seedling|sapling|crossing|awning|viking|"
    "herring|starling|stocking|landing gear|swimming pool|washing machine|sewing machine|vending machine|"
    "parking (?:lot|meter|garage|space|sign)|shopping (?:cart|bag|mall|cent(?:er|re))|"
    "fishing (?:boat|rod|pole|net)|rocking (?:chair|horse)|frying pan|cutting board|sleeping bag|"
    "running shoes|racing (?:car|bike|bicycle)|hiking (?:boots|trail)|steering wheel|"
    "baking (?:sheet|dish|tray)|ironing board|sailing (?:boat|ship)|mixing bowl|boxing (?:gloves|ring)|"
    "watering can"
)
_NOT_PARTICIPLES = r"shed|\w*sled|moped|hundred|thoroughbred|\w*eed|\w*bed"
_AFTER = re.compile(
    rf"[^\w' -]|(?<!\w)(?:{_PREPOSITIONS}|an?|the)(?!\w)"
    rf"|{_PAIR}|(?<=\w )(?:{_VERBS})\b|(?:{_PLURAL})(?:{_OF_PLURALS})\b"
    rf"|(?<=\w )(?!(?:{_NOUNS})\b)\w{{2,}}ing\b"
    rf"|(?<=\w )(?!(?:{_NOT_PARTICIPLES})\b)\w{{2,}}ed(?= (?:{_PREPOSITIONS})\b|[^\w' -]|$)"
)
_FILE = re.compile(r"(?P<name>.*)\.(?:jpe?g|png|webp|gif|bmp|tiff?|heic|avif)|(?P<word>(?=.*[\d_])[^ ]+)")


def subject_of(caption: str) -> str:
    """Return the first noun phrase of a caption in lower case, at most four words; "" if it has none."""
    text = " ".join(caption.lower().replace("’", "'").split())
    if file := _FILE.fullmatch(text):
        text = words_of_name(file["name"] or file["word"])
    text = _BEFORE.sub("", text, count=1)
    if len(text.split()) > _LONGEST and _is_foreign(text):
        return ""
    end = _AFTER.search(text)
    words = (text[: end.start()] if end else text).split()
    return "" if end is None and len(words) > _SENTENCE else " ".join(words[-_LONGEST:]).strip("-' ")


def _is_foreign(text: str) -> bool:
    words, english = ({*pattern.findall(text)} for pattern in (_FOREIGN, _ENGLISH))
    return len(words) > max(len(english), 1)

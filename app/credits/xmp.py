"""XMP packet of a generated image: IPTC's digital source type, the model, and the credit line.

Properties of the IPTC Photo Metadata Standard 2025.1 and its vocabulary of digital source types.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

KEY = "XML:com.adobe.xmp"  # keyword of a PNG's text chunk with XMP
MAX_TEXT = 4_000  # characters of one property
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_NAMESPACES = {
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
}


def packet(*, tool: str, model: str, credit: str = "", source_type: str = GENERATED) -> str:
    """Return the XMP of a generated image.

    Args:
        tool: name and version of the program.
        model: name of the generator.
        credit: the credit line of its references; "" for none.
        source_type: IPTC's; `COMPOSITE` where a part of the image is another image, in which the rest was
            generated.
    """
    properties = {
        "xmp:CreatorTool": tool,
        "Iptc4xmpExt:DigitalSourceType": source_type,
        "Iptc4xmpExt:AISystemUsed": model,
        "photoshop:Credit": credit,
    }
    lines = [f"<{name}>{_text(value)}</{name}>" for name, value in properties.items() if value]
    names = " ".join(f'xmlns:{prefix}="{address}"' for prefix, address in _NAMESPACES.items())
    return "\n".join(
        (
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>',
            '<x:xmpmeta xmlns:x="adobe:ns:meta/">',
            '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">',
            f'<rdf:Description rdf:about="" {names}>',
            *lines,
            "</rdf:Description>",
            "</rdf:RDF>",
            "</x:xmpmeta>",
            '<?xpacket end="r"?>',
        )
    )


def _text(text: str) -> str:
    """Return a text for an XML element: only characters of XML 1.0, at most `MAX_TEXT`."""
    allowed = "".join(char if _is_allowed(ord(char)) else "\ufffd" for char in text[:MAX_TEXT])
    return escape(allowed)


def _is_allowed(code: int) -> bool:
    is_text = code >= 0x20 and not 0x7F <= code <= 0x9F and not 0xD800 <= code <= 0xDFFF
    return is_text and code & 0xFFFE != 0xFFFE

"""Pages that need no network: take out what reaches outside, and find what still does.

Notebooks and corpora may come from strangers. What a page of theirs would fetch, run or
submit is removed on the way into a report, whatever the browser's policy would do.
"""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Comment, Doctype, Tag
from bs4.element import PreformattedString

# Elements that fetch or run something, or that change how the page is read.
_FORBIDDEN = ("script", "iframe", "frame", "object", "embed", "applet", "link", "base", "form",
              "audio", "video", "source", "track", "portal", "template", "noscript")  # fmt: skip
_FETCHING = ("src", "srcset", "href", "xlink:href", "data", "poster", "background", "action",
             "formaction", "ping", "manifest", "cite", "longdesc")  # fmt: skip
_CSS_FETCH = re.compile(r"url\(\s*['\"]?(?!data:|#)([^'\")]*)|@import\s+(?!url)([^;]*)", re.I)


# Elements whose content a browser does not read as elements, where the parser here does.
_RAW = ("xmp", "plaintext", "noembed", "noframes")
_NAME = re.compile(r"[a-zA-Z_][\w:.-]*")
# What a browser does not see in an address: controls and blanks, in front and in between.
_UNSEEN = re.compile(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\s]+")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.I)


def seal(html: str) -> str:
    """Remove from a page all that fetches, runs or submits; what was a link stays as text.

    The page is written anew from what was understood of it, with every sign that could be
    markup escaped: where a browser would have read the given text otherwise (it ends some
    comments sooner), there is nothing left for it to read. Comments are removed for that.
    """
    soup = BeautifulSoup(html, "html.parser")
    for part in soup.find_all(string=lambda text: isinstance(text, PreformattedString)):
        if not isinstance(part, Doctype) or str(part).strip().lower() != "html":
            part.extract()
    for tag in soup.find_all(_FORBIDDEN):
        tag.decompose()
    for tag in soup.find_all("meta"):
        if str(tag.get("http-equiv", "")).strip().lower() not in ("", "content-security-policy"):
            tag.decompose()
    for tag in soup.find_all(True):
        if tag.name in _RAW or not _NAME.fullmatch(tag.name):
            tag.unwrap()
        else:
            _seal_tag(soup, tag)
    for tag in soup.find_all("style"):
        # Inside a drawing a browser reads a style sheet as markup; in CSS, \3c is the same sign.
        text = _CSS_FETCH.sub("none(", tag.get_text())
        tag.string = re.sub(r"<(?=[a-zA-Z/!?])", r"\\3c ", text)
    return str(soup)


def _address(value: object) -> str:
    """Return an address as a browser takes it: without blanks, slashes the right way round."""
    text = " ".join(value) if isinstance(value, list) else str(value)
    return _UNSEEN.sub("", text).replace("\\", "/")


def _seal_tag(soup: BeautifulSoup, tag: Tag) -> None:
    for name in [n for n in tag.attrs if n.lower().startswith("on") or not _NAME.fullmatch(n)]:
        del tag[name]
    if "style" in tag.attrs and _CSS_FETCH.search(str(tag["style"])):
        del tag["style"]
    for name in [n for n in tag.attrs if n.lower() in _FETCHING]:
        address = _address(tag[name])
        if address.startswith("#") or _is_picture(tag, name, address) or _is_beside(tag, address):
            continue
        del tag[name]
        if tag.name == "a" and re.match(r"(https?:)?//", address):
            # Kept readable: on paper, too, an address is worth more than an underline.
            shown = re.sub(r"^(https?:)?//", "", address)
            if shown not in tag.get_text():
                tag.append(f" ({shown})")
        elif tag.name in ("img", "image"):
            tag.replace_with(f"[picture left out: {tag.get('alt') or address[:80]}]")
            return


def _is_picture(tag: Tag, name: str, address: str) -> bool:
    return tag.name in ("img", "image") and bool(re.match(r"data:image/[\w.+-]+[;,]", address))


def _is_beside(tag: Tag, address: str) -> bool:
    # A link to a file of the same report: relative, no scheme, no host.
    return tag.name == "a" and not _SCHEME.match(address)


def assert_offline(html: str) -> list[str]:
    """List every reference of a page to something outside of it; an empty list is what we want.

    Looks at attributes that fetch or lead away, at ``url(...)`` and ``@import`` in styles,
    at scripts that name an address, at forbidden elements, at what runs or leads away by
    itself, and at comments that a browser ends elsewhere than the parser here.

    Examples
    --------
    >>> assert_offline('<img alt="" src="https://example.org/a.png"><p>see example.org</p>')
    ['<img src="https://example.org/a.png">']
    """
    soup = BeautifulSoup(html, "html.parser")
    found = [f"<!{str(text)[:100]}" for text in soup.find_all(string=_ends_elsewhere)]
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            text = " ".join(value) if isinstance(value, list) else str(value)
            address = _address(text)
            leads = name.lower() in _FETCHING and bool(_SCHEME.match(address))
            leads = leads and not address.lower().startswith("data:")
            runs = name.lower().startswith("on") and bool(_NAME.fullmatch(name))
            if leads or runs or (name.lower() == "style" and _CSS_FETCH.search(text)):
                found.append(f'<{tag.name} {name}="{text[:100]}">')
        if tag.name == "meta" and str(tag.get("http-equiv", "")).strip().lower() == "refresh":
            found.append(f'<meta http-equiv="refresh" content="{tag.get("content")}">')
        if tag.name in ("iframe", "object", "embed", "base"):
            found.append(f"<{tag.name}>")
        if tag.name == "style" and (match := _CSS_FETCH.search(tag.get_text())):
            found.append(f"<style> {match.group(0)[:100]}")
        if tag.name == "script" and str(tag.get("type", "")) != "application/json":
            found += re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+", tag.get_text())
            found += re.findall(r"\b(?:fetch|XMLHttpRequest|import|WebSocket)\s*\(", tag.get_text())
    return found


def _ends_elsewhere(text: object) -> bool:
    """Whether a browser may see an end inside of what the parser here takes for a whole."""
    if isinstance(text, Comment):
        return bool(re.match(r"-?>", text)) or "--!>" in text
    return isinstance(text, PreformattedString) and ">" in text

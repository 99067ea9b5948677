"""Pages that need no network: take out what reaches outside, and find what still does.

Notebooks and corpora may come from strangers. What a page of theirs would fetch, run or
submit is removed on the way into a report, whatever the browser's policy would do.
"""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag

# Elements that fetch or run something, or that change how the page is read.
_FORBIDDEN = ("script", "iframe", "frame", "object", "embed", "applet", "link", "base", "form",
              "audio", "video", "source", "track", "portal", "template", "noscript")  # fmt: skip
_FETCHING = ("src", "srcset", "href", "xlink:href", "data", "poster", "background", "action",
             "formaction", "ping", "manifest", "cite", "longdesc")  # fmt: skip
_CSS_FETCH = re.compile(r"url\(\s*['\"]?(?!data:|#)([^'\")]*)|@import\s+(?!url)([^;]*)", re.I)


def seal(html: str) -> str:
    """Remove from a page all that fetches, runs or submits; what was a link stays as text."""
    soup = BeautifulSoup(html, "html.parser")
    for tag in soup.find_all(_FORBIDDEN):
        tag.decompose()
    for tag in soup.find_all("meta"):
        if str(tag.get("http-equiv", "")).lower() not in ("", "content-security-policy"):
            tag.decompose()
    for tag in soup.find_all(True):
        _seal_tag(soup, tag)
    for tag in soup.find_all("style"):
        tag.string = _CSS_FETCH.sub("none(", tag.get_text())
    return str(soup)


def _seal_tag(soup: BeautifulSoup, tag: Tag) -> None:
    for name in [n for n in tag.attrs if n.lower().startswith("on")]:
        del tag[name]
    if "style" in tag.attrs and _CSS_FETCH.search(str(tag["style"])):
        del tag["style"]
    for name in [n for n in tag.attrs if n.lower() in _FETCHING]:
        address = "".join(str(tag[name]).split())
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
    return tag.name == "a" and not re.match(r"[a-z][a-z0-9+.-]*:|//|\\", address, re.I)


def assert_offline(html: str) -> list[str]:
    """List every reference of a page to something outside of it; an empty list is what we want.

    Looks at attributes that fetch or lead away, at ``url(...)`` and ``@import`` in styles,
    at scripts that name an address, and at forbidden elements.

    Examples
    --------
    >>> assert_offline('<img alt="" src="https://example.org/a.png"><p>see example.org</p>')
    ['<img src="https://example.org/a.png">']
    """
    soup = BeautifulSoup(html, "html.parser")
    found = []
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            text = " ".join(value) if isinstance(value, list) else str(value)
            address = "".join(text.split())
            leads = name.lower() in _FETCHING and re.match(
                r"(?!data:)[a-z][a-z0-9+.-]*:|//", address, re.I
            )
            if leads or (name.lower() == "style" and _CSS_FETCH.search(text)):
                found.append(f'<{tag.name} {name}="{text[:100]}">')
        if tag.name in ("iframe", "object", "embed", "base"):
            found.append(f"<{tag.name}>")
        if tag.name == "style" and (match := _CSS_FETCH.search(tag.get_text())):
            found.append(f"<style> {match.group(0)[:100]}")
        if tag.name == "script" and str(tag.get("type", "")) != "application/json":
            found += re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+", tag.get_text())
            found += re.findall(r"\b(?:fetch|XMLHttpRequest|import|WebSocket)\s*\(", tag.get_text())
    return found

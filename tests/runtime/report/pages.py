"""A page, read as a browser would: its elements, ids, links, sections and images."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "link", "br", "img", "input", "hr"}


@dataclass
class Element:
    """An element with what stands in it."""

    tag: str
    attributes: dict[str, str | None]
    within: list["Element"] = field(default_factory=list)
    said: str = ""

    def all(self, tag):
        """Every element of a tag, in order."""
        return ([self] if self.tag == tag else []) + [e for part in self.within for e in part.all(tag)]

    @property
    def text(self):
        """All words within."""
        return " ".join([self.said, *(part.text for part in self.within)]).strip()


class Page(HTMLParser):
    """A page whose every tag is closed where it has to be."""

    def __init__(self, html):
        super().__init__()
        self.root = Element("document", {})
        self.open = [self.root]
        self.elements = []
        self.feed(html)
        self.close()
        assert self.open == [self.root], [element.tag for element in self.open]

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        self.open[-1].within.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag, tag

    def handle_data(self, data):
        self.open[-1].said += data

    @property
    def headings(self):
        """(level, words) of every heading."""
        return [(int(e.tag[1]), e.text) for e in self.elements if e.tag in ("h1", "h2", "h3", "h4")]

    def tables(self):
        """Caption -> rows of words, the head first."""
        return {
            table.all("caption")[0].text: [
                [cell.text for cell in row.within if cell.tag in ("th", "td")] for row in table.all("tr")
            ]
            for table in self.root.all("table")
        }


def check(html):
    """Return a page that holds to all rules: whole, closed, labelled, and without anything from elsewhere."""
    assert html.startswith("<!DOCTYPE html>")
    page = Page(html)
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for e in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert e.attributes.get(name) is None or e.attributes[name] in ids
        if e.tag == "a":
            assert e.attributes["href"][0] == "#"
            assert e.attributes["href"][1:] in ids
            assert e.text
        if e.tag == "svg":
            assert e.attributes["role"] == "img"
            assert e.attributes.get("aria-label") or e.all("title")[0].text
        if e.tag == "table":
            long = {len(row.within) for row in e.all("tr")}
            assert len(long) == 1
            assert e.all("caption")[0].text
            assert all(cell.attributes["scope"] in ("row", "col") for cell in e.all("th"))
        if "tabindex" in e.attributes:
            assert e.attributes["tabindex"] in ("0", "-1")
        assert e.tag not in ("script", "img", "iframe", "object")
        assert not any(name.startswith("on") for name in e.attributes)
        assert e.tag != "link" or e.attributes["href"] == "data:,"
    for word in ("url(http", "@import", "src=", 'href="http', "url(//", "NaN", "nan ", "inf "):
        assert word not in html, word
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    (html_,) = page.root.all("html")
    assert html_.attributes["lang"] == "en"
    for tag in ("header", "main", "nav", "head"):
        assert len(page.root.all(tag)) == 1
    assert page.root.all("head")[0].all("title")[0].text
    return page

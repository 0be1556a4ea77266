"""As much of a browser as `static/js/agent.js` needs, to compare pages."""

from html.parser import HTMLParser
from xml.etree.ElementTree import Element, TreeBuilder

VOID = {"br", "hr", "img", "input", "link", "meta"}


class _Reader(HTMLParser):
    """Builds a tree, and fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.builder = TreeBuilder()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        if tag in VOID:
            self.builder.end(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        self.builder.end(tag)

    def handle_endtag(self, tag: str) -> None:
        self.builder.end(tag)

    def handle_data(self, data: str) -> None:
        self.builder.data(data)


def parse(html: str) -> Element:
    reader = _Reader()
    reader.feed(html.strip())
    return reader.builder.close()


class Page:
    """A page that applies the changes of an agent's socket."""

    def __init__(self, html: str) -> None:
        """Read the page as the server made it."""
        self.root = parse(f"<body>{html}</body>")

    def draw(self, changes: list[dict[str, object]]) -> None:
        """What `draw` of agent.js does."""
        for change in changes:
            if change["op"] == "put":
                self._put(change)
            else:
                self._add_text(change)

    def find(self, id: str) -> Element | None:
        return next((e for e in self.root.iter() if e.get("id") == id), None)

    def _put(self, change: dict[str, object]) -> None:
        fresh, old = parse(str(change["html"])), self.find(str(change["id"]))
        if old is not None:
            tail = old.tail
            old.clear()
            old.tag, old.text, old.tail = fresh.tag, fresh.text, tail
            old.attrib.update(fresh.attrib)
            old.extend(list(fresh))
        elif (parent := self.find(str(change["into"]))) is not None:
            parent.append(fresh)

    def _add_text(self, change: dict[str, object]) -> None:
        element = self.find(str(change["id"]))
        if element is None or int(element.get("data-length", -1)) != change["at"]:
            return
        element.text = (element.text or "") + str(change["d"])
        element.set("data-length", str(change["at"] + change["n"]))

    def shown(self) -> list[object]:
        """All elements, attributes and words, without layout's white space."""
        return [_shown(element) for element in self.root]


def _shown(element: Element) -> list[object]:
    words = " ".join((element.text or "").split())
    rest = [[_shown(child), " ".join((child.tail or "").split())] for child in element]
    return [element.tag, sorted(element.attrib.items()), words, rest]

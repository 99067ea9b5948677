"""The scrubber in a page without Jupyter, answered by the real one."""

import base64

import pytest


def on_wire(value):
    """A value as the page decodes it: bytes as base64."""
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, dict):
        return {name: on_wire(each) for name, each in value.items()}
    return [on_wire(each) for each in value] if isinstance(value, list) else value


@pytest.fixture
def open_scrubber(open_widget):
    """Open ``rb.scrub(run, other)`` alone in a page; it must stay quiet."""

    def start(run, other=None, **look):
        from rbkit.show.scrub.scrubber import ScrubberWidget, scrub
        from rbkit.show.widgets import joined

        scrubber = scrub(run, other, display="live")
        widget, sent = scrubber.widget, []
        widget.send = lambda content, buffers=None: sent.append(
            {**content, "buffers": [on_wire(each) for each in buffers or []]}
        )
        names = [name for name in vars(ScrubberWidget) if widget.has_trait(name) and name[0] != "_"]

        def hear(event):
            if event["kind"] == "save":
                widget.set_trait(event["name"], event["value"])
                return None
            before = {name: id(getattr(widget, name)) for name in names}
            widget._handle_custom_msg(event["message"], [])
            changed = {
                name: on_wire(getattr(widget, name))
                for name in names
                if id(getattr(widget, name)) != before[name]
            }
            replies, sent[:] = list(sent), []
            return {"state": changed, "replies": replies}

        state = {name: on_wire(getattr(widget, name)) for name in names}
        page = open_widget(joined("js", "scrubber"), joined("css", "scrubber"), state, hear, **look)
        page.py = scrubber
        return page

    return start
